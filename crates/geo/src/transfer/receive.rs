//! Receiving one blob: in one go where it is small, into a spool that survives a break where it is not.
//! Guards: a digest is checked before anything is published, and bytes that prove false are not resumed from.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream};
use rand::Rng as _;
use tokio::time::{sleep, timeout};
use twinport_blobs::{Blobs, Error as BlobsError, Progress, SpoolName};
use twinport_oci::Digest;

use super::{Failure, FailureKind, Inner, Outcome, local};
use crate::{
    RefusalCode,
    upstream::{BlobBody, Upstream},
};

/// Blobs up to this many bytes are held in memory and stored in one hop.
const SMALL: u64 = 256 << 10;
/// Breaks in a row without one byte of progress before the item counts as failed.
const STALLS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(50);

impl<U: Upstream> Inner<U> {
    pub(super) async fn receive(&self, digest: Digest, size: Option<u64>) -> Outcome {
        // A small blob never has a spool of its own.
        if size.is_some_and(|size| size <= SMALL) {
            self.receive_small(digest).await
        } else {
            let spool = SpoolName::Transfer(digest);
            if !self.blobs.occupy(&spool).await.map_err(local)? {
                // Another node of this site is at it, and whoever asks again finds the blob.
                return Err(busy(&digest));
            }
            let _occupied = Occupied { blobs: &self.blobs, spool };
            self.receive_large(digest, size, &spool).await
        }
    }

    async fn receive_small(&self, digest: Digest) -> Outcome {
        let mut stalls = 0;
        let bytes = loop {
            match self.collect(&digest).await {
                Ok(bytes) => break bytes,
                Err(failure) if failure.kind == FailureKind::Unreachable && stalls < STALLS => {
                    stalls += 1;
                    pause(stalls).await;
                }
                Err(failure) => return Err(failure),
            }
        };
        self.store_small(digest, bytes).await
    }

    async fn store_small(&self, digest: Digest, bytes: Bytes) -> Outcome {
        let size = bytes.len() as u64;
        let spool = self.blobs.put(&digest, bytes).await.map_err(local)?;
        self.records.store(digest, size).await.inspect_err(|_| self.blobs.release(&spool))?;
        self.blobs.discard(&spool).await.map_err(local)
    }

