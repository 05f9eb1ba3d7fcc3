//! Why there is no plan.
//! Stage: layer (pure). Vocabulary of the plan.

use thiserror::Error;

use super::budget::LayerBudget;
use super::pipeline::PipelineError;
use crate::error::Hint;

/// Why there is no plan.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    /// The pipeline has no plan for this closure.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The hints decide more layers than there may be.
    #[error("`layeringHints` ask for {asked} layers, which leaves none for the rest of {budget}")]
    TooManyHints {
        /// How many.
        asked: usize,
        /// How many there may be in all.
        budget: LayerBudget,
    },
}

impl Hint for PlanError {
    fn hint(&self) -> Option<String> {
        match self {
            PlanError::Pipeline(error) => error.hint(),
            PlanError::TooManyHints { .. } => Some(
                "put packages of several `pin` in one list of `together`, or raise `maxLayers`"
                    .to_owned(),
            ),
        }
    }
}
