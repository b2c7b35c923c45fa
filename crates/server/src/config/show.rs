//! The effective configuration as YAML that reads back, with every secret redacted.

use super::{
    AccountLimits, AccountsConfig, AuthConfig, BlobPlace, Config, DatabaseConfig, HtpasswdConfig, KeySource,
    LogFormat, MainAddress, PostgresConfig, duration,
};

use twinport_blobs::{Encryption, S3Settings};

const REDACTED: &str = "\"***\"";

impl Config {
    /// What this site would run with. Secrets are replaced by `***`.
    #[must_use]
    pub fn show(&self) -> String {
        let mut lines = vec![
            format!("# data directory: {}", self.data.display()),
            "version: 0.1".to_owned(),
            "log:".to_owned(),
            format!("  level: {}", quoted(&self.log.level)),
            format!(
                "  formatter: {}",
                match self.log.format {
                    LogFormat::Text => "text",
                    LogFormat::Json => "json",
                }
            ),
            format!("  accesslog: {{disabled: {}}}", !self.log.access_log),
            "http:".to_owned(),
            format!("  addr: {}", quoted(&self.http.addr.to_string())),
        ];
        if let MainAddress::Unix(_) = self.http.addr {
            lines.push("  net: unix".to_owned());
        }
        if !self.http.prefix.is_empty() {
            lines.push(format!("  prefix: {}", quoted(&self.http.prefix)));
        }
        if !self.http.trusted_proxies.is_empty() {
            lines.push(format!("  trusted_proxies: [{}]", self.http.trusted_proxies));
        }
        if let Some(host) = &self.http.host {
            lines.push(format!("  host: {}", quoted(host.as_str())));
        }
        let headers = self.http.headers.iter().map(|(name, value)| (name, format!("[{}]", quoted(value))));
        show_names(&mut lines, "headers", headers);
        let namespaces = self.http.namespaces.iter().map(|(host, below)| (host, quoted(below)));
        show_names(&mut lines, "namespaces", namespaces);
        lines.push(format!("  relativeurls: {}", self.http.relative_urls));
        lines.push(format!("  drainnotice: {}", duration::show(self.http.drain_notice)));
        lines.push(format!("  draintimeout: {}", duration::show(self.http.drain_timeout)));
        self.show_tls(&mut lines);
        if let Some(debug) = &self.http.debug {
            lines.push("  debug:".to_owned());
            lines.push(format!("    addr: {}", quoted(&debug.addr.to_string())));
            lines.push(match &debug.prometheus_path {
                Some(path) => format!("    prometheus: {{enabled: true, path: {}}}", quoted(path)),
                None => "    prometheus: {enabled: false}".to_owned(),
            });
        }
        lines.push("storage:".to_owned());
        match &self.storage.blobs {
            BlobPlace::Directory(root) => {
                lines.push(format!("  filesystem: {{rootdirectory: {}}}", quoted(&root.to_string_lossy())));
            }
            BlobPlace::Bucket(bucket) => show_bucket(bucket, &mut lines),
        }
        lines.push(match self.storage.redirect {
            Some(expiry) => {
                format!("  redirect: {{disable: false, expirydelay: {}}}", duration::show(expiry))
            }
            None => "  redirect: {disable: true}".to_owned(),
        });
        lines.push(format!("  delete: {{enabled: {}}}", self.storage.delete_enabled));
        lines.push(match self.storage.upload_purging {
            Some(purging) => format!(
                "  maintenance: {{uploadpurging: {{enabled: true, age: {}, interval: {}}}}}",
                duration::show(purging.age),
                duration::show(purging.interval)
            ),
            None => "  maintenance: {uploadpurging: {enabled: false}}".to_owned(),
        });
        lines.push(format!(
            "retention: {{interval: {}, trash: {}, most_percent: {}}}",
            duration::show(self.retention.interval),
            duration::show(self.retention.trash),
            self.retention.most_percent
        ));
        self.show_database(&mut lines);
        self.show_auth(&mut lines);
        lines.push("geo:".to_owned());
        if let Some(site) = &self.geo.site {
            lines.push(format!("  site: {}", quoted(site)));
        }
        if let Some(url) = &self.geo.internal_url {
            lines.push(format!("  internal_url: {}", quoted(url.as_str())));
        }
        lines.push(format!("  replication: {{enabled: {}}}", self.geo.replication_enabled));
        lines.push(String::new());
        lines.join("\n")
    }

