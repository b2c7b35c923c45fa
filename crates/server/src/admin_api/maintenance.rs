//! `maintenance on | off`: whether this site takes writes.

use std::sync::Arc;

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
};

use super::{answer::Failed, asked::Asked, types::Maintenance};
use crate::audit::Change;
use crate::site::RunningSite;

/// The longest reason in bytes: clients are shown it.
const MAX_REASON: usize = 200;

type Site = State<Arc<RunningSite>>;

pub(super) async fn show(State(site): Site) -> Result<Json<Maintenance>, Failed> {
    let reason = site.metadata.site().await?.maintenance;
    Ok(Json(Maintenance { on: reason.is_some(), reason }))
}

pub(super) async fn set(
    State(site): Site,
    asked: Asked,
    request: Result<Json<Maintenance>, JsonRejection>,
) -> Result<Json<Maintenance>, Failed> {
    let Json(request) = request?;
    let reason = request.reason.as_deref().map(str::trim).filter(|reason| !reason.is_empty());
    let sound = |reason: &&str| reason.len() <= MAX_REASON && !reason.contains(char::is_control);
    if reason.is_some_and(|reason| !sound(&reason)) {
        return Err(Failed::invalid(format!("the reason must be one line of at most {MAX_REASON} bytes")));
    }
    let reason = request.on.then(|| reason.unwrap_or("no reason was given").to_owned());
    site.metadata.set_maintenance(reason.as_deref()).await?;
    let change = if request.on { Change::MaintenanceOn } else { Change::MaintenanceOff };
    asked.record(change, reason.as_deref().unwrap_or("this site"));
    Ok(Json(Maintenance { on: reason.is_some(), reason }))
}
