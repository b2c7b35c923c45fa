//! `rule preview`, `run`, `trash`, `restore`: what rules do by themselves, looked at and put right.

use std::sync::Arc;

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
};
use serde::Deserialize;
use twinport_access::{Retention, Rules};
use twinport_metadata::{Restored, Role};
use twinport_oci::{RepositoryName, Tag};
use twinport_upkeep::{RetentionPlan, plan_retention, run_retention};

use super::{
    answer::Failed,
    asked::Asked,
    types::{LastRun, RestoreRequest, RestoredTag, RulePreview, RunRequest, Trash, TrashedTag},
};
use crate::{audit::Change, site::RunningSite};

type Site = State<Arc<RunningSite>>;

const PAGE: u32 = 500;

pub(super) async fn preview(
    State(site): Site,
    Path(name): Path<String>,
) -> Result<Json<RulePreview>, Failed> {
    let rules = fresh(&site).await?;
    if let Some(quota) = rules.quotas().iter().find(|quota| quota.name.as_str() == name) {
        let usage = site.metadata.quota_usage(quota).await?;
        return Ok(Json(RulePreview::Quota {
            rule: name,
            bytes: usage.bytes,
            repositories: usage.repositories,
            most_bytes: quota.most_bytes,
            most_repositories: quota.most_repositories,
            complete: usage.complete,
        }));
    }
    let rule = retention(&rules, &name)?;
    let plan = plan_retention(&site.metadata, &rules, rule).await?;
    let runs = site.metadata.retention_runs().await?;
    let last_run = runs.into_iter().find(|run| run.rule == name).map(|run| LastRun {
        ran_at_us: run.ran_at_us,
        considered: run.considered,
        planned: run.planned,
        taken: run.taken,
        outcome: run.outcome,
    });
    Ok(Json(RulePreview::Retention { plan, last_run }))
}

pub(super) async fn run(
    State(site): Site,
    asked: Asked,
    Path(name): Path<String>,
    request: Result<Json<RunRequest>, JsonRejection>,
) -> Result<Json<RetentionPlan>, Failed> {
    let Json(request) = request?;
    let rules = fresh(&site).await?;
    let rule = retention(&rules, &name)?;
    if site.metadata.site().await?.role != Role::Primary {
        return Err(Failed::refused("rules of retention run on the primary: ask it there"));
    }
    let plan = run_retention(&site.metadata, &rules, rule, site.retention_limits(), request.confirm).await?;
    if plan.taken > 0 {
        asked.record(Change::RuleRun, format_args!("{name}, {} tags", plan.taken));
    }
    Ok(Json(plan))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfRepository {
    repository: String,
    after: Option<String>,
}

pub(super) async fn trash(
    State(site): Site,
    query: Result<Query<OfRepository>, QueryRejection>,
) -> Result<Json<Trash>, Failed> {
    let Query(query) = query?;
    let repository = RepositoryName::parse(&query.repository)?;
    let after = query.after.as_deref().map(Tag::parse).transpose()?;
    let rows = site.metadata.trash(&repository, after.as_ref(), PAGE).await?;
    let full = rows.len() == PAGE as usize;
    let tags: Vec<_> = rows
        .into_iter()
        .filter_map(|row| {
            Some(TrashedTag {
                tag: row.tag?.to_string(),
                digest: row.digest.to_string(),
                rule: row.rule,
                taken_at_us: row.taken_at_us,
                due_at_us: row.due_at_us,
            })
        })
        .collect();
    let next = tags.last().filter(|_| full).map(|last| last.tag.clone());
    Ok(Json(Trash { tags, next }))
}

pub(super) async fn restore(
    State(site): Site,
    asked: Asked,
    request: Result<Json<RestoreRequest>, JsonRejection>,
) -> Result<Json<RestoredTag>, Failed> {
    let Json(request) = request?;
    let (repository, tag) = (RepositoryName::parse(&request.repository)?, Tag::parse(&request.tag)?);
    match site.metadata.restore_tag(&repository, &tag, &asked.actor()).await? {
        Restored::To(digest) => {
            asked.record(Change::TagRestore, format_args!("{repository}:{tag}"));
            Ok(Json(RestoredTag { digest: digest.to_string() }))
        }
        Restored::Taken(digest) => Err(Failed::refused(format!(
            "{repository}:{tag} is there and names {digest}: delete it first, or leave it"
        ))),
        Restored::Unknown => Err(Failed::not_found(format!(
            "the trash does not hold {repository}:{tag}: `twinport rule trash {repository}` shows what it holds"
        ))),
    }
}

/// The rules as they are now: whoever asks may have changed them a moment ago.
async fn fresh(site: &RunningSite) -> Result<Arc<Rules>, Failed> {
    site.registry.look_at_rules_again();
    Ok(site.registry.rules().await?)
}

fn retention<'r>(rules: &'r Rules, name: &str) -> Result<&'r Retention, Failed> {
    rules.retentions().iter().find(|rule| rule.name.as_str() == name).ok_or_else(|| {
        Failed::not_found(format!(
            "no rule of retention, nor a quota, is called {name}: `twinport rule list` shows all rules"
        ))
    })
}
