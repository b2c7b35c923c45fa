//! `db status`: the database, and the nodes that work on it. `db accept-loss`.

use std::{path::Path, sync::Arc};

use axum::{Json, extract::State};

use twinport_metadata::Metadata;

use super::{
    answer::Failed,
    asked::Asked,
    types::{AcceptedLoss, DatabaseStatus, JobStatus, NodeStatus},
};
use crate::{audit::Change, config::DatabaseConfig, site::RunningSite};

pub(super) async fn status(State(site): State<Arc<RunningSite>>) -> Result<Json<DatabaseStatus>, Failed> {
    let (schema, newest_schema) = site.metadata.schema().await?;
    let head = site.metadata.log_head().await?;
    let file = match site.config.database {
        DatabaseConfig::Embedded => Some(site.config.data.join("metadata.db")),
        DatabaseConfig::Postgres(_) => None,
    };
    let bytes = match &file {
        Some(file) => Some(size_with_log(file).await),
        None => None,
    };
    Ok(Json(DatabaseStatus {
        backend: site.metadata.backend().to_owned(),
        schema,
        newest_schema,
        file: file.map(|file| file.display().to_string()),
        bytes,
        log_head_seq: head.position.seq,
        epoch: head.position.epoch.number,
        nodes: nodes(&site.metadata).await?,
    }))
}

async fn nodes(metadata: &Metadata) -> twinport_metadata::Result<Vec<NodeStatus>> {
    let leases = metadata.leases().await?;
    let held = |node| {
        let own = leases.iter().filter(move |lease| lease.holder == node && lease.left_us > 0);
        own.map(|lease| JobStatus { job: lease.job.clone(), token: lease.token, left_us: lease.left_us })
            .collect()
    };
    let nodes = metadata.nodes().await?;
    let described = nodes.into_iter().map(|node| NodeStatus {
        id: node.id.to_string(),
        live: node.is_live(),
        jobs: held(node.id),
        name: node.name,
        version: node.version,
        started_at_us: node.started_at_us,
        silent_us: node.silent_us,
        this: node.is_this,
    });
    Ok(described.collect())
}

/// Writes go on, without those that the database lost.
pub(super) async fn accept_loss(
    State(site): State<Arc<RunningSite>>,
    asked: Asked,
) -> Result<Json<AcceptedLoss>, Failed> {
    let reason = site.metadata.site().await?.halted;
    site.metadata.accept_loss().await?;
    asked.record(Change::LossAccept, "this site");
    let head = site.metadata.log_head().await?;
    Ok(Json(AcceptedLoss { reason, log_head_seq: head.position.seq }))
}

async fn size_with_log(file: &Path) -> u64 {
    let mut bytes = 0;
    for suffix in ["", "-wal", "-shm"] {
        let mut name = file.as_os_str().to_owned();
        name.push(suffix);
        bytes += tokio::fs::metadata(&name).await.map_or(0, |metadata| metadata.len());
    }
    bytes
}
