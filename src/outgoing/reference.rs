//! The names of images.
//! Stage: outgoing (pure). Input: text. Output: [`Reference`], [`ImageReference`].

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::names::{
    ParseRegistryNameError, ParseRepositoryNameError, ParseTagError, RegistryName, RepositoryName,
    Tag, TagOrDigest,
};
use crate::digest::{BlobDigest, ParseDigestError};

/// The name of an image in a registry: `[registry/]repository[:tag][@digest]`.
///
/// The grammar is that of distribution's references, with the rules by which Docker completes
/// names: a name without a registry is at Docker Hub (`docker.io`), and a name without a namespace
/// there is in `library/`. The part before the first slash is a registry if it has a `.`, a `:` or
/// an upper-case letter, or is `localhost`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    written: String,
    registry: RegistryName,
    repository: RepositoryName,
    tag: Option<Tag>,
    digest: Option<BlobDigest>,
}

/// The name under which an image is loaded: a [`Reference`] with a tag and without a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageReference {
    reference: Reference,
    tag: Tag,
}

/// Says why a text is not the name of an image.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ParseReferenceError {
    /// The text is not a name.
    #[error("`{}` is not an image name: {problem}", shown(text))]
    Invalid {
        /// The text.
        text: String,
        /// The rule that the text breaks.
        problem: ReferenceProblem,
    },
    /// The name has no tag, or has a digest. A digest is the result of a copy, and can't be chosen.
    #[error("`{}` must be a name and a tag, such as `hello:v1`", shown(.0))]
    NotTagged(String),
}

/// Says which rule a name breaks.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ReferenceProblem {
    /// The text is empty.
    #[error("it is empty")]
    Empty,
    /// The text is an address.
    #[error("it begins with `{0}`, and names have no scheme")]
    Scheme(String),
    /// The text is the ID of an image.
    #[error("64 hex digits are an image ID")]
    Identifier,
    /// The text before an `@` can't be a name, and may be a user and a password.
    #[error("what follows `@` must be a digest, and names have no user or password")]
    UserInformation,
    /// The registry is not valid.
    #[error(transparent)]
    Registry(#[from] ParseRegistryNameError),
    /// The repository is not valid.
    #[error(transparent)]
    Repository(#[from] ParseRepositoryNameError),
    /// The tag is not valid.
    #[error(transparent)]
    Tag(#[from] ParseTagError),
    /// The digest is not a SHA-256 digest.
    #[error(transparent)]
    Digest(#[from] ParseDigestError),
}

/// Returns a text for messages: on one line, and without what may be a password.
fn shown(text: &str) -> String {
    without_user_information(&text.escape_debug().to_string())
}

/// Replaces the text before the last `@`, which may be a user and a password
/// (`user:password@host/…`), unless the text after it may be a digest.
pub fn without_user_information(text: &str) -> String {
    // A colon may be percent-encoded (RFC 3986, 2.1).
    let has_password = |text: &str| text.contains(':') || text.to_ascii_lowercase().contains("%3a");
    match text.rsplit_once('@') {
        Some((before, after)) if has_password(before) && after.contains(['/', '.']) => {
            format!("…@{after}")
        }
        _ => text.to_owned(),
    }
}

impl Reference {
    /// Returns the registry. For a name without one, this is Docker Hub.
    pub fn registry(&self) -> &RegistryName {
        &self.registry
    }

    /// Returns the repository's name in the registry.
    pub fn repository(&self) -> &RepositoryName {
        &self.repository
    }

    /// Returns the tag, if the name has one.
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// Returns the digest, if the name has one.
    pub fn digest(&self) -> Option<BlobDigest> {
        self.digest
    }

    /// Returns the name without tag and digest, if it has no registry.
    pub fn short_name(&self) -> Option<&str> {
        let name = self.written.split('@').next().unwrap_or_default();
        let name = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => name,
            _ => name,
        };
        let first = name.split('/').next().unwrap_or_default();
        (!name.contains('/') || !is_registry(first)).then_some(name)
    }

    /// Returns the tag; `latest` if the name has neither a tag nor a digest; `None` if it has only
    /// a digest.
    pub fn tag_or_latest(&self) -> Option<Tag> {
        match (&self.tag, self.digest) {
            (None, None) => Some(Tag::latest()),
            (tag, _) => tag.clone(),
        }
    }

    /// Returns the name by which the manifest is written to its repository: the tag, or the digest
    /// if there is none, or `latest` if there is neither.
    pub fn tag_or_digest(&self) -> TagOrDigest {
        match (&self.tag, self.digest) {
            (None, Some(digest)) => digest.into(),
            (tag, _) => tag.clone().unwrap_or_else(Tag::latest).into(),
        }
    }

    /// Returns the name of the same image by a digest, with the same tag.
    #[must_use]
    pub fn with_digest(&self, digest: BlobDigest) -> Self {
        let written = self.written.split('@').next().unwrap_or_default();
        Self { written: format!("{written}@{digest}"), digest: Some(digest), ..self.clone() }
    }

    /// Returns the registry and the repository, `registry/repository`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Returns the name with all of its parts: `docker.io/library/hello:latest`.
    pub fn whole(&self) -> String {
        let mut text = self.name();
        if let Some(tag) = self.tag_or_latest() {
            text += &format!(":{tag}");
        }
        if let Some(digest) = self.digest {
            text += &format!("@{digest}");
        }
        text
    }

    fn parse(text: &str) -> Result<Self, ReferenceProblem> {
        if text.is_empty() {
            return Err(ReferenceProblem::Empty);
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(ReferenceProblem::Scheme(format!("{}://", scheme.escape_debug())));
        }
        if text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceProblem::Identifier);
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(parse_digest(digest)?)),
            None => (text, None),
        };
        // A colon before a slash belongs to a port or an IPv6 address.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        let (registry, repository) = split_registry(name)?;
        let tag = tag.map(str::parse).transpose()?;
        Ok(Self { written: text.to_owned(), registry, repository, tag, digest })
    }
}

