//! Names the SBOM of a base image, to which the SBOM of an image refers.
//! Stage: report (pure). Input: an SBOM by any program. Output: [`BaseList`].

use serde::Deserialize;
use thiserror::Error;

use super::facts::is_url;
use crate::digest::Digest;

/// Says why a document can't be referred to.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BaseListError {
    /// The document is no SBOM in one of the formats.
    #[error("it is neither SPDX 2 nor CycloneDX, as JSON")]
    Format,
    /// The document has no name that is valid for references.
    #[error("it has no valid `{0}`, by which other documents refer to it")]
    NoName(&'static str),
}

/// The SBOM of a base image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseList {
    /// The URI of the document.
    pub uri: String,
    /// The digest of the document's bytes.
    pub digest: Digest,
    /// The format of the document.
    pub format: BaseListFormat,
}

/// The format of the SBOM of a base image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaseListFormat {
    /// SPDX, of any version before 3.
    Spdx,
    /// CycloneDX, of any version.
    Cyclonedx,
}

/// The fields of an SBOM that are read. The packages, of which there may be a million, are skipped.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NamesJson {
    spdx_version: Option<String>,
    document_namespace: Option<String>,
    bom_format: Option<String>,
    serial_number: Option<String>,
    version: Option<u64>,
}

impl BaseList {
    /// Reads the name of an SBOM.
    ///
    /// # Errors
    /// Fails with [`BaseListError`].
    pub fn parse(json: &[u8]) -> Result<Self, BaseListError> {
        let names: NamesJson = serde_json::from_slice(json).map_err(|_| BaseListError::Format)?;
        let digest = Digest::of(json);
        if names.spdx_version.is_some_and(|version| version.starts_with("SPDX-2.")) {
            // A `#` begins the name of an element of the document (SPDX 2.3, 6.5).
            let uri = names.document_namespace.filter(|uri| is_url(uri) && !uri.contains('#'));
            let uri = uri.ok_or(BaseListError::NoName("documentNamespace"))?;
            return Ok(Self { uri, digest, format: BaseListFormat::Spdx });
        }
        if names.bom_format.as_deref() == Some("CycloneDX") {
            let number = names.serial_number.as_deref();
            let uuid = number.and_then(|number| number.strip_prefix("urn:uuid:"));
            let uuid = uuid.filter(|uuid| is_uuid(uuid));
            let uuid = uuid.ok_or(BaseListError::NoName("serialNumber"))?;
            let version = names.version.unwrap_or(1);
            let uri = format!("urn:cdx:{uuid}/{version}");
            return Ok(Self { uri, digest, format: BaseListFormat::Cyclonedx });
        }
        Err(BaseListError::Format)
    }
}

fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_named_as_their_formats_have_it() {
        let cyclonedx =
            |rest: &str| format!(r#"{{"bomFormat":"CycloneDX","serialNumber":"urn:uuid:{rest}}}"#);
        let uuid = "3e671687-395b-41f5-a30f-a58921a69b79";
        let spdx = |namespace: &str| {
            format!(r#"{{"spdxVersion":"SPDX-2.2","documentNamespace":"{namespace}"}}"#)
        };
        let no_namespace = Err(BaseListError::NoName("documentNamespace"));
        for (json, expected) in [
            (spdx("https://example.org/base"), Ok("https://example.org/base".to_owned())),
            (spdx("https://example.org/base#a"), no_namespace.clone()),
            (spdx("a base"), no_namespace),
            (cyclonedx(&format!("{uuid}\",\"version\":3")), Ok(format!("urn:cdx:{uuid}/3"))),
            (cyclonedx(&format!("{uuid}\"")), Ok(format!("urn:cdx:{uuid}/1"))),
            (cyclonedx("1/2\""), Err(BaseListError::NoName("serialNumber"))),
            (r#"{"spdxVersion":"SPDX-3.0"}"#.to_owned(), Err(BaseListError::Format)),
            ("[]".to_owned(), Err(BaseListError::Format)),
            (r#"{"spdxVersion":2}"#.to_owned(), Err(BaseListError::Format)),
            ("SPDXVersion: SPDX-2.3".to_owned(), Err(BaseListError::Format)),
        ] {
            assert_eq!(BaseList::parse(json.as_bytes()).map(|list| list.uri), expected, "{json}");
        }
    }
}
