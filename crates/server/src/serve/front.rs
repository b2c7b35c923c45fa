//! The first thing a request meets: its observer, then `/v2` or the router of everything else.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{Router, body::Body};
use http::{Request, Response};
use tower::ServiceExt as _;
use tower_service::Service;

use crate::{listener::IncomingBody, telemetry::Observer, v2::V2Service};

/// The service of a listener.
#[derive(Clone)]
pub(super) struct Front {
    v2: Option<V2Service>,
    rest: Router,
    observer: Observer,
}

impl Front {
    pub(super) fn new(v2: V2Service, rest: Router, observer: Observer) -> Self {
        Self { v2: Some(v2), rest, observer }
    }

    pub(super) fn without_v2(rest: Router, observer: Observer) -> Self {
        Self { v2: None, rest, observer }
    }
}

impl Service<Request<IncomingBody>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<IncomingBody>) -> Self::Future {
        let path = request.uri().path();
        let registry = path == "/v2" || path.starts_with("/v2/");
        let v2 = self.v2.clone().filter(|_| registry);
        let (rest, observer) = (self.rest.clone(), self.observer.clone());
        Box::pin(async move {
            let answer = async |request| {
                let answered = match v2 {
                    Some(mut v2) => v2.call(request).await,
                    None => rest.oneshot(request).await,
                };
                answered.unwrap_or_else(|never| match never {})
            };
            Ok(observer.observe(request, answer).await)
        })
    }
}
