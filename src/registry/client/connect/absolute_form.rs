//! Sends requests by plain HTTP through a proxy, which needs the whole address in each (RFC 9112,
//! 3.2.2).
//! Stage: registry. Input: a connection to a proxy. Output: the same, for requests to a registry.
//!
//! Many proxies allow `CONNECT` to port 443 alone. Therefore Go's `net/http` and curl(1) only make
//! tunnels for HTTPS. ureq would make one for HTTP too, and writes paths without a host: so the
//! heads of its requests are rewritten here.

use std::fmt;
use std::io::{self, Read, Write};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ureq::http::Uri;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};
use ureq::{Error, Proxy};

use super::proxies::Named;

/// The largest size of a request's head in bytes. ureq's own buffer is smaller.
const LONGEST_HEAD: usize = 1 << 20;
/// The number of bytes at the beginning of an answer that contain its status: `HTTP/1.1 407`.
const STATUS_LINE: usize = 12;
/// The beginning of every answer.
const HTTP: &[u8] = b"HTTP/1.";

/// A connection to a proxy that passes requests on.
pub struct AbsoluteForm {
    buffers: LazyBuffers,
    proxy: TransportAdapter,
    heads: Heads,
    named: Named,
    /// True if a request was sent and the status of its answer is not known yet.
    awaits_status: bool,
}

impl AbsoluteForm {
    /// Sends requests to the host in `details`, over `connection` to the proxy `proxy`, which
    /// `named` names.
    pub fn new(
        connection: Box<dyn Transport>,
        details: &ConnectionDetails,
        proxy: &Proxy,
        named: &Named,
    ) -> Self {
        let config = details.config;
        Self {
            buffers: LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size()),
            proxy: TransportAdapter::new(connection, details.current_time.clone()),
            heads: Heads::new(details.uri, proxy),
            named: named.clone(),
            awaits_status: false,
        }
    }

    /// Returns the error of a connection to the proxy that broke. An error that ureq made passes
    /// through unchanged, such as the end of a time limit.
    fn failed(&self, error: io::Error) -> Error {
        match Error::from(error) {
            Error::Io(error) => Error::Other(Box::new(self.named.failed(error.to_string()))),
            error => error,
        }
    }
}

impl Transport for AbsoluteForm {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.proxy.set_timeout(timeout);
        let written = self.heads.write(&self.buffers.output()[..amount], &mut self.proxy);
        self.awaits_status |= written.map_err(|error| self.failed(error))?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.proxy.set_timeout(timeout);
        let amount = self.proxy.read(self.buffers.input_append_buf());
        let amount = amount.map_err(|error| self.failed(error))?;
        self.buffers.input_appended(amount);
        if !self.awaits_status {
            return Ok(amount > 0);
        }
        let input = self.buffers.input();
        let start = input.len().min(HTTP.len());
        let error = if amount == 0 {
            self.named.failed("it closes the connection without an answer".to_owned())
        } else if input[..start] != HTTP[..start] {
            self.named.failed("its answer is not HTTP".to_owned())
        } else if input.len() >= STATUS_LINE {
            self.awaits_status = false;
            // Only a proxy answers with this status, never the registry.
            if !input[..STATUS_LINE].ends_with(b" 407") {
                return Ok(true);
            }
            self.named.refuses_user()
        } else {
            return Ok(true);
        };
        Err(Error::Other(Box::new(error)))
    }

    fn is_open(&mut self) -> bool {
        self.proxy.get_mut().is_open()
    }
}

impl fmt::Debug for AbsoluteForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AbsoluteForm").finish_non_exhaustive()
    }
}

/// Finds the heads of requests among the bytes that ureq writes, and rewrites them.
struct Heads {
    /// The scheme and the authority that are written before each path.
    base: String,
    /// The header with the credentials for the proxy, with its end of line; empty if there are
    /// none.
    authorization: String,
    /// The beginning of a head whose end has not been written yet.
    begun: Vec<u8>,
    /// The number of bytes of a body that are still to come.
    body_left: u64,
}

impl Heads {
    fn new(target: &Uri, proxy: &Proxy) -> Self {
        let authority = target.authority().map_or("", |authority| authority.as_str());
        let authorization = proxy.username().map_or_else(String::new, |user| {
            let login = format!("{user}:{}", proxy.password().unwrap_or_default());
            format!("Proxy-Authorization: Basic {}\r\n", BASE64_STANDARD.encode(login))
        });
        Self { base: format!("http://{authority}"), authorization, begun: Vec::new(), body_left: 0 }
    }