    fn show_tls(&self, lines: &mut Vec<String>) {
        let Some(tls) = &self.http.tls else { return };
        if !tls.http2 {
            lines.push("  http2: {disabled: true}".to_owned());
        }
        lines.push("  tls:".to_owned());
        lines.push(format!("    certificate: {}", quoted(&tls.certificate.to_string_lossy())));
        lines.push(format!("    key: {}", quoted(&tls.key.to_string_lossy())));
        lines.push(format!("    minimumtls: {}", tls.minimum.as_str()));
        if !tls.cipher_suites.is_empty() {
            lines.push(format!("    ciphersuites: {}", list(&tls.cipher_suites)));
        }
        if !tls.client_cas.is_empty() {
            let files: Vec<_> = tls.client_cas.iter().map(|file| file.to_string_lossy()).collect();
            lines.push(format!("    clientcas: {}", list(&files)));
            lines.push(format!("    clientauth: {}", tls.client_auth.as_str()));
        }
    }

    fn show_auth(&self, lines: &mut Vec<String>) {
        match &self.auth {
            AuthConfig::Open { stated: false } => {}
            AuthConfig::Open { stated: true } => lines.push("auth: none".to_owned()),
            AuthConfig::Htpasswd(HtpasswdConfig { realm, file }) => {
                let file = quoted(&file.to_string_lossy());
                lines.push(format!("auth: {{htpasswd: {{realm: {}, path: {file}}}}}", quoted(realm)));
            }
            AuthConfig::Token(token) => {
                lines.push("auth:".to_owned());
                lines.push("  token:".to_owned());
                lines.push(format!("    realm: {}", quoted(token.realm.as_str())));
                lines.push(format!("    service: {}", quoted(&token.service)));
                lines.push(format!("    issuer: {}", quoted(&token.issuer)));
                for (name, file) in [("rootcertbundle", &token.root_cert_bundle), ("jwks", &token.jwks)] {
                    if let Some(file) = file {
                        lines.push(format!("    {name}: {}", quoted(&file.to_string_lossy())));
                    }
                }
                if !token.signing_algorithms.is_empty() {
                    lines.push(format!("    signingalgorithms: {}", list(&token.signing_algorithms)));
                }
                if let Some(path) = &token.auto_redirect {
                    lines.push("    autoredirect: true".to_owned());
                    lines.push(format!("    autoredirectpath: {}", quoted(path)));
                }
            }
            AuthConfig::Accounts(accounts) => show_accounts(accounts, lines),
        }
    }

    fn show_database(&self, lines: &mut Vec<String>) {
        match &self.database {
            DatabaseConfig::Embedded => lines.push("database: {enabled: false}".to_owned()),
            DatabaseConfig::Postgres(postgres) => show_postgres(postgres, lines),
        }
    }
}

fn show_postgres(postgres: &PostgresConfig, lines: &mut Vec<String>) {
    let hosts: Vec<_> = postgres.hosts.iter().map(|host| host.host.as_str()).collect();
    let ports: Vec<_> = postgres.hosts.iter().map(|host| host.port.to_string()).collect();
    lines.push("database:".to_owned());
    lines.push("  enabled: true".to_owned());
    lines.push(format!("  host: {}", list(&hosts)));
    lines.push(format!("  port: [{}]", ports.join(", ")));
    lines.push(format!("  user: {}", quoted(&postgres.user)));
    if postgres.password.is_some() {
        lines.push(format!("  password: {REDACTED}"));
    }
    lines.push(format!("  dbname: {}", quoted(&postgres.dbname)));
    lines.push(format!("  sslmode: {}", postgres.tls.mode.as_str()));
    let files = [
        ("sslcert", &postgres.tls.certificate),
        ("sslkey", &postgres.tls.key),
        ("sslrootcert", &postgres.tls.root_certificates),
    ];
    for (name, file) in files {
        if let Some(file) = file {
            lines.push(format!("  {name}: {}", quoted(&file.to_string_lossy())));
        }
    }
    lines.push(format!("  connecttimeout: {}", duration::show(postgres.connect_timeout)));
    lines.push(format!("  draintimeout: {}", duration::show(postgres.drain_timeout)));
    lines.push(format!("  preparedstatements: {}", postgres.prepared_statements));
    let pool = postgres.pool;
    let mut limits = vec![format!("maxopen: {}", pool.max_open)];
    limits.extend(pool.max_idle.map(|most| format!("maxidle: {most}")));
    limits.extend(pool.max_lifetime.map(|limit| format!("maxlifetime: {}", duration::show(limit))));
    limits.extend(pool.max_idle_time.map(|limit| format!("maxidletime: {}", duration::show(limit))));
    lines.push(format!("  pool: {{{}}}", limits.join(", ")));
}

