//! Small blobs that were acknowledged and are not in their places yet: the journal has them, and readers have them from here.
//! Guards: who looks here first, and then at the places, misses none.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use twinport_oci::Digest;
use uuid::Uuid;

/// Up to a batch of the journal, in memory for as long as it takes to write it: milliseconds, or until the disk has room.
#[derive(Debug, Default)]
pub(in crate::local) struct Acknowledged {
    blobs: Mutex<HashMap<Digest, (Uuid, Bytes)>>,
    none: Condvar,
}

impl Acknowledged {
    pub(super) fn add(&self, digest: Digest, id: Uuid, bytes: Bytes) {
        self.blobs.lock().insert(digest, (id, bytes));
    }

    pub(in crate::local) fn bytes(&self, digest: &Digest) -> Option<Bytes> {
        self.blobs.lock().get(digest).map(|(_, bytes)| bytes.clone())
    }

    /// Whether this put of a blob is among them.
    pub(in crate::local) fn are_of(&self, digest: &Digest, id: Uuid) -> bool {
        self.blobs.lock().get(digest).is_some_and(|(put, _)| *put == id)
    }

    /// The blob is in its place, or was taken away. The caller has the lock of its place.
    pub(in crate::local) fn remove(&self, digest: &Digest) {
        let mut blobs = self.blobs.lock();
        if blobs.remove(digest).is_some() && blobs.is_empty() {
            self.none.notify_all();
        }
    }

    /// Waits until all are in their places, for so long; how many are not. Blocks.
    pub(in crate::local) fn wait_for_none(&self, patience: Duration) -> usize {
        let mut blobs = self.blobs.lock();
        let _may_have_timed_out = self.none.wait_while_for(&mut blobs, |blobs| !blobs.is_empty(), patience);
        blobs.len()
    }
}
