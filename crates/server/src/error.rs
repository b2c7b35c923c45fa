//! The one place where failures become HTTP: a status and a body in the form of the OCI specification.
//! Invariant: a body names what the client can act on; what only an operator can act on goes to the log.

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};
use twinport_geo::PrimaryAddress;
use twinport_oci::{Digest, ErrorCode, ManifestError};

use crate::answer::{self, Answer};
use crate::path::{Class, PathError};
use crate::policy::Wanted;

/// When to try again where nothing better is known, in seconds.
const SOON: HeaderValue = HeaderValue::from_static("1");

/// Why a request is not met, as the client is told.
#[derive(Debug)]
pub(crate) struct Refusal(Box<Inner>);

#[derive(Debug)]
struct Inner {
    status: StatusCode,
    errors: Vec<Entry>,
    headers: HeaderMap,
    /// Of a 401: what the challenge asks for.
    wanted: Option<Wanted>,
}

/// One element of the specification's `errors` array.
#[derive(Debug, Serialize)]
struct Entry {
    code: ErrorCode,
    message: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    detail: Value,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        let entry = Entry { code, message: message.into(), detail: Value::Null };
        Self(Box::new(Inner { status, errors: vec![entry], headers: HeaderMap::new(), wanted: None }))
    }

    /// With the message that belongs to the code.
    pub(crate) fn plain(status: StatusCode, code: ErrorCode) -> Self {
        Self::new(status, code, code.message())
    }

    pub(crate) fn bad_request(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(crate) fn not_found(code: ErrorCode) -> Self {
        Self::plain(StatusCode::NOT_FOUND, code)
    }

    pub(crate) fn denied(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, ErrorCode::Denied, message)
    }

    /// 401: the answer leaves with a challenge that asks for `scope`. `insufficient`: the client showed a token that holds.
    pub(crate) fn unauthorized(
        message: impl Into<String>,
        scope: Option<String>,
        insufficient: bool,
    ) -> Self {
        let mut refusal = Self::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, message);
        refusal.0.wanted = Some(Wanted { scope, insufficient, invalid: false });
        refusal
    }

    /// 401: credentials were shown that do not hold. Why is nobody's business but the log's.
    pub(crate) fn bad_credentials() -> Self {
        let message = "the credentials that were shown do not hold";
        let mut refusal = Self::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, message);
        refusal.0.wanted = Some(Wanted { invalid: true, ..Wanted::default() });
        refusal
    }

    /// 429: the same request may succeed in `seconds`.
    pub(crate) fn too_many(message: impl Into<String>, seconds: u64) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests, message)
            .with_header(RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    /// 503: the same request may succeed in `seconds`.
    pub(crate) fn unavailable(message: impl Into<String>, seconds: u32) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, message)
            .with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// 400: the content is not what its digest says.
    pub(crate) fn digest_mismatch(provided: &Digest, actual: &Digest) -> Self {
        Self::plain(StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid)
            .with_detail(json!({ "provided": provided, "actual": actual }))
    }

    /// 500, with the reason in the log and not in the answer.
    pub(crate) fn internal(doing: &'static str, error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(doing, error = %Chain(error), "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::Unknown,
            format!("{doing} failed: see the server's log"),
        )
    }

    pub(crate) fn with_detail(mut self, detail: Value) -> Self {
        if let Some(entry) = self.0.errors.first_mut() {
            entry.detail = detail;
        }
        self
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.0.status
    }

    /// One entry a digest: the blobs a manifest names and the repository does not link.
    fn blobs_unknown(digests: Vec<Digest>) -> Self {
        let code = ErrorCode::ManifestBlobUnknown;
        let entry = |digest: Digest| Entry {
            code,
            message: code.message().to_owned(),
            detail: json!({ "digest": digest.to_string() }),
        };
        let errors = digests.into_iter().take(100).map(entry).collect();
        Self(Box::new(Inner {
            status: StatusCode::NOT_FOUND,
            errors,
            headers: HeaderMap::new(),
            wanted: None,
        }))
    }

    pub(crate) fn into_answer(self) -> Answer {
        #[derive(Serialize)]
        struct Errors {
            errors: Vec<Entry>,
        }
        let Inner { status, errors, headers, wanted } = *self.0;
        let body = serde_json::to_vec(&Errors { errors }).unwrap_or_else(|_| br#"{"errors":[]}"#.to_vec());
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        if let Some(wanted) = wanted {
            answer.extensions_mut().insert(wanted);
        }
        answer.headers_mut().insert(CONTENT_TYPE, answer::JSON);
        answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        if [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&status) {
            answer.headers_mut().entry(RETRY_AFTER).or_insert(SOON);
        }
        *answer.body_mut() = Body::from(Bytes::from(body));
        answer
    }
}