    /// Writes bytes with their heads rewritten. Returns whether a head has ended.
    fn write(&mut self, mut bytes: &[u8], out: &mut impl Write) -> io::Result<bool> {
        let mut has_ended = false;
        while !bytes.is_empty() {
            if self.body_left > 0 {
                let (body, rest) = bytes
                    .split_at(bytes.len().min(self.body_left.try_into().unwrap_or(usize::MAX)));
                out.write_all(body)?;
                self.body_left -= body.len() as u64;
                bytes = rest;
                continue;
            }
            // Byte by byte, since the end of a head may be divided between two writes. Heads are
            // short.
            self.begun.push(bytes[0]);
            bytes = &bytes[1..];
            if self.begun.ends_with(b"\r\n\r\n") {
                let head = std::mem::take(&mut self.begun);
                out.write_all(&self.rewrite(&head)?)?;
                has_ended = true;
            } else if self.begun.len() > LONGEST_HEAD {
                return Err(io::Error::other("the head of a request is too long"));
            }
        }
        out.flush()?;
        Ok(has_ended)
    }

    /// Rewrites a complete head, and notes the length of the body that follows it.
    fn rewrite(&mut self, head: &[u8]) -> io::Result<Vec<u8>> {
        let broken = || io::Error::other("a request that has no such head was to be sent");
        let text = str::from_utf8(head).map_err(|_| broken())?;
        let (line, headers) = text.split_once("\r\n").ok_or_else(broken)?;
        let (method, target) = line.split_once(' ').ok_or_else(broken)?;
        for header in headers.lines() {
            let (name, value) = header.split_once(':').unwrap_or_default();
            if name.eq_ignore_ascii_case("content-length") {
                self.body_left = value.trim().parse().map_err(|_| broken())?;
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                // This client sends no body without a length.
                return Err(broken());
            }
        }
        let (base, authorization) = (&self.base, &self.authorization);
        Ok(format!("{method} {base}{target}\r\n{authorization}{headers}").into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use ureq::ProxyProtocol;

    use super::*;

    fn heads(user: Option<&str>) -> Heads {
        let mut proxy = Proxy::builder(ProxyProtocol::Http).host("proxy");
        if let Some(user) = user {
            proxy = proxy.username(user).password("p");
        }
        Heads::new(&"http://reg:5000/v2/".parse().unwrap(), &proxy.build().unwrap())
    }

    /// Checks that it does not matter how ureq divides the bytes that it writes.
    #[test]
    fn heads_are_rewritten_and_bodies_are_not() {
        let written = b"GET /v2/?a=b HTTP/1.1\r\nhost: reg:5000\r\n\r\n\
            PUT /v2/x HTTP/1.1\r\nContent-Length: 20\r\n\r\nGET / HTTP/1.1\r\n\r\n..\
            POST /v2/y HTTP/1.1\r\ncontent-length: 0\r\n\r\n";
        let expected = b"GET http://reg:5000/v2/?a=b HTTP/1.1\r\nProxy-Authorization: Basic dTpw\r\nhost: reg:5000\r\n\r\n\
            PUT http://reg:5000/v2/x HTTP/1.1\r\nProxy-Authorization: Basic dTpw\r\nContent-Length: 20\r\n\r\nGET / HTTP/1.1\r\n\r\n..\
            POST http://reg:5000/v2/y HTTP/1.1\r\nProxy-Authorization: Basic dTpw\r\ncontent-length: 0\r\n\r\n";
        for size in 1..=written.len() {
            let (mut heads, mut out, mut ended) = (heads(Some("u")), Vec::new(), 0);
            for part in written.chunks(size) {
                ended += usize::from(heads.write(part, &mut out).unwrap());
            }
            assert_eq!(
                out.escape_ascii().to_string(),
                expected.escape_ascii().to_string(),
                "{size}"
            );
            assert!((1..=3).contains(&ended), "{size}");
        }
    }

    #[test]
    fn nothing_is_said_of_nobody() {
        let mut out = Vec::new();
        heads(None).write(b"GET / HTTP/1.1\r\n\r\n", &mut out).unwrap();
        assert_eq!(out, b"GET http://reg:5000/ HTTP/1.1\r\n\r\n");
    }

    #[test]
    fn what_has_no_length_is_refused() {
        for head in ["GET\r\n\r\n", "PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"] {
            assert!(heads(None).write(head.as_bytes(), &mut Vec::new()).is_err(), "{head}");
        }
    }
}
