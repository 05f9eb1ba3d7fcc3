//! Provides a mutex for each key.
//! Stage: registry.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;

/// A set of mutexes, one for each key: tasks that work on the same key wait for each other.
#[derive(Debug)]
pub struct InTurn<K>(Mutex<BTreeMap<K, Weak<tokio::sync::Mutex<()>>>>);

impl<K> Default for InTurn<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord> InTurn<K> {
    /// Waits until no other task holds the key. Dropping the guard lets the next task go on.
    pub async fn take(&self, key: K) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Forget the keys that no task holds or waits for.
            turns.retain(|_, turn| turn.strong_count() > 0);
            let known = turns.get(&key).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let turn = Arc::default();
                turns.insert(key, Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn the_same_waits_and_others_do_not() {
        const SOON: Duration = Duration::from_millis(20);
        let turns = InTurn::default();
        let first = turns.take(1).await;
        let other = timeout(SOON, turns.take(2)).await.unwrap();
        assert!(timeout(SOON, turns.take(1)).await.is_err());
        drop(first);
        let _second = timeout(SOON, turns.take(1)).await.unwrap();
        drop(other);
        let _ = turns.take(3).await;
        assert_eq!(turns.0.lock().unwrap().len(), 2);
    }
}
