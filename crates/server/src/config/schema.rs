//! Every configuration key that Distribution, GitLab's registry and Twinport know, and where this version stands on it.
//! A key that guards something and is not built refuses to start: it is never silently ignored.

/// Where this version stands on a key, or on everything below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Read and acted on.
    Used,
    /// As above, and what is below it has names of the operator's own.
    Names,
    /// Understood, and nothing has to be done for it; the text says why.
    Needless(&'static str),
    /// Not built: an error, or a warning with `--lenient`; the text says what is missing.
    Unbuilt(&'static str),
    /// Not built, and it guards access or data: refuses to start, also with `--lenient`, unless its value
    /// is one of these (which ask for nothing).
    Guard { harmless: &'static [&'static str], why: &'static str },
    /// Not built, and naming it at all asks for it, as `storage: {inmemory:}` does.
    Refused(&'static str),
}

/// One key by its dotted path. Anything but `Used` stands for the whole subtree.
pub(crate) struct Rule {
    pub(crate) path: &'static str,
    pub(crate) standing: Standing,
}

use Standing::{Needless, Unbuilt, Used};

const fn used(path: &'static str) -> Rule {
    Rule { path, standing: Used }
}

const fn names(path: &'static str) -> Rule {
    Rule { path, standing: Standing::Names }
}

const fn needless(path: &'static str, why: &'static str) -> Rule {
    Rule { path, standing: Needless(why) }
}

const fn unbuilt(path: &'static str, what: &'static str) -> Rule {
    Rule { path, standing: Unbuilt(what) }
}

const fn guard(path: &'static str, harmless: &'static [&'static str], why: &'static str) -> Rule {
    Rule { path, standing: Standing::Guard { harmless, why } }
}

const fn refused(path: &'static str, why: &'static str) -> Rule {
    Rule { path, standing: Standing::Refused(why) }
}

const OBJECT_STORE: &str =
    "this object storage is not built in this version: use storage.s3 or storage.filesystem";

/// All rules. Kept in the order of the documentation.
pub(crate) const RULES: &[Rule] = &[
    used("version"),
    used("log.level"),
    used("log.formatter"),
    used("log.accesslog.disabled"),
    needless("log.accesslog.formatter", "access lines take log.formatter"),
    needless("log.fields", "fields are chosen by the log line"),
    needless("log.output", "logs go to standard error"),
    needless("log.reportcaller", "log lines name their module"),
    unbuilt("log.hooks", "log hooks"),
    needless("loglevel", "use log.level"),
    used("storage.filesystem.rootdirectory"),
    needless("storage.filesystem.maxthreads", "I/O threads are bounded by the process"),
    refused("storage.inmemory", "storage in memory would lose every push: use storage.filesystem"),
    used("storage.s3.accesskey"),
    used("storage.s3.accesskey_file"),
    used("storage.s3.secretkey"),
    used("storage.s3.secretkey_file"),
    used("storage.s3.sessiontoken"),
    used("storage.s3.sessiontoken_file"),
    used("storage.s3.region"),
    used("storage.s3.regionendpoint"),
    used("storage.s3.forcepathstyle"),
    used("storage.s3.pathstyle"),
    used("storage.s3.bucket"),
    used("storage.s3.rootdirectory"),
    used("storage.s3.encrypt"),
    used("storage.s3.keyid"),
    used("storage.s3.secure"),
    used("storage.s3.skipverify"),
    used("storage.s3.chunksize"),
    used("storage.s3.multipartcopychunksize"),
    used("storage.s3.multipartcopymaxconcurrency"),
    used("storage.s3.multipartcopythresholdsize"),
    used("storage.s3.storageclass"),
    used("storage.s3.useragent"),
    used("storage.s3.usedualstack"),
    used("storage.s3.accelerate"),
    used("storage.s3.maxretries"),
    guard("storage.s3.v4auth", &["true"], "requests are signed with version 4 alone: remove it"),
    guard(
        "storage.s3.objectacl",
        &["private"],
        "ACLs of objects are not set: let the bucket's policy and its object ownership say who may read",
    ),
    needless("storage.s3.objectownership", "no ACL is sent, as buckets that enforce ownership want it"),
    needless("storage.s3.loglevel", "use log.level, such as info,object_store=debug"),
    needless("storage.s3.logs3apirequests", "use log.level, such as info,object_store=debug"),
    needless("storage.s3.logs3apiresponseheaders", "use log.level, such as info,object_store=debug"),
    needless("storage.s3.parallelwalk", "no request walks the bucket"),
    unbuilt("storage.s3.maxrequestspersecond", "a limit of requests to the bucket"),
    needless("storage.s3.checksum_disabled", "no checksum is sent: every blob has its digest"),
    unbuilt("storage.s3.checksum_algorithm", "checksums of requests"),
    refused("storage.gcs", OBJECT_STORE),
    refused("storage.azure", OBJECT_STORE),
    refused("storage.azure_v2", OBJECT_STORE),
    refused("storage.oss", OBJECT_STORE),
    refused("storage.swift", OBJECT_STORE),
    used("storage.delete.enabled"),
    used("storage.redirect.disable"),
    used("storage.redirect.expirydelay"),
    needless("storage.cache", "blob descriptors are read from the database"),
    needless("storage.tag", "tag lookups are read from the database"),
    used("storage.maintenance.uploadpurging.enabled"),
    used("storage.maintenance.uploadpurging.age"),
    used("storage.maintenance.uploadpurging.interval"),
    used("storage.maintenance.uploadpurging.dryrun"),
    used("retention.interval"),
    used("retention.trash"),
    used("retention.most_percent"),
    guard("storage.maintenance.readonly.enabled", &["false"], "read-only mode is not built in this version"),
    refused("auth", "auth knows none, htpasswd and token, and nothing else"),
    used("auth.none"),
    used("auth.htpasswd.realm"),
    used("auth.htpasswd.path"),
    used("auth.token.realm"),
    used("auth.token.service"),
    used("auth.token.issuer"),
    used("auth.token.rootcertbundle"),
    used("auth.token.jwks"),
    used("auth.token.signingalgorithms"),
    used("auth.token.autoredirect"),
    used("auth.token.autoredirectpath"),
    guard("auth.silly", &[], "auth.silly protects nothing: use auth.htpasswd, auth.token or accounts"),
    unbuilt("middleware", "middleware"),
    needless("reporting", "errors are reported in the log"),
    used("http.addr"),
    used("http.host"),
    used("http.net"),
    used("http.prefix"),
    needless("http.secret", "upload state is kept in the database, so nothing is signed with it"),
    used("http.relativeurls"),
    used("http.trusted_proxies"),
    used("http.drainnotice"),
    used("http.draintimeout"),
    used("http.tls.certificate"),
    used("http.tls.key"),
    used("http.tls.clientcas"),
    used("http.tls.clientauth"),
    used("http.tls.minimumtls"),
    used("http.tls.ciphersuites"),
    guard(
        "http.tls.letsencrypt",
        &[],
        "certificates are not fetched by this version: let an ACME client write http.tls.certificate and http.tls.key",
    ),
    names("http.headers"),
    names("http.namespaces"),
    used("http.http2.disabled"),
    needless("http.h2c", "HTTP/2 is spoken when the client asks for it"),
    used("http.debug.addr"),
    used("http.debug.prometheus.enabled"),
    used("http.debug.prometheus.path"),
    guard("http.debug.tls", &[], "TLS on the debug address is not built in this version"),
    needless("http.debug.pprof", "there is no Go profiler in this process"),
    unbuilt("notifications.endpoints", "registry notifications"),
    unbuilt("notifications.secrets", "registry notifications"),
    needless("notifications.events", "registry notifications are not sent by this version"),
    needless("redis", "no cache outside the process is needed"),
    needless("health", "readiness is at /readyz"),
    guard("proxy", &[], "the pull-through cache is not built in this version"),
    needless("compatibility", "schema 1 manifests are kept as they are"),
    guard("validation.manifests", &[], "manifest URL rules are not built in this version"),
    needless("validation", "manifests are always validated"),
    guard("policy", &[], "repository class rules are not built in this version"),
    needless("catalog", "pages are bounded by the server"),
    needless("profiling", "there is no Go profiler in this process"),
    needless("migration", "there is nothing to migrate from"),
    needless("gc", "unlinked blobs are kept by this version"),
    guard("rate_limiter", &[], "the rate limiter is not built in this version"),
    used("database.enabled"),
    used("database.host"),
    used("database.port"),
    used("database.user"),
    used("database.password"),
    used("database.password_file"),
    used("database.dbname"),
    used("database.sslmode"),
    used("database.sslcert"),
    used("database.sslkey"),
    used("database.sslrootcert"),
    used("database.connecttimeout"),
    used("database.draintimeout"),
    used("database.preparedstatements"),
    needless("database.primary", "the server finds the database by database.host"),
    used("database.pool.maxopen"),
    used("database.pool.maxidle"),
    used("database.pool.maxlifetime"),
    used("database.pool.maxidletime"),
    needless("database.loadbalancing", "reads go to database.host"),
    needless("database.backgroundmigrations", "migrations run at start"),
    needless("database.metrics", "database figures are at /metrics"),
    used("geo.site"),
    used("geo.internal_url"),
    used("geo.replication.enabled"),
    guard(
        "geo.replication.primary_api_url",
        &[],
        "following a primary that is not Twinport is not built: `twinport site join` follows one that is",
    ),
    guard(
        "geo.replication.signing_key_file",
        &[],
        "the shared key pair is not built: `twinport site join` makes keys",
    ),
    guard("geo.replication.ack", &["local"], "waiting for a second site is not built in this version"),
    unbuilt("geo.replication.max_capacity", "a setting for the number of transfers"),
    unbuilt("geo.verification", "settings for verification"),
    guard("geo.writes", &["refuse"], "forwarding writes is not built in this version"),
    guard("geo.engine", &["twinport"], "only the engine `twinport` is built in this version"),
    guard("geo.fencing", &["manual"], "only manual fencing is built in this version"),
    refused("accounts", "accounts has no such setting"),
    used("accounts.enabled"),
    used("accounts.service"),
    used("accounts.token_lifetime"),
    names("accounts.issuers"),
    used("accounts.limits.requests_per_second"),
    used("accounts.limits.requests_per_second_per_account"),
    used("accounts.limits.connections_per_account"),
    unbuilt("mirrors", "mirrors of other registries"),
];

/// What a dotted path is to the schema.
pub(crate) enum Match {
    /// The path is a rule, or lies below one that stands for its subtree.
    Rule(&'static Rule),
    /// The path is a section: rules lie below it.
    Section,
    Unknown,
}

/// Looks a path up. The longest rule wins (`validation.manifests` over `validation`).
pub(crate) fn find(path: &str) -> Match {
    let covers = |rule: &&'static Rule| {
        path.strip_prefix(rule.path)
            .is_some_and(|rest| rest.is_empty() || (rest.starts_with('.') && rule.standing != Used))
    };
    if RULES.iter().any(|rule| rule.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'))) {
        return Match::Section;
    }
    RULES.iter().filter(covers).max_by_key(|rule| rule.path.len()).map_or(Match::Unknown, Match::Rule)
}

/// The known name below `section` nearest to `name`, when it is near enough to be a slip.
pub(crate) fn nearest(section: &str, name: &str) -> Option<&'static str> {
    RULES
        .iter()
        .filter_map(|rule| {
            let below = if section.is_empty() {
                rule.path
            } else {
                rule.path.strip_prefix(section)?.strip_prefix('.')?
            };
            below.split('.').next()
        })
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).clamp(1, 3))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edits between two words, a swap of neighbours counting as one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let substituted = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = substituted.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_answered_with_the_word_that_was_meant() {
        assert_eq!(nearest("", "htpp"), Some("http"));
        assert_eq!(nearest("storage.filesystem", "rootdirectoy"), Some("rootdirectory"));
        assert_eq!(nearest("http", "certificate"), None);
    }

    #[test]
    fn the_longest_rule_wins() {
        let Match::Rule(rule) = find("validation.disabled") else { panic!("not found") };
        assert_eq!(rule.path, "validation");
        let Match::Rule(rule) = find("validation.manifests.urls.allow") else { panic!("not found") };
        assert_eq!(rule.path, "validation.manifests");
        assert!(matches!(find("http"), Match::Section));
        assert!(matches!(find("http.addr.port"), Match::Unknown));
    }
}
