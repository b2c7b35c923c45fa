//! Blobs and parts of them as streams, and what a blob's bytes are found to be.
//! Guards: a stream that breaks goes on at the byte where it broke; one that ends early is an error, never a short blob.

use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::Either;
use futures_util::stream::{Stream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinSet;
use tokio::time::sleep;
use twinport_oci::{Algorithm, Digest, Hasher};

use super::BucketBlobs;
use crate::batch::Batch;
use crate::gather::{Filled, fill};
use crate::local::{blocking, stopped};
use crate::{BlobFile, Error, Result, Verdict};

/// Blobs up to this many bytes are read whole when they are opened.
const SMALL: u64 = 64 << 10;
/// Bytes hashed per hop.
const HASHED_PER_HOP: usize = 1 << 20;
/// Breaks in a row without one more byte before a stream fails; each is one request with retries of its own.
const BREAKS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(100);
/// Pieces that are read while an earlier one is being sent. The HTTP client's pieces are below 512 KiB.
const AHEAD: usize = 2;
const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

/// A blob in a bucket: nothing of it is held, each stream is one request at a time.
#[derive(Debug, Clone)]
pub(crate) struct RemoteBlob {
    store: Arc<BucketBlobs>,
    digest: Digest,
    size: u64,
}

impl RemoteBlob {
    /// The bytes of a range that is within the blob. What it holds in memory is what its connection has at hand, below 1 MiB,
    /// and what was read ahead, where this is one of the few streams that may: a client that stalls makes the bucket's
    /// connection stall.
    pub(crate) fn stream(
        &self,
        range: Range<u64>,
    ) -> impl Stream<Item = Result<Bytes>> + Send + 'static + use<> {
        let (store, digest, size) = (self.store.clone(), self.digest, self.size);
        let key = store.keys.blob(&digest);
        let turn = store.reading_ahead.clone().try_acquire_owned();
        let pieces = store.stream(key, range, Some(size));
        let pieces = match turn {
            Ok(turn) => Either::Left(read_ahead(pieces, turn)),
            Err(_) => Either::Right(pieces),
        };
        pieces.map_err(move |error| match error {
            Error::Altered { actual, .. } => Error::Corrupt { digest, expected: size, actual },
            Error::ObjectMissing { .. } => Error::NotFound(digest),
            error => error,
        })
    }
}

/// Reads on while a piece is being sent: by turns, the bucket and the client would each wait for half of the time. Dropping
/// the stream ends the reading, and gives `turn` back.
fn read_ahead(
    pieces: impl Stream<Item = Result<Bytes>> + Send + 'static,
    turn: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    async_stream::stream! {
        let _turn = turn;
        let (sender, mut receiver) = mpsc::channel(AHEAD);
        let mut reading = JoinSet::new();
        reading.spawn(async move {
            let mut pieces = pin!(pieces);
            while let Some(piece) = pieces.next().await {
                if sender.send(piece).await.is_err() {
                    break;
                }
            }
        });
        while let Some(piece) = receiver.recv().await {
            yield piece;
        }
        // A reader that ended otherwise than at the end must not make a blob look short.
        if let Some(Err(ended)) = reading.join_next().await {
            yield Err(stopped("reading ahead", ended));
        }
    }
}

