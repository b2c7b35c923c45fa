//! The data directory of a site: its lock, its files, and the admin socket inside it.
//! Invariant: one process per data directory; an embedded database never lies on a network file system.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, Mode, OFlags, StatVfs};

use uuid::Uuid;

use crate::StartError;

/// File systems on which locks and memory maps do not hold between machines (`statfs(2)`).
const NETWORK_FILE_SYSTEMS: &[(u64, &str)] = &[
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB 2"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
];
/// `sockaddr_un` holds 107 bytes and a zero.
const MAX_SOCKET_PATH: usize = 107;

/// A data directory that this process owns until it is dropped.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    path: PathBuf,
    /// Held, never read: the lock goes with the descriptor, also when the process is killed.
    _lock: File,
}

impl DataDirectory {
    /// Makes the directory where it is missing (readable by its owner only) and takes its lock. Blocks.
    pub(crate) fn open(path: &Path) -> Result<Self, StartError> {
        let failed = |doing| move |source| StartError::DataDirectory { doing, path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("make"))?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(failed("lock"))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::Locked(path.to_owned())),
            Err(error) => Err(failed("lock")(error.into())),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the embedded database goes.
    pub(crate) fn database(&self) -> PathBuf {
        self.path.join("metadata.db")
    }

    /// Where this node notes what it has seen of the log of a database on another machine.
    pub(crate) fn database_seen(&self) -> PathBuf {
        self.path.join("database-seen.json")
    }

    /// The run that had this directory before: it has ended, since the lock is this one's. Blocks for one small file.
    pub(crate) fn earlier_node(&self) -> Result<Option<Uuid>, StartError> {
        match std::fs::read_to_string(self.node_file()) {
            // Cut short by a crash: then its leases lapse by themselves.
            Ok(text) => Ok(Uuid::try_parse(text.trim()).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StartError::DataDirectory { doing: "read", path: self.node_file(), source }),
        }
    }

    /// Notes this run for the one after it.
    pub(crate) fn remember_node(&self, node: Uuid) -> Result<(), StartError> {
        let path = self.node_file();
        std::fs::write(&path, node.to_string()).map_err(|source| StartError::DataDirectory {
            doing: "write",
            path,
            source,
        })
    }

    fn node_file(&self) -> PathBuf {
        self.path.join("node")
    }

    /// Refuses an embedded database on a file system whose locks do not hold.
    pub(crate) fn refuse_network_file_system(&self) -> Result<(), StartError> {
        let stat = rustix::fs::statfs(&self.path).map_err(|error| StartError::DataDirectory {
            doing: "look at",
            path: self.path.clone(),
            source: error.into(),
        })?;
        match network_file_system(u64::try_from(stat.f_type).unwrap_or(0)) {
            Some(kind) => Err(StartError::NetworkFileSystem { path: self.path.clone(), kind }),
            None => Ok(()),
        }
    }
}

fn network_file_system(kind: u64) -> Option<&'static str> {
    // f_type is 32 bits wide on some machines and sign-extended on others.
    let kind = kind & 0xffff_ffff;
    NETWORK_FILE_SYSTEMS.iter().find(|(magic, _)| *magic == kind).map(|(_, name)| *name)
}

fn socket_path(data: &Path) -> PathBuf {
    data.join("twinport.sock")
}

/// Free and total bytes of the file system that holds `path`. Blocks.
pub(crate) fn space(path: &Path) -> io::Result<(u64, u64)> {
    let StatVfs { f_bavail, f_blocks, f_frsize, .. } = rustix::fs::statvfs(path)?;
    Ok((f_bavail.saturating_mul(f_frsize), f_blocks.saturating_mul(f_frsize)))
}

/// The path of a site's admin socket, short enough for a socket address however deep its data directory is.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
    /// Keeps `/proc/self/fd/N` meaning the data directory.
    _directory: Option<OwnedFd>,
}

impl AdminSocket {
    /// The socket in a data directory; whether anyone listens there is not looked at.
    ///
    /// # Errors
    /// When a long path's directory cannot be opened.
    pub fn of(data: &Path) -> io::Result<Self> {
        let path = socket_path(data);
        if path.as_os_str().len() <= MAX_SOCKET_PATH {
            return Ok(Self { path, _directory: None });
        }
        use std::os::fd::AsRawFd as _;
        let directory =
            rustix::fs::open(data, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/twinport.sock", directory.as_raw_fd()));
        Ok(Self { path, _directory: Some(directory) })
    }

    /// What to connect to while this value lives.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s14_a_second_process_is_refused_the_data_directory() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("site");
        let first = DataDirectory::open(&data).unwrap();
        let error = DataDirectory::open(&data).unwrap_err();
        assert!(matches!(error, StartError::Locked(_)), "{error}");
        drop(first);
        DataDirectory::open(&data).unwrap();
    }

    #[test]
    fn s14_network_file_systems_are_known_by_their_numbers() {
        assert_eq!(network_file_system(0x6969), Some("NFS"));
        assert_eq!(network_file_system(0xffff_ffff_ff53_4d42), Some("CIFS"));
        assert_eq!(network_file_system(0xef53), None);
    }

    #[tokio::test]
    async fn the_admin_socket_of_a_deep_directory_can_be_reached() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("d".repeat(120));
        let _directory = DataDirectory::open(&data).unwrap();
        let socket = AdminSocket::of(&data).unwrap();
        let _listener = tokio::net::UnixListener::bind(socket.path()).unwrap();
        let other = AdminSocket::of(&data).unwrap();
        tokio::net::UnixStream::connect(other.path()).await.unwrap();
    }
}
