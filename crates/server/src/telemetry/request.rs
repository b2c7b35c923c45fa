//! Around every request: an id that is kept or given, a span, one access line, and the request metrics.
//! The id goes on as the request's `X-Request-Id`, from where it reaches the event as its correlation id.

use std::{sync::Arc, time::Instant};

use axum::body::Body;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tracing::Instrument as _;
use twinport_geo::ClientActivity;
use uuid::Uuid;

use super::metrics::Metrics;
use crate::v2::RouteClass;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_ID: usize = 128;

/// What is done around requests.
#[derive(Debug, Clone)]
pub(crate) struct Observer {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) access_log: bool,
    /// Told of every request of a registry's client, which a backfill at another site gives way to.
    pub(crate) clients: ClientActivity,
}

impl Observer {
    /// Runs `answer` on the request, inside its span.
    pub(crate) async fn observe<B, F, A>(&self, mut request: Request<B>, answer: F) -> Response<Body>
    where
        F: FnOnce(Request<B>) -> A,
        A: Future<Output = Response<Body>>,
    {
        let id = kept_id(request.headers()).unwrap_or_else(fresh_id);
        request.headers_mut().insert(REQUEST_ID, id.clone());
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let shown = id.to_str().unwrap_or_default();
        let span = tracing::info_span!("request", id = shown);

        if path.starts_with("/v2/") {
            self.clients.request();
        }
        let began = Instant::now();
        let under_way = self.metrics.request_begins();
        let mut response = answer(request).instrument(span).await;
        drop(under_way);
        let took = began.elapsed();
        let status = response.status();
        let route = route(&path, &response);
        self.metrics.request_ended(route, &method, status, took);
        if self.access_log && route != "health" {
            tracing::info!(
                target: "access",
                request_id = shown,
                %method,
                path = %path.escape_debug(),
                status = status.as_u16(),
                duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                "request"
            );
        }
        response.headers_mut().insert(REQUEST_ID, id);
        response
    }
}

/// What the request was for: one of a few words, whatever the path.
fn route(path: &str, response: &Response<Body>) -> &'static str {
    if let Some(class) = response.extensions().get::<RouteClass>() {
        return class.as_str();
    }
    match path {
        "/livez" | "/readyz" => "health",
        "/metrics" => "metrics",
        _ if path.starts_with("/geo/") => "geo",
        _ if path.starts_with("/api/") => "admin",
        _ => "other",
    }
}

/// The id a client or a proxy chose, when it is fit for logs, headers and the event log.
fn kept_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(REQUEST_ID)?;
    let text = value.to_str().ok()?;
    let fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte);
    ((1..=MAX_ID).contains(&text.len()) && text.bytes().all(fit)).then(|| value.clone())
}

fn fresh_id() -> HeaderValue {
    HeaderValue::try_from(Uuid::new_v4().to_string()).unwrap_or(HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_kept_only_when_it_cannot_harm_a_log() {
        let with =
            |id: &'static str| kept_id(&HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_static(id))]));
        assert!(with("7f1c-42").is_some());
        for bad in ["", "a b", "a\"b", "a{b}"] {
            assert!(with(bad).is_none(), "{bad}");
        }
    }
}
