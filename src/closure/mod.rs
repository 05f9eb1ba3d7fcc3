//! Closures: the store paths an image is made of, and how they refer to each other.
//! Stage: closure. Input: bytes that Nix wrote. Output: [`Closure`].

mod graph;
mod references_json;
mod registration;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use harmonia_utils_hash::fmt::Any;
use harmonia_utils_hash::{Hash, Sha256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

pub use graph::{NodeIdx, ReferencesGraph};
pub use references_json::ReferencesJson;

use crate::error::Hint;
use crate::store::{Store, StorePath};

/// Digest of a store path's NAR serialisation, printed as Nix registers it:
/// `sha256:` and 52 base-32 digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NarHash(Sha256);

impl NarHash {
    /// Wraps the digest of a NAR.
    pub fn new(sha256: [u8; 32]) -> Self {
        Self(Sha256::new(&sha256))
    }

    /// As the Nix database has it: `sha256:` and 64 hex digits.
    pub fn to_base16(&self) -> String {
        harmonia_utils_hash::fmt::CommonHash::as_base16(&self.0).to_string()
    }

    /// As Nix expressions have it today (W3C, Subresource Integrity): `sha256-` and base 64.
    pub fn to_sri(&self) -> String {
        harmonia_utils_hash::fmt::CommonHash::as_sri(&self.0).to_string()
    }
}

impl fmt::Display for NarHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&harmonia_utils_hash::fmt::CommonHash::as_base32(&self.0), f)
    }
}

impl fmt::Debug for NarHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NarHash {
    type Err = String;

    /// Reads every form in which Nix versions print it: base-16, base-32, base-64 and SRI.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hash = text.parse::<Any<Hash>>().map_err(|error| error.to_string())?.into_hash();
        Sha256::try_from(hash).map(Self).map_err(|error| format!("hash '{text}' {error}"))
    }
}

impl Serialize for NarHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NarHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What Nix registers of a valid store path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidPathInfo {
    /// The path itself.
    pub path: StorePath,
    /// Digest of its NAR serialisation.
    pub nar_hash: NarHash,
    /// Bytes of its NAR serialisation.
    pub nar_size: u64,
    /// The store paths it contains the names of, itself perhaps among them.
    pub references: BTreeSet<StorePath>,
}

/// Why there is no [`Closure`].
#[derive(Debug, Error)]
pub enum Error {
    /// The file could not be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Some error in a named file.
    #[error("{}: {error}", file.display())]
    In {
        /// The file.
        file: PathBuf,
        /// What is wrong in it.
        error: Box<Error>,
    },
    /// A line of a registration that isn't what the format has there.
    #[error("line {line}: expected {expected}, found {found}")]
    Malformed {
        /// Counted from 1.
        line: usize,
        /// What the format has in this place.
        expected: String,
        /// The line, or "end of file".
        found: String,
    },
    /// A references graph that isn't the JSON that Nix writes.
    #[error("not a references graph: {0}")]
    Json(#[from] serde_json::Error),
    /// One path registered twice, differently.
    #[error("{0} is registered twice, with different contents")]
    Contradiction(String),
    /// References that lead out of the closure.
    #[error("the closure is incomplete: {}", list(.0.iter().map(|(from, to)| format!("{from} refers to {to}"))))]
    Incomplete(Vec<(String, String)>),
    /// References that lead back to where they started.
    #[error("the references form a cycle: {}", .0.join(" → "))]
    Cycle(Vec<String>),
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Error::In { error, .. } => error.hint(),
            Error::Malformed { .. } | Error::Json(_) => Some(
                "expected the file `registration` of `closureInfo`, or the JSON of \
                 `exportReferencesGraph` under `__structuredAttrs`"
                    .to_owned(),
            ),
            Error::Incomplete(_) => Some(
                "list every store path with its references, as `nix-store -qR` does".to_owned(),
            ),
            _ => None,
        }
    }
}

/// Long lists are cut: the first few say enough.
fn list(items: impl ExactSizeIterator<Item = String>) -> String {
    const SHOWN: usize = 5;
    let more = items.len().saturating_sub(SHOWN);
    let mut text = items.take(SHOWN).collect::<Vec<_>>().join("; ");
    if more > 0 {
        text.push_str(&format!("; and {more} more"));
    }
    text
}

