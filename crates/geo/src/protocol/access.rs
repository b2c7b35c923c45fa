//! Access records on their way: what stands for a secret travels with them, to sites alone.
//! Guards: no hash is shown by anything that logs one of these.

use std::fmt;

use serde::{Deserialize, Serialize};
use twinport_metadata::{ListedRecord, RecordName, RecordSecret};

use super::encoding::opt_b64;

/// The most records that are asked for by name at once.
pub const MAX_NAMED_RECORDS: usize = 100;

/// `POST /geo/v1/access`: records by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessQuery {
    pub records: Vec<RecordName>,
}

/// The answer to it, and to `GET /geo/v1/access?after=CURSOR&limit=N`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessPage {
    pub records: Vec<AccessEntry>,
    /// Where the next page starts; opaque. None exactly when `complete`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// True only on the page that ends the listing; an absent field is no page at all.
    pub complete: bool,
}

/// One record, or what is left of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessEntry {
    pub kind: String,
    pub name: String,
    /// JSON as text, so that it is stored as it was written. None where the record is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The hash of a password or a token.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "opt_b64")]
    pub secret: Option<Vec<u8>>,
    pub changed_at_us: i64,
    /// The position of the record; none while in motion (its event comes later).
    pub position_seq: Option<i64>,
}

impl AccessEntry {
    /// Which record it is.
    #[must_use]
    pub fn record(&self) -> RecordName {
        RecordName { kind: self.kind.clone(), name: self.name.clone() }
    }

    pub(crate) fn secret(&self) -> Option<RecordSecret> {
        self.secret.clone().map(RecordSecret::new)
    }
}

impl fmt::Debug for AccessEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessEntry")
            .field("kind", &self.kind)
            .field("name", &self.name)
            .field("position_seq", &self.position_seq)
            .finish_non_exhaustive()
    }
}

impl From<ListedRecord> for AccessEntry {
    fn from(listed: ListedRecord) -> Self {
        Self {
            kind: listed.record.kind,
            name: listed.record.name,
            body: listed.body,
            secret: listed.secret.map(|secret| secret.reveal().to_vec()),
            changed_at_us: listed.changed_at_us,
            position_seq: listed.position_seq,
        }
    }
}
