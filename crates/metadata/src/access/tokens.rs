//! Personal tokens of users and the secrets of robots, by their ids.
//! Guards: a token is made only for an account that is there and enabled.

use twinport_access::{AccessToken, AccountName};
use uuid::Uuid;

use super::{AccessRecord, RecordKind, RecordSecret, accounts, change::Write, find};
use crate::{Actor, Error, Metadata, Result};

/// A token, and what proves its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredToken {
    pub token: AccessToken,
    /// SHA-256 of the secret's random part; compare it in constant time.
    pub hash: RecordSecret,
}

impl Metadata {
    /// The token with this id, whether or not it has expired.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn access_token(&self, id: Uuid) -> Result<Option<StoredToken>> {
        self.access_record(RecordKind::Token, &id.to_string()).await?.map(stored).transpose()
    }

    /// The tokens of an account, by id; of all accounts where none is named.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn access_tokens(&self, account: Option<&AccountName>) -> Result<Vec<AccessToken>> {
        let tokens: Vec<AccessToken> = self.all_of(RecordKind::Token).await?;
        Ok(tokens.into_iter().filter(|token| account.is_none_or(|name| *name == token.account)).collect())
    }

    /// Makes a token; with `alone` it is the only one of its account from here on. How many it replaced.
    ///
    /// # Errors
    /// [`Error::Unknown`] for the account, [`Error::Refused`] where it is disabled; [`Error::NotPrimary`],
    /// [`Error::Halted`].
    pub async fn create_access_token(
        &self,
        token: AccessToken,
        hash: RecordSecret,
        alone: bool,
        actor: &Actor,
    ) -> Result<usize> {
        self.change_access(actor, move |tx, changing| {
            let (token, hash) = (token.clone(), hash.clone());
            Box::pin(async move {
                let owner = accounts::existing(tx, &token.account).await?.account;
                if owner.disabled {
                    return Err(Error::Refused(format!(
                        "the account {} is disabled: enable it first",
                        owner.name
                    )));
                }
                let mut writes = if alone { accounts::tokens_of(tx, &owner.name).await? } else { Vec::new() };
                let replaced = writes.len();
                writes.push(Write::put(RecordKind::Token, &token.id.to_string(), &token, Some(hash))?);
                changing.write(tx, writes).await?;
                Ok(replaced)
            })
        })
        .await
    }

    /// Ends a token; what it was, or `None` where there is none with that id.
    ///
    /// # Errors
    /// [`Error::NotPrimary`], [`Error::Halted`]; those of the database.
    pub async fn delete_access_token(&self, id: Uuid, actor: &Actor) -> Result<Option<AccessToken>> {
        self.change_access(actor, move |tx, changing| {
            Box::pin(async move {
                let name = id.to_string();
                let Some(record) = find(tx, RecordKind::Token, &name).await? else { return Ok(None) };
                let StoredToken { token, .. } = stored(record)?;
                changing.write(tx, vec![Write::delete(RecordKind::Token, &name)]).await?;
                Ok(Some(token))
            })
        })
        .await
    }
}

fn stored(record: AccessRecord) -> Result<StoredToken> {
    let token = record.read()?;
    let hash =
        record.secret.ok_or_else(|| Error::Corrupt(format!("the token {} has no hash", record.name)))?;
    Ok(StoredToken { token, hash })
}
