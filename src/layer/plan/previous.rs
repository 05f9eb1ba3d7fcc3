//! Keeps paths in the layers of an earlier plan, such as that of the last release.
//! Stage: layer (pure). Input: JSON, a [`Graph`] and a fresh plan. Output: layers.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use serde::de::{Error as _, Expected, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::LayerPlan;
use super::budget::LayerBudget;
use super::graph::Graph;
use super::heat::{Group, Heat};
use super::package::package;
use super::path_idx::{PathIdx, PerPath};
use super::runs::SMALL;
use crate::store::{Store, StorePath};

/// The layers of an earlier plan, each a list of store paths or of their names.
///
/// In JSON, the output of `stowage plan`, or the image spec of the last release. Names may replace
/// whole store paths: a plan that is kept with the sources then need not change when hashes do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviousPlan(Vec<Vec<Planned>>);

/// The name of a path of an earlier plan.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Planned {
    /// A whole store path. Several paths may have the same name, and are then told apart.
    Path(StorePath),
    /// The name without the hash.
    Name(Box<str>),
}

impl Planned {
    fn name(&self) -> &str {
        match self {
            Self::Path(path) => path.name(),
            Self::Name(name) => name,
        }
    }
}

impl<'de> Deserialize<'de> for Planned {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Store::default().parse(&text).map_or_else(|_| Self::Name(text.into()), Self::Path))
    }
}

#[derive(Deserialize)]
struct LayerJson {
    /// A base image's layers have no contents: they were not planned.
    contents: Option<ContentsJson>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContentsJson {
    #[serde(default)]
    store_paths: Vec<Planned>,
}

impl<'de> Deserialize<'de> for PreviousPlan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The message says what the file should be, which is more useful than where it differs.
        let expected: &dyn Expected = &Shapes;
        let error = |_| D::Error::custom(format_args!("expected {expected}"));
        deserializer.deserialize_any(Shapes).map_err(error)
    }
}

/// Visits either format. An untagged enum would first hold a whole image spec in memory.
struct Shapes;

impl<'de> Visitor<'de> for Shapes {
    type Value = PreviousPlan;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of layers, each a list of store paths or their names, or an image spec")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut layers: A) -> Result<Self::Value, A::Error> {
        let mut plan = Vec::new();
        while let Some(layer) = layers.next_element()? {
            plan.push(layer);
        }
        Ok(PreviousPlan(plan))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut plan = None;
        while let Some(field) = fields.next_key::<String>()? {
            if field != "layers" {
                fields.next_value::<IgnoredAny>()?;
                continue;
            }
            let contents = fields.next_value::<Vec<LayerJson>>()?.into_iter();
            let contents = contents.filter_map(|layer| layer.contents);
            let layers = contents.map(|contents| contents.store_paths).collect();
            if plan.replace(layers).is_some() {
                return Err(A::Error::duplicate_field("layers"));
            }
        }
        plan.map(PreviousPlan).ok_or_else(|| A::Error::missing_field("layers"))
    }
}

impl From<&LayerPlan> for PreviousPlan {
    fn from(plan: &LayerPlan) -> Self {
        let layers = plan.layers().iter();
        Self(layers.map(|layer| layer.iter().cloned().map(Planned::Path).collect()).collect())
    }
}

impl PreviousPlan {
    /// Returns, for each path, the earlier layer that it was in, if any.
    ///
    /// # Algorithm
    /// The layer is that of the path itself, or of a path of the same name, or of another version
    /// of its package that is gone.
    pub(super) fn places(self, graph: &Graph) -> Places {
        let mut places = graph.per_path(None);
        let paths: BTreeMap<_, _> =
            graph.paths().map(|path| (&graph.info(path).path, path)).collect();
        let mut left = BTreeMap::<&str, VecDeque<u32>>::new();
        for (layer, planned) in (0..).zip(&self.0) {
            for planned in planned {
                let place = match planned {
                    Planned::Path(path) => paths.get(path),
                    Planned::Name(_) => None,
                };
                match place {
                    Some(path) => places[*path] = Some(layer),
                    None => left.entry(planned.name()).or_default().push_back(layer),
                }
            }
        }
        drop(paths);
        assign(&mut places, &mut left, |path| graph.name(path));
        let mut packages = BTreeMap::<String, VecDeque<u32>>::new();
        for (name, layers) in left {
            packages.entry(package(name)).or_default().extend(layers);
        }
        assign(&mut places, &mut packages, |path| package(graph.name(path)));
        Places(places)
    }
}

