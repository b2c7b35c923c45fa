//! From a tree of settings to the values a site runs with: defaults, types, and what must not be combined.

mod auth;
mod http;

use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::{
    AuthConfig, BlobPlace, Config, DatabaseConfig, GeoConfig, ListenAddress, LogConfig, LogFormat, Problem,
    RetentionConfig, Secret, StorageConfig, UploadPurging,
    check::Findings,
    duration,
    tree::{Entry, Node, Origin, Value},
};

const DEFAULT_ADDRESS: &str = "127.0.0.1:5000";
const DEFAULT_DATA: &str = "twinport-data";

/// Resolves; problems are gathered in `findings`, and the result is only good when there are none.
pub(crate) fn resolve(
    tree: &Node,
    file: Option<&Path>,
    data: Option<&Path>,
    findings: &mut Findings,
) -> Config {
    let mut reader = Reader { tree, findings };
    reader.version(file.is_some());
    let root = reader.text("storage.filesystem.rootdirectory").map(PathBuf::from);
    let data =
        data.map(Path::to_path_buf).or_else(|| root.clone()).unwrap_or_else(|| PathBuf::from(DEFAULT_DATA));
    let config = Config {
        file: file.map(Path::to_path_buf),
        http: reader.http(),
        log: reader.log(),
        storage: StorageConfig {
            blobs: match reader.s3() {
                Some(bucket) => BlobPlace::Bucket(Box::new(bucket)),
                None => BlobPlace::Directory(root.unwrap_or_else(|| data.join("blobs"))),
            },
            redirect: reader.redirect(),
            // Without a file a stranger tries things out; a file keeps Distribution's default.
            delete_enabled: reader.boolean("storage.delete.enabled").unwrap_or(file.is_none()),
            upload_purging: reader.upload_purging(),
        },
        retention: reader.retention(),
        database: reader.database(),
        geo: GeoConfig {
            site: reader.site_name(),
            internal_url: reader.url("geo.internal_url"),
            replication_enabled: reader.boolean("geo.replication.enabled").unwrap_or(true),
        },
        auth: reader.auth(),
        data,
        warnings: Vec::new(),
    };
    reader.refuse_open_network(&config);
    reader.refuse_unshared_database(&config.database);
    config
}

/// The single values of a list, or the one value that stands alone; `None` for what is neither.
fn texts(value: &Value) -> Vec<Option<String>> {
    match value {
        Value::Null => Vec::new(),
        Value::Scalar(text) => vec![Some(text.clone())],
        Value::List(items) => items.iter().flat_map(|item| texts(&item.value)).collect(),
        Value::Map(_) => vec![None],
    }
}

pub(super) struct Reader<'a> {
    tree: &'a Node,
    findings: &'a mut Findings,
}

