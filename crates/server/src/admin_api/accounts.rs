//! `user` and `robot`: accounts made, listed, disabled, deleted, and their passwords.
//! Guards: a password is of the operator's choice and long enough, or made here; no account has one that others know (hazard
//! A14).

use std::sync::Arc;

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
};
use serde::Deserialize;
use twinport_access::{Account, AccountKind, AccountName, Binding, Subject};
use twinport_metadata::{NewAccount, RecordSecret};

use super::{
    answer::Failed,
    asked::Asked,
    tokens::Made,
    types::{
        AccountDetail, Accounts, AddAccountRequest, AddedAccount, ChangeAccountRequest, EndedAccount,
        GivenRole, PasswordRequest, PasswordSet, Secret,
    },
};
use crate::{audit::Change, new_password, site::RunningSite};

type Site = State<Arc<RunningSite>>;

const PAGE: u32 = 500;
const MAX_DESCRIPTION: usize = 255;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listing {
    kind: Option<AccountKind>,
    after: Option<AccountName>,
}

pub(super) async fn list(
    State(site): Site,
    query: Result<Query<Listing>, QueryRejection>,
) -> Result<Json<Accounts>, Failed> {
    let Query(query) = query?;
    let page = site.metadata.accounts(query.after.as_ref(), PAGE).await?;
    let full = page.len() >= PAGE as usize;
    let next = page.last().filter(|_| full).map(|account| account.name.clone());
    let accounts =
        page.into_iter().filter(|account| query.kind.is_none_or(|kind| kind == account.kind)).collect();
    Ok(Json(Accounts { accounts, next }))
}

pub(super) async fn add(
    State(site): Site,
    asked: Asked,
    request: Result<Json<AddAccountRequest>, JsonRejection>,
) -> Result<Json<AddedAccount>, Failed> {
    let Json(request) = request?;
    if request.description.len() > MAX_DESCRIPTION || request.description.contains(char::is_control) {
        return Err(Failed::invalid(format!("a description is one line of at most {MAX_DESCRIPTION} bytes")));
    }
    let now_us = site.metadata.clock().now_us();
    let account = Account {
        name: request.name,
        kind: request.kind,
        disabled: false,
        description: request.description,
        created_at_us: now_us,
    };
    let roles = request.roles.into_iter().map(|given| binding(&account, given)).collect();
    let added = match account.kind {
        AccountKind::User => {
            let (hash, made) = chosen_or_made(request.password).await?;
            let new = NewAccount { account: account.clone(), password: Some(hash), roles, token: None };
            site.metadata.create_account(new, &asked.actor()).await?;
            AddedAccount { account, password: made, token: None }
        }
        AccountKind::Robot => {
            if request.password.is_some() {
                return Err(Failed::invalid(
                    "a robot has no password: it signs in with the token that is made for it",
                ));
            }
            let made = Made::of(account.name.clone(), String::new(), now_us, request.expires_seconds, None)?;
            let token = Some(made.stored());
            let new = NewAccount { account: account.clone(), password: None, roles, token };
            site.metadata.create_account(new, &asked.actor()).await?;
            AddedAccount { account, password: None, token: Some(made.shown(0)) }
        }
    };
    asked.record(Change::AccountAdd, described(&added.account));
    Ok(Json(added))
}

pub(super) async fn show(State(site): Site, Path(name): Path<String>) -> Result<Json<AccountDetail>, Failed> {
    let name = AccountName::parse(&name)?;
    let found = site.metadata.account(&name).await?.ok_or_else(|| unknown(&name))?;
    let subject = subject(&found.account);
    let bindings = site.metadata.bindings().await?;
    let roles = bindings
        .into_iter()
        .filter(|binding| binding.subject == subject)
        .map(|Binding { role, repositories, .. }| GivenRole { role, repositories })
        .collect();
    let tokens = site.metadata.access_tokens(Some(&name)).await?;
    Ok(Json(AccountDetail { account: found.account, roles, tokens }))
}

pub(super) async fn change(
    State(site): Site,
    asked: Asked,
    Path(name): Path<String>,
    request: Result<Json<ChangeAccountRequest>, JsonRejection>,
) -> Result<Json<EndedAccount>, Failed> {
    let name = AccountName::parse(&name)?;
    let Json(ChangeAccountRequest { disabled }) = request?;
    let changed = site.metadata.set_disabled(&name, disabled, &asked.actor()).await?;
    if changed.is_some() {
        let change = if disabled { Change::AccountDisable } else { Change::AccountEnable };
        asked.record(change, &name);
    }
    let ended = changed.unwrap_or_default();
    Ok(Json(EndedAccount { name, tokens: ended.tokens, roles: ended.roles }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfKind {
    kind: AccountKind,
}

pub(super) async fn remove(
    State(site): Site,
    asked: Asked,
    Path(name): Path<String>,
    query: Result<Query<OfKind>, QueryRejection>,
) -> Result<Json<EndedAccount>, Failed> {
    let name = AccountName::parse(&name)?;
    let Query(OfKind { kind }) = query?;
    let ended =
        site.metadata.delete_account(&name, kind, &asked.actor()).await?.ok_or_else(|| match kind {
            AccountKind::User => unknown(&name),
            AccountKind::Robot => Failed::not_found(format!(
                "no robot is called {name}: `twinport robot list` shows those that are"
            )),
        })?;
    asked.record(Change::AccountDelete, &name);
    Ok(Json(EndedAccount { name, tokens: ended.tokens, roles: ended.roles }))
}

pub(super) async fn set_password(
    State(site): Site,
    asked: Asked,
    Path(name): Path<String>,
    request: Result<Json<PasswordRequest>, JsonRejection>,
) -> Result<Json<PasswordSet>, Failed> {
    let name = AccountName::parse(&name)?;
    let Json(request) = request?;
    // Before the hash is made, which takes a while: whether this is the place to do it at all.
    site.metadata.account(&name).await?.ok_or_else(|| unknown(&name))?;
    let (hash, made) = chosen_or_made(request.password).await?;
    site.metadata.set_password(&name, hash, &asked.actor()).await?;
    asked.record(Change::PasswordReset, &name);
    Ok(Json(PasswordSet { name, password: made }))
}

/// The hash of the password that was chosen, or of one that is made and shown.
async fn chosen_or_made(chosen: Option<Secret>) -> Result<(RecordSecret, Option<Secret>), Failed> {
    match chosen {
        Some(Secret(text)) => Ok((new_password::hash(text).await?, None)),
        None => {
            let text = new_password::generate();
            Ok((new_password::hash(text.clone()).await?, Some(Secret(text))))
        }
    }
}

fn subject(account: &Account) -> Subject {
    match account.kind {
        AccountKind::User => Subject::User(account.name.clone()),
        AccountKind::Robot => Subject::Robot(account.name.clone()),
    }
}

fn binding(account: &Account, given: GivenRole) -> Binding {
    Binding { subject: subject(account), role: given.role, repositories: given.repositories }
}

/// `user alice`, as actors are written.
fn described(account: &Account) -> String {
    match account.kind {
        AccountKind::User => format!("user {}", account.name),
        AccountKind::Robot => format!("robot {}", account.name),
    }
}

pub(super) fn unknown(name: &AccountName) -> Failed {
    Failed::not_found(format!("no account is called {name}: `twinport user list` shows those that are"))
}
