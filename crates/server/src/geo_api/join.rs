//! `POST /geo/v1/join`: a new site presents its token.

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
};
use http::HeaderMap;
use twinport_geo::protocol::{JoinRequest, JoinResponse};

use super::{GeoApiState, answer::Refused};
use crate::{
    audit::{self, Change},
    listener::Peer,
};

pub(super) async fn join(
    State(state): State<GeoApiState>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    request: Result<Json<JoinRequest>, JsonRejection>,
) -> Result<Json<JoinResponse>, Refused> {
    let Json(request) = request?;
    let (site, incarnation) = (request.site.clone(), request.incarnation);
    let joined = state.registrar.join(request).await?;
    let peer = peer.map(|Extension(peer)| peer);
    audit::site_change(Change::SiteAdmit, &format!("site {incarnation}"), &headers, peer.as_ref(), site);
    Ok(Json(joined))
}
