//! The section `database`, as GitLab's registry has it.

use std::path::PathBuf;
use std::time::Duration;

use twinport_metadata::{LEAST_OPEN, PoolLimits, PostgresHost, PostgresTls, SslMode};

use super::super::{DatabaseConfig, PostgresConfig};
use super::Reader;

const DEFAULT_PORT: u16 = 5432;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

impl Reader<'_> {
    pub(super) fn database(&mut self) -> DatabaseConfig {
        match self.boolean("database.enabled") {
            Some(true) => {}
            Some(false) => return DatabaseConfig::Embedded,
            None => {
                if self.tree.at("database.host").is_some() {
                    let message = "database.host is set and database.enabled is not: say `enabled: true` to use \
                                   PostgreSQL, or remove the section to use the embedded database";
                    self.problem("database.host", message.to_owned());
                }
                return DatabaseConfig::Embedded;
            }
        }
        let hosts = self.hosts();
        let mut required = |path: &str| {
            let value = self.text(path).filter(|text| !text.is_empty());
            if value.is_none() {
                self.problem("database.enabled", missing(path));
            }
            value.unwrap_or_default()
        };
        let user = required("database.user");
        let dbname = required("database.dbname");
        DatabaseConfig::Postgres(Box::new(PostgresConfig {
            hosts,
            user,
            password: self.secret_or_file("database.password", "database.password_file"),
            dbname,
            tls: self.database_tls(),
            connect_timeout: self.bound("database.connecttimeout").unwrap_or(CONNECT_TIMEOUT),
            drain_timeout: self.bound("database.draintimeout").unwrap_or(DRAIN_TIMEOUT),
            prepared_statements: self.boolean("database.preparedstatements").unwrap_or(true),
            pool: self.pool(),
        }))
    }

    /// One host, or several: a list, or one text with commas as libpq has it. Ports likewise, one for all or one for each.
    fn hosts(&mut self) -> Vec<PostgresHost> {
        let hosts = self.separated("database.host");
        if hosts.is_empty() {
            self.problem("database.enabled", missing("database.host"));
        }
        let mut ports = Vec::new();
        for text in self.separated("database.port") {
            match text.parse::<u16>() {
                Ok(port) if port > 0 => ports.push(port),
                _ => self.problem(
                    "database.port",
                    format!("database.port is `{text}`, and must be a port from 1 to 65535"),
                ),
            }
        }
        if ports.len() > 1 && ports.len() != hosts.len() {
            let message = format!(
                "database.port has {} ports for {} hosts: give one for all, or one for each",
                ports.len(),
                hosts.len()
            );
            self.problem("database.port", message);
        }
        let port = |place: usize| ports.get(place).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
        let placed = hosts.into_iter().enumerate();
        placed.map(|(place, host)| PostgresHost { host, port: port(place) }).collect()
    }

    fn separated(&mut self, path: &str) -> Vec<String> {
        let listed = self.list(path);
        let parts = listed.iter().flat_map(|text| text.split(',')).map(str::trim);
        parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    fn database_tls(&mut self) -> PostgresTls {
        let wanted = "disable, allow, prefer, require, verify-ca or verify-full";
        let mode = self.parsed("database.sslmode", wanted, SslMode::parse).unwrap_or_default();
        let mut file = |path: &str| self.text(path).filter(|text| !text.is_empty()).map(PathBuf::from);
        let tls = PostgresTls {
            mode,
            certificate: file("database.sslcert"),
            key: file("database.sslkey"),
            root_certificates: file("database.sslrootcert"),
        };
        if tls.certificate.is_some() != tls.key.is_some() {
            let (set, unset) = if tls.key.is_none() { ("sslcert", "sslkey") } else { ("sslkey", "sslcert") };
            let message = format!("database.{set} is set and database.{unset} is not: they belong together");
            self.problem(&format!("database.{set}"), message);
        }
        if mode == SslMode::VerifyCa && tls.root_certificates.is_none() {
            let message = "database.sslmode verify-ca needs database.sslrootcert, the authority of the server's certificate";
            self.problem("database.sslmode", message.to_owned());
        }
        tls
    }

    fn pool(&mut self) -> PoolLimits {
        let number = |text: &str| text.parse::<usize>().ok();
        let most =
            self.parsed("database.pool.maxopen", "a number of connections", number).filter(|most| *most > 0);
        if let Some(most) = most
            && most < LEAST_OPEN
        {
            let message = format!(
                "database.pool.maxopen is {most}, and must be at least {LEAST_OPEN}: replication keeps connections of its own"
            );
            self.problem("database.pool.maxopen", message);
        }
        PoolLimits {
            max_open: most.unwrap_or(PoolLimits::default().max_open),
            max_idle: self
                .parsed("database.pool.maxidle", "a number of connections", number)
                .filter(|most| *most > 0),
            max_lifetime: self.bound("database.pool.maxlifetime"),
            max_idle_time: self.bound("database.pool.maxidletime"),
        }
    }

    /// A duration; zero asks for nothing, as in GitLab's registry.
    fn bound(&mut self, path: &str) -> Option<Duration> {
        self.duration(path).filter(|bound| !bound.is_zero())
    }
}

fn missing(path: &str) -> String {
    format!("{path} is missing: PostgreSQL needs it")
}
