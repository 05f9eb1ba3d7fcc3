//! Which names of a list a request is for (distribution-spec, "Listing Tags").
//! Stage: transport (pure). Input: a request's query and all names. Output: [`Page`].

/// Some of a list's names.
#[derive(Debug, PartialEq, Eq)]
pub struct Page<'n> {
    /// In the list's order.
    pub names: Vec<&'n str>,
    /// The query for those behind them, if there are such.
    pub next: Option<String>,
}

/// The first `n` names after `last`, as a query has the two.
pub fn page<'n>(query: &str, names: impl Iterator<Item = &'n str>) -> Page<'n> {
    let parameter = |key: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(name, _)| *name == key).map(|(_, value)| value).next()
    };
    let last = parameter("last").map(decoded);
    let last = last.as_deref();
    let mut names = names.filter(|name| last.is_none_or(|last| name.as_bytes() > last)).peekable();
    let most = parameter("n").and_then(|number| number.parse().ok()).unwrap_or(usize::MAX);
    let page: Vec<_> = names.by_ref().take(most).collect();
    let last = page.last().filter(|_| names.peek().is_some());
    let next = last.map(|last| format!("n={most}&last={}", last.replace('/', "%2F")));
    Page { names: page, next }
}

/// What `%` and two digits stand for, as clients encode a name's slashes (RFC 3986, 2.1); others
/// of its letters have no need of it.
fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..2).filter(|_| *first == b'%');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        // No sign, which the number could have.
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = &behind[if byte.is_some() { 2 } else { 0 }..];
    }
    bytes
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
            // Before all names, as `%` is.
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
