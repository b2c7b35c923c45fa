//! The marker that says which incarnation of a site the stored bytes belong to.
//! Guards: the marker is whole or absent, also after a power cut.

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
            let unfinished = path.with_extension("unfinished");
            let parent = path.parent().unwrap_or(&store.root);
            let written = || -> io::Result<()> {
                let mut file = File::create(&unfinished)?;
                writeln!(file, "{incarnation}")?;
                store.sync.file(&file)?;
                fs::rename(&unfinished, &path)?;
                store.sync.directory(File::open(parent)?)
            };
            written().map_err(|e| Error::io("writing", &path, e))
        })
        .await
    }
}