/// A set of store paths that holds everything its members refer to, with the
/// graph of these references. May be empty.
#[derive(Clone, Debug)]
pub struct Closure {
    /// Sorted by path, each path once.
    infos: Vec<ValidPathInfo>,
    graph: ReferencesGraph,
}

impl Closure {
    /// Checks that the records form a closure. Their order does not matter, and
    /// a record that is there twice counts once.
    ///
    /// # Errors
    /// [`Error::Contradiction`], [`Error::Incomplete`] (with every missing path) or [`Error::Cycle`].
    pub fn new(mut infos: Vec<ValidPathInfo>) -> Result<Self, Error> {
        let print = |path| Store::default().print(path);
        infos.sort_by(|a, b| a.path.cmp(&b.path));
        infos.dedup_by(|a, b| a == b);
        if let Some(pair) = infos.windows(2).find(|pair| pair[0].path == pair[1].path) {
            return Err(Error::Contradiction(print(&pair[0].path)));
        }
        let mut missing = Vec::new();
        for info in &infos {
            for reference in &info.references {
                if infos.binary_search_by(|other| other.path.cmp(reference)).is_err() {
                    missing.push((print(&info.path), print(reference)));
                }
            }
        }
        if !missing.is_empty() {
            return Err(Error::Incomplete(missing));
        }
        let graph = ReferencesGraph::new(&infos).map_err(|cycle| {
            Error::Cycle(cycle.iter().map(|node| print(&infos[node.index()].path)).collect())
        })?;
        Ok(Self { infos, graph })
    }

