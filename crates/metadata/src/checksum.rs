//! The one checksum of a repository that both sites compute.
//! Guards: the same manifests and tags give the same checksum on every database, and any difference another.

#[cfg(test)]
mod tests;

use sha2::{Digest as _, Sha256};

use crate::{
    Metadata, RepositoryUuid, Result,
    db::{Tx, Value},
};

/// What a repository holds, in one hash, at one snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepositoryChecksum {
    /// SHA-256 over the sorted manifests and tags.
    pub checksum: [u8; 32],
    /// The highest position of a manifest, tag or tombstone of the repository; 0 where there is none.
    pub through_seq: i64,
    /// Whether one of them is still without a position: no ground for a verdict then.
    pub in_motion: bool,
    pub manifests: u64,
    pub tags: u64,
}

/// Rows read at a time, so that 10 million tags are not held at once.
const PAGE: usize = 5_000;
const MANIFEST: u8 = 1;
const TAG: u8 = 2;
const END: u8 = 0;

impl Metadata {
    /// The checksum of a repository; `None` where this site does not know it.
    ///
    /// The encoding is version 1: the domain, the repository's UUID, then for each manifest by digest
    /// `1 ‖ len ‖ digest key ‖ len ‖ media type`, for each tag by name `2 ‖ len ‖ name ‖ len ‖ digest key`, then
    /// `0 ‖ manifests ‖ tags`; lengths are u32 and counts u64, big-endian; names sort as bytes.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn repository_checksum(
        &self,
        repository: RepositoryUuid,
    ) -> Result<Option<RepositoryChecksum>> {
        self.db.snapshot(move |tx| Box::pin(compute(tx, repository))).await
    }
}

async fn compute(tx: &mut Tx, repository: RepositoryUuid) -> Result<Option<RepositoryChecksum>> {
    const REPOSITORY: &str = "SELECT id FROM repositories WHERE uuid = $1";
    const MANIFESTS: &str = "SELECT digest, media_type, \
         COALESCE(position_seq, (SELECT e.seq FROM events e WHERE e.event_id = change)) FROM manifests \
         WHERE repository_id = $1 AND digest > $2 ORDER BY digest LIMIT $3";
    const TAGS: &str = "SELECT name, digest, \
         COALESCE(position_seq, (SELECT e.seq FROM events e WHERE e.event_id = change)) FROM tags \
         WHERE repository_id = $1 AND name > $2 ORDER BY name LIMIT $3";
    const TOMBSTONES: &str =
        "SELECT COUNT(*), COUNT(position_seq), MAX(position_seq) FROM tombstones WHERE repository = $1";

    let Some(row) = tx.query_opt(REPOSITORY, vec![repository.into()]).await? else {
        return Ok(None);
    };
    let id = row.int(0)?;
    let mut sum = Sum::new(repository);

    let mut after = Value::from(Vec::new());
    loop {
        let rows = tx.query(MANIFESTS, vec![id.into(), after, (PAGE as i64).into()]).await?;
        for row in &rows {
            sum.entry(MANIFEST, &row.blob(0)?, row.text(1)?.as_bytes());
            sum.position(row.opt_int(2)?);
            sum.manifests += 1;
        }
        let Some(last) = rows.last().filter(|_| rows.len() == PAGE) else { break };
        after = last.blob(0)?.into();
    }

    let mut after = Value::from("");
    loop {
        let rows = tx.query(TAGS, vec![id.into(), after, (PAGE as i64).into()]).await?;
        for row in &rows {
            sum.entry(TAG, row.text(0)?.as_bytes(), &row.blob(1)?);
            sum.position(row.opt_int(2)?);
            sum.tags += 1;
        }
        let Some(last) = rows.last().filter(|_| rows.len() == PAGE) else { break };
        after = last.text(0)?.into();
    }

    if let Some(row) = tx.query_opt(TOMBSTONES, vec![repository.into()]).await? {
        sum.in_motion |= row.int(0)? != row.int(1)?;
        sum.through_seq = sum.through_seq.max(row.opt_int(2)?.unwrap_or(0));
    }
    Ok(Some(sum.finish()))
}

struct Sum {
    hasher: Sha256,
    through_seq: i64,
    in_motion: bool,
    manifests: u64,
    tags: u64,
}

impl Sum {
    fn new(repository: RepositoryUuid) -> Self {
        let hasher =
            Sha256::new().chain_update(b"twinport-repository-1\0").chain_update(repository.0.as_bytes());
        Self { hasher, through_seq: 0, in_motion: false, manifests: 0, tags: 0 }
    }

    fn entry(&mut self, kind: u8, key: &[u8], value: &[u8]) {
        self.hasher.update([kind]);
        for part in [key, value] {
            // Names, media types and digest keys are bounded to a few hundred bytes where they are parsed.
            self.hasher.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            self.hasher.update(part);
        }
    }

    fn position(&mut self, seq: Option<i64>) {
        match seq {
            Some(seq) => self.through_seq = self.through_seq.max(seq),
            None => self.in_motion = true,
        }
    }

    fn finish(mut self) -> RepositoryChecksum {
        self.hasher.update([END]);
        self.hasher.update(self.manifests.to_be_bytes());
        self.hasher.update(self.tags.to_be_bytes());
        RepositoryChecksum {
            checksum: self.hasher.finalize().into(),
            through_seq: self.through_seq,
            in_motion: self.in_motion,
            manifests: self.manifests,
            tags: self.tags,
        }
    }
}
