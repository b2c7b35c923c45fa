//! A repository's rows with their positions, paged, for backfill and comparison.
//! Guards: a page says that it is the last only when nothing is left after it (hazard R3), and a row has no position
//! only while its event has no number, so that it lies past every head that was taken before.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use twinport_oci::Digest;

use crate::{
    Metadata, RepositoryUuid, Result,
    db::{Row, Tx, Value},
};

/// One page of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    pub rows: Vec<T>,
    /// Nothing is left after this page.
    pub complete: bool,
}

/// A repository of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedRepository {
    pub uuid: RepositoryUuid,
    pub path: String,
    /// None while in motion.
    pub position_seq: Option<i64>,
}

/// A row of a repository: blob links by digest, then manifests by digest, then tags by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListedRow {
    BlobLink {
        digest: Digest,
        /// Bytes; none where this site does not know the blob.
        size: Option<u64>,
        position_seq: Option<i64>,
    },
    Manifest {
        digest: Digest,
        size: u64,
        media_type: String,
        subject: Option<Digest>,
        position_seq: Option<i64>,
    },
    Tag {
        name: String,
        digest: Digest,
        position_seq: Option<i64>,
    },
}

/// Where a listing goes on: after this row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListingCursor {
    BlobLink(Vec<u8>),
    Manifest(Vec<u8>),
    Tag(String),
}

impl ListingCursor {
    /// The first page.
    #[must_use]
    pub fn start() -> Self {
        Self::BlobLink(Vec::new())
    }

    fn after(row: &ListedRow) -> Self {
        match row {
            ListedRow::BlobLink { digest, .. } => Self::BlobLink(digest.to_key()),
            ListedRow::Manifest { digest, .. } => Self::Manifest(digest.to_key()),
            ListedRow::Tag { name, .. } => Self::Tag(name.clone()),
        }
    }
}

impl fmt::Display for ListingCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BlobLink(key) => write!(f, "b.{}", hex::encode(key)),
            Self::Manifest(key) => write!(f, "m.{}", hex::encode(key)),
            Self::Tag(name) => write!(f, "t.{name}"),
        }
    }
}

impl FromStr for ListingCursor {
    /// It is no cursor of ours; nothing more can be said.
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once('.').ok_or(())? {
            ("b", key) => hex::decode(key).map(Self::BlobLink).map_err(|_| ()),
            ("m", key) => hex::decode(key).map(Self::Manifest).map_err(|_| ()),
            ("t", name) if !name.contains('\0') => Ok(Self::Tag(name.to_owned())),
            _ => Err(()),
        }
    }
}

/// A page of a repository's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowPage {
    pub rows: Vec<ListedRow>,
    /// Where the next page starts; none when the listing is complete.
    pub next: Option<ListingCursor>,
}

/// A manifest as another site fetches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestBytes {
    pub media_type: String,
    pub body: Bytes,
}

impl Metadata {
    /// Repositories by path, after `after`, at most `limit`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn repository_rows(&self, after: &str, limit: u32) -> Result<Page<ListedRepository>> {
        const REPOSITORIES: &str = "SELECT uuid, path, COALESCE(position_seq, (SELECT e.seq FROM events e WHERE e.event_id = change)) \
             FROM repositories WHERE path > $1 ORDER BY path LIMIT $2";
        let limit = limit.max(1);
        let rows = self.db.scan(REPOSITORIES, vec![after.into(), (i64::from(limit) + 1).into()]).await?;
        let complete = rows.len() <= limit as usize;
        let rows = rows
            .iter()
            .take(limit as usize)
            .map(|row| {
                let uuid = RepositoryUuid(row.uuid(0)?);
                Ok(ListedRepository { uuid, path: row.text(1)?, position_seq: row.opt_int(2)? })
            })
            .collect::<Result<_>>()?;
        Ok(Page { rows, complete })
    }

    /// Rows of a repository after `cursor`, at most `limit`; `None` where this site does not know the repository.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn repository_listing(
        &self,
        repository: RepositoryUuid,
        cursor: ListingCursor,
        limit: u32,
    ) -> Result<Option<RowPage>> {
        let limit = limit.max(1) as usize;
        self.db.snapshot(move |tx| Box::pin(list(tx, repository, cursor.clone(), limit))).await
    }

    /// A manifest's bytes, whatever the repository is called meanwhile.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn manifest_of(
        &self,
        repository: RepositoryUuid,
        digest: &Digest,
    ) -> Result<Option<ManifestBytes>> {
        const MANIFEST: &str = "SELECT m.media_type, m.body FROM repositories r \
             JOIN manifests m ON m.repository_id = r.id WHERE r.uuid = $1 AND m.digest = $2";
        let row = self.db.query_opt(MANIFEST, vec![repository.into(), digest.into()]).await?;
        row.map(|row| Ok(ManifestBytes { media_type: row.text(0)?, body: row.blob(1)? })).transpose()
    }
}

