//! Shares the memory of store paths that are read many times.
//! Vocabulary: names no stage.

use std::cell::RefCell;
use std::collections::HashSet;

use super::{ParseStorePathError, Store, StorePath};

thread_local! {
    static MET: RefCell<Option<Met>> = const { RefCell::new(None) };
}

/// The store paths that the current [`sharing`] has read.
#[derive(Default)]
struct Met {
    /// The known paths, for lookups only: the order of the set is never used.
    paths: HashSet<StorePath>,
    /// True if no further paths are added.
    is_all: bool,
}

/// Shares the memory of equal store paths that `read` reads from JSON on this thread. Does not
/// change what is read. The paths are kept in a thread-local, since `Deserialize` takes no context.
pub fn sharing<T>(read: impl FnOnce() -> T) -> T {
    within(Met::default, read)
}

/// Shares the memory of those store paths only that are equal to one of `known`. Keeps no others,
/// for a caller that itself keeps few of the paths.
pub fn sharing_known<T>(known: impl IntoIterator<Item = StorePath>, read: impl FnOnce() -> T) -> T {
    within(|| Met { paths: known.into_iter().collect(), is_all: true }, read)
}

fn within<T>(met: impl FnOnce() -> Met, read: impl FnOnce() -> T) -> T {
    /// Forgets the paths, also if `read` panics, but not those of an outer sharing.
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

/// Parses a whole path of the default store, or returns an equal one that was read before.
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
