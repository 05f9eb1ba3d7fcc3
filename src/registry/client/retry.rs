//! Decides when to try again, and when to give up.
//! Stage: registry (pure).

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The number of attempts in all.
pub const ATTEMPTS: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The longest wait, even if the registry asks for a longer one.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Returns whether the registry may answer differently the next time.
pub fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// Returns the time to wait after an attempt, counted from 0. The time doubles with each attempt,
/// and up to half of it is random, so that many refused clients do not all come back at once.
/// `retry_after` is the registry's own value, in seconds.
pub fn wait(attempt: u32, retry_after: Option<&str>) -> Duration {
    if let Some(seconds) = retry_after.and_then(|text| text.trim().parse().ok()) {
        return Duration::from_secs(seconds).min(LONGEST_WAIT);
    }
    let whole = FIRST_WAIT.saturating_mul(1 << attempt.min(8)).min(LONGEST_WAIT);
    let chance = RandomState::new().hash_one(attempt) % 1000;
    whole / 2 + (whole / 2).mul_f64(chance as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        for attempt in 0..20 {
            let longest = FIRST_WAIT.saturating_mul(1 << attempt.min(8)).min(LONGEST_WAIT);
            let wait = wait(attempt, None);
            assert!(wait >= longest / 2 && wait <= longest, "{attempt}: {wait:?}");
        }
        assert_eq!(wait(0, Some("7")), Duration::from_secs(7));
        assert_eq!(wait(0, Some("99999")), LONGEST_WAIT);
        assert!(wait(0, Some("Wed, 21 Oct 2015 07:28:00 GMT")) <= FIRST_WAIT);
    }
}
