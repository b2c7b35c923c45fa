//! Ends upload sessions that nobody came back to, and frees what they had gathered.

use twinport_blobs::{Blobs, SpoolName};
use twinport_metadata::Metadata;

use crate::Result;

/// Sessions looked at in one round.
const PAGE: u32 = 200;

/// Ends every session that has not moved since `before_us` (µs since the epoch); how many.
///
/// # Errors
/// What the database or the disk says; sessions ended so far stay ended.
pub async fn expire_uploads(metadata: &Metadata, blobs: &Blobs, before_us: i64) -> Result<u64> {
    let mut expired = 0;
    loop {
        let stale = metadata.stale_uploads(before_us, PAGE).await?;
        let mut ended = 0;
        for id in &stale {
            // Compared again inside: a client that came back in between keeps its session.
            if metadata.expire_upload(id, before_us).await? {
                blobs.discard(&SpoolName::Upload(*id)).await?;
                ended += 1;
            }
        }
        expired += ended;
        if ended == 0 || stale.len() < PAGE as usize {
            break;
        }
    }
    while metadata.forget_ended_uploads(PAGE).await? == u64::from(PAGE) {}
    clean_shared(metadata, blobs, before_us).await?;
    Ok(expired)
}

/// What crashes left in a store that several nodes share: told by its age, as there is no start that is alone.
async fn clean_shared(metadata: &Metadata, blobs: &Blobs, before_us: i64) -> Result<()> {
    for spool in blobs.stale_spools(before_us).await? {
        let is_open = match &spool {
            SpoolName::Upload(id) => metadata.upload_exists(id).await?,
            SpoolName::Transfer(_) | SpoolName::Put(..) => false,
        };
        if !is_open {
            blobs.discard(&spool).await?;
        }
    }
    let aborted = blobs.abort_stale_uploads(before_us).await?;
    if aborted > 0 {
        tracing::info!(aborted, "ended uploads in parts that were never completed");
    }
    Ok(())
}
