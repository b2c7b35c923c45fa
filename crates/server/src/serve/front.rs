//! The first thing a request meets: its observer, then `/v2` or the router of everything else.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{Router, body::Body};
use http::{Request, Response, StatusCode};
use tower::ServiceExt as _;
use tower_service::Service;
use twinport_oci::ErrorCode;

use crate::{
    error::Refusal, external::ExternalAddress, listener::IncomingBody, telemetry::Observer, v2::V2Service,
};

/// The service of a listener.
#[derive(Clone)]
pub(super) struct Front {
    /// Where every path begins with a prefix, shared by all connections.
    below: Option<Arc<ExternalAddress>>,
    v2: Option<V2Service>,
    rest: Router,
    observer: Observer,
}

impl Front {
    pub(super) fn new(v2: V2Service, rest: Router, observer: Observer) -> Self {
        Self { below: None, v2: Some(v2), rest, observer }
    }

    /// Takes the prefix off every path, and answers those without one as if nothing were there.
    pub(super) fn below(self, external: ExternalAddress) -> Self {
        let below = (!external.prefix.is_empty()).then(|| Arc::new(external));
        Self { below, ..self }
    }

    pub(super) fn without_v2(rest: Router, observer: Observer) -> Self {
        Self { below: None, v2: None, rest, observer }
    }
}

impl Service<Request<IncomingBody>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<IncomingBody>) -> Self::Future {
        let mut outside = None;
        if let Some(external) = &self.below {
            match external.inside_uri(request.uri()) {
                Some(uri) => *request.uri_mut() = uri,
                // Whoever asks after health knows the process, not its place.
                None if ["/livez", "/readyz", "/metrics"].contains(&request.uri().path()) => {}
                None => outside = Some(external.clone()),
            }
        }
        let path = request.uri().path();
        let registry = path == "/v2" || path.starts_with("/v2/");
        let v2 = self.v2.clone().filter(|_| registry);
        let (rest, observer) = (self.rest.clone(), self.observer.clone());
        Box::pin(async move {
            let answer = async |request| {
                let answered = match (outside, v2) {
                    (Some(external), _) => Ok(nothing_here(&external)),
                    (None, Some(mut v2)) => v2.call(request).await,
                    (None, None) => rest.oneshot(request).await,
                };
                answered.unwrap_or_else(|never| match never {})
            };
            Ok(observer.observe(request, answer).await)
        })
    }
}

fn nothing_here(external: &ExternalAddress) -> Response<Body> {
    let message = format!("nothing is here: every path of this site begins with {}/", external.prefix);
    Refusal::new(StatusCode::NOT_FOUND, ErrorCode::Unsupported, message).into_answer()
}
