//! `/livez`, `/readyz` and `/metrics`.
//! Invariant: on the main address, metrics are for this machine only.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_TYPE, FORWARDED},
};

use crate::{
    listener::Peer,
    site::{Readiness, RunningSite},
};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The three routes on the main address.
pub(crate) fn router(site: Arc<RunningSite>) -> Router {
    Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(local_metrics))
        .with_state(site)
}

/// The debug address: metrics at a path of the configuration's choice.
pub(crate) fn debug_router(site: Arc<RunningSite>, metrics_path: Option<&str>) -> Router {
    let mut router = Router::new().route("/livez", get(live)).route("/readyz", get(ready));
    if let Some(path) = metrics_path.filter(|path| !["/livez", "/readyz"].contains(path)) {
        router = router.route(path, get(metrics));
    }
    router.with_state(site)
}

async fn live() -> &'static str {
    "alive\n"
}

async fn ready(State(site): State<Arc<RunningSite>>) -> Response {
    match site.readiness().await {
        Readiness::Ready => "ready\n".into_response(),
        Readiness::PullsOnly(reason) => {
            format!("ready for pulls, writes are stopped: {reason}\n").into_response()
        }
        Readiness::Unready(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response()
        }
    }
}

async fn local_metrics(
    site: State<Arc<RunningSite>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Response {
    // A proxy on this machine passes on requests of others.
    let passed_on = headers.contains_key(FORWARDED) || headers.contains_key("x-forwarded-for");
    if !passed_on && peer.is_some_and(|Extension(peer)| peer.is_local()) {
        return metrics(site).await;
    }
    let message = "metrics are served to this machine only here: set http.debug.addr and http.debug.prometheus.enabled\n";
    (StatusCode::FORBIDDEN, message).into_response()
}

async fn metrics(State(site): State<Arc<RunningSite>>) -> Response {
    let page = site.metrics.page(&site.figures().await);
    ([(CONTENT_TYPE, OPEN_METRICS)], page).into_response()
}
