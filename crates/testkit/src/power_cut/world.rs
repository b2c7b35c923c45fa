//! All inodes of one disk and what may be done to their names.
//! Guards: names move to the durable side only by [`World::sync_directory`], a whole directory at a time.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};

use rustix::io::Errno;

use super::node::{Body, Directory, Ino, Node, now};

pub(super) const ROOT: Ino = fuser::FUSE_ROOT_ID;

type Answer<T> = Result<T, Errno>;

#[derive(Debug)]
pub(super) struct World {
    pub(super) nodes: HashMap<Ino, Node>,
    next: Ino,
    frozen: bool,
    /// Bytes in all live files.
    used: u64,
}

impl World {
    pub(super) fn new() -> Self {
        let mut root =
            Node::new(Body::Directory(Directory { parent: ROOT, ..Directory::default() }), 0o755, 0, 0);
        (root.links, root.durable_links) = (1, 1);
        Self { nodes: HashMap::from([(ROOT, root)]), next: ROOT + 1, frozen: false, used: 0 }
    }

    pub(super) fn freeze(&mut self) {
        self.frozen = true;
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.frozen
    }

    pub(super) fn used(&self) -> u64 {
        self.used
    }

    pub(super) fn node(&self, ino: Ino) -> Answer<&Node> {
        self.nodes.get(&ino).ok_or(Errno::NOENT)
    }

    pub(super) fn node_mut(&mut self, ino: Ino) -> Answer<&mut Node> {
        self.nodes.get_mut(&ino).ok_or(Errno::NOENT)
    }

    pub(super) fn directory(&self, ino: Ino) -> Answer<&Directory> {
        match &self.node(ino)?.body {
            Body::Directory(directory) => Ok(directory),
            Body::File(_) | Body::Symlink(_) | Body::Special(_) => Err(Errno::NOTDIR),
        }
    }

    pub(super) fn directory_mut(&mut self, ino: Ino) -> Answer<&mut Directory> {
        match &mut self.node_mut(ino)?.body {
            Body::Directory(directory) => Ok(directory),
            Body::File(_) | Body::Symlink(_) | Body::Special(_) => Err(Errno::NOTDIR),
        }
    }

    pub(super) fn lookup(&self, parent: Ino, name: &OsStr) -> Answer<Ino> {
        self.directory(parent)?.live.get(name).copied().ok_or(Errno::NOENT)
    }

    /// Adds an inode that has no name yet.
    pub(super) fn insert(&mut self, node: Node) -> Ino {
        let ino = self.next;
        self.next += 1;
        self.used += node.len();
        self.nodes.insert(ino, node);
        ino
    }

    pub(super) fn create(&mut self, parent: Ino, name: &OsStr, node: Node) -> Answer<Ino> {
        if self.directory(parent)?.live.contains_key(name) {
            return Err(Errno::EXIST);
        }
        if self.node(parent)?.links == 0 {
            return Err(Errno::NOENT);
        }
        let ino = self.insert(node);
        self.enter(parent, name.to_owned(), ino)?;
        Ok(ino)
    }

    pub(super) fn link(&mut self, ino: Ino, parent: Ino, name: &OsStr) -> Answer<()> {
        if self.directory(parent)?.live.contains_key(name) {
            return Err(Errno::EXIST);
        }
        match self.node(ino)?.body {
            Body::Directory(_) => Err(Errno::PERM),
            Body::File(_) | Body::Symlink(_) | Body::Special(_) => self.enter(parent, name.to_owned(), ino),
        }
    }

    pub(super) fn unlink(&mut self, parent: Ino, name: &OsStr) -> Answer<()> {
        let ino = self.lookup(parent, name)?;
        if matches!(self.node(ino)?.body, Body::Directory(_)) {
            return Err(Errno::ISDIR);
        }
        self.leave(parent, name)
    }

    pub(super) fn rmdir(&mut self, parent: Ino, name: &OsStr) -> Answer<()> {
        let ino = self.lookup(parent, name)?;
        if !self.directory(ino)?.live.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        self.leave(parent, name)
    }

