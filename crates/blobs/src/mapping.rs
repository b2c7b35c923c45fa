//! Published files mapped into memory: the only `unsafe` of this crate.
//! Guards: a mapped page is populated on the blocking pool before anyone touches it.
//!
//! # Proof
//! A mapping is sound while the file's bytes do not change and the file does not shrink under it.
//! - Nothing in this crate writes to a published file: spools with more than one link refuse to be written
//!   ([`crate::Error::SpoolPublished`]), a repair puts a new inode in place by `rename`, and unlinking keeps the
//!   inode alive for as long as it is mapped.
//! - An outsider with write access to the data directory could alter or cut a file. Altered bytes are caught by
//!   whoever checks the digest. A cut is caught by the length compared at open and by `MADV_POPULATE_READ`, which
//!   answers EFAULT where a touch would raise SIGBUS (also for a disk that cannot read). What remains is a cut
//!   between populating a window and sending it; files of up to 64 KiB are never mapped.
#![expect(unsafe_code, reason = "mmap has no safe form; the proof is above")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::{Advice, Mmap, MmapOptions};
use rustix::io::Errno;

/// A whole published file, mapped read-only and shared.
#[derive(Debug, Clone)]
pub(crate) struct Mapping {
    map: Arc<Mmap>,
    bytes: Bytes,
}

struct Owner(Arc<Mmap>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Mapping {
    /// Maps the first `size` bytes of `file` (at least one) and reads its first page in.
    ///
    /// # Errors
    /// Those of mmap(2), and those of [`Mapping::load`].
    pub(crate) fn probe(file: &File, size: u64) -> io::Result<Self> {
        let len = usize::try_from(size).map_err(|_| Errno::NOMEM)?;
        // SAFETY: the module's proof; callers pass published files only.
        let map = Arc::new(unsafe { MmapOptions::new().len(len).map(file)? });
        let bytes = Bytes::from_owner(Owner(map.clone()));
        let mapping = Self { map, bytes };
        mapping.load(0..1)?;
        Ok(mapping)
    }

    /// Reads the pages of `range` in and returns it without copying. Blocks on the disk.
    ///
    /// # Errors
    /// EFAULT where the file no longer reaches or the disk fails; EINVAL before Linux 5.14.
    pub(crate) fn load(&self, range: Range<usize>) -> io::Result<Bytes> {
        self.map.advise_range(Advice::PopulateRead, range.start, range.len())?;
        Ok(self.bytes.slice(range))
    }
}
