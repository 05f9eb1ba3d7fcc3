//! Parses ranges of a blob (RFC 9110, 14.1.2).
//! Stage: registry (pure). Input: a `Range` header. Output: [`Part`].

use std::ops::Range;

/// The part of a blob that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The whole blob: also for a header that can't be parsed, as RFC 9110, 14.2 demands.
    Whole,
    /// A range of bytes.
    Bytes(Range<u64>),
    /// Bytes that the blob does not have.
    Unsatisfiable,
}

/// Parses the header for a blob of `size` bytes. Several ranges in one header are not supported:
/// they count as the whole blob.
pub fn part(header: &str, size: u64) -> Part {
    let Some(range) = header.trim().strip_prefix("bytes=") else { return Part::Whole };
    let Some((first, last)) = range.split_once('-') else { return Part::Whole };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let (first, last) = (first.trim(), last.trim());
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(size),
        (Some(first), None) if last.is_empty() => first..size,
        (None, Some(length)) if first.is_empty() => size.saturating_sub(length)..size,
        _ => return Part::Whole,
    };
    if range.is_empty() { Part::Unsatisfiable } else { Part::Bytes(range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        for (header, expected) in [
            ("bytes=0-", Part::Bytes(0..10)),
            ("bytes=3-5", Part::Bytes(3..6)),
            ("bytes=9-9", Part::Bytes(9..10)),
            ("bytes=3-99", Part::Bytes(3..10)),
            ("bytes=-4", Part::Bytes(6..10)),
            ("bytes=-99", Part::Bytes(0..10)),
            ("bytes=3-99999999999999999999999", Part::Bytes(3..10)),
            ("bytes=10-", Part::Unsatisfiable),
            ("bytes=10-20", Part::Unsatisfiable),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=5-3", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("bytes=", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("lines=1-2", Part::Whole),
        ] {
            assert_eq!(part(header, 10), expected, "{header}");
        }
    }
}
