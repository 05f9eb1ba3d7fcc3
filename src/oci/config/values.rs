//! Checks the values of a `config`, key by key, as Docker reads them.
//! Stage: oci (pure). Input: a value of the right type. Output: the value, or what is wrong with it.
//!
//! A value that Docker would refuse when the image is loaded or run is refused when it is built.
//! Sources: image-spec, config.md; moby, `daemon/internal/runconfig`, `daemon/container_operations`
//! and `pkg/signal`; Go, `time.ParseDuration`.

use std::fmt;

use serde_json::{Map, Value};

use super::ConfigError;
use crate::error::nearest_of;
use crate::image_path::ImagePath;
use crate::oci::annotations::check_annotation;

/// Checks the value of a key in its canonical spelling. Durations that are texts become numbers.
///
/// # Errors
/// Fails with [`ConfigError::WrongValue`] or [`ConfigError::UnknownKeyWithin`].
pub(super) fn check(key: &'static str, value: &mut Value) -> Result<(), ConfigError> {
    match (key, value) {
        ("Env", Value::Array(variables)) => each_text(key, variables, is_variable, "NAME=value"),
        ("ExposedPorts", Value::Object(ports)) => each_key(
            key,
            ports,
            is_port,
            "a port such as `80`, `80/tcp`, `53/udp` or `8000-8010/tcp`",
        ),
        ("Volumes", Value::Object(volumes)) => {
            each_key(key, volumes, is_volume, "an absolute path, and not `/` itself")?;
            each_key(key, volumes, is_free, "a path at which engines mount nothing themselves")
        }
        ("User", Value::String(user)) if !is_user(user) => Err(wrong(key, user, USER)),
        ("WorkingDir", Value::String(path)) if !path.is_empty() && !path.starts_with('/') => {
            Err(wrong(key, path, "an absolute path"))
        }
        ("StopSignal", Value::String(signal)) if !signal.is_empty() && !is_signal(signal) => {
            Err(wrong(key, signal, "a signal such as `SIGTERM`, `TERM`, `SIGRTMIN+3` or `15`"))
        }
        ("Healthcheck", Value::Object(check)) => healthcheck(check),
        ("Labels", Value::Object(labels)) => labels.iter().try_for_each(|(name, value)| {
            let checked = check_annotation(name, value.as_str().unwrap_or_default());
            checked.map_err(ConfigError::Label)
        }),
        _ => Ok(()),
    }
}

fn wrong(key: &str, found: impl fmt::Display, expected: &'static str) -> ConfigError {
    ConfigError::WrongValue { key: key.to_owned(), expected, found: format!("`{found}`") }
}

fn each_text(
    key: &str,
    texts: &[Value],
    is_right: fn(&str) -> bool,
    expected: &'static str,
) -> Result<(), ConfigError> {
    let texts = texts.iter().filter_map(Value::as_str);
    texts.zip(0..).try_for_each(|(text, index)| match is_right(text) {
        true => Ok(()),
        false => Err(wrong(&format!("{key}[{index}]"), text, expected)),
    })
}

fn each_key(
    key: &str,
    set: &Map<String, Value>,
    is_right: fn(&str) -> bool,
    expected: &'static str,
) -> Result<(), ConfigError> {
    set.keys().try_for_each(|member| match is_right(member) {
        true => Ok(()),
        false => {
            Err(ConfigError::WrongMember { key: key.to_owned(), member: member.clone(), expected })
        }
    })
}

/// Returns whether a text is `NAME=value`. A name is anything without `=`, as on Linux.
fn is_variable(text: &str) -> bool {
    text.split_once('=').is_some_and(|(name, _)| !name.is_empty()) && !text.contains('\0')
}

/// Returns whether a text is `PORT`, `PORT/PROTOCOL` or a range of ports with or without one.
fn is_port(text: &str) -> bool {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| !text.starts_with('+'));
    let is_range = match ports.split_once('-') {
        None => number(ports).is_some(),
        Some((first, last)) => number(first).zip(number(last)).is_some_and(|(a, b)| a <= b),
    };
    is_range && ["tcp", "udp", "sctp"].contains(&&*protocol.to_ascii_lowercase())
}