impl Reader<'_> {
    pub(super) fn problem(&mut self, path: &str, message: String) {
        let origin = self.tree.at(path).map_or(Origin::Line(1), |node| node.origin.clone());
        self.findings.problems.push(Problem::new(&origin, message));
    }

    fn warning(&mut self, path: &str, message: String) {
        let origin = self.tree.at(path).map_or(Origin::Line(1), |node| node.origin.clone());
        self.findings.warnings.push(Problem::new(&origin, message));
    }

    pub(super) fn text(&mut self, path: &str) -> Option<String> {
        let node = self.tree.at(path)?;
        if let Value::Scalar(text) = &node.value {
            return Some(text.clone());
        }
        self.problem(path, format!("{path} must be a single value"));
        None
    }

    /// The single values of a list; one value alone is a list of one.
    fn list(&mut self, path: &str) -> Vec<String> {
        let Some(node) = self.tree.at(path) else { return Vec::new() };
        let texts = texts(&node.value);
        if texts.iter().any(Option::is_none) {
            self.problem(path, format!("{path} must be a list of single values"));
        }
        texts.into_iter().flatten().filter(|text| !text.is_empty()).collect()
    }

    /// What stands below a section whose names are the operator's own: each name with its values.
    fn named(&mut self, path: &str) -> Vec<(String, Vec<String>)> {
        let entries = match self.tree.at(path).map(|node| &node.value) {
            None => return Vec::new(),
            Some(Value::Map(entries)) => entries,
            Some(_) => {
                self.problem(path, format!("{path} must be a map, as in `name: value`"));
                return Vec::new();
            }
        };
        let read = |entry: &Entry| {
            let values = texts(&entry.node.value);
            let whole = values.iter().all(Option::is_some);
            whole.then(|| (entry.key.clone(), values.into_iter().flatten().collect()))
        };
        let named: Vec<_> = entries.iter().map(read).collect();
        if named.iter().any(Option::is_none) {
            self.problem(path, format!("{path} must hold single values, or lists of them"));
        }
        named.into_iter().flatten().collect()
    }

    /// Whether a key holds anything.
    pub(super) fn is_set(&self, path: &str) -> bool {
        match self.tree.at(path).map(|node| &node.value) {
            None | Some(Value::Null) => false,
            Some(Value::Scalar(text)) => !text.is_empty(),
            Some(Value::List(items)) => !items.is_empty(),
            Some(Value::Map(_)) => true,
        }
    }

    pub(super) fn parsed<T>(
        &mut self,
        path: &str,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(path)?;
        let value = parse(&text);
        if value.is_none() {
            self.problem(path, format!("{path} is `{text}`, and must be {wanted}"));
        }
        value
    }

    pub(super) fn boolean(&mut self, path: &str) -> Option<bool> {
        self.parsed(path, "true or false", |text| match text {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => None,
        })
    }

    fn duration(&mut self, path: &str) -> Option<Duration> {
        self.parsed(path, "a duration such as 30s or 1h30m", duration::parse)
    }

    fn url(&mut self, path: &str) -> Option<Url> {
        self.parsed(path, "an http:// or https:// URL with a host", |text| {
            let url = Url::parse(text).ok()?;
            (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
        })
    }

    fn address(&mut self, path: &str) -> Option<ListenAddress> {
        self.parsed(path, "HOST:PORT, such as 127.0.0.1:5000 or :5000", ListenAddress::parse)
    }

    fn version(&mut self, from_file: bool) {
        match self.text("version").as_deref() {
            Some("0.1") => {}
            Some(other) => {
                let message = format!("version is {other}, and must be 0.1, the version of this format");
                self.problem("version", message);
            }
            None if from_file => self.problem("version", "the file must say `version: 0.1`".to_owned()),
            None => {}
        }
    }

    fn log(&mut self) -> LogConfig {
        let format = self.parsed("log.formatter", "text or json", |text| match text {
            "text" => Some(LogFormat::Text),
            "json" | "logstash" => Some(LogFormat::Json),
            _ => None,
        });
        LogConfig {
            level: self
                .parsed("log.level", "error, warn, info, debug or trace", |text| {
                    crate::telemetry::is_filter(text).then(|| text.to_owned())
                })
                .unwrap_or_else(|| "info".to_owned()),
            format: format.unwrap_or(LogFormat::Text),
            access_log: !self.boolean("log.accesslog.disabled").unwrap_or(false),
        }
    }

    fn upload_purging(&mut self) -> Option<UploadPurging> {
        let section = "storage.maintenance.uploadpurging";
        let enabled = self.boolean(&format!("{section}.enabled")).unwrap_or(true);
        let dry = self.boolean(&format!("{section}.dryrun")).unwrap_or(false);
        let age = self.duration(&format!("{section}.age")).unwrap_or(Duration::from_secs(168 * 3600));
        let interval =
            self.duration(&format!("{section}.interval")).unwrap_or(Duration::from_secs(24 * 3600));
        let interval = interval.max(Duration::from_secs(1));
        (enabled && !dry).then_some(UploadPurging { age, interval })
    }

    fn retention(&mut self) -> RetentionConfig {
        let interval = self.duration("retention.interval").unwrap_or(Duration::from_secs(3600));
        let percent = self.parsed("retention.most_percent", "a percentage from 1 to 100", |text| {
            text.parse::<u8>().ok().filter(|percent| (1..=100).contains(percent))
        });
        RetentionConfig {
            interval: interval.max(Duration::from_secs(1)),
            trash: self.duration("retention.trash").unwrap_or(Duration::from_secs(168 * 3600)),
            most_percent: percent.unwrap_or(50),
        }
    }

    fn database(&mut self) -> DatabaseConfig {
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
        let mut required = |path: &str| {
            let value = self.text(path).filter(|text| !text.is_empty());
            if value.is_none() {
                self.problem("database.enabled", format!("{path} is missing: PostgreSQL needs it"));
            }
            value.unwrap_or_default()
        };
        let host = required("database.host");
        let user = required("database.user");
        let dbname = required("database.dbname");
        let port = self.parsed("database.port", "a port from 1 to 65535", |text| {
            text.parse::<u16>().ok().filter(|port| *port > 0)
        });
        DatabaseConfig::Postgres { host, port: port.unwrap_or(5432), user, password: self.password(), dbname }
    }

    fn password(&mut self) -> Option<Secret> {
        self.secret_or_file("database.password", "database.password_file")
    }

    /// A secret of the configuration itself, or of a file that it names.
    pub(super) fn secret_or_file(&mut self, inline: &str, file: &str) -> Option<Secret> {
        let value = self.text(inline);
        let Some(path) = self.text(file) else { return value.map(Secret) };
        if value.is_some() {
            self.problem(file, format!("{inline} and {file} are both set: keep one"));
        }
        match std::fs::read_to_string(&path) {
            Ok(text) => Some(Secret(text.trim_end_matches(['\n', '\r']).to_owned())),
            Err(error) => {
                self.problem(file, format!("cannot read {path}: {error}"));
                None
            }
        }
    }

    /// As in GitLab's registry: on for 20 minutes, for storage that clients can be sent to.
    fn redirect(&mut self) -> Option<Duration> {
        const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
        let disabled = self.boolean("storage.redirect.disable").unwrap_or(false);
        let expiry = self.duration("storage.redirect.expirydelay").unwrap_or(Duration::from_secs(20 * 60));
        if expiry < Duration::from_secs(60) || expiry > LONGEST {
            let message = "storage.redirect.expirydelay must be from 1m to 168h, the most that S3 signs for";
            self.problem("storage.redirect.expirydelay", message.to_owned());
        }
        (!disabled).then_some(expiry)
    }

    fn site_name(&mut self) -> Option<String> {
        let name = self.text("geo.site")?;
        if let Err(error) = twinport_geo::check_name(&name) {
            self.problem("geo.site", format!("geo.site: {error}"));
        }
        Some(name)
    }

    /// Anyone who can reach an open registry can push to it.
    fn refuse_open_network(&mut self, config: &Config) {
        if config.auth != (AuthConfig::Open { stated: false }) || config.http.addr.is_loopback() {
            return;
        }
        let message = format!(
            "listening on {} would let anyone who can reach it push and pull: listen on 127.0.0.1, set up `accounts` or \
             `auth`, or say `auth: none` (REGISTRY_AUTH=none) if that is meant",
            config.http.addr
        );
        self.problem("http.addr", message);
    }
}
