//! `token`, and the secrets of robots: made, listed, ended.
//! Guards: a secret is shown once, by the answer that made it; what is stored proves it and is not it.

use std::sync::Arc;

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
};
use serde::Deserialize;
use twinport_access::{
    AccessToken, AccountName, Actions, RepositoryPattern, Secret as TokenSecret, TokenLimit,
};
use twinport_metadata::RecordSecret;
use uuid::Uuid;

use super::{
    accounts::unknown,
    answer::Failed,
    asked::Asked,
    types::{AddTokenRequest, NewToken, Secret, Tokens},
};
use crate::{audit::Change, site::RunningSite};

type Site = State<Arc<RunningSite>>;

const MAX_LABEL: usize = 128;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfAccount {
    account: Option<AccountName>,
}

pub(super) async fn list(
    State(site): Site,
    query: Result<Query<OfAccount>, QueryRejection>,
) -> Result<Json<Tokens>, Failed> {
    let Query(OfAccount { account }) = query?;
    if let Some(name) = &account
        && site.metadata.account(name).await?.is_none()
    {
        return Err(unknown(name));
    }
    Ok(Json(Tokens { tokens: site.metadata.access_tokens(account.as_ref()).await? }))
}

pub(super) async fn add(
    State(site): Site,
    asked: Asked,
    request: Result<Json<AddTokenRequest>, JsonRejection>,
) -> Result<Json<NewToken>, Failed> {
    let Json(request) = request?;
    if request.label.len() > MAX_LABEL || request.label.contains(char::is_control) {
        return Err(Failed::invalid(format!("a label is one line of at most {MAX_LABEL} bytes")));
    }
    let limit = (request.repositories.is_some() || request.actions.is_some()).then(|| TokenLimit {
        repositories: request.repositories.unwrap_or_else(RepositoryPattern::everything),
        actions: request.actions.unwrap_or(Actions::ALL),
    });
    let now_us = site.metadata.clock().now_us();
    let made = Made::of(request.account, request.label, now_us, request.expires_seconds, limit)?;
    let (token, hash) = made.stored();
    let replaced = site.metadata.create_access_token(token, hash, request.replace, &asked.actor()).await?;
    asked.record(Change::TokenAdd, described(&made.token));
    Ok(Json(made.shown(replaced)))
}

pub(super) async fn remove(
    State(site): Site,
    asked: Asked,
    Path(id): Path<String>,
) -> Result<Json<AccessToken>, Failed> {
    let none = || {
        Failed::not_found(format!("no token has the id {id:?}: `twinport token list` shows those that are"))
    };
    let id = Uuid::parse_str(&id).map_err(|_| none())?;
    let token = site.metadata.delete_access_token(id, &asked.actor()).await?.ok_or_else(none)?;
    asked.record(Change::TokenRevoke, described(&token));
    Ok(Json(token))
}

/// A fresh token, with its secret.
pub(super) struct Made {
    token: AccessToken,
    secret: TokenSecret,
}

impl Made {
    pub(super) fn of(
        account: AccountName,
        label: String,
        now_us: i64,
        expires_seconds: Option<u64>,
        limit: Option<TokenLimit>,
    ) -> Result<Self, Failed> {
        let id = Uuid::new_v4();
        let lifetime_us = expires_seconds
            .map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000));
        let expires_at_us = lifetime_us.map(|lifetime| now_us.saturating_add(lifetime));
        let token = AccessToken { id, account, label, created_at_us: now_us, expires_at_us, limit };
        Ok(Self { token, secret: TokenSecret::generate(id)? })
    }

    /// What is kept of it.
    pub(super) fn stored(&self) -> (AccessToken, RecordSecret) {
        (self.token.clone(), RecordSecret::new(self.secret.hash().to_vec()))
    }

    /// For the answer that shows it.
    pub(super) fn shown(self, replaced: usize) -> NewToken {
        NewToken { secret: Secret(self.secret.reveal()), token: self.token, replaced }
    }
}

/// `token ID of alice`, for the audit line.
fn described(token: &AccessToken) -> String {
    format!("token {} of {}", token.id, token.account)
}
