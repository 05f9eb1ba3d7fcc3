//! Reads the packages out of the name of a repository, and says where they are from.
//! Stage: registry (pure). Input: a repository's name and a tag. Output: [`PackageRequest`].

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::error::OnDemandError;
use crate::foreign::PublicUrl;

/// The tag of a name without one.
const LATEST: &str = "latest";

/// The source of packages: a function of `{ system }`, as nixpkgs is.
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
    /// Writes the source as `buildImageFromNames` takes it for `pkgSource`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nixpkgs(channel) => write!(f, "nixpkgs!{channel}"),
            Self::Git { repository, revision } => write!(f, "git!{repository}!{revision}"),
            Self::Path(directory) => write!(f, "path!{}", directory.display()),
        }
    }
}

impl PackageSource {
    /// Returns the source as messages show it: the address of a repository may have a password.
    pub fn for_messages(&self) -> String {
        match self {
            Self::Git { repository, revision } => {
                format!("git!{}!{revision}", PublicUrl::of(repository))
            }
            other => other.to_string(),
        }
    }

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
    /// The source of the packages.
    pub source: PackageSource,
}

impl PackageRequest {
    /// Reads a repository's name and a tag, both in the specification's alphabet
    /// ([`check_reference`](crate::registry::catalog::check_reference)): no letter of it means
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

    /// Whether Nix says that there is no such branch, tag or commit, by its messages or by those
    /// of git that it passes on. What is set, and not asked for, is not the client's mistake.
    pub fn lacks_revision(&self, output: &str) -> bool {
        let said = |text: String| output.lines().any(|line| line.trim_end().ends_with(&text));
        match &self.source {
            _ if self.tag == LATEST => false,
            // Behind it, some versions have what the server answered.
            PackageSource::Nixpkgs(tag) => {
                output.contains(&format!("/archive/{tag}.tar.gz': HTTP error 404"))
            }
            PackageSource::Git { revision, .. } => {
                said(format!("couldn't find remote ref refs/heads/{revision}"))
                    || output
                        .contains(&format!("ambiguous argument '{revision}': unknown revision"))
                    || output.contains(&format!("Cannot find Git revision '{revision}'"))
            }
            PackageSource::Path(_) => false,
        }
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
    fn what_a_repository_lacks_is_known_by_the_message() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let not_found = "error: unable to download \
            'https://github.com/NixOS/nixpkgs/archive/v1.tar.gz': HTTP error 404\n\n  body: 404";
        let no_connection = "error: unable to download \
            'https://github.com/NixOS/nixpkgs/archive/v1.tar.gz': Couldn't connect to server (7)";
        let other = "error: unable to download \
            'https://cache.nixos.org/x.tar.gz': HTTP error 404";
        let no_ref = "fatal: couldn't find remote ref refs/heads/v1\n\
            error: program 'git' failed with exit code 128";
        let ambiguous = "fatal: ambiguous argument 'v1': unknown revision or path not in the \
            working tree.\nerror: program 'git' failed with exit code 128";
        let no_commit = &*format!("error: Cannot find Git revision '{commit}' in ref 'main' of x");
        for (source, tag, output, expected) in [
            ("nixpkgs!main", "v1", not_found, true),
            ("nixpkgs!main", "v1.tar", not_found, false),
            ("nixpkgs!main", "1", not_found, false),
            ("nixpkgs!main", "v1", no_connection, false),
            ("nixpkgs!main", "v1", other, false),
            // What the server was told is no mistake of the client's.
            ("nixpkgs!v1", "latest", not_found, false),
            ("git!https://a/b!main", "v1", no_ref, true),
            ("git!https://a/b!main", "v", no_ref, false),
            ("git!https://a/b!v1", "latest", no_ref, false),
            ("git!file:///a/b!main", "v1", ambiguous, true),
            ("git!https://a/b!main", commit, no_commit, true),
            ("git!https://a/b!main", "v1", not_found, false),
            ("path!/srv", "latest", not_found, false),
        ] {
            let request = PackageRequest::new("a", tag, &source.parse().unwrap(), 2).unwrap();
            assert_eq!(request.lacks_revision(output), expected, "{source} {tag}: {output}");
        }
    }

    #[test]
    fn packages_are_counted() {
        let source = PackageSource::Path("/srv".into());
        let error = PackageRequest::new("a/b/c", "latest", &source, 2).unwrap_err();
        assert!(matches!(error, OnDemandError::TooManyPackages { packages: 3, most: 2 }));
    }
}
