//! Byte ranges: `Range` of a read and `Content-Range` of an upload chunk.
//! Invariant: a resolved range is not empty and lies within the content.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::error::Error;
use crate::text::{quoted, textual};

/// More ranges than this in one header are treated as no header at all (RFC 9110, section 14.2 allows it; many
/// small ranges are an old amplification attack).
pub const MAX_RANGES: usize = 16;

/// One range of a `Range: bytes=…` header (RFC 9110, section 14.1.2), in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ByteRange {
    /// `first-last`, both inclusive.
    FromTo(u64, u64),
    /// `first-`: everything from there.
    From(u64),
    /// `-n`: the last n bytes.
    Last(u64),
}

impl ByteRange {
    /// The half-open range within a content of `size` bytes, or `None` when no byte of it exists: answer 416.
    pub fn resolve(&self, size: u64) -> Option<Range<u64>> {
        let range = match *self {
            ByteRange::FromTo(first, last) => first..last.saturating_add(1).min(size),
            ByteRange::From(first) => first..size,
            ByteRange::Last(count) => size.saturating_sub(count)..size,
        };
        (range.start < range.end).then_some(range)
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ByteRange::FromTo(first, last) => write!(f, "{first}-{last}"),
            ByteRange::From(first) => write!(f, "{first}-"),
            ByteRange::Last(count) => write!(f, "-{count}"),
        }
    }
}

/// Reads a `Range` header. `None` means that the header is to be ignored and the whole content sent: another unit,
/// bad syntax, no range or more than [`MAX_RANGES`] of them. Positions beyond 2^64 count as 2^64 - 1.
pub fn parse_ranges(header: &str) -> Option<Vec<ByteRange>> {
    let (unit, set) = header.trim_matches([' ', '\t']).split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut ranges = Vec::new();
    for spec in set.split(',').map(|spec| spec.trim_matches([' ', '\t'])).filter(|spec| !spec.is_empty()) {
        if ranges.len() == MAX_RANGES {
            return None;
        }
        ranges.push(parse_range(spec)?);
    }
    (!ranges.is_empty()).then_some(ranges)
}

fn parse_range(spec: &str) -> Option<ByteRange> {
    let (first, last) = spec.split_once('-')?;
    match (first, last) {
        ("", count) => Some(ByteRange::Last(position(count)?)),
        (first, "") => Some(ByteRange::From(position(first)?)),
        (first, last) => {
            let (first, last) = (position(first)?, position(last)?);
            (first <= last).then_some(ByteRange::FromTo(first, last))
        }
    }
}

/// Digits only; too large saturates, because such a position is valid and beyond any content.
fn position(digits: &str) -> Option<u64> {
    let valid = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    valid.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// Where an upload chunk belongs, in bytes. `start <= end_inclusive`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentRange {
    pub start: u64,
    pub end_inclusive: u64,
}

impl ContentRange {
    /// Length of the chunk in bytes; at least 1.
    pub fn len(&self) -> u64 {
        self.end_inclusive.saturating_sub(self.start).saturating_add(1)
    }

    /// Never: an empty chunk has no content range.
    pub fn is_empty(&self) -> bool {
        false
    }
}

impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end_inclusive)
    }
}

impl FromStr for ContentRange {
    type Err = Error;

    /// OCI Distribution's `0-99`, and HTTP's `bytes 0-99/100` or `bytes 0-99/*`, with which some clients come.
    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::ContentRange(quoted(text));
        let trimmed = text.trim_matches([' ', '\t']);
        let (range, total) = match split_unit(trimmed) {
            Some(rest) => rest.split_once('/').map_or((rest, None), |(range, total)| (range, Some(total))),
            None => (trimmed, None),
        };
        let Some((start, end)) = range.split_once('-') else { return Err(invalid()) };
        let number = |digits: &str| -> Option<u64> {
            let valid = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            if valid { digits.parse().ok() } else { None }
        };
        let (Some(start), Some(end_inclusive)) = (number(start), number(end)) else { return Err(invalid()) };
        // The end of a chunk becomes an offset one further on, and offsets are stored as signed 64-bit numbers.
        if start > end_inclusive || end_inclusive >= i64::MAX as u64 {
            return Err(invalid());
        }
        match total {
            None | Some("*") => {}
            Some(total) if number(total).is_some_and(|total| total > end_inclusive) => {}
            Some(_) => return Err(invalid()),
        }
        Ok(ContentRange { start, end_inclusive })
    }
}

