//! The verifying side of a token service, foreign or built-in: from the text of a token to what its bearer may do.

use std::sync::Arc;

use twinport_oci::RepositoryName;

use super::access::{AccessEntry, entries};
use super::claims::text;
use super::keys::KeySet;
use super::refusal::Refusal;
use super::seen::{Hash, Seen};
use super::signed::{MAX_TOKEN_BYTES, SignedToken};
use super::verifying_key::SigningAlgorithm;
use crate::action::Actions;
use crate::scope::Resource;

const US_PER_S: i64 = 1_000_000;

/// Checks tokens against one set of keys, issuers and audiences. Whoever changes one of them makes a verifier anew.
#[derive(Debug)]
pub struct TokenVerifier {
    keys: KeySet,
    issuers: Vec<String>,
    /// The names of this service, of which a token must be for one.
    services: Vec<String>,
    algorithms: Option<Vec<SigningAlgorithm>>,
    seen: Seen,
}

/// A token that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedToken {
    pub issuer: String,
    /// Empty where the token service vouches for nobody in particular, as for anonymous pulls.
    pub subject: String,
    /// How the bearer signed in there, as GitLab says it.
    pub auth_type: Option<String>,
    /// `jti`: what a line of the token service's own log has too.
    pub id: Option<String>,
    pub access: Vec<AccessEntry>,
    /// µs since the epoch, without the skew.
    pub expires_at_us: i64,
}

impl VerifiedToken {
    /// What the token names for a repository. Entries add up.
    pub fn actions(&self, repository: &RepositoryName) -> Actions {
        self.entries(repository).fold(Actions::NONE, |actions, entry| actions.or(entry.actions))
    }

    /// What the token names for the catalog: pulling it, or nothing.
    pub fn catalog(&self) -> Actions {
        let of_catalog = self.access.iter().filter(|entry| entry.resource == Resource::Catalog);
        of_catalog.fold(Actions::NONE, |actions, entry| actions.or(entry.actions))
    }

    /// The entries about a repository; what each forbids on tags holds for all.
    pub fn entries(&self, repository: &RepositoryName) -> impl Iterator<Item = &AccessEntry> {
        self.access.iter().filter(
            move |entry| matches!(&entry.resource, Resource::Repository { name, .. } if name == repository),
        )
    }
}

impl TokenVerifier {
    /// A verifier of tokens that one of `issuers` made for one of `services`, with one of `algorithms` (with any that is
    /// for the key where none are given).
    pub fn new(
        keys: KeySet,
        issuers: Vec<String>,
        services: Vec<String>,
        algorithms: Option<Vec<SigningAlgorithm>>,
    ) -> Self {
        Self { keys, issuers, services, algorithms, seen: Seen::default() }
    }

    /// What a token is good for at `now_us`. A token whose signature was found good is remembered: seen again, its
    /// times alone are looked at.
    ///
    /// # Errors
    /// The [`Refusal`], for the log.
    pub fn verify(&self, token: &str, now_us: i64) -> Result<Arc<VerifiedToken>, Refusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Refusal::TooLong);
        }
        let hash = Hash::of(token);
        if let Some((times, verified)) = self.seen.find(hash) {
            times.check(now_us)?;
            return Ok(verified);
        }
        let claims = SignedToken::parse(token)?.claims(&self.keys, self.algorithms.as_deref(), now_us)?;
        claims.check(&self.issuers, &self.services, now_us)?;
        let verified = Arc::new(VerifiedToken {
            access: entries(&claims.all)?,
            auth_type: text(&claims.all, "auth_type")?,
            issuer: claims.issuer.clone(),
            subject: claims.subject.clone(),
            id: claims.id.clone(),
            expires_at_us: claims.times.expires_at_s * US_PER_S,
        });
        self.seen.remember(hash, token.len(), claims.times, Arc::clone(&verified));
        Ok(verified)
    }

    /// Whether a key has this id: for telling whose token it is before it is checked.
    pub fn knows_key(&self, id: &str) -> bool {
        self.keys.knows(id)
    }
}
