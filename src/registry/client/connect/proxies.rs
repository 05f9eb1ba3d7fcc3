//! Chooses the proxy for a request, by environment variables (Go's `httpproxy`, curl(1)).
//! Stage: registry (pure). Input: the variables' values. Output: [`Proxies`].

use std::net::IpAddr;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use thiserror::Error;
use ureq::{Proxy, ProxyProtocol};
use url::{Host, Url};

use super::proxy_login::ProxyLogin;
use super::socks::SocksRefusal;
use crate::outgoing::is_loopback;

/// The proxies for requests by HTTP and by HTTPS, and the hosts that are reached directly.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    http: Option<Named>,
    https: Option<Named>,
    exceptions: Vec<Exception>,
}

/// A proxy, and the variable that names it.
#[derive(Clone, Debug)]
pub struct Named {
    /// The variable.
    pub variable: String,
    /// The proxy, or a description of what is wrong with the variable's value.
    pub proxy: Result<Proxy, &'static str>,
    /// The state of the user at the proxy.
    login: Arc<ProxyLogin>,
}

/// Says why a proxy did not pass a request on.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the proxy that {variable} names: {reason}")]
pub struct ProxyError {
    /// The variable.
    pub variable: String,
    /// The error of the proxy, or of the variable's value.
    pub reason: String,
    /// True if trying again is useless: the variable's value is wrong, or the proxy refuses the
    /// user or the host.
    pub is_permanent: bool,
}

/// An entry of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    /// `*`: every host.
    All,
    /// `10.0.0.0/8`: addresses that begin with that number of bits of this one.
    Network(IpAddr, u8),
    /// An address, with a port or for all ports.
    Address(IpAddr, Option<u16>),
    /// A domain with all names below it, with a port or for all ports.
    Domain {
        /// The domain in lower case, without a dot at its start.
        name: String,
        /// True if the domain itself is included.
        with_itself: bool,
        port: Option<u16>,
    },
}

impl Proxies {
    /// Reads `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` through `variable`, each in
    /// upper case or else in lower case.
    pub fn read(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let either = |name: &str| {
            let names = [name.to_owned(), name.to_ascii_lowercase()];
            let mut values = names.into_iter().map(|name| (variable(&name), name));
            values.find_map(|(value, name)| {
                let value = value?.trim().to_owned();
                (!value.is_empty()).then_some((name, value))
            })
        };
        let value_of = |name: &str| either(name).or_else(|| either("ALL_PROXY"));
        let named = |(variable, value): &(String, String)| Named {
            variable: variable.clone(),
            proxy: parse(value),
            login: Arc::default(),
        };
        let (http_value, https_value) = (value_of("HTTP_PROXY"), value_of("HTTPS_PROXY"));
        let http = http_value.as_ref().map(named);
        let https = https_value.as_ref().map(|of_https| match (&http_value, &http) {
            // It is the same proxy, with the same user.
            (Some(of_http), Some(http)) if of_http.1 == of_https.1 => {
                Named { variable: of_https.0.clone(), ..http.clone() }
            }
            _ => named(of_https),
        });
        let exceptions = either("NO_PROXY").map(|(_, value)| exceptions(&value));
        Self { http, https, exceptions: exceptions.unwrap_or_default() }
    }

    /// Returns the proxies that requests may go through.
    pub fn all(&self) -> impl Iterator<Item = &Named> {
        self.http.iter().chain(&self.https)
    }

    /// Returns whether a proxy reads the requests to an address and passes them on, without a tunnel.
    pub fn read_requests_to(&self, address: &str) -> bool {
        address.starts_with("http://") && self.for_address(address).is_some_and(Named::passes_on)
    }

