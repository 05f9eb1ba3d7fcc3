//! Decides when to try again, and when to give up.
//! Stage: registry (pure).

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

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
/// `retry_after` is the registry's own value: a number of seconds, or a date (RFC 9110, section
/// 10.2.3).
pub fn wait(attempt: u32, retry_after: Option<&str>, now: OffsetDateTime) -> Duration {
    if let Some(wanted) = retry_after.and_then(|text| wanted(text.trim(), now)) {
        return wanted.min(LONGEST_WAIT);
    }
    let whole = FIRST_WAIT.saturating_mul(1 << attempt.min(8)).min(LONGEST_WAIT);
    let chance = RandomState::new().hash_one(attempt) % 1000;
    whole / 2 + (whole / 2).mul_f64(chance as f64 / 1000.0)
}

/// Parses `Retry-After`. Returns `None` for a date in the past, which says nothing.
fn wanted(text: &str, now: OffsetDateTime) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    (OffsetDateTime::parse(text, &Rfc2822).ok()? - now).try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        for attempt in 0..20 {
            let longest = FIRST_WAIT.saturating_mul(1 << attempt.min(8)).min(LONGEST_WAIT);
            let wait = wait(attempt, None, OffsetDateTime::UNIX_EPOCH);
            assert!(wait >= longest / 2 && wait <= longest, "{attempt}: {wait:?}");
        }
        let now = OffsetDateTime::parse("Wed, 21 Oct 2015 07:28:00 GMT", &Rfc2822).unwrap();
        for (text, expected) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("99999", Some(30)),
            ("Wed, 21 Oct 2015 07:28:09 GMT", Some(9)),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(0)),
            ("Thu, 22 Oct 2015 07:28:00 GMT", Some(30)),
            ("Wed, 21 Oct 2015 07:27:59 GMT", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            let wait = wait(0, Some(text), now);
            match expected {
                Some(seconds) => assert_eq!(wait, Duration::from_secs(seconds), "{text}"),
                None => assert!(wait >= FIRST_WAIT / 2 && wait <= FIRST_WAIT, "{text}: {wait:?}"),
            }
        }
    }
}
