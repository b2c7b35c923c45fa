//! What a proxy in front says of the address that a client used: `Forwarded` (RFC 7239), else `X-Forwarded-*`.
//! Invariant: only what can be a part of a URL is taken over.

use http::uri::Authority;
use http::{HeaderMap, HeaderName, header::FORWARDED};

const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
/// No prefix is longer, in bytes.
const MAX_PREFIX: usize = 256;

/// The parts of the client's URL before the path that arrives here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Forwarded {
    /// `https://registry.example.com`, where both scheme and host were told.
    pub(super) origin: Option<String>,
    /// `/registry`, or empty.
    pub(super) prefix: String,
}

impl Forwarded {
    /// Reads the headers of a proxy that is trusted. Of several proxies, the client's own comes first.
    pub(super) fn read(headers: &HeaderMap) -> Self {
        let (scheme, host) = match text(headers, &FORWARDED) {
            Some(forwarded) => (parameter(forwarded, "proto"), parameter(forwarded, "host")),
            None => (first(headers, &PROTO), first(headers, &HOST)),
        };
        let scheme = scheme.and_then(|scheme| {
            ["https", "http"].into_iter().find(|known| scheme.eq_ignore_ascii_case(known))
        });
        let host = host.and_then(|host| authority(host, scheme?, first(headers, &PORT)));
        let origin = scheme.zip(host).map(|(scheme, host)| format!("{scheme}://{host}"));
        Self { origin, prefix: first(headers, &PREFIX).and_then(prefix).unwrap_or_default() }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The first of a list of values.
fn first<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    text(headers, name)?.split(',').next().map(str::trim)
}

/// A parameter of the first element of `Forwarded`.
fn parameter<'a>(forwarded: &'a str, wanted: &str) -> Option<&'a str> {
    let mut quoted = false;
    let mut ends = |c: char| {
        quoted ^= c == '"';
        c == ',' && !quoted
    };
    let element = forwarded.split(&mut ends).next()?;
    // None of the values that are wanted holds a semicolon.
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))?;
    Some(value.trim().trim_matches('"'))
}

/// A host, with the port that was told apart from it where that is not the scheme's own.
fn authority(host: &str, scheme: &str, port: Option<&str>) -> Option<String> {
    let authority = Authority::try_from(host).ok().filter(|_| !host.contains('@'))?;
    let usual = if scheme == "https" { 443 } else { 80 };
    let port = port.and_then(|port| port.parse::<u16>().ok()).filter(|port| ![0, usual].contains(port));
    Some(match port {
        Some(port) if authority.port().is_none() => format!("{host}:{port}"),
        _ => host.to_owned(),
    })
}

fn prefix(text: &str) -> Option<String> {
    let text = text.trim_end_matches('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
    let sound = text.starts_with('/')
        && text.len() <= MAX_PREFIX
        && text.chars().all(plain)
        && text[1..].split('/').all(|segment| !["", ".", ".."].contains(&segment));
    sound.then(|| text.to_owned())
}