async fn list(
    tx: &mut Tx,
    repository: RepositoryUuid,
    cursor: ListingCursor,
    limit: usize,
) -> Result<Option<RowPage>> {
    const REPOSITORY: &str = "SELECT id FROM repositories WHERE uuid = $1";
    const BLOB_LINKS: &str = "SELECT l.digest, b.size, \
         COALESCE(l.position_seq, (SELECT e.seq FROM events e WHERE e.event_id = l.change)) FROM blob_links l \
         LEFT JOIN blobs b ON b.digest = l.digest \
         WHERE l.repository_id = $1 AND l.digest > $2 ORDER BY l.digest LIMIT $3";
    const MANIFESTS: &str = "SELECT digest, size, media_type, subject, \
         COALESCE(position_seq, (SELECT e.seq FROM events e WHERE e.event_id = change)) FROM manifests \
         WHERE repository_id = $1 AND digest > $2 ORDER BY digest LIMIT $3";
    const TAGS: &str = "SELECT name, digest, \
         COALESCE(position_seq, (SELECT e.seq FROM events e WHERE e.event_id = change)) FROM tags \
         WHERE repository_id = $1 AND name > $2 ORDER BY name LIMIT $3";

    let Some(row) = tx.query_opt(REPOSITORY, vec![repository.into()]).await? else {
        return Ok(None);
    };
    let id = row.int(0)?;
    // One row beyond the page tells whether anything is left.
    let wanted = limit + 1;
    let mut rows: Vec<ListedRow> = Vec::new();
    let mut cursor = Some(cursor);
    while let Some(at) = cursor.take().filter(|_| rows.len() < wanted) {
        let room = Value::Int((wanted - rows.len()) as i64);
        match at {
            ListingCursor::BlobLink(after) => {
                for row in tx.query(BLOB_LINKS, vec![id.into(), after.into(), room]).await? {
                    rows.push(blob_link(&row)?);
                }
                cursor = Some(ListingCursor::Manifest(Vec::new()));
            }
            ListingCursor::Manifest(after) => {
                for row in tx.query(MANIFESTS, vec![id.into(), after.into(), room]).await? {
                    rows.push(manifest(&row)?);
                }
                cursor = Some(ListingCursor::Tag(String::new()));
            }
            ListingCursor::Tag(after) => {
                for row in tx.query(TAGS, vec![id.into(), after.into(), room]).await? {
                    rows.push(tag(&row)?);
                }
            }
        }
    }
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(ListingCursor::after);
    Ok(Some(RowPage { rows, next }))
}

fn blob_link(row: &Row) -> Result<ListedRow> {
    let size = row.opt_int(1)?.and_then(|size| u64::try_from(size).ok());
    Ok(ListedRow::BlobLink { digest: row.digest(0)?, size, position_seq: row.opt_int(2)? })
}

fn manifest(row: &Row) -> Result<ListedRow> {
    Ok(ListedRow::Manifest {
        digest: row.digest(0)?,
        size: row.size(1)?,
        media_type: row.text(2)?,
        subject: row.opt_digest(3)?,
        position_seq: row.opt_int(4)?,
    })
}

fn tag(row: &Row) -> Result<ListedRow> {
    Ok(ListedRow::Tag { name: row.text(0)?, digest: row.digest(1)?, position_seq: row.opt_int(2)? })
}
