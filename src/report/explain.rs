//! Explains the contents of an image, and the reason for each store path.
//! Stage: report (pure). Input: [`ImageSpec`]. Output: [`Explanation`], for people and programs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Serialize, Serializer};

use super::diff::Diff;
use super::pieces::PieceCost;
use crate::digest::DiffId;
use crate::oci::{ImageSpec, LayerSource, SourceInfo, SpecLayer};
use crate::store::{Store, StorePath};

/// The contents of an image.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Bytes of all layers, uncompressed.
    pub size: u64,
    /// The layers, from the bottom up.
    pub layers: Vec<ExplainedLayer>,
    /// The store paths, the largest first.
    pub paths: Vec<ExplainedPath>,
    /// The cost of an update in which every store path has another hash, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebuild: Option<PieceCost>,
}

/// A layer and its contents.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedLayer {
    /// The layer's number, from 1 at the bottom.
    pub number: usize,
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Bytes of the uncompressed tar.
    pub size: u64,
    /// The layer's store paths, the largest first. Serialised as names, without hashes.
    #[serde(rename = "names", serialize_with = "names")]
    pub members: Vec<StorePath>,
    /// The reason why these store paths share a layer.
    pub why: &'static str,
    /// The number of the image's store paths whose change would change this layer: those in the
    /// layer, and all that they refer to.
    pub changes_with: usize,
}

/// A store path of an image.
#[derive(Debug)]
pub struct ExplainedPath {
    /// The path itself.
    pub path: StorePath,
    /// The number of bytes of the path's NAR serialisation.
    pub size: u64,
    /// The number of the path's layer, from 1 at the bottom: the lowest one, if the path is also
    /// copied to `/`.
    pub layer: usize,
    /// The path that is the reason for this one; none for a path that nothing refers to. Following
    /// the reasons leads to such a path by the fewest steps.
    pub because_of: Option<StorePath>,
}

impl Serialize for ExplainedPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// The fields as they are serialised: the whole path, and the name, which is the part of it
        /// that people know.
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Out<'p> {
            path: String,
            name: &'p str,
            size: u64,
            layer: usize,
            because_of: Option<String>,
        }
        let Self { path, size, layer, because_of } = self;
        let print = |path| Store::default().print(path);
        Out {
            path: print(path),
            name: path.name(),
            size: *size,
            layer: *layer,
            because_of: because_of.as_ref().map(print),
        }
        .serialize(serializer)
    }
}

fn names<S: Serializer>(paths: &[StorePath], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.iter().map(StorePath::name))
}

/// Explains an image.
pub fn explain(spec: &ImageSpec) -> Explanation {
    let references = References::new(&spec.sources);
    let because = references.because();
    let layers_of = layers_of(spec, &references);
    let path = |place: usize| spec.sources[place].path.clone();
    let mut paths: Vec<_> = spec
        .sources
        .iter()
        .enumerate()
        .map(|(place, source)| ExplainedPath {
            path: path(place),
            size: source.nar_size,
            layer: layers_of[place],
            because_of: because[place].map(path),
        })
        .collect();
    paths.sort_by(|a, b| (b.size, a.path.name(), &a.path).cmp(&(a.size, b.path.name(), &b.path)));
    let is_stored = |layer: &SpecLayer| matches!(layer.source, LayerSource::Stored(_));
    let base = spec.layers.iter().take_while(|layer| is_stored(layer)).count();
    let layers = spec.layers.iter().enumerate().map(|(index, layer)| {
        let members: BTreeSet<_> =
            layer.sources().filter_map(|path| references.place(path)).collect();
        let mut by_size: Vec<_> = members.iter().map(|place| &spec.sources[*place]).collect();
        by_size.sort_by(|a, b| (b.nar_size, &a.path).cmp(&(a.nar_size, &b.path)));
        ExplainedLayer {
            number: index + 1,
            diff_id: layer.diff_id,
            size: layer.size,
            members: by_size.iter().map(|source| source.path.clone()).collect(),
            why: match (&layer.source, members.len()) {
                (LayerSource::Stored(_), _) if index < base => "base image",
                (LayerSource::Stored(_), _) => "made by commands",
                (LayerSource::Kept(..), _) => "kept as it was built",
                (LayerSource::Made(contents), _) if !contents.copy_to_root.is_empty() => {
                    "copied to /"
                }
                (_, 1) => "alone",
                _ => "change together",
            },
            changes_with: references.reach(members),
        }
    });
    Explanation { size: spec.size(), layers: layers.collect(), paths, rebuild: None }
}

