//! Parses the path of a request (distribution-spec, "Endpoints").
//! Stage: registry (pure). Input: a path. Output: [`Route`].

use percent_encoding::percent_decode_str;

use crate::digest::BlobDigest;
use crate::outgoing::{ParseTagOrDigestError, RepositoryName, Tag, TagOrDigest};

/// The beginning of the path of an image's map.
pub const MAP: &str = "/map/";

/// The thing that a path asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// The registry itself: clients ask whether there is one.
    Base,
    /// The names of all repositories.
    Catalog,
    /// A repository's tags.
    Tags(RepositoryName),
    /// A manifest, by tag or digest.
    Manifest(RepositoryName, TagOrDigest),
    /// A blob.
    Blob(RepositoryName, BlobDigest),
    /// The manifests that refer to a manifest.
    Referrers(RepositoryName, BlobDigest),
    /// The beginning of an upload, or a step of it.
    Upload(RepositoryName),
    /// The page that shows the contents of an image, by its tag: no part of the registry's interface.
    Map(RepositoryName, Tag),
}

impl Route {
    /// Returns the repository in the path, if there is one.
    pub fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Base | Self::Catalog => None,
            Self::Tags(name)
            | Self::Manifest(name, _)
            | Self::Blob(name, _)
            | Self::Referrers(name, _)
            | Self::Upload(name)
            | Self::Map(name, _) => Some(name),
        }
    }
}

/// Says why a path can't be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// The path is not one of a registry.
    NotFound,
    /// The name is not valid for a repository.
    Name,
    /// The digest is not valid.
    Digest,
    /// The reference is neither a tag nor a digest.
    Reference,
}

