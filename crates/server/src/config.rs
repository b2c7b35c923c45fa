//! The configuration: CNCF Distribution's `config.yml` as far as this version uses it, overlaid by `REGISTRY_*`
//! variables and the command line. What is not understood stops the start, with the line that says it.

mod auth;
mod check;
mod duration;
mod environment;
mod namespaces;
mod resolve;
mod response_headers;
mod s3;
mod schema;
mod show;
mod tls;
mod tree;
mod trusted_proxies;

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use twinport_blobs::S3Settings;
use twinport_metadata::{PoolLimits, PostgresHost, PostgresOptions, PostgresTls};
use url::Url;

pub use self::auth::{
    AccountLimits, AccountsConfig, AuthConfig, HtpasswdConfig, IssuerConfig, KeySource, TokenAuthConfig,
};
pub use self::namespaces::Namespaces;
pub use self::response_headers::ResponseHeaders;
pub use self::tls::{ClientAuth, TlsConfig, TlsVersion};
pub use self::trusted_proxies::TrustedProxies;
use self::{
    check::Findings,
    tree::{Node, Origin},
};

/// What a site runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file it was read from, if any.
    pub file: Option<PathBuf>,
    /// Holds the embedded database, the lock and the admin socket.
    pub data: PathBuf,
    pub http: HttpConfig,
    pub log: LogConfig,
    pub storage: StorageConfig,
    pub retention: RetentionConfig,
    pub database: DatabaseConfig,
    pub geo: GeoConfig,
    /// `auth`, or `accounts`: by what clients are known.
    pub auth: AuthConfig,
    /// What was understood and not needed, or ignored on request; to be logged at the start.
    pub warnings: Vec<String>,
}

/// `http`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    pub addr: MainAddress,
    /// The external URL, where one was given.
    pub host: Option<Url>,
    /// Locations without a host, for proxies that do not pass it on.
    pub relative_urls: bool,
    /// `/registry`: what every path begins with. Empty for none.
    pub prefix: String,
    /// Who is believed about the address that a client used.
    pub trusted_proxies: TrustedProxies,
    /// Headers of every answer of the registry, and which origins a browser may ask it from.
    pub headers: ResponseHeaders,
    /// Where the repositories of other registries are, whose names pulls tell in `ns`.
    pub namespaces: Namespaces,
    /// How long load balancers get to see `/readyz` fail before connections are refused.
    pub drain_notice: Duration,
    /// How long requests in flight may go on after SIGTERM.
    pub drain_timeout: Duration,
    /// None: plain HTTP.
    pub tls: Option<TlsConfig>,
    pub debug: Option<DebugConfig>,
}

/// `http.debug`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebugConfig {
    pub addr: ListenAddress,
    /// Where metrics are served, when they are.
    pub prometheus_path: Option<String>,
}

/// `log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// A level (`error`, `warn`, `info`, `debug`), or filter directives (`info,twinport_geo=debug`).
    pub level: String,
    pub format: LogFormat,
    /// One line per request.
    pub access_log: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// `storage`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageConfig {
    pub blobs: BlobPlace,
    pub delete_enabled: bool,
    /// How long a URL of the object storage is good for that clients get blobs from; none where this process sends them.
    pub redirect: Option<Duration>,
    /// Ends upload sessions that nobody touched for long; none where purging is off.
    pub upload_purging: Option<UploadPurging>,
}

/// Where blobs are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobPlace {
    /// The directory that holds `docker/registry/v2`.
    Directory(PathBuf),
    Bucket(Box<S3Settings>),
}

impl fmt::Display for BlobPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(root) => root.display().fmt(f),
            Self::Bucket(bucket) => {
                write!(
                    f,
                    "s3://{}/{} ({})",
                    bucket.bucket,
                    bucket.root.trim_matches('/'),
                    bucket.shown_endpoint()
                )
            }
        }
    }
}

/// `storage.maintenance.uploadpurging`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadPurging {
    pub age: Duration,
    pub interval: Duration,
}

/// `retention`: how the rules of retention are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionConfig {
    /// How often they run.
    pub interval: Duration,
    /// How long what they took can be brought back.
    pub trash: Duration,
    /// The largest share of a rule's tags that goes in one run unless somebody confirms it.
    pub most_percent: u8,
}

/// `database`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseConfig {
    /// SQLite in the data directory.
    Embedded,
    Postgres(Box<PostgresConfig>),
}

/// `database`, where it is PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresConfig {
    /// Servers that take each other's place, with their ports; directories of unix sockets among them.
    pub hosts: Vec<PostgresHost>,
    pub user: String,
    pub password: Option<Secret>,
    pub dbname: String,
    pub tls: PostgresTls,
    pub connect_timeout: Duration,
    pub drain_timeout: Duration,
    pub prepared_statements: bool,
    pub pool: PoolLimits,
}

impl PostgresConfig {
    /// What connections are made with. `seen` is where this node notes what it has seen of the log.
    #[must_use]
    pub fn options(&self, seen: Option<PathBuf>) -> PostgresOptions {
        let password = self.password.as_ref().map(Secret::reveal);
        let mut options = PostgresOptions::new(self.hosts.clone(), &self.dbname, &self.user, password);
        options.tls = Box::new(self.tls.clone());
        options.pool = self.pool;
        options.connect_timeout = self.connect_timeout;
        options.drain_timeout = self.drain_timeout;
        options.prepared_statements = self.prepared_statements;
        options.seen = seen;
        options
    }