    async fn collect(&self, digest: &Digest) -> Result<Bytes, Failure> {
        let body = timeout(self.idle, self.upstream.blob(digest, 0)).await.map_err(|_| silent())??;
        let size = body.size;
        let mut chunks = std::pin::pin!(self.bounded_silence(body));
        let mut bytes = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            if (bytes.len() + chunk.len()) as u64 > SMALL {
                return Err(Failure::failed(format!("{digest} is larger at the primary than its log says")));
            }
            bytes.extend_from_slice(&chunk);
        }
        if size.is_some_and(|size| size != bytes.len() as u64) {
            return Err(cut_short(digest));
        }
        Ok(bytes.freeze())
    }

    async fn receive_large(&self, digest: Digest, size: Option<u64>, spool: &SpoolName) -> Outcome {
        let mut progress = self.progress_of(&digest, size, spool).await?;
        if progress.offset == 0 && is_whole(&progress, &digest, size) {
            // The empty blob: there is nothing to ask for.
            return self.store_small(digest, Bytes::new()).await;
        }
        // Bytes from before a restart may have been altered meanwhile; then one more try starts from nothing.
        let mut resumed = progress.offset > 0;
        let mut stalls = 0;
        while !is_whole(&progress, &digest, size) {
            let before = progress.offset;
            let broken = self.advance(&digest, size, spool, &mut progress).await?;
            if is_whole(&progress, &digest, size) {
                break;
            }
            let Some(failure) = broken else {
                // The body ended where the blob ends, and it is not the blob.
                self.blobs.discard(spool).await.map_err(local)?;
                if !std::mem::take(&mut resumed) {
                    let actual = progress.hasher.clone().finish();
                    return Err(Failure::failed(format!(
                        "the primary sent {actual} where {digest} was asked for"
                    )));
                }
                progress = Progress::start(digest.algorithm());
                continue;
            };
            if !matches!(failure.kind, FailureKind::Unreachable | FailureKind::UnderWay) {
                return Err(failure);
            }
            stalls = if progress.offset > before { 0 } else { stalls + 1 };
            if stalls > STALLS {
                return Err(failure);
            }
            tracing::debug!(%digest, offset = progress.offset, %failure, "a transfer broke off, resuming");
            pause(stalls).await;
        }
        match self.blobs.publish(spool, &digest, progress.offset).await {
            Err(BlobsError::SpoolMissing(_)) if self.blobs.is_shared() => return Err(busy(&digest)),
            published => published.map_err(local)?,
        }
        self.records.store(digest, progress.offset).await.inspect_err(|_| self.blobs.release(spool))?;
        self.blobs.discard(spool).await.map_err(local)
    }

    /// What is in the spool already, hashed anew: its state was not kept.
    async fn progress_of(
        &self,
        digest: &Digest,
        size: Option<u64>,
        spool: &SpoolName,
    ) -> Result<Progress, Failure> {
        let start = Progress::start(digest.algorithm());
        match self.blobs.spool_len(spool).await.map_err(local)? {
            Some(len) if len > 0 && size.is_none_or(|size| len <= size) => {
                match self.blobs.rehash(spool, len, digest.algorithm(), None).await {
                    Ok(progress) => Ok(progress),
                    Err(BlobsError::SpoolMissing(_) | BlobsError::SpoolPublished(_)) => Ok(start),
                    Err(error) => Err(local(error)),
                }
            }
            None | Some(0) => Ok(start),
            Some(_) => {
                self.blobs.discard(spool).await.map_err(local)?;
                Ok(start)
            }
        }
    }

    /// One request: as many more bytes as come. Answers why it ended, unless it came to the end of the blob.
    async fn advance(
        &self,
        digest: &Digest,
        size: Option<u64>,
        spool: &SpoolName,
        progress: &mut Progress,
    ) -> Result<Option<Failure>, Failure> {
        let body = match timeout(self.idle, self.upstream.blob(digest, progress.offset)).await {
            Err(_) => return Ok(Some(silent())),
            Ok(Err(error)) if error.code() == Some(RefusalCode::RangeInvalid) => {
                // More is here than the primary has: it is not the same blob.
                self.blobs.discard(spool).await.map_err(local)?;
                *progress = Progress::start(digest.algorithm());
                return Ok(Some(cut_short(digest)));
            }
            Ok(Err(error)) => return Ok(Some(error.into())),
            Ok(Ok(body)) => body,
        };
        if body.offset != progress.offset {
            *progress = Progress::start(digest.algorithm());
        }
        let total = size.or(body.size);
        let chunks = self.bounded_silence(body);
        let limit = total.unwrap_or(u64::MAX);
        let appended = match self.blobs.append(spool, progress.clone(), chunks, limit).await {
            Ok(appended) => appended,
            // In a bucket nothing keeps another node from the same transfer, and it has come to its end.
            Err(BlobsError::SpoolMissing(_)) if self.blobs.is_shared() => return Err(busy(digest)),
            Err(BlobsError::SpoolPublished(_) | BlobsError::SpoolMissing(_)) => {
                self.blobs.discard(spool).await.map_err(local)?;
                *progress = Progress::start(digest.algorithm());
                return Ok(Some(cut_short(digest)));
            }
            Err(BlobsError::SpoolBusy(_)) => return Ok(Some(busy(digest))),
            Err(BlobsError::SizeExceeded { .. }) => {
                return Err(Failure::failed(format!("{digest} is larger at the primary than its log says")));
            }
            Err(error) => return Err(local(error)),
        };
        *progress = appended.progress;
        Ok(match appended.broken {
            Some(failure) => Some(failure),
            None if total.is_some_and(|total| progress.offset < total) => Some(cut_short(digest)),
            None => None,
        })
    }

    /// The body's chunks; silence longer than allowed ends them with an error.
    fn bounded_silence(&self, body: BlobBody) -> impl Stream<Item = Result<Bytes, Failure>> + Send + use<U> {
        let idle = self.idle;
        stream::try_unfold(body.stream, move |mut chunks| async move {
            match timeout(idle, chunks.next()).await {
                Ok(Some(Ok(chunk))) => Ok(Some((chunk, chunks))),
                Ok(Some(Err(error))) => Err(Failure::from(error)),
                Ok(None) => Ok(None),
                Err(_) => Err(silent()),
            }
        })
    }
}

/// A spool that no other node may write; dropping it lets go.
struct Occupied<'b> {
    blobs: &'b Blobs,
    spool: SpoolName,
}

impl Drop for Occupied<'_> {
    fn drop(&mut self) {
        self.blobs.release(&self.spool);
    }
}

/// Whether everything is here and is what was asked for.
fn is_whole(progress: &Progress, digest: &Digest, size: Option<u64>) -> bool {
    size.is_none_or(|size| progress.offset == size) && progress.hasher.clone().finish() == *digest
}

async fn pause(stalls: u32) {
    let most = PAUSE.saturating_mul(1 << stalls.min(6));
    let jittered = rand::rng().random_range(most / 2..=most);
    sleep(jittered).await;
}

fn silent() -> Failure {
    Failure { kind: FailureKind::Unreachable, text: "the primary went silent".to_owned() }
}

fn busy(digest: &Digest) -> Failure {
    let text = format!("another transfer of {digest} has its spool");
    Failure { kind: FailureKind::UnderWay, text }
}

fn cut_short(digest: &Digest) -> Failure {
    let text = format!("the transfer of {digest} ended before the blob did");
    Failure { kind: FailureKind::Unreachable, text }
}
