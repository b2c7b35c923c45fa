//! Why a site does not start, in words that say what to do next.

use std::path::PathBuf;

use thiserror::Error;
use uuid::Uuid;

/// Why [`crate::serve()`] ended other than by request.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    #[error(
        "another process serves the data directory {path}: stop it, or choose another directory with --data",
        path = .0.display()
    )]
    Locked(PathBuf),
    #[error("cannot {doing} the data directory {path}: {source}", path = .path.display())]
    DataDirectory { doing: &'static str, path: PathBuf, source: std::io::Error },
    #[error(
        "the data directory {path} is on {kind}, where the embedded database loses data: use a local disk, or \
         PostgreSQL (database.enabled)",
        path = .path.display()
    )]
    NetworkFileSystem { path: PathBuf, kind: &'static str },
    #[error(
        "cannot listen on {address}: {source}; is another process listening there? choose another with --addr"
    )]
    Listen { address: String, source: std::io::Error },
    #[error(
        "the blob store {store} belongs to another database (its marker says {marker}, the database {database}): if one of \
         the two was restored or copied without the other, bring both from the same moment; if it is the store of another \
         node, give this one a rootdirectory of its own, or both nodes one PostgreSQL database"
    )]
    Incarnation { store: String, marker: Uuid, database: Uuid },
    #[error(
        "the blob store {store} has lost its marker, and the database ({database}) already has history: is it the right \
         disk or bucket? if it is, restore its marker, twinport/incarnation, in a bucket _twinport/incarnation"
    )]
    MarkerMissing { store: String, database: Uuid },
    #[error("the password of the first account cannot be read from {file}: {reason}", file = .file.display())]
    AdminPassword { file: PathBuf, reason: String },
    #[error("the log filter `{filter}` cannot be used: {reason}")]
    Logging { filter: String, reason: String },
    #[error(transparent)]
    Tls(#[from] crate::listener::TlsError),
    #[error("the htpasswd file {file} cannot be used: {reason}", file = .file.display())]
    Htpasswd { file: PathBuf, reason: String },
    #[error("the keys of auth.token cannot be used: {reason}")]
    TokenKeys { reason: String },
    #[error("accounts.issuers: {reason}")]
    Issuers { reason: String },
    #[error("cannot start a thread: {source}")]
    Threads { source: std::io::Error },
    #[error("cannot watch for signals: {0}")]
    Signals(std::io::Error),
    #[error(transparent)]
    Metadata(#[from] twinport_metadata::Error),
    #[error(transparent)]
    Blobs(#[from] twinport_blobs::Error),
    #[error(transparent)]
    Upkeep(#[from] twinport_upkeep::Error),
    #[error(transparent)]
    Geo(#[from] twinport_geo::Error),
}
