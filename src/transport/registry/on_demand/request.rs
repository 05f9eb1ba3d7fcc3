//! What a client asks for that names packages, and where these are from.
//! Stage: transport (pure). Input: a repository's name and a tag. Output: [`PackageRequest`].

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::error::OnDemandError;

/// Where a name doesn't say it.
const LATEST: &str = "latest";

/// Where packages are from: a function of `{ system }`, as nixpkgs is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackageSource {
    /// A branch, tag or commit of nixpkgs.
    Nixpkgs(String),
    /// One of another repository.
    Git {
        /// Its URL, as git and Nix take it.
        repository: String,
        /// A branch, tag or commit.
        revision: String,
    },
    /// A directory of this machine.
    Path(PathBuf),
}

/// Why a text names no source of packages.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected `nixpkgs!CHANNEL`, `git!REPOSITORY!REVISION` or `path!DIRECTORY`")]
pub struct ParseSourceError;

impl FromStr for PackageSource {
    type Err = ParseSourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<_> = text.split('!').collect();
        let owned = |part: &&str| (*part).to_owned();
        match &parts[..] {
            parts if parts.contains(&"") => Err(ParseSourceError),
            ["nixpkgs", channel] => Ok(Self::Nixpkgs(owned(channel))),
            ["git", repository, revision] => {
                Ok(Self::Git { repository: owned(repository), revision: owned(revision) })
            }
            ["path", directory] if directory.starts_with('/') => Ok(Self::Path(directory.into())),
            _ => Err(ParseSourceError),
        }
    }
}

impl fmt::Display for PackageSource {
    /// As `buildImageFromNames` has it for `pkgSource`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nixpkgs(channel) => write!(f, "nixpkgs!{channel}"),
            Self::Git { repository, revision } => write!(f, "git!{repository}!{revision}"),
            Self::Path(directory) => write!(f, "path!{}", directory.display()),
        }
    }
}

impl PackageSource {
    /// The source that a tag stands for: `latest` for what was configured, others for the branch,
    /// tag or commit of that name.
    fn tagged(&self, tag: &str) -> Option<Self> {
        match self {
            _ if tag == LATEST => Some(self.clone()),
            Self::Nixpkgs(_) => Some(Self::Nixpkgs(tag.to_owned())),
            Self::Git { repository, .. } => {
                Some(Self::Git { repository: repository.clone(), revision: tag.to_owned() })
            }
            Self::Path(_) => None,
        }
    }

    /// Whether the packages are the same for ever: a commit's.
    pub fn is_fixed(&self) -> bool {
        let is_commit = |text: &str| {
            text.len() == 40 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        match self {
            Self::Nixpkgs(revision) | Self::Git { revision, .. } => is_commit(revision),
            Self::Path(_) => false,
        }
    }
}

/// An image that somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageRequest {
    /// The repository: the packages' names between slashes.
    pub name: String,
    /// The tag.
    pub tag: String,
    /// Where the packages are from.
    pub source: PackageSource,
}

impl PackageRequest {
    /// Reads a repository's name and a tag, both in the specification's alphabet
    /// ([`check_reference`](super::super::catalog::check_reference)): no letter of it means
    /// anything to Nix, git or a shell.
    ///
    /// # Errors
    /// [`OnDemandError::TooManyPackages`], [`OnDemandError::NoTag`].
    pub fn new(
        name: &str,
        tag: &str,
        source: &PackageSource,
        most: usize,
    ) -> Result<Self, OnDemandError> {
        let packages = name.split('/').count();
        if packages > most {
            return Err(OnDemandError::TooManyPackages { packages, most });
        }
        let source = source.tagged(tag).ok_or_else(|| OnDemandError::NoTag(tag.to_owned()))?;
        Ok(Self { name: name.to_owned(), tag: tag.to_owned(), source })
    }

    /// The packages' names, as JSON.
    pub fn packages(&self) -> String {
        serde_json::json!(self.name.split('/').collect::<Vec<_>>()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_and_printed() {
        for text in ["nixpkgs!nixos-unstable", "git!file:///srv/packages!main", "path!/srv"] {
            assert_eq!(text.parse::<PackageSource>().unwrap().to_string(), text);
        }
        for text in
            ["", "nixpkgs", "nixpkgs!", "nixpkgs!a!b", "git!a", "git!!a", "path!a", "svn!a", "!a"]
        {
            assert_eq!(text.parse::<PackageSource>(), Err(ParseSourceError), "{text}");
        }
    }

    #[test]
    fn a_tag_is_a_revision() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        for (source, tag, expected) in [
            ("nixpkgs!nixos-unstable", "latest", Some("nixpkgs!nixos-unstable")),
            ("nixpkgs!nixos-unstable", "nixos-25.11", Some("nixpkgs!nixos-25.11")),
            ("git!https://a/b!main", "latest", Some("git!https://a/b!main")),
            ("git!https://a/b!main", commit, Some(&*format!("git!https://a/b!{commit}"))),
            ("path!/srv", "latest", Some("path!/srv")),
            ("path!/srv", "v1", None),
        ] {
            let source: PackageSource = source.parse().unwrap();
            let found = PackageRequest::new("a/b", tag, &source, 2);
            match (expected, found) {
                (Some(expected), Ok(found)) => {
                    assert_eq!(found.source.to_string(), expected);
                    assert_eq!(found.source.is_fixed(), tag == commit);
                    assert_eq!(found.packages(), r#"["a","b"]"#);
                }
                (None, Err(OnDemandError::NoTag(found))) => assert_eq!(found, tag),
                (expected, found) => panic!("{expected:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn packages_are_counted() {
        let source = PackageSource::Path("/srv".into());
        let error = PackageRequest::new("a/b/c", "latest", &source, 2).unwrap_err();
        assert!(matches!(error, OnDemandError::TooManyPackages { packages: 3, most: 2 }));
    }
}