fn show_bucket(bucket: &S3Settings, lines: &mut Vec<String>) {
    let mut keys = vec![("bucket", quoted(&bucket.bucket)), ("region", quoted(&bucket.region))];
    let mut optional = |name, value: &Option<String>| {
        keys.extend(value.as_ref().map(|value| (name, quoted(value))));
    };
    optional("regionendpoint", &bucket.endpoint);
    optional("storageclass", &bucket.storage_class);
    optional("useragent", &bucket.user_agent);
    optional("rootdirectory", &(!bucket.root.is_empty()).then(|| bucket.root.clone()));
    if bucket.keys.is_some() {
        keys.extend([("accesskey", REDACTED.to_owned()), ("secretkey", REDACTED.to_owned())]);
    }
    if bucket.session_token.is_some() {
        keys.push(("sessiontoken", REDACTED.to_owned()));
    }
    if let Some(encryption) = &bucket.encryption {
        keys.push(("encrypt", "true".to_owned()));
        if let Encryption::Kms(key) = encryption {
            keys.push(("keyid", quoted(key)));
        }
    }
    let switches = [
        ("forcepathstyle", bucket.path_style),
        ("usedualstack", bucket.dual_stack),
        ("accelerate", bucket.accelerate),
        ("skipverify", bucket.skip_verify),
    ];
    keys.extend(switches.into_iter().filter(|(_, on)| *on).map(|(name, _)| (name, "true".to_owned())));
    keys.extend([
        ("chunksize", bucket.chunk.to_string()),
        ("multipartcopythresholdsize", bucket.copy_threshold.to_string()),
        ("multipartcopychunksize", bucket.copy_chunk.to_string()),
        ("multipartcopymaxconcurrency", bucket.copy_concurrency.to_string()),
        ("maxretries", bucket.max_retries.to_string()),
    ]);
    lines.push("  s3:".to_owned());
    lines.extend(keys.into_iter().map(|(name, value)| format!("    {name}: {value}")));
}

fn show_accounts(accounts: &AccountsConfig, lines: &mut Vec<String>) {
    lines.push("accounts:".to_owned());
    lines.push("  enabled: true".to_owned());
    lines.push(format!("  service: {}", quoted(&accounts.service)));
    lines.push(format!("  token_lifetime: {}", duration::show(accounts.token_lifetime)));
    if !accounts.issuers.is_empty() {
        lines.push("  issuers:".to_owned());
    }
    for issuer in &accounts.issuers {
        let keys = match &issuer.keys {
            KeySource::Discovered => String::new(),
            KeySource::Url(url) => format!(", jwks_uri: {}", quoted(url.as_str())),
            KeySource::File(file) => format!(", jwks_file: {}", quoted(&file.to_string_lossy())),
        };
        let (url, audience) = (quoted(&issuer.issuer), quoted(&issuer.audience));
        lines.push(format!("    {}: {{issuer: {url}, audience: {audience}{keys}}}", issuer.name));
    }
    let AccountLimits { requests_per_second, requests_per_second_per_account, connections_per_account } =
        accounts.limits;
    let limits: Vec<String> = [
        ("requests_per_second", requests_per_second),
        ("requests_per_second_per_account", requests_per_second_per_account),
        ("connections_per_account", connections_per_account),
    ]
    .into_iter()
    .filter_map(|(name, limit)| limit.map(|limit| format!("{name}: {limit}")))
    .collect();
    if !limits.is_empty() {
        lines.push(format!("  limits: {{{}}}", limits.join(", ")));
    }
}

/// A section of `http` whose names are the operator's own; one that repeats has several values.
fn show_names<'a>(lines: &mut Vec<String>, section: &str, named: impl Iterator<Item = (&'a str, String)>) {
    let mut last = "";
    for (index, (name, value)) in named.enumerate() {
        if index == 0 {
            lines.push(format!("  {section}:"));
        }
        match lines.last_mut().filter(|_| index > 0 && name == last) {
            Some(line) => {
                line.truncate(line.len() - 1);
                line.push_str(&format!(", {}", value.trim_start_matches('[')));
            }
            None => lines.push(format!("    {}: {value}", quoted(name))),
        }
        last = name;
    }
}

/// A double-quoted YAML scalar; JSON's escapes are a subset of YAML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn list<T: AsRef<str>>(texts: &[T]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| quoted(text.as_ref())).collect();
    format!("[{}]", texts.join(", "))
}
