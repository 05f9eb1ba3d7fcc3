//! Closures: the store paths an image is made of, and how they refer to each other.
//! Stage: closure. Input: bytes that Nix wrote. Output: [`Closure`].

mod builder;
mod graph;
mod nar_hash;
mod references_json;
mod registration;
mod rows;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use builder::Builder;
pub use graph::{NodeIdx, ReferencesGraph};
pub use nar_hash::NarHash;
pub use references_json::ReferencesJson;
pub(crate) use rows::Rows;

use crate::error::Hint;
use crate::store::StorePath;

/// The information that Nix registers about a valid store path: a record to make a [`Closure`] of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidPathInfo {
    /// The path itself.
    pub path: StorePath,
    /// The digest of the path's NAR serialisation.
    pub nar_hash: NarHash,
    /// The number of bytes of the path's NAR serialisation.
    pub nar_size: u64,
    /// The store paths whose names the path's files contain, perhaps the path itself among them.
    pub references: BTreeSet<StorePath>,
}

/// A store path of a [`Closure`]. Its references are in the closure's graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosureMember {
    /// The path itself.
    pub path: StorePath,
    /// The digest of the path's NAR serialisation.
    pub nar_hash: NarHash,
    /// The number of bytes of the path's NAR serialisation.
    pub nar_size: u64,
}

