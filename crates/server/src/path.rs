//! The paths under `/v2`, read from the right, because a repository name may hold slashes and any of the words
//! that follow it (`library/blobs/uploads` is a name).
//! Invariant: percent-decoding happens once, and no path that holds `..`, NUL or an encoded slash names anything.

use std::borrow::Cow;

use twinport_oci::{Digest, DigestError, ErrorCode, Reference, RepositoryName, UploadId};

use crate::config::Namespaces;

/// No path of a client is longer: a name of 255 bytes, the words around it and a sha512 digest.
const MAX_PATH: usize = 1024;

/// What a path under `/v2` names (OCI Distribution, "Endpoints").
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Base,
    Catalog,
    Tags(RepositoryName),
    Manifest(RepositoryName, Reference),
    Blob(RepositoryName, Digest),
    Uploads(RepositoryName),
    Upload(RepositoryName, UploadId),
    Referrers(RepositoryName, Digest),
}

impl Route {
    /// The repository that a request is about.
    pub(crate) fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Base | Self::Catalog => None,
            Self::Tags(name)
            | Self::Manifest(name, _)
            | Self::Blob(name, _)
            | Self::Uploads(name)
            | Self::Upload(name, _)
            | Self::Referrers(name, _) => Some(name),
        }
    }

    /// The same in the repository where that of another registry is kept. `None`: this route has no such.
    pub(crate) fn within(&self, host: &str, namespaces: &Namespaces) -> Option<Self> {
        let there = |name: &RepositoryName| namespaces.resolve(host, name);
        match self {
            Self::Tags(name) => Some(Self::Tags(there(name)?)),
            Self::Manifest(name, reference) => Some(Self::Manifest(there(name)?, reference.clone())),
            Self::Blob(name, digest) => Some(Self::Blob(there(name)?, *digest)),
            Self::Referrers(name, digest) => Some(Self::Referrers(there(name)?, *digest)),
            Self::Base | Self::Catalog | Self::Uploads(_) | Self::Upload(..) => None,
        }
    }
}

/// Why a path names nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PathError {
    /// Longer than any path a client has a reason to send.
    TooLong,
    /// A broken escape, an encoded slash, a NUL, or bytes that are no UTF-8.
    Encoding(&'static str),
    /// None of the specification's endpoints.
    Unrouted,
    Name(twinport_oci::Error),
    /// The path could be that of a manifest or blob, but its last part is not valid.
    Value {
        error: twinport_oci::Error,
        class: Class,
    },
}

/// Which kind of resource a broken path was about: the answer differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Manifest,
    Blob,
    Upload,
    Referrers,
}

impl PathError {
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            PathError::TooLong | PathError::Encoding(_) => ErrorCode::NameInvalid,
            PathError::Unrouted => ErrorCode::Unsupported,
            PathError::Name(error) | PathError::Value { error, .. } => error.code(),
        }
    }
}

/// Reads the path of a request as it came, still percent-encoded. It begins with `/v2`.
pub(crate) fn parse(raw: &str) -> Result<Route, PathError> {
    if raw.len() > MAX_PATH {
        return Err(PathError::TooLong);
    }
    let path = decode(raw)?;
    let rest = path.strip_prefix("/v2").ok_or(PathError::Unrouted)?;
    let rest = match rest {
        "" | "/" => return Ok(Route::Base),
        "/_catalog" => return Ok(Route::Catalog),
        _ => rest.strip_prefix('/').ok_or(PathError::Unrouted)?,
    };
    let (head, last) = rest.rsplit_once('/').ok_or(PathError::Unrouted)?;
    if last.is_empty() {
        // The one endpoint with a trailing slash.
        let name = head.strip_suffix("/blobs/uploads").ok_or(PathError::Unrouted)?;
        return Ok(Route::Uploads(repository(name)?));
    }
    let (name, word) = head.rsplit_once('/').ok_or(PathError::Unrouted)?;
    match word {
        "manifests" => Ok(Route::Manifest(repository(name)?, value(last, Class::Manifest)?)),
        "blobs" if last == "uploads" => Ok(Route::Uploads(repository(name)?)),
        "blobs" => Ok(Route::Blob(repository(name)?, digest(last, Class::Blob)?)),
        "uploads" => {
            let name = name.strip_suffix("/blobs").ok_or(PathError::Unrouted)?;
            Ok(Route::Upload(repository(name)?, value(last, Class::Upload)?))
        }
        "tags" if last == "list" => Ok(Route::Tags(repository(name)?)),
        "referrers" => Ok(Route::Referrers(repository(name)?, digest(last, Class::Referrers)?)),
        _ => Err(PathError::Unrouted),
    }
}

fn repository(name: &str) -> Result<RepositoryName, PathError> {
    RepositoryName::parse(name).map_err(PathError::Name)
}

fn value<T>(text: &str, class: Class) -> Result<T, PathError>
where
    T: std::str::FromStr<Err = twinport_oci::Error>,
{
    text.parse().map_err(|error| PathError::Value { error, class })
}

