//! The bytes of one file, twice: as programs see them, and as the disk would hold them after a cut.
//! Guards: only [`Content::sync`] moves bytes from the one to the other.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(super) struct Content {
    durable: Durable,
    /// None while no byte differs from the durable ones.
    live: Option<Live>,
}

#[derive(Debug)]
enum Durable {
    /// As it was at the mount, still in the backing directory.
    Backing {
        path: PathBuf,
        len: u64,
    },
    Memory(Vec<u8>),
}

#[derive(Debug)]
struct Live {
    bytes: Vec<u8>,
    /// What was written since the last sync; may overlap, may lie beyond a later truncation.
    dirty: Vec<Range<usize>>,
    resized: bool,
}

impl Content {
    pub(super) fn empty() -> Self {
        Self { durable: Durable::Memory(Vec::new()), live: None }
    }

    pub(super) fn backed_by(path: PathBuf, len: u64) -> Self {
        Self { durable: Durable::Backing { path, len }, live: None }
    }

    pub(super) fn len(&self) -> u64 {
        match (&self.live, &self.durable) {
            (Some(live), _) => live.bytes.len() as u64,
            (None, Durable::Memory(bytes)) => bytes.len() as u64,
            (None, Durable::Backing { len, .. }) => *len,
        }
    }

    pub(super) fn read(&self, offset: u64, size: usize) -> io::Result<Vec<u8>> {
        let bytes = match (&self.live, &self.durable) {
            (Some(live), _) => &live.bytes,
            (None, Durable::Memory(bytes)) => bytes,
            (None, Durable::Backing { path, .. }) => return read_at(path, offset, size),
        };
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let to = from.saturating_add(size).min(bytes.len());
        Ok(bytes[from..to].to_vec())
    }

    pub(super) fn write(&mut self, offset: usize, data: &[u8]) -> io::Result<()> {
        let live = self.live()?;
        let end = offset + data.len();
        if end > live.bytes.len() {
            live.grow(end);
        }
        live.bytes[offset..end].copy_from_slice(data);
        live.mark(offset..end);
        Ok(())
    }

    pub(super) fn resize(&mut self, len: usize) -> io::Result<()> {
        let live = self.live()?;
        if len > live.bytes.len() {
            live.grow(len);
        } else {
            live.bytes.truncate(len);
        }
        live.resized = true;
        Ok(())
    }

    /// What fsync and fdatasync do.
    pub(super) fn sync(&mut self) {
        let Some(live) = &mut self.live else { return };
        let dirty = std::mem::take(&mut live.dirty);
        live.resized = false;
        match &mut self.durable {
            Durable::Backing { .. } => self.durable = Durable::Memory(live.bytes.clone()),
            Durable::Memory(durable) => {
                durable.resize(live.bytes.len(), 0);
                for range in dirty {
                    let range = range.start.min(durable.len())..range.end.min(durable.len());
                    durable[range.clone()].copy_from_slice(&live.bytes[range]);
                }
            }
        }
    }

    /// Gives the second copy back where it says nothing new. For a file that nobody has open.
    pub(super) fn settle(&mut self) {
        if self.live.as_ref().is_some_and(|live| live.dirty.is_empty() && !live.resized) {
            self.live = None;
        }
    }

    /// Writes what a cut leaves to `target`, which does not exist.
    pub(super) fn store(&self, target: &Path) -> io::Result<()> {
        match &self.durable {
            Durable::Backing { path, .. } => std::fs::hard_link(path, target),
            Durable::Memory(bytes) => std::fs::write(target, bytes),
        }
    }

    fn live(&mut self) -> io::Result<&mut Live> {
        if self.live.is_none() {
            let bytes = match &self.durable {
                Durable::Backing { path, .. } => std::fs::read(path)?,
                Durable::Memory(bytes) => bytes.clone(),
            };
            self.live = Some(Live { bytes, dirty: Vec::new(), resized: false });
        }
        self.live.as_mut().ok_or_else(|| io::Error::other("the copy was made above"))
    }
}

impl Live {
    /// The gap up to a write beyond the end reads as zeros, on the disk too.
    fn grow(&mut self, len: usize) {
        let end = self.bytes.len();
        self.bytes.resize(len, 0);
        self.mark(end..len);
    }

    fn mark(&mut self, range: Range<usize>) {
        match self.dirty.last_mut() {
            Some(last) if last.start <= range.start && range.start <= last.end => {
                last.end = last.end.max(range.end);
            }
            _ => self.dirty.push(range),
        }
    }
}

fn read_at(path: &Path, offset: u64, size: usize) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut bytes = vec![0; size];
    let mut filled = 0;
    while filled < size {
        match file.read_at(&mut bytes[filled..], offset + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_cut(content: &Content) -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("survivor");
        content.store(&target).unwrap();
        std::fs::read(target).unwrap()
    }

    #[test]
    fn a_cut_keeps_the_bytes_of_the_last_sync() {
        let mut content = Content::empty();
        content.write(2, b"cd").unwrap();
        assert_eq!(after_cut(&content), b"");
        content.sync();
        content.write(0, b"ab").unwrap();
        content.write(4, b"ef").unwrap();
        assert_eq!(content.read(0, 10).unwrap(), b"abcdef");
        assert_eq!(after_cut(&content), b"\0\0cd");
        content.sync();
        assert_eq!(after_cut(&content), b"abcdef");
    }

    #[test]
    fn a_file_that_shrank_and_grew_again_holds_zeros_in_between() {
        let mut content = Content::empty();
        content.write(0, b"secret").unwrap();
        content.sync();
        content.resize(1).unwrap();
        content.resize(6).unwrap();
        assert_eq!(after_cut(&content), b"secret");
        content.sync();
        assert_eq!(after_cut(&content), b"s\0\0\0\0\0");
        content.resize(0).unwrap();
        content.settle();
        assert_eq!(content.len(), 0);
        assert_eq!(after_cut(&content), b"s\0\0\0\0\0");
        content.sync();
        assert_eq!(after_cut(&content), b"");
    }
}
