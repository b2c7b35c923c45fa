//! `role grant`, `revoke`, `list`.

use std::sync::Arc;

use axum::{
    Json,
    extract::{
        Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
};
use serde::Deserialize;
use twinport_access::{Binding, Subject};

use super::{
    answer::Failed,
    asked::Asked,
    types::{ChangedRole, Roles},
};
use crate::{audit::Change, site::RunningSite};

type Site = State<Arc<RunningSite>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfSubject {
    subject: Option<Subject>,
}

pub(super) async fn list(
    State(site): Site,
    query: Result<Query<OfSubject>, QueryRejection>,
) -> Result<Json<Roles>, Failed> {
    let Query(OfSubject { subject }) = query?;
    let mut roles = site.metadata.bindings().await?;
    roles.retain(|binding| subject.as_ref().is_none_or(|subject| *subject == binding.subject));
    Ok(Json(Roles { roles }))
}

pub(super) async fn grant(
    State(site): Site,
    asked: Asked,
    request: Result<Json<Binding>, JsonRejection>,
) -> Result<Json<ChangedRole>, Failed> {
    let Json(role) = request?;
    let changed = site.metadata.grant_role(&role, &asked.actor()).await?;
    if changed {
        asked.record(Change::RoleGrant, &role);
    }
    Ok(Json(ChangedRole { account_known: is_known(&site, &role.subject).await?, role, changed }))
}

pub(super) async fn revoke(
    State(site): Site,
    asked: Asked,
    query: Result<Query<Binding>, QueryRejection>,
) -> Result<Json<ChangedRole>, Failed> {
    let Query(role) = query?;
    if !site.metadata.revoke_role(&role, &asked.actor()).await? {
        return Err(Failed::not_found(format!(
            "{} is not {} on {}: `twinport role list` shows the roles that were given, to be named as they stand there",
            role.subject, role.role, role.repositories
        )));
    }
    asked.record(Change::RoleRevoke, &role);
    Ok(Json(ChangedRole { account_known: is_known(&site, &role.subject).await?, role, changed: true }))
}

/// Whether the account that a role is for is one of this registry's own.
async fn is_known(site: &RunningSite, subject: &Subject) -> Result<bool, Failed> {
    let (Subject::User(name) | Subject::Robot(name)) = subject else { return Ok(true) };
    Ok(site.metadata.account(name).await?.is_some())
}
