//! Finding and opening published blobs.
//! Guards: a blob whose length is not the recorded one is refused before its first byte is sent (hazard S6).

use std::fs::File;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;
use twinport_oci::Digest;

use super::{LocalBlobs, blocking};
use crate::layout::BlobPath;
use crate::{BlobFile, Error, Result};

impl LocalBlobs {
    pub(crate) async fn stat(self: &Arc<Self>, digest: &Digest) -> Result<Option<u64>> {
        let (store, digest) = (self.clone(), *digest);
        blocking("looking for a blob", move || store.stat_blocking(&digest)).await
    }

    pub(super) fn stat_blocking(&self, digest: &Digest) -> Result<Option<u64>> {
        if let Some(bytes) = self.acknowledged.bytes(digest) {
            return Ok(Some(bytes.len() as u64));
        }
        let path = BlobPath::of(digest);
        match statat(&self.blobs, path.data(), AtFlags::empty()) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_file() => {
                Ok(Some(u64::try_from(stat.st_size).unwrap_or(0)))
            }
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(e) => Err(self.blob_error("looking at", &path, e)),
        }
    }

    pub(crate) async fn open_blob(
        self: &Arc<Self>,
        digest: &Digest,
        expected: Option<u64>,
    ) -> Result<BlobFile> {
        let (store, digest) = (self.clone(), *digest);
        let refuse_other = move |actual| match expected {
            Some(expected) if expected != actual => Err(Error::Corrupt { digest, expected, actual }),
            _ => Ok(()),
        };
        if let Some(bytes) = self.acknowledged.bytes(&digest) {
            return refuse_other(bytes.len() as u64).map(|()| BlobFile::held_whole(bytes));
        }
        blocking("opening a blob", move || {
            let file = store.open_published(&digest)?;
            let path = BlobPath::of(&digest).under(&store.root);
            let actual = file.metadata().map_err(|e| Error::io("looking at", &path, e))?.len();
            refuse_other(actual)?;
            BlobFile::new(file, actual, path)
        })
        .await
    }

    pub(super) fn open_published(&self, digest: &Digest) -> Result<File> {
        let path = BlobPath::of(digest);
        match openat(&self.blobs, path.data(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => Ok(file.into()),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(Error::NotFound(*digest)),
            Err(e) => Err(self.blob_error("opening", &path, e)),
        }
    }
}