/// The number of the earlier layer of each path of a graph, if the path was in one.
pub(super) struct Places(PerPath<Option<u32>>);

impl Places {
    /// Moves the fresh plan's paths to the layers in which they were before.
    ///
    /// # Algorithm
    /// A path stays in its layer. A new path gets a layer if it is large and the budget allows it;
    /// otherwise it joins the run whose expected bytes grow the least. If the fresh plan expects to
    /// send over 15 % less, or there are too many layers, the fresh plan is used instead.
    pub(super) fn keep(
        &self,
        graph: &Graph,
        budget: LayerBudget,
        fresh: Vec<Vec<PathIdx>>,
    ) -> Vec<Vec<PathIdx>> {
        let (heat, weights) = Heat::new(graph);
        let of = |layer: &Vec<PathIdx>| Group::of(&heat, layer, &weights);
        let mut is_planned = graph.per_path(false);
        fresh.iter().flatten().for_each(|path| is_planned[*path] = true);
        let planned = |path: &PathIdx| is_planned[*path];

        let (old, new): (Vec<_>, Vec<_>) = graph
            .by_size()
            .into_iter()
            .filter(planned)
            .map(|path| (path, self.0[path]))
            .partition(|(_, place)| place.is_some());
        let mut layers = BTreeMap::<_, Vec<_>>::new();
        for (path, place) in old {
            layers.entry(place).or_default().push(path);
        }
        if layers.len() > budget.get() {
            return fresh;
        }
        let mut groups: Vec<_> = layers.values().filter_map(of).collect();
        for (path, _) in new {
            let weight = weights[path].clone();
            add(&heat, &mut groups, Group { members: vec![path], weight }, budget);
        }
        let cost = |groups: &[Group]| {
            let bytes =
                |group: &Group| u128::from(group.weight.size) * u128::from(group.weight.heat);
            groups.iter().map(bytes).fold(0, u128::saturating_add)
        };
        let fresh_groups: Vec<_> = fresh.iter().filter_map(of).collect();
        if cost(&groups) / 115 > cost(&fresh_groups) / 100 {
            return fresh;
        }
        groups.into_iter().map(|group| group.members).collect()
    }
}

/// Gives each layer of the lists to one path.
fn assign<K: Ord>(
    places: &mut PerPath<Option<u32>>,
    layers: &mut BTreeMap<K, VecDeque<u32>>,
    key: impl Fn(PathIdx) -> K,
) {
    for (path, place) in places.iter_mut().filter(|(_, place)| place.is_none()) {
        *place = layers.get_mut(&key(path)).and_then(VecDeque::pop_front);
    }
}

