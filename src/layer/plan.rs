//! Which store path goes in which layer.
//! Stage: layer (pure). Input: a closure and a budget. Output: [`LayerPlan`].

use std::cmp::Reverse;
use std::fmt;
use std::num::NonZeroU8;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use thiserror::Error;

use crate::closure::{Closure, NodeIdx};
use crate::store::StorePath;

/// How many layers an image may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LayerBudget(NonZeroU8);

/// Why a number is no [`LayerBudget`].
#[derive(Debug, Error, PartialEq, Eq)]
#[error("an image may have 1 to {max} layers, not {given}", max = LayerBudget::MAX)]
pub struct ParseBudgetError {
    given: String,
}

impl LayerBudget {
    /// What image tools have come to agree on (dockerTools' `MAX_LAYERS`; overlayfs
    /// takes 128 directories at Docker's path lengths, one of them for the container).
    pub const MAX: u8 = 127;

    /// A budget of `layers`.
    ///
    /// # Errors
    /// If there are none or more than [`LayerBudget::MAX`].
    pub fn new(layers: u64) -> Result<Self, ParseBudgetError> {
        let checked = u8::try_from(layers).ok().filter(|layers| *layers <= Self::MAX);
        checked
            .and_then(NonZeroU8::new)
            .map(Self)
            .ok_or_else(|| ParseBudgetError { given: layers.to_string() })
    }

    /// The number of layers.
    pub fn get(self) -> usize {
        usize::from(self.0.get())
    }

    /// What is left after one layer is spoken for, if anything is.
    pub fn less_one(self) -> Option<Self> {
        NonZeroU8::new(self.0.get() - 1).map(Self)
    }
}

impl Default for LayerBudget {
    /// From 60 layers on, more of them hardly save an update anything, while some
    /// runtimes' limits begin soon after (mount options of a page, 64 in sysbox).
    fn default() -> Self {
        Self(NonZeroU8::new(60).expect("60 is not 0"))
    }
}

impl fmt::Display for LayerBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for LayerBudget {
    type Err = ParseBudgetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let layers = text.parse().map_err(|_| ParseBudgetError { given: text.to_owned() })?;
        Self::new(layers)
    }
}

impl<'de> Deserialize<'de> for LayerBudget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Through JSON's own number, so that -1 and 1.5 get the same answer as 0.
        let number = serde_json::Number::deserialize(deserializer)?;
        number.to_string().parse().map_err(serde::de::Error::custom)
    }
}

/// An assignment of a closure's paths to layers, from the bottom up: each path in
/// exactly one layer, no layer empty, no more layers than the budget.
#[derive(Clone, PartialEq, Eq)]
pub struct LayerPlan(Vec<Vec<StorePath>>);