    /// The servers, for people.
    #[must_use]
    pub fn place(&self) -> String {
        let hosts: Vec<_> = self.hosts.iter().map(ToString::to_string).collect();
        format!("{} at {}", self.dbname, hosts.join(", "))
    }
}

/// `geo`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GeoConfig {
    /// The name of this site, after its location.
    pub site: Option<String>,
    /// Where other sites reach this one.
    pub internal_url: Option<Url>,
    /// Whether this site, as a secondary, follows its primary.
    pub replication_enabled: bool,
}

/// A value that is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value itself, for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where clients reach the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MainAddress {
    Tcp(ListenAddress),
    /// The path of a socket file.
    Unix(PathBuf),
}

impl MainAddress {
    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Tcp(address) => address.is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for MainAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// `host:port`; an empty host is every interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    pub host: String,
    pub port: u16,
}

impl ListenAddress {
    /// Reads `127.0.0.1:5000`, `[::1]:5000`, `localhost:5000` or `:5000`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Some(Self { host: address.ip().to_string(), port: address.port() });
        }
        let (host, port) = text.rsplit_once(':')?;
        let plain = host.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-');
        plain.then_some(())?;
        Some(Self { host: host.to_owned(), port: port.parse().ok()? })
    }

    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.host.parse::<std::net::IpAddr>() {
            Ok(ip) => ip.is_loopback(),
            Err(_) => self.host == "localhost",
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// One thing wrong with the configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    at: String,
    message: String,
}

impl Problem {
    fn new(origin: &Origin, message: String) -> Self {
        Self { at: origin.to_string(), message }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)
    }
}

/// Why there is no configuration to run with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {path}: {reason}", path = .path.display())]
    Read { path: PathBuf, reason: String },
    #[error("the configuration file {path} is not valid YAML: {reason}", path = .path.display())]
    Syntax { path: PathBuf, reason: String },
    /// Every problem at once, so that one reading mends them all.
    #[error("the configuration{} has {} problem{}:{}", place(.file.as_deref()), .problems.len(),
        if .problems.len() == 1 { "" } else { "s" },
        .problems.iter().map(|problem| format!("\n  {problem}")).collect::<String>())]
    Problems { file: Option<PathBuf>, problems: Vec<Problem> },
}

fn place(file: Option<&Path>) -> String {
    file.map_or_else(String::new, |file| format!(" in {}", file.display()))
}

/// Where a configuration comes from.
#[derive(Debug, Clone, Default)]
pub struct ConfigSource {
    pub file: Option<PathBuf>,
    /// `--data`.
    pub data: Option<PathBuf>,
    /// `--addr`.
    pub addr: Option<String>,
    /// Unknown keys warn only.
    pub lenient: bool,
    /// The process's environment; only `REGISTRY_*` is looked at.
    pub environment: Vec<(String, String)>,
}

impl Config {
    /// Reads, overlays, checks and resolves. Reads files; call it before the reactor has work.
    pub fn load(source: &ConfigSource) -> Result<Self, ConfigError> {
        let named = source
            .environment
            .iter()
            .find(|(name, _)| name == environment::CONFIGURATION_PATH)
            .map(|(_, path)| PathBuf::from(path));
        let file = source.file.clone().or(named);
        let tree = match &file {
            Some(path) => read(path)?,
            None => Node::empty(),
        };
        Self::of_tree(tree, file, source)
    }

    fn of_tree(mut tree: Node, file: Option<PathBuf>, source: &ConfigSource) -> Result<Self, ConfigError> {
        let mut findings = Findings::default();
        if !tree.rename("storage", "s3_v2", "s3") {
            let origin = tree.at("storage.s3_v2").map_or(Origin::Line(1), |node| node.origin.clone());
            let message = "storage.s3 and storage.s3_v2 are the same: keep one".to_owned();
            findings.problems.push(Problem::new(&origin, message));
        }
        environment::overlay(&mut tree, source.environment.iter().cloned(), &mut findings);
        if let Some(addr) = &source.addr {
            tree.put(&["http", "addr"], Node::scalar(addr, Origin::Flag("--addr")));
        }
        check::check(&tree, source.lenient, &mut findings);
        let config = resolve::resolve(&tree, file.as_deref(), source.data.as_deref(), &mut findings);
        if !findings.problems.is_empty() {
            return Err(ConfigError::Problems { file, problems: findings.problems });
        }
        Ok(Self { warnings: findings.warnings.iter().map(ToString::to_string).collect(), ..config })
    }

    /// From a file's text, where it is one that can be run with.
    #[cfg(fuzzing)]
    pub(crate) fn of_text(text: &str) -> Option<Self> {
        Self::of_tree(Node::parse(text).ok()?, Some("config.yml".into()), &ConfigSource::default()).ok()
    }
}

fn read(path: &Path) -> Result<Node, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::Read { path: path.to_owned(), reason: error.to_string() })?;
    Node::parse(&text).map_err(|reason| ConfigError::Syntax { path: path.to_owned(), reason })
}