    pub(super) fn rename(&mut self, from: (Ino, &OsStr), to: (Ino, &OsStr), may_replace: bool) -> Answer<()> {
        let moved = self.lookup(from.0, from.1)?;
        match self.lookup(to.0, to.1) {
            Ok(standing) if standing == moved => return Ok(()),
            Ok(_) if !may_replace => return Err(Errno::EXIST),
            Ok(standing) => {
                let moves_directory = self.directory(moved).is_ok();
                match self.directory(standing) {
                    Ok(directory) if !directory.live.is_empty() => return Err(Errno::NOTEMPTY),
                    Ok(_) if !moves_directory => return Err(Errno::ISDIR),
                    Err(_) if moves_directory => return Err(Errno::NOTDIR),
                    Ok(_) | Err(_) => self.leave(to.0, to.1)?,
                }
            }
            Err(Errno::NOENT) => {}
            Err(e) => return Err(e),
        }
        self.enter(to.0, to.1.to_owned(), moved)?;
        self.leave(from.0, from.1)?;
        if let Ok(directory) = self.directory_mut(moved) {
            directory.parent = to.0;
        }
        Ok(())
    }

    fn enter(&mut self, parent: Ino, name: OsString, ino: Ino) -> Answer<()> {
        self.directory_mut(parent)?.live.insert(name, ino);
        self.node_mut(parent)?.modified = now();
        self.node_mut(ino)?.links += 1;
        Ok(())
    }

    fn leave(&mut self, parent: Ino, name: &OsStr) -> Answer<()> {
        let ino = self.directory_mut(parent)?.live.remove(name).ok_or(Errno::NOENT)?;
        self.node_mut(parent)?.modified = now();
        self.node_mut(ino)?.links -= 1;
        self.drop_unreferenced(ino);
        Ok(())
    }

    /// Makes the entries of a directory those that a cut leaves.
    pub(super) fn sync_directory(&mut self, ino: Ino) -> Answer<()> {
        let directory = self.directory_mut(ino)?;
        let before = std::mem::replace(&mut directory.durable, directory.live.clone());
        let after: Vec<Ino> = directory.durable.values().copied().collect();
        for ino in after {
            self.node_mut(ino)?.durable_links += 1;
        }
        self.forget_durable(before.into_values());
        Ok(())
    }

    fn forget_durable(&mut self, inos: impl Iterator<Item = Ino>) {
        for ino in inos {
            if let Ok(node) = self.node_mut(ino) {
                node.durable_links -= 1;
                self.drop_unreferenced(ino);
            }
        }
    }

    /// Frees an inode that has no name on either side and is not open.
    pub(super) fn drop_unreferenced(&mut self, ino: Ino) {
        let Some(node) = self.nodes.get(&ino) else { return };
        if node.links + node.durable_links + node.handles > 0 {
            return;
        }
        let Some(node) = self.nodes.remove(&ino) else { return };
        self.used -= node.len();
        if let Body::Directory(directory) = node.body {
            self.forget_durable(directory.durable.into_values());
        }
    }

    /// Changes a file's data, keeping account of the room it takes. `room` is what all files together may hold.
    pub(super) fn change(
        &mut self,
        ino: Ino,
        len: u64,
        room: Option<u64>,
        change: impl FnOnce(&mut super::content::Content) -> std::io::Result<()>,
    ) -> Answer<()> {
        let used = self.used;
        let node = self.node_mut(ino)?;
        let Body::File(content) = &mut node.body else { return Err(Errno::INVAL) };
        let before = content.len();
        if len > before && room.is_some_and(|room| used + (len - before) > room) {
            return Err(Errno::NOSPC);
        }
        let changed = change(content);
        let after = content.len();
        node.modified = now();
        self.used = used + after - before;
        changed.map_err(|_| Errno::IO)
    }

    /// What an orderly unmount does.
    pub(super) fn sync_everything(&mut self) {
        let inos: Vec<Ino> = self.nodes.keys().copied().collect();
        for ino in inos {
            match self.nodes.get_mut(&ino).map(|node| &mut node.body) {
                Some(Body::File(content)) => content.sync(),
                // A directory that an earlier one in this loop let go of is gone with its entries.
                Some(Body::Directory(_)) => {
                    let _gone = self.sync_directory(ino);
                }
                Some(Body::Symlink(_) | Body::Special(_)) | None => {}
            }
        }
    }
}
