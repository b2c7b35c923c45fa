//! New small blobs: one thread journals all that have come at a moment, and puts them in their places.
//! Guards: it waits for no lock of a blob, since whoever holds one may be waiting for the journal.

use std::sync::Weak;
use std::sync::mpsc::Receiver;

use bytes::Bytes;
use parking_lot::MutexGuard;
use tokio::sync::oneshot;
use twinport_oci::Digest;
use uuid::Uuid;

use super::super::LocalBlobs;
use super::{BATCH, Journal, LARGEST, record};

/// Bytes that a blob takes in the journal at most.
const MOST: usize = LARGEST + 1024;

/// A blob whose bytes were hashed, and who waits for it: told true when it is durable and in its place, false when it has to
/// be stored in another way.
#[derive(Debug)]
pub(super) struct NewBlob {
    digest: Digest,
    id: Uuid,
    bytes: Bytes,
    told: oneshot::Sender<bool>,
}

impl NewBlob {
    /// Bytes that it takes in the journal.
    fn len(&self) -> usize {
        record::length(&self.digest, self.bytes.len())
    }
}

impl Journal {
    /// Stores a blob together with all that come at this moment; false where that was not to be had.
    pub(in crate::local) async fn put(&self, digest: Digest, id: Uuid, bytes: Bytes) -> bool {
        let (told, answer) = oneshot::channel();
        self.new.send(NewBlob { digest, id, bytes, told }).is_ok() && answer.await.unwrap_or(false)
    }
}

/// Stores new blobs until the store is gone. A thread of its own.
pub(super) fn run(store: &Weak<LocalBlobs>, queue: &Receiver<NewBlob>) {
    while let Some(blobs) = next(queue) {
        let Some(store) = store.upgrade() else { return };
        store.put_together(blobs);
    }
}

/// All that have come, as far as they fit into one batch; waits for the first.
fn next(queue: &Receiver<NewBlob>) -> Option<Vec<NewBlob>> {
    let first = queue.recv().ok()?;
    let mut bytes = first.len();
    let mut blobs = vec![first];
    while bytes + MOST <= BATCH
        && let Ok(blob) = queue.try_recv()
    {
        bytes += blob.len();
        blobs.push(blob);
    }
    Some(blobs)
}

impl LocalBlobs {
    fn put_together(&self, blobs: Vec<NewBlob>) {
        let mut alone: Vec<(NewBlob, MutexGuard<'_, ()>)> = Vec::with_capacity(blobs.len());
        for blob in blobs {
            match self.placing_lock(&blob.digest).try_lock() {
                Some(guard) => alone.push((blob, guard)),
                // Another put or a removal of it is under way, perhaps one of these.
                None => tell(blob.told, false),
            }
        }
        let Some(Some(journal)) = self.journal.get().filter(|_| !alone.is_empty()) else { return };
        let stored = alone.iter().map(|(blob, _)| (blob.digest, blob.id, blob.bytes.clone()));
        let Some(_placing) = journal.store(stored) else {
            return alone.into_iter().for_each(|(blob, _)| tell(blob.told, false));
        };
        for (NewBlob { digest, id, bytes, told }, guard) in alone {
            let placed = self.place_journaled(&digest, id, &bytes);
            drop(guard);
            tell(told, placed);
        }
    }
}

fn tell(waiting: oneshot::Sender<bool>, placed: bool) {
    // Whoever waited may be gone; the blob is an outstanding put all the same.
    let _gone = waiting.send(placed);
}
