//! Decides which store path goes into which layer.
//! Stage: layer (pure). Input: a closure and a budget. Output: [`LayerPlan`].

mod auto;
mod budget;
mod error;
mod graph;
mod heat;
mod hints;
mod largest_first;
mod layering;
mod nixery;
mod package;
mod path_idx;
mod pipeline;
mod popular;
mod popularity;
mod previous;
mod roots;
mod runs;
mod sketch;
mod sums;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Serialize, Serializer};

pub use budget::{LayerBudget, ParseBudgetError};
pub use error::PlanError;
pub use hints::LayeringHints;
pub use layering::{Layering, ParseLayeringError};
pub use pipeline::{Pipeline, PipelineError};
pub use popular::Popularity;
pub use previous::PreviousPlan;
pub use roots::{HintRule, RootLayer};

use crate::closure::Closure;
use crate::store::{self, StorePath};
use graph::Graph;
use heat::{Group, Heat, coolest_first};
use hints::Hinted;
use path_idx::PathIdx;

/// An assignment of a closure's paths to layers, from the bottom up: each path in
/// exactly one layer, no layer empty, no more layers than the budget.
///
/// A path that a [`Pipeline`] removes is in no layer.
#[derive(Clone, PartialEq, Eq)]
pub struct LayerPlan(Vec<Vec<StorePath>>);

/// The options of a plan.
#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    /// The algorithm that groups paths.
    pub layering: Layering,
    /// The layers that the author of the image decides.
    pub hints: LayeringHints,
    /// The packages that other images are likely to have too; may be empty.
    pub popularity: Popularity,
    /// An earlier plan, in whose layers paths stay.
    pub previous: Option<PreviousPlan>,
    /// The paths whose files are copied to `/` or linked from there: they seldom change with every build, though nothing
    /// refers to them.
    pub copies: BTreeSet<StorePath>,
}

impl From<Layering> for PlanOptions {
    fn from(layering: Layering) -> Self {
        Self { layering, ..Self::default() }
    }
}

impl LayerPlan {
    /// Plans the layers of a closure. The result is the same for the same closure, whatever the
    /// order of its records and the hashes in its store paths.
    ///
    /// The hints' layers are taken from the budget first, and those of popular paths next. The
    /// layering plans the rest of the closure with the rest of the budget. With any of these, or
    /// with a previous plan, the layers are then listed from the least to the most likely to change
    /// for their size, in place of the layering's own order.
    ///
    /// # Errors
    /// Fails if the hints leave no layer for the rest, or if a pipeline does not fit the closure or
    /// makes too many layers.
    pub fn new(
        closure: &Closure,
        budget: LayerBudget,
        mut options: PlanOptions,
    ) -> Result<Self, PlanError> {
        let previous = options.previous.take();
        let graph = Graph::new(closure).with_copies(&options.copies);
        let hinted = options.hints.layers(&graph);
        let is_plain = hinted.count() == 0
            && previous.is_none()
            && (options.popularity.is_empty() || options.layering.knows_popularity());
        let layers = if is_plain {
            options.layering.layers(&graph, budget, &options.popularity)?
        } else {
            arranged(&graph, budget, &options, previous, hinted)?
        };
        let plan = Self::checked(&graph, budget, layers);
        let planned: usize = plan.0.iter().map(Vec::len).sum();
        assert!(options.layering.may_remove() || planned == graph.len(), "a path is in no layer");
        Ok(plan)
    }

    /// Sorts the paths of each layer by name, and drops the layers that have none.
    fn checked(graph: &Graph, budget: LayerBudget, mut layers: Vec<Vec<PathIdx>>) -> Self {
        layers.retain(|layer| !layer.is_empty());
        let mut seen = graph.per_path(false);
        for layer in &mut layers {
            layer.sort_unstable();
            for path in layer.iter() {
                assert!(!std::mem::replace(&mut seen[*path], true), "a path is in two layers");
            }
        }
        assert!(layers.len() <= budget.get(), "more layers than the budget");
        let path = |path: PathIdx| graph.info(path).path.clone();
        Self(layers.into_iter().map(|layer| layer.into_iter().map(path).collect()).collect())
    }

    /// Returns the layers from the bottom up, the paths of each sorted by name.
    pub fn layers(&self) -> &[Vec<StorePath>] {
        &self.0
    }

    /// Returns the layers from the bottom up, by value.
    pub fn into_layers(self) -> Vec<Vec<StorePath>> {
        self.0
    }
}

/// Returns the hints' layers and those of popular paths, with the other layers around them.
fn arranged(
    graph: &Graph,
    budget: LayerBudget,
    options: &PlanOptions,
    previous: Option<PreviousPlan>,
    hinted: Hinted,
) -> Result<Vec<Vec<PathIdx>>, PlanError> {
    let asked = hinted.count();
    let rest = graph.without(&hinted.paths());
    if asked + usize::from(rest.graph.len() > 0) > budget.get() {
        return Err(PlanError::TooManyHints { asked, budget });
    }
    let mut layers = hinted.layers;
    if let Some(left) = budget.less(asked) {
        let planned = around_popular(&rest.graph, left, options, previous)?;
        layers.extend(rest.layers_in_whole(planned));
    }
    let (heat, weights) = Heat::new(graph);
    let groups = layers.iter().filter_map(|layer| Group::of(&heat, layer, &weights));
    let mut layers = coolest_first(groups.collect());
    layers.extend(hinted.last);
    Ok(layers)
}

