//! What a secondary asks of its primary, whatever carries the question.
//! Guards: the engine knows no transport, so that a simulation can break every call of it.

mod http;

use std::future::Future;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use twinport_metadata::{LogHead, RecordName, RepositoryUuid};
use twinport_oci::Digest;

pub use self::http::{HttpUpstream, SiteIdentity};
pub(crate) use self::http::{client, refusal, unreachable};
use crate::{
    Result,
    protocol::{AccessPage, Frame, ListingPage, RepositoryChecksum, RepositoryPage, StatusReport},
};

/// A log stream, frame by frame; it ends where the primary ends it.
pub type LogStream = BoxStream<'static, Result<Frame>>;

/// The bytes of a blob on their way.
pub struct BlobBody {
    /// Where the stream begins in the blob (bytes); 0 where the primary ignored the range.
    pub offset: u64,
    /// The whole blob's size in bytes, where the primary says.
    pub size: Option<u64>,
    pub stream: BoxStream<'static, Result<Bytes>>,
}

/// A manifest as the primary serves it; nothing of it is checked yet.
#[derive(Clone, Debug)]
pub struct ManifestBody {
    pub media_type: Option<String>,
    pub bytes: Bytes,
}

/// The primary, as a secondary reaches it.
///
/// Errors are [`crate::Error::Refused`] for what the primary says no to (`MANIFEST_UNKNOWN`, `BLOB_UNKNOWN`,
/// `REPOSITORY_UNKNOWN`, `SITE_REMOVED`, …) and [`crate::Error::Unreachable`] for what a retry may cure.
pub trait Upstream: Send + Sync + 'static {
    /// Follows the log after `from`.
    fn log(&self, from: LogHead) -> impl Future<Output = Result<LogStream>> + Send;
    /// Reports where this site stands; the nonce comes back in a heartbeat.
    fn report(&self, report: &StatusReport) -> impl Future<Output = Result<()>> + Send;
    /// Repositories by path.
    fn repositories(&self, after: &str, limit: u32) -> impl Future<Output = Result<RepositoryPage>> + Send;
    /// The rows of one repository.
    fn listing(
        &self,
        repository: RepositoryUuid,
        after: Option<&str>,
        limit: u32,
    ) -> impl Future<Output = Result<ListingPage>> + Send;
    /// The checksum of one repository.
    fn checksum(&self, repository: RepositoryUuid)
    -> impl Future<Output = Result<RepositoryChecksum>> + Send;
    /// Access records by key, deleted ones included.
    fn access(&self, after: Option<&str>, limit: u32) -> impl Future<Output = Result<AccessPage>> + Send;
    /// Those of these access records that there are or were.
    fn access_records(&self, records: &[RecordName]) -> impl Future<Output = Result<AccessPage>> + Send;
    /// A manifest's bytes.
    fn manifest(
        &self,
        repository: RepositoryUuid,
        digest: &Digest,
    ) -> impl Future<Output = Result<ManifestBody>> + Send;
    /// A blob's bytes from `offset` on.
    fn blob(&self, digest: &Digest, offset: u64) -> impl Future<Output = Result<BlobBody>> + Send;
}
