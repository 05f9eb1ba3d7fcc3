//! Store paths that are read many times and kept once.
//! Vocabulary: names no stage.

use std::cell::RefCell;
use std::collections::HashSet;

use harmonia_store_core::store_path::ParseStorePathError;

use super::{Store, StorePath};

thread_local! {
    /// Those that were met so far in the [`sharing`] at hand. Only for looking up: in what order
    /// it has them is nobody's business.
    static MET: RefCell<Option<HashSet<StorePath>>> = const { RefCell::new(None) };
}

/// Has equal store paths share their memory that `read` reads from JSON, on this thread. What
/// is read is the same as without: no value of JSON knows what was read before it, and so
/// this can't be an argument of those that read them.
pub fn sharing<T>(read: impl FnOnce() -> T) -> T {
    /// Forgets them also if `read` panics; not those of a sharing around this one.
    struct End(bool);
    impl Drop for End {
        fn drop(&mut self) {
            if self.0 {
                MET.take();
            }
        }
    }
    let is_outermost = MET.with_borrow_mut(|met| {
        let is_outermost = met.is_none();
        met.get_or_insert_default();
        is_outermost
    });
    let _end = End(is_outermost);
    read()
}

/// Parses a whole path of the usual store, or finds one that was met before.
pub(super) fn parse(text: &str) -> Result<StorePath, ParseStorePathError> {
    let store = Store::default();
    MET.with_borrow_mut(|met| {
        let Some(met) = met else { return store.parse(text) };
        if let Some(path) = store.base_of(text).and_then(|base| met.get(base)) {
            return Ok(path.clone());
        }
        let path = store.parse(text)?;
        met.insert(path.clone());
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
        assert!(sharing(|| parse("/nix/store")).is_err());
        assert!(MET.with_borrow(Option::is_none));
    }
}
