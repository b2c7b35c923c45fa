//! What a browser's page of another origin is told it may do (the Fetch standard's CORS protocol).
//! Invariant: an origin that the configuration does not name is told nothing, and none is told of another.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, request};

use crate::config::ResponseHeaders;

/// Of interest before a request only, in the answer to a preflight.
const PREFLIGHT: [http::HeaderName; 3] =
    [ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_MAX_AGE];

/// Adds what the origin of a request may know to its answer.
pub(crate) fn complete(configured: &ResponseHeaders, request: &request::Parts, answer: &mut HeaderMap) {
    let any = configured.origins.iter().any(|origin| origin == "*");
    let Some(allowed) = allowed(configured, request.headers.get(ORIGIN), any) else {
        if !configured.origins.is_empty() && !any {
            answer.append(VARY, HeaderValue::from_static("Origin"));
        }
        return;
    };
    answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    if !any {
        answer.append(VARY, HeaderValue::from_static("Origin"));
    }
    let preflight =
        request.method == Method::OPTIONS && request.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    for (name, value) in &configured.cross_origin {
        if preflight || !PREFLIGHT.contains(name) {
            answer.insert(name, value.clone());
        }
    }
}

fn allowed(configured: &ResponseHeaders, origin: Option<&HeaderValue>, any: bool) -> Option<HeaderValue> {
    if any {
        return Some(HeaderValue::from_static("*"));
    }
    let origin = origin?;
    let text = origin.to_str().ok()?.to_ascii_lowercase();
    configured.origins.contains(&text).then(|| origin.clone())
}
