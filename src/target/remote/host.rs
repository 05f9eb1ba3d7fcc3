//! Names another machine, as ssh and Docker's contexts do.
//! Stage: target (pure). Input: text. Output: [`RemoteHost`].

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use thiserror::Error;

/// A machine that is reached by ssh: `[USER@]HOST[:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteHost {
    /// The user and the host as ssh takes them; the host may be an alias of ssh's configuration.
    destination: String,
    port: Option<NonZeroU16>,
}

/// Says why a text is not a [`RemoteHost`].
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is not a machine: write `ssh://[USER@]HOST[:PORT]/TARGET`")]
pub struct ParseHostError(String);

impl RemoteHost {
    /// Returns the user and the host, as ssh takes them.
    pub fn destination(&self) -> &str {
        &self.destination
    }

    /// Returns the command that logs in to the machine, for messages: ssh takes no port behind a host.
    pub fn login(&self) -> String {
        let port = self.port.map_or_else(String::new, |port| format!("-p {port} "));
        format!("ssh {port}{}", self.destination)
    }

    /// Returns the port, if one is named.
    pub fn port(&self) -> Option<NonZeroU16> {
        self.port
    }
}

impl FromStr for RemoteHost {
    type Err = ParseHostError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (user, host) = text.rsplit_once('@').map_or((None, text), |(u, h)| (Some(u), h));
            // An IPv6 address has brackets, which ssh itself does not take.
            let (host, rest) = match host.strip_prefix('[') {
                Some(address) => address.split_once(']')?,
                None => host.split_at(host.find(':').unwrap_or(host.len())),
            };
            let port = match rest {
                "" => None,
                rest => Some(rest.strip_prefix(':')?.parse().ok()?),
            };
            let is_plain = |text: &str, more: &str| {
                !text.is_empty()
                    && !text.starts_with('-')
                    && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
            };
            if !is_plain(host, "-._:%") || !user.is_none_or(|user| is_plain(user, "-._+@\\")) {
                return None;
            }
            let destination = user.map_or(host.to_owned(), |user| format!("{user}@{host}"));
            Some(Self { destination, port })
        };
        parse().ok_or_else(|| ParseHostError(text.to_owned()))
    }
}

impl fmt::Display for RemoteHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (user, host) = match self.destination.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, &*self.destination),
        };
        user.map_or(Ok(()), |user| write!(f, "{user}@"))?;
        if host.contains(':') {
            write!(f, "[{host}]")?
        } else {
            f.write_str(host)?
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_those_that_ssh_takes() {
        for (text, destination, port) in [
            ("host", "host", None),
            ("me@host.example", "me@host.example", None),
            ("me@host:2222", "me@host", Some(2222)),
            ("127.0.0.1:1", "127.0.0.1", Some(1)),
            ("[::1]:22", "::1", Some(22)),
            ("me@[fe80::1%eth0]", "me@fe80::1%eth0", None),
            ("a@b.example@jump", "a@b.example@jump", None),
        ] {
            let host: RemoteHost = text.parse().unwrap();
            assert_eq!(host.destination(), destination, "{text}");
            assert_eq!(host.port().map(NonZeroU16::get), port, "{text}");
            assert_eq!(host.to_string(), text);
            let options = port.map_or_else(String::new, |port| format!("-p {port} "));
            assert_eq!(host.login(), format!("ssh {options}{destination}"), "{text}");
        }
        for text in [
            "",
            "@host",
            "me@",
            "-oProxyCommand=x",
            "me@-x",
            "-x@host",
            "host:",
            "host:0",
            "host:65536",
            "::1",
            "[::1",
            "[::1]22",
            "a b",
            "a'b",
            "a;b",
            "$(x)",
            "a/b",
        ] {
            assert!(text.parse::<RemoteHost>().is_err(), "{text}");
        }
    }
}
