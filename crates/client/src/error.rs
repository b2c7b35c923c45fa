//! What can go wrong between this process and a registry, or a local image.

use std::path::PathBuf;

use thiserror::Error;
use twinport_oci::Digest;

/// The result of talking to a registry or reading an image.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A local file could not be used.
    #[error("cannot {doing} {path}: {source}", path = .path.display())]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },
    /// A file that is no image; the text names the fix.
    #[error("{path} is not an image: {reason}", path = .path.display())]
    NotAnImage { path: PathBuf, reason: String },
    /// The registry could not be reached, or the connection broke and did not come back.
    #[error("cannot {doing} at {url}: {reason}")]
    Unreachable { doing: &'static str, url: String, reason: String },
    /// The registry answered, and not with what was asked for.
    #[error("{url} refused to {doing}: {status} {message}")]
    Refused { doing: &'static str, url: String, status: u16, message: String },
    /// The registry's answer breaks the specification.
    #[error("{url} gave an answer that breaks the specification: {reason}")]
    Protocol { url: String, reason: String },
    /// Bytes that are not what their digest says.
    #[error("the bytes of {expected} hash to {actual}: they were altered")]
    DigestMismatch { expected: Digest, actual: Box<Digest> },
}

impl Error {
    /// Whether another attempt may work: the transport broke, or the registry said to come back.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }
}