fn digest(text: &str, class: Class) -> Result<Digest, PathError> {
    text.parse().map_err(|error: DigestError| PathError::Value { error: error.into(), class })
}

/// Undoes percent-encoding once. What is still encoded afterwards stays text, and no grammar here admits a `%`.
fn decode(raw: &str) -> Result<Cow<'_, str>, PathError> {
    if raw.bytes().any(|byte| byte == 0) {
        return Err(PathError::Encoding("a NUL byte"));
    }
    if !raw.contains('%') {
        return Ok(Cow::Borrowed(raw));
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digits = (bytes.next().and_then(hex_digit), bytes.next().and_then(hex_digit));
        let (Some(high), Some(low)) = digits else { return Err(PathError::Encoding("a broken escape")) };
        match high << 4 | low {
            b'/' | b'\\' => return Err(PathError::Encoding("an encoded slash")),
            0 => return Err(PathError::Encoding("a NUL byte")),
            byte => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| PathError::Encoding("bytes that are not UTF-8"))
}

pub(crate) fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn name(text: &str) -> RepositoryName {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_may_hold_every_word_that_can_follow_it() {
        let digest: Digest = format!("sha256:{HEX}").parse().unwrap();
        let id: UploadId = "6b3c9a93-af5d-473f-a4ff-9710022185cd".parse().unwrap();
        for repository in [
            "a",
            "library/x",
            "a/blobs",
            "blobs/uploads",
            "a/blobs/uploads",
            "manifests",
            "a/manifests/b",
            "tags/list",
            "a/tags",
            "uploads",
            "v2",
            "referrers/tags/list/manifests/blobs/uploads",
        ] {
            let tag = Reference::Tag("latest".parse().unwrap());
            let at = |rest: &str| parse(&format!("/v2/{repository}/{rest}"));
            assert_eq!(at("tags/list"), Ok(Route::Tags(name(repository))));
            assert_eq!(at("manifests/latest"), Ok(Route::Manifest(name(repository), tag)));
            assert_eq!(
                at(&format!("manifests/sha256:{HEX}")),
                Ok(Route::Manifest(name(repository), digest.into()))
            );
            assert_eq!(at(&format!("blobs/sha256:{HEX}")), Ok(Route::Blob(name(repository), digest)));
            assert_eq!(
                at(&format!("referrers/sha256:{HEX}")),
                Ok(Route::Referrers(name(repository), digest))
            );
            assert_eq!(at("blobs/uploads/"), Ok(Route::Uploads(name(repository))));
            assert_eq!(at("blobs/uploads"), Ok(Route::Uploads(name(repository))));
            assert_eq!(at(&format!("blobs/uploads/{id}")), Ok(Route::Upload(name(repository), id)));
        }
        assert_eq!(parse("/v2"), Ok(Route::Base));
        assert_eq!(parse("/v2/"), Ok(Route::Base));
        assert_eq!(parse("/v2/_catalog"), Ok(Route::Catalog));
    }

    #[test]
    fn escapes_are_undone_once() {
        assert_eq!(parse("/v2/%61%2Db/tags/list"), Ok(Route::Tags(name("a-b"))));
        assert!(matches!(parse(&format!("/v2/a/blobs/sha256%3A{HEX}")), Ok(Route::Blob(..))));
        assert!(matches!(parse("/v2/%2561/tags/list"), Err(PathError::Name(_))));
    }

    #[test]
    fn a3_dots_nul_encoded_slashes_and_long_names_name_nothing() {
        for path in [
            "/v2/../tags/list",
            "/v2/a/../b/tags/list",
            "/v2/%2e%2e/tags/list",
            "/v2/a%2Fb/tags/list",
            "/v2/a%252Fb/tags/list",
            "/v2/a%5Cb/tags/list",
            "/v2/a%00/tags/list",
            "/v2/a\0/tags/list",
            "/v2/a%/tags/list",
            "/v2/a%4/tags/list",
            "/v2/a%zz/tags/list",
            "/v2/a%ff/tags/list",
            "/v2/A/tags/list",
            "/v2/a/tags/list/",
            "/v2/a/manifests/latest/",
            "/v2//tags/list",
            "/v2/a//b/tags/list",
            "/v2/tags/list",
            "/v2/manifests/latest",
            "/v2/a/manifests/",
            "/v2/a/manifests/..",
            "/v2/a/manifests/sha256:abc",
            "/v2/a/manifests/md5:d41d8cd98f00b204e9800998ecf8427e",
            "/v2/a/blobs/latest",
            "/v2/a/blobs/uploads/..",
            "/v2/a/blobs/uploads/1",
            "/v2/a",
            "/v2/_catalog/",
            "/v2a",
            "/v2/a/uploads/x",
            "/v2/blobs/uploads/",
        ] {
            let parsed = parse(path);
            assert!(parsed.is_err(), "{path} was read as {parsed:?}");
        }
        let long = format!("/v2/{}/tags/list", "a".repeat(10_000));
        assert_eq!(parse(&long), Err(PathError::TooLong));
        assert!(matches!(parse(&format!("/v2/{}/tags/list", "a".repeat(256))), Err(PathError::Name(_))));
    }
}
