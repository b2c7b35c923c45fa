//! `/api/v1` on the unix socket: what local commands ask a running site.
//! Invariant: it is reached through the socket file alone, which only the owner of the data directory may open.

mod answer;
mod asked;
mod database;
mod doctor;
mod geo;
mod repositories;
mod scrub;
mod sites;
pub mod types;

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{delete, get, post},
};

use crate::site::RunningSite;

/// The largest body of a command, in bytes.
const MAX_BODY: usize = 64 << 10;

/// Every route of the admin API, and health for whoever has only the socket.
pub(crate) fn router(site: Arc<RunningSite>) -> Router {
    let api = Router::new()
        .route("/api/v1/site", get(sites::own))
        .route("/api/v1/sites", get(sites::list).post(sites::add))
        .route("/api/v1/sites/join", post(sites::join))
        .route("/api/v1/sites/{name}", delete(sites::remove))
        .route("/api/v1/geo/status", get(geo::status))
        .route("/api/v1/tracking", get(geo::tracking))
        .route("/api/v1/doctor", get(doctor::examine))
        .route("/api/v1/database", get(database::status))
        .route("/api/v1/repositories", get(repositories::list).delete(repositories::remove))
        .route("/api/v1/repositories/rename", post(repositories::rename))
        .route("/api/v1/tags", get(repositories::tags))
        .route("/api/v1/blobs/scrub", post(scrub::scrub))
        .fallback(answer::unknown_path)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(site.clone());
    crate::health::router(site).merge(api)
}
