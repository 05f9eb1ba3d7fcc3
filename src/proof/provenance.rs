//! Describes how an image was built (SLSA provenance 1.0), as far as its flake is pinned.
//! Stage: proof (pure). Input: `flake.lock` and names. Output: a predicate.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use thiserror::Error;

use crate::foreign::PublicUrl;
use crate::oci::unpack::parse_json;

/// The URI of the way in which images are built, which docs/trust.md describes.
const BUILD_TYPE: &str = "https://stowage.invalid/build-types/flake/v1";

/// Says why a text is no `flake.lock`.
#[derive(Debug, Error)]
pub enum LockError {
    /// The text is not JSON, has other fields, or too many values.
    #[error("it is not a `flake.lock`: {0}")]
    Json(String),
    /// The lock file has a version that is not supported.
    #[error("it is a `flake.lock` of version {0}, and versions 5 to 7 are supported")]
    Version(u64),
}

/// A description of a build.
#[derive(Clone, Debug, Default)]
pub struct Build {
    /// The flake, as the user named it: `github:owner/repo/REV`.
    pub flake: String,
    /// The attribute that was built.
    pub attribute: String,
    /// Nix's name of the system that the build ran on.
    pub system: Option<String>,
    /// The path of the derivation.
    pub derivation: Option<String>,
    /// The version of Nix.
    pub nix_version: Option<String>,
    /// The URI of the person or service that built the image.
    pub builder: String,
}

#[derive(Deserialize)]
struct Lock {
    version: u64,
    #[serde(default)]
    root: String,
    nodes: BTreeMap<String, Node>,
}

#[derive(Deserialize)]
struct Node {
    #[serde(default)]
    locked: Option<Map<String, Value>>,
}

/// Writes the predicate of a statement about a build.
///
/// # Errors
/// Fails with [`LockError`].
pub fn provenance(lock: &[u8], build: &Build) -> Result<Value, LockError> {
    let lock: Lock = parse_json(lock).map_err(LockError::Json)?;
    if !(5..=7).contains(&lock.version) {
        return Err(LockError::Version(lock.version));
    }
    let nodes = lock.nodes.iter().filter(|(name, _)| **name != lock.root);
    let inputs = nodes.filter_map(|(name, node)| Some(dependency(name, node.locked.as_ref()?)));
    let internal = [
        ("system", &build.system),
        ("drvPath", &build.derivation),
        ("nixVersion", &build.nix_version),
    ];
    let internal: Map<_, _> = internal
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), json!(value.as_ref()?))))
        .collect();
    Ok(json!({
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": { "flake": build.flake, "attribute": build.attribute },
            "internalParameters": internal,
            "resolvedDependencies": inputs.collect::<Vec<_>>(),
        },
        "runDetails": { "builder": { "id": build.builder } },
    }))
}

/// Encodes the characters of a path that a URI can't have (RFC 3986, 2.1 and 3.3).
fn encoded(path: &str) -> String {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte);
    let encode = |byte: u8| match allowed(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    path.bytes().map(encode).collect()
}

/// Describes an input as it is locked.
fn dependency(name: &str, locked: &Map<String, Value>) -> Value {
    let text = |key: &str| locked.get(key).and_then(Value::as_str).unwrap_or_default();
    let forge = |host: &str| {
        let host = if text("host").is_empty() { host } else { text("host") };
        format!("git+https://{host}/{}/{}", text("owner"), text("repo"))
    };
    // The address may contain a password.
    let public = |address: &str| PublicUrl::of(address).to_string();
    let uri = match text("type") {
        "github" => forge("github.com"),
        "gitlab" => forge("gitlab.com"),
        "sourcehut" => forge("git.sr.ht"),
        "git" => format!("git+{}", public(text("url"))),
        "hg" => format!("hg+{}", public(text("url"))),
        "path" => format!("path:{}", encoded(text("path"))),
        _ => public(text("url")),
    };
    let mut dependency = json!({ "name": name });
    // A descriptor has no URI rather than an empty one (in-toto, ResourceDescriptor).
    if !uri.is_empty() {
        dependency["uri"] = uri.into();
    }
    let commit = text("rev");
    if !commit.is_empty() {
        let kind = if text("type") == "hg" { "hgCommit" } else { "gitCommit" };
        dependency["digest"] = json!({ kind: commit });
    }
    let hash = text("narHash");
    if !hash.is_empty() {
        dependency["annotations"] = json!({ "narHash": hash });
    }
    dependency
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_input_is_named_as_it_is_locked() {
        let lock = json!({
            "version": 7,
            "root": "root",
            "nodes": {
                "root": { "inputs": { "nixpkgs": "nixpkgs", "own": "own" } },
                "nixpkgs": { "locked": {
                    "type": "github", "owner": "NixOS", "repo": "nixpkgs", "rev": "abc", "narHash": "sha256-x",
                } },
                "own": { "locked": { "type": "git", "url": "https://me:secret@example.org/own?ref=main", "rev": "def" } },
            },
        });
        let build = Build {
            flake: "github:a/b".to_owned(),
            attribute: "app".to_owned(),
            ..Build::default()
        };
        let predicate = provenance(lock.to_string().as_bytes(), &build).unwrap();
        assert_eq!(
            predicate["buildDefinition"]["resolvedDependencies"],
            json!([
                {
                    "name": "nixpkgs",
                    "uri": "git+https://github.com/NixOS/nixpkgs",
                    "digest": { "gitCommit": "abc" },
                    "annotations": { "narHash": "sha256-x" },
                },
                { "name": "own", "uri": "git+https://example.org/own", "digest": { "gitCommit": "def" } },
            ])
        );
        let many =
            format!(r#"{{"version":7,"nodes":{{"a":{{}}{}}}}}"#, r#","b":{}"#.repeat(60_000));
        for (text, expected) in [
            ("", "it is not a `flake.lock`: EOF while parsing a value at line 1 column 0"),
            ("{}", "it is not a `flake.lock`: missing field `version` at line 1 column 2"),
            (
                r#"{"version":9,"nodes":{}}"#,
                "it is a `flake.lock` of version 9, and versions 5 to 7 are supported",
            ),
            (&*many, "it is not a `flake.lock`: it has more than 100000 values"),
        ] {
            let error = provenance(text.as_bytes(), &build).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn addresses_are_uris_or_missing() {
        let lock = json!({ "version": 7, "root": "root", "nodes": {
            "here": { "locked": { "type": "path", "path": "/my flakes/é" } },
            "none": { "locked": { "type": "indirect", "id": "x" } },
        } });
        let made = provenance(lock.to_string().as_bytes(), &Build::default()).unwrap();
        let inputs = &made["buildDefinition"]["resolvedDependencies"];
        assert_eq!(inputs[0], json!({ "name": "here", "uri": "path:/my%20flakes/%C3%A9" }));
        assert_eq!(inputs[1], json!({ "name": "none" }));
    }
}
