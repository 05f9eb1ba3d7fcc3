//! When to ask again, and when to give up.
//! Stage: registry (pure).

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// How often something is tried altogether.
pub const ATTEMPTS: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Longer than that nobody waits, whatever the registry says.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Whether a registry may answer otherwise the next time.
pub fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// How long to wait after an attempt, counted from 0: twice as long as before, up to half of it
/// by chance, so that many who were turned away don't all come back at once. `retry_after` is
/// the registry's own wish, in seconds.
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
