//! The name of a registry: a host, and perhaps a port.
//! Stage: outgoing (pure). Input: text. Output: [`RegistryName`].

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

/// Docker Hub's name in references.
const DOCKER_HUB: &str = "docker.io";
/// Docker Hub's name in its first interface, and in Docker's own files.
const DOCKER_HUB_INDEX: &str = "index.docker.io";
/// The host at which Docker Hub answers registry requests.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// A registry's name, `host[:port]`: a domain name, an IPv4 address, or an IPv6 address in brackets
/// (distribution, reference grammar, "domain").
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryName {
    text: String,
    /// The end of the host in `text`.
    host_end: usize,
}

/// Says why a text is not a [`RegistryName`].
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ParseRegistryNameError {
    /// The host is neither a domain name nor an address.
    #[error(
        "the registry must be a host name, an IPv4 address or an IPv6 address in `[]`, with `:PORT` or without"
    )]
    Host,
    /// The port is not a number from 1 to 65535.
    #[error("the registry's port must be a number from 1 to 65535")]
    Port,
}

impl RegistryName {
    /// Returns the name of Docker Hub, which is the registry of names without one.
    pub fn docker_hub() -> Self {
        Self { text: DOCKER_HUB.to_owned(), host_end: DOCKER_HUB.len() }
    }

    /// Returns whether the name is Docker Hub's.
    pub fn is_docker_hub(&self) -> bool {
        self.text == DOCKER_HUB
    }

    /// Returns the name as text, `host[:port]`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns `host[:port]` for requests. For Docker Hub, this is the host that answers them.
    pub fn host_and_port(&self) -> &str {
        if self.is_docker_hub() { DOCKER_HUB_HOST } else { &self.text }
    }

    /// Returns the host without port and brackets.
    pub fn host(&self) -> &str {
        self.text[..self.host_end].trim_start_matches('[').trim_end_matches(']')
    }

    /// Returns whether the host is this machine: an address of the loopback device, or the name
    /// `localhost`.
    pub fn is_loopback(&self) -> bool {
        is_loopback(self.host())
    }
}

/// Returns whether a host, without port and brackets, is this machine: an address of the loopback
/// device, or `localhost`. Names below `localhost` (RFC 6761, 6.3) do not count, since some
/// resolvers look them up elsewhere.
pub fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| match address {
            IpAddr::V4(address) => address.is_loopback(),
            IpAddr::V6(address) => {
                address.is_loopback()
                    || address.to_ipv4_mapped().is_some_and(|address| address.is_loopback())
            }
        })
}

/// Returns the length of the host at the start of `host[:port]`, or `None` if there is no valid
/// host.
fn host_length(text: &str) -> Option<usize> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, _) = rest.split_once(']')?;
        address.parse::<Ipv6Addr>().ok()?;
        return Some(address.len() + 2);
    }
    let host = text.split(':').next().unwrap_or_default();
    let is_label = |label: &str| {
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = label.as_bytes();
        edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    };
    host.split('.').all(is_label).then_some(host.len())
}

impl fmt::Display for RegistryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for RegistryName {
    type Err = ParseRegistryNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let host_end = host_length(text).ok_or(ParseRegistryNameError::Host)?;
        match text[host_end..].strip_prefix(':') {
            None if host_end < text.len() => return Err(ParseRegistryNameError::Host),
            None => {}
            Some(port) => {
                let digits = port.bytes().all(|byte| byte.is_ascii_digit());
                if !digits || !port.parse::<u16>().is_ok_and(|port| port > 0) {
                    return Err(ParseRegistryNameError::Port);
                }
            }
        }
        if text == DOCKER_HUB_INDEX {
            return Ok(Self::docker_hub());
        }
        Ok(Self { text: text.to_owned(), host_end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_and_addresses() {
        use ParseRegistryNameError::{Host, Port};
        for (text, expected) in [
            ("reg.example", Ok("reg.example")),
            ("reg.example:5000", Ok("reg.example")),
            ("REG.example", Ok("REG.example")),
            ("localhost", Ok("localhost")),
            ("10.0.0.1:80", Ok("10.0.0.1")),
            ("[::1]", Ok("::1")),
            ("[::1]:5000", Ok("::1")),
            ("[2001:db8::a]:443", Ok("2001:db8::a")),
            ("xn--n3h.com", Ok("xn--n3h.com")),
            ("a--b", Ok("a--b")),
            ("docker.io", Ok("docker.io")),
            ("index.docker.io", Ok("docker.io")),
            ("", Err(Host)),
            (":5000", Err(Host)),
            ("reg_example", Err(Host)),
            ("reg..example", Err(Host)),
            ("reg.example.", Err(Host)),
            ("-reg", Err(Host)),
            ("reg-", Err(Host)),
            ("::1", Err(Host)),
            ("[::1", Err(Host)),
            ("[::1]5000", Err(Host)),
            ("[10.0.0.1]", Err(Host)),
            ("[fe80::1%eth0]", Err(Host)),
            ("réseau", Err(Host)),
            ("reg:", Err(Port)),
            ("reg:0", Err(Port)),
            ("reg:65536", Err(Port)),
            ("reg:+80", Err(Port)),
            ("reg:80:80", Err(Port)),
            ("[::1]:", Err(Port)),
        ] {
            let parsed = text.parse::<RegistryName>();
            assert_eq!(
                parsed.as_ref().map(RegistryName::host),
                expected.as_ref().map(|host| *host),
                "{text}"
            );
        }
        let hub: RegistryName = "docker.io".parse().unwrap();
        assert_eq!((hub.as_str(), hub.host_and_port()), ("docker.io", "registry-1.docker.io"));
        let local: RegistryName = "[::1]:5000".parse().unwrap();
        assert_eq!((local.as_str(), local.host_and_port()), ("[::1]:5000", "[::1]:5000"));
    }

    #[test]
    fn this_machine_is_known() {
        for (host, expected) in [
            ("localhost", true),
            ("LOCALHOST", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("[::ffff:127.0.0.1]:5000", true),
            ("ghcr.io", false),
            ("10.0.0.1:5000", false),
            ("[2001:db8::1]", false),
            ("registry.localhost", false),
            ("localhost.example", false),
        ] {
            let name: RegistryName = host.parse().unwrap();
            assert_eq!(name.is_loopback(), expected, "{host}");
        }
    }
}
