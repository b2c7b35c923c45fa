//! What can stop an upkeep job.

use thiserror::Error;

/// The result of an upkeep job.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a job ended before its work did; running it again goes on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    #[error(transparent)]
    Metadata(#[from] twinport_metadata::Error),
    #[error(transparent)]
    Blobs(#[from] twinport_blobs::Error),
}
