//! What of a manifest's closure is here: blobs, links, and other manifests of the repository.

use std::collections::{HashMap, HashSet};

use futures_util::future::try_join_all;
use twinport_oci::Digest;

use crate::{Metadata, RepositoryUuid, Result, db::Value};

/// A blob that this site stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkedBlob {
    /// Whether the repository links it.
    pub linked: bool,
    /// Every byte of it was hashed at this site.
    pub verified: bool,
}

/// A manifest of the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldManifest {
    /// Every byte of its closure was hashed at this site.
    pub verified: bool,
}

impl Metadata {
    /// Those of `digests` that this site stores as blobs, and whether the repository links them.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn linked_blobs(
        &self,
        repository: RepositoryUuid,
        digests: &[Digest],
    ) -> Result<HashMap<Digest, LinkedBlob>> {
        const BLOBS: &str = "SELECT b.digest, b.verified_at_us, l.digest FROM blobs b \
             LEFT JOIN blob_links l ON l.digest = b.digest \
               AND l.repository_id = (SELECT id FROM repositories WHERE uuid = $1) \
             WHERE b.digest {any $2}";
        if digests.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = self.db.query(BLOBS, vec![repository.into(), keys(digests)]).await?;
        rows.iter()
            .map(|row| {
                let blob =
                    LinkedBlob { verified: row.opt_int(1)?.is_some(), linked: row.opt_blob(2)?.is_some() };
                Ok((row.digest(0)?, blob))
            })
            .collect()
    }

    /// Those of `digests` whose link to the repository an event took away, and none has made again.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn unlinked_blobs(
        &self,
        repository: RepositoryUuid,
        digests: &[Digest],
    ) -> Result<HashSet<Digest>> {
        const TOMBSTONES: &str = "SELECT t.key FROM tombstones t \
             LEFT JOIN blob_links l ON l.digest = t.key \
               AND l.repository_id = (SELECT id FROM repositories WHERE uuid = $1) \
             WHERE t.repository = $1 AND t.kind = 'blob_link' AND t.key {any $2} AND l.digest IS NULL";
        if digests.is_empty() {
            return Ok(HashSet::new());
        }
        let rows = self.db.query(TOMBSTONES, vec![repository.into(), keys(digests)]).await?;
        rows.iter().map(|row| row.digest(0)).collect()
    }

    /// Those of `digests` that the repository has as manifests.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn held_manifests(
        &self,
        repository: RepositoryUuid,
        digests: &[Digest],
    ) -> Result<HashMap<Digest, HeldManifest>> {
        const MANIFEST: &str = "SELECT t.verification FROM repositories r \
             JOIN manifests m ON m.repository_id = r.id AND m.digest = $2 \
             LEFT JOIN tracked_items t ON t.repository = $1 AND t.kind = 'manifest' AND t.key = $3 \
             WHERE r.uuid = $1";
        let found = try_join_all(digests.iter().map(async |digest| {
            let params = vec![repository.into(), digest.into(), digest.to_string().into()];
            let Some(row) = self.db.query_opt(MANIFEST, params).await? else { return Ok(None) };
            let verified = row.opt_text(0)?.is_some_and(|verification| verification == "succeeded");
            Ok::<_, crate::Error>(Some((*digest, HeldManifest { verified })))
        }));
        Ok(found.await?.into_iter().flatten().collect())
    }

    /// Records blobs, each with its size in bytes, whose every byte was just hashed on its way in from another site.
    /// Links come with apply.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn store_transferred_blobs(&self, mut blobs: Vec<(Digest, u64)>) -> Result<()> {
        const STORE: &str = "INSERT INTO blobs (digest, size, state, stored_at_us, verified_at_us) \
             VALUES ($1, $2, 'live', $3, $3) ON CONFLICT (digest) DO UPDATE SET size = excluded.size, \
             state = 'live', condemned_at_us = NULL, verified_at_us = excluded.verified_at_us";
        // One order for all writers.
        blobs.sort_unstable();
        self.db
            .write(move |tx| {
                let now = tx.now_us();
                let rows = blobs
                    .iter()
                    .map(|(digest, size)| vec![digest.into(), (*size).into(), now.into()])
                    .collect();
                Box::pin(async move {
                    // A recovery at another node that finds the bytes unowned waits for this.
                    tx.share_role().await?;
                    tx.send_each(STORE, rows).await
                })
            })
            .await
    }
}

fn keys(digests: &[Digest]) -> Value {
    Value::Blobs(digests.iter().map(Digest::to_key).collect())
}
