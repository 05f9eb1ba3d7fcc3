//! Remembers that a proxy refuses a user.
//! Stage: registry. Input: the first answer of a proxy. Output: whether to ask it again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The state of a user at a proxy. Some proxies lock an account after a few wrong passwords.
#[derive(Debug, Default)]
pub struct ProxyLogin {
    refused: AtomicBool,
    /// Locked during the first connection. True when it has begun.
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

    /// Waits until the first connection is made. To the first caller, returns a lock on all others.
    pub fn wait_for_first(&self) -> Option<MutexGuard<'_, bool>> {
        let mut has_begun = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = !*has_begun;
        *has_begun = true;
        is_first.then_some(has_begun)
    }
}
