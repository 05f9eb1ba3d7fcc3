//! Holds the registry's own address, and the rule for every other address that the registry names.
//! Stage: registry (pure). Input: addresses. Output: [`Origin`].

use super::address;
use super::no_answer::NoAnswer;
use crate::foreign::PublicUrl;

/// Scheme, host and port of a registry.
///
/// Two rules hold for every request, whether its address comes from a `Location`, a redirection or
/// the realm of a challenge: credentials for the registry are sent to its own origin only; and if
/// the registry has a verified certificate, nothing is sent by plain HTTP.
#[derive(Clone, Debug)]
pub struct Origin {
    /// `https://host:port`
    base: String,
    verified: bool,
}

impl Origin {
    /// Returns the origin `base` (`https://host:port`). With `verify`, its certificate is verified
    /// if it has one.
    pub fn new(base: String, verify: bool) -> Self {
        let verified = verify && base.starts_with("https://");
        Self { base, verified }
    }

    /// Returns the origin as an address without a path.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Returns whether the registry's certificate is verified.
    pub fn is_verified(&self) -> bool {
        self.verified
    }

    /// Returns whether an address is the registry's own, so that it may receive credentials.
    pub fn is_ours(&self, url: &str) -> bool {
        address::is_at(&self.base, url)
    }

    /// Returns the address that `reference`, in the answer from `asked`, stands for.
    pub fn resolve(&self, asked: &str, reference: &str) -> String {
        address::resolve(&self.base, asked, reference)
    }

    /// Checks that a request may be sent to an address.
    ///
    /// # Errors
    /// Fails with [`NoAnswer::Insecure`] if the address is plain HTTP and the registry uses HTTPS.
    pub fn check(&self, url: &str) -> Result<(), NoAnswer> {
        let is_secure = url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
        if self.verified && !is_secure {
            return Err(NoAnswer::Insecure {
                registry: PublicUrl::of(&self.base),
                named: PublicUrl::of(url),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_stays_https() {
        for (base, verify, url, allowed) in [
            ("https://reg", true, "https://reg/v2/", true),
            ("https://reg", true, "HTTPS://other/v2/", true),
            ("https://reg", true, "http://reg/v2/", false),
            ("https://reg", true, "http://other/v2/?https://reg", false),
            ("https://reg", true, "ftp://reg/", false),
            ("https://reg", true, "", false),
            ("https://reg", false, "http://other/", true),
            ("http://reg", true, "http://other/", true),
            ("http://reg", false, "http://other/", true),
        ] {
            let origin = Origin::new(base.to_owned(), verify);
            assert_eq!(origin.check(url).is_ok(), allowed, "{base} {verify} {url}");
        }
    }
}
