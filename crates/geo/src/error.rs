//! What can go wrong between two sites, in words that say what to do next.

use std::fmt;

use thiserror::Error;

/// The result of a geo operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something between two sites was not done.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// One site refused another; sent as it is by the refusing side, read as it is by the other.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// A join token that is not one.
    #[error("this is not a join token ({0}): copy the whole line that `twinport site add` printed")]
    Token(String),
    /// A site key that cannot be used.
    #[error("the site's key cannot be used: {0}")]
    Key(String),
    /// The peer said something that the protocol does not allow.
    #[error("protocol: {0}")]
    Protocol(String),
    /// The peer could not be reached, or the connection broke; a retry may work.
    #[error("{url} is out of reach: {reason}")]
    Unreachable { url: String, reason: String },
    /// Events are not what their hashes say: nothing from here on is stored.
    #[error("the running hash breaks at event {seq}: the primary's history and this site's are not the same")]
    HashMismatch { seq: i64 },
    /// This site must not go on by itself; the text names the reason and the fix.
    #[error("{0}")]
    Stopped(String),
    #[error(transparent)]
    Metadata(#[from] twinport_metadata::Error),
    #[error(transparent)]
    Blobs(#[from] twinport_blobs::Error),
}

impl Error {
    /// The refusal, where it is one.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// The refusal's code, where it is one.
    #[must_use]
    pub fn code(&self) -> Option<RefusalCode> {
        self.refusal().map(|refusal| refusal.code)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

/// A call that one site refused to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub code: RefusalCode,
    /// What happened and what to do next.
    pub message: String,
    pub detail: Option<serde_json::Value>,
}

impl Refusal {
    /// A refusal without further detail.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), detail: None }
    }

    /// The same refusal with machine-readable detail.
    #[must_use]
    pub fn with_detail(mut self, detail: serde_json::Value) -> Self {
        self.detail = Some(detail);
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code.as_str())
    }
}

macro_rules! refusal_codes {
    ($($(#[$meta:meta])* $variant:ident = $status:literal $text:literal),+ $(,)?) => {
        /// Why a call between sites was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum RefusalCode {
            $($(#[$meta])* $variant,)+
        }

        impl RefusalCode {
            /// The code as it travels.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The HTTP status it travels with.
            #[must_use]
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }

            /// The code of a peer's answer; one that is not known is judged by the answer's status.
            #[must_use]
            pub fn parse(text: &str, status: u16) -> Self {
                match text {
                    $($text => Self::$variant,)+
                    _ => match status {
                        401 => Self::CredentialInvalid,
                        403 => Self::Scope,
                        426 => Self::Upgrade,
                        400..=499 => Self::BadRequest,
                        _ => Self::Unavailable,
                    },
                }
            }
        }
    };
}

refusal_codes! {
    CredentialMissing = 401 "CREDENTIAL_MISSING",
    CredentialInvalid = 401 "CREDENTIAL_INVALID",
    CredentialExpired = 401 "CREDENTIAL_EXPIRED",
    /// The site was removed from the federation; remembered for ever.
    SiteRemoved = 403 "SITE_REMOVED",
    /// The credential does not carry what the call needs.
    Scope = 403 "SCOPE",
    /// The same position names another event here.
    HistoryRewritten = 409 "HISTORY_REWRITTEN",
    /// The reader is at a position that this site has not reached.
    PeerAhead = 409 "PEER_AHEAD",
    /// The reader follows an epoch that this site has never heard of.
    EpochUnknown = 409 "EPOCH_UNKNOWN",
    /// The events the reader needs are trimmed; it must compare instead.
    BeyondHorizon = 410 "BEYOND_HORIZON",
    /// One of the two sites is too old.
    Upgrade = 426 "UPGRADE",
    /// The join token is unknown, or its secret is wrong.
    TokenInvalid = 401 "TOKEN_INVALID",
    TokenExpired = 401 "TOKEN_EXPIRED",
    TokenUsed = 409 "TOKEN_USED",
    /// The join does not prove possession of its key.
    ProofInvalid = 401 "PROOF_INVALID",
    /// The two clocks are more than 60 s apart.
    ClockSkew = 409 "CLOCK_SKEW",
    /// A site of that name, incarnation or key is in the federation already.
    SiteExists = 409 "SITE_EXISTS",
    /// This site is not the primary.
    NotPrimary = 409 "NOT_PRIMARY",
    RepositoryUnknown = 404 "REPOSITORY_UNKNOWN",
    ManifestUnknown = 404 "MANIFEST_UNKNOWN",
    BlobUnknown = 404 "BLOB_UNKNOWN",
    RangeInvalid = 416 "RANGE_INVALID",
    /// No such call in this protocol version.
    CallUnknown = 404 "CALL_UNKNOWN",
    BadRequest = 400 "BAD_REQUEST",
    /// Writes are stopped here, or the database is away: try again later.
    Unavailable = 503 "UNAVAILABLE",
}
