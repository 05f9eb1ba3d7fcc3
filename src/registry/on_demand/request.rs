//! Parses package names from the name of a repository, and chooses the source of the packages.
//! Stage: registry (pure). Input: an image's name. Output: [`PackageRequest`].

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::error::OnDemandError;
use super::served_tags::ServedTags;
use crate::foreign::PublicUrl;
use crate::outgoing::{Tag, TaggedName};

/// The repository of nixpkgs.
const NIXPKGS: &str = "https://github.com/NixOS/nixpkgs";

/// The source of packages: a function of `{ system }`, as nixpkgs is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackageSource {
    /// A branch, tag or commit of nixpkgs.
    Nixpkgs(String),
    /// A branch, tag or commit of another repository.
    Git {
        /// The repository's URL, as git and Nix accept it.
        repository: String,
        /// A branch, tag or commit.
        revision: String,
    },
    /// A directory of this machine.
    Path(PathBuf),
}

/// Says why a text is not a source of packages.
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
    /// Writes the source in the form of the `pkgSource` of `buildImageFromNames`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nixpkgs(channel) => write!(f, "nixpkgs!{channel}"),
            Self::Git { repository, revision } => write!(f, "git!{repository}!{revision}"),
            Self::Path(directory) => write!(f, "path!{}", directory.display()),
        }
    }
}

impl PackageSource {
    /// Returns the source for messages: without a password that the address of a repository may
    /// have.
    pub fn for_messages(&self) -> String {
        match self {
            Self::Git { repository, revision } => {
                format!("git!{}!{revision}", PublicUrl::of(repository))
            }
            other => other.to_string(),
        }
    }

    /// Returns the source that a tag stands for: the configured one for `latest`, or the branch,
    /// tag or commit with the tag's name, if such tags are served.
    fn tagged(&self, tag: &Tag, served: ServedTags) -> Result<Self, OnDemandError> {
        let not_served = |served| OnDemandError::NotServed { tag: tag.clone(), served };
        if tag.is_latest() {
            return Ok(self.clone());
        }
        if matches!(self, Self::Path(_)) {
            return Err(OnDemandError::NoTag(tag.clone()));
        }
        let is_commit = is_commit(tag.as_str());
        let needed = if is_commit { ServedTags::Commits } else { ServedTags::Branches };
        if served < needed {
            return Err(not_served(served));
        }
        match self {
            // GitHub's archives have the commits of all forks: a commit may come from any user.
            Self::Nixpkgs(_) if is_commit => Err(not_served(ServedTags::Branches)),
            Self::Nixpkgs(_) => Ok(Self::Nixpkgs(tag.to_string())),
            Self::Git { repository, .. } => {
                Ok(Self::Git { repository: repository.clone(), revision: tag.to_string() })
            }
            Self::Path(_) => Err(not_served(served)),
        }
    }

    /// Returns whether the packages can never change: those of a commit.
    pub fn is_fixed(&self) -> bool {
        match self {
            Self::Nixpkgs(revision) | Self::Git { revision, .. } => is_commit(revision),
            Self::Path(_) => false,
        }
    }
}

/// Returns whether a revision has the form of a commit.
pub fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A request for an image of packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageRequest {
    /// The image's name, whose repository is the packages' names between slashes.
    pub name: TaggedName,
    /// The source of the packages.
    pub source: PackageSource,
    /// The branch, tag or commit that the client named.
    pub named: Option<Tag>,
}

impl PackageRequest {
    /// Parses an image's name. No character of such a name has a special meaning in Nix, git or a
    /// shell.
    ///
    /// # Errors
    /// Fails with [`OnDemandError::TooManyPackages`] if the name lists too many, with
    /// [`OnDemandError::NoTag`] if the source has no tags, and with [`OnDemandError::NotServed`] if
    /// such tags are not served.
    pub fn new(
        name: &TaggedName,
        source: &PackageSource,
        served: ServedTags,
        most: usize,
    ) -> Result<Self, OnDemandError> {
        let packages = name.repository.as_str().split('/').count();
        if packages > most {
            return Err(OnDemandError::TooManyPackages { packages, most });
        }
        let source = source.tagged(&name.tag, served)?;
        let named = (!name.tag.is_latest()).then(|| name.tag.clone());
        Ok(Self { name: name.clone(), source, named })
    }