    /// Returns the proxy for requests to an address. This machine is reached directly, and so are
    /// the proxies themselves.
    pub fn for_address(&self, address: &str) -> Option<&Named> {
        let url: Url = address.parse().ok()?;
        let named = match url.scheme() {
            "http" => self.http.as_ref()?,
            "https" => self.https.as_ref()?,
            _ => return None,
        };
        let port = url.port_or_known_default();
        let (host, ip) = match url.host()? {
            Host::Domain(name) => (name.trim_end_matches('.').to_ascii_lowercase(), None),
            Host::Ipv4(address) => (address.to_string(), Some(IpAddr::V4(address))),
            Host::Ipv6(address) => (address.to_string(), Some(IpAddr::V6(address))),
        };
        let is_proxy = |named: &Named| {
            let proxy = named.proxy.as_ref().ok();
            proxy.is_some_and(|proxy| {
                proxy.host().trim_matches(['[', ']']).eq_ignore_ascii_case(&host)
                    && Some(proxy.port()) == port
            })
        };
        let direct = is_loopback(&host)
            || self.exceptions.iter().any(|exception| exception.holds(&host, ip, port))
            || self.all().any(is_proxy);
        (!direct).then_some(named)
    }
}

impl Named {
    /// Returns whether the proxy passes on requests by HTTP that name the whole address.
    pub fn passes_on(&self) -> bool {
        let protocol = self.proxy.as_ref().map(Proxy::protocol);
        matches!(protocol, Ok(ProxyProtocol::Http | ProxyProtocol::Https))
    }
}

impl ProxyError {
    /// Returns what the user can do about the error.
    pub fn hint(&self) -> String {
        format!(
            "NO_PROXY lists what is reached without a proxy: hosts, `.DOMAIN` and networks; {} names the proxy",
            self.variable
        )
    }

    /// Returns the error that kept a request from being sent, if the error is one of a proxy.
    pub fn of(error: &ureq::Error) -> Option<&Self> {
        match error {
            ureq::Error::Other(error) => error.downcast_ref(),
            _ => None,
        }
    }
}

impl Named {
    /// Returns the error of a proxy that failed for a reason.
    pub fn failed(&self, reason: String) -> ProxyError {
        let place = match &self.proxy {
            Ok(proxy) => format!("{}:{}: {reason}", proxy.host(), proxy.port()),
            Err(_) => reason,
        };
        ProxyError {
            variable: self.variable.clone(),
            reason: place,
            is_permanent: self.proxy.is_err(),
        }
    }

    /// Returns the error of a connection that ureq could not make through the proxy.
    fn not_connected(&self, error: &ureq::Error) -> ProxyError {
        if let Some(refusal) = self.is_socks().then(|| SocksRefusal::of(error)).flatten() {
            return match refusal {
                SocksRefusal::User => self.refuses_user(),
                SocksRefusal::Host { reason, is_permanent } => {
                    ProxyError { is_permanent, ..self.failed(reason.to_owned()) }
                }
            };
        }
        let reason = match error {
            ureq::Error::ConnectProxyFailed(reason) => reason.clone(),
            error => error.to_string(),
        };
        let responded = reason.strip_prefix("proxy server responded ");
        let status = responded.and_then(|rest| rest.get(..3)?.parse::<u16>().ok());
        match status {
            Some(407) => self.refuses_user(),
            Some(status @ (408 | 429 | 500..)) => self.failed(format!("it responded {status}")),
            Some(status) => ProxyError {
                is_permanent: true,
                ..self.failed(format!("it does not connect to this host: it responded {status}"))
            },
            None => self.failed(reason),
        }
    }

    fn is_socks(&self) -> bool {
        self.proxy.is_ok() && !self.passes_on()
    }

    /// Remembers that the proxy refuses the user, and returns that as an error.
    pub fn refuses_user(&self) -> ProxyError {
        self.login.refuse();
        let user = self.proxy.as_ref().ok().and_then(Proxy::username);
        let reason = match user {
            Some(_) if self.is_socks() => {
                format!("it refuses the name and the password in {}", self.variable)
            }
            Some(_) => format!(
                "it refuses the name and the password in {}, which are sent by the method Basic",
                self.variable
            ),
            None => {
                let scheme = if self.is_socks() { "socks5" } else { "http" };
                format!("it wants a name and a password, as in {scheme}://NAME:PASSWORD@HOST:PORT")
            }
        };
        ProxyError { is_permanent: true, ..self.failed(reason) }
    }

