//! `/geo/v1`: the routes that other sites call, over the rules of `twinport_geo`.
//!
//! **Architecture invariant:** except for a join, nothing is read before the caller has proved which site it is.

mod access;
mod answer;
mod blobs;
mod join;
mod log;
mod repositories;
mod status;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{get, post},
};
use http::{HeaderMap, header::AUTHORIZATION};
use twinport_blobs::Blobs;
use twinport_geo::{CredentialVerifier, Feed, Peer, Registrar, SCOPE_PULL, SCOPE_STATUS};
use twinport_metadata::Metadata;

use self::answer::Refused;

/// The largest body that a site may send, in bytes.
const MAX_BODY_BYTES: usize = 64 << 10;

/// What the calls work on; cheap to clone.
#[derive(Clone)]
pub struct GeoApiState {
    pub metadata: Metadata,
    pub blobs: Blobs,
    /// The process's feed: the admin API's registrar must share it, so that a removal ends streams here.
    pub feed: Feed,
    pub registrar: Registrar,
    verifier: CredentialVerifier,
}

impl GeoApiState {
    /// The state over a site's stores; one feed for the process.
    #[must_use]
    pub fn new(metadata: Metadata, blobs: Blobs, feed: Feed) -> Self {
        let registrar = Registrar::new(metadata.clone(), feed.clone());
        let verifier = CredentialVerifier::new(metadata.clone());
        Self { metadata, blobs, feed, registrar, verifier }
    }

    /// The site that calls, if it may pull.
    async fn puller(&self, headers: &HeaderMap) -> Result<Peer, Refused> {
        self.peer(headers, SCOPE_PULL).await
    }

    /// The site that calls, if it may report.
    async fn reporter(&self, headers: &HeaderMap) -> Result<Peer, Refused> {
        self.peer(headers, SCOPE_STATUS).await
    }

    async fn peer(&self, headers: &HeaderMap, scope: &str) -> Result<Peer, Refused> {
        // A header that is not text is no credential; it must not pass for a missing one.
        let header = headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap_or(""));
        Ok(self.verifier.verify(header, scope).await?)
    }
}

/// Every route below `/geo/v1`, with its full path.
pub fn router(state: GeoApiState) -> Router {
    Router::new()
        .route("/geo/v1/join", post(join::join))
        .route("/geo/v1/log", get(log::log))
        .route("/geo/v1/status", post(status::status))
        .route("/geo/v1/repositories", get(repositories::list))
        .route("/geo/v1/repositories/{uuid}/listing", get(repositories::listing))
        .route("/geo/v1/repositories/{uuid}/checksum", get(repositories::checksum))
        .route("/geo/v1/repositories/{uuid}/manifests/{digest}", get(repositories::manifest))
        .route("/geo/v1/access", get(access::list).post(access::named))
        .route("/geo/v1/blobs/{digest}", get(blobs::blob))
        .route("/geo/v1/{*rest}", axum::routing::any(answer::unknown_call))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(state)
}
