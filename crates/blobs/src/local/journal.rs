//! Small blobs on their way to their places: their bytes are durable here, many with one sync, which is when they are
//! acknowledged; then they are written where they belong, and leave when all of that is on the disk too.
//! Guards: until a segment is emptied, everything it acknowledged can be put in place again from it, after a crash at any
//! moment. Memory: three batches of 4 MiB at most, gathering, being written and being placed, one of them a second time as it is
//! written, and about 50 bytes for each blob of the segments in use; a segment, 16 MiB, while one is read after a crash.

mod acknowledged;
mod placer;
mod record;
mod replay;
mod retire;
mod segment;

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use twinport_oci::Digest;
use uuid::Uuid;

pub(super) use self::acknowledged::Acknowledged;
use self::placer::NewBlob;
use self::record::Entry;
use self::segment::{Segment, SegmentFile, Unplaced};
use super::LocalBlobs;
use crate::SyncPolicy;
use crate::layout::JOURNAL;

/// Larger blobs gain little from sharing a sync, and would be written twice.
pub(super) const LARGEST: usize = 64 << 10;
/// Entries that wait for one sync, in bytes; who comes later waits for the next batch.
const BATCH: usize = 4 << 20;
/// One is filled while others are emptied; where all are full, blobs take the way without a journal.
const SEGMENTS: usize = 3;

/// The journal of one store and process.
#[derive(Debug)]
pub(super) struct Journal {
    directory: PathBuf,
    sync: SyncPolicy,
    state: Mutex<State>,
    turned: Condvar,
    /// Full segments, to the thread that empties them; it ends when this is gone.
    full: Sender<Segment>,
    /// New blobs, to the thread that journals and places them; it ends when this is gone.
    new: Sender<NewBlob>,
}

#[derive(Debug)]
struct State {
    /// Who comes joins this.
    gathering: Arc<Batch>,
    /// Somebody is writing a batch.
    writing: bool,
    segment: Option<Segment>,
    empty: Vec<SegmentFile>,
    /// How many there are, wherever they are.
    segments: usize,
}

/// Entries that share a write and a sync.
#[derive(Debug, Default)]
struct Batch {
    entries: Mutex<(usize, Vec<Entry>)>,
    /// The segment that holds them durably; none where they could not be written.
    outcome: OnceLock<Option<Arc<Unplaced>>>,
}

/// The right and the duty to put journaled blobs in their places: their segment stays until this is dropped.
#[derive(Debug)]
pub(super) struct Placing {
    segment: Arc<Unplaced>,
    blobs: usize,
}

impl Placing {
    /// That of one of them, apart from the others'.
    fn of_one(&mut self) -> Self {
        self.blobs -= 1;
        Self { segment: self.segment.clone(), blobs: 1 }
    }
}

impl Drop for Placing {
    fn drop(&mut self) {
        // What a panic left undone is for the next start: its segment is not emptied any more.
        if !std::thread::panicking() {
            self.segment.placed(self.blobs);
        }
    }
}

impl LocalBlobs {
    /// The journal, where this store has one. It begins with the first small blob.
    pub(super) fn begun_journal(self: &Arc<Self>) -> Option<&Journal> {
        self.journal.get_or_init(|| self.begin_journal()).as_ref()
    }

    fn begin_journal(self: &Arc<Self>) -> Option<Journal> {
        let (full, segments) = mpsc::channel();
        let (new, blobs) = mpsc::channel();
        let (emptied, filled) = (Arc::downgrade(self), Arc::downgrade(self));
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let begun = thread("blob-journal")
            .spawn(move || retire::run(&emptied, &segments))
            .and_then(|_| thread("blob-placer").spawn(move || placer::run(&filled, &blobs)));
        match begun {
            Ok(_) => Some(Journal::new(self.root.join(JOURNAL), self.sync, full, new)),
            Err(error) => {
                tracing::warn!(%error, "no thread for a journal: small blobs are stored without");
                None
            }
        }
    }
}

impl Journal {
    fn new(directory: PathBuf, sync: SyncPolicy, full: Sender<Segment>, new: Sender<NewBlob>) -> Self {
        let state = State {
            gathering: Arc::default(),
            writing: false,
            segment: None,
            empty: Vec::new(),
            segments: 0,
        };
        Self { directory, sync, state: Mutex::new(state), turned: Condvar::new(), full, new }
    }

    /// Makes the bytes of blobs durable, up to [`BATCH`] of them. None where that is not to be had here: the caller stores
    /// them without. Blocks.
    pub(super) fn store(&self, blobs: impl Iterator<Item = (Digest, Uuid, Bytes)>) -> Option<Placing> {
        let entries: Vec<_> = blobs.map(|(digest, id, bytes)| Entry::Stored { digest, id, bytes }).collect();
        let blobs = entries.len();
        self.append(entries).map(|segment| Placing { segment, blobs })
    }

