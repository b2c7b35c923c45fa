//! Sites: who they are to each other, the log one sends and the other follows, and what both sides compare.
//!
//! **Architecture invariant:** this crate does not know `server`: it owns the words and rules of `/geo/v1`, not its routes.

mod access;
mod apply;
mod backfill;
mod credential;
mod error;
mod feed;
mod follow;
mod joining;
mod lag;
mod pace;
mod primary_address;
pub mod protocol;
mod registration;
mod secondary;
mod site_status;
mod token;
mod transfer;
mod upstream;
mod verify;

pub use self::{
    credential::{
        CREDENTIAL_LIFETIME_S, CredentialVerifier, Peer, SCOPE_PULL, SCOPE_STATUS, SiteKey, key_id,
    },
    error::{Error, Refusal, RefusalCode, Result},
    feed::{ClientActivity, Feed, LogFeed},
    primary_address::{PrimaryAddress, TlsPin},
    registration::{AddSite, Registrar, check_name, check_primary_url},
    site_status::{SiteStanding, SitesStatus},
    token::JoinToken,
};
pub use self::{
    joining::{JoinOptions, Joined, accept, join, join_request},
    lag::{FRESH_FOR, Lag, LagTracker},
    secondary::{
        Connection, LagStatus, Secondary, SecondaryHandle, SecondaryOptions, SecondaryStatus, Tuning,
    },
    upstream::{BlobBody, HttpUpstream, LogStream, ManifestBody, SiteIdentity, Upstream},
};