/// Parses a path. A repository's name may have slashes and even `manifests` in it, so the path is
/// parsed from the right. The last part, a tag or a digest, is decoded once (`sha256%3A…`), since
/// clients may encode a colon in a path (RFC 3986, 2.2 and 3.3). A name has no characters that need
/// encoding, and is not decoded: a proxy in front may have rules for names, and compares the path as
/// it is written.
pub fn route(path: &str) -> Result<Route, NoRoute> {
    match path {
        "/v2/" | "/v2" => return Ok(Route::Base),
        "/v2/_catalog" => return Ok(Route::Catalog),
        _ => {}
    }
    let named = |name: &str| name.parse().map_err(|_| NoRoute::Name);
    if let Some(reference) = path.strip_prefix(MAP) {
        let (name, tag) = reference.rsplit_once(':').ok_or(NoRoute::NotFound)?;
        let tag = percent_decode_str(tag).decode_utf8_lossy();
        let tag = tag.parse().map_err(|_| NoRoute::Reference)?;
        return Ok(Route::Map(named(name)?, tag));
    }
    let rest = path.strip_prefix("/v2/").ok_or(NoRoute::NotFound)?;
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return named(name).map(Route::Tags);
    }
    if let Some((name, _)) = rest.split_once("/blobs/uploads") {
        return named(name).map(Route::Upload);
    }
    let (before, last) = rest.rsplit_once('/').ok_or(NoRoute::NotFound)?;
    let (name, kind) = before.rsplit_once('/').ok_or(NoRoute::NotFound)?;
    // A part that was encoded twice still has a `%`, which neither a tag nor a digest may have.
    let last = percent_decode_str(last).decode_utf8_lossy();
    let digest = || last.parse().map_err(|_| NoRoute::Digest);
    match kind {
        "manifests" => {
            let name = named(name)?;
            let reference = last.parse().map_err(|problem| match problem {
                ParseTagOrDigestError::Digest => NoRoute::Digest,
                ParseTagOrDigestError::Tag => NoRoute::Reference,
            })?;
            Ok(Route::Manifest(name, reference))
        }
        "blobs" => Ok(Route::Blob(named(name)?, digest()?)),
        "referrers" => Ok(Route::Referrers(named(name)?, digest()?)),
        _ => Err(NoRoute::NotFound),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_ask_for_what_they_ask_for() {
        let hex = "0".repeat(64);
        let digest: BlobDigest = format!("sha256:{hex}").parse().unwrap();
        let name = |text: &str| text.parse::<RepositoryName>().unwrap();
        let tag = |text: &str| text.parse::<Tag>().unwrap();
        let blobs = |name: &str| format!("/v2/{name}/blobs/sha256:{hex}");
        let cases = [
            ("/v2/".to_owned(), Ok(Route::Base)),
            ("/v2/_catalog".to_owned(), Ok(Route::Catalog)),
            ("/v2/a/b/tags/list".to_owned(), Ok(Route::Tags(name("a/b")))),
            ("/v2/a/manifests/v1".to_owned(), Ok(Route::Manifest(name("a"), tag("v1").into()))),
            (
                "/v2/manifests/manifests/manifests/v1".to_owned(),
                Ok(Route::Manifest(name("manifests/manifests"), tag("v1").into())),
            ),
            (blobs("a/b/c"), Ok(Route::Blob(name("a/b/c"), digest))),
            (blobs("blobs"), Ok(Route::Blob(name("blobs"), digest))),
            (format!("/v2/a/referrers/sha256:{hex}"), Ok(Route::Referrers(name("a"), digest))),
            (format!("/v2/a/referrers/sha256%3A{hex}"), Ok(Route::Referrers(name("a"), digest))),
            (format!("/v2/a/blobs/sha256%3A{hex}"), Ok(Route::Blob(name("a"), digest))),
            (format!("/v2/a/blobs/sha256%3a{hex}"), Ok(Route::Blob(name("a"), digest))),
            (
                format!("/v2/a/manifests/sha256%3A{hex}"),
                Ok(Route::Manifest(name("a"), digest.into())),
            ),
            ("/v2/a/manifests/v%31".to_owned(), Ok(Route::Manifest(name("a"), tag("v1").into()))),
            (format!("/v2/a/blobs/sha256%253A{hex}"), Err(NoRoute::Digest)),
            (format!("/v2/a/blobs/%73ha256%3A{}%2F", &hex[1..]), Err(NoRoute::Digest)),
            ("/v2/a/manifests/v%2531".to_owned(), Err(NoRoute::Reference)),
            ("/v2/a/manifests/v1%2F..%2Fv2".to_owned(), Err(NoRoute::Reference)),
            ("/v2/a/manifests/v1%00".to_owned(), Err(NoRoute::Reference)),
            ("/v2/a/manifests/v%ff".to_owned(), Err(NoRoute::Reference)),
            ("/v2/a/manifests/v%".to_owned(), Err(NoRoute::Reference)),
            ("/v2/a/blobs/uploads/".to_owned(), Ok(Route::Upload(name("a")))),
            ("/v2/a/blobs/uploads/1-2-3".to_owned(), Ok(Route::Upload(name("a")))),
            ("/map/a/b:v1".to_owned(), Ok(Route::Map(name("a/b"), tag("v1")))),
            ("/map/a/b".to_owned(), Err(NoRoute::NotFound)),
            ("/map/A:v1".to_owned(), Err(NoRoute::Name)),
            ("/map/../a:v1".to_owned(), Err(NoRoute::Name)),
            ("/map/a:%2e%2e".to_owned(), Err(NoRoute::Reference)),
            ("/".to_owned(), Err(NoRoute::NotFound)),
            ("/v1/a/manifests/v1".to_owned(), Err(NoRoute::NotFound)),
            ("/v2/a".to_owned(), Err(NoRoute::NotFound)),
            ("/v2/a/v1".to_owned(), Err(NoRoute::NotFound)),
            ("/v2/a/files/v1".to_owned(), Err(NoRoute::NotFound)),
            ("/v2/manifests/v1".to_owned(), Err(NoRoute::NotFound)),
            ("/v2//manifests/v1".to_owned(), Err(NoRoute::Name)),
            ("/v2/A/manifests/v1".to_owned(), Err(NoRoute::Name)),
            ("/v2/a/../b/manifests/v1".to_owned(), Err(NoRoute::Name)),
            ("/v2/a%2fb/manifests/v1".to_owned(), Err(NoRoute::Name)),
            ("/v2/%61/manifests/v1".to_owned(), Err(NoRoute::Name)),
            ("/v2/%2e%2e/manifests/v1".to_owned(), Err(NoRoute::Name)),
            (blobs(&"a".repeat(256)), Err(NoRoute::Name)),
            ("/v2/a/blobs/sha256:0".to_owned(), Err(NoRoute::Digest)),
            ("/v2/a/blobs/..".to_owned(), Err(NoRoute::Digest)),
            ("/v2/a/manifests/sha256:0".to_owned(), Err(NoRoute::Digest)),
            ("/v2/a/manifests/.v1".to_owned(), Err(NoRoute::Reference)),
            ("/v2/a/manifests/".to_owned(), Err(NoRoute::Reference)),
        ];
        for (path, expected) in &cases {
            assert_eq!(route(path), *expected, "{path}");
        }
    }
}
