//! How answers under `/v2` are put together: the headers that name content, conditions, locations.
//! Invariant: HEAD and GET build their headers in one place, so that they cannot differ.

use axum::body::Body;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use twinport_oci::Digest;

use crate::grant::Grant;

pub(crate) type Answer = Response<Body>;

pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
pub(crate) const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
pub(crate) const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
pub(crate) const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
pub(crate) const OCI_NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");
pub(crate) const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer without a body that says so.
pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    if status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED {
        answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    answer
}

pub(crate) fn json(bytes: Vec<u8>, content_type: HeaderValue) -> Answer {
    whole(Bytes::from(bytes), content_type)
}

/// An answer whose body is at hand: header and body leave in one segment.
pub(crate) fn whole(bytes: Bytes, content_type: HeaderValue) -> Answer {
    let mut answer = Response::new(Body::empty());
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    *answer.body_mut() = Body::from(bytes);
    answer
}

/// The digest of a content as the values of `ETag` (in quotes) and `Docker-Content-Digest`; one allocation.
pub(crate) struct DigestNames {
    quoted: Bytes,
}

impl DigestNames {
    pub(crate) fn new(digest: &Digest) -> Self {
        Self { quoted: Bytes::from(format!("\"{}:{}\"", digest.algorithm().as_str(), digest.hex())) }
    }

    pub(crate) fn etag(&self) -> &[u8] {
        &self.quoted
    }

    pub(crate) fn insert_into(&self, headers: &mut HeaderMap) {
        let plain = self.quoted.slice(1..self.quoted.len() - 1);
        headers.insert(CONTENT_DIGEST, visible(plain));
        headers.insert(ETAG, visible(self.quoted.clone()));
    }

    /// Whether the client holds this content already (RFC 9110, section 13.1.2: weak comparison).
    pub(crate) fn none_match_fails(&self, request: &HeaderMap) -> bool {
        request.get_all(IF_NONE_MATCH).iter().any(|value| {
            value.as_bytes().split(|byte| *byte == b',').any(|tag| {
                let tag = tag.trim_ascii();
                let tag = tag.strip_prefix(b"W/").unwrap_or(tag);
                tag == b"*" || tag == self.etag()
            })
        })
    }
}

/// How long and by whom an answer may be kept (RFC 9111, section 3.5): what was given to somebody who showed who they
/// are is theirs alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caching {
    /// What a digest names never changes.
    Immutable,
    /// A tag may move at any time: a cache asks again, and is mostly told 304.
    Revalidate,
}

impl Caching {
    pub(crate) fn insert_into(self, grant: &Grant, headers: &mut HeaderMap) {
        let value = match (self, grant.is_anonymous()) {
            (Self::Immutable, true) => "public, max-age=31536000, immutable",
            (Self::Immutable, false) => "private, max-age=31536000, immutable",
            (Self::Revalidate, true) => "no-cache",
            (Self::Revalidate, false) => "private, no-cache",
        };
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(value));
        headers.insert(VARY, HeaderValue::from_static("Authorization"));
    }
}

/// The value of `Docker-Content-Digest` alone.
pub(crate) fn digest_value(digest: &Digest) -> HeaderValue {
    visible(Bytes::from(digest.to_string()))
}

pub(crate) fn set_location(headers: &mut HeaderMap, location: String) {
    headers.insert(LOCATION, visible(Bytes::from(location)));
}

/// A header value of text that holds visible ASCII only; anything else becomes an empty value.
pub(crate) fn visible(text: Bytes) -> HeaderValue {
    HeaderValue::from_maybe_shared(text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_content_is_recognised_in_every_form_a_client_may_send() {
        let digest = Digest::sha256(b"x");
        let names = DigestNames::new(&digest);
        let fails = |value: &str| {
            names.none_match_fails(&HeaderMap::from_iter([(IF_NONE_MATCH, value.parse().unwrap())]))
        };
        assert!(fails(&format!("\"{digest}\"")));
        assert!(fails(&format!("W/\"{digest}\"")));
        assert!(fails(&format!("\"other\", \"{digest}\"")));
        assert!(fails("*"));
        assert!(!fails(&digest.to_string()));
        assert!(!fails("\"other\""));
    }
}
