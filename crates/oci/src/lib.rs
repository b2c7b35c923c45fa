//! The OCI specifications' values: parsed once at the edge, held as types inside.
//! Invariant: total. No input, however long, deep or malformed, panics or takes more than linear time and memory.

mod digest;
mod error;
mod error_code;
mod hasher;
mod json;
mod link;
mod manifest;
mod media_type;
mod range;
mod reference;
mod repository_name;
mod text;
mod upload_id;

pub use digest::{Algorithm, Digest};
pub use error::{DigestError, Error, ManifestError};
pub use error_code::ErrorCode;
pub use hasher::Hasher;
pub use link::{next_link, parse_next_link};
pub use manifest::{
    Descriptor, MAX_DESCRIPTORS, MAX_FIELDS, MAX_JSON_DEPTH, MAX_MANIFEST_BYTES, Manifest, ManifestKind,
    Platform, canonical_digest, schema1_payload,
};
pub use media_type::MediaType;
pub use range::{ByteRange, ContentRange, MAX_RANGES, parse_ranges};
pub use reference::{Reference, Tag};
pub use repository_name::RepositoryName;
pub use upload_id::UploadId;