impl LayerPlan {
    /// The largest paths get a layer each and the others share the last one.
    ///
    /// # Algorithm
    /// The budget's N−1 largest paths by NAR size, and the rest. A client keys a layer
    /// by all those below it, and a path that changes takes its referrers along; so
    /// paths are laid from the bottom up by the length of their chain of references,
    /// and the rest, where anything may change, lies on top.
    ///
    /// Ties are broken by name and never by a store path's hash, which changes with
    /// every rebuild. Two paths of the same name and size are told apart by their
    /// contents, and by their hash only if these are equal too.
    pub fn largest_first(closure: &Closure, budget: LayerBudget) -> Self {
        let depths = closure.graph().depths();
        let mut nodes = closure.graph().topological().to_vec();
        let by_name = |node: NodeIdx| {
            let info = closure.info(node);
            (info.path.name(), info.nar_hash, &info.path)
        };
        nodes.sort_by_key(|node| (Reverse(closure.info(*node).nar_size), by_name(*node)));
        // Where every path fits, none has to share.
        let alone = if nodes.len() <= budget.get() { nodes.len() } else { budget.get() - 1 };
        let mut rest = nodes.split_off(alone);
        nodes.sort_by_key(|node| depths[node.index()]); // stable: then still by size and name
        rest.sort_by_key(|node| by_name(*node));

        let mut layers: Vec<_> = nodes.into_iter().map(|node| vec![node]).collect();
        if !rest.is_empty() {
            layers.push(rest);
        }
        let path = |node| closure.info(node).path.clone();
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
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::closure::{NarHash, ValidPathInfo};

    const DIGITS: &[u8] = b"0123456789abcdfghijklmnpqrsvwxyz";

    fn plan(closure: &Closure, budget: u64) -> LayerPlan {
        LayerPlan::largest_first(closure, LayerBudget::new(budget).unwrap())
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
    type Shape = Vec<(u8, u64, Vec<bool>)>;

    fn shapes() -> impl Strategy<Value = Shape> {
        prop::collection::vec((0u8..40, 0u64..5, prop::collection::vec(any::<bool>(), 60)), 0..60)
    }

    fn closure(shape: &Shape, salt: u8) -> Vec<ValidPathInfo> {
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

    fn names(plan: &LayerPlan) -> Vec<Vec<String>> {
        let name = |path: &StorePath| path.name().to_string();
        plan.layers().iter().map(|layer| layer.iter().map(name).collect()).collect()
    }

    proptest! {
        #[test]
        fn each_path_is_in_one_layer_and_the_budget_holds(shape in shapes(), budget in 1u64..=127) {
            let closure = Closure::new(closure(&shape, 0)).unwrap();
            let plan = plan(&closure, budget);
            let flat: Vec<_> = plan.layers().iter().flatten().collect();
            let unique: BTreeSet<_> = flat.iter().collect();
            prop_assert_eq!((flat.len(), unique.len()), (shape.len(), shape.len()));
            prop_assert!(plan.layers().len() as u64 <= budget);
            prop_assert!(plan.layers().iter().all(|layer| !layer.is_empty()));
        }

        #[test]
        fn input_order_does_not_matter(shape in shapes(), budget in 1u64..=127, seed in any::<u64>()) {
            let infos = closure(&shape, 0);
            let mut shuffled = infos.clone();
            shuffled.sort_by_key(|info| info.path.to_base_path().bytes().fold(seed, |hash, byte| hash.rotate_left(5) ^ u64::from(byte).wrapping_mul(seed | 1)));
            prop_assert_eq!(plan(&Closure::new(infos).unwrap(), budget), plan(&Closure::new(shuffled).unwrap(), budget));
        }

        #[test]
        fn hashes_do_not_matter(shape in shapes(), budget in 1u64..=127, salt in any::<u8>()) {
            let [one, other] = [0, salt].map(|salt| Closure::new(closure(&shape, salt)).unwrap());
            prop_assert_eq!(names(&plan(&one, budget)), names(&plan(&other, budget)));
        }
    }

    #[test]
    fn the_largest_are_alone_above_their_references() {
        let sizes = [
            ("libc", 30, vec![]),
            ("tool", 10, vec![0]),
            ("app", 20, vec![0, 1]),
            ("data", 5, vec![]),
            ("conf", 1, vec![2]),
        ];
        let paths: Vec<_> =
            sizes.iter().enumerate().map(|(number, (name, ..))| path(number, name, 7)).collect();
        let infos =
            sizes.iter().zip(&paths).map(|((_, nar_size, references), path)| ValidPathInfo {
                path: path.clone(),
                nar_hash: NarHash::new([0; 32]),
                nar_size: *nar_size,
                references: references.iter().map(|other| paths[*other].clone()).collect(),
            });
        let closure = Closure::new(infos.collect()).unwrap();
        for (budget, expected) in [
            (1, vec![vec!["app", "conf", "data", "libc", "tool"]]),
            (2, vec![vec!["libc"], vec!["app", "conf", "data", "tool"]]),
            (4, vec![vec!["libc"], vec!["tool"], vec!["app"], vec!["conf", "data"]]),
            (5, vec![vec!["libc"], vec!["data"], vec!["tool"], vec!["app"], vec!["conf"]]),
            (127, vec![vec!["libc"], vec!["data"], vec!["tool"], vec!["app"], vec!["conf"]]),
        ] {
            assert_eq!(names(&plan(&closure, budget)), expected, "{budget} layers");
        }
    }

    #[test]
    fn an_empty_closure_needs_no_layer() {
        assert!(plan(&Closure::new(vec![]).unwrap(), 1).layers().is_empty());
    }

    #[test]
    fn budgets() {
        for good in ["1", "60", "127"] {
            assert_eq!(good.parse::<LayerBudget>().unwrap().get().to_string(), good);
            assert!(serde_json::from_str::<LayerBudget>(good).is_ok());
        }
        for bad in ["0", "-1", "128", "1.5", "256", "99999999999999999999"] {
            assert_eq!(
                bad.parse::<LayerBudget>().unwrap_err().to_string(),
                format!("an image may have 1 to 127 layers, not {bad}")
            );
            assert!(serde_json::from_str::<LayerBudget>(bad).is_err(), "{bad}");
        }
        assert_eq!(LayerBudget::new(1).unwrap().less_one(), None);
    }
}