    /// Connects through the proxy, unless it has refused the user before. The first connection is
    /// made alone.
    ///
    /// # Errors
    /// Returns the errors of `connect`.
    pub fn connect<T>(
        &self,
        connect: impl FnOnce() -> Result<T, ureq::Error>,
    ) -> Result<T, ProxyError> {
        let alone = self.login.wait_for_first();
        if self.login.is_refused() {
            return Err(self.refuses_user());
        }
        let connected = connect().map_err(|error| self.not_connected(&error));
        drop(alone);
        connected
    }
}

/// Parses the address of a proxy; `http://` may be left out.
fn parse(value: &str) -> Result<Proxy, &'static str> {
    let (scheme, rest) = value.split_once("://").unwrap_or(("http", value));
    let protocol = match &*scheme.to_ascii_lowercase() {
        "http" => ProxyProtocol::Http,
        "https" => ProxyProtocol::Https,
        "socks4" => ProxyProtocol::Socks4,
        "socks4a" => ProxyProtocol::Socks4A,
        "socks5" => ProxyProtocol::Socks5,
        "socks5h" => ProxyProtocol::Socks5h,
        _ => {
            return Err(
                "its scheme is not supported: use `http`, `https`, `socks4`, `socks4a`, `socks5` or `socks5h`",
            );
        }
    };
    // The `http` scheme makes `Url` parse the host, whatever the proxy's own scheme is.
    let url = format!("http://{rest}").parse::<Url>().map_err(|_| "its value is not an address")?;
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or("its value has no host")?;
    let mut proxy = Proxy::builder(protocol).host(host);
    // `Url` leaves out the default port of `http`.
    let says_80 = rest.split(['/', '?']).next().is_some_and(|place| place.ends_with(":80"));
    if let Some(port) = url.port().or(says_80.then_some(80)) {
        proxy = proxy.port(port);
    }
    // The proxy resolves names, and may know more of them. With SOCKS 4 it can't.
    proxy = proxy.resolve_target(protocol == ProxyProtocol::Socks4);
    if !url.username().is_empty() {
        proxy = proxy.username(&decoded(url.username()));
        proxy = proxy.password(&decoded(url.password().unwrap_or_default()));
    }
    proxy.build().map_err(|_| "its value is not an address")
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Parses `NO_PROXY`: entries with commas or spaces between them.
fn exceptions(value: &str) -> Vec<Exception> {
    let entries = value.split(|c: char| c == ',' || c.is_whitespace());
    entries.filter(|entry| !entry.is_empty()).filter_map(exception).collect()
}

fn exception(entry: &str) -> Option<Exception> {
    let entry = entry.to_ascii_lowercase();
    if entry == "*" {
        return Some(Exception::All);
    }
    if let Some((address, bits)) = entry.split_once('/') {
        let (address, bits) = (address.parse::<IpAddr>().ok()?, bits.parse().ok()?);
        let longest = if address.is_ipv4() { 32 } else { 128 };
        return (bits <= longest).then_some(Exception::Network(address, bits));
    }
    if let Ok(address) = entry.trim_start_matches('[').trim_end_matches(']').parse() {
        return Some(Exception::Address(address, None));
    }
    let (host, port) = match entry.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (&*entry, None),
    };
    if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse() {
        return Some(Exception::Address(address, port));
    }
    let host = host.strip_prefix('*').unwrap_or(host).trim_end_matches('.');
    let name = host.strip_prefix('.').unwrap_or(host);
    if name.is_empty() {
        return None;
    }
    let with_itself = name.len() == host.len();
    Some(Exception::Domain { name: name.to_owned(), with_itself, port })
}

