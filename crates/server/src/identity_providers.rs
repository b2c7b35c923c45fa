//! Workload identities: tokens that platforms make for their jobs (GitHub Actions, GitLab CI, Kubernetes service accounts), checked
//! with the keys that each issuer publishes (OpenID Connect Discovery 1.0).
//!
//! **Architecture invariant:** a token decides nothing about where keys come from: issuers and addresses are configured, and what
//! callers send makes this site ask an issuer at most once in ten seconds (hazard A4).

mod fetch;
mod issuer_keys;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use twinport_access::jwt::{Claims, Refusal, SignedToken, SigningAlgorithm};
use twinport_access::{AccountName, Identity};
use url::Url;

pub(crate) use self::fetch::FetchError;
use self::issuer_keys::IssuerKeys;

/// The most claims of one token that roles may ask for.
const MAX_CLAIMS: usize = 100;

/// An issuer as it is configured.
#[derive(Debug, Clone)]
pub(crate) struct WorkloadIssuer {
    /// What subjects call it: `workload:NAME,…`.
    pub(crate) name: AccountName,
    /// The `iss` of its tokens, to the letter.
    pub(crate) issuer: String,
    /// The audiences of which a token must be for one.
    pub(crate) audiences: Vec<String>,
    pub(crate) keys: KeySource,
    /// PEM of authorities that the issuer's own TLS certificate is checked with, beside those of the system.
    pub(crate) certificate_authorities: Option<Vec<u8>>,
    /// Those that are for the keys, where none are given.
    pub(crate) algorithms: Option<Vec<SigningAlgorithm>>,
}

/// Where an issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeySource {
    /// Where its discovery document says, under `issuer`.
    Discovery,
    /// A JWKS document at this address.
    Url(Url),
    /// A JWKS document in this file, for issuers that cannot be reached.
    File(PathBuf),
}

/// All issuers of a site.
#[derive(Debug, Default)]
pub(crate) struct IdentityProviders {
    issuers: Vec<Issuer>,
}

#[derive(Debug)]
struct Issuer {
    settings: WorkloadIssuer,
    keys: IssuerKeys,
}

/// Why a token proves no workload.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum NotIdentified {
    /// The token is to blame.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nobody knows: try again later.
    #[error("the keys of the issuer {issuer} cannot be had: {source}")]
    Unavailable { issuer: AccountName, source: FetchError },
}

impl IdentityProviders {
    /// # Errors
    /// [`FetchError`] when an address or an authority cannot be used; nothing is fetched yet.
    pub(crate) fn new(issuers: Vec<WorkloadIssuer>) -> Result<Self, FetchError> {
        let issuers = issuers.into_iter().map(|settings| {
            let keys = IssuerKeys::new(&settings)?;
            Ok(Issuer { settings, keys })
        });
        Ok(Self { issuers: issuers.collect::<Result<_, _>>()? })
    }

    /// Whether a token says that one of these issuers made it; nothing is verified.
    pub(crate) fn may_know(&self, token: &str) -> bool {
        let issuer = SignedToken::parse(token).and_then(|signed| signed.unverified_issuer());
        issuer.is_ok_and(|issuer| self.of(&issuer).is_some())
    }

    /// The workload that a token proves at `now_us`.
    ///
    /// # Errors
    /// [`NotIdentified`]: the token is refused, or its issuer's keys cannot be had.
    pub(crate) async fn identify(&self, token: &str, now_us: i64) -> Result<Identity, NotIdentified> {
        let signed = SignedToken::parse(token)?;
        let named = signed.unverified_issuer()?;
        let issuer = self.of(&named).ok_or(Refusal::Issuer(named.chars().take(80).collect()))?;
        // Issuers publish sets of several keys, and their tokens say which.
        let key_id = signed.key_id().ok_or(Refusal::NoKey)?;
        let keys = issuer
            .keys
            .with(key_id, now_us)
            .await
            .map_err(|source| NotIdentified::Unavailable { issuer: issuer.settings.name.clone(), source })?;
        let claims = signed.claims(&keys, issuer.settings.algorithms.as_deref(), now_us)?;
        claims.check(std::slice::from_ref(&issuer.settings.issuer), &issuer.settings.audiences, now_us)?;
        Ok(workload(&issuer.settings.name, &claims)?)
    }

    fn of(&self, issuer: &str) -> Option<&Issuer> {
        self.issuers.iter().find(|known| known.settings.issuer == issuer)
    }
}

fn workload(issuer: &AccountName, claims: &Claims) -> Result<Identity, Refusal> {
    if claims.subject.is_empty() {
        return Err(Refusal::Missing("sub"));
    }
    let claimed = claims.flat();
    if claimed.len() > MAX_CLAIMS {
        return Err(Refusal::TooManyClaims);
    }
    Ok(Identity::Workload { issuer: issuer.clone(), subject: claims.subject.clone(), claims: claimed })
}
