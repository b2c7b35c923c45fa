//! Writing a body to the end of a spool: gathered here, written and hashed on the blocking pool.
//! Guards: the progress handed back names synced bytes; after an error the spool ends where it ended before.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::stream::Stream;
use rustix::io::{pwrite, retry_on_intr};
use tokio::task::{JoinHandle, spawn_blocking};
use twinport_oci::Hasher;

use super::{Claim, LocalBlobs, blocking, joined};
use crate::batch::{self, Batch, Pieces};
use crate::gather::{Filled, fill};
use crate::{Appended, Error, Progress, Result, SpoolName};

/// A body that ends within this many bytes costs one hop.
const SHORT: usize = 64 << 10;
/// While a long body arrives, what was written goes to the disk every so many bytes.
const FLUSH_EVERY: u64 = 16 << 20;
/// The kernel caches a write in as large a page as fits. Up to this size it finds one without moving others about, which costs
/// more than all else where free memory is in small pieces, as on every site that has run for a while.
const WRITE: usize = 32 << 10;

const APPENDING: &str = "appending to a spool";

impl LocalBlobs {
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
        let mut body = pin!(body);
        let mut room = limit.checked_sub(at.offset).ok_or(Error::SizeExceeded { limit })?;
        let mut batch = Batch::default();
        // Errors of the body's length come before the spool is touched, where the body is short.
        let filled = fill(&mut body, &mut batch, SHORT + 1, &mut room, limit).await?;
        if matches!(filled, Filled::Full) {
            let long = LongAppend::begin(claim, at, limit).await?;
            return long.run(body, batch, room).await;
        }
        let pieces = batch.into_pieces();
        let progress = blocking(APPENDING, move || claim.append_short(at, &pieces)).await?;
        Ok(Appended { progress, broken: filled.broken() })
    }
}

impl Claim {
    fn error(&self, doing: &'static str, e: io::Error) -> Error {
        self.store.spool_error(doing, &self.spool, e)
    }

    /// Opens the spool and cuts off what lies beyond `offset`: bytes that no recorded progress covers.
    fn open_at(&self, offset: u64) -> Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create(offset == 0);
        let file = match options.open(self.store.spool_path(&self.spool)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound && offset > 0 => {
                return Err(Error::SpoolMissing(self.spool));
            }
            Err(e) => return Err(self.error("opening", e)),
        };
        self.store.lock_spool(&self.spool, &file)?;
        let metadata = file.metadata().map_err(|e| self.error("reading the length of", e))?;
        if metadata.nlink() > 1 {
            return Err(Error::SpoolPublished(self.spool));
        }
        let len = metadata.len();
        if len < offset {
            return Err(Error::OffsetMismatch { spool: self.spool, offset, len });
        }
        if len > offset {
            file.set_len(offset).map_err(|e| self.error("cutting", e))?;
        }
        Ok(file)
    }

    fn append_short(&self, at: Progress, pieces: &Pieces) -> Result<Progress> {
        let file = self.open_at(at.offset)?;
        let Progress { offset, mut hasher } = at;
        let written = write_all_at(&file, pieces, offset)
            .map_err(|e| self.error("writing", e))
            .and_then(|()| self.sync(&file, offset, offset + pieces.len() as u64));
        if let Err(e) = written {
            self.cut_back(&file, offset);
            return Err(e);
        }
        pieces.iter().for_each(|piece| hasher.update(piece));
        Ok(Progress { offset: offset + pieces.len() as u64, hasher })
    }

    /// Syncs a spool that has grown from `before` to `after` bytes. Its directory entry is synced once, when the
    /// spool becomes worth more than sending it again.
    fn sync(&self, file: &File, before: u64, after: u64) -> Result<()> {
        self.store.sync.file(file).map_err(|e| self.error("syncing", e))?;
        if before <= SHORT as u64 && after > SHORT as u64 {
            let synced = self.store.sync.directory(&self.store.spool);
            synced.map_err(|e| self.error("syncing the directory of", e))?;
        }
        Ok(())
    }

    /// Frees what a failed append wrote. After a failed sync the kernel may call lost pages clean, so they must go.
    fn cut_back(&self, file: &File, offset: u64) {
        if let Err(error) = file.set_len(offset) {
            tracing::warn!(spool = %self.spool, offset, %error, "could not cut a spool back after an error");
        }
    }
}

/// An append of more than one batch: one batch is hashed and written while the next one gathers, unless there are many uploads.
struct LongAppend {
    claim: Arc<Claim>,
    _counted: Counted,
    file: Arc<File>,
    start: u64,
    limit: u64,
    progress: Progress,
    flushed: u64,
    flush: Option<JoinHandle<Result<()>>>,
}

/// A batch that is being hashed and written, while its bytes are in the processor's cache.
struct InFlight {
    len: u64,
    job: JoinHandle<Result<Hasher>>,
}

/// One of the uploads that share the memory for batches.
struct Counted(Arc<LocalBlobs>);

impl Counted {
    fn new(store: &Arc<LocalBlobs>) -> Self {
        store.appending.fetch_add(1, Ordering::Relaxed);
        Self(store.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.appending.fetch_sub(1, Ordering::Relaxed);
    }
}

impl LongAppend {
    async fn begin(claim: Arc<Claim>, at: Progress, limit: u64) -> Result<Self> {
        let _counted = Counted::new(&claim.store);
        let (opening, start) = (claim.clone(), at.offset);
        let file = Arc::new(blocking(APPENDING, move || opening.open_at(start)).await?);
        Ok(Self { claim, _counted, file, start, limit, progress: at, flushed: start, flush: None })
    }