/// Adds a new path.
fn add(heat: &Heat, groups: &mut Vec<Group>, new: Group, budget: LayerBudget) {
    let is_room = groups.len() < budget.get();
    let is_run = |group: &Group| group.members.len() > 1;
    let any_run = groups.iter().any(is_run);
    let joined = groups
        .iter_mut()
        .filter(|group| !any_run || is_run(group))
        .min_by_key(|group| group.weight.cost_of_joining(heat, &new.weight));
    match joined {
        Some(group) if !(is_room && new.weight.size >= SMALL) => group.join(heat, new),
        _ => groups.push(new),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::closure::Closure;
    use crate::layer::plan::tests::{closure, layerings, named, names, shapes};
    use crate::layer::plan::{Layering, PlanOptions};

    fn keep(closure: &Closure, budget: u64, previous: PreviousPlan) -> LayerPlan {
        let options = PlanOptions { previous: Some(previous), ..PlanOptions::default() };
        LayerPlan::new(closure, LayerBudget::new(budget).unwrap(), options).unwrap()
    }

    fn previous(json: &str) -> PreviousPlan {
        serde_json::from_str(json).unwrap()
    }

    fn partition(plan: &LayerPlan) -> BTreeSet<Vec<StorePath>> {
        plan.layers().iter().cloned().collect()
    }

    proptest! {
        #[test]
        fn what_did_not_change_stays(
            shape in shapes(), budget in 1u64..=127, layering in layerings(),
        ) {
            let closure = Closure::new(closure(&shape, 0)).unwrap();
            let limit = LayerBudget::new(budget).unwrap();
            let plan = LayerPlan::new(&closure, limit, layering.clone().into()).unwrap();
            let options = PlanOptions { previous: Some((&plan).into()), ..layering.into() };
            let again = LayerPlan::new(&closure, limit, options).unwrap();
            prop_assert_eq!(partition(&again), partition(&plan));
        }
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn paths_stay_and_new_ones_find_a_place() {
        let rows: &[(&str, u64, &[&str])] = &[
            ("libc-2.40", 30 * MIB, &[]),
            ("openssl-3.1", 6 * MIB, &["libc-2.40"]),
            ("zlib-1.3", MIB, &["libc-2.40"]),
            ("curl-8.9", MIB, &["openssl-3.1", "zlib-1.3"]),
            ("app", 9 * MIB, &["curl-8.9"]),
        ];
        let closure = named(rows);
        let old = r#"[["libc-2.39"], ["openssl-3.0"], ["zlib-1.3", "curl-8.8"], ["app", "gone"]]"#;
        let mut plan = names(&keep(&closure, 5, previous(old)));
        plan.sort();
        let kept: [&[_]; 4] =
            [&["app"], &["curl-8.9", "zlib-1.3"], &["libc-2.40"], &["openssl-3.1"]];
        assert_eq!(plan, kept);

        // A small path joins the run that grows least; a large one gets a layer if there is room.
        let with = |size| {
            let new: (&str, u64, &[&str]) = ("brotli-1.1", size, &["libc-2.40"]);
            let app: (&str, u64, &[&str]) = ("app", 9 * MIB, &["curl-8.9", "brotli-1.1"]);
            named(&[&rows[..4], &[new, app]].concat())
        };
        for (size, budget, expected) in [
            (1000, 5, vec!["brotli-1.1", "curl-8.9", "zlib-1.3"]),
            (MIB, 4, vec!["brotli-1.1", "curl-8.9", "zlib-1.3"]),
            (MIB, 5, vec!["brotli-1.1"]),
        ] {
            let plan = names(&keep(&with(size), budget, previous(old)));
            assert!(plan.contains(&expected.iter().map(ToString::to_string).collect()), "{plan:?}");
            assert!(plan.contains(&vec!["libc-2.40".to_owned()]), "{plan:?}");
        }
    }

    #[test]
    fn a_plan_that_has_become_bad_is_dropped() {
        let rows: &[(&str, u64, &[&str])] =
            &[("app", MIB, &["libc"]), ("data", 90 * MIB, &[]), ("libc", 30 * MIB, &[])];
        let closure = named(rows);
        let options = PlanOptions::from(Layering::Runs);
        let fresh = LayerPlan::new(&closure, LayerBudget::new(3).unwrap(), options).unwrap();
        for bad in [r#"[["app", "data", "libc"]]"#, r#"[["data"], ["libc", "app"]]"#] {
            assert_eq!(keep(&closure, 3, previous(bad)), fresh, "{bad}");
        }
    }

    #[test]
    fn plans_and_image_specs_are_read() {
        let path = |name| format!("/nix/store/{}-{name}", "a".repeat(32));
        let expected = [vec!["a", "b-1.0"], vec![]];
        for json in [
            r#"[["a", "b-1.0"], []]"#.to_owned(),
            format!(r#"[["{}", "{}"], []]"#, path("a"), path("b-1.0")),
            format!(
                r#"{{"version": 1, "layers": [{{"size": 1, "contents": {{"storePaths": ["{}", "{}"]}}}}, {{"contents": {{}}}}]}}"#,
                path("a"),
                path("b-1.0"),
            ),
        ] {
            let PreviousPlan(layers) = previous(&json);
            let names =
                |layer: &Vec<Planned>| layer.iter().map(|it| it.name().to_owned()).collect();
            let found: Vec<Vec<String>> = layers.iter().map(names).collect();
            assert_eq!(found, expected, "{json}");
            let whole = layers.iter().flatten().all(|it| matches!(it, Planned::Path(_)));
            assert_eq!(whole, json.contains("/nix/store"), "{json}");
        }
        let error = serde_json::from_str::<PreviousPlan>("7").unwrap_err().to_string();
        assert!(error.starts_with("expected a list of layers"), "{error}");
    }
}
