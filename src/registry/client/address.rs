//! Resolves the addresses that a registry names, and tells whether they are at the registry itself.
//! Stage: registry (pure). Input: the registry's address, and others. Output: addresses.

use url::Url;

/// Returns whether an address is at the registry, by scheme, host and port. Returns false if either
/// can't be parsed.
pub fn is_at(registry: &str, address: &str) -> bool {
    let [registry, address] = [registry, address].map(|text| text.parse::<Url>());
    matches!((registry, address), (Ok(registry), Ok(address)) if registry.origin() == address.origin())
}

/// Returns the address that a reference in the answer from `asked` stands for (RFC 3986, 5.2), or
/// the reference itself if it can't be resolved.
///
/// A registry behind a proxy that ends TLS often believes that clients use plain HTTP. An address
/// at its own host is therefore changed to HTTPS, and to the port that was used before: nothing is
/// sent in the clear.
pub fn resolve(registry: &str, asked: &str, reference: &str) -> String {
    let joined = asked.parse::<Url>().and_then(|asked| asked.join(reference));
    let (Ok(mut url), Ok(registry)) = (joined, registry.parse::<Url>()) else {
        return reference.to_owned();
    };
    if (registry.scheme(), url.scheme()) == ("https", "http") && registry.host() == url.host() {
        // Neither call fails for addresses with a host.
        let _ = url.set_scheme("https");
        let _ = url.set_port(registry.port());
    }
    url.set_fragment(None);
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_told_from_others() {
        for (registry, address, expected) in [
            ("https://reg", "https://reg/v2/", true),
            ("https://reg", "https://REG:443/v2/", true),
            ("https://reg:443", "https://reg/v2/", true),
            ("https://reg:5000", "https://reg:5000/v2/?a=b", true),
            ("http://reg:80", "http://Reg/v2/", true),
            ("http://[::1]:5000", "http://[::1]:5000/v2/", true),
            ("https://reg", "http://reg/v2/", false),
            ("https://reg:80", "http://reg/v2/", false),
            ("https://reg:5000", "http://reg:5000/v2/", false),
            ("http://reg", "https://reg/v2/", false),
            ("https://reg", "https://reg:5000/v2/", false),
            ("https://reg", "https://reg.example/v2/", false),
            ("https://reg", "https://reg@evil.example/", false),
            ("https://reg", "https://evil.example/?https://reg/", false),
            ("https://reg", "h://reg/v2/", false),
            ("https://reg", "/v2/", false),
            ("https://reg", "", false),
        ] {
            assert_eq!(is_at(registry, address), expected, "{registry} {address}");
        }
    }

    #[test]
    fn references_are_resolved() {
        let asked = "/v2/a/b/blobs/uploads/";
        for (registry, reference, expected) in [
            ("https://reg", "/v2/x?state=a%2Fb", "https://reg/v2/x?state=a%2Fb"),
            ("https://reg:5000", "/v2/x", "https://reg:5000/v2/x"),
            ("https://reg", "1234", "https://reg/v2/a/b/blobs/uploads/1234"),
            ("https://reg", "../x/./y", "https://reg/v2/a/b/blobs/x/y"),
            ("https://reg", "?state=x", "https://reg/v2/a/b/blobs/uploads/?state=x"),
            ("https://reg", "//storage/x", "https://storage/x"),
            ("https://reg", "//reg/x", "https://reg/x"),
            ("https://reg", "https://storage/x?sig=a+b%3D#part", "https://storage/x?sig=a+b%3D"),
            // Other hosts may do without TLS: credentials are never sent there.
            ("https://reg", "http://storage/x", "http://storage/x"),
            ("https://reg", "http://reg/x", "https://reg/x"),
            ("https://reg", "http://REG:80/x", "https://reg/x"),
            ("https://reg:8443", "http://reg/x", "https://reg:8443/x"),
            ("https://reg", "http://reg:5000/x", "https://reg/x"),
            ("http://reg:5000", "http://reg:5000/x", "http://reg:5000/x"),
            ("http://reg:5000", "https://reg/x", "https://reg/x"),
            ("https://reg", "http://", "http://"),
        ] {
            let asked = format!("{registry}{asked}");
            let resolved = resolve(registry, &asked, reference);
            assert_eq!(resolved, expected, "{registry} {reference}");
        }
        // A reference is relative to the address that redirections led to.
        assert_eq!(resolve("https://reg", "https://storage/a/b", "c"), "https://storage/a/c");
    }
}
