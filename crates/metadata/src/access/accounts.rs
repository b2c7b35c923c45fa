//! Accounts: users with passwords, robots without.
//! Guards: an account that is deleted or disabled leaves no token behind, here or at any site (hazard A14).

use twinport_access::{AccessToken, Account, AccountKind, AccountName, Binding, Subject};

use super::{
    AccessRecord, RecordKind, RecordSecret, all,
    change::{Changing, Write},
    find,
};
use crate::{Actor, Error, Metadata, Result, db::Tx, refresh_tokens};

/// An account, and what proves its password where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAccount {
    pub account: Account,
    /// An argon2 hash as a PHC string.
    pub password: Option<RecordSecret>,
}

/// An account to be made, with what belongs to it from the start.
#[derive(Clone, Debug)]
pub struct NewAccount {
    pub account: Account,
    pub password: Option<RecordSecret>,
    pub roles: Vec<Binding>,
    /// The first token of a robot.
    pub token: Option<(AccessToken, RecordSecret)>,
}

/// What ended with an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    pub tokens: usize,
    pub roles: usize,
}

const ANY: &str = "SELECT name FROM access_records WHERE kind = 'account' ORDER BY name LIMIT 1";

impl Metadata {
    /// One account.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn account(&self, name: &AccountName) -> Result<Option<StoredAccount>> {
        self.access_record(RecordKind::Account, name.as_str()).await?.map(stored).transpose()
    }

    /// Up to `limit` accounts after `after`, by name.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn accounts(&self, after: Option<&AccountName>, limit: u32) -> Result<Vec<Account>> {
        let page =
            self.access_records(RecordKind::Account, after.map(AccountName::as_str), limit).await?.rows;
        page.iter().map(AccessRecord::read).collect()
    }

    /// Whether there ever was an account: one that was deleted counts.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn had_accounts(&self) -> Result<bool> {
        Ok(self.db.query_opt(ANY, vec![]).await?.is_some())
    }

    /// Makes an account, with its roles.
    ///
    /// # Errors
    /// [`Error::Exists`] when the name is taken, by a user or a robot; [`Error::NotPrimary`], [`Error::Halted`].
    pub async fn create_account(&self, new: NewAccount, actor: &Actor) -> Result<()> {
        self.change_access(actor, move |tx, changing| {
            let new = new.clone();
            Box::pin(async move { create(tx, &changing, new).await })
        })
        .await
    }

    /// Makes the first account; `false` where there is or was one already.
    ///
    /// # Errors
    /// [`Error::NotPrimary`], [`Error::Halted`]; those of the database.
    pub async fn create_first_account(&self, new: NewAccount, actor: &Actor) -> Result<bool> {
        self.change_access(actor, move |tx, changing| {
            let new = new.clone();
            Box::pin(async move {
                if tx.query_opt(ANY, vec![]).await?.is_some() {
                    return Ok(false);
                }
                create(tx, &changing, new).await?;
                Ok(true)
            })
        })
        .await
    }

    /// Gives a user another password. Refresh tokens that were given for the old one end; personal tokens stay.
    ///
    /// # Errors
    /// [`Error::Unknown`]; [`Error::Refused`] for a robot, which has none; [`Error::NotPrimary`], [`Error::Halted`].
    pub async fn set_password(
        &self,
        name: &AccountName,
        password: RecordSecret,
        actor: &Actor,
    ) -> Result<()> {
        let name = name.clone();
        self.change_access(actor, move |tx, changing| {
            let (name, password) = (name.clone(), password.clone());
            Box::pin(async move {
                let StoredAccount { account, .. } = existing(tx, &name).await?;
                if account.kind == AccountKind::Robot {
                    return Err(Error::Refused(format!(
                        "{name} is a robot, and robots have no password: make another token for it"
                    )));
                }
                let write = Write::put(RecordKind::Account, name.as_str(), &account, Some(password))?;
                changing.write(tx, vec![write]).await?;
                refresh_tokens::revoke(tx, name.as_str()).await
            })
        })
        .await
    }

    /// Disables an account, which ends its tokens, or enables it again, which brings none back. `None`: it was that already.
    ///
    /// # Errors
    /// [`Error::Unknown`]; [`Error::NotPrimary`], [`Error::Halted`].
    pub async fn set_disabled(
        &self,
        name: &AccountName,
        disabled: bool,
        actor: &Actor,
    ) -> Result<Option<Ended>> {
        let name = name.clone();
        self.change_access(actor, move |tx, changing| {
            let name = name.clone();
            Box::pin(async move {
                let StoredAccount { account, password } = existing(tx, &name).await?;
                if account.disabled == disabled {
                    return Ok(None);
                }
                let tokens = if disabled { tokens_of(tx, &name).await? } else { Vec::new() };
                let ended = Ended { tokens: tokens.len(), roles: 0 };
                let account = Account { disabled, ..account };
                let mut writes = vec![Write::put(RecordKind::Account, name.as_str(), &account, password)?];
                writes.extend(tokens);
                changing.write(tx, writes).await?;
                refresh_tokens::revoke(tx, name.as_str()).await?;
                Ok(Some(ended))
            })
        })
        .await
    }

    /// Deletes an account with its tokens and its roles. `None`: there is none of that kind.
    ///
    /// # Errors
    /// [`Error::NotPrimary`], [`Error::Halted`]; those of the database.
    pub async fn delete_account(
        &self,
        name: &AccountName,
        kind: AccountKind,
        actor: &Actor,
    ) -> Result<Option<Ended>> {
        let name = name.clone();
        self.change_access(actor, move |tx, changing| {
            let name = name.clone();
            Box::pin(async move {
                let found = find(tx, RecordKind::Account, name.as_str()).await?.map(stored).transpose()?;
                if found.is_none_or(|found| found.account.kind != kind) {
                    return Ok(None);
                }
                let tokens = tokens_of(tx, &name).await?;
                let roles = roles_of(tx, &name).await?;
                let ended = Ended { tokens: tokens.len(), roles: roles.len() };
                let mut writes = vec![Write::delete(RecordKind::Account, name.as_str())];
                writes.extend(tokens);
                writes.extend(roles);
                changing.write(tx, writes).await?;
                refresh_tokens::revoke(tx, name.as_str()).await?;
                Ok(Some(ended))
            })
        })
        .await
    }
}

