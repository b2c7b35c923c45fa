//! How a call between sites is refused: a status, a code and words, as JSON.
//! Guards: nothing of this site's insides (database texts, paths) reaches another site.

use axum::{
    Json,
    extract::rejection::{JsonRejection, QueryRejection},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header::RETRY_AFTER};
use twinport_geo::{Error, Refusal, RefusalCode, protocol::ErrorBody};

/// Why a call gets no answer.
#[derive(Debug)]
pub(super) struct Refused(Error);

impl Refused {
    pub(super) fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self(Refusal::new(code, message).into())
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<twinport_metadata::Error> for Refused {
    fn from(error: twinport_metadata::Error) -> Self {
        Self(error.into())
    }
}

impl From<twinport_blobs::Error> for Refused {
    fn from(error: twinport_blobs::Error) -> Self {
        Self(error.into())
    }
}

impl From<JsonRejection> for Refused {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(
            RefusalCode::BadRequest,
            format!("the body is not what this call takes: {}", rejection.body_text()),
        )
    }
}

impl From<QueryRejection> for Refused {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(
            RefusalCode::BadRequest,
            format!("the query is not what this call takes: {}", rejection.body_text()),
        )
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let refusal = refusal(self.0);
        let status = StatusCode::from_u16(refusal.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(ErrorBody::from(&refusal))).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

fn refusal(error: Error) -> Refusal {
    use twinport_metadata::Error as Metadata;
    let (code, message) = match error {
        Error::Refused(refusal) => return *refusal,
        Error::Metadata(error @ Metadata::NotPrimary { .. }) => (RefusalCode::NotPrimary, error.to_string()),
        Error::Metadata(error @ (Metadata::Halted(_) | Metadata::NoSpace)) => {
            (RefusalCode::Unavailable, error.to_string())
        }
        error => {
            tracing::error!(%error, "a call of another site failed");
            (
                RefusalCode::Unavailable,
                "this site cannot answer for the moment: try again, and see its log".to_owned(),
            )
        }
    };
    Refusal::new(code, message)
}

pub(super) async fn unknown_call() -> Refused {
    Refused::new(
        RefusalCode::CallUnknown,
        "this site does not know that call: upgrade the older of the two sites",
    )
}
