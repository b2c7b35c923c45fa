//! Times and spans as people read them.

/// A moment (µs since the Unix epoch) in UTC, to the second.
pub(crate) fn moment(at_us: i64) -> String {
    jiff::Timestamp::from_second(at_us.div_euclid(1_000_000))
        .map_or_else(|_| format!("{at_us} µs"), |time| time.to_string())
}

/// A span (µs): µs below a millisecond, ms below a second, then s.
pub(crate) fn span(us: i64) -> String {
    match us.unsigned_abs() {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_carry_their_unit() {
        assert_eq!(span(250), "250 µs");
        assert_eq!(span(12_340), "12.3 ms");
        assert_eq!(span(2_500_000), "2.5 s");
        assert_eq!(moment(0), "1970-01-01T00:00:00Z");
    }
}