pub(super) fn stored(record: AccessRecord) -> Result<StoredAccount> {
    Ok(StoredAccount { account: record.read()?, password: record.secret })
}

/// The account that a change is about.
pub(super) async fn existing(tx: &mut Tx, name: &AccountName) -> Result<StoredAccount> {
    let record = find(tx, RecordKind::Account, name.as_str()).await?;
    let record = record.ok_or_else(|| Error::Unknown(format!("no account is called {name}")))?;
    stored(record)
}

async fn create(tx: &mut Tx, changing: &Changing, new: NewAccount) -> Result<()> {
    let name = new.account.name.as_str();
    if find(tx, RecordKind::Account, name).await?.is_some() {
        return Err(Error::Exists(format!(
            "an account called {name} exists already; users and robots share names"
        )));
    }
    let mut writes = vec![Write::put(RecordKind::Account, name, &new.account, new.password)?];
    for role in &new.roles {
        writes.push(Write::put(RecordKind::Binding, &role.to_string(), role, None)?);
    }
    if let Some((token, hash)) = new.token {
        writes.push(Write::put(RecordKind::Token, &token.id.to_string(), &token, Some(hash))?);
    }
    changing.write(tx, writes).await.map(drop)
}

/// Deletions of every token of an account.
pub(super) async fn tokens_of(tx: &mut Tx, account: &AccountName) -> Result<Vec<Write>> {
    let mut deletions = Vec::new();
    for record in all(tx, RecordKind::Token).await? {
        let token: AccessToken = record.read()?;
        if token.account == *account {
            deletions.push(Write::delete(RecordKind::Token, &record.name));
        }
    }
    Ok(deletions)
}

/// Deletions of every role of an account. Whoever takes its name later begins without any.
async fn roles_of(tx: &mut Tx, account: &AccountName) -> Result<Vec<Write>> {
    let mut deletions = Vec::new();
    for record in all(tx, RecordKind::Binding).await? {
        let binding: Binding = record.read()?;
        if matches!(&binding.subject, Subject::User(name) | Subject::Robot(name) if name == account) {
            deletions.push(Write::delete(RecordKind::Binding, &record.name));
        }
    }
    Ok(deletions)
}
