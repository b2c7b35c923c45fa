//! Writing a body to a spool: as one object where it is short, in parts of one where it is long, as several where many
//! uploads share the memory.
//! Guards: what is handed back is stored; what all uploads together gather stays within a budget.
//!
//! An upload holds at most two batches, one that gathers and one on its way. A batch has the size of a chunk (8 MiB) while
//! few uploads run, and less the more there are, down to 256 KiB: together 64 MiB, up to 128 uploads. Below 5 MiB a batch
//! is no part that S3 would take, so it becomes a segment of its own, which publishing joins with its neighbours.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::stream::Stream;
use object_store::PutPayload;
use object_store::multipart::PartId;
use tokio::task::JoinHandle;
use twinport_oci::Hasher;
use uuid::Uuid;

use super::long_upload::LongUpload;
use super::part_plan::SMALLEST_PART;
use super::segments::{Mark, Segment, long_name};
use super::{BucketBlobs, Claim};
use crate::batch::{Batch, Pieces};
use crate::gather::{Filled, fill};
use crate::local::joined;
use crate::{Appended, Error, Progress, Result, SpoolName};

const BUDGET: u64 = 64 << 20;
const SMALLEST: u64 = 256 << 10;
const APPENDING: &str = "appending to a spool";

/// Bytes at which a batch is sent while `uploads` are running.
fn target(uploads: usize, chunk: u64) -> u64 {
    (BUDGET / 2 / uploads.max(1) as u64).clamp(SMALLEST, chunk)
}

impl BucketBlobs {
    pub(crate) async fn append<S, E>(
        self: &Arc<Self>,
        spool: &SpoolName,
        at: Progress,
        body: S,
        limit: u64,
    ) -> Result<Appended<E>>
    where
        S: Stream<Item = Result<Bytes, E>>,
    {
        let claim = self.claim(spool)?;
        let room = limit.checked_sub(at.offset).ok_or(Error::SizeExceeded { limit })?;
        if at.offset > 0 {
            self.check_reached(spool, &at).await?;
        }
        let appending = Appending { _counted: Counted::new(self), claim, progress: at, long: None };
        appending.run(pin!(body), room, limit).await
    }

    /// One listing of one key where all is well.
    async fn check_reached(&self, spool: &SpoolName, at: &Progress) -> Result<()> {
        let prefix = format!("{}/{}-", self.keys.spool(spool), Mark::of(at));
        if self.first_with(&prefix).await?.is_some() {
            return Ok(());
        }
        match self.segments(spool).await?.reach() {
            None => Err(Error::SpoolMissing(*spool)),
            Some(len) => Err(Error::OffsetMismatch { spool: *spool, offset: at.offset, len }),
        }
    }
}

/// One of the uploads that share the memory.
struct Counted(Arc<BucketBlobs>);

