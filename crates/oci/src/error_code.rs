//! The error codes of registry answers: OCI Distribution's table and the ones Distribution added.

use std::fmt;
use std::str::FromStr;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $message:literal;)*) => {
        /// A code of the `errors` array of an answer (OCI Distribution Specification, "Error Codes").
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
        }

        impl ErrorCode {
            /// Every code, for documentation and tests.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The code on the wire, like `BLOB_UNKNOWN`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(ErrorCode::$name => $code,)*
                }
            }

            /// The message that goes with the code when nothing more precise is known.
            pub const fn message(self) -> &'static str {
                match self {
                    $(ErrorCode::$name => $message,)*
                }
            }
        }
    };
}

error_codes! {
    BlobUnknown = "BLOB_UNKNOWN", "blob unknown to registry";
    BlobUploadInvalid = "BLOB_UPLOAD_INVALID", "blob upload invalid";
    BlobUploadUnknown = "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry";
    DigestInvalid = "DIGEST_INVALID", "provided digest did not match uploaded content";
    ManifestBlobUnknown = "MANIFEST_BLOB_UNKNOWN", "manifest references a manifest or blob unknown to registry";
    ManifestInvalid = "MANIFEST_INVALID", "manifest invalid";
    ManifestUnknown = "MANIFEST_UNKNOWN", "manifest unknown to registry";
    /// Distribution's, for signed schema 1 manifests.
    ManifestUnverified = "MANIFEST_UNVERIFIED", "manifest failed signature verification";
    NameInvalid = "NAME_INVALID", "invalid repository name";
    NameUnknown = "NAME_UNKNOWN", "repository name not known to registry";
    SizeInvalid = "SIZE_INVALID", "provided length did not match content length";
    /// Distribution's.
    TagInvalid = "TAG_INVALID", "manifest tag did not match URI";
    Unauthorized = "UNAUTHORIZED", "authentication required";
    Denied = "DENIED", "requested access to the resource is denied";
    Unsupported = "UNSUPPORTED", "the operation is unsupported";
    TooManyRequests = "TOOMANYREQUESTS", "too many requests";
    /// Distribution's, for `n` of a listing.
    PaginationNumberInvalid = "PAGINATION_NUMBER_INVALID", "invalid number of results requested";
    /// Distribution's.
    RangeInvalid = "RANGE_INVALID", "invalid content range";
    /// Distribution's.
    Unavailable = "UNAVAILABLE", "service unavailable";
    /// Distribution's; also any code of another registry that is not in this list.
    Unknown = "UNKNOWN", "unknown error";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Never fails: another registry's own code reads as `Unknown`.
impl FromStr for ErrorCode {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::ALL.iter().copied().find(|code| code.as_str() == text).unwrap_or(ErrorCode::Unknown))
    }
}

impl serde::Serialize for ErrorCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for ErrorCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let visitor = crate::text::TextVisitor("an error code", std::marker::PhantomData);
        deserializer.deserialize_str(visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::ErrorCode;

    #[test]
    fn every_code_reads_back_from_its_own_text() {
        for code in ErrorCode::ALL {
            assert_eq!(code.as_str().parse(), Ok(*code));
            assert!(!code.message().is_empty());
        }
    }

    #[test]
    fn a_code_of_another_registry_reads_as_unknown() {
        assert_eq!("LAYER_SCAN_FAILED".parse(), Ok(ErrorCode::Unknown));
        let code: ErrorCode = serde_json::from_str("\"BLOB_UNKNOWN\"").unwrap();
        assert_eq!(serde_json::to_string(&code).unwrap(), "\"BLOB_UNKNOWN\"");
    }
}
