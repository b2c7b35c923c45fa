//! The blobs that this site stores, paged by digest, for jobs that look at all of them.

use twinport_oci::{Digest, RepositoryName};

use crate::{Error, Metadata, Result, db::Value};

/// A blob that this site's metadata says is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredBlob {
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

impl Metadata {
    /// The next blobs after `after`, in the order of their keys, at most `limit`.
    ///
    /// # Errors
    /// What the database says.
    pub async fn stored_blobs(&self, after: Option<&Digest>, limit: u32) -> Result<Vec<StoredBlob>> {
        let after = after.map(Digest::to_key).unwrap_or_default();
        let rows = self
            .db
            .scan(
                "SELECT digest, size FROM blobs WHERE digest > $1 ORDER BY digest LIMIT $2",
                vec![after.into(), limit.into()],
            )
            .await?;
        rows.iter().map(|row| Ok(StoredBlob { digest: row.digest(0)?, size: row.size(1)? })).collect()
    }

    /// Some of the repositories that link a blob: whom its loss concerns.
    ///
    /// # Errors
    /// What the database says.
    pub async fn repositories_linking(&self, digest: &Digest, limit: u32) -> Result<Vec<RepositoryName>> {
        let rows = self
            .db
            .scan(
                "SELECT r.path FROM blob_links l JOIN repositories r ON r.id = l.repository_id \
                 WHERE l.digest = $1 ORDER BY l.repository_id LIMIT $2",
                vec![digest.into(), limit.into()],
            )
            .await?;
        rows.iter()
            .map(|row| {
                row.text(0)?.parse().map_err(|error| Error::Corrupt(format!("repository path: {error}")))
            })
            .collect()
    }

    /// Notes that these blobs were hashed and found whole at `at_us`.
    ///
    /// # Errors
    /// What the database says.
    pub async fn record_whole(&self, digests: Vec<Digest>, at_us: i64) -> Result<()> {
        self.db
            .write(move |tx| {
                let sets: Vec<Vec<Value>> =
                    digests.iter().map(|digest| vec![at_us.into(), digest.into()]).collect();
                Box::pin(tx.send_each("UPDATE blobs SET verified_at_us = $1 WHERE digest = $2", sets))
            })
            .await
    }
}
