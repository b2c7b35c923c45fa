//! `GET /geo/v1/log`: the event log after a cursor, as a stream that does not end by itself.

use axum::{
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    response::Response,
};
use futures_util::TryStreamExt as _;
use http::{
    HeaderMap, HeaderValue,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use twinport_geo::protocol::{Head, LOG_STREAM};

use super::{GeoApiState, answer::Refused};

pub(super) async fn log(
    State(state): State<GeoApiState>,
    headers: HeaderMap,
    cursor: Result<Query<Head>, QueryRejection>,
) -> Result<Response, Refused> {
    let peer = state.puller(&headers).await?;
    let Query(cursor) = cursor?;
    let feed = state.feed.open(&peer, cursor).await?;
    tracing::info!(site = %peer.site.name, seq = cursor.seq, "a site follows the log");
    let site = peer.site.name;
    let frames = feed.into_stream().inspect_err(move |error| {
        tracing::warn!(site = %site, %error, "a log stream ended early; the site will connect again");
    });
    let mut response = Response::new(Body::from_stream(frames));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(LOG_STREAM));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
