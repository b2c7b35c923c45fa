//! New small blobs: one thread journals all that have come at a moment, says so, and puts them in their places.
//! Guards: it waits for no lock of a blob, since whoever holds one may be waiting for the journal; and what it acknowledged
//! stays in the journal until it is in its place.

use std::sync::Weak;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::MutexGuard;
use tokio::sync::oneshot;
use twinport_oci::Digest;
use uuid::Uuid;

use super::super::LocalBlobs;
use super::{BATCH, Journal, LARGEST, Placing, record};

/// Bytes that a blob takes in the journal at most.
const MOST: usize = LARGEST + 1024;
/// When a blob that could not be put in its place is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// A blob whose bytes were hashed, and who waits for it: told true when it is durable, false when it has to be stored in
/// another way.
#[derive(Debug)]
pub(super) struct NewBlob {
    digest: Digest,
    id: Uuid,
    bytes: Bytes,
    told: oneshot::Sender<bool>,
}

/// A blob that was acknowledged, and that its place does not take: the disk is full, mostly.
#[derive(Debug)]
struct Stuck {
    digest: Digest,
    id: Uuid,
    #[expect(dead_code, reason = "held for its drop")]
    placing: Placing,
}

impl NewBlob {
    /// Bytes that it takes in the journal.
    fn len(&self) -> usize {
        record::length(&self.digest, self.bytes.len())
    }

    fn tell(self, durable: bool) {
        // Whoever waited may be gone; the blob is an outstanding put all the same.
        let _gone = self.told.send(durable);
    }
}

impl Journal {
    /// Makes a blob durable together with all that come at this moment; false where that was not to be had.
    pub(in crate::local) async fn put(&self, digest: Digest, id: Uuid, bytes: Bytes) -> bool {
        let (told, answer) = oneshot::channel();
        self.new.send(NewBlob { digest, id, bytes, told }).is_ok() && answer.await.unwrap_or(false)
    }
}

/// Stores new blobs until the store is gone. A thread of its own.
pub(super) fn run(store: &Weak<LocalBlobs>, queue: &Receiver<NewBlob>) {
    let mut stuck = Vec::new();
    while let Ok(blobs) = next(queue, stuck.is_empty()) {
        let Some(store) = store.upgrade() else { return };
        if stuck.is_empty() {
            stuck = store.put_together(blobs);
            continue;
        }
        // Nothing more is acknowledged here meanwhile: what waits in memory stays within one batch, and who pushes is told
        // what is wrong with the disk.
        blobs.into_iter().for_each(|blob| blob.tell(false));
        stuck = store.place_stuck(stuck);
    }
}

/// All that have come, as far as they fit into one batch; waits for the first, or for the next try.
fn next(queue: &Receiver<NewBlob>, for_long: bool) -> Result<Vec<NewBlob>, RecvTimeoutError> {
    let first = match for_long {
        true => queue.recv().map_err(RecvTimeoutError::from)?,
        false => match queue.recv_timeout(AGAIN) {
            Err(RecvTimeoutError::Timeout) => return Ok(Vec::new()),
            received => received?,
        },
    };
    let mut bytes = first.len();
    let mut blobs = vec![first];
    while bytes + MOST <= BATCH
        && let Ok(blob) = queue.try_recv()
    {
        bytes += blob.len();
        blobs.push(blob);
    }
    Ok(blobs)
}

impl LocalBlobs {
    /// Those that were acknowledged and could not be put in their places.
    fn put_together(&self, blobs: Vec<NewBlob>) -> Vec<Stuck> {
        let mut alone: Vec<(NewBlob, MutexGuard<'_, ()>)> = Vec::with_capacity(blobs.len());
        for blob in blobs {
            match self.placing_lock(&blob.digest).try_lock() {
                Some(guard) => alone.push((blob, guard)),
                // Another put or a removal of it is under way, perhaps one of these.
                None => blob.tell(false),
            }
        }
        let Some(Some(journal)) = self.journal.get().filter(|_| !alone.is_empty()) else { return Vec::new() };
        let stored = alone.iter().map(|(blob, _)| (blob.digest, blob.id, blob.bytes.clone()));
        let Some(mut placing) = journal.store(stored) else {
            alone.into_iter().for_each(|(blob, _)| blob.tell(false));
            return Vec::new();
        };
        let mut unplaced = Vec::with_capacity(alone.len());
        for (blob, guard) in alone {
            let (digest, id, bytes) = (blob.digest, blob.id, blob.bytes.clone());
            self.acknowledged.add(digest, id, bytes.clone());
            self.note_put(&digest, id, bytes.len());
            blob.tell(true);
            unplaced.push((digest, id, bytes, guard));
        }
        let mut stuck = Vec::new();
        for (digest, id, bytes, _guard) in unplaced {
            match self.place_unsynced(&digest, id, &bytes) {
                Ok(()) => self.acknowledged.remove(&digest),
                Err(error) => {
                    tracing::error!(%digest, %error, "a small blob could not be put in its place: the journal keeps it until it can");
                    stuck.push(Stuck { digest, id, placing: placing.of_one() });
                }
            }
        }
        stuck
    }

    /// Those that are stuck still.
    fn place_stuck(&self, stuck: Vec<Stuck>) -> Vec<Stuck> {
        stuck.into_iter().filter(|blob| !self.place_again(blob)).collect()
    }

    /// Whether there is no more to do for a blob: it is in its place, another put of it is, or it was taken away.
    fn place_again(&self, blob: &Stuck) -> bool {
        let Some(_alone) = self.placing_lock(&blob.digest).try_lock() else { return false };
        let Some(bytes) =
            self.acknowledged.bytes(&blob.digest).filter(|_| self.acknowledged.are_of(&blob.digest, blob.id))
        else {
            return true;
        };
        let placed = self.place_unsynced(&blob.digest, blob.id, &bytes);
        if placed.is_ok() {
            self.acknowledged.remove(&blob.digest);
            tracing::info!(digest = %blob.digest, "a small blob is in its place now");
        }
        placed.is_ok()
    }
}
