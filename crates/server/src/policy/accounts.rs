//! The policy of built-in accounts: users, robots, their tokens, certificates and jobs of platforms, and the roles they have.
//! Invariant: a role, an account or a token that was taken away counts for nothing from the next request on at this node, and
//! within a second at any other, whatever bearer tokens were issued before (hazard A14).

mod bearer;
mod logins;
mod sign_in;
mod state;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::request;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use twinport_access::{Identity, TokenLimit};
use twinport_metadata::Metadata;
use uuid::Uuid;

use self::bearer::Bearers;
use self::logins::Logins;
use self::state::{Current, State};
use super::credentials::Credentials;
use super::hashing::Hashing;
use super::throttle::Throttle;
use crate::admission::Admission;
use crate::config::AccountsConfig;
use crate::error::Refusal;
use crate::grant::{Grant, Manner, Rights};
use crate::identity_providers::IdentityProviders;
use crate::listener::{ClientCertificate, Peer};

/// How often other nodes' and sites' changes are looked for.
const LOOKS: Duration = Duration::from_secs(1);

/// The accounts of a site, as requests need them.
#[derive(Debug)]
pub struct Accounts {
    metadata: Metadata,
    service: String,
    token_lifetime: Duration,
    current: Current,
    bearers: Bearers,
    logins: Logins,
    hashing: Hashing,
    throttle: Throttle,
    providers: IdentityProviders,
    admission: Admission,
    /// One reader of the records at a time.
    reading: Mutex<()>,
}

/// Who signed in, and what the secret it showed is good for.
#[derive(Debug, Clone)]
pub(crate) struct SignedIn {
    pub(crate) identity: Identity,
    pub(crate) limit: Option<TokenLimit>,
    /// The personal token that was shown.
    pub(crate) token: Option<Uuid>,
    /// When the secret that was shown stops to hold (µs since the epoch, UTC).
    pub(crate) until_us: Option<i64>,
}

impl SignedIn {
    pub(crate) fn anonymous() -> Self {
        Self { identity: Identity::Anonymous, limit: None, token: None, until_us: None }
    }
}

impl Accounts {
    /// Reads the records, and makes this site's first key where it has none.
    pub(crate) async fn open(
        metadata: Metadata,
        config: &AccountsConfig,
        providers: IdentityProviders,
    ) -> Result<Self, crate::start_error::StartError> {
        let state = State::read(&metadata, &config.service).await?;
        let hashing =
            Hashing::start().map_err(|source| crate::start_error::StartError::Threads { source })?;
        Ok(Self {
            metadata,
            service: config.service.clone(),
            token_lifetime: config.token_lifetime,
            current: Current::new(state),
            bearers: Bearers::default(),
            logins: Logins::default(),
            hashing,
            throttle: Throttle::default(),
            providers,
            admission: Admission::new(config.limits),
            reading: Mutex::new(()),
        })
    }

    pub(crate) fn service(&self) -> &str {
        &self.service
    }

    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The records as they are known; cheap.
    pub(crate) fn state(&self) -> Arc<State> {
        self.current.get()
    }

    /// Reads the records again if they changed. Returns once what was changed before the call counts here.
    pub(crate) async fn refresh(&self) -> twinport_metadata::Result<()> {
        let _one = self.reading.lock().await;
        let generation = self.metadata.access_generation().await?;
        let known = self.current.get();
        if generation == known.generation && !known.keys_are_old(self.metadata.clock().now_us()) {
            return Ok(());
        }
        self.current.set(State::read(&self.metadata, &self.service).await?);
        Ok(())
    }

    /// Looks for changes until the site stops.
    pub(crate) async fn keep_current(self: Arc<Self>, stop: CancellationToken) {
        let mut rounds = tokio::time::interval(LOOKS);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = rounds.tick() => {}
                () = stop.cancelled() => return,
            }
            if let Err(error) = self.refresh().await {
                tracing::warn!(%error, "accounts and roles could not be read: the last known ones count");
            }
        }
    }

    /// Reads and checks the credentials of a request.
    pub(crate) async fn grant(&self, request: &request::Parts) -> Result<Grant, Refusal> {
        let peer: Option<&Peer> = request.extensions.get();
        let from = peer.and_then(Peer::ip);
        let state = self.state();
        let (rights, manner) = match Credentials::read(&request.headers) {
            Credentials::None => match request.extensions.get::<ClientCertificate>() {
                Some(certificate) => {
                    let identity = Identity::Certificate { name: certificate.name().to_string() };
                    (state.rights(&SignedIn { identity, ..SignedIn::anonymous() }), Manner::Challenge)
                }
                None => (state.anonymous(), Manner::Challenge),
            },
            Credentials::Basic(basic) => (state.rights(&self.sign_in(&basic, from).await?), Manner::Denied),
            Credentials::Bearer(token) => (self.bearer(token, &state).await?, Manner::InsufficientScope),
            Credentials::Unreadable => return Err(Refusal::bad_credentials()),
        };
        self.admission.admit(&rights.identity, from, request)?;
        Ok(Grant::new(rights.identity.clone(), Rights::Roles(rights), manner))
    }

    /// Takes one request of the caller's share.
    pub(crate) fn admit(
        &self,
        identity: &Identity,
        from: Option<IpAddr>,
        request: &request::Parts,
    ) -> Result<(), Refusal> {
        self.admission.admit(identity, from, request)
    }

    pub(crate) fn throttle(&self) -> &Throttle {
        &self.throttle
    }
}
