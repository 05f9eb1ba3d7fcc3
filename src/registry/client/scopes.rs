//! Composes the scopes of a token (distribution's "Token Scope Documentation").
//! Stage: registry (pure). Input: a repository and challenges. Output: [`Scopes`].

use std::fmt;

use crate::outgoing::RepositoryName;

/// The scopes that a token must have: for the repository, for those from which blobs are mounted,
/// and for those that challenges asked for.
#[derive(Clone, Debug)]
pub struct Scopes {
    own: Scope,
    mounts: Vec<Scope>,
    challenged: Vec<Scope>,
}

/// A scope, `TYPE:NAME:ACTION,ACTION`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Scope {
    /// Type and name: `repository:team/app`.
    resource: String,
    actions: Vec<String>,
}

impl Scope {
    fn repository(name: &RepositoryName, actions: &str) -> Self {
        let actions = actions.split(',').map(str::to_owned).collect();
        Self { resource: format!("repository:{name}"), actions }
    }

    /// Parses a scope; returns `None` if it has no parts.
    fn parse(text: &str) -> Option<Self> {
        let (resource, actions) = text.rsplit_once(':')?;
        let actions = actions.split(',').filter(|action| !action.is_empty());
        Some(Self { resource: resource.to_owned(), actions: actions.map(str::to_owned).collect() })
    }

    fn add(&mut self, actions: Vec<String>) {
        for action in actions {
            if !self.actions.contains(&action) {
                self.actions.push(action);
            }
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.resource, self.actions.join(","))
    }
}

impl Scopes {
    /// Asks for `actions` in a repository (`pull,push`), and for `pull` in the repositories from
    /// which blobs are mounted.
    pub fn new(repository: &RepositoryName, actions: &str, mount_from: &[RepositoryName]) -> Self {
        let mounts = mount_from.iter().map(|name| Scope::repository(name, "pull")).collect();
        Self { own: Scope::repository(repository, actions), mounts, challenged: Vec::new() }
    }

    /// Adds the scopes of a challenge, separated by blanks; there may be none.
    pub fn add(&mut self, scope: &str) {
        for scope in scope.split_whitespace().filter_map(Scope::parse) {
            if scope.resource == self.own.resource {
                self.own.add(scope.actions);
                continue;
            }
            match self.challenged.iter_mut().find(|known| known.resource == scope.resource) {
                Some(known) => known.add(scope.actions),
                None => self.challenged.push(scope),
            }
        }
    }

    /// Returns whether there are scopes that [`narrow`](Self::narrow) leaves out.
    pub fn is_wide(&self) -> bool {
        !self.mounts.is_empty()
    }

    /// Returns all scopes, the repository's own last: some services only read the last one.
    pub fn wide(&self) -> Vec<String> {
        let others = self.mounts.iter().chain(self.other());
        others.chain([&self.own]).map(ToString::to_string).collect()
    }

    /// Returns the scopes without those of mounts: a service may refuse all because of one.
    pub fn narrow(&self) -> Vec<String> {
        self.other().chain([&self.own]).map(ToString::to_string).collect()
    }

    /// Returns the scopes that challenges asked for, except those of mounts.
    fn other(&self) -> impl Iterator<Item = &Scope> {
        let is_mount =
            |scope: &Scope| self.mounts.iter().any(|mount| mount.resource == scope.resource);
        self.challenged.iter().filter(move |scope| !is_mount(scope))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_joined() {
        let own = "repository:a/b:pull,push";
        let own_name = "a/b".parse().unwrap();
        for (challenge, wide, narrow) in [
            ("", vec!["repository:c/d:pull", own], vec![own]),
            (" ", vec!["repository:c/d:pull", own], vec![own]),
            ("nonsense", vec!["repository:c/d:pull", own], vec![own]),
            ("repository:a/b:pull", vec!["repository:c/d:pull", own], vec![own]),
            ("repository:a/b:push,pull", vec!["repository:c/d:pull", own], vec![own]),
            (
                "repository:a/b:pull,delete repository:c/d:pull",
                vec!["repository:c/d:pull", "repository:a/b:pull,push,delete"],
                vec!["repository:a/b:pull,push,delete"],
            ),
            (
                "repository:prefix/a/b:pull repository:prefix/a/b:push",
                vec!["repository:c/d:pull", "repository:prefix/a/b:pull,push", own],
                vec!["repository:prefix/a/b:pull,push", own],
            ),
            (
                "registry:catalog:*",
                vec!["repository:c/d:pull", "registry:catalog:*", own],
                vec!["registry:catalog:*", own],
            ),
        ] {
            let mut scopes = Scopes::new(&own_name, "pull,push", &["c/d".parse().unwrap()]);
            scopes.add(challenge);
            assert_eq!(scopes.wide(), wide, "{challenge}");
            assert_eq!(scopes.narrow(), narrow, "{challenge}");
        }
        assert!(!Scopes::new(&own_name, "pull", &[]).is_wide());
    }
}
