//! The reasons why a layer is not valid.
//! Stage: oci (pure).

use thiserror::Error;

use crate::layer::LinkProblem;
use crate::oci::unpack::TarError;

/// Says why a layer is not valid.
#[derive(Debug, Error)]
pub enum RootProblem {
    /// The archive can't be read, or has a member that is not valid.
    #[error(transparent)]
    Archive(#[from] TarError),
    /// The links of the layer can't be followed.
    #[error(transparent)]
    Links(#[from] LinkProblem),
}
