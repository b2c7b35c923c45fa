//! `POST /geo/v1/join`: a new site presents its token.

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
};
use twinport_geo::protocol::{JoinRequest, JoinResponse};

use super::{GeoApiState, answer::Refused};

pub(super) async fn join(
    State(state): State<GeoApiState>,
    request: Result<Json<JoinRequest>, JsonRejection>,
) -> Result<Json<JoinResponse>, Refused> {
    let Json(request) = request?;
    Ok(Json(state.registrar.join(request).await?))
}
