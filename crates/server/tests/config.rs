//! The configuration as people write it: what is wrong is named with its line, what guards something never passes.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use twinport_server::{
    AuthConfig, BlobPlace, ClientAuth, Config, ConfigError, ConfigSource, DatabaseConfig, LogFormat,
    MainAddress, ResponseHeaders, TlsVersion,
};

struct File {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn file(text: &str) -> File {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yml");
    std::fs::write(&path, text).unwrap();
    File { _dir: dir, path }
}

fn load_with(text: &str, lenient: bool, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let file = file(text);
    let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Config::load(&ConfigSource {
        file: Some(file.path.clone()),
        lenient,
        environment,
        ..ConfigSource::default()
    })
}

fn load(text: &str) -> Result<Config, ConfigError> {
    load_with(text, false, &[])
}

fn refusal(text: &str) -> String {
    load(text).unwrap_err().to_string()
}

#[test]
fn without_a_file_a_stranger_gets_a_registry_on_loopback() {
    let config = Config::load(&ConfigSource::default()).unwrap();
    assert_eq!(config.http.addr.to_string(), "127.0.0.1:5000");
    assert_eq!(config.data, PathBuf::from("twinport-data"));
    assert_eq!(config.storage.blobs, BlobPlace::Directory(PathBuf::from("twinport-data/blobs")));
    assert!(config.storage.delete_enabled);
    assert_eq!(config.database, DatabaseConfig::Embedded);
}

#[test]
fn a_file_keeps_distributions_default_for_deleting() {
    assert!(!load("version: 0.1\n").unwrap().storage.delete_enabled);
    assert!(load("version: 0.1\nstorage: {delete: {enabled: true}}\n").unwrap().storage.delete_enabled);
}

#[test]
fn an_unknown_key_is_an_error_that_names_its_line_and_the_word_that_was_meant() {
    let text = "version: 0.1\nhttp:\n  adr: 127.0.0.1:5000\n";
    let refusal = refusal(text);
    assert!(refusal.contains("line 3: unknown key `adr` in http, did you mean `addr`?"), "{refusal}");
    let lenient = load_with(text, true, &[]).unwrap();
    assert!(lenient.warnings.iter().any(|warning| warning.contains("line 3")), "{:?}", lenient.warnings);
}

#[test]
fn every_problem_is_named_at_once() {
    let refusal = refusal("version: 0.2\nlog:\n  level: loud\nhttp:\n  draintimeout: soon\n");
    for expected in
        ["3 problems", "line 1: version", "line 3: log.level is `loud`", "line 5: http.draintimeout"]
    {
        assert!(refusal.contains(expected), "{expected} is missing:\n{refusal}");
    }
}

#[test]
fn broken_yaml_names_its_line() {
    let refusal = refusal("version: 0.1\nhttp:\n\taddr: x\n");
    assert!(refusal.contains("not valid YAML") && refusal.contains("line 3"), "{refusal}");
}

#[test]
fn what_guards_access_or_data_and_is_not_built_refuses_to_start_even_leniently() {
    for (line, text) in [
        (2, "version: 0.1\nauth: {token: {realm: 'https://x', service: y}}\n"),
        (2, "version: 0.1\nauth: {htpasswd: {realm: x}}\n"),
        (2, "version: 0.1\nauth: {silly: {realm: x}}\n"),
        (2, "version: 0.1\nauth: basic\n"),
        (3, "version: 0.1\nhttp:\n  tls: {letsencrypt: {email: a@example.com}}\n"),
        (4, "version: 0.1\nstorage:\n  maintenance:\n    readonly: {enabled: true}\n"),
        (3, "version: 0.1\nstorage:\n  s3: {bucket: b}\n"),
        (3, "version: 0.1\nstorage:\n  inmemory:\n"),
        (2, "version: 0.1\nstorage: inmemory\n"),
        (2, "version: 0.1\nproxy: {remoteurl: 'https://registry-1.docker.io'}\n"),
        (3, "version: 0.1\ngeo:\n  writes: forward\n"),
        (4, "version: 0.1\ndatabase:\n  enabled: false\n  sslmode: verify-full\n"),
    ] {
        for lenient in [false, true] {
            let refusal = load_with(text, lenient, &[]).unwrap_err().to_string();
            assert!(refusal.contains(&format!("line {line}: ")), "{text}\n{refusal}");
        }
    }
}

#[test]
fn tls_needs_both_files_and_words_that_are_known() {
    for (wrong, said) in [
        ("tls: {certificate: /c}", "needs both certificate and key"),
        ("tls: {clientcas: [/ca]}", "needs both certificate and key"),
        ("tls: {certificate: /c, key: /k, minimumtls: tls1}", "http.tls.minimumtls is `tls1`"),
        ("tls: {certificate: /c, key: /k, ciphersuites: [TLS_RSA_WITH_RC4_128_SHA]}", "is not spoken here"),
        ("tls: {certificate: /c, key: /k, clientauth: request-client-cert}", "http.tls.clientauth is"),
        ("tls: {certificate: /c, key: /k, clientcas: [{a: b}]}", "list of single values"),
    ] {
        let refusal = refusal(&format!("version: 0.1\nhttp:\n  {wrong}\n"));
        assert!(refusal.contains("line 3: ") && refusal.contains(said), "{wrong}\n{refusal}");
    }
}

#[test]
fn a_site_may_listen_on_a_socket_file_and_below_a_prefix() {
    let text = "version: 0.1\nhttp:\n  net: unix\n  addr: /run/twinport.sock\n  prefix: /registry/\n  \
                trusted_proxies: [unix, 10.0.0.0/8, '::1']\n";
    let config = load(text).unwrap();
    assert_eq!(config.http.addr, MainAddress::Unix("/run/twinport.sock".into()));
    assert_eq!(config.http.prefix, "/registry");
    assert_eq!(load(&config.show()).unwrap().http, config.http);
    for (wrong, said) in [
        ("net: udp", "http.net is `udp`"),
        ("net: unix", "http.addr is missing"),
        ("net: unix\n  addr: x.sock", "absolute path"),
        ("net: unix\n  addr: /x\n  tls: {certificate: /c, key: /k}", "not spoken on a unix socket"),
        ("prefix: registry", "http.prefix is"),
        ("prefix: /a/../b", "http.prefix is"),
        ("trusted_proxies: [proxy.example.com]", "proxy.example.com is no address"),
    ] {
        let refusal = refusal(&format!("version: 0.1\nhttp:\n  {wrong}\n"));
        assert!(refusal.contains("line ") && refusal.contains(said), "{wrong}\n{refusal}");
    }
}

#[test]
fn what_is_said_of_tls_is_shown_and_reads_back() {
    let old = load("version: 0.1\nhttp:\n  tls: {certificate: /c, key: /k, minimumtls: tls1.0}\n").unwrap();
    assert!(old.warnings[0].starts_with("line 3: tls1.0 is not spoken any more"), "{:?}", old.warnings);
    let text = "version: 0.1\nhttp:\n  http2: {disabled: true}\n  tls:\n    certificate: /c\n    key: /k\n    clientcas: [/ca, /other]\n    clientauth: \
                verify-client-cert-if-given\n    minimumtls: tls1.3\n    ciphersuites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n";
    let config = load(text).unwrap();
    let tls = config.http.tls.clone().unwrap();
    assert!(!tls.http2);
    assert_eq!(tls.client_auth, ClientAuth::IfGiven);
    assert_eq!(tls.minimum, TlsVersion::Tls13);
    assert_eq!(tls.client_cas.len(), 2);
    assert_eq!(load(&config.show()).unwrap().http, config.http);
}

#[test]
fn a_guard_that_is_switched_off_asks_for_nothing() {
    load("version: 0.1\nauth: none\nstorage: {maintenance: {readonly: {enabled: false}}}\nhttp: {tls: {}}\n")
        .unwrap();
}

#[test]
fn what_is_known_and_not_needed_is_accepted_with_a_warning() {
    let config = load("version: 0.1\nredis: {addr: 'localhost:6379'}\nhttp:\n  secret: s3cret\n").unwrap();
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
    assert!(
        config.warnings.iter().any(|warning| warning.starts_with("line 4: http.secret")),
        "{:?}",
        config.warnings
    );
    assert!(!config.warnings.concat().contains("s3cret"));
}

#[test]
fn distributions_own_example_is_understood() {
    let text = "version: 0.1\nlog:\n  fields:\n    service: registry\nstorage:\n  cache:\n    blobdescriptor: inmemory\n  \
                filesystem:\n    rootdirectory: /var/lib/registry\nhttp:\n  addr: :5000\n  headers:\n    \
                X-Content-Type-Options: [nosniff]\nhealth:\n  storagedriver:\n    enabled: true\n    interval: 10s\n    \
                threshold: 3\nauth: none\n";
    let config = load(text).unwrap();
    assert_eq!(config.storage.blobs, BlobPlace::Directory(PathBuf::from("/var/lib/registry")));
    assert_eq!(config.data, PathBuf::from("/var/lib/registry"));
    assert_eq!(config.http.addr.to_string(), ":5000");
}

#[test]
fn listening_beyond_loopback_is_refused_unless_it_is_meant() {
    for addr in [":5000", "0.0.0.0:5000", "[::]:5000", "10.0.0.1:5000", "registry.example.com:5000"] {
        let refusal = refusal(&format!("version: 0.1\nhttp:\n  addr: '{addr}'\n"));
        assert!(refusal.contains("line 3: listening on") && refusal.contains("auth: none"), "{refusal}");
        load(&format!("version: 0.1\nhttp: {{addr: '{addr}'}}\nauth: none\n")).unwrap();
    }
    for empty in ["auth: {}", "auth: ''", "auth:"] {
        assert!(load(&format!("version: 0.1\nhttp: {{addr: ':5000'}}\n{empty}\n")).is_err(), "{empty}");
    }
    for addr in ["127.0.0.1:5000", "[::1]:5000", "localhost:5000", "127.9.9.9:1"] {
        load(&format!("version: 0.1\nhttp: {{addr: '{addr}'}}\n")).unwrap();
    }
}

#[test]
fn clients_are_known_in_one_way_and_then_the_network_may_come() {
    for auth in [
        "auth: {htpasswd: {realm: x, path: /h}}",
        "auth: {token: {realm: 'https://x/token', service: s, issuer: i, rootcertbundle: /b}}",
        "auth: {token: {realm: 'https://x/token', service: s, issuer: i, jwks: /j, signingalgorithms: [RS256], \
         autoredirect: true}}",
        "accounts: {enabled: true}",
        "accounts: {enabled: true, token_lifetime: 10m, limits: {requests_per_second: 5, connections_per_account: 9}, \
         issuers: {github: {issuer: 'https://token.actions.githubusercontent.com', audience: registry}}}",
    ] {
        let config = load(&format!("version: 0.1\nhttp: {{addr: ':5000'}}\n{auth}\n")).unwrap();
        assert_eq!(load(&config.show()).unwrap().auth, config.auth, "{}", config.show());
    }
    for (both, said) in [
        ("auth: {htpasswd: {realm: x, path: /h}}\naccounts: {enabled: true}", "known in one way"),
        ("auth: none\naccounts: {enabled: true}", "known in one way"),
        ("accounts: {service: x}", "say `enabled: true`"),
        ("accounts: {enabled: true, token_lifetime: 2h}", "from 1m to 1h"),
        (
            "accounts: {enabled: true, issuers: {g: {issuer: 'http://example.com', audience: a}}}",
            "must be https",
        ),
        ("accounts: {enabled: true, issuers: {g: {issuer: 'https://example.com'}}}", "audience is missing"),
        ("accounts: {enabled: true, limits: {requests_per_second: 0}}", "a number from 1 on"),
        ("auth: {token: {realm: 'https://x/token', service: s, issuer: i}}", "without keys"),
    ] {
        let refusal = refusal(&format!("version: 0.1\n{both}\n"));
        assert!(refusal.contains(said), "{both}: {refusal}");
    }
}

#[test]
fn htpasswd_is_set_up_by_variables_alone_as_distribution_is() {
    let environment = [
        ("REGISTRY_AUTH", "htpasswd"),
        ("REGISTRY_AUTH_HTPASSWD_REALM", "Registry Realm"),
        ("REGISTRY_AUTH_HTPASSWD_PATH", "/auth/htpasswd"),
    ];
    let config = load_with("version: 0.1\n", false, &environment).unwrap();
    let AuthConfig::Htpasswd(htpasswd) = config.auth else { panic!("{:?}", config.auth) };
    assert_eq!((htpasswd.realm.as_str(), htpasswd.file.to_str()), ("Registry Realm", Some("/auth/htpasswd")));
}

#[test]
fn the_flag_for_the_address_is_held_to_the_same_rule() {
    let source = ConfigSource { addr: Some("0.0.0.0:5000".into()), ..ConfigSource::default() };
    let refusal = Config::load(&source).unwrap_err().to_string();
    assert!(refusal.contains("flag --addr"), "{refusal}");
}

#[test]
fn variables_override_the_file_and_unknown_ones_only_warn() {
    let environment = [
        ("REGISTRY_HTTP_ADDR", "127.0.0.1:7000"),
        ("REGISTRY_LOG_FORMATTER", "json"),
        ("REGISTRY_STORAGE_DELETE_ENABLED", "true"),
        ("REGISTRY_PORT", "tcp://10.0.0.1:5000"),
        ("REGISTRY_SERVICE_HOST", "10.0.0.1"),
    ];
    let config = load_with("version: 0.1\nhttp: {addr: '127.0.0.1:5000'}\n", false, &environment).unwrap();
    assert_eq!(config.http.addr.to_string(), "127.0.0.1:7000");
    assert_eq!(config.log.format, LogFormat::Json);
    assert!(config.storage.delete_enabled);
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
}

#[test]
fn a_guard_set_by_a_variable_refuses_to_start_too() {
    let error =
        load_with("version: 0.1\n", false, &[("REGISTRY_AUTH_TOKEN_REALM", "https://x")]).unwrap_err();
    assert!(
        error.to_string().contains("REGISTRY_AUTH_TOKEN_REALM: auth.token.service is missing"),
        "{error}"
    );
    let error = load_with("version: 0.1\n", false, &[("REGISTRY_STORAGE", "inmemory")]).unwrap_err();
    assert!(error.to_string().contains("REGISTRY_STORAGE"), "{error}");
}

#[test]
fn postgresql_needs_its_parts_and_takes_its_password_from_a_file() {
    let refusal = refusal("version: 0.1\ndatabase:\n  enabled: true\n  host: db\n");
    assert!(
        refusal.contains("database.user is missing") && refusal.contains("database.dbname is missing"),
        "{refusal}"
    );
    let secret = file("0s3cret\n");
    let text = format!(
        "version: 0.1\ndatabase:\n  enabled: true\n  host: db\n  user: registry\n  dbname: registry\n  password_file: {}\n",
        secret.path.display()
    );
    let config = load(&text).unwrap();
    let DatabaseConfig::Postgres { port, password, .. } = &config.database else { panic!("not PostgreSQL") };
    assert_eq!(*port, 5432);
    assert_eq!(password.as_ref().unwrap().reveal(), "0s3cret");
}

#[test]
fn a_host_without_enabled_is_not_silently_ignored() {
    let refusal = refusal("version: 0.1\ndatabase:\n  host: db\n");
    assert!(refusal.contains("line 3: database.host is set and database.enabled is not"), "{refusal}");
}

#[test]
fn a13_what_is_shown_holds_no_secret_and_reads_back() {
    let text = "version: 0.1\nhttp: {host: 'https://tokyo.example.com'}\ndatabase:\n  enabled: true\n  host: db\n  \
                user: registry\n  dbname: registry\n  password: hunter2\ngeo: {site: tokyo}\n";
    let config = load(text).unwrap();
    let shown = config.show();
    assert!(!shown.contains("hunter2") && shown.contains("***"), "{shown}");
    assert!(!format!("{config:?}").contains("hunter2"));
    let again = load(&shown).unwrap();
    assert_eq!(again.http, config.http);
    assert_eq!(again.geo, config.geo);
    assert_eq!(again.storage, config.storage);
    assert_eq!(again.log, config.log);
}

#[test]
fn headers_are_set_as_in_distribution_by_file_and_by_variable() {
    let text = "version: 0.1\nhttp:\n  headers:\n    X-Content-Type-Options: [nosniff]\n    \
                Access-Control-Allow-Origin: ['https://a.example.com', 'https://b.example.com:8443']\n    \
                Access-Control-Max-Age: [1728000]\n    Access-Control-Allow-Credentials: [true]\n    X-One: alone\n";
    let config = load(text).unwrap();
    let mut by_file = ResponseHeaders::default();
    for (name, value) in [
        ("X-Content-Type-Options", "nosniff"),
        ("Access-Control-Allow-Origin", "https://a.example.com"),
        ("Access-Control-Allow-Origin", "https://b.example.com:8443"),
        ("Access-Control-Max-Age", "1728000"),
        ("Access-Control-Allow-Credentials", "true"),
        ("X-One", "alone"),
    ] {
        by_file.add(name, value).unwrap();
    }
    assert_eq!(config.http.headers, by_file);
    let variables = [
        ("REGISTRY_HTTP_HEADERS_Access-Control-Allow-Origin", "['http://localhost']"),
        ("REGISTRY_HTTP_HEADERS_X_FRAME_OPTIONS", "[DENY]"),
    ];
    let config = load_with("version: 0.1\n", false, &variables).unwrap();
    let mut by_variable = ResponseHeaders::default();
    by_variable.add("access-control-allow-origin", "http://localhost").unwrap();
    by_variable.add("x-frame-options", "DENY").unwrap();
    assert_eq!(config.http.headers, by_variable);
}

#[test]
fn headers_and_namespaces_that_cannot_be_are_named_with_their_line() {
    for (wrong, said) in [
        ("headers: {Content-Length: ['1']}", "Content-Length: the server sets this header itself"),
        ("headers: {Access-Control-Allow-Origin: ['ui.example.com']}", "`ui.example.com` is no origin"),
        ("headers: {'a b': [x]}", "this is no name of a header"),
        ("headers: [x]", "must be a map"),
        ("headers: {X-Y: {a: b}}", "must hold single values"),
        ("namespaces: {docker.io/library: x}", "is no host of a registry"),
        ("namespaces: {docker.io: 'Not A Name'}", "repository name"),
    ] {
        let refusal = refusal(&format!("version: 0.1\nhttp:\n  {wrong}\n"));
        assert!(refusal.contains("line 3: ") && refusal.contains(said), "{wrong}\n{refusal}");
    }
    let warned = load(
        "version: 0.1\nhttp:\n  headers: {Access-Control-Allow-Origin: ['*'], Access-Control-Allow-Credentials: ['true']}\n",
    );
    assert!(warned.unwrap().warnings.iter().any(|warning| warning.contains("browsers send no credentials")));
}

#[test]
fn headers_and_namespaces_that_are_shown_read_back() {
    let text = "version: 0.1\nauth: none\nhttp:\n  headers: {X-Two: [one, two], Access-Control-Allow-Origin: ['https://a.example.com'], X-One: ['\"quoted\"']}\n  namespaces: {docker.io: mirrors/docker, quay.io: ''}\n";
    let config = load(text).unwrap();
    let again = load(&config.show()).unwrap();
    assert_eq!((again.http.headers, again.http.namespaces), (config.http.headers, config.http.namespaces));
}

const POSTGRES: &str = "database: {enabled: true, host: db, user: u, dbname: d}\n";

fn bucket(keys: &str) -> String {
    format!("version: 0.1\nstorage:\n  s3:\n{keys}\n{POSTGRES}")
}

#[test]
fn distributions_keys_of_a_bucket_are_acted_on() {
    let secret = file("sesame\n");
    let text = bucket(&format!(
        "    accesskey: id\n    secretkey_file: {}\n    sessiontoken: token\n    region: eu-west-1\n    regionendpoint: minio:9000\n    \
         secure: false\n    forcepathstyle: true\n    bucket: layers\n    rootdirectory: /a/b\n    encrypt: true\n    \
         keyid: key\n    skipverify: true\n    v4auth: true\n    chunksize: 10485760\n    multipartcopychunksize: 33554432\n    \
         multipartcopymaxconcurrency: 100\n    multipartcopythresholdsize: 33554432\n    storageclass: STANDARD_IA\n    \
         useragent: mine\n    usedualstack: true\n    accelerate: true\n    objectacl: private\n    loglevel: debug\n    maxretries: 3",
        secret.path.display()
    ));
    let config = load(&text).unwrap();
    let BlobPlace::Bucket(s3) = &config.storage.blobs else { panic!("{:?}", config.storage) };
    assert_eq!((s3.bucket.as_str(), s3.root.as_str(), s3.region.as_str()), ("layers", "/a/b", "eu-west-1"));
    assert_eq!(s3.endpoint.as_deref(), Some("http://minio:9000"));
    assert!(s3.path_style && s3.skip_verify && s3.dual_stack && s3.accelerate && s3.session_token.is_some());
    assert_eq!((s3.chunk, s3.copy_chunk, s3.copy_threshold), (10 << 20, 32 << 20, 32 << 20));
    assert_eq!((s3.copy_concurrency, s3.max_retries), (100, 3));
    assert_eq!((s3.storage_class.as_deref(), s3.user_agent.as_deref()), (Some("STANDARD_IA"), Some("mine")));
    assert_eq!(s3.encryption, Some(twinport_blobs::Encryption::Kms("key".to_owned())));
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    let shown = config.show();
    assert!(
        !shown.contains("sesame") && !shown.contains("token\"") && !format!("{config:?}").contains("sesame"),
        "{shown}"
    );
    let again = load(&shown.replace("***", "x").replace("host: \"db\"", "host: db")).unwrap();
    let BlobPlace::Bucket(again) = &again.storage.blobs else { panic!("{shown}") };
    assert_eq!(
        (again.chunk, &again.encryption, &again.storage_class),
        (s3.chunk, &s3.encryption, &s3.storage_class)
    );
}

#[test]
fn gitlabs_second_name_of_a_bucket_and_its_variables_are_the_same() {
    let text = bucket("    bucket: layers\n    region: us-east-1").replace("  s3:", "  s3_v2:");
    let config = load_with(
        &text,
        false,
        &[("REGISTRY_STORAGE_S3_V2_ACCESSKEY", "id"), ("REGISTRY_STORAGE_S3_SECRETKEY", "x")],
    );
    let BlobPlace::Bucket(s3) = config.unwrap().storage.blobs else { panic!("no bucket") };
    assert!(s3.keys.is_some() && s3.bucket == "layers");
    let both = text.replace("  s3_v2:", "  s3: {bucket: b}\n  s3_v2:");
    assert!(refusal(&both).contains("storage.s3 and storage.s3_v2 are the same"), "{}", refusal(&both));
}

#[test]
fn a_bucket_that_could_not_be_used_as_it_is_meant_is_refused() {
    let sound = "    bucket: layers\n    region: us-east-1\n";
    load(&bucket(sound)).unwrap();
    for (keys, reason) in [
        ("    bucket: layers\n", "region is missing"),
        ("    region: us-east-1\n", "bucket is missing"),
        (&format!("{sound}    accesskey: id\n"), "go together"),
        (&format!("{sound}    keyid: k\n"), "encrypt is not"),
        (&format!("{sound}    chunksize: 1000\n"), "chunksize is `1000`"),
        (&format!("{sound}    objectacl: public-read\n"), "ACLs of objects are not set"),
        (&format!("{sound}    v4auth: false\n"), "version 4 alone"),
        (&format!("{sound}    secure: false\n"), "not asked in clear"),
        (&format!("{sound}    regionendpoint: 'http://h/path'\n"), "must be a host"),
        (
            &format!("{sound}  filesystem: {{rootdirectory: /r}}\n"),
            "keep one of storage.filesystem and storage.s3",
        ),
    ] {
        let refusal = refusal(&bucket(keys));
        assert!(refusal.contains(reason), "{keys}: {refusal}");
    }
    // Each node would open a database of its own, and take the others' blobs for nobody's (hazard S14).
    let alone = bucket(sound).replace(POSTGRES, "");
    assert!(refusal(&alone).contains("database.enabled"), "{}", refusal(&alone));
}

#[test]
fn clients_are_sent_to_the_bucket_for_twenty_minutes_unless_that_is_disabled() {
    let redirect = |text: &str| {
        load(&format!("version: 0.1\nstorage: {{redirect: {text}}}\n")).map(|c| c.storage.redirect)
    };
    assert_eq!(redirect("{disable: false}").unwrap().unwrap().as_secs(), 1200);
    assert_eq!(redirect("{disable: true}").unwrap(), None);
    assert_eq!(redirect("{expirydelay: 1h}").unwrap().unwrap().as_secs(), 3600);
    assert!(redirect("{expirydelay: 1s}").is_err());
}
