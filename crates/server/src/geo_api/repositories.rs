//! `GET /geo/v1/repositories…`: what this site has, page by page, its checksums, and manifests.
//! Guards: a page carries `complete` only when nothing is left after it (hazard R3).

use std::str::FromStr;

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, header::CONTENT_TYPE};
use serde::Deserialize;
use twinport_geo::{
    RefusalCode,
    protocol::{DEFAULT_PAGE, ListingPage, MAX_PAGE, RepositoryChecksum, RepositoryEntry, RepositoryPage},
};
use twinport_metadata::{ListingCursor, RepositoryUuid};
use twinport_oci::Digest;

use super::{GeoApiState, answer::Refused};

/// Where a page starts and how long it may be.
#[derive(Debug, Default, Deserialize)]
pub(super) struct PageQuery {
    pub(super) after: Option<String>,
    limit: Option<u32>,
}

impl PageQuery {
    pub(super) fn limit(&self) -> u32 {
        self.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE)
    }
}

pub(super) async fn list(
    State(state): State<GeoApiState>,
    headers: HeaderMap,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<RepositoryPage>, Refused> {
    state.puller(&headers).await?;
    let Query(query) = query?;
    let after = query.after.as_deref().unwrap_or("");
    if after.contains('\0') {
        return Err(Refused::new(RefusalCode::BadRequest, "after is not a repository path"));
    }
    let page = state.metadata.repository_rows(after, query.limit()).await?;
    let repositories = page
        .rows
        .into_iter()
        .map(|row| RepositoryEntry { uuid: row.uuid, path: row.path, position_seq: row.position_seq })
        .collect();
    Ok(Json(RepositoryPage { repositories, complete: page.complete }))
}

pub(super) async fn listing(
    State(state): State<GeoApiState>,
    headers: HeaderMap,
    Path(uuid): Path<String>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<ListingPage>, Refused> {
    state.puller(&headers).await?;
    let repository = repository(&uuid)?;
    let Query(query) = query?;
    let cursor = match &query.after {
        None => ListingCursor::start(),
        Some(after) => after.parse().map_err(|()| {
            Refused::new(RefusalCode::BadRequest, "after is not what an earlier page gave as next")
        })?,
    };
    let page =
        state.metadata.repository_listing(repository, cursor, query.limit()).await?.ok_or_else(unknown)?;
    let complete = page.next.is_none();
    let entries = page.rows.into_iter().map(Into::into).collect();
    Ok(Json(ListingPage { entries, next: page.next.map(|next| next.to_string()), complete }))
}

pub(super) async fn checksum(
    State(state): State<GeoApiState>,
    headers: HeaderMap,
    Path(uuid): Path<String>,
) -> Result<Json<RepositoryChecksum>, Refused> {
    state.puller(&headers).await?;
    let repository = repository(&uuid)?;
    let checksum = state.metadata.repository_checksum(repository).await?.ok_or_else(unknown)?;
    Ok(Json(checksum.into()))
}

pub(super) async fn manifest(
    State(state): State<GeoApiState>,
    headers: HeaderMap,
    Path((uuid, digest)): Path<(String, String)>,
) -> Result<Response, Refused> {
    state.puller(&headers).await?;
    let repository = repository(&uuid)?;
    let digest = parse::<Digest>(&digest, "a digest")?;
    let manifest = state.metadata.manifest_of(repository, &digest).await?.ok_or_else(|| {
        Refused::new(RefusalCode::ManifestUnknown, format!("manifest {digest} is not in that repository"))
    })?;
    Ok(([(CONTENT_TYPE, manifest.media_type)], manifest.body).into_response())
}

fn repository(text: &str) -> Result<RepositoryUuid, Refused> {
    parse(text, "a repository's UUID")
}

pub(super) fn parse<T: FromStr>(text: &str, what: &str) -> Result<T, Refused> {
    text.parse().map_err(|_| Refused::new(RefusalCode::BadRequest, format!("{text:?} is not {what}")))
}

fn unknown() -> Refused {
    Refused::new(RefusalCode::RepositoryUnknown, "no repository here has that UUID")
}
