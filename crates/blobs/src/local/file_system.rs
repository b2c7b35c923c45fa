//! What the file system below a store can be relied upon for.
//! Guards: what is not known to be true of a file system is not assumed.

use std::os::fd::AsFd;

/// Who opens a store's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// One process at a time; the caller sees to that.
    Alone,
    /// Many nodes, perhaps on many machines.
    Shared,
}

/// How files that were written are brought to the disk together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flushing {
    /// With one syncfs(2), which waits for all and tells of errors.
    FileSystem,
    EachFile,
}

/// File systems of one machine whose syncfs(2) writes everything and waits for it (statfs(2)).
const LOCAL: [u64; 5] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // Btrfs
    0xf2f5_2010, // F2FS
    0x0102_1994, // tmpfs
];
/// Before this Linux, syncfs(2) kept errors to itself.
const SYNCFS_TELLS_SINCE: (u32, u32) = (5, 8);

/// Whether the file system that holds `directory` is one of this machine.
pub(super) fn is_local(directory: impl AsFd) -> std::io::Result<bool> {
    let stat = rustix::fs::fstatfs(directory)?;
    // f_type is 32 bits wide on some machines and sign-extended on others.
    let kind = u64::try_from(stat.f_type & 0xffff_ffff).unwrap_or(0);
    Ok(LOCAL.contains(&kind))
}

impl Flushing {
    pub(super) fn of(is_local: bool) -> Self {
        let release = rustix::system::uname();
        let tells = version(&release.release().to_string_lossy()) >= Some(SYNCFS_TELLS_SINCE);
        if is_local && tells { Self::FileSystem } else { Self::EachFile }
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("5.8-rc1"), Some((5, 8)));
        assert_eq!(version("4.18.0-553.el8_10.x86_64"), Some((4, 18)));
        assert_eq!(version("unknown"), None);
        assert!(version("unknown") < Some(SYNCFS_TELLS_SINCE));
    }
}