impl BucketBlobs {
    pub(crate) async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(self.look(&self.keys.blob(digest)).await?.map(|meta| meta.size))
    }

    /// A size that is known spares a request: a blob of another length is found out by its first byte.
    pub(crate) async fn open_blob(
        self: &Arc<Self>,
        digest: &Digest,
        expected: Option<u64>,
    ) -> Result<BlobFile> {
        let size = match expected {
            Some(size) => size,
            None => self.stat(digest).await?.ok_or(Error::NotFound(*digest))?,
        };
        if size > SMALL {
            return Ok(BlobFile::remote(RemoteBlob { store: self.clone(), digest: *digest, size }, size));
        }
        let read = self.read_small(&self.keys.blob(digest)).await.map_err(|error| match error {
            Error::Altered { actual, .. } => Error::Corrupt { digest: *digest, expected: size, actual },
            error => error,
        });
        let bytes = read?.ok_or(Error::NotFound(*digest))?;
        let actual = bytes.len() as u64;
        if actual != size {
            return Err(Error::Corrupt { digest: *digest, expected: size, actual });
        }
        Ok(BlobFile::held_whole(bytes))
    }

    /// A URL that anybody may get the blob from for as long as `expiry`, without any credentials of their own.
    pub(crate) async fn presigned(&self, digest: &Digest, expiry: Duration) -> Result<String> {
        let key = self.keys.blob(digest);
        // What a browser that is sent there must not render, it does not.
        let options = SignedUrlOptions::new().with_query([
            ("response-content-type", "application/octet-stream"),
            ("response-content-disposition", "attachment"),
        ]);
        let signed = self.s3.signed_url_opts(http::Method::GET, &key, expiry, &options).await;
        signed.map(String::from).map_err(|e| self.attempt("signing a URL of", &key).failed(&e))
    }

    /// A range of an object whose size must be `size`, where that is known.
    pub(super) fn stream(
        self: &Arc<Self>,
        key: Path,
        range: Range<u64>,
        size: Option<u64>,
    ) -> impl Stream<Item = Result<Bytes>> + Send + 'static + use<> {
        let store = self.clone();
        async_stream::try_stream! {
            let (mut at, mut breaks) = (range.start, 0);
            while at < range.end {
                let broke = match store.read_range(&key, at..range.end).await {
                    Err(error) => error,
                    Ok(None) => {
                        Err(Error::ObjectMissing { key: format!("{}/{key}", store.place) })?;
                        return;
                    }
                    Ok(Some((actual, pieces))) => {
                        if let Some(expected) = size.filter(|size| *size != actual) {
                            Err(Error::Altered { key: format!("{}/{key}", store.place), expected, actual })?;
                        }
                        let mut pieces = Box::pin(pieces);
                        loop {
                            match pieces.next().await {
                                Some(Ok(piece)) if piece.len() as u64 <= range.end - at => {
                                    (at, breaks) = (at + piece.len() as u64, 0);
                                    yield piece;
                                }
                                Some(Ok(_)) => break store.unreadable(&key, "more bytes came than were asked for"),
                                Some(Err(e)) => break store.attempt("reading", &key).failed(&e),
                                None => break store.unreadable(&key, "the answer ended before its last byte"),
                            }
                        }
                    }
                };
                if at == range.end {
                    break;
                }
                breaks += 1;
                if breaks > BREAKS {
                    Err(broke)?;
                    return;
                }
                tracing::debug!(%key, at, error = %broke, "a read broke off, going on where it was");
                sleep(PAUSE * (1 << breaks)).await;
            }
        }
    }

    fn unreadable(&self, key: &Path, reason: &str) -> Error {
        Error::Bucket { doing: "reading", place: format!("{}/{key}", self.place), reason: reason.to_owned() }
    }

    /// Feeds a range of an object to a hasher, on the blocking pool.
    pub(super) async fn hash_range(
        self: &Arc<Self>,
        key: &Path,
        range: Range<u64>,
        mut hasher: Hasher,
    ) -> Result<Hasher> {
        let mut pieces = std::pin::pin!(self.stream(key.clone(), range, None));
        loop {
            let (mut batch, mut room) = (Batch::default(), u64::MAX);
            let filled = fill(&mut pieces, &mut batch, HASHED_PER_HOP, &mut room, u64::MAX).await?;
            let pieces = batch.into_pieces();
            hasher = blocking("hashing", move || {
                pieces.iter().for_each(|piece| hasher.update(piece));
                Ok(hasher)
            })
            .await?;
            match filled {
                Filled::Full => {}
                Filled::Ended => return Ok(hasher),
                Filled::Broken(error) => return Err(error),
            }
        }
    }

    pub(crate) async fn verify(self: &Arc<Self>, digest: &Digest) -> Result<Verdict> {
        let key = self.keys.blob(digest);
        let Some(size) = self.stat(digest).await? else { return Ok(Verdict::Missing) };
        let hashed = match self.hash_range(&key, 0..size, Hasher::new(digest.algorithm())).await {
            Err(Error::ObjectMissing { .. }) => return Ok(Verdict::Missing),
            hashed => hashed?,
        };
        let actual = hashed.finish();
        Ok(if actual == *digest { Verdict::Whole { size } } else { Verdict::Altered { actual } })
    }

    /// Every blob by its key, which is the order of digests.
    pub(crate) fn scan(
        self: &Arc<Self>,
    ) -> impl Stream<Item = Result<(Digest, u64)>> + Send + 'static + use<> {
        let store = self.clone();
        async_stream::try_stream! {
            for algorithm in ALGORITHMS {
                let mut objects = Box::pin(store.list(&store.keys.blobs(algorithm), true));
                while let Some(object) = objects.try_next().await? {
                    if let Some(digest) = store.keys.digest_of(&object.location) {
                        yield (digest, object.size);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::stream;
    use tokio::sync::Semaphore;
    use tokio::task::yield_now;
    use tokio::time::timeout;

    use super::*;

    fn turn() -> OwnedSemaphorePermit {
        Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap()
    }

    #[tokio::test]
    async fn a_reader_that_stalls_holds_the_bucket_back_and_one_that_leaves_ends_the_reading() {
        let (read, alive) = (Arc::new(AtomicUsize::new(0)), Arc::new(()));
        let source = {
            let (read, alive) = (read.clone(), alive.clone());
            stream::repeat_with(move || {
                let _alive = &alive;
                read.fetch_add(1, Ordering::SeqCst);
                Ok(Bytes::from_static(b"a piece"))
            })
        };
        let turns = Arc::new(Semaphore::new(1));
        let mut ahead = Box::pin(read_ahead(source, turns.clone().try_acquire_owned().unwrap()));
        assert_eq!(ahead.next().await.unwrap().unwrap(), "a piece");
        for _ in 0..100 {
            yield_now().await;
        }
        // The one that was taken, those that wait, and the one for which there is no room yet.
        assert_eq!(read.load(Ordering::SeqCst), 1 + AHEAD + 1);
        assert_eq!(turns.available_permits(), 0);
        drop(ahead);
        assert_eq!(turns.available_permits(), 1);
        let ended = async {
            while Arc::strong_count(&alive) > 1 {
                yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), ended).await.expect("nobody reads on");
    }

    #[tokio::test]
    async fn what_was_read_before_a_stream_breaks_comes_before_its_error() {
        let pieces = [Ok(Bytes::from_static(b"whole")), Err(Error::Stopped { doing: "reading" })];
        let ahead: Vec<_> = read_ahead(stream::iter(pieces), turn()).collect().await;
        assert!(matches!(ahead.as_slice(), [Ok(_), Err(Error::Stopped { doing: "reading" })]), "{ahead:?}");
    }

    #[tokio::test]
    #[should_panic(expected = "the reader's own")]
    async fn a_reader_that_panics_never_makes_a_blob_look_short() {
        let pieces = stream::once(async { panic!("the reader's own") });
        let _all: Vec<Result<Bytes>> = read_ahead(pieces, turn()).collect().await;
    }
}
