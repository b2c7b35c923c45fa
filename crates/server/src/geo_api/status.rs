//! `POST /geo/v1/status`: a secondary reports where it stands, with the nonce that the next heartbeat echoes.

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
};
use http::{HeaderMap, StatusCode};
use twinport_geo::protocol::StatusReport;

use super::{GeoApiState, answer::Refused};

pub(super) async fn status(
    State(state): State<GeoApiState>,
    headers: HeaderMap,
    report: Result<Json<StatusReport>, JsonRejection>,
) -> Result<StatusCode, Refused> {
    let peer = state.reporter(&headers).await?;
    let Json(report) = report?;
    state.feed.report(&peer, &report).await?;
    Ok(StatusCode::NO_CONTENT)
}