/// An error with everything that caused it.
struct Chain<'a>(&'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl From<PathError> for Refusal {
    fn from(error: PathError) -> Self {
        let code = error.code();
        match error {
            PathError::TooLong => {
                Self::new(StatusCode::URI_TOO_LONG, code, "the path is longer than any name allows")
            }
            PathError::Encoding(what) => Self::bad_request(code, format!("the path holds {what}")),
            PathError::Unrouted => {
                Self::new(StatusCode::NOT_FOUND, code, "no endpoint of the registry API has this path")
            }
            PathError::Name(error) => Self::bad_request(code, error.to_string()),
            // An upload id that was never given out is an upload that is not known.
            PathError::Value { error, class: Class::Upload } => {
                Self::new(StatusCode::NOT_FOUND, code, error.to_string())
            }
            PathError::Value { error, class: Class::Manifest | Class::Blob | Class::Referrers } => {
                Self::bad_request(code, error.to_string())
            }
        }
    }
}

impl From<twinport_oci::Error> for Refusal {
    fn from(error: twinport_oci::Error) -> Self {
        let status = match &error {
            twinport_oci::Error::Manifest(ManifestError::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            twinport_oci::Error::ContentRange(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.code(), error.to_string())
    }
}

impl From<twinport_oci::DigestError> for Refusal {
    fn from(error: twinport_oci::DigestError) -> Self {
        twinport_oci::Error::from(error).into()
    }
}

impl From<ManifestError> for Refusal {
    fn from(error: ManifestError) -> Self {
        twinport_oci::Error::from(error).into()
    }
}

impl From<twinport_blobs::Error> for Refusal {
    fn from(error: twinport_blobs::Error) -> Self {
        use twinport_blobs::Error;
        match error {
            Error::NoSpace(path) => {
                tracing::error!(path = %path.display(), "no space left for blobs");
                Self::new(
                    StatusCode::INSUFFICIENT_STORAGE,
                    ErrorCode::Unavailable,
                    "the registry's disk is full: nothing was stored, try again once its operator has made room",
                )
            }
            Error::SizeExceeded { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid, error.to_string())
            }
            Error::DigestMismatch { expected, actual } => Self::digest_mismatch(&expected, &actual),
            Error::SpoolBusy(_) => Self::unavailable("another request is writing this upload", 1),
            // The bytes of the session are gone, as after a power cut, or already taken: the client starts the upload again.
            Error::SpoolMissing(_)
            | Error::SpoolPublished(_)
            | Error::OffsetMismatch { .. }
            | Error::SizeMismatch { .. } => {
                tracing::warn!(%error, "an upload session cannot go on");
                Self::not_found(ErrorCode::BlobUploadUnknown)
            }
            Error::Stopped { .. } => Self::unavailable("the server is shutting down", 5),
            error if error.is_passing() => {
                tracing::error!(%error, "the object storage does not answer as it should");
                Self::unavailable("the registry's storage is not available, try again later", 5)
            }
            error => Self::internal("access to stored blobs", &error),
        }
    }
}

impl From<twinport_metadata::Error> for Refusal {
    fn from(error: twinport_metadata::Error) -> Self {
        use twinport_metadata::Error;
        match error {
            Error::NotPrimary { primary_name, primary_url } => {
                let primary = primary_name.unwrap_or_else(|| "the primary site".to_owned());
                let at =
                    primary_url.map(|url| format!(" at {}", PrimaryAddress::shown(&url))).unwrap_or_default();
                Self::denied(format!("this site is a secondary and takes no writes: push to {primary}{at}"))
            }
            Error::Halted(reason) => {
                Self::unavailable(format!("this site has stopped taking writes: {reason}"), 30)
            }
            Error::Maintenance(reason) => Self::unavailable(
                format!(
                    "this site is in maintenance mode and takes no writes for now ({reason}): pulls go on, push again later"
                ),
                30,
            ),
            Error::TagHeld(_) | Error::StillHeld { .. } => Self::denied(error.to_string()),
            Error::RepositoryUnknown => Self::not_found(ErrorCode::NameUnknown),
            Error::BlobsUnknown(digests) => Self::blobs_unknown(digests),
            Error::ManifestUnknown => Self::not_found(ErrorCode::ManifestUnknown),
            Error::UploadUnknown => Self::not_found(ErrorCode::BlobUploadUnknown),
            Error::UploadConflict { offset } => upload_out_of_step(offset),
            Error::NoSpace => {
                tracing::error!("no space left for the metadata database");
                Self::new(
                    StatusCode::INSUFFICIENT_STORAGE,
                    ErrorCode::Unavailable,
                    "the disk of the registry's database is full: nothing was stored, try again once its operator has made room",
                )
            }
            // Rolled back by a neighbour more often than the façade tries again.
            Error::Unavailable(reason) | Error::Conflict(reason) => {
                tracing::warn!(reason, "the metadata database is not available");
                Self::unavailable("the registry's database is not available", 5)
            }
            error => Self::internal("access to metadata", &error),
        }
    }
}

/// 416: the upload stands at another offset than the request began at (OCI Distribution, "Pushing a blob in chunks").
pub(crate) fn upload_out_of_step(offset: u64) -> Refusal {
    let message = format!("the upload stands at byte {offset}: go on from there");
    Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::BlobUploadInvalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s5_a_full_disk_is_507_in_the_form_of_the_specification() {
        for refusal in [
            Refusal::from(twinport_blobs::Error::NoSpace("/data/blobs".into())),
            Refusal::from(twinport_metadata::Error::NoSpace),
        ] {
            let answer = refusal.into_answer();
            assert_eq!(answer.status(), StatusCode::INSUFFICIENT_STORAGE);
            assert_eq!(answer.headers()[CONTENT_TYPE], "application/json");
        }
    }

    #[test]
    fn s5_a_session_whose_bytes_a_power_cut_took_is_one_that_is_not_there() {
        let spool = twinport_blobs::SpoolName::Upload(twinport_oci::UploadId::new());
        for error in [
            twinport_blobs::Error::SpoolMissing(spool),
            twinport_blobs::Error::SizeMismatch { spool, expected: 8_276, actual: 0 },
            twinport_blobs::Error::OffsetMismatch { spool, offset: 8_276, len: 0 },
        ] {
            assert_eq!(Refusal::from(error).into_answer().status(), StatusCode::NOT_FOUND);
        }
    }

    #[test]
    fn what_may_pass_is_503_with_a_time_to_try_again() {
        for refusal in [
            Refusal::from(twinport_metadata::Error::Unavailable("gone".to_owned())),
            Refusal::from(twinport_metadata::Error::Conflict("deadlock".to_owned())),
            Refusal::from(twinport_metadata::Error::Halted("history was rewritten".to_owned())),
        ] {
            let answer = refusal.into_answer();
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(answer.headers().contains_key(RETRY_AFTER));
        }
    }

    #[test]
    fn whoever_is_told_to_wait_is_told_how_long() {
        for (status, code) in [
            (StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests),
            (StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable),
        ] {
            let answer = Refusal::plain(status, code).into_answer();
            assert_eq!(answer.headers()[RETRY_AFTER], "1");
            assert_eq!(answer.headers()[CONTENT_TYPE], "application/json");
        }
        let told = Refusal::unavailable("later", 30).into_answer();
        assert_eq!(told.headers()[RETRY_AFTER], "30");
        assert!(
            !Refusal::plain(StatusCode::NOT_FOUND, ErrorCode::BlobUnknown)
                .into_answer()
                .headers()
                .contains_key(RETRY_AFTER)
        );
    }

    #[test]
    fn what_only_an_operator_can_act_on_stays_out_of_the_answer() {
        let refusal =
            Refusal::from(twinport_metadata::Error::Database("password of registry is secret".to_owned()));
        assert_eq!(refusal.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!format!("{refusal:?}").contains("secret"));
    }
}
