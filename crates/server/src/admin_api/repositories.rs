//! `repo list`, `tags`, `rename`, `delete`. Lists go by pages that end in a name to go on after.

use std::sync::Arc;

use axum::{
    Json,
    extract::{
        Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
};
use http::StatusCode;
use serde::Deserialize;
use twinport_oci::{Reference, RepositoryName};

use super::{
    answer::Failed,
    asked::Asked,
    sites::operator,
    types::{RenameRequest, Repositories, TagEntry, Tags},
};
use crate::audit::Change;
use crate::site::RunningSite;

type Site = State<Arc<RunningSite>>;

const PAGE: u32 = 500;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct After {
    after: Option<String>,
}

pub(super) async fn list(
    State(site): Site,
    query: Result<Query<After>, QueryRejection>,
) -> Result<Json<Repositories>, Failed> {
    let Query(query) = query?;
    let page = site.metadata.repositories(query.after.as_deref(), PAGE).await?;
    let repositories: Vec<String> = page.iter().map(ToString::to_string).collect();
    let next = (page.len() >= PAGE as usize).then(|| repositories.last().cloned()).flatten();
    Ok(Json(Repositories { repositories, next }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfRepository {
    repository: String,
    after: Option<String>,
}

pub(super) async fn tags(
    State(site): Site,
    query: Result<Query<OfRepository>, QueryRejection>,
) -> Result<Json<Tags>, Failed> {
    let Query(query) = query?;
    let repository = RepositoryName::parse(&query.repository)?;
    let Some(page) = site.metadata.tags(&repository, query.after.as_deref(), PAGE).await? else {
        return Err(unknown(&repository));
    };
    let next = (page.len() >= PAGE as usize).then(|| page.last().map(ToString::to_string)).flatten();
    let mut tags = Vec::with_capacity(page.len());
    for tag in page {
        let head = site.metadata.manifest_head(&repository, &Reference::Tag(tag.clone())).await?;
        tags.push(TagEntry {
            name: tag.to_string(),
            digest: head.as_ref().map(|head| head.digest.to_string()),
            media_type: head.map(|head| head.media_type),
        });
    }
    Ok(Json(Tags { tags, next }))
}

pub(super) async fn rename(
    State(site): Site,
    asked: Asked,
    request: Result<Json<RenameRequest>, JsonRejection>,
) -> Result<StatusCode, Failed> {
    let Json(request) = request?;
    let from = RepositoryName::parse(&request.from)?;
    let to = RepositoryName::parse(&request.to)?;
    if site.metadata.rename_repository(&from, &to, &operator()).await? {
        asked.record(Change::RepositoryRename, format_args!("{from} to {to}"));
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(unknown(&from))
}

pub(super) async fn remove(
    State(site): Site,
    asked: Asked,
    query: Result<Query<OfRepository>, QueryRejection>,
) -> Result<StatusCode, Failed> {
    let Query(query) = query?;
    let repository = RepositoryName::parse(&query.repository)?;
    if !site.config.storage.delete_enabled {
        return Err(Failed::refused("deleting is switched off here: set storage.delete.enabled to allow it"));
    }
    let guard = site.registry.rules().await?.tag_guard(&repository);
    if site.metadata.delete_repository(&repository, &guard, &operator()).await? {
        asked.record(Change::RepositoryDelete, &repository);
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(unknown(&repository))
}

fn unknown(repository: &RepositoryName) -> Failed {
    Failed::not_found(format!(
        "no repository is called {repository}: `twinport repo list` shows those that are here"
    ))
}
