//! An opened blob: its size and a stream over any range of it.
//! Guards: a stream never waits for the disk on a reactor thread, and never yields fewer bytes than it was asked for.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::Either;
use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use rustix::io::Errno;

use crate::bucket::RemoteBlob;
use crate::local::blocking;
use crate::mapping::Mapping;
use crate::{Error, Result};

/// Blobs up to this many bytes are read whole by the hop that opens them.
const SMALL: u64 = 64 << 10;
/// Bytes made ready per hop; one window is prepared while the one before is sent.
const WINDOW: u64 = 1 << 20;
const READ_WINDOW: u64 = 256 << 10;
const SLICE: usize = 256 << 10;

/// A published blob, open for reading. From a local store it stays readable when the blob is unlinked or replaced meanwhile;
/// from object storage a stream that begins later, or breaks, then fails.
#[derive(Debug, Clone)]
pub struct BlobFile {
    size: u64,
    path: Arc<PathBuf>,
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    Held(Bytes),
    Mapped(Mapping),
    /// Where mapping is not to be had (an old kernel, an odd file system).
    Read(Arc<File>),
    Remote(Arc<RemoteBlob>),
}

impl BlobFile {
    /// Blocking: reads a small file, maps a large one.
    pub(crate) fn new(file: File, size: u64, path: PathBuf) -> Result<Self> {
        let path = Arc::new(path);
        let content = if size <= SMALL {
            let held = read_exactly(&file, 0..size).map_err(|e| Error::io("reading", path.as_path(), e))?;
            Content::Held(held)
        } else {
            match Mapping::probe(&file, size) {
                Ok(mapping) => Content::Mapped(mapping),
                Err(e) if unmappable(&e) => Content::Read(Arc::new(file)),
                Err(e) => return Err(Error::io("mapping", path.as_path(), e)),
            }
        };
        Ok(Self { size, path, content })
    }

    /// A blob of object storage that is small enough to be held.
    pub(crate) fn held_whole(bytes: Bytes) -> Self {
        let size = bytes.len() as u64;
        Self { size, path: Arc::default(), content: Content::Held(bytes) }
    }

    pub(crate) fn remote(blob: RemoteBlob, size: u64) -> Self {
        Self { size, path: Arc::default(), content: Content::Remote(Arc::new(blob)) }
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The whole content, where the blob is small enough (up to 64 KiB) to be held in memory already.
    pub fn held(&self) -> Option<Bytes> {
        match &self.content {
            Content::Held(bytes) => Some(bytes.clone()),
            Content::Mapped(_) | Content::Read(_) | Content::Remote(_) => None,
        }
    }

    /// The bytes of `range` in slices of at most 256 KiB, without copying them where the file is mapped.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a range that is not within the blob; [`Error::Io`] where the disk fails or the file was cut;
    /// where the object storage fails, its errors.
    pub fn stream(&self, range: Range<u64>) -> impl Stream<Item = Result<Bytes>> + Send + 'static + use<> {
        match &self.content {
            Content::Remote(blob) if range.start <= range.end && range.end <= self.size => {
                let pieces = blob.stream(range);
                Either::Right(
                    pieces.map_ok(|bytes| stream::iter(slices(bytes).map(Ok))).try_flatten().boxed(),
                )
            }
            _ => Either::Left(self.windows(range)),
        }
    }

    fn windows(&self, range: Range<u64>) -> impl Stream<Item = Result<Bytes>> + Send + 'static + use<> {
        let step = match &self.content {
            Content::Held(_) => SMALL,
            Content::Mapped(_) => WINDOW,
            Content::Read(_) | Content::Remote(_) => READ_WINDOW,
        };
        let outside = range.start > range.end || range.end > self.size;
        let refusal =
            outside.then(|| Err(Error::OutOfRange { start: range.start, end: range.end, size: self.size }));
        let blob = self.clone();
        let windows = windows(if outside { 0..0 } else { range }, step);
        stream::iter(refusal).chain(
            stream::iter(windows)
                .map(move |window| blob.clone().load(window))
                .buffered(2)
                .map_ok(|bytes| stream::iter(slices(bytes).map(Ok)))
                .try_flatten(),
        )
    }

    async fn load(self, window: Range<u64>) -> Result<Bytes> {
        if let Content::Held(bytes) = &self.content {
            return Ok(bytes.slice(to_usize(&window)));
        }
        blocking("reading a blob", move || {
            let loaded = match &self.content {
                Content::Held(bytes) => Ok(bytes.slice(to_usize(&window))),
                Content::Mapped(mapping) => mapping.load(to_usize(&window)),
                Content::Read(file) => read_exactly(file, window),
                Content::Remote(_) => Err(io::ErrorKind::Unsupported.into()),
            };
            loaded.map_err(|e| Error::io("reading", self.path.as_path(), e))
        })
        .await
    }
}

/// EINVAL: a kernel that cannot populate (before Linux 5.14); ENODEV: a file system that cannot map.
fn unmappable(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::NODEV | Errno::NOMEM))
}

fn windows(range: Range<u64>, step: u64) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    let mut start = range.start;
    std::iter::from_fn(move || {
        // Windows after the first are aligned, so that no page is populated twice.
        let next = ((start / step + 1) * step).min(end);
        let window = (start < end).then_some(start..next);
        start = next;
        window
    })
}

fn slices(bytes: Bytes) -> impl Iterator<Item = Bytes> {
    (0..bytes.len()).step_by(SLICE).map(move |at| bytes.slice(at..bytes.len().min(at + SLICE)))
}

fn to_usize(range: &Range<u64>) -> Range<usize> {
    // Lossless: ranges were checked against a length that fits the address space.
    range.start as usize..range.end as usize
}

fn read_exactly(file: &File, range: Range<u64>) -> io::Result<Bytes> {
    let mut buffer = BytesMut::zeroed(to_usize(&range).len());
    file.read_exact_at(&mut buffer, range.start)?;
    Ok(buffer.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_a_range_without_gap_or_overlap() {
        for (range, step) in [(0..0, 10), (3..3, 10), (0..10, 10), (7..31, 10), (9..10, 10), (10..40, 10)] {
            let mut at = range.start;
            for window in windows(range.clone(), step) {
                assert_eq!(window.start, at);
                assert!(window.end > window.start && window.end - window.start <= step);
                at = window.end;
            }
            assert_eq!(at, range.end);
        }
    }
}
