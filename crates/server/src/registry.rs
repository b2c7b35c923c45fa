//! The registry behind `/v2`: what its handlers work on, and the limits they keep.
//! Invariant: a handler reaches metadata and blobs only after its `Grant` allowed the repository and the action.

pub(crate) mod blobs;
pub(crate) mod catalog;
pub(crate) mod manifests;
mod quotas;
pub(crate) mod referrers;
mod rules;
pub(crate) mod tags;
mod upload_turns;
pub(crate) mod uploads;

use std::time::Duration;

use http::StatusCode;
use tokio::sync::Semaphore;
use twinport_access::Action;
use twinport_blobs::Blobs;
use twinport_metadata::Metadata;
use twinport_oci::{ErrorCode, MAX_MANIFEST_BYTES, RepositoryName};

use self::rules::HeldRules;
use self::upload_turns::Sessions;
use crate::config::{Namespaces, ResponseHeaders};
use crate::error::Refusal;
use crate::external::ExternalAddress;
use crate::grant::Grant;
use crate::policy::Policy;

/// Manifests over 256 KiB that are held in memory at one time; each may take 4 MiB, and its parsing more.
const LARGE_MANIFESTS: usize = 16;
/// Entries of a page of tags, or of repositories, at most; more are reached by the `Link` header.
const PAGE: u32 = 10_000;

/// What an operator may set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrySettings {
    /// Whether manifests, tags and blobs may be deleted through the API.
    pub delete_enabled: bool,
    /// The largest manifest taken, in bytes; never more than [`MAX_MANIFEST_BYTES`].
    pub max_manifest_bytes: usize,
    /// The largest blob taken, in bytes.
    pub max_blob_bytes: Option<u64>,
    /// How long a URL is good for at which clients get blobs from the object storage itself; none where this process sends
    /// them.
    pub redirect: Option<Duration>,
    /// What `Location` and `Link` headers begin with.
    pub external: ExternalAddress,
    /// Headers of every answer, and which origins a browser may ask from.
    pub headers: ResponseHeaders,
    /// Where the repositories of other registries are.
    pub namespaces: Namespaces,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        Self {
            delete_enabled: true,
            max_manifest_bytes: MAX_MANIFEST_BYTES,
            max_blob_bytes: None,
            redirect: None,
            external: ExternalAddress::default(),
            headers: ResponseHeaders::default(),
            namespaces: Namespaces::default(),
        }
    }
}

/// One site's registry.
#[derive(Debug)]
pub struct Registry {
    pub metadata: Metadata,
    pub blobs: Blobs,
    pub settings: RegistrySettings,
    pub policy: Policy,
    rules: HeldRules,
    sessions: Sessions,
    large_manifests: Semaphore,
}

impl Registry {
    pub fn new(metadata: Metadata, blobs: Blobs, settings: RegistrySettings, policy: Policy) -> Self {
        let large_manifests = Semaphore::new(LARGE_MANIFESTS);
        let (rules, sessions) = (HeldRules::default(), Sessions::default());
        Self { metadata, blobs, settings, policy, rules, sessions, large_manifests }
    }

    /// Uploads that a request of this process is writing to.
    pub fn uploads_in_progress(&self) -> usize {
        self.sessions.len()
    }

    /// An address within this site; the answer as a whole is completed with where the site is.
    fn location(&self, repository: &RepositoryName, rest: std::fmt::Arguments<'_>) -> String {
        format!("/v2/{repository}/{rest}")
    }

    /// Refuses what this site cannot take at all before its body is sent. The transaction checks again.
    async fn check_writable(&self) -> Result<(), Refusal> {
        Ok(self.metadata.check_writable().await?)
    }
}

/// Refuses a deletion where deleting is switched off (OCI Distribution, "Content Management") or not granted.
fn check_deletable(registry: &Registry, grant: &Grant, repository: &RepositoryName) -> Result<(), Refusal> {
    if !registry.settings.delete_enabled {
        let message = "deleting is switched off on this registry: set storage.delete.enabled to allow it";
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported, message));
    }
    check(grant, repository, Action::Delete)
}

/// Refuses an action that the grant does not cover.
fn check(grant: &Grant, repository: &RepositoryName, action: Action) -> Result<(), Refusal> {
    if grant.allows(repository, action) {
        return Ok(());
    }
    Err(grant.refusal(repository, action))
}
