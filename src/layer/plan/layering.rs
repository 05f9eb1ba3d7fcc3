//! The ways to group paths, by their names.
//! Stage: layer (pure). Vocabulary of the plan.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use thiserror::Error;

use super::budget::LayerBudget;
use super::graph::Graph;
use super::path_idx::PathIdx;
use super::pipeline::{Pipeline, PipelineError};
use super::popular::Popularity;
use super::{auto, largest_first, nixery, popularity, runs};
use crate::error::nearest_of;

/// Selects the algorithm that groups paths. Each algorithm is described in its own file in this
/// directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Layering {
    /// Large paths alone, the others in runs that change together: sends the fewest bytes on an
    /// update.
    #[default]
    Runs,
    /// The largest paths, each with what only it needs: nixpkgs' default.
    Auto,
    /// The most referenced paths alone, the rest together: nixpkgs' former default, and nearly the
    /// method of nix2container.
    Popularity,
    /// Subtrees that only one way leads to, as in Nixery.
    Nixery,
    /// The largest paths alone, the rest together.
    LargestFirst,
    /// Runs steps that nixpkgs' `layeringPipeline` would also take.
    Pipeline(Pipeline),
}

/// Says why a text is not a [`Layering`].
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ParseLayeringError {
    /// The text is not the name of a layering.
    #[error(
        "`layering` must be {} or a pipeline, not `{given}`{}",
        Layering::names(),
        Layering::meant(given)
    )]
    Unknown {
        /// The text.
        given: String,
    },
    /// The text is JSON, but not a pipeline.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
}

impl Layering {
    /// The layerings that have names, the default first.
    pub const ALL: [Self; 5] =
        [Self::Runs, Self::Auto, Self::Popularity, Self::Nixery, Self::LargestFirst];

    /// Returns a question about the name that is meant by another text, or nothing.
    fn meant(given: &str) -> String {
        nearest_of(Self::ALL.iter().map(Self::name), given)
            .map(|name| format!("; did you mean `{name}`?"))
            .unwrap_or_default()
    }

    /// Returns the name that Nix code and the command line use.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Runs => "runs",
            Self::Auto => "auto",
            Self::Popularity => "popularity",
            Self::Nixery => "nixery",
            Self::LargestFirst => "largest-first",
            Self::Pipeline(_) => "a pipeline",
        }
    }

    fn named(text: &str) -> Result<Self, ParseLayeringError> {
        let found = Self::ALL.into_iter().find(|layering| layering.name() == text);
        found.ok_or_else(|| ParseLayeringError::Unknown { given: text.to_owned() })
    }

    fn names() -> String {
        Self::ALL.map(|layering| format!("`{}`", layering.name())).join(", ")
    }

    /// Puts every path in one layer. Returns at most as many layers as the budget has, from the
    /// bottom up; a layer may be empty. Only `nixery` has its own rule for popular paths.
    ///
    /// # Errors
    /// Returns the errors of a pipeline, which may also remove paths.
    pub(super) fn layers(
        &self,
        graph: &Graph,
        budget: LayerBudget,
        popularity: &Popularity,
    ) -> Result<Vec<Vec<PathIdx>>, PipelineError> {
        Ok(match self {
            Self::Runs => runs::layers(graph, budget),
            Self::Auto => auto::layers(graph, budget),
            Self::Popularity => popularity::layers(graph, budget),
            Self::Nixery => nixery::layers(graph, budget, popularity),
            Self::LargestFirst => largest_first::layers(graph, budget),
            Self::Pipeline(pipeline) => pipeline.layers(graph, budget)?,
        })
    }

    /// Returns whether the algorithm itself takes popularity into account.
    pub(super) fn knows_popularity(&self) -> bool {
        matches!(self, Self::Nixery)
    }

    /// Returns whether the algorithm may leave a path out of all layers.
    pub(super) fn may_remove(&self) -> bool {
        matches!(self, Self::Pipeline(_))
    }
}

impl fmt::Display for Layering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Layering {
    type Err = ParseLayeringError;

    /// Parses a name, or a pipeline as JSON.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match serde_json::from_str::<Value>(text) {
            Ok(json @ Value::Array(_)) => Ok(Self::Pipeline(Pipeline::parse(&json)?)),
            _ => Self::named(text),
        }
    }
}

impl<'de> Deserialize<'de> for Layering {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parsed = match Value::deserialize(deserializer)? {
            Value::String(name) => Self::named(&name),
            Value::Array(steps) => {
                Pipeline::parse(&Value::Array(steps)).map(Self::Pipeline).map_err(Into::into)
            }
            other => Err(ParseLayeringError::Unknown { given: other.to_string() }),
        };
        parsed.map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_written() {
        for layering in Layering::ALL {
            assert_eq!(layering.name().parse(), Ok(layering));
        }
    }

    #[test]
    fn a_wrong_name_is_told_the_right_ones() {
        let error = "fastest".parse::<Layering>().unwrap_err().to_string();
        assert!(error.starts_with("`layering` must be `runs`, "), "{error}");
        assert!(error.ends_with(" or a pipeline, not `fastest`"), "{error}");
        let error = "largest_first".parse::<Layering>().unwrap_err().to_string();
        assert!(error.ends_with("; did you mean `largest-first`?"), "{error}");
    }

    #[test]
    fn a_pipeline_is_json() {
        let text = r#"[["popularity_contest"], ["limit_layers", 3]]"#;
        let Ok(pipeline @ Layering::Pipeline(_)) = text.parse() else { panic!("no pipeline") };
        assert_eq!(serde_json::from_str::<Layering>(text).unwrap(), pipeline);
        assert!("[[\"limit\"]]".parse::<Layering>().is_err());
    }
}
