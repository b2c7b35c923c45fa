//! Bytes by digest: spools where an upload gathers, durable publishing, ranged and mapped reads, scans.
//! Guards: a published file holds exactly the bytes of its digest, is never written again, and is on the
//! disk (data, entry and parents, or its bytes in a journal) before [`Blobs::publish`] or [`Blobs::put`] returns.
//!
//! In a bucket: it is written as a whole, and the storage has answered that it keeps it.
//!
//! Which blobs *exist* is the metadata's business: a file here that no row names is not a blob yet.

mod batch;
mod batch_threads;
mod blob_file;
mod bucket;
mod driver;
mod error;
mod gather;
mod layout;
mod local;
mod mapping;
mod progress;
mod spool_name;
mod sync;

pub use blob_file::BlobFile;
pub use bucket::{BucketBlobs, Encryption, Hidden, S3Settings};
pub use driver::Blobs;
pub use error::Error;
pub use local::{LocalBlobs, Sharing};
pub use progress::{Appended, Progress};
pub use spool_name::{LeftoverSpool, SpoolName};
pub use sync::SyncPolicy;

/// What [`Blobs`] answers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What hashing a stored blob anew found (hazard S6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The stored bytes are those of the digest; `size` in bytes.
    Whole { size: u64 },
    /// The stored bytes, or what is left of them, belong to another digest.
    Altered { actual: twinport_oci::Digest },
    /// There is no such file.
    Missing,
}
