//! One inode: what it is, who may use it, and how many names it has on either side of a cut.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::SystemTime;

use fuser::{FileAttr, FileType};

use super::content::Content;

pub(super) type Ino = u64;
pub(super) type Entries = BTreeMap<OsString, Ino>;

#[derive(Debug)]
pub(super) struct Node {
    pub(super) body: Body,
    /// Permission bits.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) modified: SystemTime,
    /// Names that programs see.
    pub(super) links: u32,
    /// Names that a cut would leave.
    pub(super) durable_links: u32,
    /// Open handles.
    pub(super) handles: u32,
}

#[derive(Debug)]
pub(super) enum Body {
    File(Content),
    Directory(Directory),
    Symlink(PathBuf),
    /// Sockets and pipes: they work, and a cut forgets them.
    Special(FileType),
}

#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) live: Entries,
    pub(super) durable: Entries,
    pub(super) parent: Ino,
}

impl Node {
    pub(super) fn new(body: Body, mode: u32, uid: u32, gid: u32) -> Self {
        let mode = (mode & 0o7777) as u16;
        Self { body, mode, uid, gid, modified: now(), links: 0, durable_links: 0, handles: 0 }
    }

    pub(super) fn kind(&self) -> FileType {
        match self.body {
            Body::File(_) => FileType::RegularFile,
            Body::Directory(_) => FileType::Directory,
            Body::Symlink(_) => FileType::Symlink,
            Body::Special(kind) => kind,
        }
    }

    /// Length in bytes of a file's data, 0 for everything else.
    pub(super) fn len(&self) -> u64 {
        match &self.body {
            Body::File(content) => content.len(),
            Body::Directory(_) | Body::Symlink(_) | Body::Special(_) => 0,
        }
    }

    pub(super) fn attributes(&self, ino: Ino) -> FileAttr {
        let size = self.len();
        FileAttr {
            ino,
            size,
            blocks: size.div_ceil(512),
            atime: self.modified,
            mtime: self.modified,
            ctime: self.modified,
            crtime: self.modified,
            kind: self.kind(),
            perm: self.mode,
            nlink: if self.kind() == FileType::Directory { self.links + 1 } else { self.links },
            uid: self.uid,
            gid: self.gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a file system's times are the system's")]
pub(super) fn now() -> SystemTime {
    SystemTime::now()
}