impl Explanation {
    /// Returns the reasons for a path: the chain of references to it from a path that nothing
    /// refers to.
    ///
    /// `wanted` is a store path, or a name or the beginning of one; each path that matches has a
    /// chain.
    pub fn why(&self, wanted: &str) -> Vec<Vec<&ExplainedPath>> {
        let by_path: BTreeMap<_, _> = self.paths.iter().map(|path| (&path.path, path)).collect();
        let matches = |path: &&ExplainedPath| {
            path.path.name().starts_with(wanted) || Store::default().print(&path.path) == wanted
        };
        let chain = |path| {
            let before = |path: &&ExplainedPath| by_path.get(path.because_of.as_ref()?).copied();
            let mut chain: Vec<_> = std::iter::successors(Some(path), before).collect();
            chain.reverse();
            chain
        };
        self.paths.iter().filter(matches).map(chain).collect()
    }

    /// Returns a page with a map of the image `name`, a search, and the cost of an update if there is
    /// one. The page is complete in itself: it fetches nothing.
    pub fn to_html(&self, name: &str, update: Option<&Diff>) -> String {
        const PAGE: &str = include_str!("explain.html");
        // Split the page, since what is put into one place may have the name of another in it.
        let mut page = String::new();
        for piece in PAGE.split_inclusive("}}") {
            let Some((text, place)) = piece.rsplit_once("{{") else {
                page += piece;
                continue;
            };
            page += text;
            match place {
                "name}}" => page += &name.replace('&', "&amp;").replace('<', "&lt;"),
                "data}}" => page += &in_script(self),
                "update}}" => page += &in_script(&update),
                _ => page += &piece[text.len()..],
            }
        }
        page
    }
}

/// Returns JSON for a script element, in which only `<` can begin the closing tag.
fn in_script(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a report is JSON").replace('<', "\\u003c")
}

/// Returns, for each store path, the number of the lowest layer that holds it, from 1; 0 if there
/// is none.
fn layers_of(spec: &ImageSpec, references: &References) -> Vec<usize> {
    let mut layers_of = vec![0; spec.sources.len()];
    for (index, layer) in spec.layers.iter().enumerate().rev() {
        for place in layer.sources().filter_map(|path| references.place(path)) {
            layers_of[place] = index + 1;
        }
    }
    layers_of
}

/// The references between an image's store paths, by their places in [`ImageSpec::sources`].
struct References<'a> {
    sources: &'a [SourceInfo],
    targets: Vec<Box<[u32]>>,
}

impl<'a> References<'a> {
    fn new(sources: &'a [SourceInfo]) -> Self {
        let mut references = Self { sources, targets: Vec::new() };
        references.targets = sources
            .iter()
            .map(|source| {
                let places = source.references.iter().filter_map(|path| references.place(path));
                // Half of the memory is enough: there are many numbers, all below 2^32.
                places.map(|place| place as u32).collect()
            })
            .collect();
        references
    }

    fn place(&self, path: &StorePath) -> Option<usize> {
        self.sources.binary_search_by(|source| source.path.cmp(path)).ok()
    }

    fn targets(&self, place: usize) -> impl Iterator<Item = usize> {
        self.targets[place].iter().map(|target| *target as usize)
    }

    /// Returns the number of store paths that are in `from` or can be reached from there.
    fn reach(&self, from: BTreeSet<usize>) -> usize {
        let mut reached = vec![false; self.sources.len()];
        let mut count = 0;
        let mut open: Vec<_> = from.into_iter().collect();
        while let Some(place) = open.pop() {
            if !std::mem::replace(&mut reached[place], true) {
                count += 1;
                open.extend(self.targets(place).filter(|target| !reached[*target]));
            }
        }
        count
    }

    /// Returns, for each path, the path before it on a shortest way from a path that nothing refers
    /// to; among ways of equal length, the first by path.
    fn because(&self) -> Vec<Option<usize>> {
        let mut seen = vec![false; self.sources.len()];
        (0..seen.len())
            .flat_map(|place| self.targets(place))
            .for_each(|target| seen[target] = true);
        // Ways begin at the paths that nothing refers to, and lead to all others.
        let mut open: VecDeque<_> = (0..seen.len()).filter(|place| !seen[*place]).collect();
        seen.fill(false);
        let mut because = vec![None; seen.len()];
        while let Some(place) = open.pop_front() {
            for target in self.targets(place) {
                if !std::mem::replace(&mut seen[target], true) {
                    because[target] = Some(place);
                    open.push_back(target);
                }
            }
        }
        because
    }
}
