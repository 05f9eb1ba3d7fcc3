use std::collections::BTreeMap;
use std::process::Output;

use serde_json::Value;

use crate::schema;
use crate::support::{FakeStore, stderr};

/// Copies an image of two layers to a layout with these options.
fn copy(store: &FakeStore, options: &[&str]) -> Output {
    let output = store
        .stowage(&[&["copy", "image.json", "oci:layout"], options].concat())
        .env("CI", if options.is_empty() { "true" } else { "false" })
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    output
}

fn image() -> FakeStore {
    let mut store = FakeStore::new();
    let big = store.add_file('1', "big", &[], &"big".repeat(100_000));
    store.add_file('2', "small", &[&big], "small");
    store.build(r#"{"layering": "largest-first"}"#);
    store
}

#[test]
fn logs_have_a_line_for_each_layer_that_is_sent() {
    let store = image();
    let first = stderr(&copy(&store, &["--progress", "plain"]));
    let lines: Vec<_> = first.lines().filter(|line| line.starts_with("sent layer")).collect();
    assert_eq!(lines.len(), 2, "{first}");
    for (number, name) in [(1, "): big"), (2, "): small")] {
        let begin = format!("sent layer {number} of 2 (");
        let found = lines.iter().any(|line| line.starts_with(&begin) && line.ends_with(name));
        assert!(found, "{first}");
    }
    let again = stderr(&copy(&store, &["--progress", "plain"]));
    assert!(!again.contains("sent layer"), "{again}");
    assert!(!again.contains('\u{1b}'), "no terminal, no bars: {again}");
}

/// Runs a command on a terminal with this number of columns. Returns the output, with its control
/// sequences.
fn on_a_terminal(store: &FakeStore, columns: u32, command: &str) -> String {
    on_a_terminal_with(store, columns, command, &[])
}

/// Does the same with environment variables.
fn on_a_terminal_with(
    store: &FakeStore,
    columns: u32,
    command: &str,
    variables: &[(&str, &str)],
) -> String {
    let program = env!("CARGO_BIN_EXE_stowage");
    let root = store.root().display();
    let command = format!("stty cols {columns} rows 24; {program} --root '{root}' {command}");
    let mut script = std::process::Command::new("script");
    script.args(["--quiet", "--return", "--command", &command, "/dev/null"]);
    script.current_dir(store.root()).env("TERM", "xterm").env("LC_ALL", "C.UTF-8");
    for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
        script.env_remove(variable);
    }
    script.envs(variables.iter().copied());
    let output = script.stdin(std::process::Stdio::null()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Removes the sequences that move the cursor and change colours.
fn visible(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, sequence)) = rest.split_once("\u{1b}[") {
        text += before;
        rest =
            sequence.trim_start_matches(|c: char| !c.is_ascii_alphabetic()).get(1..).unwrap_or("");
    }
    text + rest
}

#[test]
fn bars_fit_the_terminal() {
    let mut store = FakeStore::new();
    let name = "a-package-with-a-name-that-is-longer-than-the-terminal-is-wide-0.0";
    store.add_file('1', name, &[], &"big".repeat(4 << 20));
    store.build("{}");
    for columns in [40, 60, 80, 200] {
        let target = format!("copy image.json oci:layout-{columns} --progress bars");
        let output = on_a_terminal(&store, columns, &target);
        let bars: Vec<_> = output.split(['\r', '\n']).map(visible).collect();
        // The summary at the end is not a bar.
        let is_bar = |line: &&String| line.contains("12.6 MB") && !line.starts_with("sent ");
        let bars: Vec<_> = bars.iter().filter(is_bar).collect();
        assert!(bars.len() > 1, "{columns}: {output:?}");
        assert!(!output.contains("MiB"), "{output:?}");
        for bar in bars {
            // After a bar of full width, the next bar follows without a newline.
            let (layer, all) = bar.split_at(bar.find("sending").unwrap_or(bar.len()));
            for line in [layer, all] {
                assert!(line.chars().count() <= columns as usize, "{columns}: {bar:?}");
            }
        }
    }
}

#[test]
fn bars_are_ascii_where_the_terminal_is_not_for_utf_8() {
    let mut store = FakeStore::new();
    store.add_file('1', "big", &[], &"big".repeat(4 << 20));
    store.build("{}");
    for (locale, drawn) in
        [("C", "##"), ("de_DE.ISO-8859-1", "##"), ("C.UTF-8", "██"), ("C.utf8", "██")]
    {
        let target = format!("copy image.json oci:layout-{locale} --progress bars");
        let output = on_a_terminal_with(&store, 80, &target, &[("LC_ALL", locale)]);
        assert!(output.contains(drawn), "{locale}: {output}");
        assert_eq!(output.is_ascii(), drawn == "##", "{locale}: {output}");
    }
}

#[test]
fn errors_have_clap_s_colours_on_a_terminal_alone() {
    let store = image();
    let command = "explain image.json --why nonesuch";
    let coloured = on_a_terminal(&store, 80, command);
    let expected = "\u{1b}[1m\u{1b}[31merror:\u{1b}[0m no store path";
    assert!(coloured.contains(expected), "{coloured:?}");
    assert!(coloured.contains("\u{1b}[32mhint:\u{1b}[0m "), "{coloured:?}");
    let plain = on_a_terminal_with(&store, 80, command, &[("NO_COLOR", "1")]);
    assert!(plain.starts_with("error: no store path"), "{plain:?}");
    let piped = store.stowage(&["explain", "image.json", "--why", "nonesuch"]).output().unwrap();
    assert!(stderr(&piped).starts_with("error: no store path"), "{}", stderr(&piped));
}

