//! A name and a secret become an identity: a password, a personal token, or what a platform signed for a job.
//! Invariant: names that are not there cost the time of those that are, and are answered the same (hazard A11).

use std::net::IpAddr;
use std::time::Instant;

use twinport_access::Secret;
use twinport_access::{AccountKind, AccountName, Identity, password};

use super::{Accounts, SignedIn};
use crate::error::Refusal;
use crate::identity_providers::NotIdentified;
use crate::policy::Basic;

/// A longer secret is none; the tokens of platforms may be long.
const MAX_SECRET: usize = 16 << 10;

impl Accounts {
    /// Checks a name and a secret. `from`: the client's address.
    pub(crate) async fn sign_in(&self, basic: &Basic, from: Option<IpAddr>) -> Result<SignedIn, Refusal> {
        let generation = self.state().generation;
        let now_us = self.metadata.clock().now_us();
        if let Some(signed_in) = self.logins.find(basic, generation, Instant::now(), now_us) {
            return Ok(signed_in);
        }
        let Some(name) = basic.user.parse::<AccountName>().ok().filter(|_| basic.secret.len() <= MAX_SECRET)
        else {
            return Err(Refusal::bad_credentials());
        };
        self.throttle.check(from, name.as_str())?;
        let checked = if let Some(token) = Secret::parse(&basic.secret) {
            self.personal_token(&name, &token, now_us).await?
        } else if self.providers.may_know(&basic.secret) {
            self.workload(&name, &basic.secret, now_us).await?
        } else {
            self.password(&name, basic.secret.clone()).await?
        };
        let Some(signed_in) = checked else {
            self.throttle.failed(from, name.as_str(), Instant::now());
            return Err(Refusal::bad_credentials());
        };
        self.throttle.succeeded(from, name.as_str());
        self.logins.keep(basic, signed_in.clone(), generation, Instant::now());
        Ok(signed_in)
    }

    async fn personal_token(
        &self,
        name: &AccountName,
        shown: &Secret,
        now_us: i64,
    ) -> Result<Option<SignedIn>, Refusal> {
        let Some(stored) = self.metadata.access_token(shown.id()).await? else { return Ok(None) };
        let token = stored.token;
        let holds = shown.is_of(stored.hash.reveal())
            && token.account == *name
            && token.expires_at_us.is_none_or(|at| now_us < at);
        if !holds {
            return Ok(None);
        }
        let Some(identity) = self.enabled(name).await? else { return Ok(None) };
        Ok(Some(SignedIn {
            identity,
            limit: token.limit,
            token: Some(token.id),
            until_us: token.expires_at_us,
        }))
    }

    /// What a platform signed for a job; the name is the issuer's.
    async fn workload(
        &self,
        name: &AccountName,
        token: &str,
        now_us: i64,
    ) -> Result<Option<SignedIn>, Refusal> {
        match self.providers.identify(token, now_us).await {
            Ok(identity) => {
                let named = matches!(&identity, Identity::Workload { issuer, .. } if issuer == name);
                Ok(named.then(|| SignedIn { identity, ..SignedIn::anonymous() }))
            }
            Err(reason @ NotIdentified::Unavailable { .. }) => {
                tracing::warn!(%reason, "the token of a job could not be checked");
                Err(Refusal::unavailable("the keys of the token's issuer cannot be had now: try again", 5))
            }
            Err(reason) => {
                tracing::info!(%reason, issuer = %name, "the token of a job was refused");
                Ok(None)
            }
        }
    }

    async fn password(&self, name: &AccountName, secret: String) -> Result<Option<SignedIn>, Refusal> {
        let stored = self.metadata.account(name).await?;
        let hash = stored.as_ref().and_then(|stored| {
            let hash = stored.password.as_ref()?;
            std::str::from_utf8(hash.reveal()).ok().map(str::to_owned)
        });
        // Without a hash the same work is done, for nothing.
        let matches = self.hashing.run(move || password::verify(hash.as_deref(), &secret)).await?;
        let account = stored.map(|stored| stored.account);
        Ok(account.filter(|account| matches && !account.disabled && account.kind == AccountKind::User).map(
            |account| {
                let identity = Identity::Account { name: account.name, kind: account.kind };
                SignedIn { identity, ..SignedIn::anonymous() }
            },
        ))
    }

    /// The identity of an account that is there and not disabled.
    pub(crate) async fn enabled(&self, name: &AccountName) -> Result<Option<Identity>, Refusal> {
        let account = self.metadata.account(name).await?.map(|stored| stored.account);
        Ok(account
            .filter(|account| !account.disabled)
            .map(|account| Identity::Account { name: account.name, kind: account.kind }))
    }
}
