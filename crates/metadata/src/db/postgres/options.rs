//! Where a site's PostgreSQL is, how it is reached, and how much of it one node may use.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use tokio_postgres::config::Host;

use crate::{Error, Result};

/// How long a connection attempt may take where nothing else is said.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long transactions may go on at a stop where nothing else is said.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections that one node holds at most where nothing else is said.
const MAX_OPEN: usize = 16;
/// With fewer connections clients and replication could not both have some.
pub const LEAST_OPEN: usize = 4;

/// Where a site's PostgreSQL database is, and how much of it one node may use.
#[derive(Clone)]
pub struct PostgresOptions {
    /// User, password and database; neither hosts nor how they are reached.
    pub(super) account: Box<tokio_postgres::Config>,
    /// Tried in this order, the one that worked last first.
    pub hosts: Vec<PostgresHost>,
    /// How the connection is secured.
    pub tls: Box<PostgresTls>,
    pub pool: PoolLimits,
    /// How long a connection attempt may take.
    pub connect_timeout: Duration,
    /// How long transactions under way may go on when the site stops.
    pub drain_timeout: Duration,
    /// Where this node notes what it has seen of the log, so that it knows a database that went back.
    pub seen: Option<PathBuf>,
    /// Whether a session keeps its statements prepared; else each use prepares anew.
    pub prepared_statements: bool,
}

/// One server, or one of several that take each other's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresHost {
    /// A name, an address, or the directory of a unix socket: a path that begins with `/`.
    pub host: String,
    pub port: u16,
}

impl fmt::Display for PostgresHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// How a connection is secured. Over a unix socket there is no TLS, whatever this says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PostgresTls {
    pub mode: SslMode,
    /// PEM: the client's certificate, and its key.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// PEM: whose certificates the server may show. With it, every mode that speaks TLS checks it.
    pub root_certificates: Option<PathBuf>,
}

/// libpq's `sslmode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// In clear; with TLS where the server refuses that.
    Allow,
    /// With TLS; in clear where the server does not speak it or refuses.
    #[default]
    Prefer,
    /// With TLS. Whose certificate it is is not asked, unless root certificates are given.
    Require,
    /// With TLS, and a certificate of the authority that is given.
    VerifyCa,
    /// As above, and the certificate names the host.
    VerifyFull,
}

impl SslMode {
    /// Reads libpq's word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "disable" => Self::Disable,
            "allow" => Self::Allow,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => return None,
        })
    }

    /// libpq's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// How many connections one node holds, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// At most.
    pub max_open: usize,
    /// Of those that nobody uses, at most. None: all of them may stay.
    pub max_idle: Option<usize>,
    /// A connection this old is not used again.
    pub max_lifetime: Option<Duration>,
    /// A connection that nobody used for this long is closed.
    pub max_idle_time: Option<Duration>,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self { max_open: MAX_OPEN, max_idle: None, max_lifetime: None, max_idle_time: None }
    }
}

impl PoolLimits {
    /// Connections that clients leave to the log stream, its heartbeats and the numbering of events.
    #[must_use]
    pub fn reserved(&self) -> usize {
        (self.max_open / 4).clamp(1, 4)
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The account holds the password.
        f.debug_struct("PostgresOptions")
            .field("database", &self.account.get_dbname())
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

impl PostgresOptions {
    /// From a `postgres://` URL or a libpq keyword string.
    ///
    /// # Errors
    /// [`Error::Refused`] when it cannot be read; the text does not repeat it, since it may hold a password.
    pub fn parse(text: &str) -> Result<Self> {
        let unreadable = || {
            Error::Refused("the database address cannot be read: use postgres://user@host:port/name".into())
        };
        let config = tokio_postgres::Config::from_str(text).map_err(|_| unreadable())?;
        let ports = config.get_ports();
        let hosts = config.get_hosts().iter().enumerate().map(|(index, host)| {
            let host = match host {
                Host::Tcp(name) => name.clone(),
                Host::Unix(directory) => directory.to_string_lossy().into_owned(),
            };
            PostgresHost { host, port: ports.get(index).or(ports.first()).copied().unwrap_or(5432) }
        });
        let mut account = tokio_postgres::Config::new();
        if let Some(user) = config.get_user() {
            account.user(user);
        }
        if let Some(password) = config.get_password() {
            account.password(password);
        }
        account.channel_binding(config.get_channel_binding());
        account.dbname(config.get_dbname().ok_or_else(unreadable)?);
        let mode = match config.get_ssl_mode() {
            tokio_postgres::config::SslMode::Disable => SslMode::Disable,
            tokio_postgres::config::SslMode::Require => SslMode::Require,
            _ => SslMode::Prefer,
        };
        let tls = Box::new(PostgresTls { mode, ..PostgresTls::default() });
        Ok(Self { tls, ..Self::of(account, hosts.collect()) })
    }

    /// From the parts of the configuration's `database:` section.
    #[must_use]
    pub fn new(hosts: Vec<PostgresHost>, database: &str, user: &str, password: Option<&str>) -> Self {
        let mut account = tokio_postgres::Config::new();
        account.dbname(database).user(user);
        if let Some(password) = password {
            account.password(password);
        }
        Self::of(account, hosts)
    }

    fn of(account: tokio_postgres::Config, hosts: Vec<PostgresHost>) -> Self {
        Self {
            account: Box::new(account),
            hosts,
            tls: Box::default(),
            pool: PoolLimits::default(),
            connect_timeout: CONNECT_TIMEOUT,
            drain_timeout: DRAIN_TIMEOUT,
            seen: None,
            prepared_statements: true,
        }
    }

    /// The database's name.
    pub(super) fn database(&self) -> &str {
        self.account.get_dbname().unwrap_or_default()
    }
}