fn is_volume(path: &str) -> bool {
    path.starts_with('/') && !ImagePath::normal(path.as_bytes()).is_root()
}

/// Returns whether Docker starts a container with a volume at this path, for all that engines mount
/// there (moby, `oci/defaults.go`, and `container/container_unix.go` for the files in `/etc`).
fn is_free(path: &str) -> bool {
    const FILES: [&[u8]; 4] = [b"hosts", b"hostname", b"resolv.conf", b"mtab"];
    let path = ImagePath::normal(path.as_bytes());
    match path.components().collect::<Vec<_>>()[..] {
        [b"proc", ..] | [b"dev"] | [b"sys", _, ..] => false,
        [b"etc", file] => !FILES.contains(&file),
        _ => true,
    }
}

const USER: &str = "a user and perhaps a group, each by name or by a number from 0 to 2147483647, such as `1000:1000`";

/// Returns whether each number in `user[:group]` is one that engines take (runc, `libcontainer/user`).
fn is_user(user: &str) -> bool {
    let is_number = |text: &str| {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit())
    };
    user.split(':').take(2).all(|part| match is_number(part) {
        true => part.parse::<i64>().is_ok_and(|number| (0..=2_147_483_647).contains(&number)),
        false => true,
    })
}

/// The names of Linux' signals, without `SIG` (signal(7)).
const SIGNALS: [&str; 34] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// Returns whether a text is a signal's number or name, in any letter case, with `SIG` or without.
fn is_signal(text: &str) -> bool {
    if text.bytes().all(|digit| digit.is_ascii_digit()) {
        return text.parse().is_ok_and(|number: u8| (1..=64).contains(&number));
    }
    let text = text.to_ascii_uppercase();
    let name = text.strip_prefix("SIG").unwrap_or(&text);
    let is_beside = |begin: &str, sign: char| {
        let rest = name.strip_prefix(begin);
        rest.is_some_and(|rest| {
            let number = rest.strip_prefix(sign).map(str::parse);
            rest.is_empty() || number.is_some_and(|number| matches!(number, Ok(1..=30_u8)))
        })
    };
    SIGNALS.contains(&name) || is_beside("RTMIN", '+') || is_beside("RTMAX", '-')
}

const DURATIONS: [&str; 4] = ["Interval", "Timeout", "StartPeriod", "StartInterval"];

/// Checks a health check (image-spec has none; moby, `HealthConfig`), and gives its keys their
/// canonical spelling.
fn healthcheck(check: &mut Map<String, Value>) -> Result<(), ConfigError> {
    let known = || DURATIONS.into_iter().chain(["Test", "Retries"]);
    for (written, mut value) in std::mem::take(check) {
        let Some(key) = known().find(|key| key.eq_ignore_ascii_case(&written)) else {
            let suggestion = nearest_of(known(), &written);
            return Err(ConfigError::UnknownKeyWithin {
                of: "Healthcheck",
                key: written,
                suggestion,
            });
        };
        if value.is_null() {
            continue;
        }
        let refused =
            |value: &Value, expected| wrong(&format!("Healthcheck.{key}"), value, expected);
        match key {
            "Test" => test_command(&value)?,
            "Retries" if value.as_u64().is_none() => {
                return Err(refused(&value, "a number, 0 or more"));
            }
            "Retries" => {}
            _ => {
                const EXPECTED: &str = "a duration such as \"30s\" or \"1m30s\", or a number of nanoseconds; 0, or at least a millisecond";
                let nanoseconds = match &value {
                    Value::String(text) => duration(text),
                    other => other.as_u64(),
                };
                let is_right = |nanoseconds: &u64| *nanoseconds == 0 || *nanoseconds >= 1_000_000;
                let in_range = nanoseconds.filter(is_right).filter(|it| i64::try_from(*it).is_ok());
                value = in_range.ok_or_else(|| refused(&value, EXPECTED))?.into();
            }
        }
        if check.insert(key.to_owned(), value).is_some() {
            return Err(ConfigError::RepeatedKeyWithin { of: "Healthcheck", key });
        }
    }
    Ok(())
}