    /// Parses either format by its first byte: a registration's lines begin with
    /// a store path, JSON with a bracket.
    ///
    /// # Errors
    /// As [`Closure::new`], and [`Error::Malformed`] or [`Error::Json`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        Self::new(match bytes.trim_ascii_start().first() {
            Some(b'[' | b'{') => serde_json::from_slice::<ReferencesJson>(bytes)?.into_infos(),
            _ => registration::parse(bytes)?,
        })
    }

    /// All paths of several closures, each once.
    ///
    /// # Errors
    /// [`Error::Contradiction`], if a path is another in one than in the other.
    pub fn union(closures: impl IntoIterator<Item = Self>) -> Result<Self, Error> {
        Self::new(closures.into_iter().flat_map(|closure| closure.infos).collect())
    }

    /// Reads and parses a file.
    ///
    /// # Errors
    /// As [`Closure::parse`], with the file's name.
    pub fn read(file: &Path) -> Result<Self, Error> {
        let bytes =
            fs::read(file).map_err(|source| Error::Read { file: file.to_owned(), source })?;
        Self::parse(&bytes)
            .map_err(|error| Error::In { file: file.to_owned(), error: Box::new(error) })
    }

    /// The same without some paths, nor the references to them: they are elsewhere (in a
    /// layer below, say) or not wanted.
    pub fn without(self, excluded: &BTreeSet<StorePath>) -> Self {
        let mut infos = self.infos;
        infos.retain(|info| !excluded.contains(&info.path));
        for info in &mut infos {
            info.references.retain(|reference| !excluded.contains(reference));
        }
        Self::new(infos).expect("a part of a closure has no new references")
    }

    /// The paths, sorted.
    pub fn infos(&self) -> &[ValidPathInfo] {
        &self.infos
    }

    /// The paths that no other refers to.
    pub fn tops(&self) -> impl Iterator<Item = &StorePath> {
        let is_top = |node: &NodeIdx| self.graph.referrers(*node).is_empty();
        let tops = self.graph.topological().iter().copied().filter(is_top);
        tops.map(|node| &self.info(node).path)
    }

    /// One path of this closure's graph.
    pub fn info(&self, node: NodeIdx) -> &ValidPathInfo {
        &self.infos[node.index()]
    }

    /// The record of a path, if it is a member.
    pub fn get(&self, path: &StorePath) -> Option<&ValidPathInfo> {
        self.node(path).map(|node| self.info(node))
    }

    /// The place of a path in this closure's graph, if it is a member.
    pub fn node(&self, path: &StorePath) -> Option<NodeIdx> {
        self.infos.binary_search_by(|info| info.path.cmp(path)).ok().map(NodeIdx::new)
    }

    /// Who refers to whom.
    pub fn graph(&self) -> &ReferencesGraph {
        &self.graph
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::slice;

    use super::*;

    /// `aaaa…-name`: a store path whose hash is one digit over and over.
    pub(crate) fn path(digit: char, name: &str) -> StorePath {
        format!("{}-{name}", digit.to_string().repeat(32)).parse().unwrap()
    }

    pub(crate) fn info(path: StorePath, nar_size: u64, references: &[StorePath]) -> ValidPathInfo {
        let references = references.iter().cloned().collect();
        ValidPathInfo { path, nar_hash: NarHash::new([0; 32]), nar_size, references }
    }

    #[test]
    fn order_and_repetition_do_not_matter() {
        let (a, b) = (info(path('a', "a"), 1, &[]), info(path('b', "b"), 2, &[path('a', "a")]));
        let closure = Closure::new(vec![b.clone(), a.clone(), b.clone()]).unwrap();
        assert_eq!(closure.infos(), [a, b]);
    }

    #[test]
    fn a_closure_may_be_empty() {
        assert!(Closure::parse(b"").unwrap().infos().is_empty());
        assert!(Closure::parse(b"[]").unwrap().infos().is_empty());
    }

    #[test]
    fn a_union_has_each_path_once() {
        let [a, b, c] = ['a', 'b', 'c'].map(|digit| path(digit, "x"));
        let shared = info(a.clone(), 1, &[]);
        let one = [shared.clone(), info(b, 1, slice::from_ref(&a))];
        let other = [info(c, 1, slice::from_ref(&a)), shared];
        let union = |other: &[ValidPathInfo]| {
            Closure::union([&one, other].map(|infos| Closure::new(infos.to_vec()).unwrap()))
        };
        assert_eq!(union(&other).unwrap().infos().len(), 3);
        assert!(matches!(union(&[info(a.clone(), 2, &[])]), Err(Error::Contradiction(_))));
    }

    #[test]
    fn a_path_may_refer_to_itself() {
        let closure = Closure::new(vec![info(path('a', "a"), 1, &[path('a', "a")])]).unwrap();
        let node = closure.node(&path('a', "a")).unwrap();
        assert!(closure.graph().references(node).is_empty());
        assert!(closure.info(node).references.contains(&path('a', "a")));
    }

    #[test]
    fn a_path_has_one_record() {
        let records = vec![info(path('a', "a"), 1, &[]), info(path('a', "a"), 2, &[])];
        let error = Closure::new(records).unwrap_err();
        assert!(matches!(error, Error::Contradiction(path) if path.ends_with("-a")));
    }

    #[test]
    fn every_missing_reference_is_named() {
        let missing = [path('x', "x"), path('y', "y")];
        let error = Closure::new(vec![info(path('a', "a"), 1, &missing)]).unwrap_err();
        let Error::Incomplete(missing) = error else { panic!("{error}") };
        assert_eq!(missing.len(), 2);
    }

    #[test]
    fn long_lists_of_missing_references_are_cut() {
        let missing: Vec<_> = ('0'..='9').map(|digit| path(digit, "x")).collect();
        let error = Closure::new(vec![info(path('a', "a"), 1, &missing)]).unwrap_err();
        assert!(error.to_string().ends_with("; and 5 more"), "{error}");
    }

    #[test]
    fn a_cycle_is_shown_from_end_to_end() {
        let [a, b, c] = [path('a', "a"), path('b', "b"), path('c', "c")];
        let records = vec![
            info(a.clone(), 1, slice::from_ref(&b)),
            info(b, 1, slice::from_ref(&c)),
            info(c, 1, &[a]),
        ];
        let error = Closure::new(records).unwrap_err().to_string();
        assert_eq!(error.matches(" → ").count(), 3, "{error}");
    }

    #[test]
    fn what_is_excluded_is_not_referred_to_any_more() {
        let [a, b] = [path('a', "a"), path('b', "b")];
        let records = vec![info(a.clone(), 1, slice::from_ref(&b)), info(b.clone(), 1, &[])];
        let closure = Closure::new(records).unwrap();
        assert_eq!(closure.clone().without(&BTreeSet::from([a.clone()])).infos().len(), 1);
        assert_eq!(closure.without(&BTreeSet::from([b])).infos(), [info(a, 1, &[])]);
    }

    #[test]
    fn nar_hashes_are_read_in_every_form() {
        let base32 = "sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s";
        for text in [
            base32,
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
        ] {
            assert_eq!(text.parse::<NarHash>().unwrap().to_string(), base32);
        }
        for text in [
            "",
            "sha256:",
            "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709",
            "1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s",
        ] {
            assert!(text.parse::<NarHash>().is_err(), "{text}");
        }
    }
}
