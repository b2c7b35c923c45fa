//! `rule add`, `list`, `delete`.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State, rejection::JsonRejection},
};
use http::StatusCode;
use twinport_access::{Rule, RuleName};

use super::{answer::Failed, asked::Asked, types::RuleList};
use crate::{audit::Change, site::RunningSite};

type Site = State<Arc<RunningSite>>;

pub(super) async fn list(State(site): Site) -> Result<Json<RuleList>, Failed> {
    Ok(Json(RuleList { rules: site.metadata.rules().await? }))
}

pub(super) async fn add(
    State(site): Site,
    asked: Asked,
    request: Result<Json<Rule>, JsonRejection>,
) -> Result<Json<Rule>, Failed> {
    let Json(rule) = request?;
    site.metadata.create_rule(&rule, &asked.actor()).await?;
    asked.record(Change::RuleAdd, &rule.name);
    Ok(Json(rule))
}

pub(super) async fn remove(
    State(site): Site,
    asked: Asked,
    Path(name): Path<String>,
) -> Result<StatusCode, Failed> {
    let name = RuleName::parse(&name)?;
    if !site.metadata.delete_rule(&name, &asked.actor()).await? {
        return Err(Failed::not_found(format!(
            "no rule is called {name}: `twinport rule list` shows those that are"
        )));
    }
    asked.record(Change::RuleDelete, &name);
    Ok(StatusCode::NO_CONTENT)
}
