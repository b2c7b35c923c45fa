//! `twinport user …`, and what `twinport robot …` shares with it.

use std::{io::BufRead as _, path::Path};

use anyhow::{Context as _, bail};
use twinport_server::admin::{
    Account, AccountDetail, AccountKind, Accounts, AddAccountRequest, AddedAccount, ChangeAccountRequest,
    EndedAccount, PasswordRequest, PasswordSet, Secret,
};

use super::token::token_rows;
use crate::{
    admin_client::AdminClient,
    arguments::{AddUserArguments, Format, PasswordSource, ResetPasswordArguments, Target, UserArguments},
    output::{columns, complain, facts, show as show_result},
    time::moment,
};

pub(super) async fn add(arguments: AddUserArguments) -> anyhow::Result<()> {
    let request = AddAccountRequest {
        name: arguments.name,
        kind: AccountKind::User,
        description: arguments.description,
        password: password(&arguments.password)?,
        roles: arguments.roles,
        expires_seconds: None,
    };
    let target = &arguments.target;
    let client = AdminClient::choose(&target.site)?;
    let added: AddedAccount = client.post("/api/v1/accounts", &request).await?;
    if added.password.is_some() && target.output == Format::Table {
        complain(&format!("The password of {}, shown this once:", added.account.name));
    }
    show_result(target.output, &added, |added| match &added.password {
        // Alone on standard output, so that it can be piped to where it belongs.
        Some(Secret(password)) => password.clone(),
        None => format!("{} may sign in.", added.account.name),
    })?;
    if request.roles.is_empty() && target.output == Format::Table {
        complain(&format!(
            "It may do nothing yet: `twinport role grant user:{} writer REPOSITORIES` changes that.",
            added.account.name
        ));
    }
    Ok(())
}

pub(super) async fn list(target: &Target) -> anyhow::Result<()> {
    list_kind(target, AccountKind::User, "No accounts yet: `twinport user add NAME` makes one.").await
}

pub(super) async fn list_kind(target: &Target, kind: AccountKind, none: &str) -> anyhow::Result<()> {
    let client = AdminClient::choose(&target.site)?;
    let word = match kind {
        AccountKind::User => "user",
        AccountKind::Robot => "robot",
    };
    let mut accounts: Vec<Account> = Vec::new();
    let mut after = String::new();
    loop {
        let page: Accounts = client.get(&format!("/api/v1/accounts?kind={word}{after}")).await?;
        accounts.extend(page.accounts);
        let Some(next) = page.next else { break };
        after = format!("&after={next}");
    }
    show_result(target.output, &accounts, |accounts| {
        if accounts.is_empty() {
            return none.to_owned();
        }
        let rows = accounts.iter().map(|account| {
            let made = moment(account.created_at_us);
            [account.name.to_string(), state(account).to_owned(), made, account.description.clone()]
        });
        columns(["NAME", "STATE", "MADE", "DESCRIPTION"], rows)
    })
}

fn state(account: &Account) -> &'static str {
    if account.disabled { "disabled" } else { "enabled" }
}

pub(super) async fn show(arguments: &UserArguments) -> anyhow::Result<()> {
    let client = AdminClient::choose(&arguments.target.site)?;
    let detail: AccountDetail = client.get(&format!("/api/v1/accounts/{}", arguments.name)).await?;
    show_result(arguments.target.output, &detail, |detail| {
        let account = &detail.account;
        let mut rows = vec![
            ("name", account.name.to_string()),
            ("state", state(account).to_owned()),
            ("made", moment(account.created_at_us)),
        ];
        if !account.description.is_empty() {
            rows.push(("description", account.description.clone()));
        }
        let roles: Vec<String> =
            detail.roles.iter().map(|role| format!("{} on {}", role.role, role.repositories)).collect();
        rows.push(("roles", if roles.is_empty() { "none".to_owned() } else { roles.join(", ") }));
        rows.push(("tokens", detail.tokens.len().to_string()));
        let tokens = if detail.tokens.is_empty() { String::new() } else { token_rows(&detail.tokens) };
        format!("{}\n\n{tokens}", facts(rows))
    })
}

pub(super) async fn disable(arguments: &UserArguments) -> anyhow::Result<()> {
    set_disabled(arguments, true).await
}

pub(super) async fn enable(arguments: &UserArguments) -> anyhow::Result<()> {
    set_disabled(arguments, false).await
}

async fn set_disabled(arguments: &UserArguments, disabled: bool) -> anyhow::Result<()> {
    let client = AdminClient::choose(&arguments.target.site)?;
    let path = format!("/api/v1/accounts/{}", arguments.name);
    let ended: EndedAccount = client.patch(&path, &ChangeAccountRequest { disabled }).await?;
    show_result(arguments.target.output, &ended, |ended| {
        if disabled {
            format!("{} is disabled; {} ended with it.", ended.name, counted(ended.tokens, "token"))
        } else {
            format!("{} may sign in.", ended.name)
        }
    })
}

pub(super) async fn delete(arguments: &UserArguments, kind: AccountKind) -> anyhow::Result<()> {
    let client = AdminClient::choose(&arguments.target.site)?;
    let word = match kind {
        AccountKind::User => "user",
        AccountKind::Robot => "robot",
    };
    let ended: EndedAccount =
        client.delete(&format!("/api/v1/accounts/{}?kind={word}", arguments.name)).await?;
    show_result(arguments.target.output, &ended, |ended| {
        let (tokens, roles) = (counted(ended.tokens, "token"), counted(ended.roles, "role"));
        format!("{} is deleted; {tokens} and {roles} ended with it.", ended.name)
    })
}

pub(super) fn counted(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

pub(super) async fn reset_password(arguments: &ResetPasswordArguments) -> anyhow::Result<()> {
    let request = PasswordRequest { password: password(&arguments.password)? };
    let client = AdminClient::choose(&arguments.target.site)?;
    let path = format!("/api/v1/accounts/{}/password", arguments.name);
    let set: PasswordSet = client.put(&path, &request).await?;
    if set.password.is_some() && arguments.target.output == Format::Table {
        complain(&format!("The password of {}, shown this once:", set.name));
    }
    show_result(arguments.target.output, &set, |set| match &set.password {
        Some(Secret(password)) => password.clone(),
        None => format!("{} has another password.", set.name),
    })
}

/// The password that was chosen; none where one is to be made.
fn password(source: &PasswordSource) -> anyhow::Result<Option<Secret>> {
    if let Some(file) = &source.password_file {
        return first_line(&std::fs::read_to_string(file).with_context(|| unreadable(file))?)
            .with_context(|| format!("{} does not begin with a password", file.display()))
            .map(Some);
    }
    if !source.password_stdin {
        return Ok(None);
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("cannot read the password from standard input")?;
    first_line(&line).context("standard input does not begin with a password").map(Some)
}

fn unreadable(file: &Path) -> String {
    format!("cannot read the password from {}", file.display())
}

fn first_line(text: &str) -> anyhow::Result<Secret> {
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Secret(line.to_owned())),
        _ => bail!("its first line is empty"),
    }
}
