//! The tags that a server of packages answers.
//! Stage: registry (pure).

use std::fmt;

/// The tags that clients may ask for. The code of a revision that a client can name is evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServedTags {
    /// The tag `latest` only, which stands for the configured revision.
    #[default]
    Latest,
    /// The tag `latest`, and the branches and tags of the packages' repository.
    Branches,
    /// The tag `latest`, the branches and tags, and the commits in these.
    Commits,
}

impl fmt::Display for ServedTags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Latest => "`latest` alone",
            Self::Branches => "`latest`, branches and tags",
            Self::Commits => "`latest`, branches, tags and their commits",
        })
    }
}
