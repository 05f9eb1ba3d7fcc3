use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::agreeable::{Agreeable, Setup};
use super::{image, push, write_home};
use crate::support::stderr;

/// The name of an image at a host that no resolver knows.
const NAME: &str = "reg.invalid:5000/a/b:v1";

#[test]
fn registries_conf_says_how_a_host_is_reached() {
    let store = image();
    let conf = ".config/containers/registries.conf";
    write_home(&store, conf, "[[registry]]\nlocation = \"reg.invalid:5000\"\nblocked = true\n");
    let error = push(&store, NAME, &[], &[]).unwrap_err();
    assert!(error.contains("reg.invalid:5000/a/b: `reg.invalid:5000` is blocked by "), "{error}");
    // A file that a variable names replaces all others.
    let other = store.write("other.conf", "[[registry]\n");
    let variables = [("CONTAINERS_REGISTRIES_CONF", other.to_str().unwrap())];
    let error = push(&store, NAME, &[], &variables).unwrap_err();
    assert!(error.contains("other.conf: line 1: "), "{error}");
    // A flag forbids plain HTTP for a registry on this machine, and no setting does.
    let registry = Agreeable::start(Setup::default());
    let insecure = format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", registry.host);
    write_home(&store, conf, &insecure);
    let name = format!("{}/a/b:v1", registry.host);
    push(&store, &name, &[], &[]).unwrap();
    push(&store, &name, &["--dest-tls-verify=true"], &[]).unwrap_err();
    // A later file counts.
    write_home(
        &store,
        ".config/containers/registries.conf.d/9.conf",
        "[[registry]]\nprefix = \"127.0.0.1:1\"\nlocation = \"x\"\nblocked = true\n",
    );
    push(&store, &name, &[], &[]).unwrap();
    let error = push(&store, "127.0.0.1:1/a:v1", &[], &[]).unwrap_err();
    assert!(error.contains("is blocked by ") && error.contains("9.conf"), "{error}");
}

/// Checks that a block counts for registries with a port, and that settings without an effect are
/// mistakes.
#[test]
fn a_block_is_not_passed_by_a_port() {
    let store = image();
    let registry = Agreeable::start(Setup::default());
    let name = format!("{}/a:v1", registry.host);
    for (text, expected) in [
        ("prefix = '*.0.0.1'", "`*.0.0.1` is blocked by "),
        ("prefix = '127.0.0.1'", "`127.0.0.1` is blocked by "),
        ("prefix = '*.0.0.1/a'", "a pattern is `*.DOMAIN`, without a port or a path"),
        ("prefix = '*0.0.1'", "a pattern is `*.DOMAIN`, without a port or a path"),
    ] {
        let conf = format!("[[registry]]\n{text}\nblocked = true\n");
        write_home(&store, ".config/containers/registries.conf", &conf);
        let error = push(&store, &name, &[], &[]).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
    assert!(registry.requests().is_empty());
}

/// Checks that a FIFO, which has no writer, is refused wherever a file of settings is named.
#[test]
fn a_fifo_is_no_file_of_settings() {
    let store = image();
    let fifo = store.root().join("fifo");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let fifo = fifo.to_str().unwrap();
    let registry =
        Agreeable::start(Setup { wants: Some("Basic dTpw".to_owned()), ..Setup::default() });
    let name = format!("{}/a:v1", registry.host);
    for (flags, variables) in [
        (&[][..], &[("CONTAINERS_REGISTRIES_CONF", fifo)][..]),
        (&[], &[("REGISTRY_AUTH_FILE", fifo)]),
        (&["--authfile", fifo], &[]),
        (&["--sign-key", fifo], &[]),
    ] {
        let error = push(&store, &name, flags, variables).unwrap_err();
        assert!(error.contains("fifo") && error.contains("it is no regular file"), "{error}");
    }
}

/// Checks that the error of an image that is nowhere names each place, and not only the last one.
#[test]
fn every_mirror_is_named_if_all_fail() {
    let store = image();
    let mirror = Agreeable::start(Setup::default());
    let conf = format!(
        "[[registry]]\nlocation = \"reg.invalid:5000\"\n[[registry.mirror]]\nlocation = \"{}\"\n\
         [[registry.mirror]]\nlocation = \"mirror.invalid\"\n",
        mirror.host
    );
    write_home(&store, ".config/containers/registries.conf", &conf);
    let mut prefetch = store.stowage(&["prefetch", NAME]);
    let output = prefetch.env("HOME", store.root().join("home")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = stderr(&output);
    let place = format!("no mirror has the image ({}: there is no ", mirror.host);
    for part in [&place[..], "; mirror.invalid: ", "neither has the registry: ", "reg.invalid:5000"]
    {
        assert!(error.contains(part), "{part}: {error}");
    }
}
