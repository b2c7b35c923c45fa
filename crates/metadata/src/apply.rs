//! The second stage of a secondary: what was fetched for one repository becomes visible, in one transaction.
//! Invariant: blobs before manifests, children before parents, tags last; an event at or below a row's position
//! changes nothing; only the holder of the repository's lease commits.

mod items;
mod rows;

use std::sync::Arc;

use bytes::Bytes;
use twinport_oci::{Digest, Tag};

pub use self::items::{ItemKind, Unsettled};
pub(crate) use self::rows::{BURY, replicated_tombstone};
use crate::{
    Lease, LogPosition, Metadata, RepositoryUuid, Result,
    db::{Row, Tx, Value},
};

/// A link to a blob whose bytes are stored and hashed.
#[derive(Clone, Debug)]
pub struct LinkRow {
    pub digest: Digest,
    pub position: LogPosition,
    /// When the origin linked it (µs since the epoch, UTC).
    pub at_us: i64,
}

/// A manifest whose bytes were hashed and whose closure is here.
#[derive(Clone, Debug)]
pub struct ManifestRow {
    pub digest: Digest,
    pub media_type: String,
    pub artifact_type: Option<String>,
    pub subject: Option<Digest>,
    /// A JSON object.
    pub annotations: String,
    /// Verbatim.
    pub body: Bytes,
    /// Config and layers, foreign ones left out.
    pub blobs: Vec<Digest>,
    /// An index's children, missing ones included.
    pub children: Vec<Digest>,
    pub position: LogPosition,
    pub at_us: i64,
    /// Every byte of its closure was hashed at this site.
    pub verified: bool,
}

/// A tag whose manifest is here.
#[derive(Clone, Debug)]
pub struct TagRow {
    pub tag: Tag,
    pub digest: Digest,
    pub position: LogPosition,
    pub at_us: i64,
    /// Every byte of its manifest's closure was hashed at this site.
    pub verified: bool,
}

/// Something that an event took away.
#[derive(Clone, Debug)]
pub struct Removal {
    pub what: Removed,
    pub position: LogPosition,
    pub at_us: i64,
}

/// What a [`Removal`] takes away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    BlobLink(Digest),
    Manifest(Digest),
    Tag(Tag),
}

/// What a chunk says about the repository's need of a listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listing {
    #[default]
    AsBefore,
    /// Something is missing that no event explains: compare with the primary.
    Needed,
    /// The primary's listing was gone through to its end.
    Finished,
}

/// A bounded step of one repository.
#[derive(Clone, Debug, Default)]
pub struct ApplyChunk {
    pub links: Vec<LinkRow>,
    /// Children before parents.
    pub manifests: Vec<ManifestRow>,
    pub tags: Vec<TagRow>,
    pub removals: Vec<Removal>,
    /// What could not be done, each with when to try again.
    pub unsettled: Vec<Unsettled>,
    /// Items that nothing is to be done about any more.
    pub settled: Vec<(ItemKind, String)>,
    /// Something that failed before succeeded: what waits for it is due at once.
    pub healed: bool,
    /// Every event of the repository up to here is dealt with.
    pub applied_through: Option<i64>,
    pub listing: Listing,
}

/// What became of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Committed; `more`: events or a listing are waiting, and the lease is kept for them.
    Done { more: bool },
    /// Another node has the repository; nothing was changed.
    LeaseLost,
    /// The repository was deleted meanwhile; nothing was changed.
    Gone,
}

impl Metadata {
    /// Makes a chunk visible, all of it or nothing.
    ///
    /// # Errors
    /// [`crate::Error::BlobsUnknown`] when a link's blob has no row any more: fetch it again.
    pub async fn apply(
        &self,
        repository: RepositoryUuid,
        lease: Lease,
        chunk: ApplyChunk,
    ) -> Result<Applied> {
        let chunk = Arc::new(chunk);
        self.db
            .write(move |tx| {
                let chunk = Arc::clone(&chunk);
                Box::pin(async move { commit(tx, repository, lease, &chunk).await })
            })
            .await
    }
}

