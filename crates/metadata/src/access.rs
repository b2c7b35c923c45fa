//! Access records: accounts, tokens, roles, rules and signing keys, kept as texts that their types read.
//! Invariant: a record changes only together with its event, which names it and says nothing of what it holds.

mod accounts;
mod change;
mod keys;
mod replicated;
mod roles;
mod rules;
mod tokens;

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use self::{
    accounts::{Ended, NewAccount, StoredAccount},
    replicated::{ListedRecord, PendingAccess, PendingRecord, RecordCursor, ReplicatedRecord},
    tokens::StoredToken,
};
pub(crate) use self::{
    keys::retire_keys_of,
    replicated::{backfill_from, note_pending},
};
use crate::{
    Error, Metadata, Page, Result,
    db::{Row, Tx},
};

/// The actor of what a site makes at its first start by itself: the first account, its own signing key. A site that holds
/// nothing else may still join another.
pub const BOOTSTRAP_ACTOR: &str = "bootstrap";

/// The longest name of a record in bytes; an index holds it whole.
const MAX_NAME_BYTES: usize = 1_024;

/// What kind of record it is; the text is stored, and shipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordKind {
    Account,
    Token,
    Binding,
    Rule,
    SigningKey,
}

impl RecordKind {
    /// As it is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Token => "token",
            Self::Binding => "binding",
            Self::Rule => "rule",
            Self::SigningKey => "signing_key",
        }
    }
}

/// Which record: its kind as stored, since a newer site may have kinds that this one does not know, and its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecordName {
    pub kind: String,
    pub name: String,
}

impl RecordName {
    fn new(kind: RecordKind, name: &str) -> Self {
        Self { kind: kind.as_str().to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// What proves a secret without holding it: the hash of a password or of a token. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct RecordSecret(Bytes);

impl RecordSecret {
    /// Keeps a hash.
    pub fn new(hash: impl Into<Bytes>) -> Self {
        Self(hash.into())
    }

    /// The hash, for comparing.
    #[must_use]
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for RecordSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// A record that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRecord {
    pub kind: RecordKind,
    pub name: String,
    /// JSON, as the type of its kind writes it.
    pub body: String,
    pub secret: Option<RecordSecret>,
    /// µs since the epoch, UTC, by the clock of the site that changed it.
    pub changed_at_us: i64,
}

impl AccessRecord {
    /// The body as the type of its kind.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.body).map_err(|error| {
            Error::Corrupt(format!("the {} record {}: {error}", self.kind.as_str(), self.name))
        })
    }
}

const FIND: &str = "SELECT name, body, secret, changed_at_us FROM access_records \
     WHERE kind = $1 AND name = $2 AND body IS NOT NULL";
const PAGE: &str = "SELECT name, body, secret, changed_at_us FROM access_records \
     WHERE kind = $1 AND name > $2 AND body IS NOT NULL ORDER BY name LIMIT $3";
const ALL: &str = "SELECT name, body, secret, changed_at_us FROM access_records \
     WHERE kind = $1 AND body IS NOT NULL ORDER BY name";
const GENERATION: &str = "SELECT value FROM access_generation WHERE id = 1";

impl Metadata {
    /// Rises with every change of an access record, made here or replicated. Whoever keeps a copy of records reads this
    /// before them, and again to know whether the copy still holds.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn access_generation(&self) -> Result<i64> {
        let row = self.db.query_opt(GENERATION, vec![]).await?;
        row.ok_or_else(no_generation)?.int(0)
    }

    /// One record; `None` where there is none, or no longer.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn access_record(&self, kind: RecordKind, name: &str) -> Result<Option<AccessRecord>> {
        let row = self.db.query_opt(FIND, vec![kind.as_str().into(), name.into()]).await?;
        row.map(|row| record(kind, &row)).transpose()
    }

    /// Up to `limit` records of a kind after `after`, by name as bytes.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn access_records(
        &self,
        kind: RecordKind,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<AccessRecord>> {
        let limit = limit.max(1);
        let params =
            vec![kind.as_str().into(), after.unwrap_or_default().into(), (i64::from(limit) + 1).into()];
        let rows = self.db.scan(PAGE, params).await?;
        let complete = rows.len() <= limit as usize;
        let rows = rows.iter().take(limit as usize).map(|row| record(kind, row)).collect::<Result<_>>()?;
        Ok(Page { rows, complete })
    }

    /// Every record of a kind, read as its type: for kinds that decisions keep in memory.
    async fn all_of<T: DeserializeOwned>(&self, kind: RecordKind) -> Result<Vec<T>> {
        let rows = self.db.scan(ALL, vec![kind.as_str().into()]).await?;
        rows.iter().map(|row| record(kind, row)?.read()).collect()
    }
}

fn record(kind: RecordKind, row: &Row) -> Result<AccessRecord> {
    Ok(AccessRecord {
        kind,
        name: row.text(0)?,
        body: row.text(1)?,
        secret: row.opt_blob(2)?.map(RecordSecret),
        changed_at_us: row.int(3)?,
    })
}

fn no_generation() -> Error {
    Error::Corrupt("the access records have no generation".to_owned())
}

/// One record as a transaction sees it.
async fn find(tx: &mut Tx, kind: RecordKind, name: &str) -> Result<Option<AccessRecord>> {
    let row = tx.query_opt(FIND, vec![kind.as_str().into(), name.into()]).await?;
    row.map(|row| record(kind, &row)).transpose()
}

/// Every record of a kind as a transaction sees them.
async fn all(tx: &mut Tx, kind: RecordKind) -> Result<Vec<AccessRecord>> {
    let rows = tx.query(ALL, vec![kind.as_str().into()]).await?;
    rows.iter().map(|row| record(kind, row)).collect()
}