impl Counted {
    fn new(store: &Arc<BucketBlobs>) -> Self {
        store.appending.fetch_add(1, Ordering::Relaxed);
        Self(store.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.appending.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Appending {
    _counted: Counted,
    claim: Claim,
    /// Everything before this is sent, though of a long segment not yet an object.
    progress: Progress,
    long: Option<LongSegment>,
}

/// A segment that is being sent in parts.
struct LongSegment {
    start: Mark,
    name: Uuid,
    /// Before the upload, so that a dropped call ends this request before it aborts.
    in_flight: Option<InFlight>,
    upload: LongUpload,
}

/// A part on its way: its hash and its request run side by side.
struct InFlight {
    len: u64,
    hash: JoinHandle<Result<Hasher>>,
    sent: JoinHandle<Result<PartId>>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.sent.abort();
    }
}

impl Appending {
    fn store(&self) -> &Arc<BucketBlobs> {
        &self.claim.store
    }

    async fn run<S, E>(mut self, body: Pin<&mut S>, room: u64, limit: u64) -> Result<Appended<E>>
    where
        S: Stream<Item = Result<Bytes, E>>,
    {
        let start = self.progress.offset;
        match self.drive(body, room, limit).await {
            Ok(broken) => {
                if self.progress.offset == 0 && start == 0 {
                    // An empty upload is one, too.
                    self.short(Batch::default()).await?;
                }
                Ok(Appended { progress: self.progress, broken })
            }
            Err(e) => {
                if let Some(LongSegment { in_flight, upload, .. }) = self.long.take() {
                    drop(in_flight);
                    upload.abort().await;
                }
                Err(e)
            }
        }
    }

    async fn drive<S, E>(&mut self, mut body: Pin<&mut S>, mut room: u64, limit: u64) -> Result<Option<E>>
    where
        S: Stream<Item = Result<Bytes, E>>,
    {
        loop {
            let mut batch = Batch::default();
            let filled = self.gather(&mut body, &mut batch, &mut room, limit).await?;
            let is_part = self.long.is_some() || batch.len() as u64 >= SMALLEST_PART;
            match filled {
                Filled::Full if is_part => self.part(batch).await?,
                Filled::Full => self.short(batch).await?,
                filled => {
                    if self.long.is_some() {
                        self.complete(batch).await?;
                    } else if batch.len() > 0 {
                        self.short(batch).await?;
                    }
                    return Ok(filled.broken());
                }
            }
        }
    }

    /// Gathers a batch; how much that is is asked again as it grows, because other uploads begin meanwhile.
    async fn gather<S, E>(
        &self,
        body: &mut Pin<&mut S>,
        batch: &mut Batch,
        room: &mut u64,
        limit: u64,
    ) -> Result<Filled<E>>
    where
        S: Stream<Item = Result<Bytes, E>>,
    {
        loop {
            let uploads = self.store().appending.load(Ordering::Relaxed);
            let mut target = target(uploads, self.store().settings.chunk);
            if self.long.is_some() {
                target = target.max(SMALLEST_PART);
            }
            if batch.len() as u64 >= target {
                return Ok(Filled::Full);
            }
            let step = target.min(batch.len() as u64 + SMALLEST);
            match fill(body, batch, usize::try_from(step).unwrap_or(usize::MAX), room, limit).await? {
                Filled::Full => {}
                ended => return Ok(ended),
            }
        }
    }

    /// Stores a batch as a segment of its own.
    async fn short(&mut self, batch: Batch) -> Result<()> {
        let pieces = Arc::new(batch.into_pieces());
        let hasher = self.hash(&pieces);
        let hasher = joined(APPENDING, hasher).await?;
        let reached = Progress { offset: self.progress.offset + pieces.len() as u64, hasher };
        let segment =
            Segment { start: Mark::of(&self.progress), end: Mark::of(&reached), long: None, written_us: 0 };
        let key = self.store().keys.spool(&self.claim.spool).join(segment.name());
        self.store().put(&key, pieces.iter().cloned().collect()).await?;
        self.progress = reached;
        Ok(())
    }

    /// Sends a batch as the next part of a long segment, which begins with it where there is none.
    async fn part(&mut self, batch: Batch) -> Result<()> {
        self.land().await?;
        if self.long.as_ref().is_some_and(|long| long.upload.is_full()) {
            self.record().await?;
        }
        if self.long.is_none() {
            let name = Uuid::new_v4();
            let key = self.store().keys.spool(&self.claim.spool).join(long_name(&name));
            let upload = LongUpload::begin(self.store(), key).await?;
            let start = Mark::of(&self.progress);
            self.long = Some(LongSegment { start, name, in_flight: None, upload });
        }
        let pieces = Arc::new(batch.into_pieces());
        let hash = self.hash(&pieces);
        if let Some(long) = &mut self.long {
            let request = long.upload.part(long.upload.parts());
            let payload = PutPayload::from_iter(pieces.iter().cloned());
            let sent = tokio::spawn(request.send(payload));
            long.in_flight = Some(InFlight { len: pieces.len() as u64, hash, sent });
        }
        Ok(())
    }

    /// Waits for the part on its way.
    async fn land(&mut self) -> Result<()> {
        let Some(long) = &mut self.long else { return Ok(()) };
        // Left in place while it is waited for: a dropped call finds it there and ends it.
        let Some(in_flight) = &mut long.in_flight else { return Ok(()) };
        let sent = (&mut in_flight.sent).await;
        let hasher = (&mut in_flight.hash).await;
        let len = in_flight.len;
        long.in_flight = None;
        let stopped = |_| Error::Stopped { doing: APPENDING };
        let (part, hasher) = (sent.map_err(stopped)??, hasher.map_err(stopped)??);
        long.upload.landed(part);
        self.progress = Progress { offset: self.progress.offset + len, hasher };
        Ok(())
    }

    /// Ends a long segment with a last batch of any size.
    async fn complete(&mut self, batch: Batch) -> Result<()> {
        if batch.len() > 0 {
            self.part(batch).await?;
        }
        self.land().await?;
        self.record().await
    }

    /// Makes the parts an object, then a segment by writing its name.
    async fn record(&mut self) -> Result<()> {
        let Some(LongSegment { start, name, upload, .. }) = self.long.take() else { return Ok(()) };
        upload.complete(self.progress.offset - start.offset).await?;
        let segment = Segment { start, end: Mark::of(&self.progress), long: Some(name), written_us: 0 };
        let key = self.store().keys.spool(&self.claim.spool).join(segment.name());
        self.store().put(&key, Vec::new()).await
    }

    /// Has a batch hashed.
    fn hash(&self, pieces: &Arc<Pieces>) -> JoinHandle<Result<Hasher>> {
        let (pieces, mut hasher) = (pieces.clone(), self.progress.hasher.clone());
        self.store().batch_threads.run(move || {
            pieces.iter().for_each(|piece| hasher.update(piece));
            Ok(hasher)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_uploads_together_stay_within_the_budget() {
        for uploads in [1, 2, 6, 64, 128] {
            assert!(2 * target(uploads, 8 << 20) * uploads as u64 <= BUDGET, "{uploads}");
        }
        assert_eq!(target(0, 8 << 20), 8 << 20);
        assert_eq!(target(1000, 8 << 20), SMALLEST);
    }
}
