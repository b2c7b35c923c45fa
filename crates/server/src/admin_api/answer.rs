//! How the admin API says no: a status and the reason in words. It speaks to the operator, so nothing is held back.

use axum::{
    Json,
    extract::rejection::{JsonRejection, QueryRejection},
    response::{IntoResponse, Response},
};
use http::StatusCode;

use super::types::{Failure, FailureEntry};

/// Why a command was not done.
#[derive(Debug)]
pub(super) struct Failed {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Failed {
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, code: "NOT_FOUND", message: message.into() }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "INVALID", message: message.into() }
    }

    pub(super) fn refused(message: impl Into<String>) -> Self {
        Self { status: StatusCode::CONFLICT, code: "REFUSED", message: message.into() }
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let entry = FailureEntry { code: self.code.to_owned(), message: self.message };
        (self.status, Json(Failure { errors: vec![entry] })).into_response()
    }
}

impl From<twinport_metadata::Error> for Failed {
    fn from(error: twinport_metadata::Error) -> Self {
        use twinport_metadata::Error;
        let (status, code) = match &error {
            Error::NotPrimary { .. } => (StatusCode::CONFLICT, "NOT_PRIMARY"),
            Error::Halted(_) => (StatusCode::CONFLICT, "HALTED"),
            Error::Maintenance(_) => (StatusCode::CONFLICT, "MAINTENANCE"),
            Error::RepositoryUnknown | Error::ManifestUnknown | Error::Unknown(_) => {
                (StatusCode::NOT_FOUND, "NOT_FOUND")
            }
            Error::RepositoryExists(_)
            | Error::Exists(_)
            | Error::Refused(_)
            | Error::TagHeld(_)
            | Error::StillHeld { .. } => (StatusCode::CONFLICT, "REFUSED"),
            Error::NoSpace => (StatusCode::INSUFFICIENT_STORAGE, "NO_SPACE"),
            Error::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"),
        };
        Self { status, code, message: error.to_string() }
    }
}

impl From<twinport_geo::Error> for Failed {
    fn from(error: twinport_geo::Error) -> Self {
        use twinport_geo::Error;
        let (status, code) = match error {
            Error::Metadata(error) => return error.into(),
            Error::Refused(ref refusal) => (StatusCode::CONFLICT, refusal.code.as_str()),
            Error::Token(_) => (StatusCode::BAD_REQUEST, "INVALID"),
            Error::Stopped(_) => (StatusCode::CONFLICT, "REFUSED"),
            Error::Unreachable { .. } => (StatusCode::BAD_GATEWAY, "UNREACHABLE"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"),
        };
        Self { status, code, message: error.to_string() }
    }
}

impl From<twinport_upkeep::Error> for Failed {
    fn from(error: twinport_upkeep::Error) -> Self {
        match error {
            twinport_upkeep::Error::Metadata(error) => error.into(),
            error => Self {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                code: "INTERNAL",
                message: error.to_string(),
            },
        }
    }
}

impl From<twinport_oci::Error> for Failed {
    fn from(error: twinport_oci::Error) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<twinport_access::Error> for Failed {
    fn from(error: twinport_access::Error) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<JsonRejection> for Failed {
    fn from(rejection: JsonRejection) -> Self {
        Self::invalid(rejection.body_text())
    }
}

impl From<QueryRejection> for Failed {
    fn from(rejection: QueryRejection) -> Self {
        Self::invalid(rejection.body_text())
    }
}

/// A command of another version, most likely.
pub(super) async fn unknown_path() -> Failed {
    Failed::not_found(
        "this site does not know the command: is the running process of the same version as this binary?",
    )
}
