//! Who asks, and what they may do. Every handler works through a [`Grant`], so that a policy is added in one place.
//! Invariant: a request that bears a site's credential may pull and no more, whatever the policy allows others.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde::Deserialize;
use twinport_metadata::{Actor, Incarnation};
use twinport_oci::RepositoryName;

use crate::listener::ClientCertificate;

/// No credential of a site is longer.
const MAX_CREDENTIAL: usize = 8 << 10;
/// A correlation id longer than this is not kept.
const MAX_CORRELATION: usize = 128;

/// What a request wants to do with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Pull,
    Push,
    Delete,
}

/// The policy by which requests are granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone may do anything.
    Open,
}

impl Access {
    /// Reads the credentials of a request, which came over a connection that showed this certificate or none.
    pub fn grant(&self, headers: &HeaderMap, certificate: Option<&ClientCertificate>) -> Grant {
        match self {
            Access::Open => Grant {
                site: site_credential(headers),
                has_credentials: headers.contains_key(AUTHORIZATION) || certificate.is_some(),
                certificate: certificate.cloned(),
                correlation: correlation(headers),
            },
        }
    }
}

/// What one request may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    site: Option<Incarnation>,
    has_credentials: bool,
    certificate: Option<ClientCertificate>,
    correlation: Option<String>,
}

impl Grant {
    /// Whether the policy lets this request do `action` in a repository.
    pub fn allows(&self, _repository: &RepositoryName, action: Action) -> bool {
        self.site.is_none() || action == Action::Pull
    }

    /// Whether the policy lets this request list the repositories of the site.
    pub fn allows_catalog(&self) -> bool {
        true
    }

    /// Whether the request showed nothing of who it is from, so that anyone would be answered the same.
    pub fn is_anonymous(&self) -> bool {
        !self.has_credentials
    }

    /// Who goes into the event of a change, with the request's correlation id.
    pub fn actor(&self) -> Actor {
        let actor = match (self.site, &self.certificate) {
            (Some(site), _) => Actor { name: format!("site {site}"), correlation: None },
            (None, Some(certificate)) => {
                Actor { name: format!("certificate {}", certificate.name()), correlation: None }
            }
            (None, None) => Actor::anonymous(),
        };
        match &self.correlation {
            None => actor,
            Some(id) => actor.with_correlation(id.clone()),
        }
    }
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
    if !scheme.eq_ignore_ascii_case("bearer") || token.len() > MAX_CREDENTIAL {
        return None;
    }
    let header = URL_SAFE_NO_PAD.decode(token.trim().split('.').next()?).ok()?;
    serde_json::from_slice(&header).ok().map(|Header { kid }| kid)
}

/// The id that the request came with, or that telemetry gave it.
fn correlation(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("x-request-id")?.to_str().ok()?;
    let sound =
        !id.is_empty() && id.len() <= MAX_CORRELATION && id.bytes().all(|byte| byte.is_ascii_graphic());
    sound.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(authorization: Option<&str>) -> Grant {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.parse().unwrap());
        }
        Access::Open.grant(&headers, None)
    }

    #[test]
    fn a9_a_site_credential_may_pull_and_no_more() {
        let header =
            URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","kid":"6b3c9a93-af5d-473f-a4ff-9710022185cd"}"#);
        let name: RepositoryName = "library/x".parse().unwrap();
        let grant = grant(Some(&format!("Bearer {header}.e30.AAAA")));
        assert!(grant.allows(&name, Action::Pull));
        assert!(!grant.allows(&name, Action::Push));
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

    #[test]
    fn only_a_sound_correlation_id_is_kept() {
        let with = |id: &str| {
            let headers = HeaderMap::from_iter([("x-request-id".parse().unwrap(), id.parse().unwrap())]);
            Access::Open.grant(&headers, None).actor().correlation
        };
        assert_eq!(with("abc-1"), Some("abc-1".to_owned()));
        assert_eq!(with("a b"), None);
        assert_eq!(with(&"x".repeat(129)), None);
    }
}
