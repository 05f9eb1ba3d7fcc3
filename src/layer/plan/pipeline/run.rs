//! Runs the steps of a pipeline.
//! Stage: layer (pure). Input: steps and a [`Graph`]. Output: layers.

use std::collections::{BTreeMap, BTreeSet};

use super::super::graph::Graph;
use super::super::path_idx::PathIdx;
use super::super::popularity;
use super::subgraph::Subgraph;
use super::{Part, PipelineError, SplitPath, Step};

/// The value that a step works on.
#[derive(Clone, Debug)]
enum Item {
    Graph(Subgraph),
    List(Vec<Item>),
    Split(BTreeMap<Part, Item>),
}

/// Runs the steps, and returns the graphs that are left in the end, in order.
pub(super) fn layers(steps: &[Step], graph: &Graph) -> Result<Vec<Vec<PathIdx>>, PipelineError> {
    let item = pipe(steps, graph, Item::Graph(Subgraph::whole(graph)))?;
    Ok(item.flatten().into_iter().map(|graph| graph.paths).collect())
}

fn pipe(steps: &[Step], graph: &Graph, item: Item) -> Result<Item, PipelineError> {
    steps.iter().try_fold(item, |item, step| apply(step, graph, item))
}

fn apply(step: &Step, graph: &Graph, item: Item) -> Result<Item, PipelineError> {
    Ok(match step {
        Step::SubcomponentOut(paths) => {
            let whole = item.into_graph("subcomponent_out")?;
            let main = whole.below(&whole.find(graph, paths));
            split(
                &whole,
                [
                    (Part::Main, &|path| main.contains(&path)),
                    (Part::Rest, &|path| !main.contains(&path)),
                ],
            )
        }
        Step::SubcomponentIn(paths) => {
            let whole = item.into_graph("subcomponent_in")?;
            let main = whole.above(&whole.find(graph, paths));
            split(
                &whole,
                [
                    (Part::Main, &|path| main.contains(&path)),
                    (Part::Rest, &|path| !main.contains(&path)),
                ],
            )
        }
        Step::SplitPaths(paths) => split_paths(paths, graph, item.into_graph("split_paths")?),
        Step::PopularityContest => {
            let whole = item.into_graph("popularity_contest")?;
            let part = graph.part(&whole.paths, |path| whole.references(path));
            let paths = popularity::by_popularity(&part.graph).into_iter();
            let singles = paths.map(|path| part.in_whole(path));
            Item::List(singles.map(|path| Item::Graph(Subgraph::single(path))).collect())
        }
        Step::SplitEvery(count) => {
            let whole = item.into_graph("split_every")?;
            let chunk = |paths: &[PathIdx]| Item::Graph(whole.pick(paths.to_vec()));
            Item::List(whole.paths.chunks(*count).map(chunk).collect())
        }
        Step::RemovePaths(paths) => {
            let whole = item.into_graph("remove_paths")?;
            let gone = whole.find(graph, paths);
            Item::Graph(whole.only(|path| !gone.contains(&path)))
        }
        Step::LimitLayers(count) => limit_layers(*count, item.into_list("limit_layers")?)?,
        Step::Reverse => Item::List(item.into_list("reverse")?.into_iter().rev().collect()),
        Step::Flatten => Item::List(item.flatten().into_iter().map(Item::Graph).collect()),
        Step::Over(part, step) => over(*part, step, graph, item)?,
        Step::Map(step) => {
            let items = item.into_list("map")?.into_iter();
            Item::List(items.map(|item| apply(step, graph, item)).collect::<Result<_, _>>()?)
        }
        Step::Pipe(steps) => pipe(steps, graph, item)?,
    })
}

