//! `geo status`, and the tracking record of one item.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use serde::Deserialize;
use twinport_geo::SitesStatus;
use twinport_oci::RepositoryName;

use super::{
    answer::Failed,
    sites::describe,
    types::{GeoStatus, TrackingRecord},
};
use crate::site::RunningSite;

pub(super) async fn status(State(site): State<Arc<RunningSite>>) -> Result<Json<GeoStatus>, Failed> {
    Ok(Json(GeoStatus {
        this: describe(&site).await?,
        sites: SitesStatus::read(&site.metadata).await?,
        replication: site.replication.status().await,
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Item {
    repository: String,
    /// `tag` or `manifest`.
    kind: String,
    /// The tag's name, or the manifest's digest.
    key: String,
}

/// The record; `null` where this site has none (yet).
pub(super) async fn tracking(
    State(site): State<Arc<RunningSite>>,
    item: Result<Query<Item>, QueryRejection>,
) -> Result<Json<Option<TrackingRecord>>, Failed> {
    let Query(item) = item?;
    let repository = RepositoryName::parse(&item.repository)?;
    let record = site.metadata.tracked_item(&repository, &item.kind, &item.key).await?;
    Ok(Json(record.map(|record| TrackingRecord {
        state: record.state,
        verification: record.verification,
        digest: record.digest,
        position_seq: record.position_seq,
        synced_at_us: record.synced_at_us,
        verified_at_us: record.verified_at_us,
        last_error: record.last_error,
    })))
}
