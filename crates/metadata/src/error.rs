//! What can go wrong between the house and its database, in words that say what to do next.

use thiserror::Error;
use twinport_access::TagRefusal;
use twinport_oci::Digest;

/// The result of a metadata operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a metadata operation was not done.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum Error {
    /// Writes belong to another site.
    #[error(
        "this site is a secondary: write to the primary site {} at {}",
        .primary_name.as_deref().unwrap_or("(unnamed)"),
        .primary_url.as_deref().unwrap_or("(unknown address)")
    )]
    NotPrimary { primary_name: Option<String>, primary_url: Option<String> },
    /// Writes stopped because history was found rewritten; the reason names the peer.
    #[error("writes are stopped on this site: {0}")]
    Halted(String),
    /// Writes rest: an operator said so, and will say when they go on.
    #[error("this site is in maintenance mode ({0}): `twinport maintenance off` ends it")]
    Maintenance(String),
    #[error("repository name not known to this site")]
    RepositoryUnknown,
    #[error("a repository called {0} exists already")]
    RepositoryExists(String),
    /// Blobs that a manifest names and its repository does not link, all of them.
    #[error("the manifest names blobs that the repository does not have: {}", list(.0))]
    BlobsUnknown(Vec<Digest>),
    #[error("manifest unknown")]
    ManifestUnknown,
    /// A rule, the caller's role or its token keeps a tag as it is.
    #[error(transparent)]
    TagHeld(#[from] TagRefusal),
    /// What a held tag names, or needs, stays with it.
    #[error("{what} stays: {refusal}")]
    StillHeld { what: String, refusal: TagRefusal },
    #[error("upload session unknown")]
    UploadUnknown,
    /// Another writer advanced the session first; `offset` is where it stands (bytes).
    #[error(
        "another request advanced this upload session to byte {offset}: ask for its status and resume there"
    )]
    UploadConflict { offset: u64 },
    /// A name that is to be given is taken.
    #[error("{0}")]
    Exists(String),
    /// An account, a token or a rule that is not there.
    #[error("{0}")]
    Unknown(String),
    /// Work was to be written by a node that another one has taken it over from.
    #[error("another node has taken over the job {0}: nothing was changed")]
    LeaseLost(&'static str),
    /// The database's disk is full.
    #[error("the database has no space left: free some on its disk, then retry")]
    NoSpace,
    /// The database cannot be reached or is shutting down; a retry may work.
    #[error("the database is not available ({0}): retry")]
    Unavailable(String),
    /// A start, a join or a command that must not go on; the text names the fix.
    #[error("{0}")]
    Refused(String),
    /// Stored data that this binary cannot make sense of.
    #[error("the database holds something unexpected: {0}")]
    Corrupt(String),
    /// Everything else the database said.
    #[error("database: {0}")]
    Database(String),
    /// A transaction closure broke the façade's rules (it panicked, or it waited on something else).
    #[error("bug in a transaction: {0}")]
    Bug(String),
    /// The transaction conflicted with another and was rolled back; the façade retries it.
    #[error("transaction conflict ({0})")]
    Conflict(String),
}

fn list(digests: &[Digest]) -> String {
    digests.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::NoSpace,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Unavailable(error.to_string()),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt(error.to_string()),
            _ => Self::Database(error.to_string()),
        }
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        use tokio_postgres::error::SqlState;
        let Some(code) = error.code() else {
            // No SQLSTATE: the connection broke, or never came up.
            return Self::Unavailable(with_source(&error));
        };
        let text = error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned());
        match *code {
            SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED => Self::Conflict(text),
            SqlState::DISK_FULL => Self::NoSpace,
            SqlState::ADMIN_SHUTDOWN
            | SqlState::CRASH_SHUTDOWN
            | SqlState::CANNOT_CONNECT_NOW
            | SqlState::TOO_MANY_CONNECTIONS
            | SqlState::LOCK_NOT_AVAILABLE
            | SqlState::QUERY_CANCELED
            | SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
            | SqlState::READ_ONLY_SQL_TRANSACTION => Self::Unavailable(text),
            _ if code.code().starts_with("08") || code.code().starts_with("53") => Self::Unavailable(text),
            _ => Self::Database(format!("{text} ({})", code.code())),
        }
    }
}

impl From<deadpool::managed::PoolError<Error>> for Error {
    fn from(error: deadpool::managed::PoolError<Self>) -> Self {
        use deadpool::managed::{PoolError, TimeoutType};
        match error {
            PoolError::Backend(error) => error,
            PoolError::Timeout(TimeoutType::Wait) => Self::Unavailable(
                "all connections were busy: raise database.pool.maxopen if this lasts".to_owned(),
            ),
            other => Self::Unavailable(with_source(&other)),
        }
    }
}

/// An error's words with those of what caused it.
pub(crate) fn with_source(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
