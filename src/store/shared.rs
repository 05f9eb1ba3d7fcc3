//! Store paths that are read many times and kept once.
//! Vocabulary: names no stage.

use std::cell::RefCell;
use std::collections::HashSet;

use super::{ParseStorePathError, Store, StorePath};

thread_local! {
    static MET: RefCell<Option<Met>> = const { RefCell::new(None) };
}

/// What is shared in the [`sharing`] at hand.
#[derive(Default)]
struct Met {
    /// Only for looking up: in what order it has them is nobody's business.
    paths: HashSet<StorePath>,
    /// Whether no others are added.
    is_all: bool,
}

/// Has equal store paths share their memory that `read` reads from JSON, on this thread. What
/// is read is the same as without: no value of JSON knows what was read before it, and so
/// this can't be an argument of those that read them.
pub fn sharing<T>(read: impl FnOnce() -> T) -> T {
    within(Met::default, read)
}

/// The same for those alone that are equal to a known one: of others nothing is kept, for a
/// reader who keeps little himself.
pub fn sharing_known<T>(known: impl IntoIterator<Item = StorePath>, read: impl FnOnce() -> T) -> T {
    within(|| Met { paths: known.into_iter().collect(), is_all: true }, read)
}

fn within<T>(met: impl FnOnce() -> Met, read: impl FnOnce() -> T) -> T {
    /// Forgets them also if `read` panics; not those of a sharing around this one.
    struct End(bool);
    impl Drop for End {
        fn drop(&mut self) {
            if self.0 {
                MET.take();
            }
        }
    }
    let is_outermost = MET.with_borrow(Option::is_none);
    if is_outermost {
        MET.set(Some(met()));
    }
    let _end = End(is_outermost);
    read()
}

/// Parses a whole path of the usual store, or finds one that was met before.
pub(super) fn parse(text: &str) -> Result<StorePath, ParseStorePathError> {
    let store = Store::default();
    MET.with_borrow_mut(|met| {
        let Some(Met { paths, is_all }) = met else { return store.parse(text) };
        if let Some(path) = store.base_of(text).and_then(|base| paths.get(base)) {
            return Ok(path.clone());
        }
        let path = store.parse(text)?;
        if !*is_all {
            paths.insert(path.clone());
        }
        Ok(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_paths_are_one_where_they_are_shared() {
        let text = "/nix/store/1b9p07z77phvv2hf6gm9f28syp39f1ag-hello-2.12";
        let address = |path: &StorePath| path.base_path().as_ptr();
        let two = || [parse(text).unwrap(), sharing(|| parse(text).unwrap())];
        let [one, other] = sharing(two);
        assert_eq!((&one, address(&one)), (&other, address(&other)));
        let [one, other] = two();
        assert!(one == other && address(&one) != address(&other));
        let [known, again] = sharing_known([one.clone()], two);
        assert_eq!([known, again].map(|path| address(&path)), [address(&one); 2]);
        let [unknown, other] = sharing_known([], two);
        assert!(unknown == other && address(&unknown) != address(&other));
        assert!(sharing(|| parse("/nix/store")).is_err());
        assert!(MET.with_borrow(Option::is_none));
    }
}