/// Returns the layers of popular paths, with the other layers as the layering and the previous plan
/// arrange them.
fn around_popular(
    graph: &Graph,
    budget: LayerBudget,
    options: &PlanOptions,
    previous: Option<PreviousPlan>,
) -> Result<Vec<Vec<PathIdx>>, PlanError> {
    let mut layers = match options.layering.knows_popularity() {
        true => Vec::new(),
        false => options.popularity.layers(graph, budget),
    };
    let rest = graph.without(&layers.concat());
    let left = budget.less(layers.len()).expect("popular paths leave a layer for the rest");
    // The store paths of the previous plan need no memory any more while the others are planned.
    let places = previous.map(|previous| previous.places(&rest.graph));
    let mut planned = options.layering.layers(&rest.graph, left, &options.popularity)?;
    if let Some(places) = places {
        planned = places.keep(&rest.graph, left, planned);
    }
    layers.extend(rest.layers_in_whole(planned));
    Ok(layers)
}

/// A list of layers, each a list of whole paths.
impl Serialize for LayerPlan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Layer<'p>(#[serde(serialize_with = "paths")] &'p [StorePath]);
        fn paths<S: Serializer>(paths: &&[StorePath], serializer: S) -> Result<S::Ok, S::Error> {
            store::full_paths::serialize(*paths, serializer)
        }
        serializer.collect_seq(self.0.iter().map(|layer| Layer(layer)))
    }
}

