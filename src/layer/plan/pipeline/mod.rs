//! Makes layers by a program: nixpkgs' `layeringPipeline`.
//! Stage: layer (pure). Input: [`Graph`] and a [`Pipeline`]. Output: layers.

mod run;
mod subgraph;

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::budget::LayerBudget;
use super::graph::Graph;
use super::path_idx::PathIdx;
use crate::error::Hint;
use crate::store::{Store, StorePath};

/// Steps that take a graph of store paths apart. Each step works on the result of the step before:
/// a graph, a list of such values, or a *split*, which has values under the names `main`, `common`
/// and `rest`.
///
/// In JSON a list of steps, each a list of the step's name and its arguments:
///
/// | step | takes | gives |
/// | --- | --- | --- |
/// | `["subcomponent_out", [PATH…]]` | a graph | split: `main` the paths and what they refer to, `rest` |
/// | `["subcomponent_in", [PATH…]]` | a graph | split: `main` the paths and what refers to them, `rest` |
/// | `["split_paths", [PATH…]]` | a graph | split: `main` the paths and what only they need, `common` what others need too, `rest` |
/// | `["popularity_contest"]` | a graph | list of single paths, most popular first |
/// | `["split_every", N]` | a graph | list of graphs of N paths each, smallest paths first |
/// | `["remove_paths", PATH or [PATH…]]` | a graph | the graph without them: they are in no layer |
/// | `["limit_layers", N]` | a list of graphs | the first N−1, and the others merged |
/// | `["reverse"]` | a list | the list in reverse |
/// | `["flatten"]` | anything | list of graphs |
/// | `["over", NAME, STEP]` | a split | the split, with the step done to that part if it is there |
/// | `["map", STEP]` | a list | the list, with the step done to each |
/// | `["pipe", [STEP…]]` | what the first takes | what the last gives |
///
/// In `split_paths` a PATH may also be `{"children_of": PATH or [PATH…]}`. Paths that are not in
/// the graph are ignored.
///
/// Source: nixpkgs, `pkgs/build-support/flatten-references-graph`. Two things differ: ties are
/// broken by name, and `over` has no effect if a split lacks the part, where nixpkgs fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    SubcomponentOut(Vec<StorePath>),
    SubcomponentIn(Vec<StorePath>),
    SplitPaths(Vec<SplitPath>),
    PopularityContest,
    SplitEvery(usize),
    RemovePaths(Vec<StorePath>),
    LimitLayers(usize),
    Reverse,
    Flatten,
    Over(Part, Box<Step>),
    Map(Box<Step>),
    Pipe(Vec<Step>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum SplitPath {
    Itself(StorePath),
    ChildrenOf(Vec<StorePath>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Part {
    Main,
    Common,
    Rest,
}

/// Says why a pipeline makes no plan.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PipelineError {
    /// A value is not a pipeline.
    #[error("`layering`: {0}")]
    Malformed(String),
    /// A step was given a value that it can't work on.
    #[error("`layering`: `{step}` takes {takes}, but was given {given}")]
    Type {
        /// The step's name.
        step: &'static str,
        /// The expected value: "a graph", "a list", "a split".
        takes: &'static str,
        /// The value that was found, in the same words.
        given: &'static str,
    },
    /// The pipeline makes more layers than the budget has left.
    #[error("`layering`: the pipeline makes {made} layers, and {budget} are left for it")]
    TooManyLayers {
        /// The number of layers that the pipeline makes.
        made: usize,
        /// The number of layers that the image may have.
        budget: LayerBudget,
    },
}

impl Hint for PipelineError {
    fn hint(&self) -> Option<String> {
        match self {
            PipelineError::TooManyLayers { budget, .. } => Some(format!(
                "end the pipeline with `[\"flatten\"] [\"limit_layers\" {budget}]`, or raise `maxLayers`"
            )),
            _ => None,
        }
    }
}

impl Pipeline {
    /// Parses the steps.
    ///
    /// # Errors
    /// Fails with [`PipelineError::Malformed`], which quotes the step, if a step is not valid.
    pub fn parse(value: &Value) -> Result<Self, PipelineError> {
        steps(value).map(Self).map_err(PipelineError::Malformed)
    }

    /// Returns the layers in the order in which the pipeline makes them; the first is the bottom
    /// layer.
    pub(super) fn layers(
        &self,
        graph: &Graph,
        budget: LayerBudget,
    ) -> Result<Vec<Vec<PathIdx>>, PipelineError> {
        let layers = run::layers(&self.0, graph)?;
        let made = layers.iter().filter(|layer| !layer.is_empty()).count();
        if made > budget.get() {
            return Err(PipelineError::TooManyLayers { made, budget });
        }
        Ok(layers)
    }
}

fn steps(value: &Value) -> Result<Vec<Step>, String> {
    let steps = value.as_array().ok_or_else(|| format!("expected a list of steps, not `{value}`"));
    steps?.iter().map(step).collect()
}

fn step(value: &Value) -> Result<Step, String> {
    let bad = || format!("`{value}` is not a step of a layering pipeline");
    let (name, arguments) = value.as_array().and_then(|list| list.split_first()).ok_or_else(bad)?;
    Ok(match (name.as_str().ok_or_else(bad)?, arguments) {
        ("subcomponent_out", [paths]) => Step::SubcomponentOut(store_paths(paths)?),
        ("subcomponent_in", [paths]) => Step::SubcomponentIn(store_paths(paths)?),
        ("split_paths", [paths]) => Step::SplitPaths(split_path_list(paths)?),
        ("popularity_contest", []) => Step::PopularityContest,
        ("split_every", [count]) => Step::SplitEvery(positive(count).ok_or_else(bad)?),
        ("remove_paths", [paths]) => Step::RemovePaths(store_paths(paths)?),
        ("limit_layers", [count]) => Step::LimitLayers(positive(count).ok_or_else(bad)?),
        ("reverse", []) => Step::Reverse,
        ("flatten", []) => Step::Flatten,
        ("over", [part, inner]) => {
            let part = Part::deserialize(part).map_err(|error| format!("`over`: {error}"))?;
            Step::Over(part, Box::new(step(inner)?))
        }
        ("map", [inner]) => Step::Map(Box::new(step(inner)?)),
        ("pipe", [inner]) => Step::Pipe(steps(inner)?),
        _ => return Err(bad()),
    })
}

fn positive(value: &Value) -> Option<usize> {
    usize::try_from(value.as_u64()?).ok().filter(|count| *count > 0)
}

/// Reads one store path or a list of them.
fn store_paths(value: &Value) -> Result<Vec<StorePath>, String> {
    match value {
        Value::Array(values) => values.iter().map(store_path).collect(),
        one => Ok(vec![store_path(one)?]),
    }
}

fn store_path(value: &Value) -> Result<StorePath, String> {
    let text = value.as_str().ok_or_else(|| format!("`{value}` is not a store path"))?;
    Store::default().parse(text).map_err(|error| format!("`{text}`: {error}"))
}

fn split_path_list(value: &Value) -> Result<Vec<SplitPath>, String> {
    let split_path = |value: &Value| match value {
        Value::Object(object) => match object.get("children_of") {
            Some(paths) if object.len() == 1 => Ok(SplitPath::ChildrenOf(store_paths(paths)?)),
            _ => Err(format!("expected a store path or `children_of`, not `{value}`")),
        },
        path => Ok(SplitPath::Itself(store_path(path)?)),
    };
    match value {
        Value::Array(values) => values.iter().map(split_path).collect(),
        one => Ok(vec![split_path(one)?]),
    }
}
