//! Writes package URLs (purl-spec).
//! Stage: report (pure).

use std::fmt::Write;

use super::{Component, ImagePart};

/// Returns the package URL of a store path, as other tools write it:
/// `pkg:nix/NAME@VERSION?output=…&outputhash=…`.
pub fn of_component(component: &Component<'_>) -> String {
    let version = component.version.as_deref();
    let output = component.output.as_deref();
    let qualifiers = [("output", output), ("outputhash", Some(component.path.hash_part()))];
    url("nix", &component.name, version, &qualifiers)
}

/// Returns the package URL of an image. The version is the digest of the manifest.
pub fn of_image(image: &ImagePart) -> String {
    let version = image.manifest.to_string();
    let qualifiers = [
        ("arch", Some(&*image.architecture)),
        ("repository_url", image.repository.as_deref()),
        ("tag", image.tag.as_deref()),
    ];
    url("oci", &image.name.to_lowercase(), Some(&version), &qualifiers)
}

/// Joins the parts of a package URL. The qualifiers must be sorted by their keys.
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

/// Writes every byte as `%XX`, except letters, digits, `.-_~` and the characters of `kept`.
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
