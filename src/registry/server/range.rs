//! Parses ranges of a blob (RFC 9110, 14.1.2 and 14.2).
//! Stage: registry (pure). Input: a `Range` header. Output: [`WantedPart`].

use std::ops::Range;

/// The largest number of ranges in a request. podman asks for as many, and joins those that are
/// closest to each other if it lacks more.
const MOST: usize = 1024;

/// The part of a blob that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantedPart {
    /// The whole blob: also for a header that can't be parsed, as RFC 9110, 14.2 demands.
    Whole,
    /// A range of bytes.
    Bytes(Range<u64>),
    /// Two ranges or more, in ascending order, of which none overlap.
    Several(Vec<Range<u64>>),
    /// Bytes that the blob does not have.
    Unsatisfiable,
}

/// Parses the header for a blob of `size` bytes.
///
/// Several ranges count as the whole blob if there are more than [`MOST`] of them, or if they overlap
/// or descend: RFC 9110, 14.2 has both for signs of a broken or hostile client. So an answer is never
/// much larger than the blob, and is sent while the blob is made.
pub fn part(header: &str, size: u64) -> WantedPart {
    let Some((unit, ranges)) = header.trim().split_once('=') else { return WantedPart::Whole };
    if !unit.eq_ignore_ascii_case("bytes") {
        return WantedPart::Whole;
    }
    // A list may have empty elements (RFC 9110, 5.6.1.2).
    let mut elements = ranges.split(',').map(str::trim).filter(|range| !range.is_empty());
    let first_elements: Vec<_> = elements.by_ref().take(MOST).collect();
    if first_elements.is_empty() || elements.next().is_some() {
        return WantedPart::Whole;
    }
    let ranges: Option<Vec<_>> =
        first_elements.into_iter().map(|element| range(element, size)).collect();
    let Some(mut ranges) = ranges else { return WantedPart::Whole };
    ranges.retain(|range| !range.is_empty());
    if ranges.windows(2).any(|pair| pair[1].start < pair[0].end) {
        return WantedPart::Whole;
    }
    match ranges.pop() {
        None => WantedPart::Unsatisfiable,
        Some(range) if ranges.is_empty() => WantedPart::Bytes(range),
        Some(range) => {
            ranges.push(range);
            WantedPart::Several(ranges)
        }
    }
}

/// Parses a range, which is empty if the blob has none of its bytes. Returns `None` if it is not
/// valid.
fn range(element: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = element.split_once('-')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let (first, last) = (first.trim(), last.trim());
    Some(match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(size),
        (Some(first), None) if last.is_empty() => first..size,
        (None, Some(length)) if first.is_empty() => size.saturating_sub(length)..size,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        let several = |ranges: &[Range<u64>]| WantedPart::Several(ranges.to_vec());
        for (header, expected) in [
            ("bytes=0-", WantedPart::Bytes(0..10)),
            ("bytes=3-5", WantedPart::Bytes(3..6)),
            ("bytes=9-9", WantedPart::Bytes(9..10)),
            ("bytes=3-99", WantedPart::Bytes(3..10)),
            ("bytes=-4", WantedPart::Bytes(6..10)),
            ("bytes=-99", WantedPart::Bytes(0..10)),
            ("bytes=3-99999999999999999999999", WantedPart::Bytes(3..10)),
            ("Bytes=3-5", WantedPart::Bytes(3..6)),
            ("bytes=10-", WantedPart::Unsatisfiable),
            ("bytes=10-20", WantedPart::Unsatisfiable),
            ("bytes=-0", WantedPart::Unsatisfiable),
            ("bytes=10-,20-30", WantedPart::Unsatisfiable),
            ("bytes=5-3", WantedPart::Whole),
            ("bytes=a-b", WantedPart::Whole),
            ("bytes=", WantedPart::Whole),
            ("bytes=,", WantedPart::Whole),
            ("bytes=-", WantedPart::Whole),
            ("bytes=+1-2", WantedPart::Whole),
            ("lines=1-2", WantedPart::Whole),
            ("bytes", WantedPart::Whole),
            ("bytes=0-1,3-4", several(&[0..2, 3..5])),
            ("bytes=0-1,2-4", several(&[0..2, 2..5])),
            ("bytes= 0-1 ,\t,3-4,, -2", several(&[0..2, 3..5, 8..10])),
            // Ranges that the blob does not have are left out.
            ("bytes=0-1,3-4,20-30", several(&[0..2, 3..5])),
            ("bytes=20-30,3-4,-0", WantedPart::Bytes(3..5)),
            // A range that is not valid makes the whole header invalid.
            ("bytes=0-1,5-3", WantedPart::Whole),
            ("bytes=0-1,x", WantedPart::Whole),
            ("bytes=0-1,bytes=3-4", WantedPart::Whole),
            // Neither overlapping nor descending ranges are answered.
            ("bytes=0-4,4-5", WantedPart::Whole),
            ("bytes=0-,-1", WantedPart::Whole),
            ("bytes=3-4,0-1", WantedPart::Whole),
        ] {
            assert_eq!(part(header, 10), expected, "{header}");
        }
    }

    #[test]
    fn ranges_are_limited() {
        let header = |count: u64| {
            let ranges: Vec<_> = (0..count).map(|at| format!("{}-{}", 2 * at, 2 * at)).collect();
            format!("bytes={}", ranges.join(","))
        };
        let WantedPart::Several(ranges) = part(&header(1024), 10_000) else { panic!() };
        assert_eq!(ranges.len(), 1024);
        assert_eq!(part(&header(1025), 10_000), WantedPart::Whole);
        assert_eq!(part(&header(1025), 10), WantedPart::Whole);
    }
}
