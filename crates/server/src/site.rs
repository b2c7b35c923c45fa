//! One running site: its stores, its part in the federation, and what the process knows of itself.
//! Everything that serves HTTP shares it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::timeout;
use twinport_blobs::Blobs;
use twinport_geo::{Feed, Registrar};
use twinport_metadata::{Metadata, Role, Site};
use twinport_upkeep::RetentionLimits;
use url::Url;

use crate::{
    admin_api::types::{ItemCounts, ReplicationStatus},
    config::{Config, RetentionConfig},
    listener::Tls,
    registry::Registry,
    replication::Replication,
    telemetry::{GeoFigures, Metrics, SiteFigures},
};

/// How long the database may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(2);

/// A running site.
pub(crate) struct RunningSite {
    pub(crate) config: Config,
    /// What this node is called.
    pub(crate) node: String,
    pub(crate) metadata: Metadata,
    pub(crate) blobs: Blobs,
    pub(crate) registry: Arc<Registry>,
    /// Shares the feed with the geo API, so that a removal ends streams.
    pub(crate) registrar: Registrar,
    pub(crate) feed: Feed,
    pub(crate) replication: Replication,
    pub(crate) metrics: Arc<Metrics>,
    /// The main address as bound; none where it is a socket file.
    pub(crate) address: Option<SocketAddr>,
    /// Where the main address speaks TLS.
    pub(crate) tls: Option<Arc<Tls>>,
    draining: AtomicBool,
}

/// Whether a site should get requests, and why not all of them.
pub(crate) enum Readiness {
    Ready,
    /// Writes are stopped, for this reason: pulls are as good as ever, and taking the site away would end them too.
    PullsOnly(String),
    Unready(String),
}

/// The parts that [`RunningSite::new`] puts together.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) node: String,
    pub(crate) registry: Arc<Registry>,
    pub(crate) feed: Feed,
    pub(crate) replication: Replication,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) tls: Option<Arc<Tls>>,
}

impl RunningSite {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { config, node, registry, feed, replication, metrics, address, tls } = parts;
        let (metadata, blobs) = (registry.metadata.clone(), registry.blobs.clone());
        let registrar = Registrar::new(metadata.clone(), feed.clone());
        let draining = AtomicBool::new(false);
        Self {
            config,
            node,
            metadata,
            blobs,
            registry,
            registrar,
            feed,
            replication,
            metrics,
            address,
            tls,
            draining,
        }
    }

    /// Where other sites reach this one: `geo.internal_url`, else `http.host`, else the address it listens on.
    pub(crate) fn url_for_sites(&self) -> String {
        let internal = self.config.geo.internal_url.as_ref().map(trimmed);
        internal.or_else(|| root(&self.config)).unwrap_or_else(|| self.url_by_address())
    }

    fn url_by_address(&self) -> String {
        let prefix = &self.config.http.prefix;
        let Some(mut address) = self.address else { return format!("http://localhost{prefix}") };
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() {
                std::net::Ipv4Addr::LOCALHOST.into()
            } else {
                std::net::Ipv6Addr::LOCALHOST.into()
            });
        }
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{address}{prefix}")
    }

    /// What bounds every run of a retention rule.
    pub(crate) fn retention_limits(&self) -> RetentionLimits {
        let RetentionConfig { trash, most_percent, .. } = self.config.retention;
        RetentionLimits { trash, most_percent }
    }

    /// From now on `/readyz` says no.
    pub(crate) fn begin_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether this site should get requests.
    pub(crate) async fn readiness(&self) -> Readiness {
        if self.draining.load(Ordering::Relaxed) {
            return Readiness::Unready("shutting down".to_owned());
        }
        // Clients that keep all their connections busy do not make a site unready.
        match timeout(PATIENCE, self.metadata.reserved().site()).await {
            Ok(Ok(site)) => site.halted.map_or(Readiness::Ready, Readiness::PullsOnly),
            Ok(Err(error)) => Readiness::Unready(error.to_string()),
            Err(_) => {
                Readiness::Unready(format!("the database does not answer within {} s", PATIENCE.as_secs()))
            }
        }
    }

    /// What one scrape of `/metrics` needs; what cannot be read is absent.
    pub(crate) async fn figures(&self) -> SiteFigures {
        let reserved = self.metadata.reserved();
        let (site, head) =
            tokio::join!(timeout(PATIENCE, reserved.site()), timeout(PATIENCE, reserved.log_head()));
        let site = site.ok().and_then(Result::ok);
        let geo = match site.as_ref().map(|site| site.role) {
            Some(Role::Secondary) => {
                Some(self.replication.status().await.map(GeoFigures::from).unwrap_or_default())
            }
            _ => None::<GeoFigures>,
        };
        SiteFigures {
            name: site.as_ref().and_then(|site| site.name.clone()).unwrap_or_default(),
            role: site.as_ref().map(|site| site.role.to_string()).unwrap_or_default(),
            log_head_seq: head.ok().and_then(Result::ok).map(|head| head.position.seq),
            lost_writes: site.as_ref().is_some_and(Site::lost_writes),
            halted: site.is_some_and(|site| site.halted.is_some()),
            uploads_in_progress: self.registry.uploads_in_progress(),
            certificate_expires_s: self.tls.as_ref().map(|tls| tls.expires_at_us() / 1_000_000),
            geo,
        }
    }
}

impl From<ReplicationStatus> for GeoFigures {
    fn from(status: ReplicationStatus) -> Self {
        Self {
            connected: status.state == "connected",
            fresh: status.fresh,
            ingested_seq: status.ingested_seq,
            applied_seq: status.applied_seq,
            lag_events: status.lag_events.and_then(|events| i64::try_from(events).ok()),
            lag_seconds: status.lag_us.map(|us| us as f64 / 1e6),
            repositories: by_state(&status.repositories),
            items: by_state(&status.items),
        }
    }
}

fn by_state(counts: &ItemCounts) -> Vec<(&'static str, i64)> {
    [
        ("pending", counts.pending),
        ("started", counts.started),
        ("synced", counts.synced),
        ("failed", counts.failed),
        ("verification_pending", counts.verification_pending),
        ("verification_succeeded", counts.verification_succeeded),
        ("verification_failed", counts.verification_failed),
    ]
    .into_iter()
    .map(|(state, count)| (state, i64::try_from(count).unwrap_or(i64::MAX)))
    .collect()
}

/// The URL below which clients find everything: `http.host`, with the prefix where it has no path of its own.
pub(crate) fn root(config: &Config) -> Option<String> {
    let host = config.http.host.as_ref()?;
    let own_path = host.path() != "/";
    Some(if own_path { trimmed(host) } else { format!("{}{}", trimmed(host), config.http.prefix) })
}

/// A URL without a trailing slash, as it is shown and compared.
pub(crate) fn trimmed(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}
