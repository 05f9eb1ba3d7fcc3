//! Which store path goes in which layer.
//! Stage: layer (pure). Input: a closure and a budget. Output: [`LayerPlan`].

mod auto;
mod budget;
mod graph;
mod heat;
mod largest_first;
mod layering;
mod nixery;
mod pipeline;
mod popularity;
mod runs;
mod sketch;
mod sums;

use std::fmt;

pub use budget::{LayerBudget, ParseBudgetError};
pub use layering::{Layering, ParseLayeringError};
pub use nixery::Popularity;
pub use pipeline::{Pipeline, PipelineError};

use crate::closure::Closure;
use crate::store::StorePath;
use graph::Graph;

/// An assignment of a closure's paths to layers, from the bottom up: each path in
/// exactly one layer, no layer empty, no more layers than the budget.
///
/// A path that a [`Pipeline`] was told to remove is in none.
#[derive(Clone, PartialEq, Eq)]
pub struct LayerPlan(Vec<Vec<StorePath>>);

impl LayerPlan {
    /// The same for the same closure, whatever the order of its records and the hashes
    /// in its store paths.
    ///
    /// # Errors
    /// If a pipeline does not fit the closure, or makes too many layers.
    pub fn new(
        closure: &Closure,
        budget: LayerBudget,
        layering: &Layering,
    ) -> Result<Self, PipelineError> {
        let graph = Graph::new(closure);
        let layers = layering.layers(&graph, budget)?;
        let plan = Self::checked(&graph, budget, layers);
        let planned: usize = plan.0.iter().map(Vec::len).sum();
        assert!(layering.may_remove() || planned == graph.len(), "a path is in no layer");
        Ok(plan)
    }

    /// Sorts the paths of each layer by name, and drops the layers that have none.
    fn checked(graph: &Graph, budget: LayerBudget, mut layers: Vec<Vec<usize>>) -> Self {
        layers.retain(|layer| !layer.is_empty());
        let mut seen = vec![false; graph.len()];
        for layer in &mut layers {
            layer.sort_unstable();
            for path in layer.iter() {
                assert!(!std::mem::replace(&mut seen[*path], true), "a path is in two layers");
            }
        }
        assert!(layers.len() <= budget.get(), "more layers than the budget");
        let path = |path: usize| graph.info(path).path.clone();
        Self(layers.into_iter().map(|layer| layer.into_iter().map(path).collect()).collect())
    }

    /// The layers from the bottom up, the paths of each sorted by name.
    pub fn layers(&self) -> &[Vec<StorePath>] {
        &self.0
    }

    /// The layers from the bottom up, to take apart.
    pub fn into_layers(self) -> Vec<Vec<StorePath>> {
        self.0
    }
}

impl fmt::Debug for LayerPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::closure::{NarHash, ValidPathInfo};

    const DIGITS: &[u8] = b"0123456789abcdfghijklmnpqrsvwxyz";

    fn plan(closure: &Closure, budget: u64, layering: &Layering) -> LayerPlan {
        LayerPlan::new(closure, LayerBudget::new(budget).unwrap(), layering).unwrap()
    }

    fn layerings() -> impl Strategy<Value = Layering> {
        prop::sample::select(Layering::ALL.to_vec())
    }

    /// The nth store path; `salt` changes its hash but not its name.
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

    fn names(plan: &LayerPlan) -> Vec<Vec<String>> {
        let name = |path: &StorePath| path.name().to_string();
        plan.layers().iter().map(|layer| layer.iter().map(name).collect()).collect()
    }

    proptest! {
        #[test]
        fn each_path_is_in_one_layer_and_the_budget_holds(
            shape in shapes(), budget in 1u64..=127, layering in layerings(),
        ) {
            let closure = Closure::new(closure(&shape, 0)).unwrap();
            let plan = plan(&closure, budget, &layering);
            let flat: Vec<_> = plan.layers().iter().flatten().collect();
            let unique: BTreeSet<_> = flat.iter().collect();
            prop_assert_eq!((flat.len(), unique.len()), (shape.len(), shape.len()));
            prop_assert!(plan.layers().len() as u64 <= budget);
            prop_assert!(plan.layers().iter().all(|layer| !layer.is_empty()));
        }

        #[test]
        fn input_order_does_not_matter(
            shape in shapes(), budget in 1u64..=127, layering in layerings(), seed in any::<u64>(),
        ) {
            let infos = closure(&shape, 0);
            let mut shuffled = infos.clone();
            shuffled.sort_by_key(|info| info.path.to_base_path().bytes().fold(seed, |hash, byte| hash.rotate_left(5) ^ u64::from(byte).wrapping_mul(seed | 1)));
            let [one, other] = [infos, shuffled].map(|infos| Closure::new(infos).unwrap());
            prop_assert_eq!(plan(&one, budget, &layering), plan(&other, budget, &layering));
        }

        #[test]
        fn hashes_do_not_matter(
            shape in shapes(), budget in 1u64..=127, layering in layerings(), salt in any::<u8>(),
        ) {
            let [one, other] = [0, salt].map(|salt| Closure::new(closure(&shape, salt)).unwrap());
            prop_assert_eq!(names(&plan(&one, budget, &layering)), names(&plan(&other, budget, &layering)));
        }
    }

    /// An application on a tool and a library, what configures it, and data that nothing
    /// has to do with.
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
