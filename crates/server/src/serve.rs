//! A site's life as a process: open its stores in order, listen, and drain when told to stop.
//! Invariant: nothing is served before the lock is held, the stores belong together, and leftovers are put right.

mod front;
mod identity;
mod jobs;
mod keeping_rules;
mod reload;
mod service_manager;
mod signals;

use std::{ffi::OsString, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::{net::lookup_host, signal::unix::Signal, sync::oneshot};
use tokio_util::sync::CancellationToken;
use twinport_blobs::Blobs;
use twinport_geo::Feed;
use twinport_metadata::{Clock, Database, Metadata, NodeRecord, OpenOptions, SchemaChange};

use self::{front::Front, jobs::Jobs, service_manager::ServiceManager};
use crate::{
    admin_api,
    config::{
        AuthConfig, BlobPlace, Config, ConfigSource, DatabaseConfig, IssuerConfig, KeySource, ListenAddress,
        MainAddress,
    },
    data_directory::{AdminSocket, DataDirectory},
    external::ExternalAddress,
    first_start::first_account,
    geo_api::{self, GeoApiState},
    health,
    identity_providers::{self, IdentityProviders, WorkloadIssuer},
    listener::{Listener, ListenerLimits, Tls, watch_certificate},
    policy::{Accounts, ForeignTokens, Htpasswd, Policy},
    registry::{Registry, RegistrySettings},
    replication::Replication,
    site::{Parts, RunningSite, root},
    start_error::StartError,
    telemetry::{LogControl, Metrics, Observer},
    token_service,
    v2::v2_service,
};

/// How often the certificate's files are looked at.
const CERTIFICATE_LOOKS: Duration = Duration::from_secs(10);

/// What whoever starts a site may want besides.
#[derive(Default)]
pub struct ServeOptions {
    /// Told once the site serves.
    pub ready: Option<oneshot::Sender<Ready>>,
    /// Stops the site as SIGTERM does.
    pub stop: CancellationToken,
    /// What SIGHUP reads again besides the certificate.
    pub reread: Option<Reread>,
    /// Where the first start with accounts finds the password of the first account; else one is made and printed.
    pub admin_password_file: Option<PathBuf>,
    /// What this node is called among the nodes of its site; else `node`.
    pub node: Option<String>,
    /// Where the service manager listens: `NOTIFY_SOCKET`.
    pub notify_socket: Option<OsString>,
}

/// What SIGHUP reads again, and what it acts on.
#[derive(Debug)]
pub struct Reread {
    pub source: ConfigSource,
    pub log: LogControl,
}

/// A site that serves.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    /// The main address as bound; none where it is a socket file.
    pub address: Option<SocketAddr>,
}

/// Serves a site until a signal or `options.stop`. A second signal ends the process at once.
///
/// # Errors
/// [`StartError`] says what stands in the way and what to do about it.
pub async fn serve(config: Config, options: ServeOptions) -> Result<(), StartError> {
    signals::watch(options.stop.clone())?;
    let hangups = signals::hangups()?;
    for warning in &config.warnings {
        tracing::warn!(setting = %warning, "configuration");
    }
    let data = open_data(&config).await?;
    let blobs = match (&config.storage.blobs, &config.database) {
        (BlobPlace::Bucket(bucket), _) => Blobs::open_s3((**bucket).clone()).await?,
        // The data directory's lock keeps other processes out.
        (BlobPlace::Directory(root), DatabaseConfig::Embedded) => Blobs::open_local(root.clone()).await?,
        (BlobPlace::Directory(root), DatabaseConfig::Postgres { .. }) => {
            Blobs::open_shared(root.clone()).await?
        }
    };
    let opening = OpenOptions { database: database(&config, &data), clock: Clock::System };
    let metadata = Box::pin(Metadata::open(opening)).await?;
    let served = Box::pin(run(config, &data, metadata.clone(), blobs.clone(), options, hangups)).await;
    blobs.all_placed().await;
    metadata.close().await;
    served
}

