//! Spools at rest: their length, their hash made anew, their list and their end.
//! Guards: a progress recomputed from a file names synced bytes, as one that an append handed back.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use rustix::fs::{AtFlags, statat};
use rustix::io::Errno;
use twinport_oci::{Algorithm, Digest, Hasher};

use super::scan::hash_file;
use super::{LocalBlobs, blocking};
use crate::layout::SPOOL;
use crate::{Error, LeftoverSpool, Progress, Result, SpoolName};

impl LocalBlobs {
    pub(crate) async fn spool_len(self: &Arc<Self>, spool: &SpoolName) -> Result<Option<u64>> {
        let (store, spool) = (self.clone(), *spool);
        blocking("looking at a spool", move || {
            match statat(&store.spool, spool.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Ok(Some(u64::try_from(stat.st_size).unwrap_or(0))),
                Err(Errno::NOENT) => Ok(None),
                Err(e) => Err(store.spool_error("looking at", &spool, e)),
            }
        })
        .await
    }

    pub(crate) async fn rehash(
        self: &Arc<Self>,
        spool: &SpoolName,
        len: u64,
        algorithm: Algorithm,
    ) -> Result<Progress> {
        const REHASHING: &str = "hashing a spool";
        let claim = self.claim(spool)?;
        let (opening, name) = (claim.clone(), *spool);
        let file = blocking(REHASHING, move || {
            let file = match File::open(opening.store.spool_path(&name)) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Error::SpoolMissing(name)),
                Err(e) => return Err(opening.store.spool_error("opening", &name, e)),
            };
            opening.store.lock_spool(&name, &file)?;
            let metadata = file.metadata().map_err(|e| opening.store.spool_error("looking at", &name, e))?;
            if metadata.len() < len {
                return Err(Error::OffsetMismatch { spool: name, offset: len, len: metadata.len() });
            }
            // A process that died may have left bytes here that no append has synced.
            opening.store.sync.file(&file).map_err(|e| opening.store.spool_error("syncing", &name, e))?;
            Ok(Arc::new(file))
        })
        .await?;
        let (hasher, offset) = hash_file(file, len, Hasher::new(algorithm))
            .await?
            .map_err(|e| self.spool_error("reading", spool, e))?;
        if offset < len {
            return Err(Error::OffsetMismatch { spool: *spool, offset: len, len: offset });
        }
        Ok(Progress { offset, hasher })
    }

    pub(crate) async fn discard(self: &Arc<Self>, spool: &SpoolName) -> Result<()> {
        if self.forget_put(spool).is_some_and(|put| !put.named) {
            return Ok(());
        }
        let (store, spool) = (self.clone(), *spool);
        blocking("discarding a spool", move || store.discard_blocking(&spool)).await
    }

    /// See [`crate::Blobs::settle`].
    pub(crate) async fn settle(self: &Arc<Self>, digest: &Digest) -> Result<()> {
        let put = self.puts.lock().get(digest).map(|put| SpoolName::Put(*digest, put.id));
        for spool in put.into_iter().chain([SpoolName::Transfer(*digest)]) {
            self.discard(&spool).await?;
        }
        Ok(())
    }

    pub(crate) async fn spools(self: &Arc<Self>) -> Result<Vec<LeftoverSpool>> {
        let store = self.clone();
        blocking("listing spools", move || {
            let path = store.root.join(SPOOL);
            let failed = |e| Error::io("listing", &path, e);
            let mut spools = Vec::new();
            for entry in fs::read_dir(&path).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let Some(name) = entry.file_name().to_str().and_then(SpoolName::parse) else {
                    tracing::warn!(path = %entry.path().display(), "a stranger lies among the spools, left alone");
                    continue;
                };
                match entry.metadata() {
                    Ok(metadata) => {
                        spools.push(LeftoverSpool { name, len: metadata.len(), links: metadata.nlink() });
                    }
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(failed(e)),
                }
            }
            // Those that the journal tells of.
            for (digest, put) in store.puts.lock().iter().filter(|(_, put)| !put.named) {
                spools.push(LeftoverSpool { name: SpoolName::Put(*digest, put.id), len: put.len, links: 2 });
            }
            spools.sort_unstable_by_key(|spool| spool.name);
            Ok(spools)
        })
        .await
    }
}
