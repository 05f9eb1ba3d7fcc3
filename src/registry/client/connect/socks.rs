//! Explains why a SOCKS proxy makes no connection (RFC 1928, section 6; RFC 1929; SOCKS 4 of the program CSTC).
//! Stage: registry (pure). Input: ureq's errors. Output: [`SocksRefusal`].

use std::io::ErrorKind;

/// Says what a SOCKS proxy refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocksRefusal {
    /// The proxy wants a user, or refuses this one.
    User,
    /// The proxy makes no connection to the host.
    Host {
        /// The reason, for people.
        reason: &'static str,
        /// True if another attempt would be refused as well.
        is_permanent: bool,
    },
}

const NOT_SOCKS: &str = "its answer is not one of SOCKS: is it a proxy of another kind?";
const BAD_LENGTH: &str = "SOCKS 5 takes names and passwords of 1 to 255 bytes";

/// The reasons that do not change, by ureq's messages.
const PERMANENT: [(&str, &str); 13] = [
    ("connection not allowed by ruleset", "its rules do not allow a connection to this host"),
    ("command not supported", "it makes no connections to other hosts"),
    ("address kind not supported", "it does not take the name or the address of this host"),
    ("unknown error", "it refuses with a code that SOCKS 5 does not have"),
    ("unknown auth method", "it wants another proof of the user than a password"),
    ("domain name too long", "SOCKS 5 takes names of hosts of up to 255 bytes"),
    ("invalid username", BAD_LENGTH),
    ("invalid password", BAD_LENGTH),
    ("invalid response version", NOT_SOCKS),
    ("invalid response code", NOT_SOCKS),
    ("invalid reserved byte", NOT_SOCKS),
    ("unsupported address type", NOT_SOCKS),
    ("SOCKS4 does not support IPv6", "SOCKS 4 has no IPv6 addresses: is it one of `socks5`?"),
];

/// The reasons that may change.
const TRANSIENT: [(&str, &str); 6] = [
    ("general SOCKS server failure", "it fails, and does not say why (general failure)"),
    ("network unreachable", "it does not reach the network of this host"),
    ("host unreachable", "it does not reach this host, or does not find its address"),
    ("connection refused", "this host refuses its connection"),
    ("TTL expired", "its packets do not reach this host (TTL expired)"),
    (
        "request rejected or failed",
        "it refuses a connection to this host, or fails: SOCKS 4 does not say which",
    ),
];

/// The beginning of ureq's messages about the user.
const USER: [&str; 4] = [
    "no acceptable auth methods",
    "password authentication failed",
    "request rejected because SOCKS server cannot connect to identd",
    "request rejected because the client program and identd report",
];

impl SocksRefusal {
    /// Returns what a proxy refused with an error, unless it is an error of the connection to the
    /// proxy.
    pub fn of(error: &ureq::Error) -> Option<Self> {
        let ureq::Error::Io(error) = error else { return None };
        if error.kind() == ErrorKind::UnexpectedEof {
            let reason = "it closes the connection without an answer";
            return Some(Self::Host { reason, is_permanent: false });
        }
        // The errors of the system have no message of their own.
        let message = error.get_ref()?.to_string();
        if USER.iter().any(|start| message.starts_with(start)) {
            return Some(Self::User);
        }
        let found = |table: &'static [(&str, &str)], is_permanent| {
            let entry = table.iter().find(|(known, _)| *known == message);
            entry.map(|(_, reason)| Self::Host { reason, is_permanent })
        };
        found(&PERMANENT, true).or_else(|| found(&TRANSIENT, false))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use ureq::Agent;
    use ureq::config::Config;

    use super::*;
    use crate::registry::client::connect::Proxies;

    /// Returns the refusal of a proxy that reads and answers in turn, as ureq reports it.
    fn refusal(scheme: &str, steps: &'static [(usize, &'static [u8])]) -> Option<SocksRefusal> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("{scheme}{}", listener.local_addr().unwrap());
        let answering = thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            for (read, answer) in steps {
                client.read_exact(&mut vec![0; *read]).unwrap();
                client.write_all(answer).unwrap();
            }
        });
        let proxies = Proxies::read(&|name| (name == "ALL_PROXY").then(|| address.clone()));
        let proxy = proxies.all().next().unwrap().proxy.clone().unwrap();
        let config: Config = Agent::config_builder().proxy(Some(proxy)).build();
        let error = config.new_agent().get("http://reg.invalid/").call().unwrap_err();
        answering.join().unwrap();
        SocksRefusal::of(&error)
    }

    fn says(refusal: Option<SocksRefusal>, expected: &str, permanent: bool) {
        let Some(SocksRefusal::Host { reason, is_permanent }) = refusal else {
            panic!("{expected}: {refusal:?}")
        };
        assert!(reason.contains(expected), "{expected}: {reason}");
        assert_eq!(is_permanent, permanent, "{expected}");
    }

    #[test]
    fn each_code_has_a_reason() {
        // A greeting of three bytes, and a request with the name of the host.
        macro_rules! replies {
            ($($code:literal $permanent:literal $expected:literal,)*) => {
                $(says(
                    refusal("socks5://", &[(3, &[5, 0]), (18, &[5, $code, 0, 1, 0, 0, 0, 0, 0, 0])]),
                    $expected,
                    $permanent,
                );)*
            };
        }
        replies! {
            1 false "general failure",
            2 true "rules do not allow",
            3 false "network of this host",
            4 false "does not reach this host",
            5 false "this host refuses its connection",
            6 false "TTL",
            7 true "makes no connections",
            8 true "the name or the address",
            9 true "a code that SOCKS 5 does not have",
            255 true "a code that SOCKS 5 does not have",
        }
        says(
            refusal("socks4a://", &[(21, &[0, 91, 0, 0, 0, 0, 0, 0])]),
            "SOCKS 4 does not say",
            false,
        );
        says(refusal("socks4a://", &[(21, &[0, 7, 0, 0, 0, 0, 0, 0])]), "not one of SOCKS", true);
        for reply in [&[0, 92, 0, 0, 0, 0, 0, 0], &[0, 93, 0, 0, 0, 0, 0, 0]] {
            let steps: &'static [_] = Box::leak(Box::new([(21, &reply[..])]));
            assert_eq!(refusal("socks4a://", steps), Some(SocksRefusal::User));
        }
    }

    #[test]
    fn users_and_other_servers_are_told_apart() {
        assert_eq!(refusal("socks5://", &[(3, &[5, 255])]), Some(SocksRefusal::User));
        let wrong: &[(usize, &[u8])] = &[(4, &[5, 2]), (5, &[1, 1])];
        assert_eq!(refusal("socks5://u:p@", wrong), Some(SocksRefusal::User));
        says(refusal("socks5://", &[(3, &[5, 1])]), "another proof of the user", true);
        says(refusal("socks5://u:@", &[(4, &[5, 2])]), "1 to 255 bytes", true);
        says(refusal("socks5://", &[(3, b"HTTP/1.1 400 Bad Request\r\n")]), "another kind", true);
        says(refusal("socks5://", &[(3, b"")]), "closes the connection", false);
        says(refusal("socks5://", &[(3, &[5, 0]), (18, b"")]), "closes the connection", false);
    }
}
