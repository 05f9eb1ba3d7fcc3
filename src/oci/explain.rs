//! What an image is made of, and why.
//! Stage: oci (pure). Input: [`ImageSpec`]. Output: [`Explanation`], for people and programs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;

use super::sources::SourceInfo;
use super::spec::{ImageSpec, LayerSource};
use crate::store::{Store, StorePath};

/// An image, taken apart.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Bytes of all layers, uncompressed.
    pub size: u64,
    /// From the bottom up.
    pub layers: Vec<ExplainedLayer>,
    /// Every store path, the largest first.
    pub paths: Vec<ExplainedPath>,
}

/// A layer and what is in it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedLayer {
    /// From 1, at the bottom.
    pub number: usize,
    /// Digest of the uncompressed tar.
    pub diff_id: String,
    /// Bytes of the uncompressed tar.
    pub size: u64,
    /// Names of its store paths, without hashes, the largest first.
    pub names: Vec<String>,
    /// Why these are together.
    pub why: &'static str,
    /// How many store paths there are, of all that the image is made of, whose change would
    /// change this layer: its own, and all that these refer to.
    pub changes_with: usize,
}

/// A store path of an image.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedPath {
    /// The whole path.
    pub path: String,
    /// Without the store directory and the hash.
    pub name: String,
    /// Bytes of its NAR serialisation.
    pub size: u64,
    /// The layer it is in, from 1 at the bottom: the lowest, if it is also copied to `/`.
    pub layer: usize,
    /// The path that is the reason why it is there; none for those that nothing refers to.
    /// Following these leads to such a one by the fewest steps.
    pub because_of: Option<String>,
}

/// Takes an image apart.
pub fn explain(spec: &ImageSpec) -> Explanation {
    let references = References::new(&spec.sources);
    let because = references.because();
    let print = |place: usize| Store::default().print(&spec.sources[place].path);
    let mut paths: Vec<_> = spec
        .sources
        .iter()
        .enumerate()
        .map(|(place, source)| ExplainedPath {
            path: print(place),
            name: source.path.name().to_string(),
            size: source.nar_size,
            layer: layer_of(spec, &source.path),
            because_of: because[place].map(print),
        })
        .collect();
    paths.sort_by(|a, b| (b.size, &a.name, &a.path).cmp(&(a.size, &b.name, &b.path)));
    let layers = spec.layers.iter().enumerate().map(|(index, layer)| {
        let members: BTreeSet<_> =
            layer.sources().filter_map(|path| references.place(path)).collect();
        let mut by_size: Vec<_> = members.iter().map(|place| &spec.sources[*place]).collect();
        by_size.sort_by(|a, b| (b.nar_size, &a.path).cmp(&(a.nar_size, &b.path)));
        ExplainedLayer {
            number: index + 1,
            diff_id: layer.diff_id.to_string(),
            size: layer.size,
            names: by_size.iter().map(|source| source.path.name().to_string()).collect(),
            why: match (&layer.source, members.len()) {
                (LayerSource::Stored(_), _) => "base image",
                (LayerSource::Kept(..), _) => "kept as it was built",
                (LayerSource::Made(contents), _) if !contents.copy_to_root.is_empty() => {
                    "copied to /"
                }
                (_, 1) => "alone",
                _ => "change together",
            },
            changes_with: references.reach(members).len(),
        }
    });
    Explanation { size: spec.size(), layers: layers.collect(), paths }
}

impl Explanation {
    /// What pulls a path in: the chain of references to it, from a path that nothing refers to.
    ///
    /// `wanted` is a store path, or a name or the beginning of one: then each match has a chain.
    pub fn why(&self, wanted: &str) -> Vec<Vec<&ExplainedPath>> {
        let by_path: BTreeMap<_, _> = self.paths.iter().map(|path| (&path.path, path)).collect();
        let matches = |path: &&ExplainedPath| path.path == wanted || path.name.starts_with(wanted);
        let chain = |path| {
            let before = |path: &&ExplainedPath| by_path.get(path.because_of.as_ref()?).copied();
            let mut chain: Vec<_> = std::iter::successors(Some(path), before).collect();
            chain.reverse();
            chain
        };
        self.paths.iter().filter(matches).map(chain).collect()
    }

    /// A page with a map of the image and a search, complete in itself: nothing is fetched.
    pub fn to_html(&self, title: &str) -> String {
        const PAGE: &str = include_str!("explain.html");
        // In a script element only `<` can end it early.
        let json =
            serde_json::to_string(self).expect("an explanation is JSON").replace('<', "\\u003c");
        let title = title.replace('&', "&amp;").replace('<', "&lt;");
        PAGE.replace("{{title}}", &title).replace("{{data}}", &json)
    }
}

fn layer_of(spec: &ImageSpec, path: &StorePath) -> usize {
    let holds = |layer: &super::SpecLayer| layer.sources().any(|source| source == path);
    spec.layers.iter().position(holds).map_or(0, |index| index + 1)
}

/// The references between an image's store paths, by their places in [`ImageSpec::sources`].
struct References<'a> {
    sources: &'a [SourceInfo],
    targets: Vec<Vec<usize>>,
}

impl<'a> References<'a> {
    fn new(sources: &'a [SourceInfo]) -> Self {
        let mut references = Self { sources, targets: Vec::new() };
        references.targets = sources
            .iter()
            .map(|source| {
                source.references.iter().filter_map(|path| references.place(path)).collect()
            })
            .collect();
        references
    }

    fn place(&self, path: &StorePath) -> Option<usize> {
        self.sources.binary_search_by(|source| source.path.cmp(path)).ok()
    }

    /// The paths and all that they refer to.
    fn reach(&self, from: BTreeSet<usize>) -> BTreeSet<usize> {
        let mut open: Vec<_> = from.iter().copied().collect();
        let mut reached = from;
        while let Some(place) = open.pop() {
            open.extend(self.targets[place].iter().filter(|target| reached.insert(**target)));
        }
        reached
    }

    /// For each path, the one before it on a shortest way from one that nothing refers to;
    /// among ways of one length, the first by path.
    fn because(&self) -> Vec<Option<usize>> {
        let referred: BTreeSet<_> = self.targets.iter().flatten().copied().collect();
        let mut because = vec![None; self.sources.len()];
        let mut open: VecDeque<_> =
            (0..self.sources.len()).filter(|place| !referred.contains(place)).collect();
        let mut seen: BTreeSet<_> = open.iter().copied().collect();
        while let Some(place) = open.pop_front() {
            for target in &self.targets[place] {
                if seen.insert(*target) {
                    because[*target] = Some(place);
                    open.push_back(*target);
                }
            }
        }
        because
    }
}
