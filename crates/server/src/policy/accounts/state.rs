//! What requests need of the access records, in memory: the roles and the keys. Accounts and tokens are looked up one by one.
//! Memory: about 300 bytes a role that was given; the keys are few.

use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::Value;
use twinport_access::Scope;
use twinport_access::jwt::{AccessEntry, KeySet, Names, Refusal, SignedToken, SigningPair};
use twinport_access::{Bindings, Identity};
use twinport_metadata::{Error, Metadata, Result};

use super::SignedIn;
use crate::grant::RoleRights;

/// How long a key signs (µs): a month.
pub(crate) const KEY_LIFETIME_US: i64 = 30 * 24 * 3_600 * 1_000_000;
/// How long a key that was replaced may go on signing, at nodes that have not noticed (µs).
pub(crate) const KEY_GRACE_US: i64 = 60 * 1_000_000;

/// The records as of one generation.
#[derive(Debug)]
pub(crate) struct State {
    pub(super) generation: i64,
    pub(super) bindings: Arc<Bindings>,
    keys: KeySet,
    signing: SigningPair,
    /// The `iss` of tokens: the federation, so that any site's token counts at every other.
    issuer: String,
    service: String,
    /// When this site's key is to be replaced (µs since the epoch, UTC).
    renew_at_us: i64,
    anonymous: Arc<RoleRights>,
}

/// The claims of a token of the built-in service that holds.
pub(super) struct Verified {
    pub(super) access: Vec<AccessEntry>,
    pub(super) private: Value,
    pub(super) expires_at_us: i64,
}

impl State {
    /// Reads all of it. The generation comes first: what changes meanwhile is read again.
    pub(super) async fn read(metadata: &Metadata, service: &str) -> Result<Self> {
        let generation = metadata.access_generation().await?;
        let bindings = Arc::new(metadata.bindings().await?.into_iter().collect::<Bindings>());
        let own = metadata.current_token_key(KEY_LIFETIME_US, KEY_GRACE_US).await?;
        let issuer = format!("twinport/{}", metadata.site().await?.federation.0);
        let mut known = metadata.signing_keys().await?;
        // A site's own keys count at once, also before its primary has heard of them.
        for key in metadata.token_keys().await? {
            known.retain(|other| other.kid != key.public.kid);
            known.push(key.public);
        }
        let unusable = |error: twinport_access::Error| Error::Corrupt(error.to_string());
        let mut keys = KeySet::default();
        for key in &known {
            keys = keys.with_signing_key(key, &issuer).map_err(unusable)?;
        }
        let signing = SigningPair::from_pkcs8(&own.private).map_err(unusable)?;
        let anonymous = Arc::new(RoleRights {
            identity: Identity::Anonymous,
            bindings: bindings.clone(),
            limit: None,
            scope: None,
            catalog: false,
        });
        let renew_at_us = own.public.created_at_us.saturating_add(KEY_LIFETIME_US);
        let service = service.to_owned();
        Ok(Self { generation, bindings, keys, signing, issuer, service, renew_at_us, anonymous })
    }

    pub(super) fn keys_are_old(&self, now_us: i64) -> bool {
        now_us > self.renew_at_us
    }

    /// What somebody who shows nothing may do.
    pub(super) fn anonymous(&self) -> Arc<RoleRights> {
        self.anonymous.clone()
    }

    /// What somebody who signed in may do.
    pub(crate) fn rights(&self, signed_in: &SignedIn) -> Arc<RoleRights> {
        Arc::new(RoleRights {
            identity: signed_in.identity.clone(),
            bindings: self.bindings.clone(),
            limit: signed_in.limit.clone(),
            scope: None,
            catalog: signed_in.identity != Identity::Anonymous,
        })
    }

    /// Signs a token about `subject` for `scopes`, with a claim of our own.
    pub(super) fn mint(
        &self,
        subject: &str,
        scopes: &[Scope],
        private: (&str, Value),
        now_us: i64,
        lifetime_s: i64,
    ) -> twinport_access::Result<String> {
        let names = Names { issuer: &self.issuer, subject, service: &self.service };
        let minted = self.signing.mint(names, scopes, vec![private], now_us, lifetime_s)?;
        Ok(minted.token)
    }

    /// Whether a token is one of the federation's, for this service, and valid now.
    pub(super) fn verify(&self, token: &str, claim: &str, now_us: i64) -> Result<Verified, Refusal> {
        let claims = SignedToken::parse(token)?.claims(&self.keys, None, now_us)?;
        claims.check(std::slice::from_ref(&self.issuer), std::slice::from_ref(&self.service), now_us)?;
        let private = claims.all.get(claim).cloned().unwrap_or_default();
        let expires_at_us = claims.expires_at_us();
        Ok(Verified { access: claims.access()?, private, expires_at_us })
    }
}

/// The state that requests work with.
#[derive(Debug)]
pub(super) struct Current(RwLock<Arc<State>>);

impl Current {
    pub(super) fn new(state: State) -> Self {
        Self(RwLock::new(Arc::new(state)))
    }

    pub(super) fn get(&self) -> Arc<State> {
        self.0.read().clone()
    }

    pub(super) fn set(&self, state: State) {
        *self.0.write() = Arc::new(state);
    }
}
