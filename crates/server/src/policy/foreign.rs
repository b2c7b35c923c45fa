//! The policy of a token service elsewhere, as GitLab and Distribution have them: a bearer token says what its bearer may do.

use std::sync::Arc;

use http::request;
use twinport_access::jwt::{KeySet, SigningAlgorithm, TagLimits, TokenVerifier, VerifiedToken};
use twinport_access::{Actions, Identity};
use twinport_metadata::Clock;
use twinport_oci::RepositoryName;

use super::credentials::Credentials;
use crate::config::TokenAuthConfig;
use crate::error::Refusal;
use crate::external::ExternalAddress;
use crate::grant::{Grant, Manner, Rights, StatedRights};
use crate::start_error::StartError;

/// Tokens of one token service, checked by the keys that the configuration names.
#[derive(Debug)]
pub struct ForeignTokens {
    realm: String,
    service: String,
    auto_redirect: Option<String>,
    verifier: TokenVerifier,
    clock: Clock,
}

impl ForeignTokens {
    /// Reads the keys. Blocks.
    pub(crate) fn open(config: &TokenAuthConfig, clock: Clock) -> Result<Self, StartError> {
        let refused = |reason: String| StartError::TokenKeys { reason };
        let read = |file: &std::path::Path| {
            std::fs::read(file).map_err(|error| refused(format!("cannot read {}: {error}", file.display())))
        };
        let mut keys = KeySet::default();
        if let Some(file) = &config.root_cert_bundle {
            keys = keys
                .with_bundle(&read(file)?)
                .map_err(|error| refused(format!("{}: {error}", file.display())))?;
        }
        if let Some(file) = &config.jwks {
            keys = keys
                .with_jwks(&read(file)?)
                .map_err(|error| refused(format!("{}: {error}", file.display())))?;
        }
        let algorithm = |name: &String| {
            let known = SigningAlgorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == name);
            known.ok_or_else(|| refused(format!("auth.token.signingalgorithms: `{name}` is not known")))
        };
        let algorithms = config.signing_algorithms.iter().map(algorithm).collect::<Result<Vec<_>, _>>()?;
        let algorithms = (!algorithms.is_empty()).then_some(algorithms);
        let (issuers, services) = (vec![config.issuer.clone()], vec![config.service.clone()]);
        Ok(Self {
            realm: config.realm.to_string(),
            service: config.service.clone(),
            auto_redirect: config.auto_redirect.clone(),
            verifier: TokenVerifier::new(keys, issuers, services, algorithms),
            clock,
        })
    }

    pub(crate) fn service(&self) -> &str {
        &self.service
    }

    /// Where this client gets its tokens.
    pub(crate) fn realm(&self, external: &ExternalAddress, request: &request::Parts) -> String {
        match &self.auto_redirect {
            Some(path) => format!("{}{path}", external.host(request)),
            None => self.realm.clone(),
        }
    }

    pub(crate) fn grant(&self, request: &request::Parts) -> Result<Grant, Refusal> {
        let token = match Credentials::read(&request.headers) {
            Credentials::Bearer(token) => {
                std::str::from_utf8(token).map_err(|_| Refusal::bad_credentials())?
            }
            Credentials::None => {
                return Ok(Grant::new(
                    Identity::Anonymous,
                    Rights::Stated(Arc::new(Nothing)),
                    Manner::Challenge,
                ));
            }
            Credentials::Basic(_) | Credentials::Unreadable => return Err(Refusal::bad_credentials()),
        };
        let verified = self.verifier.verify(token, self.clock.now_us()).map_err(|reason| {
            tracing::info!(%reason, "a bearer token was refused");
            Refusal::bad_credentials()
        })?;
        let subject = match verified.subject.as_str() {
            "" => "anybody".to_owned(),
            subject => subject.to_owned(),
        };
        let identity = Identity::Foreign { issuer: verified.issuer.clone(), subject };
        Ok(Grant::new(identity, Rights::Stated(verified), Manner::InsufficientScope))
    }
}

impl StatedRights for VerifiedToken {
    fn actions(&self, repository: &RepositoryName) -> Actions {
        VerifiedToken::actions(self, repository)
    }

    fn catalog(&self) -> bool {
        !VerifiedToken::catalog(self).is_empty()
    }

    fn tag_limits(&self, repository: &RepositoryName) -> Vec<&TagLimits> {
        self.entries(repository).map(|entry| &entry.tags).filter(|limits| !limits.is_empty()).collect()
    }
}

/// What a client that showed no token may do.
#[derive(Debug)]
struct Nothing;

impl StatedRights for Nothing {
    fn actions(&self, _: &RepositoryName) -> Actions {
        Actions::NONE
    }

    fn catalog(&self) -> bool {
        false
    }

    fn tag_limits(&self, _: &RepositoryName) -> Vec<&TagLimits> {
        Vec::new()
    }
}
