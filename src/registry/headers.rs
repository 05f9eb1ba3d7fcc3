//! Names the headers that both the client and the server use.
//! Stage: registry (pure). Vocabulary of requests and answers.

/// The digest of the content of an answer (OCI distribution-spec 1.1, "Pulling manifests").
pub const CONTENT_DIGEST: &str = "docker-content-digest";