    async fn run<S, E>(mut self, body: Pin<&mut S>, first: Batch, room: u64) -> Result<Appended<E>>
    where
        S: Stream<Item = Result<Bytes, E>>,
    {
        match self.drive(body, first, room).await {
            Ok(broken) => Ok(Appended { progress: self.progress, broken }),
            Err(e) => {
                // A flush that is still running would make room for pages that are about to be cut.
                if let Some(flush) = self.flush.take() {
                    let _already_failed = flush.await;
                }
                let (claim, file, start) = (self.claim, self.file, self.start);
                blocking(APPENDING, move || {
                    claim.cut_back(&file, start);
                    Ok(())
                })
                .await?;
                Err(e)
            }
        }
    }

    async fn drive<S, E>(&mut self, mut body: Pin<&mut S>, first: Batch, mut room: u64) -> Result<Option<E>>
    where
        S: Stream<Item = Result<Bytes, E>>,
    {
        let mut batch = first;
        loop {
            let uploads = self.claim.store.appending.load(Ordering::Relaxed);
            let target = batch::target(uploads);
            let rest = self.cut(&mut batch, target);
            let in_flight = self.send(batch);
            batch = rest;
            let filled = if self.claim.store.batch_threads.are_busy_with(uploads) {
                // What gathers meanwhile would only take memory: others keep the threads busy.
                self.land(in_flight).await?;
                fill(&mut body, &mut batch, target, &mut room, self.limit).await?
            } else {
                let filled = fill(&mut body, &mut batch, target, &mut room, self.limit).await;
                self.land(in_flight).await?;
                filled?
            };
            if matches!(filled, Filled::Full) {
                continue;
            }
            if batch.len() > 0 {
                let last = self.send(batch);
                self.land(last).await?;
            }
            self.finish().await?;
            return Ok(filled.broken());
        }
    }

    /// Takes from a batch what goes beyond the last multiple of `target` in the file, where it reaches one: whole pages of the
    /// kernel's cache are filled at once.
    fn cut(&self, batch: &mut Batch, target: usize) -> Batch {
        let beyond = (self.progress.offset + batch.len() as u64) % target as u64;
        match batch.len().checked_sub(usize::try_from(beyond).unwrap_or(usize::MAX)) {
            Some(len) if len > 0 => batch.split_off(len),
            _ => Batch::default(),
        }
    }

    /// Has a batch hashed and written.
    fn send(&self, batch: Batch) -> InFlight {
        let pieces = batch.into_pieces();
        let len = pieces.len() as u64;
        let (claim, file) = (self.claim.clone(), self.file.clone());
        let Progress { offset, mut hasher } = self.progress.clone();
        let job = self.claim.store.batch_threads.run(move || {
            pieces.iter().for_each(|piece| hasher.update(piece));
            write_all_at(&file, &pieces, offset).map_err(|e| claim.error("writing", e))?;
            Ok(hasher)
        });
        InFlight { len, job }
    }

    async fn land(&mut self, in_flight: InFlight) -> Result<()> {
        self.progress.hasher = joined(APPENDING, in_flight.job).await?;
        self.progress.offset += in_flight.len;
        if self.progress.offset - self.flushed >= FLUSH_EVERY && self.claim.store.sync.is_durable() {
            self.flush().await?;
        }
        Ok(())
    }

    /// Sends what was written so far on its way to the disk, unless the last flush is still under way.
    async fn flush(&mut self) -> Result<()> {
        if self.flush.as_ref().is_some_and(|flush| !flush.is_finished()) {
            return Ok(());
        }
        self.flushed().await?;
        self.flushed = self.progress.offset;
        let (claim, file) = (self.claim.clone(), self.file.clone());
        self.flush =
            Some(spawn_blocking(move || claim.store.sync.file(&file).map_err(|e| claim.error("syncing", e))));
        Ok(())
    }

    /// Waits for the flush under way. Its error counts: the kernel reports a failed write-back only once.
    async fn flushed(&mut self) -> Result<()> {
        match self.flush.take() {
            Some(flush) => joined(APPENDING, flush).await,
            None => Ok(()),
        }
    }

    async fn finish(&mut self) -> Result<()> {
        self.flushed().await?;
        let (claim, file) = (self.claim.clone(), self.file.clone());
        let (before, after) = (self.start, self.progress.offset);
        blocking(APPENDING, move || claim.sync(&file, before, after)).await
    }
}

/// Writes in pieces that end where [`WRITE`] does in the file.
fn write_all_at(file: &File, pieces: &Pieces, mut offset: u64) -> io::Result<()> {
    for mut left in pieces.iter().map(|piece| &piece[..]) {
        while !left.is_empty() {
            let into = usize::try_from(offset % WRITE as u64).unwrap_or(0);
            let most = left.len().min(WRITE - into);
            let written = retry_on_intr(|| pwrite(file, &left[..most], offset))?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            offset += written as u64;
            left = &left[written..];
        }
    }
    Ok(())
}
