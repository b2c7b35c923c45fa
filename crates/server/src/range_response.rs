//! The part of a content that a request asked for (RFC 9110, sections 13.1.5 and 14).
//! Several parts leave as `multipart/byteranges`, which snapshotters that pull lazily ask for.
//! Invariant: a part is answered as 206 only when it is of the very content the client holds the rest of.

mod multipart;

use std::ops::Range;

use http::header::{IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue};
use twinport_oci::{MAX_RANGES, parse_ranges};

pub(crate) use self::multipart::Multipart;

/// What to send of a content of known size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    Whole,
    /// One part; never empty.
    Part(Range<u64>),
    /// Two or more, none of which touches another.
    Parts(Vec<Range<u64>>),
    /// Nothing of what was asked for exists: 416.
    Unsatisfiable,
}

impl Selection {
    /// Reads `Range` and `If-Range` of a GET for a content of `size` bytes with this entity tag.
    pub(crate) fn of(headers: &HeaderMap, size: u64, etag: &[u8]) -> Self {
        let Some(range) = headers.get(RANGE) else { return Self::Whole };
        // A date never equals the tag, and contents here have none.
        if headers.get(IF_RANGE).is_some_and(|condition| condition.as_bytes().trim_ascii() != etag) {
            return Self::Whole;
        }
        let Ok(range) = range.to_str() else { return Self::Whole };
        let Some(ranges) = parse_ranges(range) else { return Self::rejected(range) };
        let mut parts = separate(ranges.iter().filter_map(|range| range.resolve(size)).collect());
        match (parts.pop(), parts.is_empty()) {
            (None, _) => Self::Unsatisfiable,
            (Some(part), true) => Self::Part(part),
            (Some(last), false) => {
                parts.push(last);
                Self::Parts(parts)
            }
        }
    }

    /// A range of bytes that makes no sense is refused, as the OCI conformance suite wants it (500-0); another unit
    /// is ignored, and so is a header with a great many ranges.
    fn rejected(range: &str) -> Self {
        let bytes = range.trim_start().get(..6).is_some_and(|unit| unit.eq_ignore_ascii_case("bytes="));
        if bytes && range.split(',').count() <= MAX_RANGES { Self::Unsatisfiable } else { Self::Whole }
    }
}

/// The parts in the order in which they were asked for. Where some overlap or touch, they are put together, in the order
/// of their bytes: no byte is sent twice, however often it is asked for (RFC 9110, section 14.2).
fn separate(parts: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut sorted = parts.clone();
    sorted.sort_by_key(|part| part.start);
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for part in sorted {
        match joined.last_mut() {
            Some(last) if part.start <= last.end => last.end = last.end.max(part.end),
            _ => joined.push(part),
        }
    }
    if joined.len() == parts.len() { parts } else { joined }
}

/// The `Content-Range` of a part.
pub(crate) fn content_range(part: &Range<u64>, size: u64) -> HeaderValue {
    let last = part.end.saturating_sub(1);
    header(format!("bytes {}-{last}/{size}", part.start))
}

/// The `Content-Range` of a 416.
pub(crate) fn unsatisfied_range(size: u64) -> HeaderValue {
    header(format!("bytes */{size}"))
}

fn header(text: String) -> HeaderValue {
    crate::answer::visible(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(range: &str, if_range: Option<&str>) -> Selection {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, range.parse().unwrap());
        if let Some(condition) = if_range {
            headers.insert(IF_RANGE, condition.parse().unwrap());
        }
        Selection::of(&headers, 2048, b"\"x\"")
    }

    #[test]
    fn one_range_selects_a_part_and_what_does_not_exist_is_refused() {
        assert_eq!(select("bytes=500-1499", None), Selection::Part(500..1500));
        assert_eq!(select("bytes=500-", None), Selection::Part(500..2048));
        assert_eq!(select("bytes=-500", None), Selection::Part(1548..2048));
        assert_eq!(select("bytes=2000-5000", None), Selection::Part(2000..2048));
        assert_eq!(select("bytes=-5000", None), Selection::Part(0..2048));
        for absent in
            ["bytes=5000-10000", "bytes=500-0", "bytes=2048-", "bytes=-0", "bytes=x", "bytes=9000-,9001-"]
        {
            assert_eq!(select(absent, None), Selection::Unsatisfiable, "{absent}");
        }
        for whole in ["items=0-1", "bytes", &format!("bytes={}", "0-0,".repeat(17))] {
            assert_eq!(select(whole, None), Selection::Whole, "{whole}");
        }
    }

    #[test]
    fn several_ranges_select_parts_that_never_send_a_byte_twice() {
        assert_eq!(select("bytes=0-1, 4-5", None), Selection::Parts(vec![0..2, 4..6]));
        assert_eq!(select("bytes=-2,0-1", None), Selection::Parts(vec![2046..2048, 0..2]));
        assert_eq!(select("bytes=9-9,0-3,2-5,20-", None), Selection::Parts(vec![0..6, 9..10, 20..2048]));
        assert_eq!(select("bytes=0-1,2-3", None), Selection::Part(0..4));
        assert_eq!(select("bytes=0-1,9000-", None), Selection::Part(0..2));
        assert_eq!(select(&format!("bytes={}", "0-,".repeat(16)), None), Selection::Part(0..2048));
    }

    #[test]
    fn a_part_of_another_content_is_never_sent() {
        assert_eq!(select("bytes=0-0", Some("\"x\"")), Selection::Part(0..1));
        for other in ["\"y\"", "W/\"x\"", "Sat, 29 Oct 1994 19:43:31 GMT"] {
            assert_eq!(select("bytes=0-0", Some(other)), Selection::Whole);
        }
    }
}