/// Says why there is no [`Closure`].
#[derive(Debug, Error)]
pub enum Error {
    /// The file could not be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The input could not be read to its end.
    #[error("cannot read the closure")]
    Input(#[source] io::Error),
    /// A named file holds an error.
    #[error("{}", file.display())]
    In {
        /// The file.
        file: PathBuf,
        /// The error in the file.
        source: Box<Error>,
    },
    /// A line of a registration does not have the format of its place.
    #[error("line {line}: expected {expected}, found {found}")]
    Malformed {
        /// The number of the line, counted from 1.
        line: usize,
        /// A description of what the format has in this place.
        expected: String,
        /// The line, or "end of file".
        found: String,
    },
    /// The text is not a references graph in the JSON that Nix writes.
    #[error("not a references graph")]
    Json(#[from] serde_json::Error),
    /// The sizes of paths can't be true.
    #[error("the store paths have more than 2^56 bytes together, which no machine has")]
    TooLarge,
    /// A path is registered twice, with different contents.
    #[error("{0} is registered twice, with different contents")]
    Contradiction(String),
    /// References lead out of the closure: pairs of a path and the missing path that it refers to.
    #[error("the closure is incomplete: {}", list(.0.iter().map(|(from, to)| format!("{from} refers to {to}"))))]
    Incomplete(Vec<(String, String)>),
    /// References lead back to where they started: the paths of the cycle, in order.
    #[error("the references form a cycle: {}", .0.join(" → "))]
    Cycle(Vec<String>),
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Error::In { source, .. } => source.hint(),
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

/// Joins items for a message, and cuts a long list after the first few.
fn list(items: impl ExactSizeIterator<Item = String>) -> String {
    const SHOWN: usize = 5;
    let more = items.len().saturating_sub(SHOWN);
    let mut text = items.take(SHOWN).collect::<Vec<_>>().join("; ");
    if more > 0 {
        text.push_str(&format!("; and {more} more"));
    }
    text
}

/// A set of store paths that holds everything its members refer to, with the graph of these
/// references. May be empty. Clones share all of their memory.
#[derive(Clone, Debug)]
pub struct Closure {
    /// Sorted by path, each path once.
    infos: Arc<[ClosureMember]>,
    graph: Arc<ReferencesGraph>,
}

impl Closure {
    /// Checks that the records form a closure. Their order does not matter, and equal records count
    /// once.
    ///
    /// # Errors
    /// Fails with [`Error::Contradiction`], [`Error::Incomplete`] (with every missing path) or
    /// [`Error::Cycle`] if they do not.
    pub fn new(infos: Vec<ValidPathInfo>) -> Result<Self, Error> {
        let mut builder = Builder::default();
        for ValidPathInfo { path, nar_hash, nar_size, references } in infos {
            builder.add(path, nar_hash, nar_size, references);
        }
        builder.finish()
    }

    /// Parses a registration or a references graph in JSON. The first byte tells the two apart: a
    /// registration begins with a store path, JSON with a bracket.
    ///
    /// # Errors
    /// Returns the errors of [`Closure::new`], and [`Error::Malformed`] or [`Error::Json`] for a
    /// text that has neither format.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        Self::parse_from(bytes)
    }

    /// Parses like [`Closure::parse`], from a reader: the text may be much longer than the closure
    /// is in memory.
    fn parse_from(mut input: impl BufRead) -> Result<Self, Error> {
        let (space, first) = first_byte(&mut input).map_err(Error::Input)?;
        let input = Cursor::new(space).chain(input);
        match first {
            Some(b'[' | b'{') => {
                let read = serde_json::from_reader::<_, ReferencesJson>(input);
                read.map_err(|error| match error.is_io() {
                    true => Error::Input(error.into()),
                    false => Error::Json(error),
                })?
                .into_closure()
            }
            _ => registration::parse(input)?.finish(),
        }
    }

    /// Returns the union of several closures: all of their paths, each once.
    ///
    /// # Errors
    /// Fails with [`Error::Contradiction`] if a path has different contents in two of them.
    pub fn union(closures: impl IntoIterator<Item = Self>) -> Result<Self, Error> {
        let mut builder = Builder::default();
        closures.into_iter().for_each(|closure| closure.add_to(&mut builder, |_| true));
        builder.finish()
    }

    /// Adds to `builder` the records of the members that `keep` accepts, without references to
    /// others.
    fn add_to(&self, builder: &mut Builder, keep: impl Fn(&StorePath) -> bool) {
        for node in self.nodes() {
            let ClosureMember { path, nar_hash, nar_size } = self.info(node);
            if keep(path) {
                let references = self.references(node).filter(|path| keep(path)).cloned();
                builder.add(path.clone(), *nar_hash, *nar_size, references);
            }
        }
    }

    /// Reads and parses a file.
    ///
    /// # Errors
    /// Returns the errors of [`Closure::parse`], with the file's name.
    pub fn read(file: &Path) -> Result<Self, Error> {
        let read = File::open(file).map_err(Error::Input);
        read.and_then(|open| Self::parse_from(BufReader::with_capacity(BUFFER, open))).map_err(
            |error| match error {
                Error::Input(source) => Error::Read { file: file.to_owned(), source },
                error => Error::In { file: file.to_owned(), source: Box::new(error) },
            },
        )
    }

    /// Returns the closure without some paths and the references to them, for paths that are
    /// elsewhere (in a layer below, say) or not wanted.
    pub fn without(self, excluded: &BTreeSet<StorePath>) -> Self {
        if excluded.iter().all(|path| self.node(path).is_none()) {
            return self;
        }
        let mut builder = Builder::default();
        self.add_to(&mut builder, |path| !excluded.contains(path));
        builder.finish().expect("a part of a closure has no new references")
    }

    /// Returns the members, sorted by path.
    pub fn infos(&self) -> &[ClosureMember] {
        &self.infos
    }

    /// Returns the node of each path in the graph, in the order of [`Closure::infos`].
    pub fn nodes(&self) -> impl Iterator<Item = NodeIdx> + use<> {
        (0..self.infos.len()).map(NodeIdx::new)
    }

    /// Returns the paths that a path refers to, sorted; the path itself may be among them.
    pub fn references(&self, node: NodeIdx) -> impl Iterator<Item = &StorePath> {
        self.graph.references_and_itself(node).map(|node| &self.info(node).path)
    }

    /// Returns the paths that no other refers to.
    pub fn tops(&self) -> impl Iterator<Item = &StorePath> {
        let mut is_top = vec![true; self.infos.len()];
        for reference in self.nodes().flat_map(|node| self.graph.references(node)) {
            is_top[reference.index()] = false;
        }
        let tops = self.graph.topological().iter().filter(move |node| is_top[node.index()]);
        tops.map(|node| &self.info(*node).path)
    }

    /// Returns the member that a node of this closure's graph stands for.
    pub fn info(&self, node: NodeIdx) -> &ClosureMember {
        &self.infos[node.index()]
    }

    /// Returns the record of a path, or `None` if the path is not a member.
    pub fn get(&self, path: &StorePath) -> Option<&ClosureMember> {
        self.node(path).map(|node| self.info(node))
    }

    /// Returns the node of a path in this closure's graph, or `None` if the path is not a member.
    pub fn node(&self, path: &StorePath) -> Option<NodeIdx> {
        self.infos.binary_search_by(|info| info.path.cmp(path)).ok().map(NodeIdx::new)
    }

    /// Returns the graph of the references.
    pub fn graph(&self) -> &ReferencesGraph {
        &self.graph
    }
}

/// The number of bytes of a file that are read at a time.
const BUFFER: usize = 64 << 10;

/// Returns the first byte that is not white space, without consuming this byte, and the white space
/// before it.
fn first_byte(input: &mut impl BufRead) -> io::Result<(Vec<u8>, Option<u8>)> {
    let mut space = Vec::new();
    loop {
        let buffer = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            buffer => buffer?,
        };
        let rest = buffer.trim_ascii_start();
        let (length, first) = (buffer.len() - rest.len(), rest.first().copied());
        space.extend_from_slice(&buffer[..length]);
        let is_end = buffer.is_empty();
        input.consume(length);
        if first.is_some() || is_end {
            return Ok((space, first));
        }
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

    /// Returns the records of which the closure could be made again.
    pub(super) fn records_of(closure: &Closure) -> Vec<ValidPathInfo> {
        let record = |node| {
            let ClosureMember { path, nar_hash, nar_size } = closure.info(node).clone();
            let references = closure.references(node).cloned().collect();
            ValidPathInfo { path, nar_hash, nar_size, references }
        };
        closure.nodes().map(record).collect()
    }

    #[test]
    fn order_and_repetition_do_not_matter() {
        let (a, b) = (info(path('a', "a"), 1, &[]), info(path('b', "b"), 2, &[path('a', "a")]));
        let closure = Closure::new(vec![b.clone(), a.clone(), b.clone()]).unwrap();
        assert_eq!(records_of(&closure), [a, b]);
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
        assert_eq!(closure.graph().references(node).len(), 0);
        assert!(closure.references(node).eq([&path('a', "a")]));
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
        assert_eq!(records_of(&closure.without(&BTreeSet::from([b]))), [info(a, 1, &[])]);
    }
}
