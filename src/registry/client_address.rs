//! Finds the address of the client: the other end of the connection, or the address that a trusted
//! proxy names.
//! Stage: registry (pure). Input: addresses and headers. Output: [`IpAddr`].

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use axum::http::HeaderMap;
use axum::http::header::FORWARDED;

/// The largest number of addresses that are read from the end of a list of proxies.
const MOST: usize = 32;

/// A network: `10.0.0.0/8`, `::1/128`, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpNetwork {
    address: IpAddr,
    bits: u8,
}

/// Says that a text could not be parsed as a network.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected a network, such as `10.0.0.0/8`, or an address")]
pub struct ParseNetworkError;

impl FromStr for IpNetwork {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().map_err(|_| ParseNetworkError)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ParseNetworkError)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits: u8 = bits.unwrap_or(most);
        if bits > most { Err(ParseNetworkError) } else { Ok(Self { address, bits }) }
    }
}

impl IpNetwork {
    /// Returns whether an address is in the network.
    pub fn has(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let other = u32::from(network) ^ u32::from(address);
                other.checked_shr(32 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let other = u128::from(network) ^ u128::from(address);
                other.checked_shr(128 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// Returns the client's address. Reads the addresses of the header from the end, as long as the
/// address before is a trusted proxy: a client may write anything at the beginning.
pub fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNetwork]) -> IpAddr {
    let is_trusted = |address| trusted.iter().any(|network| network.has(address));
    let mut client = peer.to_canonical();
    if !is_trusted(client) {
        return client;
    }
    // Prefer the header of the standard (RFC 7239). If there are both, one of the proxies knows
    // only one.
    let forwarded = list(headers, FORWARDED.as_str());
    let hops: Vec<_> = if forwarded.is_empty() {
        list(headers, "x-forwarded-for").into_iter().map(|hop| address(&hop)).collect()
    } else {
        forwarded.iter().map(|hop| address(for_parameter(hop)?)).collect()
    };
    for hop in hops.into_iter().rev().take(MOST) {
        // Beyond an unreadable address, no address can be trusted.
        let Some(hop) = hop else { break };
        client = hop.to_canonical();
        if !is_trusted(client) {
            break;
        }
    }
    client
}

/// Returns the address that stands for all clients of one customer. For IPv6 that is a /64 network.
pub fn shared(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

fn list(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|hop| hop.trim().to_owned()).collect()
}

/// Returns the `for=` parameter of an element of `Forwarded`.
fn for_parameter(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for").then(|| value.trim_matches('"'))
    })
}

/// Parses an address, which may have a port.
fn address(text: &str) -> Option<IpAddr> {
    if let Some(rest) = text.strip_prefix('[') {
        return rest.split_once(']')?.0.parse::<Ipv6Addr>().ok().map(IpAddr::from);
    }
    let is_v4_and_port = text.matches(':').count() == 1;
    let text = if is_v4_and_port { text.split(':').next()? } else { text };
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn networks_have_addresses() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("127.0.0.1", "::ffff:127.0.0.1", true),
            ("fd00::/8", "fd12::1", true),
            ("::/0", "1.2.3.4", false),
        ] {
            let (network, address): (IpNetwork, IpAddr) =
                (network.parse().unwrap(), address.parse().unwrap());
            assert_eq!(network.has(address), expected, "{network:?} {address}");
        }
        for text in ["", "x", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "10.0.0.0/"] {
            assert_eq!(text.parse::<IpNetwork>(), Err(ParseNetworkError), "{text}");
        }
    }

    #[test]
    fn only_trusted_proxies_say_who_asks() {
        let trusted: Vec<IpNetwork> = vec!["10.0.0.0/8".parse().unwrap()];
        for (peer, name, value, expected) in [
            ("1.1.1.1", "x-forwarded-for", "2.2.2.2", "1.1.1.1"),
            ("10.0.0.1", "x-forwarded-for", "2.2.2.2", "2.2.2.2"),
            ("10.0.0.1", "x-forwarded-for", "6.6.6.6, 2.2.2.2", "2.2.2.2"),
            ("10.0.0.1", "x-forwarded-for", "6.6.6.6, 2.2.2.2:443, 10.0.0.2", "2.2.2.2"),
            ("10.0.0.1", "x-forwarded-for", "6.6.6.6, unknown, 10.0.0.2", "10.0.0.2"),
            ("10.0.0.1", "forwarded", "for=6.6.6.6, for=2.2.2.2;proto=https", "2.2.2.2"),
            ("10.0.0.1", "forwarded", "by=x; For=\"[2001:db8::1]:443\"", "2001:db8::1"),
            ("10.0.0.1", "forwarded", "for=_hidden", "10.0.0.1"),
            ("10.0.0.1", "forwarded", "", "10.0.0.1"),
            ("::ffff:10.0.0.1", "x-forwarded-for", "2.2.2.2", "2.2.2.2"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            let found = client(peer.parse().unwrap(), &headers, &trusted);
            assert_eq!(found.to_string(), expected, "{peer} {value}");
        }
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let shared = |text: &str| shared(text.parse().unwrap()).to_string();
        assert_eq!(shared("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(shared("::ffff:1.2.3.4"), "1.2.3.4");
    }
}