/// The text after `bytes ` or `bytes=`.
fn split_unit(text: &str) -> Option<&str> {
    let (unit, rest) = text.split_at_checked(5)?;
    let rest = unit.eq_ignore_ascii_case("bytes").then_some(rest)?;
    rest.strip_prefix([' ', '=']).map(|rest| rest.trim_start_matches([' ', '\t']))
}

textual!(ContentRange, Error, "a content range like 0-99");

#[cfg(test)]
mod tests {
    use super::{ByteRange, ContentRange, MAX_RANGES, parse_ranges};

    #[test]
    fn ranges_resolve_as_rfc_9110_says() {
        let resolved = |header: &str, size| parse_ranges(header).unwrap()[0].resolve(size);
        assert_eq!(resolved("bytes=0-0", 10), Some(0..1));
        assert_eq!(resolved("bytes=2-5", 10), Some(2..6));
        assert_eq!(resolved("bytes=2-", 10), Some(2..10));
        assert_eq!(resolved("bytes=5-99", 10), Some(5..10));
        assert_eq!(resolved("bytes=-3", 10), Some(7..10));
        assert_eq!(resolved("bytes=-30", 10), Some(0..10));
        assert_eq!(resolved("Bytes= 1-2 ", 10), Some(1..3));
        assert_eq!(resolved("bytes=0-99999999999999999999999", 10), Some(0..10));
        for unsatisfiable in ["bytes=10-", "bytes=10-11", "bytes=-0", "bytes=99999999999999999999-"] {
            assert_eq!(resolved(unsatisfiable, 10), None, "{unsatisfiable}");
        }
        assert_eq!(resolved("bytes=0-", 0), None);
        assert_eq!(resolved("bytes=-1", 0), None);
        assert_eq!(ByteRange::FromTo(0, u64::MAX).resolve(u64::MAX), Some(0..u64::MAX));
    }

    #[test]
    fn a_header_that_is_no_byte_range_is_ignored() {
        for ignored in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-2",
            "bytes=1",
            "bytes=1-2-3",
            "bytes=+1-2",
            "bytes=1-0x2",
            "items=0-1",
            "bytes 0-1",
            "bytes=0-1,x",
            "bytes=1 - 2",
            "bytes=--1",
            "bytes=-+1",
            "bytes=٣-٤",
        ] {
            assert_eq!(parse_ranges(ignored), None, "{ignored}");
        }
    }

    #[test]
    fn a1_a_header_of_very_many_ranges_is_ignored() {
        let header = |count: usize| format!("bytes={}", vec!["0-0"; count].join(","));
        assert_eq!(parse_ranges(&header(MAX_RANGES)).map(|ranges| ranges.len()), Some(MAX_RANGES));
        assert_eq!(parse_ranges(&header(MAX_RANGES + 1)), None);
        assert_eq!(parse_ranges("bytes=0-1,,-2 , 3-").map(|ranges| ranges.len()), Some(3));
    }

    #[test]
    fn content_ranges_of_both_forms_are_accepted() {
        for text in [
            "0-99",
            " 0-99 ",
            "bytes 0-99/100",
            "bytes 0-99/*",
            "bytes=0-99",
            "Bytes 0-99/1000",
            "bytes 0-99",
        ] {
            let range: ContentRange = text.parse().unwrap();
            assert_eq!((range.start, range.end_inclusive, range.len()), (0, 99, 100), "{text}");
        }
        assert_eq!("7-7".parse::<ContentRange>().unwrap().len(), 1);
    }

    #[test]
    fn s9_content_ranges_that_contradict_themselves_are_refused() {
        for text in [
            "",
            "-",
            "0",
            "0-",
            "-1",
            "5-4",
            "0--1",
            "a-b",
            "0-99/100",
            "bytes 0-99/99",
            "bytes 0-99/",
            "bytes 0-99/x",
            "bytes */100",
            "bytes */*",
            "bytes -5/10",
            "0-9223372036854775807",
            "0-18446744073709551615",
            "99999999999999999999-99999999999999999999",
            "0-1,2-3",
            "0 - 1",
            "+0-1",
            "éééé",
        ] {
            assert!(text.parse::<ContentRange>().is_err(), "{text}");
        }
    }
}