/// Checks the command of a health check.
fn test_command(value: &Value) -> Result<(), ConfigError> {
    const EXPECTED: &str =
        "[ \"CMD\" \"PROGRAM\" \"ARGUMENT\" ], [ \"CMD-SHELL\" \"COMMAND LINE\" ] or [ \"NONE\" ]";
    let words: Option<Vec<&str>> =
        value.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
    let is_right = words.is_some_and(|words| match words[..] {
        [] | ["NONE"] | ["CMD-SHELL", _] => true,
        ["CMD", ref command @ ..] => !command.is_empty(),
        _ => false,
    });
    if is_right { Ok(()) } else { Err(wrong("Healthcheck.Test", value, EXPECTED)) }
}

/// Parses a duration as Go writes it, such as `1h15m30.5s`, to nanoseconds.
fn duration(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("μs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(0);
    }
    let mut total: u64 = 0;
    while !rest.is_empty() || total == 0 && rest.len() == text.len() {
        let length = rest.find(|digit: char| !digit.is_ascii_digit() && digit != '.')?;
        let (number, behind) = rest.split_at(length);
        let end = behind.find(|digit: char| digit.is_ascii_digit() || digit == '.');
        let (unit, behind) = behind.split_at(end.unwrap_or(behind.len()));
        let (_, size) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(size)?)?;
        // Digits below a nanosecond count for nothing.
        let mut scale = size;
        for digit in fraction.bytes().take(15) {
            scale /= 10;
            total = total.checked_add(u64::from(digit - b'0') * scale)?;
        }
        rest = behind;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::ContainerConfig;
    use super::*;

    fn message(config: Value) -> Option<String> {
        ContainerConfig::new(config).err().map(|error| error.to_string())
    }

    #[test]
    fn values_that_docker_takes_are_taken() {
        for config in [
            json!({"WorkingDir": ""}),
            json!({"WorkingDir": "/srv/app"}),
            json!({"Env": ["A=1", "EMPTY=", "odd.name=x", "EQUALS=a=b"]}),
            json!({"ExposedPorts": {"80": {}, "80/tcp": {}, "53/UDP": {}, "8000-8010/tcp": {}, "9/sctp": {}}}),
            json!({"Volumes": {"/data": {}, "/a b/": {}, "/a/../b": {}, "/sys": {}, "/dev/shm": {}, "/run": {}, "/etc": {}}}),
            json!({"User": ""}),
            json!({"User": "me"}),
            json!({"User": "2147483647:2147483647"}),
            json!({"User": "me:"}),
            json!({"User": ":0"}),
            json!({"User": "+5:007"}),
            json!({"User": "me:me:99999999999"}),
            json!({"Labels": {"a b": "two\nlines"}}),
            json!({"StopSignal": "SIGTERM"}),
            json!({"StopSignal": "term"}),
            json!({"StopSignal": "15"}),
            json!({"StopSignal": "SIGRTMIN+3"}),
            json!({"StopSignal": "RTMAX-14"}),
            json!({"StopSignal": ""}),
            json!({"Healthcheck": {}}),
            json!({"Healthcheck": {"Test": []}}),
            json!({"Healthcheck": {"Test": ["NONE"]}}),
            json!({"Healthcheck": {"Test": ["CMD", "/bin/check"], "Interval": 5_000_000_000_u64, "Retries": 3}}),
            json!({"Healthcheck": {"Test": ["CMD-SHELL", "curl localhost || exit 1"], "Timeout": 0}}),
        ] {
            assert_eq!(message(config.clone()), None, "{config}");
        }
    }

    #[test]
    fn values_that_docker_refuses_are_named() {
        for (config, expected) in [
            (
                json!({"WorkingDir": "srv/app"}),
                "`config.WorkingDir` must be an absolute path, not `srv/app`",
            ),
            (json!({"Env": ["A=1", "PATH"]}), "`config.Env[1]` must be NAME=value, not `PATH`"),
            (json!({"Env": ["=1"]}), "`config.Env[0]` must be NAME=value, not `=1`"),
            (
                json!({"ExposedPorts": {"http": {}}}),
                "`config.ExposedPorts` has `http`, which must be a port such as `80`, `80/tcp`, `53/udp` or `8000-8010/tcp`",
            ),
            (
                json!({"ExposedPorts": {"70000/tcp": {}}}),
                "`config.ExposedPorts` has `70000/tcp`, which must be a port such as `80`, `80/tcp`, `53/udp` or `8000-8010/tcp`",
            ),
            (
                json!({"Volumes": {"data": {}}}),
                "`config.Volumes` has `data`, which must be an absolute path, and not `/` itself",
            ),
            (
                json!({"Volumes": {"/proc/x": {}}}),
                "`config.Volumes` has `/proc/x`, which must be a path at which engines mount nothing themselves",
            ),
            (
                json!({"User": "2147483648"}),
                "`config.User` must be a user and perhaps a group, each by name or by a number from 0 to 2147483647, such as `1000:1000`, not `2147483648`",
            ),
            (json!({"Labels": {"": "x"}}), "`config.Labels` has a key of no letters"),
            (
                json!({"Labels": {"a": "\u{1b}[2J"}}),
                "`config.Labels` has the key `a`, with a control character in its value",
            ),
            (
                json!({"StopSignal": "SIGNOTHING"}),
                "`config.StopSignal` must be a signal such as `SIGTERM`, `TERM`, `SIGRTMIN+3` or `15`, not `SIGNOTHING`",
            ),
            (
                json!({"Healthcheck": {"Test": "curl"}}),
                "`config.Healthcheck.Test` must be [ \"CMD\" \"PROGRAM\" \"ARGUMENT\" ], [ \"CMD-SHELL\" \"COMMAND LINE\" ] or [ \"NONE\" ], not `\"curl\"`",
            ),
            (
                json!({"Healthcheck": {"Retries": "3"}}),
                "`config.Healthcheck.Retries` must be a number, 0 or more, not `\"3\"`",
            ),
            (
                json!({"Healthcheck": {"Intervall": 5}}),
                "`config.Healthcheck` has an unknown key `Intervall`; did you mean `Interval`?",
            ),
            (
                json!({"Healthcheck": {"test": [], "Test": []}}),
                "`config.Healthcheck` has the key `Test` twice, in different letter case",
            ),
        ] {
            assert_eq!(message(config).as_deref(), Some(expected));
        }
        for test in [json!(["curl"]), json!(["CMD"]), json!(["CMD-SHELL", "a", "b"]), json!([1])] {
            assert!(message(json!({"Healthcheck": {"Test": test}})).is_some(), "{test}");
        }
        for volume in
            ["/", "//", "/./", "/..", "/a/..", "data", "/proc", "/dev/", "/etc//hosts", "/etc/mtab"]
        {
            assert!(message(json!({"Volumes": {volume: {}}})).is_some(), "{volume}");
        }
        for user in ["-1", "me:2147483648", "4294967295:0", "99999999999999999999"] {
            assert!(message(json!({"User": user})).is_some(), "{user}");
        }
        for port in ["", "-1", "80/http", "90-80", "80/", "+80", "80-"] {
            assert!(!is_port(port), "{port}");
        }
        for signal in ["0", "65", "RTMIN+31", "RTMIN-1", "RTMAX+1", "SIG", "SIGSIGTERM"] {
            assert!(!is_signal(signal), "{signal}");
        }
    }

    /// Durations as Go writes them become the numbers that Docker reads.
    #[test]
    fn durations_become_nanoseconds() {
        let config = ContainerConfig::new(json!({
            "Healthcheck": {"interval": "1m30s", "Timeout": "2.5s", "StartPeriod": "0", "StartInterval": "1ms"},
        }));
        let expected = json!({
            "Interval": 90_000_000_000_u64, "Timeout": 2_500_000_000_u64, "StartPeriod": 0, "StartInterval": 1_000_000,
        });
        assert_eq!(config.unwrap().as_map()["Healthcheck"], expected);
        for text in ["", "5", "s", ".s", "-5s", "5 s", "5d", "1.2.3s", "9999999999h", "1us", "0.5"]
        {
            let config = json!({"Healthcheck": {"Interval": text}});
            assert!(message(config).is_some(), "{text}");
        }
        assert_eq!(duration("1h0.25m.5s"), Some(3_615_500_000_000));
    }
}