/// Checks that bars, errors and clap's errors agree, also where <https://no-color.org> and the bars' library differ.
#[test]
fn bars_and_errors_agree_on_colours() {
    let mut store = FakeStore::new();
    store.add_file('1', "big", &[], &"big".repeat(4 << 20));
    store.build("{}");
    let cases: [(&[(&str, &str)], bool); 9] = [
        (&[], true),
        (&[("NO_COLOR", "1")], false),
        (&[("NO_COLOR", "")], true),
        (&[("NO_COLOR", "0")], false),
        (&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], false),
        (&[("NO_COLOR", ""), ("CLICOLOR_FORCE", "1")], true),
        (&[("CLICOLOR", "0")], false),
        (&[("TERM", "dumb"), ("CLICOLOR_FORCE", "1")], true),
        (&[("HOME", "/homeless-shelter"), ("CLICOLOR_FORCE", "1")], false),
    ];
    for (number, (variables, is_coloured)) in cases.into_iter().enumerate() {
        let on_terminal = |command: &str| on_a_terminal_with(&store, 80, command, variables);
        // Sequences that end in `m` are colours and weights; others move the cursor.
        let colours = |output: &str| {
            output.split("\u{1b}[").skip(1).any(|rest| {
                rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m')
            })
        };
        let bars = on_terminal(&format!("copy image.json oci:layout-{number} --progress bars"));
        // A terminal that can't move its cursor has no bars, and Nix's log neither.
        let has_bars = variables.iter().all(|(name, _)| !["TERM", "HOME"].contains(name));
        assert_eq!(bars.contains("sending"), has_bars, "{variables:?}: {bars:?}");
        assert_eq!(colours(&bars), is_coloured && has_bars, "{variables:?}: {bars:?}");
        let error = on_terminal("explain image.json --why nonesuch");
        assert_eq!(colours(&error), is_coloured, "{variables:?}: {error:?}");
        let usage = on_terminal("explain --nonesuch");
        let is_nix = variables.iter().any(|(name, _)| *name == "HOME");
        assert_eq!(colours(&usage), is_coloured || is_nix, "{variables:?}: {usage:?}");
    }
}

#[test]
fn where_nobody_looks_there_is_only_the_account() {
    let store = image();
    let text = stderr(&copy(&store, &["--progress", "none"]));
    assert_eq!(text.lines().count(), 1, "{text}");
    assert_eq!(stderr(&copy(&store, &["--json"])), "");
    let store = image();
    let in_ci = stderr(&copy(&store, &[]));
    assert!(in_ci.contains("sent layer 1 of 2"), "{in_ci}");
}

/// Checks that standard error may be closed, as in `2> >(head -1)`.
#[test]
fn nobody_has_to_listen() {
    let store = image();
    store.write("registration", &store.registration());
    for arguments in [
        &["build", "--closure", "registration", "-o", "again.json"][..],
        &["copy", "image.json", "oci:plain", "--progress", "plain"],
        &["copy", "image.json", "oci:json", "--progress", "json"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = store.stowage(arguments).stderr(writer).status().unwrap();
        assert_eq!(status.code(), Some(0), "{arguments:?}");
    }
    for made in ["again.json", "plain/index.json", "json/index.json"] {
        assert!(store.root().join(made).exists(), "{made}");
    }
}

#[test]
fn programs_read_events() {
    let store = image();
    let events = |output: Output| -> Vec<Value> {
        let text = stderr(&output);
        text.lines().map(|line| schema::checked("progress", line)).collect()
    };
    // All lines are events, even if there are warnings.
    store.build(r#"{"layering": "largest-first", "config": {"Cmd": ["/nowhere"]}}"#);
    let options = ["--progress", "json"];
    let first = events(copy(&store, &options));
    let sent: BTreeMap<u64, &Value> = first
        .iter()
        .filter(|event| event["event"] == "sent")
        .map(|event| (event["layer"].as_u64().unwrap(), event))
        .collect();
    let spec: Value =
        serde_json::from_slice(&std::fs::read(store.root().join("image.json")).unwrap()).unwrap();
    for (number, event) in &sent {
        let layer = &spec["layers"][*number as usize - 1];
        assert_eq!((&event["digest"], &event["bytes"]), (&layer["diffId"], &layer["size"]));
    }
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[&1]["names"], "big");
    let expected: u64 = sent.values().map(|event| event["bytes"].as_u64().unwrap()).sum();
    let expect = first.iter().find(|event| event["event"] == "expect").unwrap();
    assert_eq!(expect["bytes"], expected);
    let progress = first.iter().rfind(|event| event["event"] == "progress").unwrap();
    assert_eq!(progress["of"], expected);

    let warning = first.iter().find(|event| event["event"] == "warning").unwrap();
    assert!(warning["message"].as_str().unwrap().contains("/nowhere"), "{warning}");

    let again = events(copy(&store, &options));
    let skipped = again.iter().filter(|event| event["event"] == "skipped").count();
    assert_eq!(skipped, 2, "{again:?}");
}
