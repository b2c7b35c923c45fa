//! The marker that says which incarnation of a site the stored bytes belong to.
//! Guards: the marker is whole or absent, also after a power cut; of two sites that claim a store, one has it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use uuid::Uuid;

use super::{LocalBlobs, blocking};
use crate::layout::INCARNATION;
use crate::{Error, Result};

impl LocalBlobs {
    fn marker(&self) -> PathBuf {
        self.root.join(INCARNATION)
    }

    pub(crate) async fn incarnation(self: &Arc<Self>) -> Result<Option<Uuid>> {
        let store = self.clone();
        blocking("reading the incarnation", move || {
            let path = store.marker();
            match fs::read_to_string(&path) {
                Ok(text) => text.trim().parse().map(Some).map_err(|_| Error::Marker { path }),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(Error::io("reading", path, e)),
            }
        })
        .await
    }

    pub(crate) async fn set_incarnation(self: &Arc<Self>, incarnation: Uuid) -> Result<()> {
        let store = self.clone();
        blocking("writing the incarnation", move || {
            let path = store.marker();
            let written = || -> io::Result<()> {
                let unfinished = store.write_unfinished(incarnation)?;
                fs::rename(&unfinished, &path)?;
                store.sync_marker()
            };
            written().map_err(|e| Error::io("writing", &path, e))
        })
        .await
    }

    pub(crate) async fn claim_store(self: &Arc<Self>, incarnation: Uuid) -> Result<Uuid> {
        let store = self.clone();
        blocking("writing the incarnation", move || {
            let path = store.marker();
            // Nodes of one site that start at once would write, and take away, one file.
            let _alone = store.lock_removals().map_err(|e| Error::io("locking", &path, e))?;
            if path.try_exists().map_err(|e| Error::io("looking for", &path, e))? {
                // A crash right after the link leaves it. Nothing hangs on it, and the disk may be read-only.
                fs::remove_file(store.unfinished_marker(incarnation)).ok();
                return Ok(());
            }
            let written = || -> io::Result<()> {
                let unfinished = store.write_unfinished(incarnation)?;
                // A link, unlike a rename, never replaces what another site has put there meanwhile.
                match fs::hard_link(&unfinished, &path) {
                    Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                    _ => fs::remove_file(&unfinished)?,
                }
                store.sync_marker()
            };
            written().map_err(|e| Error::io("writing", &path, e))
        })
        .await?;
        Ok(self.incarnation().await?.unwrap_or(incarnation))
    }

    /// A name of this site's own, so that two sites never write one file.
    fn unfinished_marker(&self, incarnation: Uuid) -> PathBuf {
        self.marker().with_extension(incarnation.to_string())
    }

    fn write_unfinished(&self, incarnation: Uuid) -> io::Result<PathBuf> {
        let unfinished = self.unfinished_marker(incarnation);
        let mut file = File::create(&unfinished)?;
        writeln!(file, "{incarnation}")?;
        self.sync.file(&file)?;
        Ok(unfinished)
    }

    fn sync_marker(&self) -> io::Result<()> {
        let marker = self.marker();
        self.sync.directory(File::open(marker.parent().unwrap_or(&self.root))?)
    }
}
