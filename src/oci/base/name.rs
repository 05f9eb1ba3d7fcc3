//! The name of a base image: a file or directory, and optionally one of the images in it.
//! Stage: oci (pure). Input: text. Output: [`BaseName`].

use std::path::{Path, PathBuf};

/// The name of a base image: a path, or a path with a transport and optionally a reference
/// (containers-transports(5)): `oci:PATH[:REF]`, `oci-archive:PATH[:REF]`,
/// `docker-archive:PATH[:NAME:TAG]`, `dir:PATH`.
///
/// The format is recognised by the files: the transport only says where the path ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseName {
    /// The file or directory.
    pub path: PathBuf,
    /// The name of the image in the archive or layout.
    pub reference: Option<String>,
    /// The transport, if one is named.
    transport: Option<&'static str>,
}

/// Transports whose path ends at the first colon.
const WITH_REFERENCE: [&str; 3] = ["oci", "oci-archive", "docker-archive"];

impl BaseName {
    /// Parses a name. A path that begins like a transport can be written with `./` before it.
    pub fn parse(text: &Path) -> Self {
        let plain = || Self { path: text.to_owned(), reference: None, transport: None };
        let Some((name, rest)) = text.to_str().and_then(|text| text.split_once(':')) else {
            return plain();
        };
        if name == "dir" {
            return Self { path: rest.into(), reference: None, transport: Some("dir") };
        }
        let Some(transport) = WITH_REFERENCE.into_iter().find(|transport| *transport == name)
        else {
            return plain();
        };
        let (path, reference) = match rest.split_once(':') {
            Some((path, reference)) => (path, Some(reference)),
            None => (rest, None),
        };
        let reference = reference.filter(|reference| !reference.is_empty()).map(str::to_owned);
        Self { path: path.into(), reference, transport: Some(transport) }
    }

    /// Returns the name as it was written, with another path.
    pub fn with_path(&self, path: &Path) -> PathBuf {
        let Some(transport) = self.transport else { return path.to_owned() };
        let mut text = std::ffi::OsString::from(format!("{transport}:"));
        text.push(path);
        if let Some(reference) = &self.reference {
            text.push(format!(":{reference}"));
        }
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_path_and_perhaps_a_reference() {
        for (text, path, reference) in [
            ("/nix/store/x-base", "/nix/store/x-base", None),
            ("base.tar", "base.tar", None),
            ("a:b", "a:b", None),
            ("./oci:b", "./oci:b", None),
            ("oci:/l", "/l", None),
            ("oci:/l:v1", "/l", Some("v1")),
            ("oci:/l:", "/l", None),
            ("oci:/l:docker.io/library/a:v1", "/l", Some("docker.io/library/a:v1")),
            ("oci-archive:a.tar:v1", "a.tar", Some("v1")),
            ("docker-archive:a.tar:hello:v1", "a.tar", Some("hello:v1")),
            ("dir:a:b", "a:b", None),
        ] {
            let name = BaseName::parse(Path::new(text));
            assert_eq!(name.path, Path::new(path), "{text}");
            assert_eq!(name.reference.as_deref(), reference, "{text}");
            let again = name.with_path(&name.path);
            assert_eq!(again, Path::new(text.strip_suffix(':').unwrap_or(text)));
        }
    }
}