fn parse_digest(text: &str) -> Result<BlobDigest, ReferenceProblem> {
    // No digest has a slash or a second `@`: the text before was meant for a user.
    if text.contains(['/', '@']) {
        return Err(ReferenceProblem::UserInformation);
    }
    Ok(text.parse()?)
}

/// Returns whether the part before the first slash of a name is a registry.
fn is_registry(text: &str) -> bool {
    text == "localhost"
        || text.contains(['.', ':', '['])
        || text.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// Splits a name into its registry and its repository, and completes both as Docker does.
fn split_registry(name: &str) -> Result<(RegistryName, RepositoryName), ReferenceProblem> {
    let (registry, path) = match name.split_once('/') {
        Some((registry, path)) if is_registry(registry) => (registry.parse()?, path),
        _ => (RegistryName::docker_hub(), name),
    };
    let repository: RepositoryName = path.parse()?;
    if registry.is_docker_hub() && !path.contains('/') {
        return Ok((registry, format!("library/{repository}").parse()?));
    }
    Ok((registry, repository))
}

impl ImageReference {
    /// Returns the name as a [`Reference`], for which a tag is optional.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Returns the tag.
    pub fn tag(&self) -> &str {
        self.tag.as_str()
    }

    /// Returns the name with registry and namespace: `docker.io/library/hello:v1`.
    pub fn whole(&self) -> String {
        self.reference.whole()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reference.fmt(f)
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
            .map_err(|problem| ParseReferenceError::Invalid { text: text.to_owned(), problem })
    }
}

impl FromStr for ImageReference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let reference: Reference = text.parse()?;
        // A missing tag does not mean `latest` here: that would be a guess, and most likely wrong.
        match (reference.tag.clone(), reference.digest) {
            (Some(tag), None) => Ok(Self { reference, tag }),
            _ => Err(ParseReferenceError::NotTagged(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_completed_as_docker_does() {
        for (text, registry, repository, tag, digest) in [
            ("hello", "docker.io", "library/hello", None, false),
            ("hello:v1", "docker.io", "library/hello", Some("v1"), false),
            ("team/hello", "docker.io", "team/hello", None, false),
            ("docker.io/hello", "docker.io", "library/hello", None, false),
            ("index.docker.io/hello:v1", "docker.io", "library/hello", Some("v1"), false),
            ("docker.io/team/hello", "docker.io", "team/hello", None, false),
            ("test.com:tag", "docker.io", "library/test.com", Some("tag"), false),
            ("test.com:5000", "docker.io", "library/test.com", Some("5000"), false),
            ("test.com/repo:tag", "test.com", "repo", Some("tag"), false),
            ("test:5000/repo", "test:5000", "repo", None, false),
            ("test:5000/repo:tag", "test:5000", "repo", Some("tag"), false),
            ("foo_bar.com:8080", "docker.io", "library/foo_bar.com", Some("8080"), false),
            ("foo/foo_bar.com:8080", "docker.io", "foo/foo_bar.com", Some("8080"), false),
            ("localhost/a/b:2.0_x", "localhost", "a/b", Some("2.0_x"), false),
            ("local/a", "docker.io", "local/a", None, false),
            // A part with an upper-case letter can't be a namespace.
            ("Team/app:v1", "Team", "app", Some("v1"), false),
            ("sub-dom1.foo.com/bar/baz/quux", "sub-dom1.foo.com", "bar/baz/quux", None, false),
            ("[::1]:5000/a:v1", "[::1]:5000", "a", Some("v1"), false),
            ("[::1]/a", "[::1]", "a", None, false),
            ("[2001:db8::1]/a/b:v1", "[2001:db8::1]", "a/b", Some("v1"), false),
            ("10.0.0.1:80/a", "10.0.0.1:80", "a", None, false),
            ("a@DIGEST", "docker.io", "library/a", None, true),
            ("[::1]:5000/a:v1@DIGEST", "[::1]:5000", "a", Some("v1"), true),
        ] {
            let text = text.replace("DIGEST", DIGEST);
            let found: Reference = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(found.registry().as_str(), registry, "{text}");
            assert_eq!(found.repository().as_str(), repository, "{text}");
            assert_eq!(found.tag().map(Tag::as_str), tag, "{text}");
            assert_eq!(found.digest(), digest.then(|| DIGEST.parse().unwrap()), "{text}");
            assert_eq!(found.to_string(), text);
            assert_eq!(
                found.short_name().is_some(),
                !text.contains("docker.io") && registry == "docker.io",
                "{text}"
            );
            assert_eq!(
                found.whole().parse::<Reference>().unwrap().whole(),
                found.whole(),
                "{text}"
            );
        }
        let latest: Reference = "hello".parse().unwrap();
        assert_eq!(latest.whole(), "docker.io/library/hello:latest");
        let digest: Reference = format!("hello@{DIGEST}").parse().unwrap();
        assert_eq!(digest.whole(), format!("docker.io/library/hello@{DIGEST}"));
    }

    #[test]
    fn names_to_load_are_kept_as_written() {
        for (text, tag, whole) in [
            ("hello:v1", "v1", "docker.io/library/hello:v1"),
            ("localhost:5000/a/b:2.0_x", "2.0_x", "localhost:5000/a/b:2.0_x"),
            ("[::1]:5000/a:v1", "v1", "[::1]:5000/a:v1"),
            ("ghcr.io/o/p:latest", "latest", "ghcr.io/o/p:latest"),
        ] {
            let reference: ImageReference = text.parse().unwrap();
            assert_eq!(
                (reference.to_string(), reference.tag(), reference.whole()),
                (text.to_owned(), tag, whole.to_owned())
            );
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, message) in [
            ("hello", "must be a name and a tag"),
            ("localhost:5000/hello", "must be a name and a tag"),
            ("[::1]:5000/hello", "must be a name and a tag"),
            ("hello:v1@DIGEST", "must be a name and a tag"),
            ("Hello:v1", "is not an image name: repository name must be lowercase"),
            ("localhost/Hello:v1", "is not an image name: repository name must be lowercase"),
            ("hello:", "is not an image name: `` is no tag"),
            (":v1", "is not an image name: a repository must have a name"),
            ("@DIGEST", "is not an image name: a repository must have a name"),
            ("reg.example/:v1", "is not an image name: a repository must have a name"),
            ("hello:a/b", "is not an image name: the registry's port must be"),
            ("hello: v1", "is not an image name: ` v1` is no tag"),
            ("a..b:v1", "is not an image name: repository name must be"),
            ("[::1/a:v1", "is not an image name: the registry must be"),
            ("[::1]:99999/a:v1", "is not an image name: the registry's port must be"),
            ("::1/a:v1", "is not an image name: the registry must be"),
            ("http://reg.example/a:v1", "begins with `http://`"),
            ("docker://a:v1", "begins with `docker://`"),
            ("a@sha256:00", "`sha256:00` is not a digest"),
            ("a@sha512:00", "`sha512:00` is not a digest"),
            ("", "is not an image name: it is empty"),
            (
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                "64 hex digits are an image ID",
            ),
            (
                "user:HUNTER2@reg.example/a:v1",
                "`…@reg.example/a:v1` is not an image name: what follows",
            ),
        ] {
            let text = text.replace("DIGEST", DIGEST);
            let error = text.parse::<ImageReference>().unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
            assert!(!error.contains("HUNTER2"), "{error}");
        }
        let long = format!("{}:v1", "a".repeat(256));
        let error = long.parse::<Reference>().unwrap_err().to_string();
        assert!(error.contains("must not be more than 255 characters"), "{error}");
        let error = "a\u{1b}[31m:v1".parse::<Reference>().unwrap_err().to_string();
        assert!(!error.contains('\u{1b}'), "{error}");
    }

    /// Returns distribution's grammar of references as an expression: registry, repository, tag,
    /// digest.
    fn grammar() -> &'static Regex {
        static GRAMMAR: LazyLock<Regex> = LazyLock::new(compile_grammar);
        &GRAMMAR
    }

    fn compile_grammar() -> Regex {
        let label = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
        let host = format!(r"(?:{label}(?:\.{label})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?");
        let part = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*";
        let tag = "[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}";
        let name = format!("(?:(?:{host})/)?{part}(?:/{part})*");
        Regex::new(&format!("^{name}(?::{tag})?(?:@sha256:[0-9a-f]{{64}})?$")).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Checks that a name which is composed of parts is parsed into these parts again.
        #[test]
        fn parts_are_found_again(
            registry in "([a-z0-9]{1,8}\\.)?[a-z0-9]{1,8}:[1-9][0-9]{0,3}|localhost|\\[::[0-9a-f]{1,4}\\]",
            repository in "[a-z0-9]{1,5}(([._]|__|-{1,3})[a-z0-9]{1,5}){0,2}(/[a-z0-9]{1,5}){0,2}",
            tag in "[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,20}",
            with_digest in any::<bool>(),
        ) {
            let mut text = format!("{registry}/{repository}:{tag}");
            if with_digest {
                text += &format!("@{DIGEST}");
            }
            let found: Reference = text.parse().unwrap();
            prop_assert_eq!(found.registry().as_str(), registry);
            prop_assert_eq!(found.repository().as_str(), repository);
            prop_assert_eq!(found.tag().unwrap().as_str(), tag);
            prop_assert_eq!(found.whole(), text);
        }

        /// Checks that every name that is parsed is in distribution's grammar, and that every text
        /// of the grammar is parsed, except for numbers that are not valid ports or addresses.
        #[test]
        fn the_grammar_is_distributions(text in "[aB0.:/@_\\[\\]-]{0,12}") {
            let read = text.parse::<Reference>();
            let is_of_grammar = grammar().is_match(&text);
            match read {
                Ok(_) => prop_assert!(is_of_grammar, "{text}"),
                Err(ParseReferenceError::Invalid { problem: ReferenceProblem::Registry(_), .. }) => {}
                Err(error) => prop_assert!(!is_of_grammar, "{error}"),
            }
        }

        /// Checks that any text is parsed or refused with an error of one line.
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            if let Err(error) = text.parse::<Reference>() {
                prop_assert_eq!(error.to_string().lines().count(), 1);
            }
        }
    }
}
