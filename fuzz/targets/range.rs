//! Range, Content-Range and Link headers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twinport_oci::{ContentRange, next_link, parse_next_link, parse_ranges};

fuzz_target!(|input: (&str, u64)| {
    let (text, size) = input;
    for range in parse_ranges(text).unwrap_or_default() {
        if let Some(resolved) = range.resolve(size) {
            assert!(resolved.start < resolved.end && resolved.end <= size);
        }
    }
    if let Ok(range) = text.parse::<ContentRange>() {
        assert!(range.start <= range.end_inclusive);
        assert_eq!(range.to_string().parse(), Ok(range));
    }
    _ = parse_next_link(text);
    assert!(parse_next_link(&next_link(text)).is_some());
});
