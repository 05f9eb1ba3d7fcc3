//! Processes many items, several at a time.
//! Stage: registry.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Runs `each` for every item, on at most `workers` threads, and returns the results in the order
/// of the items. After an error begins no further item, and returns the first error.
///
/// # Errors
/// Returns the errors of `each`.
pub fn in_parallel<I: Sync, O: Send, E: Send>(
    workers: usize,
    items: &[I],
    each: impl Fn(&I) -> Result<O, E> + Sync,
) -> Result<Vec<O>, E> {
    let next = Mutex::new(0);
    let results: Mutex<BTreeMap<usize, Result<O, E>>> = Mutex::default();
    let work = || loop {
        let index = {
            let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
            *next += 1;
            *next - 1
        };
        let Some(item) = items.get(index) else { return };
        let result = each(item);
        if result.is_err() {
            *next.lock().unwrap_or_else(PoisonError::into_inner) = items.len();
        }
        results.lock().unwrap_or_else(PoisonError::into_inner).insert(index, result);
    };
    std::thread::scope(|scope| {
        for _ in 0..workers.min(items.len()) {
            scope.spawn(work);
        }
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order() {
        let items: Vec<u32> = (0..100).collect();
        let double = |item: &u32| Ok::<_, ()>(item * 2);
        let expected: Vec<u32> = items.iter().map(|item| item * 2).collect();
        for workers in [1, 3, 200] {
            assert_eq!(in_parallel(workers, &items, double).unwrap(), expected);
        }
        let failing = |item: &u32| if *item < 7 { Ok(()) } else { Err(*item) };
        assert_eq!(in_parallel(1, &items, failing), Err(7));
        assert_eq!(in_parallel(4, &[] as &[u32], failing), Ok(vec![]));
    }
}
