//! The kernel's requests, answered from the [`World`].
//! Guards: after a freeze every answer is EIO, and fsync and fsyncdir alone reach the durable side.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    FileType, Filesystem, KernelConfig, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
};
use parking_lot::{Mutex, MutexGuard};
use rustix::fs::RenameFlags;
use rustix::io::Errno;

use super::content::Content;
use super::faults::Faults;
use super::node::{Body, Directory, Ino, Node, now};
use super::world::World;

/// How long the kernel may keep names and attributes: nobody but the kernel changes them.
const TTL: Duration = Duration::from_secs(60);
/// FOPEN_KEEP_CACHE: cached pages stay valid over an open.
const KEEP_CACHE: u32 = 1 << 1;
const MAX_WRITE: u32 = 1 << 20;
const LONGEST_FILE: usize = 8 << 30;
const BLOCK: u32 = 4096;
/// What statfs reports where no limit is set.
const PLENTY: u64 = 1 << 40;

type Answer<T> = Result<T, Errno>;
type Listing = Vec<(Ino, FileType, OsString)>;

pub(super) struct Server {
    world: Arc<Mutex<World>>,
    faults: Faults,
    listings: HashMap<u64, Listing>,
    next_listing: u64,
}

impl Server {
    pub(super) fn new(world: Arc<Mutex<World>>, faults: Faults) -> Self {
        Self { world, faults, listings: HashMap::new(), next_listing: 1 }
    }

    fn world(&self) -> Answer<MutexGuard<'_, World>> {
        let world = self.world.lock();
        if world.is_frozen() { Err(Errno::IO) } else { Ok(world) }
    }

    fn changing(&self) -> Answer<MutexGuard<'_, World>> {
        if self.faults.is_read_only() { Err(Errno::ROFS) } else { self.world() }
    }

    /// For what takes room without being data: an inode on a full disk.
    fn growing(&self) -> Answer<MutexGuard<'_, World>> {
        let world = self.changing()?;
        match self.faults.space() {
            Some(space) if world.used() >= space => Err(Errno::NOSPC),
            Some(_) | None => Ok(world),
        }
    }

    fn create_node(&self, parent: Ino, name: &OsStr, node: Node) -> Answer<fuser::FileAttr> {
        let mut world = self.growing()?;
        let ino = world.create(parent, name, node)?;
        Ok(world.node(ino)?.attributes(ino))
    }

    fn list(&self, ino: Ino) -> Answer<Listing> {
        let world = self.world()?;
        let directory = world.directory(ino)?;
        let mut listing = vec![
            (ino, FileType::Directory, OsString::from(".")),
            (directory.parent, FileType::Directory, OsString::from("..")),
        ];
        for (name, &child) in &directory.live {
            listing.push((child, world.node(child)?.kind(), name.clone()));
        }
        Ok(listing)
    }

    fn opened(&self, ino: Ino) -> Answer<()> {
        self.world()?.node_mut(ino)?.handles += 1;
        Ok(())
    }

    fn closed(&self, ino: Ino) {
        // Also after a freeze: the count is not the disk's.
        let mut world = self.world.lock();
        let Ok(node) = world.node_mut(ino) else { return };
        node.handles = node.handles.saturating_sub(1);
        if node.handles == 0
            && let Body::File(content) = &mut node.body
        {
            content.settle();
        }
        world.drop_unreferenced(ino);
    }
}

fn file(mode: u32, request: &Request<'_>) -> Node {
    Node::new(Body::File(Content::empty()), mode, request.uid(), request.gid())
}

/// Files are kept in memory, so one that is absurdly long is refused before it takes the process along.
fn length(len: u64) -> Answer<usize> {
    usize::try_from(len).ok().filter(|&len| len <= LONGEST_FILE).ok_or(Errno::FBIG)
}

/// Answers with the value, or with the error's number.
macro_rules! answer {
    ($reply:ident, $result:expr, $value:pat => $success:expr) => {
        match $result {
            Ok($value) => $success,
            Err(e) => $reply.error(e.raw_os_error()),
        }
    };
}

impl Filesystem for Server {
    fn init(&mut self, _: &Request<'_>, config: &mut KernelConfig) -> Result<(), i32> {
        let _kept_where_refused = config.set_max_write(MAX_WRITE);
        Ok(())
    }

    fn lookup(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEntry) {
        let found = self.world().and_then(|world| {
            let ino = world.lookup(parent, name)?;
            Ok(world.node(ino)?.attributes(ino))
        });
        answer!(reply, found, attributes => reply.entry(&TTL, &attributes, 0));
    }

    fn getattr(&mut self, _: &Request<'_>, ino: u64, _fh: Option<u64>, reply: ReplyAttr) {
        let found = self.world().and_then(|world| Ok(world.node(ino)?.attributes(ino)));
        answer!(reply, found, attributes => reply.attr(&TTL, &attributes));
    }

