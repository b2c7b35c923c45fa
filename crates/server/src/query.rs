//! The query of a request: decoded once, looked up by name, unknown parameters left alone.
//! Invariant: no parameter reaches storage unchecked, and none costs more than the request that carried it.

use http::StatusCode;
use twinport_oci::ErrorCode;

use crate::error::Refusal;
use crate::path::hex_digit;

/// A hundred tags of 128 bytes fit, and no cursor is longer.
const MAX_QUERY: usize = 16 << 10;
/// More parameters than this are nobody's.
const MAX_PARAMETERS: usize = 256;

/// The decoded parameters, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// # Errors
    /// 414 for a query over 16 KiB or 256 parameters, 400 for a broken escape or bytes that are not UTF-8.
    pub(crate) fn parse(raw: Option<&str>) -> Result<Self, Refusal> {
        let Some(raw) = raw.filter(|raw| !raw.is_empty()) else { return Ok(Self::default()) };
        let too_long = || {
            let message = "the query is too long: send fewer parameters";
            Refusal::new(StatusCode::URI_TOO_LONG, ErrorCode::Unsupported, message)
        };
        if raw.len() > MAX_QUERY {
            return Err(too_long());
        }
        let mut parameters = Vec::new();
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            if parameters.len() == MAX_PARAMETERS {
                return Err(too_long());
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            parameters.push((decode(name)?, decode(value)?));
        }
        Ok(Self(parameters))
    }

    /// The parameters of a form's body (`application/x-www-form-urlencoded`), where `+` is a space.
    pub(crate) fn parse_form(body: &str) -> Result<Self, Refusal> {
        let mut parameters = Vec::new();
        for (name, value) in url::form_urlencoded::parse(body.as_bytes()) {
            if parameters.len() == MAX_PARAMETERS {
                let message = format!("the form has more than {MAX_PARAMETERS} fields");
                return Err(Refusal::bad_request(ErrorCode::Unsupported, message));
            }
            parameters.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(parameters))
    }

    /// The first value of a parameter; an empty one counts as absent.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

fn decode(text: &str) -> Result<String, Refusal> {
    let broken = |what: &str| {
        let message = format!("the query holds {what}: percent-encode it as UTF-8");
        Refusal::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message)
    };
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => decoded.push(b' '),
            b'%' => {
                let digits = (bytes.next().and_then(hex_digit), bytes.next().and_then(hex_digit));
                let (Some(high), Some(low)) = digits else { return Err(broken("a broken escape")) };
                decoded.push(high << 4 | low);
            }
            _ => decoded.push(byte),
        }
    }
    if decoded.contains(&0) {
        return Err(broken("a NUL byte"));
    }
    String::from_utf8(decoded).map_err(|_| broken("bytes that are not UTF-8"))
}

/// How much of a listing a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    /// Entries at most; zero is a wish for none.
    pub(crate) limit: u32,
    /// Only what comes after this, in byte order.
    pub(crate) last: Option<String>,
}

impl Page {
    /// Reads `n` and `last`. `n` beyond `most` counts as `most`; without `n`, `most` too.
    ///
    /// # Errors
    /// 400 for an `n` that is not a number of zero or more, and for a `last` no listing can hold.
    pub(crate) fn parse(query: &Query, most: u32) -> Result<Self, Refusal> {
        let limit = match query.get("n") {
            None => most,
            Some(n) => number(n).ok_or_else(|| {
                let message = "n is not a number of zero or more";
                Refusal::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message)
            })?,
        };
        let last = query.get("last").map(str::to_owned);
        if last
            .as_deref()
            .is_some_and(|last| last.len() > 255 || !last.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            let message = "last is not an entry of this listing: send the last one of the page before";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message));
        }
        Ok(Self { limit: limit.min(most), last })
    }
}

/// Digits only; a number too large to hold is merely large.
fn number(text: &str) -> Option<u32> {
    let digits = text.len() <= 1024 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(query: &str) -> Result<Page, Refusal> {
        Page::parse(&Query::parse(Some(query)).unwrap(), 1000)
    }

    #[test]
    fn a1_n_is_bounded_however_large_and_refused_when_negative_or_absurd() {
        assert_eq!(page("n=5&last=a").unwrap(), Page { limit: 5, last: Some("a".to_owned()) });
        assert_eq!(page("").unwrap(), Page { limit: 1000, last: None });
        assert_eq!(page("n=0").unwrap().limit, 0);
        for huge in ["1001", "4294967296", "18446744073709551616", &"9".repeat(1000)] {
            assert_eq!(page(&format!("n={huge}")).unwrap().limit, 1000);
        }
        for absurd in ["-1", "-9223372036854775808", "1e3", "0x10", "ten", "1.5", "%201", "%EF%BC%91"] {
            assert!(page(&format!("n={absurd}")).is_err(), "{absurd}");
        }
    }

    #[test]
    fn a1_a_cursor_that_no_listing_holds_is_refused() {
        for last in ["%0A", "%C3%A4", "a%20b", &"a".repeat(256)] {
            assert!(page(&format!("last={last}")).is_err(), "{last}");
        }
        assert!(Query::parse(Some("last=%00")).is_err());
    }

    #[test]
    fn parameters_are_decoded_once_and_unknown_ones_are_left_alone() {
        let query =
            Query::parse(Some("a=%2541&ns=docker.io&tag=x&tag=y&flag&=&&digest=sha256%3Aabc")).unwrap();
        assert_eq!(query.get("a"), Some("%41"));
        assert_eq!(query.get("digest"), Some("sha256:abc"));
        assert_eq!(query.all("tag").collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(query.get("flag"), None);
        for broken in ["a=%", "a=%f", "a=%gg", "a=%ff"] {
            assert!(Query::parse(Some(broken)).is_err(), "{broken}");
        }
        assert!(Query::parse(Some(&"a&".repeat(300))).is_err());
        assert!(Query::parse(Some(&"a".repeat(20_000))).is_err());
    }
}