    /// Returns the addresses of archives of nixpkgs, of which the first existing one is used. The
    /// configured revision may be of any kind; a revision that a client named is a branch or else a
    /// tag of the repository itself. (For a bare name, GitHub also accepts a commit of any fork.)
    pub fn archives(&self) -> Vec<String> {
        let PackageSource::Nixpkgs(revision) = &self.source else { return Vec::new() };
        let archive = |prefix: &str| format!("{NIXPKGS}/archive/{prefix}{revision}.tar.gz");
        match self.named {
            None => vec![archive("")],
            Some(_) => vec![archive("refs/heads/"), archive("refs/tags/")],
        }
    }

    /// Returns the packages' names as JSON.
    pub fn packages(&self) -> String {
        serde_json::json!(self.name.repository.as_str().split('/').collect::<Vec<_>>()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(repository: &str, tag: &str) -> TaggedName {
        TaggedName::parse(repository, tag).unwrap()
    }

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
        use ServedTags::{Branches, Commits, Latest};
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let unstable = "nixpkgs!nixos-unstable";
        for (source, served, tag, expected) in [
            (unstable, Latest, "latest", Some("nixpkgs!nixos-unstable")),
            (unstable, Latest, "nixos-25.11", None),
            (unstable, Branches, "nixos-25.11", Some("nixpkgs!nixos-25.11")),
            (unstable, Branches, commit, None),
            (unstable, Commits, commit, None),
            ("git!https://a/b!main", Latest, "latest", Some("git!https://a/b!main")),
            ("git!https://a/b!main", Latest, "next", None),
            ("git!https://a/b!main", Branches, "next", Some("git!https://a/b!next")),
            ("git!https://a/b!main", Branches, commit, None),
            ("git!https://a/b!main", Commits, commit, Some(&*format!("git!https://a/b!{commit}"))),
            ("path!/srv", Commits, "latest", Some("path!/srv")),
            ("path!/srv", Commits, "v1", None),
        ] {
            let source: PackageSource = source.parse().unwrap();
            let found = PackageRequest::new(&name("a/b", tag), &source, served, 2);
            match (expected, found) {
                (Some(expected), Ok(found)) => {
                    assert_eq!(found.source.to_string(), expected);
                    assert_eq!(found.source.is_fixed(), tag == commit);
                    assert_eq!(found.packages(), r#"["a","b"]"#);
                }
                (
                    None,
                    Err(OnDemandError::NoTag(found) | OnDemandError::NotServed { tag: found, .. }),
                ) => {
                    assert_eq!(found.as_str(), tag);
                }
                (expected, found) => panic!("{expected:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn clients_name_branches_and_tags_of_nixpkgs_itself() {
        let source: PackageSource = "nixpkgs!main".parse().unwrap();
        let archives = |tag| {
            let request = PackageRequest::new(&name("a", tag), &source, ServedTags::Branches, 2);
            request.unwrap().archives()
        };
        let archive = |name| format!("https://github.com/NixOS/nixpkgs/archive/{name}.tar.gz");
        assert_eq!(archives("latest"), [archive("main")]);
        // An abbreviated commit is treated like any other name.
        assert_eq!(
            archives("abcdef0"),
            [archive("refs/heads/abcdef0"), archive("refs/tags/abcdef0")]
        );
    }

    #[test]
    fn packages_are_counted() {
        let source = PackageSource::Path("/srv".into());
        let error = PackageRequest::new(&name("a/b/c", "latest"), &source, ServedTags::Latest, 2)
            .unwrap_err();
        assert!(matches!(error, OnDemandError::TooManyPackages { packages: 3, most: 2 }));
    }
}