/// A repository's tracking row, locked by this transaction.
struct Fenced {
    dirty_seq: i64,
    applied_seq: i64,
    needs_listing: bool,
}

/// Ingest takes this row first where it renames or deletes a repository, so that the repository's own row stays as
/// it is while this one is held.
const FENCE: &str = "UPDATE tracked_repositories SET lease_until_us = $3 WHERE repository = $1 AND lease_holder = $2 \
     RETURNING dirty_seq, applied_seq, needs_listing, (SELECT id FROM repositories WHERE uuid = $1)";

async fn commit(tx: &mut Tx, uuid: RepositoryUuid, lease: Lease, chunk: &ApplyChunk) -> Result<Applied> {
    let until = tx.now_us() + lease.duration_us;
    let fence = tx.query_opt(FENCE, vec![uuid.into(), lease.holder.into(), until.into()]).await?;
    let Some(fence) = fence else { return Ok(Applied::LeaseLost) };
    let fenced = Fenced::of(&fence)?;
    let Some(id) = fence.opt_int(3)? else { return Ok(Applied::Gone) };

    rows::link(tx, id, uuid, &chunk.links).await?;
    rows::push(tx, id, uuid, &chunk.manifests).await?;
    rows::tag(tx, id, uuid, &chunk.tags).await?;
    for removal in &chunk.removals {
        rows::remove(tx, id, uuid, removal).await?;
    }
    items::record(tx, uuid, chunk).await?;
    settle(tx, uuid, chunk, fenced).await
}

impl Fenced {
    fn of(row: &Row) -> Result<Self> {
        Ok(Self { dirty_seq: row.int(0)?, applied_seq: row.int(1)?, needs_listing: row.int(2)? != 0 })
    }
}

/// Writes where the repository stands: synced only when nothing of it is pending or failed (hazard R5).
async fn settle(tx: &mut Tx, uuid: RepositoryUuid, chunk: &ApplyChunk, fenced: Fenced) -> Result<Applied> {
    const STAND: &str = "UPDATE tracked_repositories SET applied_seq = $2, needs_listing = $3, \
         state = CASE WHEN $4 = 1 THEN 'started' \
           WHEN EXISTS (SELECT 1 FROM tracked_items WHERE repository = $1 AND state = 'failed' AND state <> 'synced') \
             THEN 'failed' \
           WHEN EXISTS (SELECT 1 FROM tracked_items WHERE repository = $1 AND state <> 'synced') THEN 'pending' \
           ELSE 'synced' END, \
         next_attempt_us = CASE WHEN $4 = 1 THEN 0 ELSE COALESCE((SELECT MIN(next_attempt_us) FROM tracked_items \
           WHERE repository = $1 AND state <> 'synced'), 0) END, \
         last_error = $5, verification = 'pending', checked_at_us = $6, \
         lease_holder = CASE WHEN $4 = 1 THEN lease_holder ELSE NULL END, \
         lease_until_us = CASE WHEN $4 = 1 THEN lease_until_us ELSE 0 END WHERE repository = $1";
    let applied = fenced.applied_seq.max(chunk.applied_through.unwrap_or(0));
    let needs_listing = match chunk.listing {
        Listing::AsBefore => fenced.needs_listing,
        Listing::Needed => true,
        Listing::Finished => false,
    };
    let more = applied < fenced.dirty_seq || needs_listing;
    let error = chunk.unsettled.first().map(|item| item.error.clone());
    tx.execute(
        STAND,
        vec![
            uuid.into(),
            applied.into(),
            needs_listing.into(),
            Value::from(more),
            error.into(),
            tx.now_us().into(),
        ],
    )
    .await?;
    Ok(Applied::Done { more })
}