async fn run(
    config: Config,
    data: &DataDirectory,
    metadata: Metadata,
    blobs: Blobs,
    options: ServeOptions,
    hangups: Signal,
) -> Result<(), StartError> {
    identity::check(&metadata, &blobs, &config.storage.blobs).await?;
    succeed_earlier_run(&metadata, data).await?;
    let alone = !metadata.nodes().await?.iter().any(NodeRecord::is_live);
    if !alone && config.http.host.is_none() && config.geo.internal_url.is_none() {
        tracing::warn!(
            "other nodes of this site run, and clients and sites are told this one's address: set http.host to the balancer's"
        );
    }
    let recovered = twinport_upkeep::recover(&metadata, &blobs, alone).await?;
    if recovered != twinport_upkeep::RecoveryReport::default() {
        tracing::info!(
            kept = recovered.kept,
            discarded = recovered.discarded,
            unpublished = recovered.unpublished,
            elsewhere = recovered.elsewhere,
            "put right what the last stop left"
        );
    }
    if let Some(name) = &config.geo.site {
        metadata.name_site(name).await?;
    }
    let tls = load_tls(&config).await?;
    let limits = ListenerLimits { grace: config.http.drain_timeout, ..ListenerLimits::default() };
    let main = match &config.http.addr {
        MainAddress::Tcp(address) => bind(address, &limits).await?,
        MainAddress::Unix(path) => Listener::bind_shared_unix(path, limits.clone())
            .map_err(|source| StartError::Listen { address: path.display().to_string(), source })?,
    };
    let main = match &tls {
        Some(tls) => main.with_tls(tls.clone()),
        None => main,
    };
    let debug = match &config.http.debug {
        Some(debug) => Some((bind(&debug.addr, &limits).await?, debug.prometheus_path.clone())),
        None => None,
    };
    let unlistenable = |source| StartError::Listen { address: "the admin socket".to_owned(), source };
    let socket = AdminSocket::of(data.path()).map_err(unlistenable)?;
    let admin = Listener::bind_unix(socket.path(), limits).map_err(unlistenable)?;

    let address = main.local_addr();
    let node = options.node.unwrap_or_else(|| "node".to_owned());
    metadata.node_is_here(&node, env!("CARGO_PKG_VERSION"), false).await?;
    let site = Arc::new(assemble(config, metadata, blobs, node, address, tls).await?);
    site.replication.start_if_secondary().await?;

    let closing = CancellationToken::new();
    if let Some(tls) = &site.tls {
        tokio::spawn(watch_certificate(tls.clone(), CERTIFICATE_LOOKS, closing.clone()));
    }
    let observer = Observer {
        metrics: site.metrics.clone(),
        access_log: site.config.log.access_log,
        clients: site.feed.activity().clone(),
    };
    let geo = geo_api::router(GeoApiState::new(site.metadata.clone(), site.blobs.clone(), site.feed.clone()));
    let mut rest = health::router(site.clone()).merge(geo);
    if let Policy::Accounts(accounts) = &site.registry.policy {
        first_account(&site.metadata, options.admin_password_file.as_deref()).await?;
        accounts.refresh().await?;
        rest = rest.merge(token_service::router(accounts.clone()));
        tokio::spawn(accounts.clone().keep_current(closing.clone()));
    } else if let Some(file) = options.admin_password_file {
        let reason = "this site has no accounts: set accounts.enabled, or leave the file out".to_owned();
        return Err(StartError::AdminPassword { file, reason });
    }
    let jobs = Jobs::start(&site);
    let front = Front::new(v2_service(site.registry.clone()), rest, observer.clone())
        .below(site.registry.settings.external.clone());
    let admin_front = Front::without_v2(admin_api::router(site.clone()), observer);
    let serving = async {
        let debug = async {
            match debug {
                Some((listener, path)) => {
                    let router = health::debug_router(site.clone(), path.as_deref());
                    listener.serve(router, closing.clone()).await
                }
                None => true,
            }
        };
        tokio::join!(main.serve(front, closing.clone()), admin.serve(admin_front, closing.clone()), debug)
    };
    tracing::info!(address = %shown(&site), data = %data.path().display(), database = site.metadata.backend(), "serving");
    let manager = ServiceManager::at(options.notify_socket.as_deref());
    manager.ready();
    if let Some(ready) = options.ready {
        // Whoever asked may have gone; the site serves on.
        ready.send(Ready { address }).ok();
    }
    let stopping = async {
        options.stop.cancelled().await;
        manager.stopping();
        drain(&site, jobs, &closing).await;
    };
    let reloading = reload::at_each(hangups, &site, options.reread, &manager, closing.clone());
    let ((in_time, ..), (), ()) = tokio::join!(serving, stopping, reloading);
    tracing::info!(all_requests_ended = in_time, "stopped");
    Ok(())
}