impl Exception {
    /// Returns whether the entry covers a host: its name in lower case or its address, and its
    /// port.
    fn holds(&self, host: &str, ip: Option<IpAddr>, port: Option<u16>) -> bool {
        let same_port = |wanted: &Option<u16>| wanted.is_none() || *wanted == port;
        match self {
            Self::All => true,
            Self::Network(network, bits) => ip.is_some_and(|ip| is_in(ip, *network, *bits)),
            Self::Address(address, wanted) => ip == Some(*address) && same_port(wanted),
            Self::Domain { name, with_itself, port } => {
                let rest = host.strip_suffix(&**name).filter(|_| ip.is_none());
                let is_meant = rest.is_some_and(|rest| {
                    if rest.is_empty() { *with_itself } else { rest.ends_with('.') }
                });
                is_meant && same_port(port)
            }
        }
    }
}

/// Returns whether the first `bits` bits of two addresses are equal.
fn is_in(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let difference = match (address, network) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            return (one.to_bits() ^ other.to_bits()).leading_zeros() >= u32::from(bits);
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => one.to_bits() ^ other.to_bits(),
        _ => return false,
    };
    difference.leading_zeros() >= u32::from(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::read(&|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    /// Returns the proxy that is chosen: `VARIABLE HOST:PORT`, or what is wrong.
    fn taken(variables: &[(&str, &str)], address: &str) -> String {
        match proxies(variables).for_address(address) {
            None => "none".to_owned(),
            Some(Named { variable, proxy: Ok(proxy), .. }) => {
                format!("{variable} {}:{}", proxy.host(), proxy.port())
            }
            Some(Named { variable, proxy: Err(reason), .. }) => format!("{variable} {reason}"),
        }
    }

    #[test]
    fn proxies_are_taken_by_scheme() {
        let (http, https) = (("HTTP_PROXY", "http://h:1"), ("HTTPS_PROXY", "http://s:2"));
        let all = ("ALL_PROXY", "http://a:3");
        for (variables, address, expected) in [
            (&[http, https][..], "http://reg/", "HTTP_PROXY h:1"),
            (&[http, https], "https://reg/", "HTTPS_PROXY s:2"),
            (&[http], "https://reg/", "none"),
            (&[https], "http://reg/", "none"),
            (&[all], "http://reg/", "ALL_PROXY a:3"),
            (&[all, https], "https://reg/", "HTTPS_PROXY s:2"),
            (&[all, https], "http://reg/", "ALL_PROXY a:3"),
            (&[("https_proxy", "s:2")], "https://reg/", "https_proxy s:2"),
            (&[("all_proxy", "s:2")], "https://reg/", "all_proxy s:2"),
            (&[https, ("https_proxy", "x:9")], "https://reg/", "HTTPS_PROXY s:2"),
            (&[("HTTPS_PROXY", ""), ("https_proxy", "s:2")], "https://reg/", "https_proxy s:2"),
            (&[("HTTPS_PROXY", " ")], "https://reg/", "none"),
            // This machine, and the proxy itself, are reached directly.
            (&[http, https, all], "http://127.0.0.1:5000/", "none"),
            (&[http, https, all], "https://localhost/", "none"),
            (&[http, https, all], "https://[::1]:5000/", "none"),
            (&[http, https, all], "https://127.9.9.9/", "none"),
            (&[("HTTPS_PROXY", "https://s")], "https://s/", "none"),
            (&[https], "https://s/", "HTTPS_PROXY s:2"),
        ] {
            assert_eq!(taken(variables, address), expected, "{variables:?} {address}");
        }
    }

    #[test]
    fn addresses_of_proxies_are_read() {
        for (value, expected) in [
            ("proxy", "HTTPS_PROXY proxy:80"),
            ("proxy:3128", "HTTPS_PROXY proxy:3128"),
            ("http://proxy:80", "HTTPS_PROXY proxy:80"),
            ("https://proxy", "HTTPS_PROXY proxy:443"),
            ("https://proxy:80", "HTTPS_PROXY proxy:80"),
            ("http://proxy:3128/", "HTTPS_PROXY proxy:3128"),
            ("HTTP://u:p@proxy:3128", "HTTPS_PROXY proxy:3128"),
            ("http://[2001:db8::1]:3128", "HTTPS_PROXY [2001:db8::1]:3128"),
            ("socks5://proxy", "HTTPS_PROXY proxy:1080"),
            ("socks5h://proxy:9050", "HTTPS_PROXY proxy:9050"),
            ("socks4://proxy", "HTTPS_PROXY proxy:1080"),
            ("socks4a://proxy", "HTTPS_PROXY proxy:1080"),
        ] {
            assert_eq!(taken(&[("HTTPS_PROXY", value)], "https://reg/"), expected, "{value}");
        }
        for (value, expected) in [
            ("ftp://proxy", "scheme is not supported"),
            ("socks://proxy", "scheme is not supported"),
            ("quic://proxy", "scheme is not supported"),
            ("http://", "its value"),
            ("http://a b", "its value"),
            ("http://proxy:99999", "its value"),
        ] {
            let taken = taken(&[("HTTPS_PROXY", value)], "https://reg/");
            assert!(taken.contains(expected) && taken.starts_with("HTTPS_PROXY "), "{taken}");
        }
        let named = proxies(&[("HTTPS_PROXY", "http://us%40er:p%3Ass@proxy")]);
        let proxy = named.https.unwrap().proxy.unwrap();
        assert_eq!((proxy.username(), proxy.password()), (Some("us@er"), Some("p:ss")));
    }

    #[test]
    fn exceptions_are_those_of_go_and_curl() {
        for (no_proxy, address, is_direct) in [
            ("*", "https://reg/", true),
            ("reg.example", "https://reg.example/", true),
            ("reg.example", "https://REG.example/", true),
            ("REG.example", "https://reg.example/", true),
            ("reg.example", "https://a.reg.example/", true),
            ("reg.example", "https://areg.example/", false),
            (".reg.example", "https://a.reg.example/", true),
            (".reg.example", "https://reg.example/", false),
            ("*.reg.example", "https://a.b.reg.example/", true),
            ("*.reg.example", "https://reg.example/", false),
            ("reg.example.", "https://reg.example/", true),
            ("a,reg.example", "https://reg.example/", true),
            (" a , reg.example ", "https://reg.example/", true),
            ("a reg.example", "https://reg.example/", true),
            ("a\treg.example,,", "https://reg.example/", true),
            ("reg.example:5000", "https://reg.example:5000/", true),
            ("reg.example:5000", "https://reg.example/", false),
            ("reg.example:443", "https://reg.example/", true),
            ("reg.example:80", "http://reg.example/", true),
            ("10.0.0.1", "https://10.0.0.1:5000/", true),
            ("10.0.0.1:5000", "https://10.0.0.1:5000/", true),
            ("10.0.0.1:5001", "https://10.0.0.1:5000/", false),
            ("10.0.0.0/8", "https://10.1.2.3:5000/", true),
            ("10.0.0.0/8", "https://11.1.2.3/", false),
            ("10.1.2.0/23", "https://10.1.3.9/", true),
            ("10.1.2.0/23", "https://10.1.4.9/", false),
            ("0.0.0.0/0", "https://10.1.4.9/", true),
            ("10.0.0.0/33", "https://10.0.0.0/", false),
            ("10.0.0.0/8", "https://ten.example/", false),
            ("2001:db8::/32", "https://[2001:db8:1::2]/", true),
            ("2001:db8::/32", "https://[2001:db9::2]/", false),
            ("2001:db8::1", "https://[2001:db8::1]:5000/", true),
            ("[2001:db8::1]", "https://[2001:db8::1]:5000/", true),
            ("[2001:db8::1]:5000", "https://[2001:db8::1]:5000/", true),
            ("[2001:db8::1]:5001", "https://[2001:db8::1]:5000/", false),
            ("0.0.1", "https://10.0.0.1/", false),
            ("", "https://reg/", false),
            (",:,/,.", "https://reg/", false),
        ] {
            let variables = [("HTTPS_PROXY", "p"), ("HTTP_PROXY", "p"), ("NO_PROXY", no_proxy)];
            assert_eq!(taken(&variables, address) == "none", is_direct, "{no_proxy} {address}");
        }
    }
}
