//! `/api/v1` on the unix socket: what local commands ask a running site.
//! Invariant: it is reached through the socket file alone, which only the owner of the data directory may open.

mod accounts;
mod answer;
mod asked;
mod database;
mod doctor;
mod geo;
mod maintenance;
mod repositories;
mod retention;
mod roles;
mod rules;
mod scrub;
mod sites;
mod tokens;
pub mod types;

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::Next,
    response::Response,
    routing::{delete, get, post, put},
};
use http::Method;

use crate::policy::Policy;
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
        .route("/api/v1/maintenance", get(maintenance::show).post(maintenance::set))
        .route("/api/v1/doctor", get(doctor::examine))
        .route("/api/v1/database", get(database::status))
        .route("/api/v1/database/accept-loss", post(database::accept_loss))
        .route("/api/v1/repositories", get(repositories::list).delete(repositories::remove))
        .route("/api/v1/repositories/rename", post(repositories::rename))
        .route("/api/v1/tags", get(repositories::tags))
        .route("/api/v1/blobs/scrub", post(scrub::scrub))
        .route("/api/v1/accounts", get(accounts::list).post(accounts::add))
        .route(
            "/api/v1/accounts/{name}",
            get(accounts::show).patch(accounts::change).delete(accounts::remove),
        )
        .route("/api/v1/accounts/{name}/password", put(accounts::set_password))
        .route("/api/v1/tokens", get(tokens::list).post(tokens::add))
        .route("/api/v1/tokens/{id}", delete(tokens::remove))
        .route("/api/v1/roles", get(roles::list).post(roles::grant).delete(roles::revoke))
        .route("/api/v1/rules", get(rules::list).post(rules::add))
        .route("/api/v1/rules/{name}", delete(rules::remove))
        .route("/api/v1/rules/{name}/preview", get(retention::preview))
        .route("/api/v1/rules/{name}/run", post(retention::run))
        .route("/api/v1/trash", get(retention::trash))
        .route("/api/v1/trash/restore", post(retention::restore))
        .fallback(answer::unknown_path)
        .layer(axum::middleware::from_fn_with_state(site.clone(), then_refresh))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(site.clone());
    crate::health::router(site).merge(api)
}

/// What a command changed counts from the next request on.
async fn then_refresh(State(site): State<Arc<RunningSite>>, request: Request, next: Next) -> Response {
    let changes = request.method() != Method::GET;
    let answer = next.run(request).await;
    if changes {
        site.registry.look_at_rules_again();
    }
    if let Policy::Accounts(accounts) = &site.registry.policy
        && changes
        && let Err(error) = accounts.refresh().await
    {
        tracing::warn!(%error, "accounts and roles could not be read again: it is tried every second");
    }
    answer
}
