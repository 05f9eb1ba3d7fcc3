//! Writes package URLs (purl-spec).
//! Stage: report (pure).

use std::fmt::Write;

use super::{Component, ImagePart};

/// Names a store path as other tools do: `pkg:nix/NAME@VERSION?output=…&outputhash=…`.
pub fn of_component(component: &Component<'_>) -> String {
    let version = component.version.as_deref();
    let output = component.output.as_deref();
    let qualifiers = [("output", output), ("outputhash", Some(component.path.hash_part()))];
    url("nix", &component.name, version, &qualifiers)
}

/// Names an image by the digest of its manifest.
pub fn of_image(image: &ImagePart) -> String {
    let version = image.manifest.to_string();
    let qualifiers = [
        ("arch", Some(&*image.architecture)),
        ("repository_url", image.repository.as_deref()),
        ("tag", image.tag.as_deref()),
    ];
    url("oci", &image.name.to_lowercase(), Some(&version), &qualifiers)
}

/// Writes the parts; qualifiers are sorted by their names already.
fn url(
    kind: &str,
    name: &str,
    version: Option<&str>,
    qualifiers: &[(&str, Option<&str>)],
) -> String {
    let mut url = format!("pkg:{kind}/{}", encoded(name, ""));
    if let Some(version) = version {
        let _ = write!(url, "@{}", encoded(version, ""));
    }
    let mut separator = '?';
    for (key, value) in qualifiers {
        if let Some(value) = value {
            let _ = write!(url, "{separator}{key}={}", encoded(value, "/:"));
            separator = '&';
        }
    }
    url
}

/// Writes all but letters, digits, `.-_~` and `kept` as `%XX`.
fn encoded(text: &str, kept: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric()
            || b".-_~".contains(&byte)
            || kept.as_bytes().contains(&byte)
        {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}
