//! By what clients are known, and what they may do: one policy a site, chosen by the configuration.
//! Invariant: credentials that were shown and do not hold are refused, never taken for none.

mod accounts;
mod challenge;
mod credentials;
mod foreign;
mod hashing;
mod htpasswd;
mod throttle;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, request};
use serde::Deserialize;
use twinport_access::Identity;
use twinport_metadata::Incarnation;

pub(crate) use self::accounts::{Accounts, SignedIn};
pub(crate) use self::challenge::Wanted;
pub(crate) use self::credentials::{Basic, Credentials};
pub(crate) use self::foreign::ForeignTokens;
pub(crate) use self::htpasswd::Htpasswd;
use crate::error::Refusal;
use crate::external::ExternalAddress;
use crate::grant::Grant;
use crate::listener::ClientCertificate;

/// No credential of a site is longer.
const MAX_SITE_CREDENTIAL: usize = 8 << 10;

/// The policy by which requests are granted.
#[derive(Debug)]
pub enum Policy {
    /// Anyone may do anything.
    Open,
    /// Whoever a file knows may do anything.
    Htpasswd(Htpasswd),
    /// A token service elsewhere says who may do what.
    Token(ForeignTokens),
    /// The built-in accounts and their roles.
    Accounts(std::sync::Arc<Accounts>),
}

impl Policy {
    /// Reads and checks the credentials of a request.
    pub(crate) async fn grant(&self, request: &request::Parts) -> Result<Grant, Refusal> {
        let grant = match self {
            Self::Open => open(&request.headers, request.extensions.get()),
            // In boxes of their own: their futures are large, and every request of every policy would carry that room.
            Self::Htpasswd(htpasswd) => Box::pin(htpasswd.grant(request)).await?,
            Self::Token(tokens) => tokens.grant(request)?,
            Self::Accounts(accounts) => Box::pin(accounts.grant(request)).await?,
        };
        Ok(grant.with_correlation(&request.headers))
    }

    /// Whether a request that shows nothing is answered at `/v2/`: where it is not, that is where clients learn how to sign in.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    /// What a 401 tells the client to do.
    pub(crate) fn challenge(
        &self,
        external: &ExternalAddress,
        request: &request::Parts,
        wanted: &Wanted,
    ) -> Option<HeaderValue> {
        match self {
            Self::Open => None,
            Self::Htpasswd(htpasswd) => challenge::basic(htpasswd.realm()),
            Self::Token(tokens) => {
                challenge::bearer(&tokens.realm(external, request), tokens.service(), wanted)
            }
            Self::Accounts(accounts) => {
                let realm = format!("{}/token", external.origin(request));
                challenge::bearer(&realm, accounts.service(), wanted)
            }
        }
    }
}

fn open(headers: &HeaderMap, certificate: Option<&ClientCertificate>) -> Grant {
    let identity = match certificate {
        Some(certificate) => Identity::Certificate { name: certificate.name().to_string() },
        None => Identity::Anonymous,
    };
    let has_credentials = headers.contains_key(AUTHORIZATION) || certificate.is_some();
    Grant::open(identity, site_credential(headers), has_credentials)
}

/// The incarnation that a bearer token claims to be signed by, where it has the form of a site's credential. The
/// signature is not looked at: under this policy the claim takes rights away and gives none (hazards A9, R28).
fn site_credential(headers: &HeaderMap) -> Option<Incarnation> {
    #[derive(Deserialize)]
    struct Header {
        kid: Incarnation,
    }
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") || token.len() > MAX_SITE_CREDENTIAL {
        return None;
    }
    let header = URL_SAFE_NO_PAD.decode(token.trim().split('.').next()?).ok()?;
    serde_json::from_slice(&header).ok().map(|Header { kid }| kid)
}

#[cfg(test)]
mod tests {
    use twinport_access::Action;
    use twinport_oci::RepositoryName;

    use super::*;

    fn grant(authorization: Option<&str>) -> Grant {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.parse().unwrap());
        }
        open(&headers, None)
    }

    #[test]
    fn a9_a_site_credential_may_pull_and_no_more() {
        let header =
            URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","kid":"6b3c9a93-af5d-473f-a4ff-9710022185cd"}"#);
        let name: RepositoryName = "library/x".parse().unwrap();
        let grant = grant(Some(&format!("Bearer {header}.e30.AAAA")));
        assert!(grant.allows(&name, Action::Pull));
        assert!(!grant.allows(&name, Action::Push));
        assert!(!grant.allows(&name, Action::Create));
        assert!(!grant.allows(&name, Action::Delete));
        assert_eq!(grant.actor().name, "site 6b3c9a93-af5d-473f-a4ff-9710022185cd");
    }

    #[test]
    fn under_the_open_policy_everyone_else_may_push() {
        let name: RepositoryName = "x".parse().unwrap();
        let other = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","kid":"ABCD:EFGH"}"#);
        for authorization in [
            None,
            Some("Basic YTpi"),
            Some("Bearer"),
            Some("Bearer x"),
            Some(&*format!("Bearer {other}.e30.AA")),
        ] {
            let grant = grant(authorization);
            assert!(grant.allows(&name, Action::Push), "{authorization:?}");
            assert_eq!(grant.actor().name, "anonymous");
        }
    }
}
