//! Chooses the names of a list that a request asks for (distribution-spec, "Listing Tags").
//! Stage: registry (pure). Input: a request's query and all names. Output: [`Page`].

use url::form_urlencoded;

/// A page of a list's names.
#[derive(Debug, PartialEq, Eq)]
pub struct Page<'n> {
    /// The names, in the list's order.
    pub names: Vec<&'n str>,
    /// The query for the next page, if there is one.
    pub next: Option<String>,
}

/// Returns the first `n` names after `last`, which are parameters of the query.
pub fn page<'n>(query: &str, names: impl Iterator<Item = &'n str>) -> Page<'n> {
    let parameter = |key: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(name, _)| name == key).map(|(_, value)| value)
    };
    let last = parameter("last");
    let mut names = names.filter(|name| last.as_deref().is_none_or(|last| *name > last)).peekable();
    let most = parameter("n").and_then(|number| number.parse().ok()).unwrap_or(usize::MAX);
    let page: Vec<_> = names.by_ref().take(most).collect();
    let last = page.last().filter(|_| names.peek().is_some());
    let next = last.map(|last| {
        let encoded: String = form_urlencoded::byte_serialize(last.as_bytes()).collect();
        format!("n={most}&last={encoded}")
    });
    Page { names: page, next }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other() {
        let all = ["a", "a/b", "a/c", "b"];
        let mut found = Vec::new();
        let mut query = Some("n=1".to_owned());
        while let Some(asked) = query {
            let Page { names, next } = page(&asked, all.into_iter());
            found.extend(names);
            query = next;
            assert!(found.len() <= all.len(), "{found:?}");
        }
        assert_eq!(found, all);
    }

    #[test]
    fn names_are_decoded() {
        for (query, names, next) in [
            ("", &["a", "a/b", "b"][..], None),
            ("n=1&last=a", &["a/b"], Some("n=1&last=a%2Fb")),
            ("n=1&last=a%2Fb", &["b"], None),
            ("n=1&last=a%2fb", &["b"], None),
            ("n=1&last=a/b", &["b"], None),
            ("last=%61", &["a/b", "b"], None),
            ("n=0", &[], None),
            // These sort before all names, like `%`.
            ("last=%", &["a", "a/b", "b"], None),
            ("last=%2", &["a", "a/b", "b"], None),
            ("last=%+1", &["a", "a/b", "b"], None),
            ("last=%ff", &[], None),
        ] {
            let found = page(query, ["a", "a/b", "b"].into_iter());
            let expected = Page { names: names.to_vec(), next: next.map(str::to_owned) };
            assert_eq!(found, expected, "{query}");
        }
    }
}
