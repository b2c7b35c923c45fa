//! Why a text is not one of the specifications' values, and the error code a client is answered with.

use crate::error_code::ErrorCode;

/// Any failure to read one of this crate's values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error(transparent)]
    Digest(#[from] DigestError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("repository name `{name}` is not valid: {reason}")]
    RepositoryName { name: String, reason: &'static str },
    #[error("tag `{tag}` is not valid: {reason}")]
    Tag { tag: String, reason: &'static str },
    #[error("media type `{media_type}` is not valid: {reason}")]
    MediaType { media_type: String, reason: &'static str },
    #[error("upload id `{0}` is not a hyphenated uuid: use the Location the upload was given")]
    UploadId(String),
    #[error("content range `{0}` is not valid: use `<first>-<last>` in bytes, both inclusive")]
    ContentRange(String),
}

impl Error {
    /// The code of the specification's error body for this failure.
    pub fn code(&self) -> ErrorCode {
        match self {
            Error::Digest(error) => error.code(),
            Error::Manifest(error) => error.code(),
            Error::RepositoryName { .. } => ErrorCode::NameInvalid,
            Error::Tag { .. } => ErrorCode::TagInvalid,
            Error::MediaType { .. } => ErrorCode::ManifestInvalid,
            Error::UploadId(_) => ErrorCode::BlobUploadUnknown,
            Error::ContentRange(_) => ErrorCode::BlobUploadInvalid,
        }
    }
}

/// Why a text or a byte string is not a digest, or not the state of a hasher.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    #[error("digest algorithm `{0}` is not supported: use sha256 or sha512")]
    Unsupported(String),
    #[error("digest `{0}` is not valid: use `sha256:` and 64 or `sha512:` and 128 lower-case hex digits")]
    Malformed(String),
    #[error("digest key of {0} bytes is not valid: an algorithm byte and the raw digest are needed")]
    Key(usize),
    #[error("hasher state of {0} bytes is not valid: hash the content again from its start")]
    State(usize),
}

impl DigestError {
    /// Always `DIGEST_INVALID`.
    pub fn code(&self) -> ErrorCode {
        ErrorCode::DigestInvalid
    }
}

/// Why a byte string is not a manifest this registry keeps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    #[error("manifest of {size} bytes is larger than the limit of {limit} bytes")]
    TooLarge { size: usize, limit: usize },
    #[error("manifest nests deeper than {limit} levels")]
    TooDeep { limit: usize },
    #[error("manifest names more than {limit} descriptors")]
    TooManyDescriptors { limit: usize },
    #[error("manifest is not valid: {0}")]
    Json(String),
    #[error("manifest says mediaType `{field}` but was sent as `{content_type}`: send both alike")]
    MediaTypeMismatch { field: String, content_type: String },
    #[error("media type `{media_type}` is not a manifest's: send the manifest's own, which ends in +json")]
    NotAManifest { media_type: String },
    #[error(
        "manifest of type `{media_type}` has a field `{field}`: an image has no manifests, an index no layers"
    )]
    Confused { media_type: String, field: &'static str },
    #[error("manifest of type `{media_type}` lacks the field `{field}`")]
    Missing { media_type: String, field: &'static str },
    #[error("manifest of type `{media_type}` has schemaVersion {found} where {expected} is needed")]
    SchemaVersion { media_type: String, found: i64, expected: i64 },
    #[error("manifest names no media type and has the shape of none: send a Content-Type")]
    UnknownShape,
    #[error("signed schema 1 manifest is not valid: {0}")]
    Signature(&'static str),
}

impl ManifestError {
    /// `SIZE_INVALID` for a body over the limit, `MANIFEST_UNVERIFIED` for a broken signature block, else
    /// `MANIFEST_INVALID`.
    pub fn code(&self) -> ErrorCode {
        match self {
            ManifestError::TooLarge { .. } => ErrorCode::SizeInvalid,
            ManifestError::Signature(_) => ErrorCode::ManifestUnverified,
            _ => ErrorCode::ManifestInvalid,
        }
    }

    pub(crate) fn json(error: serde_json::Error) -> Self {
        // serde_json quotes the offending value whole; a manifest may hold 4 MiB of it.
        const SHOWN: usize = 300;
        let text = error.to_string();
        let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
        if text.chars().nth(SHOWN).is_some() {
            shown.push_str(&format!("… at line {} column {}", error.line(), error.column()));
        }
        ManifestError::Json(shown)
    }
}

impl DigestError {
    pub(crate) fn unsupported(algorithm: &str) -> Self {
        DigestError::Unsupported(crate::text::quoted(algorithm))
    }

    pub(crate) fn malformed(digest: &str) -> Self {
        DigestError::Malformed(crate::text::quoted(digest))
    }
}
