//! Keeps layers of which clients read parts, for servers without a cache.
//! Stage: registry. Output: a cache in a temporary directory.

use std::env;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

use super::cache::Cache;

/// The largest number of bytes on the disk. The layer that was used least recently makes room.
const MOST: u64 = 1 << 30;

/// A cache that is made when it is needed, and removed with the server.
#[derive(Default)]
pub struct CacheForParts(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    Unused,
    Open(TempDir, Arc<Cache>),
    /// No directory can be made, or the server ends.
    Closed,
}

impl CacheForParts {
    /// Returns the cache, or `None` if no directory can be made: layers are then made again for each
    /// request.
    pub fn cache(&self) -> Option<Arc<Cache>> {
        let mut state = self.state();
        if matches!(*state, State::Unused) {
            *state = open();
        }
        match &*state {
            State::Open(_, cache) => Some(Arc::clone(cache)),
            State::Unused | State::Closed => None,
        }
    }

    /// Removes the directory. A request that still reads one of its files reads on.
    pub fn close(&self) {
        // Remove it without the lock.
        let closed = std::mem::replace(&mut *self.state(), State::Closed);
        if let State::Open(directory, _) = closed
            && let Err(error) = directory.close()
        {
            tracing::warn!(%error, "cannot remove the directory for parts of layers");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open() -> State {
    let parent = env::temp_dir();
    let cache = TempDir::with_prefix_in("stowage-parts-", &parent)
        .map_err(|error| error.to_string())
        .and_then(|directory| {
            let cache = Cache::open(directory.path(), MOST);
            Ok((directory, cache.map_err(|error| crate::error::with_causes(&error).to_string())?))
        });
    match cache {
        Ok((directory, cache)) => State::Open(directory, cache),
        Err(error) => {
            let directory = parent.display();
            tracing::warn!(%directory, error, "no directory for layers that are read in parts");
            State::Closed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_removed() {
        let parts = CacheForParts::default();
        let cache = parts.cache().unwrap();
        let path = match &*parts.state() {
            State::Open(directory, _) => directory.path().to_owned(),
            State::Unused | State::Closed => panic!(),
        };
        assert!(path.is_dir());
        assert!(Arc::ptr_eq(&cache, &parts.cache().unwrap()));
        parts.close();
        assert!(!path.exists());
        assert!(parts.cache().is_none());
    }
}
