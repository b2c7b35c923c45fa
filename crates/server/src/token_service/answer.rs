//! The answers of the token service, in the words of Docker's protocol and of OAuth2 at once.

use http::header::{CACHE_CONTROL, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use jiff::Timestamp;
use serde::Serialize;
use twinport_access::Scope;

use crate::answer::{self, Answer};
use crate::error::Refusal;

/// A token that was issued.
pub(super) struct Issued {
    pub(super) token: String,
    /// Seconds.
    pub(super) expires_in: i64,
    pub(super) issued_at_us: i64,
    pub(super) scope: Vec<Scope>,
    pub(super) refresh_token: Option<String>,
}

#[derive(Serialize)]
struct Body<'a> {
    token: &'a str,
    access_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    expires_in: i64,
    issued_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
}

impl Issued {
    pub(super) fn into_answer(self, oauth: bool) -> Answer {
        let scopes: Vec<String> = self.scope.iter().map(ToString::to_string).collect();
        let body = Body {
            token: &self.token,
            access_token: &self.token,
            token_type: oauth.then_some("Bearer"),
            expires_in: self.expires_in,
            issued_at: issued_at(self.issued_at_us),
            scope: oauth.then(|| scopes.join(" ")),
            refresh_token: self.refresh_token.as_deref(),
        };
        match serde_json::to_vec(&body) {
            Ok(body) => {
                let mut answer = answer::json(body, answer::JSON);
                answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                answer
            }
            Err(error) => Refusal::internal("writing a token", &error).into_answer(),
        }
    }
}

/// RFC 3339, to the second.
fn issued_at(us: i64) -> String {
    Timestamp::from_second(us.div_euclid(1_000_000)).map(|at| at.to_string()).unwrap_or_default()
}

/// A refusal leaves in the shape of the registry's errors; OAuth2's word for it comes along.
pub(super) fn refused(refusal: Refusal, oauth: bool) -> Answer {
    let status = refusal.status();
    let mut answer = refusal.into_answer();
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::UNAUTHORIZED && !oauth {
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"token\""));
    }
    answer
}
