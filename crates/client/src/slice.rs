//! A run of bytes inside a local file: a blob of a layout directory, or a member of a tar archive that is never unpacked.

use std::{
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
};

use bytes::Bytes;
use futures_util::Stream;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use twinport_oci::{Algorithm, Digest, Hasher};

use crate::{Error, Result};

/// Bytes held per transfer.
const CHUNK: usize = 256 * 1024;

/// `len` bytes of the file at `path`, from `offset` on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    pub path: PathBuf,
    pub offset: u64,
    pub len: u64,
}

impl Slice {
    /// The bytes from `from` (counted in this slice) to its end, in chunks of at most 256 KiB. A file that ends early
    /// is an error.
    pub fn stream(&self, from: u64) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        let slice = self.clone();
        async_stream::try_stream! {
            let mut file = tokio::fs::File::open(&slice.path).await.map_err(|error| slice.error("open", error))?;
            let start = SeekFrom::Start(slice.offset + from);
            file.seek(start).await.map_err(|error| slice.error("read", error))?;
            // The default buffer of tokio's files would cut reads to 2 MiB at most; a chunk is smaller anyway.
            let mut left = slice.len.saturating_sub(from);
            while left > 0 {
                let want = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
                let mut chunk = vec![0; want];
                file.read_exact(&mut chunk).await.map_err(|error| slice.error("read", error))?;
                left -= want as u64;
                yield Bytes::from(chunk);
            }
        }
    }

    /// Opens the file for reading in step with something else.
    pub async fn reader(&self) -> Result<SliceReader> {
        let mut file = tokio::fs::File::open(&self.path).await.map_err(|error| self.error("open", error))?;
        file.seek(SeekFrom::Start(self.offset)).await.map_err(|error| self.error("read", error))?;
        Ok(SliceReader { slice: self.clone(), file, left: self.len })
    }

    /// All bytes of a slice of at most `limit` bytes. Blocks.
    pub(crate) fn read_all(&self, limit: u64) -> Result<Vec<u8>> {
        if self.len > limit {
            let reason = format!("a document of {} bytes is over the limit of {limit}", self.len);
            return Err(Error::NotAnImage { path: self.path.clone(), reason });
        }
        let mut bytes = Vec::new();
        let mut reader = self.blocking_reader()?;
        reader.read_to_end(&mut bytes).map_err(|error| self.error("read", error))?;
        Ok(bytes)
    }

    /// The digest of all bytes, and the first four of them, which tell a compression. Blocks.
    pub(crate) fn hash(&self) -> Result<(Digest, [u8; 4])> {
        let mut reader = self.blocking_reader()?;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut buffer = vec![0; CHUNK];
        let mut magic = [0; 4];
        let mut seen = 0usize;
        loop {
            let n = reader.read(&mut buffer).map_err(|error| self.error("read", error))?;
            if n == 0 {
                break;
            }
            for (at, byte) in buffer[..n].iter().enumerate().take(4usize.saturating_sub(seen)) {
                magic[seen + at] = *byte;
            }
            seen = seen.saturating_add(n);
            hasher.update(&buffer[..n]);
        }
        Ok((hasher.finish(), magic))
    }

    fn blocking_reader(&self) -> Result<std::io::Take<std::fs::File>> {
        let mut file = std::fs::File::open(&self.path).map_err(|error| self.error("open", error))?;
        file.seek(SeekFrom::Start(self.offset)).map_err(|error| self.error("read", error))?;
        Ok(file.take(self.len))
    }

    fn error(&self, doing: &'static str, source: std::io::Error) -> Error {
        Error::Io { doing, path: self.path.clone(), source }
    }
}

/// A slice being read from its start.
pub struct SliceReader {
    slice: Slice,
    file: tokio::fs::File,
    left: u64,
}

impl SliceReader {
    /// The next `len` bytes, or fewer where the slice ends.
    pub async fn next(&mut self, len: usize) -> Result<Vec<u8>> {
        let want = len.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let mut bytes = vec![0; want];
        self.file.read_exact(&mut bytes).await.map_err(|error| self.slice.error("read", error))?;
        self.left -= want as u64;
        Ok(bytes)
    }

    /// Bytes that were not read yet.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }
}
