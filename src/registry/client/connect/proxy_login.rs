//! Remembers that a proxy refuses a user.
//! Stage: registry. Input: the first answer of a proxy. Output: whether to ask it again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Remembers whether a proxy refuses the user, so that a wrong password is sent once: some proxies lock an account after a
/// few wrong passwords.
#[derive(Debug, Default)]
pub struct ProxyLogin {
    refused: AtomicBool,
    /// Locked during the first connection. True after this connection has begun.
    first: Mutex<bool>,
}

impl ProxyLogin {
    /// Remembers that the proxy refuses the user.
    pub fn refuse(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Returns whether the proxy refuses the user.
    pub fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Returns a lock to the first caller, which makes the first connection while it holds the lock. Later callers wait for
    /// the lock, and get `None`.
    pub fn wait_for_first(&self) -> Option<MutexGuard<'_, bool>> {
        let mut has_begun = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = !*has_begun;
        *has_begun = true;
        is_first.then_some(has_begun)
    }
}
