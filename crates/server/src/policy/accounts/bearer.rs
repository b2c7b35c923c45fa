//! Bearer tokens of the built-in token service: of this site or of another of the federation.
//! Invariant: a token says who asks and what for; what that is worth is decided by the roles of now, not of when it was issued.

use std::{
    hash::{Hash, Hasher, RandomState},
    sync::Arc,
};

use parking_lot::Mutex;
use quick_cache::{Equivalent, Weighter, sync::Cache};
use serde::{Deserialize, Serialize};
use twinport_access::{Actions, Identity, TokenLimit};
use twinport_access::{Resource, Scope};
use twinport_oci::RepositoryName;
use uuid::Uuid;

use super::state::State;
use super::{Accounts, SignedIn};
use crate::error::Refusal;
use crate::grant::RoleRights;

/// Tokens that are remembered, about, and how many bytes they may take together.
const REMEMBERED: usize = 10_000;
const REMEMBERED_BYTES: u64 = 16 << 20;
/// What one takes beside what it names.
const EACH_BYTES: u64 = 1 << 10;
/// The claim that holds a [`Bearer`], as JSON.
const CLAIM: &str = "twinport";
/// Bearer tokens are short-lived, and clocks of sites differ little.
const SKEW_US: i64 = 60_000_000;

/// Who a token was issued to, in a claim of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bearer {
    identity: Identity,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<TokenLimit>,
    /// The personal token that was shown for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<Uuid>,
}

/// A bearer token whose signature and claims hold.
struct Seen {
    bearer: Bearer,
    scope: Vec<(RepositoryName, Actions)>,
    catalog: bool,
    expires_at_us: i64,
    /// What it is worth as of a generation of the records; none where its owner is gone.
    worth: Mutex<Option<(i64, Option<Arc<RoleRights>>)>>,
}

/// The tokens of late, each under its whole text.
pub(super) struct Bearers(Cache<TokenText, Arc<Seen>, Weight, RandomState>);

/// A token's whole text.
#[derive(PartialEq, Eq)]
struct TokenText(Box<[u8]>);

/// The text of a token that somebody shows.
struct Shown<'a>(&'a [u8]);

/// How many bytes of a token's end are hashed: they are of its signature, which no two tokens that hold share. A text that
/// was made up around the same end is found unequal, and only those that hold are kept.
const HASHED: usize = 64;

impl Hash for Shown<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0[self.0.len().saturating_sub(HASHED)..]);
    }
}

impl Hash for TokenText {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Shown(&self.0).hash(state);
    }
}

impl Equivalent<TokenText> for Shown<'_> {
    fn equivalent(&self, key: &TokenText) -> bool {
        *self.0 == *key.0
    }
}

/// One client's long tokens must not take the memory of all.
#[derive(Clone)]
struct Weight;

impl Weighter<TokenText, Arc<Seen>> for Weight {
    fn weight(&self, token: &TokenText, _: &Arc<Seen>) -> u64 {
        // Once as text, and at most once more as what it names.
        EACH_BYTES + 2 * token.0.len() as u64
    }
}

impl Default for Bearers {
    fn default() -> Self {
        let keyed = RandomState::new();
        Self(Cache::with(
            REMEMBERED,
            REMEMBERED_BYTES,
            Weight,
            keyed,
            quick_cache::sync::DefaultLifecycle::default(),
        ))
    }
}

impl std::fmt::Debug for Bearers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Bearers").field(&self.0.len()).finish()
    }
}

impl Accounts {
    /// Signs a token that is good for `scopes`; the token, and for how many seconds.
    pub(crate) fn issue(&self, signed_in: &SignedIn, scopes: &[Scope]) -> Result<(String, i64), Refusal> {
        let state = self.state();
        let SignedIn { identity, limit, token, until_us } = signed_in.clone();
        let now_us = self.metadata.clock().now_us();
        let lifetime_s = i64::try_from(self.token_lifetime.as_secs()).unwrap_or(i64::MAX);
        let left_s = until_us.map_or(lifetime_s, |until| (until - now_us) / 1_000_000);
        let lifetime_s = lifetime_s.min(left_s).max(1);
        let subject = match &identity {
            Identity::Anonymous => String::new(),
            identity => identity.to_string(),
        };
        let bearer = serde_json::to_value(Bearer { identity, limit, token })
            .map_err(|error| Refusal::internal("writing a token", &error))?;
        let minted = state.mint(&subject, scopes, (CLAIM, bearer), now_us, lifetime_s);
        let minted = minted.map_err(|error| Refusal::internal("signing a token", &error))?;
        Ok((minted, lifetime_s))
    }

    /// What a bearer token is worth.
    pub(super) async fn bearer(&self, token: &[u8], state: &State) -> Result<Arc<RoleRights>, Refusal> {
        let now_us = self.metadata.clock().now_us();
        let remembered = self.bearers.0.get(&Shown(token));
        let held_before = remembered.is_some();
        let seen = match remembered {
            Some(seen) => seen,
            None => {
                let seen = Arc::new(read(token, state, now_us).map_err(|reason| {
                    tracing::debug!(%reason, "a bearer token was refused");
                    Refusal::bad_credentials()
                })?);
                self.bearers.0.insert(TokenText(token.into()), seen.clone());
                seen
            }
        };
        if now_us > seen.expires_at_us + SKEW_US {
            return Err(Refusal::bad_credentials());
        }
        let known = seen.worth.lock().clone();
        let worth = match known {
            Some((generation, worth)) if generation == state.generation => worth,
            _ => {
                // Its key may be gone since it was remembered.
                let holds = !held_before || read(token, state, now_us).is_ok();
                let worth = if holds { self.worth(&seen, state).await? } else { None };
                *seen.worth.lock() = Some((state.generation, worth.clone()));
                worth
            }
        };
        worth.ok_or_else(Refusal::bad_credentials)
    }

    /// What a token is worth as the records are now: nothing when its owner, or the personal token that it came from, is gone.
    async fn worth(&self, seen: &Seen, state: &State) -> Result<Option<Arc<RoleRights>>, Refusal> {
        if let Identity::Account { name, kind } = &seen.bearer.identity {
            let current = self.enabled(name).await?;
            if !matches!(current, Some(Identity::Account { kind: now, .. }) if now == *kind) {
                return Ok(None);
            }
        }
        if let Some(id) = seen.bearer.token
            && self.metadata.access_token(id).await?.is_none()
        {
            return Ok(None);
        }
        let signed_in = RoleRights {
            identity: seen.bearer.identity.clone(),
            bindings: state.bindings.clone(),
            limit: seen.bearer.limit.clone(),
            scope: None,
            catalog: false,
        };
        Ok(Some(Arc::new(signed_in.within(&seen.scope, seen.catalog))))
    }
}

fn read(token: &[u8], state: &State, now_us: i64) -> Result<Seen, String> {
    let token = std::str::from_utf8(token).map_err(|_| "it is not text".to_owned())?;
    let verified = state.verify(token, CLAIM, now_us).map_err(|refusal| refusal.to_string())?;
    let bearer: Bearer = serde_json::from_value(verified.private).map_err(|error| error.to_string())?;
    let mut scope: Vec<(RepositoryName, Actions)> = Vec::new();
    let mut catalog = false;
    for entry in verified.access {
        match entry.resource {
            Resource::Repository { name, .. } => scope.push((name, entry.actions)),
            Resource::Catalog => catalog |= !entry.actions.is_empty(),
        }
    }
    let expires_at_us = verified.expires_at_us;
    Ok(Seen { bearer, scope, catalog, expires_at_us, worth: Mutex::new(None) })
}
