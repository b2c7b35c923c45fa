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
    Error, Lease, LogPosition, Metadata, RepositoryUuid, Result,
    db::{Tx, Value},
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
    /// [`Error::BlobsUnknown`] when a link's blob has no row any more: fetch it again.
    pub async fn apply(
        &self,
        repository: RepositoryUuid,
        lease: Lease,
        chunk: ApplyChunk,
    ) -> Result<Applied> {
        let chunk = Arc::new(chunk);
        let committed = self
            .db
            .write(move |tx| {
                let chunk = Arc::clone(&chunk);
                Box::pin(async move { commit(tx, repository, lease, &chunk).await })
            })
            .await;
        match committed {
            // As an error, so that what was written before is rolled back.
            Err(Error::Refused(reason)) if reason == LEASE_LOST => Ok(Applied::LeaseLost),
            committed => committed,
        }
    }
}

const LEASE_LOST: &str = "the repository's lease went to another node";
/// Before the tracking row, as ingest takes them where it renames or deletes a repository.
const REPOSITORY: &str = "SELECT id FROM repositories WHERE uuid = $1 {for key share}";

async fn commit(tx: &mut Tx, uuid: RepositoryUuid, lease: Lease, chunk: &ApplyChunk) -> Result<Applied> {
    let Some(row) = tx.query_opt(REPOSITORY, vec![uuid.into()]).await? else { return Ok(Applied::Gone) };
    let id = row.int(0)?;
    rows::link(tx, id, uuid, &chunk.links).await?;
    rows::push(tx, id, uuid, &chunk.manifests).await?;
    rows::tag(tx, id, uuid, &chunk.tags).await?;
    for removal in &chunk.removals {
        rows::remove(tx, id, uuid, removal).await?;
    }
    items::record(tx, uuid, chunk).await?;
    settle(tx, uuid, lease, chunk).await
}

/// The fence, and where the repository stands: synced only when nothing of it is pending or failed (hazard R5). Last,
/// because ingest waits for this row while another transaction holds it.
async fn settle(tx: &mut Tx, uuid: RepositoryUuid, lease: Lease, chunk: &ApplyChunk) -> Result<Applied> {
    const SETTLE: &str = "UPDATE tracked_repositories SET \
         applied_seq = CASE WHEN applied_seq < $3 THEN $3 ELSE applied_seq END, \
         needs_listing = CASE WHEN $4 < 0 THEN needs_listing ELSE $4 END, \
         state = CASE WHEN dirty_seq > $3 AND dirty_seq > applied_seq OR $4 > 0 OR $4 < 0 AND needs_listing = 1 \
             THEN 'started' \
           WHEN EXISTS (SELECT 1 FROM tracked_items WHERE repository = $1 AND state = 'failed' AND state <> 'synced') \
             THEN 'failed' \
           WHEN EXISTS (SELECT 1 FROM tracked_items WHERE repository = $1 AND state <> 'synced') THEN 'pending' \
           ELSE 'synced' END, \
         next_attempt_us = CASE \
           WHEN dirty_seq > $3 AND dirty_seq > applied_seq OR $4 > 0 OR $4 < 0 AND needs_listing = 1 THEN 0 \
           ELSE COALESCE((SELECT MIN(next_attempt_us) FROM tracked_items \
             WHERE repository = $1 AND state <> 'synced'), 0) END, \
         last_error = $5, verification = 'pending', checked_at_us = $6, \
         lease_holder = CASE WHEN dirty_seq > $3 AND dirty_seq > applied_seq OR $4 > 0 OR $4 < 0 AND needs_listing = 1 \
           THEN lease_holder ELSE NULL END, lease_until_us = {now $8} + $7 \
         WHERE repository = $1 AND lease_holder = $2 RETURNING state";
    let listing: i64 = match chunk.listing {
        Listing::AsBefore => -1,
        Listing::Needed => 1,
        Listing::Finished => 0,
    };
    let error = chunk.unsettled.first().map(|item| item.error.clone());
    let now = tx.now_us();
    let params: Vec<Value> = vec![
        uuid.into(),
        lease.holder.into(),
        chunk.applied_through.unwrap_or(0).into(),
        listing.into(),
        error.into(),
        now.into(),
        lease.duration_us.into(),
        tx.lease_clock(),
    ];
    match tx.query_opt(SETTLE, params).await? {
        Some(row) => Ok(Applied::Done { more: row.text(0)? == "started" }),
        None => Err(Error::Refused(LEASE_LOST.to_owned())),
    }
}