    /// Keeps a blob that is about to be removed from coming back. False where that is not to be had. Blocks.
    pub(super) fn forget(&self, digest: &Digest) -> bool {
        // Where no segment holds anything, nothing can come back.
        self.state.lock().segments == 0 || self.append(vec![Entry::Removed { digest: *digest }]).is_some()
    }

    /// Waits until the entries are durable, and writes the batch that they are in if nobody else does.
    fn append(&self, mut entries: Vec<Entry>) -> Option<Arc<Unplaced>> {
        let bytes: usize = entries.iter().map(Entry::len).sum();
        let mut state = self.state.lock();
        let batch = loop {
            let batch = state.gathering.clone();
            let mut gathered = batch.entries.lock();
            if gathered.0 == 0 || gathered.0 + bytes <= BATCH {
                gathered.0 += bytes;
                gathered.1.append(&mut entries);
                drop(gathered);
                break batch;
            }
            drop(gathered);
            self.turned.wait(&mut state);
        };
        loop {
            if let Some(outcome) = batch.outcome.get() {
                return outcome.clone();
            }
            if state.writing {
                self.turned.wait(&mut state);
                continue;
            }
            state.writing = true;
            // Whoever has come since the last batch was taken is in this one, the caller among them.
            let taken = std::mem::take(&mut state.gathering);
            let segment = state.segment.take();
            drop(state);
            let (segment, outcome) = self.write(segment, &taken);
            state = self.state.lock();
            state.segment = segment;
            state.writing = false;
            let _set_once = taken.outcome.set(outcome);
            self.turned.notify_all();
        }
    }

    /// Writes a batch to the segment, or to the next one where it has no room, and syncs it.
    fn write(&self, segment: Option<Segment>, batch: &Batch) -> (Option<Segment>, Option<Arc<Unplaced>>) {
        let (bytes, entries) = std::mem::take(&mut *batch.entries.lock());
        let Some(mut segment) = self.with_room(segment, bytes) else { return (None, None) };
        let mut content = Vec::with_capacity(bytes);
        for entry in &entries {
            entry.write(segment.epoch, &mut content);
        }
        let written = segment
            .file
            .file
            .write_all_at(&content, segment.end)
            .and_then(|()| self.sync.file(&segment.file.file));
        if let Err(error) = written {
            tracing::error!(path = %segment.file.path.display(), %error, "could not write the journal of small blobs");
            // What it acknowledged before stands, and is put where it belongs; nothing more goes into it.
            segment.failed = true;
            self.retire(segment);
            return (None, None);
        }
        segment.end += content.len() as u64;
        let stored = entries.iter().filter_map(|entry| match entry {
            Entry::Stored { digest, id, .. } => Some((*digest, *id)),
            Entry::Removed { .. } => None,
        });
        let before = segment.stored.len();
        segment.stored.extend(stored);
        segment.unplaced.add(segment.stored.len() - before);
        let unplaced = segment.unplaced.clone();
        (Some(segment), Some(unplaced))
    }

    fn with_room(&self, segment: Option<Segment>, bytes: usize) -> Option<Segment> {
        match segment {
            Some(segment) if segment.has_room(bytes) => return Some(segment),
            Some(full) => self.retire(full),
            None => {}
        }
        let mut state = self.state.lock();
        if let Some(empty) = state.empty.pop() {
            return Some(Segment::begin(empty));
        }
        if state.segments == SEGMENTS {
            return None;
        }
        state.segments += 1;
        drop(state);
        let made = std::fs::create_dir_all(&self.directory)
            .and_then(|()| SegmentFile::make(&self.directory, self.sync));
        match made {
            Ok(file) => Some(Segment::begin(file)),
            Err(error) => {
                self.state.lock().segments -= 1;
                tracing::warn!(directory = %self.directory.display(), %error, "could not make a journal: small blobs are stored without");
                None
            }
        }
    }

    fn retire(&self, segment: Segment) {
        // The thread ends with the store alone; what is left is read at the next open.
        let _stopping = self.full.send(segment);
    }

    /// Takes the segment that is being filled, where it holds anything and nobody is writing to it.
    fn take_filled(&self) -> Option<Segment> {
        let mut state = self.state.lock();
        if state.writing || state.segment.as_ref().is_none_or(|segment| segment.end == 0) {
            return None;
        }
        state.segment.take()
    }

    /// Has a segment back that holds nothing any more.
    fn reuse(&self, segment: Segment) {
        let mut state = self.state.lock();
        if segment.failed {
            segment.file.remove();
            state.segments -= 1;
        } else {
            state.empty.push(segment.file);
        }
    }
}
