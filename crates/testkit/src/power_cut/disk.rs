//! Reading a disk's state from the backing directory, and writing what survived back to it.
//! Guards: the backing directory is replaced only once the new state is complete beside it.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use super::content::Content;
use super::node::{Body, Directory, Ino, Node};
use super::world::{ROOT, World};

impl World {
    /// The state in `backing`, all of it durable.
    pub(super) fn load(backing: &Path) -> io::Result<Self> {
        let mut world = Self::new();
        let mut known = HashMap::new();
        world.load_directory(&backing.canonicalize()?, ROOT, &mut known)?;
        Ok(world)
    }

    fn load_directory(&mut self, path: &Path, ino: Ino, known: &mut HashMap<u64, Ino>) -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let body = if metadata.is_dir() {
                Body::Directory(Directory { parent: ino, ..Directory::default() })
            } else if metadata.is_symlink() {
                Body::Symlink(fs::read_link(entry.path())?)
            } else if metadata.is_file() {
                Body::File(Content::backed_by(entry.path(), metadata.len()))
            } else {
                continue;
            };
            let child = match known.get(&metadata.ino()) {
                Some(&other_name_of_it) => other_name_of_it,
                None => {
                    let node = Node::new(body, metadata.mode(), metadata.uid(), metadata.gid());
                    let child = self.insert(node);
                    known.insert(metadata.ino(), child);
                    child
                }
            };
            let node = self.node_mut(child)?;
            node.links += 1;
            node.durable_links += 1;
            let directory = self.directory_mut(ino)?;
            directory.live.insert(entry.file_name(), child);
            directory.durable.insert(entry.file_name(), child);
            if metadata.is_dir() {
                self.load_directory(&entry.path(), child, known)?;
            }
        }
        Ok(())
    }

    /// Replaces what is in `backing` by the durable state.
    pub(super) fn store(&self, backing: &Path) -> io::Result<()> {
        let backing = backing.canonicalize()?;
        let parent = backing.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let survivors = tempfile::Builder::new().prefix("survivors-").tempdir_in(parent)?;
        self.store_directory(ROOT, survivors.path(), &mut HashMap::new())?;
        for old in fs::read_dir(&backing)? {
            let old = old?;
            if old.file_type()?.is_dir() {
                fs::remove_dir_all(old.path())?;
            } else {
                fs::remove_file(old.path())?;
            }
        }
        for new in fs::read_dir(survivors.path())? {
            let new = new?;
            fs::rename(new.path(), backing.join(new.file_name()))?;
        }
        Ok(())
    }

    fn store_directory(&self, ino: Ino, path: &Path, stored: &mut HashMap<Ino, PathBuf>) -> io::Result<()> {
        for (name, &child) in &self.directory(ino)?.durable {
            let target = path.join(name);
            let node = self.node(child)?;
            let first = stored.get(&child).cloned();
            match (&node.body, first) {
                // A directory whose move was synced at one end only keeps the first of its two names.
                (Body::Directory(_), Some(_)) | (Body::Special(_), _) => continue,
                (Body::Directory(_), None) => fs::create_dir(&target)?,
                (_, Some(first)) => {
                    fs::hard_link(first, &target)?;
                    continue;
                }
                (Body::File(content), None) => content.store(&target)?,
                (Body::Symlink(to), None) => symlink(to, &target)?,
            }
            stored.insert(child, target.clone());
            match &node.body {
                Body::Symlink(_) | Body::Special(_) => {}
                Body::Directory(_) => {
                    own(&target, node)?;
                    self.store_directory(child, &target, stored)?;
                }
                Body::File(_) => own(&target, node)?,
            }
        }
        Ok(())
    }
}

fn own(path: &Path, node: &Node) -> io::Result<()> {
    chown(path, Some(node.uid), Some(node.gid))?;
    fs::set_permissions(path, Permissions::from_mode(node.mode.into()))
}
