//! `/token`: who signs in gets a bearer token for what it asked and may do. Docker's GET form, and OAuth2's POST form with
//! refresh tokens (Distribution, docs/content/spec/auth: token.md, oauth.md).
//! Invariant: a token names no more than its owner may do now; what may not be done is left out, and never an error.

mod answer;
mod refresh;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::routing::get;
use http::{Method, request};
use http_body_util::BodyExt as _;
use twinport_access::Identity;
use twinport_access::{Resource, Scope};

use self::answer::Issued;
use crate::answer::Answer;
use crate::audit;
use crate::error::Refusal;
use crate::grant::RoleRights;
use crate::listener::{ClientCertificate, Peer};
use crate::policy::{Accounts, Basic, Credentials, SignedIn};
use crate::query::Query;

/// The largest form that is taken, in bytes: the tokens of platforms may be long.
const MAX_FORM: usize = 64 << 10;

/// The route of the token service.
pub(crate) fn router(accounts: Arc<Accounts>) -> Router {
    Router::new()
        .route("/token", get(by_query).post(by_form))
        .layer(DefaultBodyLimit::max(MAX_FORM))
        .with_state(accounts)
}

/// What a client asks for, in either form.
struct Asked {
    scopes: Vec<Scope>,
    /// It wants a refresh token too.
    offline: bool,
}

impl Asked {
    fn read(accounts: &Accounts, query: &Query, offline: bool) -> Result<Self, Refusal> {
        if let Some(service) = query.get("service").filter(|service| *service != accounts.service()) {
            let ours = accounts.service();
            let message = format!("tokens are issued here for the service `{ours}`, and not for `{service}`");
            return Err(Refusal::bad_request(twinport_oci::ErrorCode::Unsupported, message));
        }
        let scopes = Scope::parse_all(query.all("scope"))
            .map_err(|error| Refusal::bad_request(twinport_oci::ErrorCode::Unsupported, error.to_string()))?;
        Ok(Self { scopes, offline })
    }
}

async fn by_query(State(accounts): State<Arc<Accounts>>, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    let result = from_query(&accounts, &parts).await;
    finish(&parts, result)
}

async fn by_form(State(accounts): State<Arc<Accounts>>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let result = match body.collect().await {
        Ok(body) => from_form(&accounts, &parts, &body.to_bytes()).await,
        Err(_) => {
            let message = format!("the form is broken off, or larger than {MAX_FORM} bytes");
            Err(Refusal::bad_request(twinport_oci::ErrorCode::Unsupported, message))
        }
    };
    finish(&parts, result)
}

fn finish(request: &request::Parts, result: Result<Issued, Refusal>) -> Answer {
    match result {
        Ok(issued) => issued.into_answer(request.method == Method::POST),
        Err(refusal) => {
            audit::sign_in_refused(request, &refusal);
            answer::refused(refusal, request.method == Method::POST)
        }
    }
}

async fn from_query(accounts: &Accounts, request: &request::Parts) -> Result<Issued, Refusal> {
    let query = Query::parse(request.uri.query())?;
    let asked = Asked::read(accounts, &query, query.get("offline_token") == Some("true"))?;
    let from = request.extensions.get().and_then(Peer::ip);
    let signed_in = match Credentials::read(&request.headers) {
        Credentials::Basic(basic) => accounts.sign_in(&basic, from).await?,
        Credentials::None => by_certificate(request),
        Credentials::Bearer(_) | Credentials::Unreadable => return Err(Refusal::bad_credentials()),
    };
    issue(accounts, request, &signed_in, asked).await
}

async fn from_form(accounts: &Accounts, request: &request::Parts, body: &[u8]) -> Result<Issued, Refusal> {
    let bad = |message: &str| Refusal::bad_request(twinport_oci::ErrorCode::Unsupported, message);
    let text = std::str::from_utf8(body).map_err(|_| bad("the form is not UTF-8"))?;
    let form = Query::parse_form(text)?;
    let asked = Asked::read(accounts, &form, form.get("access_type") == Some("offline"))?;
    let from = request.extensions.get().and_then(Peer::ip);
    match form.get("grant_type") {
        Some("password") => {
            let (Some(user), Some(secret)) = (form.get("username"), form.get("password")) else {
                return Err(bad("the grant type password needs username and password"));
            };
            let basic = Basic { user: user.to_owned(), secret: secret.to_owned() };
            let signed_in = accounts.sign_in(&basic, from).await?;
            issue(accounts, request, &signed_in, asked).await
        }
        Some("refresh_token") => {
            let shown =
                form.get("refresh_token").ok_or_else(|| bad("the grant type refresh_token needs one"))?;
            let (signed_in, refresh) = refresh::use_up(accounts, shown, from).await?;
            let issued = issue(accounts, request, &signed_in, Asked { offline: false, ..asked }).await?;
            Ok(Issued { refresh_token: Some(refresh), ..issued })
        }
        _ => Err(bad("grant_type must be password or refresh_token")),
    }
}

/// A client that showed a certificate need show nothing else.
fn by_certificate(request: &request::Parts) -> SignedIn {
    match request.extensions.get::<ClientCertificate>() {
        None => SignedIn::anonymous(),
        Some(certificate) => {
            let identity = Identity::Certificate { name: certificate.name().to_string() };
            SignedIn { identity, ..SignedIn::anonymous() }
        }
    }
}

async fn issue(
    accounts: &Accounts,
    request: &request::Parts,
    signed_in: &SignedIn,
    asked: Asked,
) -> Result<Issued, Refusal> {
    let from = request.extensions.get().and_then(Peer::ip);
    accounts.admit(&signed_in.identity, from, request)?;
    let rights = accounts.state().rights(signed_in);
    let granted: Vec<Scope> = asked.scopes.into_iter().filter_map(|scope| granted(&rights, scope)).collect();
    let (token, expires_in) = accounts.issue(signed_in, &granted)?;
    // Only who has an account can come back for another: the others would have to be vouched for again.
    let refresh_token = match &signed_in.identity {
        Identity::Account { name, .. } if asked.offline => {
            Some(refresh::begin(accounts, name, signed_in).await?)
        }
        _ => None,
    };
    let issued_at_us = accounts.metadata().clock().now_us();
    Ok(Issued { token, expires_in, issued_at_us, scope: granted, refresh_token })
}

/// What of a scope may be had.
fn granted(rights: &RoleRights, scope: Scope) -> Option<Scope> {
    let actions = match &scope.resource {
        Resource::Repository { name, .. } => scope.actions.and(rights.actions(name)),
        Resource::Catalog if rights.catalog => scope.actions,
        Resource::Catalog => return None,
    };
    (!actions.is_empty()).then_some(Scope { actions, ..scope })
}