/// First says that it is not ready, then ends what never ends by itself, then lets the listeners drain.
async fn drain(site: &RunningSite, jobs: Jobs, closing: &CancellationToken) {
    tracing::info!("draining: no further requests are taken, those under way may end");
    site.begin_draining();
    let others = site.metadata.nodes().await.unwrap_or_default();
    let others = others.iter().any(|node| node.is_live() && !node.is_this);
    if others || site.address.is_some_and(|address| !address.ip().is_loopback()) {
        tokio::time::sleep(site.config.http.drain_notice).await;
    }
    jobs.stop().await;
    site.feed.close();
    site.replication.stop().await;
    if let Err(error) = site.metadata.node_leaves().await {
        tracing::debug!(%error, "this node could not hand on its jobs: their leases lapse");
    }
    closing.cancel();
}

/// Takes over from the earlier run of this data directory, which has ended: its leases need not lapse.
async fn succeed_earlier_run(metadata: &Metadata, data: &DataDirectory) -> Result<(), StartError> {
    if let Some(earlier) = data.earlier_node()? {
        metadata.succeed(earlier).await?;
    }
    data.remember_node(metadata.node())
}

async fn open_data(config: &Config) -> Result<DataDirectory, StartError> {
    let path = config.data.clone();
    let embedded = config.database == DatabaseConfig::Embedded;
    let opened = tokio::task::spawn_blocking(move || {
        let data = DataDirectory::open(&path)?;
        if embedded {
            data.refuse_network_file_system()?;
        }
        Ok(data)
    });
    opened.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Brings the schema of a site's database up to this binary's; with `dry`, says what that would be. The embedded database must
/// not be in use; a site on PostgreSQL may be running.
///
/// # Errors
/// [`StartError`] says what stands in the way and what to do about it.
pub async fn migrate(config: &Config, dry: bool) -> Result<Vec<SchemaChange>, StartError> {
    let database = match &config.database {
        DatabaseConfig::Embedded => {
            let data = open_data(config).await?;
            let changes = Metadata::migrate(&database(config, &data), &Clock::System, dry).await;
            return Ok(changes?);
        }
        DatabaseConfig::Postgres(postgres) => Database::Postgres(postgres.options(None)),
    };
    Ok(Metadata::migrate(&database, &Clock::System, dry).await?)
}

fn database(config: &Config, data: &DataDirectory) -> Database {
    match &config.database {
        DatabaseConfig::Embedded => Database::Sqlite { path: data.database() },
        DatabaseConfig::Postgres(postgres) => {
            Database::Postgres(postgres.options(Some(data.database_seen())))
        }
    }
}

async fn assemble(
    config: Config,
    metadata: Metadata,
    blobs: Blobs,
    node: String,
    address: Option<SocketAddr>,
    tls: Option<Arc<Tls>>,
) -> Result<RunningSite, StartError> {
    let settings = RegistrySettings {
        delete_enabled: config.storage.delete_enabled,
        redirect: config.storage.redirect,
        external: external(&config),
        headers: config.http.headers.clone(),
        namespaces: config.http.namespaces.clone(),
        ..RegistrySettings::default()
    };
    let metrics = Arc::new(Metrics::new(metadata.backend(), tls.as_ref().map(|tls| tls.counters())));
    let replication = Replication::new(metadata.clone(), blobs.clone(), config.geo.replication_enabled);
    let feed = Feed::new(metadata.clone());
    let policy = policy(&config, &metadata).await?;
    let registry = Arc::new(Registry::new(metadata.clone(), blobs, settings, policy));
    let external = root(&config);
    let site = RunningSite::new(Parts { config, node, registry, feed, replication, metrics, address, tls });
    let internal = site.url_for_sites();
    metadata.set_urls(external.as_deref().or(Some(&internal)), Some(&internal)).await?;
    Ok(site)
}

/// By what clients are known. Blocks a thread of its own where files are read.
async fn policy(config: &Config, metadata: &Metadata) -> Result<Policy, StartError> {
    let clock = metadata.clock().clone();
    let reading = match config.auth.clone() {
        AuthConfig::Open { .. } => return Ok(Policy::Open),
        AuthConfig::Accounts(accounts) => {
            let issuers = accounts.issuers.iter().map(workload_issuer).collect();
            let providers = IdentityProviders::new(issuers)
                .map_err(|error| StartError::Issuers { reason: error.to_string() })?;
            return Ok(Policy::Accounts(Arc::new(
                Accounts::open(metadata.clone(), &accounts, providers).await?,
            )));
        }
        AuthConfig::Htpasswd(htpasswd) => {
            tokio::task::spawn_blocking(move || Htpasswd::open(&htpasswd, clock).map(Policy::Htpasswd))
        }
        AuthConfig::Token(token) => {
            tokio::task::spawn_blocking(move || ForeignTokens::open(&token, clock).map(Policy::Token))
        }
    };
    reading.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

fn workload_issuer(config: &IssuerConfig) -> WorkloadIssuer {
    WorkloadIssuer {
        name: config.name.clone(),
        issuer: config.issuer.clone(),
        audiences: vec![config.audience.clone()],
        keys: match &config.keys {
            KeySource::Discovered => identity_providers::KeySource::Discovery,
            KeySource::Url(url) => identity_providers::KeySource::Url(url.clone()),
            KeySource::File(file) => identity_providers::KeySource::File(file.clone()),
        },
        certificate_authorities: None,
        algorithms: None,
    }
}

/// The address as bound, or the path of the socket file.
fn shown(site: &RunningSite) -> String {
    site.address.map_or_else(|| site.config.http.addr.to_string(), |address| address.to_string())
}

fn external(config: &Config) -> ExternalAddress {
    ExternalAddress {
        root: root(config),
        prefix: config.http.prefix.clone(),
        relative: config.http.relative_urls,
        trusted: config.http.trusted_proxies.clone(),
    }
}

/// Blocks a thread of its own, because certificates may lie on a slow file system.
async fn load_tls(config: &Config) -> Result<Option<Arc<Tls>>, StartError> {
    let Some(tls) = config.http.tls.clone() else { return Ok(None) };
    let loaded = tokio::task::spawn_blocking(|| Tls::load(tls, Clock::System)).await;
    Ok(Some(loaded.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?))
}

async fn bind(address: &ListenAddress, limits: &ListenerLimits) -> Result<Listener, StartError> {
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    for candidate in candidates(address).await.map_err(|source| unbound(address, source))? {
        match Listener::bind(candidate, limits.clone()).await {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(unbound(address, last))
}

fn unbound(address: &ListenAddress, source: io::Error) -> StartError {
    StartError::Listen { address: address.to_string(), source }
}

/// No host is every interface: of both families where the machine has IPv6.
async fn candidates(address: &ListenAddress) -> io::Result<Vec<SocketAddr>> {
    if address.host.is_empty() {
        let port = address.port;
        return Ok(vec![
            SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port)),
            SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, port)),
        ]);
    }
    Ok(lookup_host((address.host.as_str(), address.port)).await?.collect())
}
