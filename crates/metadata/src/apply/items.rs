//! The tracking record of every tag and manifest, and of every link that could not be made.
//! Invariant: a record says synced or verified only in the transaction that made it so.

use twinport_oci::Digest;

use super::{ApplyChunk, Removed};
use crate::{
    Error, RepositoryUuid, Result,
    db::{Tx, Value},
};

/// What a tracking record is about; sorts as things depend on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ItemKind {
    BlobLink,
    Manifest,
    Tag,
}

impl ItemKind {
    /// `blob_link`, `manifest` or `tag`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlobLink => "blob_link",
            Self::Manifest => "manifest",
            Self::Tag => "tag",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        match text {
            "blob_link" => Ok(Self::BlobLink),
            "manifest" => Ok(Self::Manifest),
            "tag" => Ok(Self::Tag),
            other => Err(Error::Corrupt(format!("a tracked item of the kind {other}"))),
        }
    }
}

/// An item that is still to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsettled {
    pub kind: ItemKind,
    /// The digest, or the tag's name.
    pub key: String,
    pub digest: Digest,
    /// The position that it is to reach.
    pub position_seq: i64,
    /// How often it was tried.
    pub attempts: i64,
    /// When to try again (µs since the epoch, UTC).
    pub next_attempt_us: i64,
    pub error: String,
    /// False while it may be only a matter of an event that is on its way.
    pub failed: bool,
}

const SYNCED: &str = "INSERT INTO tracked_items (repository, kind, key, digest, position_seq, state, verification, \
     attempts, next_attempt_us, last_error, synced_at_us, verified_at_us) \
     SELECT $1, $2, $3, $4, $5, 'synced', $6, 0, 0, NULL, $7, $8 WHERE NOT EXISTS (SELECT 1 FROM tombstones \
       WHERE repository = $1 AND kind = $2 AND key = $9 AND position_seq >= $5) \
     ON CONFLICT (repository, kind, key) DO UPDATE SET digest = excluded.digest, \
     position_seq = excluded.position_seq, state = 'synced', verification = excluded.verification, attempts = 0, \
     next_attempt_us = 0, last_error = NULL, synced_at_us = excluded.synced_at_us, \
     verified_at_us = excluded.verified_at_us WHERE tracked_items.position_seq <= excluded.position_seq";
const UNSETTLED: &str = "INSERT INTO tracked_items (repository, kind, key, digest, position_seq, state, verification, \
     attempts, next_attempt_us, last_error) \
     SELECT $1, $2, $3, $4, $5, $6, 'pending', $7, $8, $9 WHERE NOT EXISTS (SELECT 1 FROM tombstones \
       WHERE repository = $1 AND kind = $2 AND key = $10 AND position_seq >= $5) \
     ON CONFLICT (repository, kind, key) DO UPDATE SET digest = excluded.digest, \
     position_seq = excluded.position_seq, state = excluded.state, verification = 'pending', \
     attempts = excluded.attempts, next_attempt_us = excluded.next_attempt_us, last_error = excluded.last_error \
     WHERE tracked_items.position_seq <= excluded.position_seq";
const FORGET: &str =
    "DELETE FROM tracked_items WHERE repository = $1 AND kind = $2 AND key = $3 AND position_seq <= $4";
const DUE_AT_ONCE: &str =
    "UPDATE tracked_items SET next_attempt_us = 0 WHERE repository = $1 AND state <> 'synced'";

/// Writes what the chunk says about each item.
pub(super) async fn record(tx: &mut Tx, uuid: RepositoryUuid, chunk: &ApplyChunk) -> Result<()> {
    if chunk.healed {
        tx.send(DUE_AT_ONCE, vec![uuid.into()]).await?;
    }
    let now = tx.now_us();
    let synced =
        |kind: ItemKind, key: String, tomb: Value, digest: &Digest, seq: i64, verified: bool| -> Vec<Value> {
            vec![
                uuid.into(),
                kind.as_str().into(),
                key.into(),
                digest.into(),
                seq.into(),
                if verified { "succeeded" } else { "pending" }.into(),
                now.into(),
                verified.then_some(now).into(),
                tomb,
            ]
        };
    let manifests = chunk.manifests.iter().map(|row| {
        let key = row.digest.to_string();
        synced(ItemKind::Manifest, key, row.digest.into(), &row.digest, row.position.seq, row.verified)
    });
    let tags = chunk.tags.iter().map(|row| {
        let tomb = row.tag.as_str().as_bytes().into();
        synced(ItemKind::Tag, row.tag.to_string(), tomb, &row.digest, row.position.seq, row.verified)
    });
    tx.send_each(SYNCED, manifests.chain(tags).collect()).await?;

    let removed = chunk.removals.iter().map(|removal| {
        let (kind, key) = match &removal.what {
            Removed::BlobLink(digest) => (ItemKind::BlobLink, digest.to_string()),
            Removed::Manifest(digest) => (ItemKind::Manifest, digest.to_string()),
            Removed::Tag(tag) => (ItemKind::Tag, tag.to_string()),
        };
        (kind, key, removal.position.seq)
    });
    let settled = chunk.settled.iter().map(|(kind, key)| (*kind, key.clone(), i64::MAX));
    let forget = removed
        .chain(settled)
        .map(|(kind, key, seq)| vec![uuid.into(), kind.as_str().into(), key.into(), seq.into()])
        .collect();
    tx.send_each(FORGET, forget).await?;
    tx.send_each(UNSETTLED, chunk.unsettled.iter().map(|item| unsettled(uuid, item)).collect()).await
}

fn unsettled(uuid: RepositoryUuid, item: &Unsettled) -> Vec<Value> {
    let tomb = match item.kind {
        ItemKind::Tag => Value::from(item.key.as_bytes()),
        ItemKind::BlobLink | ItemKind::Manifest => item.digest.into(),
    };
    vec![
        uuid.into(),
        item.kind.as_str().into(),
        item.key.as_str().into(),
        item.digest.into(),
        item.position_seq.into(),
        if item.failed { "failed" } else { "pending" }.into(),
        item.attempts.into(),
        item.next_attempt_us.into(),
        item.error.as_str().into(),
        tomb,
    ]
}
