//! What can go wrong with stored bytes, in words that an operator can act on.
//! Guards: a full disk is always told apart from a broken one.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;
use twinport_oci::Digest;

use crate::SpoolName;

/// Why an operation on stored bytes failed. After an error nothing is published that was not before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("blob {0} is not stored here")]
    NotFound(Digest),
    #[error("the bytes belong to {actual}, not to {expected}")]
    DigestMismatch { expected: Digest, actual: Box<Digest> },
    #[error("the body is larger than the limit of {limit} bytes")]
    SizeExceeded { limit: u64 },
    #[error("{spool} holds {len} bytes, so it cannot go on at offset {offset}")]
    OffsetMismatch { spool: SpoolName, offset: u64, len: u64 },
    #[error("{spool} holds {actual} bytes where {expected} were to be published")]
    SizeMismatch { spool: SpoolName, expected: u64, actual: u64 },
    #[error("{0} is not there: the upload ended or its file was lost, start it again")]
    SpoolMissing(SpoolName),
    #[error("{0} is being written by another request, try again when that has ended")]
    SpoolBusy(SpoolName),
    #[error("{0} was published already and must not be written again")]
    SpoolPublished(SpoolName),
    #[error("no space left for {}: free some space or enlarge the file system", .0.display())]
    NoSpace(PathBuf),
    #[error(
        "blob {digest} is {actual} bytes long in storage instead of {expected}: it was altered from outside"
    )]
    Corrupt { digest: Digest, expected: u64, actual: u64 },
    #[error("bytes {start} to {end} are not within the {size} bytes of the blob")]
    OutOfRange { start: u64, end: u64, size: u64 },
    #[error("{doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot prepare the threads that hash uploads: {0}")]
    Threads(#[source] io::Error),
    #[error("{} does not hold an incarnation (a UUID): restore the file or remove it", path.display())]
    Marker { path: PathBuf },
    #[error("{} cannot hold hard links ({source}): use a local file system such as ext4 or XFS", path.display())]
    HardLinks { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Settings(String),
    #[error(
        "the bucket {bucket} does not exist: create it, or correct storage.s3.bucket and its region or endpoint"
    )]
    NoBucket { bucket: String },
    #[error(
        "{bucket} refuses the credentials ({code}): correct storage.s3.accesskey and secretkey, or what the environment gives"
    )]
    BucketCredentials { bucket: String, code: String },
    #[error(
        "access denied while {doing} {place} ({code}): allow its user to list the bucket, and to get, put and delete there"
    )]
    BucketDenied { doing: &'static str, place: String, code: String },
    #[error(
        "{doing} {place} was refused because this machine's clock is too far from the storage's: set it by NTP (15 minutes \
         are the most)"
    )]
    ClockSkewed { doing: &'static str, place: String },
    #[error("{doing} {place} failed: {reason}")]
    Bucket { doing: &'static str, place: String, reason: String },
    #[error("{key} is not there")]
    ObjectMissing { key: String },
    #[error("{key} is {actual} bytes long instead of {expected}: it was altered from outside")]
    Altered { key: String, expected: u64, actual: u64 },
    #[error("stopped while {doing}: the process is shutting down")]
    Stopped { doing: &'static str },
}

impl Error {
    /// True where room is missing (ENOSPC, EDQUOT): the answer is 507, and the store works on once there is room.
    pub fn is_out_of_space(&self) -> bool {
        matches!(self, Self::NoSpace(_))
    }

    /// True where the object storage is out of reach or refuses for now: the answer is 503, trying again may help.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Bucket { .. })
    }

    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        let (path, source) = (path.into(), source.into());
        match Errno::from_io_error(&source) {
            Some(Errno::NOSPC | Errno::DQUOT) => Self::NoSpace(path),
            _ => Self::Io { doing, path, source },
        }
    }
}
