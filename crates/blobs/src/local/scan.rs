//! Going over what is stored: every blob in order, and one blob's bytes hashed anew.
//! Guards: memory stays bounded by one first-level directory, whatever the number of blobs.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use rustix::fs::{Dir, Mode, OFlags, openat};
use rustix::io::Errno;
use twinport_oci::{Algorithm, Digest, Hasher};

use super::{LocalBlobs, blocking};
use crate::layout::{ALGORITHMS, prefixes};
use crate::{Error, Result, Verdict};

/// Blobs looked at per hop.
const CHUNK: usize = 512;
/// Bytes hashed per hop (4–8 ms), so that a long blob gives its thread back and can be cancelled.
const HASHED_PER_HOP: u64 = 8 << 20;
const READ: usize = 256 << 10;

impl LocalBlobs {
    pub(crate) fn scan(
        self: &Arc<Self>,
    ) -> impl Stream<Item = Result<(Digest, u64)>> + Send + 'static + use<> {
        let store = self.clone();
        let directories =
            ALGORITHMS.into_iter().flat_map(|algorithm| prefixes().map(move |p| (algorithm, p)));
        stream::iter(directories)
            .then(move |(algorithm, prefix)| {
                let store = store.clone();
                async move {
                    let listing = store.clone();
                    let digests =
                        blocking("listing blobs", move || listing.digests_below(algorithm, &prefix)).await?;
                    let chunks: Vec<_> = digests.chunks(CHUNK).map(<[Digest]>::to_vec).collect();
                    Ok(stream::iter(chunks)
                        .then(move |chunk| store.clone().with_sizes(chunk))
                        .map_ok(|sized| stream::iter(sized.into_iter().map(Ok)))
                        .try_flatten())
                }
            })
            .try_flatten()
    }

    async fn with_sizes(self: Arc<Self>, digests: Vec<Digest>) -> Result<Vec<(Digest, u64)>> {
        blocking("looking at blobs", move || {
            let mut sized = Vec::with_capacity(digests.len());
            for digest in digests {
                // A directory without its data file is a publish that never came to an end.
                if let Some(size) = self.stat_blocking(&digest)? {
                    sized.push((digest, size));
                }
            }
            Ok(sized)
        })
        .await
    }

    fn digests_below(&self, algorithm: Algorithm, prefix: &str) -> Result<Vec<Digest>> {
        let path = format!("{algorithm}/{prefix}");
        let failed = |e: Errno| Error::io("listing", self.blobs_path().join(&path), e);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = match openat(&self.blobs, path.as_str(), flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(Vec::new()),
            Err(e) => return Err(failed(e)),
        };
        let mut digests = Vec::new();
        for entry in Dir::new(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let digest = entry.file_name().to_str().ok().filter(|name| name.starts_with(prefix));
            let digest = digest.and_then(|hex| format!("{algorithm}:{hex}").parse::<Digest>().ok());
            digests.extend(digest);
        }
        digests.sort_unstable();
        Ok(digests)
    }

    pub(crate) async fn verify(self: &Arc<Self>, digest: &Digest) -> Result<Verdict> {
        let (store, digest) = (self.clone(), *digest);
        let opening = move || {
            // What was acknowledged a moment ago is on its way to its place.
            if store.acknowledged.bytes(&digest).is_some() {
                drop(store.placing(&digest));
            }
            store.open_published(&digest)
        };
        let file = match blocking("opening a blob", opening).await {
            Ok(file) => Arc::new(file),
            Err(Error::NotFound(_)) if let Some(bytes) = self.acknowledged.bytes(&digest) => {
                return Ok(Verdict::Whole { size: bytes.len() as u64 });
            }
            Err(Error::NotFound(_)) => return Ok(Verdict::Missing),
            Err(e) => return Err(e),
        };
        let path = crate::layout::BlobPath::of(&digest);
        let (hasher, size) = hash_file(file, u64::MAX, Hasher::new(digest.algorithm()))
            .await?
            .map_err(|e| self.blob_error("reading", &path, e))?;
        let actual = hasher.finish();
        Ok(if actual == digest { Verdict::Whole { size } } else { Verdict::Altered { actual } })
    }
}

/// Hashes up to `len` bytes from the start of a file; answers how many there were.
pub(super) async fn hash_file(
    file: Arc<File>,
    len: u64,
    mut hasher: Hasher,
) -> Result<io::Result<(Hasher, u64)>> {
    let mut offset = 0;
    loop {
        let end = len.min(offset + HASHED_PER_HOP);
        let file = file.clone();
        let hop = blocking("hashing", move || Ok(hash_range(&file, offset, end, hasher))).await?;
        let (hashed, reached) = match hop {
            Ok(hop) => hop,
            Err(e) => return Ok(Err(e)),
        };
        hasher = hashed;
        offset = reached;
        if reached < end || reached == len {
            return Ok(Ok((hasher, reached)));
        }
    }
}

fn hash_range(file: &File, mut offset: u64, end: u64, mut hasher: Hasher) -> io::Result<(Hasher, u64)> {
    let mut buffer = vec![0; READ];
    while offset < end {
        let room = usize::try_from(end - offset).map_or(READ, |left| left.min(READ));
        match file.read_at(&mut buffer[..room], offset) {
            Ok(0) => break,
            Ok(read) => {
                hasher.update(&buffer[..read]);
                offset += read as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok((hasher, offset))
}
