//! What a deletion leaves behind: a tombstone that tells other sites, and candidates for garbage collection.
//! Invariant: unlinking is not deleting; nothing here touches bytes or decides that they may go.

use twinport_oci::Digest;

use crate::{
    RepositoryUuid, Result,
    db::{Change, Tx, Value},
};

/// What kind of row was deleted; the text is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deleted {
    /// Key: the path at deletion.
    Repository,
    /// Key: the digest.
    BlobLink,
    /// Key: the digest.
    Manifest,
    /// Key: the tag's name; `digest` is what it named.
    Tag,
}

impl Deleted {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Repository => "repository",
            Self::BlobLink => "blob_link",
            Self::Manifest => "manifest",
            Self::Tag => "tag",
        }
    }
}

/// What garbage collection has to look at again; the text is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Candidate {
    /// A repository lost its link to this blob: is the blob linked anywhere?
    Blob,
    /// A manifest that named this blob went: does any other of the repository name it?
    Link,
    /// A tag or an index stopped naming this manifest: does anything else keep it?
    Manifest,
    /// A deleted repository whose rows are not all gone; `digest` is its row id, 8 bytes, big-endian.
    Repository,
}

impl Candidate {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Link => "link",
            Self::Manifest => "manifest",
            Self::Repository => "repository",
        }
    }
}

pub(crate) const BURY: &str = "INSERT INTO tombstones \
     (repository, kind, key, digest, deleted_at_us, change, position_epoch, position_seq) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
     ON CONFLICT (repository, kind, key) DO UPDATE SET digest = excluded.digest, \
     deleted_at_us = excluded.deleted_at_us, change = excluded.change, \
     position_epoch = excluded.position_epoch, position_seq = excluded.position_seq";

/// The parameters of [`BURY`]. A tombstone outlives a row that comes back under its key: the row's later change
/// says that it did.
pub(crate) fn tombstone(
    repository: RepositoryUuid,
    kind: Deleted,
    key: impl Into<Value>,
    digest: Option<&Digest>,
    at_us: i64,
    change: &Change,
) -> Vec<Value> {
    let mut params =
        vec![repository.into(), kind.as_str().into(), key.into(), digest.into(), Value::from(at_us)];
    params.extend(change.columns());
    params
}

/// Writes one tombstone.
pub(crate) async fn bury(
    tx: &mut Tx,
    repository: RepositoryUuid,
    kind: Deleted,
    key: impl Into<Value>,
    digest: Option<&Digest>,
    change: &Change,
) -> Result<()> {
    let params = tombstone(repository, kind, key, digest, tx.now_us(), change);
    tx.send(BURY, params).await
}

/// Queues one digest for garbage collection to look at.
pub(crate) async fn queue_candidate(
    tx: &mut Tx,
    kind: Candidate,
    repository: RepositoryUuid,
    digest: &Digest,
) -> Result<()> {
    tx.send(
        "INSERT INTO gc_candidates (kind, repository, digest, queued_at_us) VALUES ($1, $2, $3, $4)",
        vec![kind.as_str().into(), repository.into(), digest.into(), tx.now_us().into()],
    )
    .await
}