fn split_paths(wanted: &[SplitPath], graph: &Graph, whole: Subgraph) -> Item {
    let found = |wanted: &SplitPath| match wanted {
        SplitPath::Itself(path) => whole.find(graph, std::slice::from_ref(path)),
        SplitPath::ChildrenOf(paths) => {
            let parents = whole.find(graph, paths);
            parents.into_iter().flat_map(|path| whole.references(path)).copied().collect()
        }
    };
    let targets: BTreeSet<_> = wanted.iter().flat_map(found).collect();
    if targets.is_empty() {
        return Item::Split(BTreeMap::from([(Part::Rest, Item::Graph(whole))]));
    }
    let referrers = whole.referrers();
    let mut roots: Vec<_> =
        whole.paths.iter().copied().filter(|path| !referrers.contains_key(path)).collect();
    // One of several roots may be a path to split off. If the single root is one, everything
    // belongs to it: nothing would be left.
    if let [root] = roots[..]
        && targets.contains(&root)
    {
        return Item::Split(BTreeMap::from([(Part::Main, Item::Graph(whole))]));
    }
    roots.retain(|root| !targets.contains(root));
    let split_off = whole.below(&targets.iter().copied().collect::<Vec<_>>());
    let cut = whole.without_references_to(&targets);
    let others = cut.below(&roots);
    split(
        &cut,
        [
            (Part::Main, &|path| split_off.contains(&path) && !others.contains(&path)),
            (Part::Common, &|path| split_off.contains(&path) && others.contains(&path)),
            (Part::Rest, &|path| !split_off.contains(&path) && others.contains(&path)),
        ],
    )
}

/// Returns the parts of a graph that are not empty.
fn split<const PARTS: usize>(
    graph: &Subgraph,
    parts: [(Part, &dyn Fn(PathIdx) -> bool); PARTS],
) -> Item {
    let parts = parts.map(|(part, keep)| (part, graph.only(keep)));
    let parts = parts.into_iter().filter(|(_, graph)| !graph.paths.is_empty());
    Item::Split(parts.map(|(part, graph)| (part, Item::Graph(graph))).collect())
}

fn limit_layers(count: usize, mut items: Vec<Item>) -> Result<Item, PipelineError> {
    if items.len() > count {
        let excess = items.split_off(count - 1).into_iter();
        let mut excess = excess.map(|item| item.into_graph("limit_layers"));
        let merged = excess.try_fold(Subgraph::default(), |merged, graph| {
            graph.map(|graph| merged.merge(graph))
        })?;
        items.push(Item::Graph(merged));
    }
    Ok(Item::List(items))
}

fn over(part: Part, step: &Step, graph: &Graph, item: Item) -> Result<Item, PipelineError> {
    let Item::Split(mut parts) = item else {
        return Err(PipelineError::Type { step: "over", takes: "a split", given: item.kind() });
    };
    if let Some(item) = parts.remove(&part) {
        parts.insert(part, apply(step, graph, item)?);
    }
    Ok(Item::Split(parts))
}