    fn setattr(
        &mut self,
        _: &Request<'_>,
        ino: u64,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<u64>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<u32>,
        reply: ReplyAttr,
    ) {
        let set = self.changing().and_then(|mut world| {
            if let Some(size) = size {
                let len = length(size)?;
                world.change(ino, size, self.faults.space(), |content| content.resize(len))?;
            }
            let node = world.node_mut(ino)?;
            node.mode = mode.map_or(node.mode, |mode| (mode & 0o7777) as u16);
            node.uid = uid.unwrap_or(node.uid);
            node.gid = gid.unwrap_or(node.gid);
            match mtime {
                Some(TimeOrNow::SpecificTime(time)) => node.modified = time,
                Some(TimeOrNow::Now) => node.modified = now(),
                None => {}
            }
            Ok(node.attributes(ino))
        });
        answer!(reply, set, attributes => reply.attr(&TTL, &attributes));
    }

    fn readlink(&mut self, _: &Request<'_>, ino: u64, reply: ReplyData) {
        let target = self.world().and_then(|world| match &world.node(ino)?.body {
            Body::Symlink(target) => Ok(target.clone()),
            Body::File(_) | Body::Directory(_) | Body::Special(_) => Err(Errno::INVAL),
        });
        answer!(reply, target, target => reply.data(target.as_os_str().as_encoded_bytes()));
    }

    fn mknod(
        &mut self,
        request: &Request<'_>,
        parent: u64,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        use rustix::fs::FileType as Kind;
        let special = |kind| Node::new(Body::Special(kind), mode, request.uid(), request.gid());
        let node = match Kind::from_raw_mode(mode) {
            Kind::RegularFile => Ok(file(mode, request)),
            Kind::Socket => Ok(special(FileType::Socket)),
            Kind::Fifo => Ok(special(FileType::NamedPipe)),
            _ => Err(Errno::PERM),
        };
        let made = node.and_then(|node| self.create_node(parent, name, node));
        answer!(reply, made, attributes => reply.entry(&TTL, &attributes, 0));
    }

    fn mkdir(
        &mut self,
        request: &Request<'_>,
        parent: u64,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let body = Body::Directory(Directory { parent, ..Directory::default() });
        let made = self.create_node(parent, name, Node::new(body, mode, request.uid(), request.gid()));
        answer!(reply, made, attributes => reply.entry(&TTL, &attributes, 0));
    }

    fn symlink(
        &mut self,
        request: &Request<'_>,
        parent: u64,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let body = Body::Symlink(target.to_owned());
        let made = self.create_node(parent, name, Node::new(body, 0o777, request.uid(), request.gid()));
        answer!(reply, made, attributes => reply.entry(&TTL, &attributes, 0));
    }