impl fmt::Debug for LayerPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::closure::{NarHash, ValidPathInfo};

    const DIGITS: &[u8] = b"0123456789abcdfghijklmnpqrsvwxyz";

    fn plan(closure: &Closure, budget: u64, layering: &Layering) -> LayerPlan {
        let options = layering.clone().into();
        LayerPlan::new(closure, LayerBudget::new(budget).unwrap(), options).unwrap()
    }

    pub(crate) fn layerings() -> impl Strategy<Value = Layering> {
        prop::sample::select(Layering::ALL.to_vec())
    }

    /// Returns the nth store path; `salt` changes its hash but not its name.
    fn path(number: usize, name: &str, salt: u8) -> StorePath {
        let hash: String = (0..32u8)
            .map(|place| {
                let byte =
                    (number as u8).wrapping_mul(31).wrapping_add(place).wrapping_mul(salt | 1)
                        ^ salt;
                // The last digits hold the number, so that no two paths collide.
                let digit = match place {
                    30 => number / 32,
                    31 => number,
                    _ => usize::from(byte),
                };
                char::from(DIGITS[digit % 32])
            })
            .collect();
        format!("{hash}-{name}").parse().unwrap()
    }

    /// (name, size, which of the earlier paths are referred to)
    pub(crate) type Shape = Vec<(u8, u64, Vec<bool>)>;

    pub(crate) fn shapes() -> impl Strategy<Value = Shape> {
        prop::collection::vec(
            (
                0u8..40,
                prop_oneof![0u64..5, 0u64..1 << 20],
                prop::collection::vec(any::<bool>(), 60),
            ),
            0..60,
        )
    }

    pub(crate) fn closure(shape: &Shape, salt: u8) -> Vec<ValidPathInfo> {
        let paths: Vec<_> = shape
            .iter()
            .enumerate()
            .map(|(number, (name, ..))| path(number, &format!("name{name}"), salt))
            .collect();
        shape
            .iter()
            .enumerate()
            .map(|(number, (_, nar_size, edges))| ValidPathInfo {
                path: paths[number].clone(),
                nar_hash: NarHash::new([number as u8; 32]),
                nar_size: *nar_size,
                references: (0..number)
                    .filter(|other| edges[*other])
                    .map(|other| paths[other].clone())
                    .collect(),
            })
            .collect()
    }

    /// (name, size, references), each name once.
    pub(crate) fn named(rows: &[(&str, u64, &[&str])]) -> Closure {
        let number = |name: &str| rows.iter().position(|row| row.0 == name).unwrap();
        let infos = rows.iter().map(|(name, nar_size, references)| ValidPathInfo {
            path: path(number(name), name, 7),
            nar_hash: NarHash::new([0; 32]),
            nar_size: *nar_size,
            references: references.iter().map(|name| path(number(name), name, 7)).collect(),
        });
        Closure::new(infos.collect()).unwrap()
    }

    pub(crate) fn names(plan: &LayerPlan) -> Vec<Vec<String>> {
        let name = |path: &StorePath| path.name().to_string();
        plan.layers().iter().map(|layer| layer.iter().map(name).collect()).collect()
    }

    /// Generates options with every layering, a pipeline among them, with and without hints and an
    /// earlier plan.
    fn options() -> impl Strategy<Value = PlanOptions> {
        let pipeline = r#"[["popularity_contest"], ["limit_layers", 1]]"#.parse().unwrap();
        let layering = prop_oneof![5 => layerings(), 1 => Just(pipeline)];
        let hints =
            r#"{"pin": ["name1"], "together": [["name2", "name3"], ["name4"]], "last": ["name0"]}"#;
        let hints: LayeringHints = serde_json::from_str(hints).unwrap();
        let previous: PreviousPlan =
            serde_json::from_str(r#"[["name5", "name5", "name6"], ["name7"], ["name0"]]"#).unwrap();
        let hints = prop::option::weighted(0.3, Just(hints));
        let previous = prop::option::weighted(0.3, Just(previous));
        let popularity = r#"{"name1": 9, "name2": 40, "name8": 7, "name9": "name8", "name10": "name8", "name11": 0}"#;
        let popularity: Popularity = serde_json::from_str(popularity).unwrap();
        let popularity = prop::option::weighted(0.3, Just(popularity));
        (layering, hints, popularity, previous).prop_map(
            |(layering, hints, popularity, previous)| PlanOptions {
                layering,
                hints: hints.unwrap_or_default(),
                popularity: popularity.unwrap_or_default(),
                previous,
                copies: BTreeSet::new(),
            },
        )
    }

    /// Returns none if the hints make more layers than the budget has.
    fn plan_with(closure: &Closure, budget: u64, options: &PlanOptions) -> Option<LayerPlan> {
        match LayerPlan::new(closure, LayerBudget::new(budget).unwrap(), options.clone()) {
            Ok(plan) => Some(plan),
            Err(PlanError::TooManyHints { asked, .. }) => {
                assert!(asked >= budget as usize);
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    proptest! {
        #[test]
        fn each_path_is_in_one_layer_and_the_budget_holds(
            shape in shapes(), budget in 1u64..=127, options in options(),
        ) {
            let closure = Closure::new(closure(&shape, 0)).unwrap();
            if let Some(plan) = plan_with(&closure, budget, &options) {
                let flat: Vec<_> = plan.layers().iter().flatten().collect();
                let unique: BTreeSet<_> = flat.iter().collect();
                prop_assert_eq!((flat.len(), unique.len()), (shape.len(), shape.len()));
                prop_assert!(plan.layers().len() as u64 <= budget);
                prop_assert!(plan.layers().iter().all(|layer| !layer.is_empty()));
            }
        }

        #[test]
        fn input_order_does_not_matter(
            shape in shapes(), budget in 1u64..=127, options in options(), seed in any::<u64>(),
        ) {
            let infos = closure(&shape, 0);
            let mut shuffled = infos.clone();
            shuffled.sort_by_key(|info| info.path.base_path().bytes().fold(seed, |hash, byte| hash.rotate_left(5) ^ u64::from(byte).wrapping_mul(seed | 1)));
            let [one, other] = [infos, shuffled].map(|infos| Closure::new(infos).unwrap());
            prop_assert_eq!(plan_with(&one, budget, &options), plan_with(&other, budget, &options));
        }

        #[test]
        fn hashes_do_not_matter(
            shape in shapes(), budget in 1u64..=127, options in options(), salt in any::<u8>(),
        ) {
            let [one, other] = [0, salt].map(|salt| {
                let closure = Closure::new(closure(&shape, salt)).unwrap();
                plan_with(&closure, budget, &options).map(|plan| names(&plan))
            });
            prop_assert_eq!(one, other);
        }
    }

    /// Returns a closure of an application with a tool, a library and its configuration, and of
    /// unrelated data.
    pub(crate) fn library_tool_app() -> Closure {
        named(&[
            ("libc", 30, &[]),
            ("tool", 10, &["libc"]),
            ("app", 20, &["libc", "tool"]),
            ("data", 5, &[]),
            ("conf", 1, &["app"]),
        ])
    }

    #[test]
    fn the_largest_are_alone_above_their_references() {
        let closure = library_tool_app();
        for (budget, expected) in [
            (1, vec![vec!["app", "conf", "data", "libc", "tool"]]),
            (2, vec![vec!["libc"], vec!["app", "conf", "data", "tool"]]),
            (4, vec![vec!["libc"], vec!["tool"], vec!["app"], vec!["conf", "data"]]),
            (5, vec![vec!["libc"], vec!["data"], vec!["tool"], vec!["app"], vec!["conf"]]),
            (127, vec![vec!["libc"], vec!["data"], vec!["tool"], vec!["app"], vec!["conf"]]),
        ] {
            assert_eq!(
                names(&plan(&closure, budget, &Layering::LargestFirst)),
                expected,
                "{budget} layers"
            );
        }
    }

    #[test]
    fn an_empty_closure_needs_no_layer() {
        for layering in Layering::ALL {
            assert!(plan(&Closure::new(vec![]).unwrap(), 1, &layering).layers().is_empty());
        }
    }
}
