//! The errors of planning.
//! Stage: layer (pure). Vocabulary of the plan.

use thiserror::Error;

use super::budget::LayerBudget;
use super::pipeline::PipelineError;
use crate::error::Hint;

/// Says why no plan can be made.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    /// The pipeline has no plan for this closure.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The hints decide more layers than there may be.
    #[error("`layeringHints` ask for {asked} layers, which leaves none for the rest of {budget}")]
    TooManyHints {
        /// The number of layers that the hints ask for.
        asked: usize,
        /// The number of layers that the image may have.
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
