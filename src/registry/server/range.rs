//! Parses ranges of a blob (RFC 9110, 14.1.2 and 14.2).
//! Stage: registry (pure). Input: a `Range` header. Output: [`Part`].

use std::ops::Range;

/// The largest number of ranges in a request. podman asks for as many, and joins those that are
/// closest to each other if it lacks more.
const MOST: usize = 1024;

/// The part of a blob that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
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
pub fn part(header: &str, size: u64) -> Part {
    let Some((unit, ranges)) = header.trim().split_once('=') else { return Part::Whole };
    if !unit.eq_ignore_ascii_case("bytes") {
        return Part::Whole;
    }
    // A list may have empty elements (RFC 9110, 5.6.1.2).
    let mut elements = ranges.split(',').map(str::trim).filter(|range| !range.is_empty());
    let first_elements: Vec<_> = elements.by_ref().take(MOST).collect();
    if first_elements.is_empty() || elements.next().is_some() {
        return Part::Whole;
    }
    let ranges: Option<Vec<_>> =
        first_elements.into_iter().map(|element| range(element, size)).collect();
    let Some(mut ranges) = ranges else { return Part::Whole };
    ranges.retain(|range| !range.is_empty());
    if ranges.windows(2).any(|pair| pair[1].start < pair[0].end) {
        return Part::Whole;
    }
    match ranges.pop() {
        None => Part::Unsatisfiable,
        Some(range) if ranges.is_empty() => Part::Bytes(range),
        Some(range) => {
            ranges.push(range);
            Part::Several(ranges)
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
        let several = |ranges: &[Range<u64>]| Part::Several(ranges.to_vec());
        for (header, expected) in [
            ("bytes=0-", Part::Bytes(0..10)),
            ("bytes=3-5", Part::Bytes(3..6)),
            ("bytes=9-9", Part::Bytes(9..10)),
            ("bytes=3-99", Part::Bytes(3..10)),
            ("bytes=-4", Part::Bytes(6..10)),
            ("bytes=-99", Part::Bytes(0..10)),
            ("bytes=3-99999999999999999999999", Part::Bytes(3..10)),
            ("Bytes=3-5", Part::Bytes(3..6)),
            ("bytes=10-", Part::Unsatisfiable),
            ("bytes=10-20", Part::Unsatisfiable),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=10-,20-30", Part::Unsatisfiable),
            ("bytes=5-3", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("bytes=", Part::Whole),
            ("bytes=,", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("lines=1-2", Part::Whole),
            ("bytes", Part::Whole),
            ("bytes=0-1,3-4", several(&[0..2, 3..5])),
            ("bytes=0-1,2-4", several(&[0..2, 2..5])),
            ("bytes= 0-1 ,\t,3-4,, -2", several(&[0..2, 3..5, 8..10])),
            // Ranges that the blob does not have are left out.
            ("bytes=0-1,3-4,20-30", several(&[0..2, 3..5])),
            ("bytes=20-30,3-4,-0", Part::Bytes(3..5)),
            // One that is not valid makes the header invalid.
            ("bytes=0-1,5-3", Part::Whole),
            ("bytes=0-1,x", Part::Whole),
            ("bytes=0-1,bytes=3-4", Part::Whole),
            // Neither overlapping nor descending ranges are answered.
            ("bytes=0-4,4-5", Part::Whole),
            ("bytes=0-,-1", Part::Whole),
            ("bytes=3-4,0-1", Part::Whole),
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
        let Part::Several(ranges) = part(&header(1024), 10_000) else { panic!() };
        assert_eq!(ranges.len(), 1024);
        assert_eq!(part(&header(1025), 10_000), Part::Whole);
        assert_eq!(part(&header(1025), 10), Part::Whole);
    }
}