    fn unlink(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.changing().and_then(|mut world| world.unlink(parent, name)), () => reply.ok());
    }

    fn rmdir(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.changing().and_then(|mut world| world.rmdir(parent, name)), () => reply.ok());
    }

    fn rename(
        &mut self,
        _: &Request<'_>,
        parent: u64,
        name: &OsStr,
        new_parent: u64,
        new_name: &OsStr,
        flags: u32,
        reply: ReplyEmpty,
    ) {
        let flags = RenameFlags::from_bits_retain(flags);
        let renamed = if flags.difference(RenameFlags::NOREPLACE).is_empty() {
            let may_replace = !flags.contains(RenameFlags::NOREPLACE);
            self.changing()
                .and_then(|mut world| world.rename((parent, name), (new_parent, new_name), may_replace))
        } else {
            Err(Errno::INVAL)
        };
        answer!(reply, renamed, () => reply.ok());
    }

    fn link(&mut self, _: &Request<'_>, ino: u64, parent: u64, name: &OsStr, reply: ReplyEntry) {
        let linked = self.growing().and_then(|mut world| {
            world.link(ino, parent, name)?;
            Ok(world.node(ino)?.attributes(ino))
        });
        answer!(reply, linked, attributes => reply.entry(&TTL, &attributes, 0));
    }

    fn open(&mut self, _: &Request<'_>, ino: u64, _flags: i32, reply: ReplyOpen) {
        answer!(reply, self.opened(ino), () => reply.opened(0, KEEP_CACHE));
    }

    fn create(
        &mut self,
        request: &Request<'_>,
        parent: u64,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let created = self.create_node(parent, name, file(mode, request)).and_then(|attributes| {
            self.opened(attributes.ino)?;
            Ok(attributes)
        });
        answer!(reply, created, attributes => reply.created(&TTL, &attributes, 0, 0, KEEP_CACHE));
    }

    fn read(
        &mut self,
        _: &Request<'_>,
        ino: u64,
        _fh: u64,
        offset: i64,
        size: u32,
        _flags: i32,
        _lock_owner: Option<u64>,
        reply: ReplyData,
    ) {
        let read = self.world().and_then(|world| match &world.node(ino)?.body {
            Body::File(_) if self.faults.reads_fail() => Err(Errno::IO),
            Body::File(content) => content.read(offset.unsigned_abs(), size as usize).map_err(|_| Errno::IO),
            Body::Directory(_) | Body::Symlink(_) | Body::Special(_) => Err(Errno::INVAL),
        });
        answer!(reply, read, bytes => reply.data(&bytes));
    }

    fn write(
        &mut self,
        _: &Request<'_>,
        ino: u64,
        _fh: u64,
        offset: i64,
        data: &[u8],
        _write_flags: u32,
        _flags: i32,
        _lock_owner: Option<u64>,
        reply: ReplyWrite,
    ) {
        let written = self.changing().and_then(|mut world| {
            let start = length(offset.unsigned_abs())?;
            let end = start as u64 + data.len() as u64;
            world.change(ino, end, self.faults.space(), |content| content.write(start, data))
        });
        answer!(reply, written, () => reply.written(data.len() as u32));
    }

    fn fallocate(
        &mut self,
        _: &Request<'_>,
        ino: u64,
        _fh: u64,
        offset: i64,
        count: i64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let end = offset.unsigned_abs().saturating_add(count.unsigned_abs());
        let allocated =
            if mode == 0 {
                self.changing().and_then(|mut world| {
                    let len = length(end)?;
                    let grows = end > world.node(ino)?.len();
                    world.change(ino, end, self.faults.space(), |content| {
                        if grows { content.resize(len) } else { Ok(()) }
                    })
                })
            } else {
                Err(Errno::OPNOTSUPP)
            };
        answer!(reply, allocated, () => reply.ok());
    }

    fn flush(&mut self, _: &Request<'_>, _ino: u64, _fh: u64, _lock_owner: u64, reply: ReplyEmpty) {
        answer!(reply, self.world().map(drop), () => reply.ok());
    }

    fn release(
        &mut self,
        _: &Request<'_>,
        ino: u64,
        _fh: u64,
        _flags: i32,
        _lock_owner: Option<u64>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.closed(ino);
        reply.ok();
    }

    fn fsync(&mut self, _: &Request<'_>, ino: u64, _fh: u64, _datasync: bool, reply: ReplyEmpty) {
        let synced = self.changing().and_then(|mut world| match &mut world.node_mut(ino)?.body {
            Body::File(_) if self.faults.file_syncs_fail() => Err(Errno::IO),
            Body::File(content) => {
                content.sync();
                self.faults.count_file_sync();
                Ok(())
            }
            Body::Directory(_) | Body::Symlink(_) | Body::Special(_) => Err(Errno::INVAL),
        });
        answer!(reply, synced, () => reply.ok());
    }

    fn opendir(&mut self, _: &Request<'_>, ino: u64, _flags: i32, reply: ReplyOpen) {
        let listed = self.list(ino).and_then(|listing| {
            self.opened(ino)?;
            Ok(listing)
        });
        answer!(reply, listed, listing => {
            let handle = self.next_listing;
            self.next_listing += 1;
            self.listings.insert(handle, listing);
            reply.opened(handle, 0);
        });
    }

    fn readdir(&mut self, _: &Request<'_>, ino: u64, fh: u64, offset: i64, mut reply: ReplyDirectory) {
        if offset == 0 {
            // The first read after an open or a rewind shows the directory as it is at that moment.
            match self.list(ino) {
                Ok(listing) => drop(self.listings.insert(fh, listing)),
                Err(e) => return reply.error(e.raw_os_error()),
            }
        }
        let Some(listing) = self.listings.get(&fh) else { return reply.error(Errno::BADF.raw_os_error()) };
        let skipped = usize::try_from(offset).unwrap_or(0);
        for (at, (ino, kind, name)) in listing.iter().enumerate().skip(skipped) {
            if reply.add(*ino, at as i64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&mut self, _: &Request<'_>, ino: u64, fh: u64, _flags: i32, reply: ReplyEmpty) {
        self.listings.remove(&fh);
        self.closed(ino);
        reply.ok();
    }

    fn fsyncdir(&mut self, _: &Request<'_>, ino: u64, _fh: u64, _datasync: bool, reply: ReplyEmpty) {
        let synced = self.changing().and_then(|mut world| {
            if self.faults.directory_syncs_fail() {
                return Err(Errno::IO);
            }
            world.sync_directory(ino)?;
            self.faults.count_directory_sync();
            Ok(())
        });
        answer!(reply, synced, () => reply.ok());
    }

    fn statfs(&mut self, _: &Request<'_>, _ino: u64, reply: ReplyStatfs) {
        let used = self.world().map(|world| (world.used(), world.nodes.len() as u64));
        answer!(reply, used, (used, files) => {
            let total = self.faults.space().unwrap_or(PLENTY) / u64::from(BLOCK);
            let free = total.saturating_sub(used.div_ceil(u64::from(BLOCK)));
            reply.statfs(total, free, free, files, u64::from(u32::MAX), BLOCK, 255, BLOCK);
        });
    }
}