impl Item {
    fn kind(&self) -> &'static str {
        match self {
            Item::Graph(_) => "a graph",
            Item::List(_) => "a list",
            Item::Split(_) => "a split",
        }
    }

    fn into_graph(self, step: &'static str) -> Result<Subgraph, PipelineError> {
        match self {
            Item::Graph(graph) => Ok(graph),
            other => Err(PipelineError::Type { step, takes: "a graph", given: other.kind() }),
        }
    }

    fn into_list(self, step: &'static str) -> Result<Vec<Item>, PipelineError> {
        match self {
            Item::List(items) => Ok(items),
            other => Err(PipelineError::Type { step, takes: "a list", given: other.kind() }),
        }
    }

    /// Returns the graphs of the value in order; the parts of a split in the order `main`,
    /// `common`, `rest`.
    fn flatten(self) -> Vec<Subgraph> {
        match self {
            Item::Graph(graph) => vec![graph],
            Item::List(items) => items.into_iter().flat_map(Item::flatten).collect(),
            Item::Split(parts) => parts.into_values().flat_map(Item::flatten).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::super::budget::LayerBudget;
    use super::super::{Pipeline, PipelineError};
    use super::*;
    use crate::layer::plan::tests::named;
    use crate::store::Store;

    /// Returns a graph in which `app` and `tool` share `libc`, and only `app` needs `lib`.
    fn plan(pipeline: &Value) -> Result<Vec<Vec<String>>, PipelineError> {
        let closure = named(&[
            ("env", 6, &["app", "tool"]),
            ("app", 5, &["lib", "libc"]),
            ("tool", 4, &["libc"]),
            ("lib", 3, &["libc"]),
            ("libc", 2, &[]),
            ("etc", 1, &[]),
        ]);
        let mut text = pipeline.to_string();
        for info in closure.infos() {
            let name = format!("\"@{}\"", info.path.name());
            text = text.replace(&name, &format!("\"{}\"", Store::default().print(&info.path)));
        }
        let pipeline = Pipeline::parse(&serde_json::from_str(&text).unwrap())?;
        let graph = Graph::new(&closure);
        let layers = pipeline.layers(&graph, LayerBudget::new(10).unwrap())?;
        let names = |layer: Vec<PathIdx>| layer.into_iter().map(|path| graph.name(path).to_owned());
        Ok(layers.into_iter().map(|layer| names(layer).collect()).collect())
    }

    #[test]
    fn steps_do_as_documented() {
        let bottom_up = ["etc", "libc", "lib", "tool", "app", "env"];
        for (pipeline, expected) in [
            (json!([]), vec![&bottom_up[..]]),
            (
                json!([["subcomponent_out", ["@app"]]]),
                vec![&["libc", "lib", "app"], &["etc", "tool", "env"]],
            ),
            (
                json!([["subcomponent_in", ["@lib"]]]),
                vec![&["lib", "app", "env"], &["etc", "libc", "tool"]],
            ),
            (
                json!([["split_paths", ["@app"]]]),
                vec![&["lib", "app"], &["libc"], &["etc", "tool", "env"]],
            ),
            (
                json!([["split_paths", [{"children_of": "@env"}]]]),
                vec![&["libc", "lib", "tool", "app"], &["etc", "env"]],
            ),
            (
                json!([["split_paths", ["@env"]]]),
                vec![&["libc", "lib", "tool", "app", "env"], &["etc"]],
            ),
            (
                json!([["split_paths", ["/nix/store/00000000000000000000000000000000-gone"]]]),
                vec![&bottom_up],
            ),
            (
                json!([["popularity_contest"]]),
                vec![&["libc"], &["lib"], &["app"], &["tool"], &["env"], &["etc"]],
            ),
            (
                json!([["popularity_contest"], ["reverse"], ["limit_layers", 3]]),
                vec![&["etc"], &["env"], &["tool", "app", "lib", "libc"]],
            ),
            (json!([["split_every", 4]]), vec![&["etc", "libc", "lib", "tool"], &["app", "env"]]),
            (json!([["remove_paths", "@etc"]]), vec![&bottom_up[1..]]),
            (
                json!([
                    ["split_paths", ["@app"]],
                    ["over", "main", ["pipe", [["subcomponent_in", ["@app"]]]]]
                ]),
                vec![&["app"], &["lib"], &["libc"], &["etc", "tool", "env"]],
            ),
            (
                json!([
                    ["subcomponent_out", ["@libc"]],
                    ["over", "common", ["popularity_contest"]]
                ]),
                vec![&["libc"], &["etc", "lib", "tool", "app", "env"]],
            ),
            (
                json!([["split_every", 3], ["map", ["remove_paths", ["@app"]]], ["flatten"]]),
                vec![&["etc", "libc", "lib"], &["tool", "env"]],
            ),
        ] {
            assert_eq!(plan(&pipeline).unwrap(), expected, "{pipeline}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (pipeline, message) in [
            (json!("runs"), "expected a list of steps, not `\"runs\"`"),
            (json!([["popularity"]]), "`[\"popularity\"]` is not a step of a layering pipeline"),
            (json!([["limit_layers", 0]]), "is not a step"),
            (json!([["subcomponent_out", ["app"]]]), "`app`: "),
            (json!([["split_paths", [{"parents_of": "@app"}]]]), "or `children_of`"),
            (json!([["over", "mian", ["flatten"]]]), "`over`: unknown variant `mian`"),
            (json!([["limit_layers", 2]]), "`limit_layers` takes a list, but was given a graph"),
            (
                json!([["popularity_contest"], ["popularity_contest"]]),
                "`popularity_contest` takes a graph, but was given a list",
            ),
            (json!([["over", "rest", ["flatten"]]]), "`over` takes a split"),
        ] {
            let error = plan(&pipeline).unwrap_err().to_string();
            assert!(error.starts_with("`layering`: ") && error.contains(message), "{error}");
        }
    }
}
