//! What a crash left behind, put right before the site serves: spools without an owner, and files that were
//! published for a commit that never came.
//!
//! **Architecture invariant:** a spool keeps its name until the commit, so leftover spools name everything that
//! may be unowned, and no scan of the blobs is needed.
//!
//! In a directory that other nodes have open, locks tell what they are at work on. A bucket has none, so it is left alone:
//! what a node is about to commit looks the same there. `expire` removes by age what is abandoned, and `scrub` finds what
//! nothing owns.

use twinport_blobs::{Blobs, LeftoverSpool, SpoolName};
use twinport_metadata::Metadata;
use twinport_oci::{Algorithm, Digest};

use crate::Result;

/// A broken transfer of at least this many bytes is kept, so that it goes on where it stopped.
const WORTH_RESUMING: u64 = 1 << 20;

/// What [`recover`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Spools kept: open upload sessions and transfers worth resuming.
    pub kept: u64,
    /// Spools removed.
    pub discarded: u64,
    /// Published files removed, because the commit that would have named them never happened.
    pub unpublished: u64,
    /// Spools that other nodes of the site work on.
    pub elsewhere: u64,
}

/// Looks at every leftover spool that no other node works on. Runs before this node serves; others may, unless it is `alone`.
///
/// # Errors
/// What the database or the disk says; running it again goes on.
pub async fn recover(metadata: &Metadata, blobs: &Blobs, alone: bool) -> Result<RecoveryReport> {
    let mut report = RecoveryReport::default();
    if blobs.is_shared() {
        return Ok(report);
    }
    for spool in blobs.spools().await? {
        let unpublished_session = matches!(spool.name, SpoolName::Upload(_)) && spool.links == 1;
        if unpublished_session && !alone {
            // A client may send the next bytes at any moment, and those before them may not have their row yet.
            report.kept += 1;
            continue;
        }
        if !blobs.adopt(&spool.name).await? {
            report.elsewhere += 1;
            continue;
        }
        let published = spool.links > 1;
        if published {
            // A node that died may have sent its last commit: what that comes to is known first.
            metadata.await_writers().await?;
            for digest in digests_of(blobs, &spool).await? {
                if metadata.blob_is_known(&digest).await?.is_none()
                    && blobs.unpublish_spool(&spool.name, &digest).await?
                {
                    report.unpublished += 1;
                }
            }
        }
        if is_kept(metadata, &spool, published).await? {
            blobs.release(&spool.name);
            report.kept += 1;
        } else {
            blobs.discard(&spool.name).await?;
            report.discarded += 1;
        }
    }
    Ok(report)
}

async fn is_kept(metadata: &Metadata, spool: &LeftoverSpool, published: bool) -> Result<bool> {
    Ok(match &spool.name {
        SpoolName::Upload(id) => metadata.upload_exists(id).await?,
        SpoolName::Transfer(_) => !published && spool.len >= WORTH_RESUMING,
        SpoolName::Put(..) => false,
    })
}

/// What a spool may have been published as. An upload's name does not say: its bytes do.
async fn digests_of(blobs: &Blobs, spool: &LeftoverSpool) -> Result<Vec<Digest>> {
    if let Some(digest) = spool.name.digest() {
        return Ok(vec![digest]);
    }
    let mut digests = Vec::new();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        digests.push(blobs.rehash(&spool.name, spool.len, algorithm, None).await?.hasher.finish());
    }
    Ok(digests)
}
