//! Who asks the admin API, for the audit line of what comes of it: the operator, by this connection and request.

use std::{convert::Infallible, fmt};

use axum::extract::FromRequestParts;
use http::{HeaderMap, request};
use twinport_metadata::Actor;

use super::sites::operator;
use crate::{audit, listener::Peer};

/// What is known of a request before it is acted on.
pub(super) struct Asked {
    headers: HeaderMap,
    peer: Option<Peer>,
}

impl Asked {
    /// The operator, through this request: for the event of a change.
    pub(super) fn actor(&self) -> Actor {
        let id = self.headers.get("x-request-id").and_then(|value| value.to_str().ok());
        match id {
            Some(id) => operator().with_correlation(id),
            None => operator(),
        }
    }

    /// Records that a change was made. `subject` is what was changed.
    pub(super) fn record(&self, change: audit::Change, subject: impl fmt::Display) {
        audit::site_change(change, &operator().name, &self.headers, self.peer.as_ref(), subject);
    }
}

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut request::Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self { headers: parts.headers.clone(), peer: parts.extensions.get().copied() })
    }
}
