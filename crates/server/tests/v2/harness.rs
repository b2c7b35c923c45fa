//! A registry for one test, on a real socket, and short ways to fill and to ask it.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use twinport_blobs::{Blobs, Hidden, S3Settings};
use twinport_metadata::{Clock, Database, Metadata, OpenOptions, PostgresOptions};
use twinport_oci::Digest;
use twinport_server::{Listener, ListenerLimits, Policy, Registry, RegistrySettings, Tls, v2_service};
use twinport_testkit::{Balancer, ObjectServer, ObjectServerKind, Probing, object_server};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// The codes that a 4XX may have: the specification's table, and Docker's `TAG_INVALID`, which it lets pass.
const CODES: [&str; 15] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
    "TAG_INVALID",
];

/// Runs every named function four times, each on a registry of its own: `sqlite::name`, `postgresql::name`, and where every
/// request goes to the next of three nodes that share database and store, `three_nodes::name` on a directory and
/// `three_nodes_in_a_bucket::name`.
#[macro_export]
macro_rules! on_both_databases {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::harness::Site::start().await).await;
            })*
        }
        mod postgresql {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(site) = $crate::harness::Site::start_on_postgresql(stringify!($name)).await {
                    super::$name(site).await;
                }
            })*
        }
        mod three_nodes {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(site) = $crate::harness::Site::start_three_nodes(stringify!($name)).await {
                    super::$name(site).await;
                }
            })*
        }
        mod three_nodes_in_a_bucket {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(site) = $crate::harness::Site::start_three_nodes_in_a_bucket(stringify!($name)).await {
                    super::$name(site).await;
                }
            })*
        }
    };
}

pub(crate) struct Site {
    pub(crate) registry: Arc<Registry>,
    pub(crate) address: SocketAddr,
    client: reqwest::Client,
    directory: TempDir,
    database: Database,
    /// Where its blobs are, if not in the directory.
    bucket: Option<Bucket>,
    shutdown: CancellationToken,
    serving: Vec<tokio::task::JoinHandle<bool>>,
    /// Of each node.
    registries: Vec<Arc<Registry>>,
    /// In front of several nodes.
    balancer: Option<Balancer>,
}

/// A prefix of a test's own.
#[derive(Clone)]
struct Bucket {
    settings: S3Settings,
    /// Where its server keeps it.
    folder: PathBuf,
}

impl Bucket {
    /// `None`, and a line that says so, where there is no server for it.
    async fn new() -> Option<Self> {
        let server = tokio::task::spawn_blocking(|| object_server(ObjectServerKind::MinIo)).await.unwrap()?;
        let root = format!("v2/{}", uuid::Uuid::new_v4());
        let keys = (ObjectServer::ACCESS_KEY.to_owned(), Hidden::new(ObjectServer::SECRET_KEY));
        let folder = server.bucket_folder().join(&root);
        let settings = S3Settings {
            endpoint: Some(server.url()),
            path_style: true,
            root: format!("/{root}"),
            keys: Some(keys),
            ..S3Settings::new(ObjectServer::BUCKET, ObjectServer::REGION)
        };
        Some(Self { settings, folder })
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Site {
    pub(crate) async fn start() -> Self {
        Self::start_with(RegistrySettings::default(), ListenerLimits::default()).await
    }

    pub(crate) async fn start_with(settings: RegistrySettings, limits: ListenerLimits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::Sqlite { path: directory.path().join("metadata.db") };
        Self::open(directory, database, settings, limits, None).await
    }

    /// A registry that speaks TLS and nothing else.
    pub(crate) async fn start_with_tls(tls: Arc<Tls>, limits: ListenerLimits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::Sqlite { path: directory.path().join("metadata.db") };
        Self::open(directory, database, RegistrySettings::default(), limits, Some(tls)).await
    }

    /// `None`, and a line that says so, where there is no PostgreSQL.
    pub(crate) async fn start_on_postgresql(test: &str) -> Option<Self> {
        let Some(url) = twinport_testkit::postgres_database().await.unwrap() else {
            eprintln!(
                "skip {test} on PostgreSQL: it is not installed, and TWINPORT_TEST_POSTGRES is not set"
            );
            return None;
        };
        let database = Database::Postgres(PostgresOptions::parse(&url).unwrap());
        let directory = tempfile::tempdir().unwrap();
        let (settings, limits) = (RegistrySettings::default(), ListenerLimits::default());
        Some(Self::open(directory, database, settings, limits, None).await)
    }

    /// Three nodes behind a balancer that sends every request to the next. `None`, and a line that says so, where there is
    /// no PostgreSQL.
    pub(crate) async fn start_three_nodes(test: &str) -> Option<Self> {
        Self::start_nodes(test, None).await
    }

    /// The same, without a disk between the nodes. `None`, and a line that says so, where no server is that speaks S3.
    pub(crate) async fn start_three_nodes_in_a_bucket(test: &str) -> Option<Self> {
        let bucket = Bucket::new().await?;
        Self::start_nodes(test, Some(bucket)).await
    }

    async fn start_nodes(test: &str, bucket: Option<Bucket>) -> Option<Self> {
        let Some(url) = twinport_testkit::postgres_database().await.unwrap() else {
            eprintln!("skip {test} on three nodes: PostgreSQL is not installed");
            return None;
        };
        let database = Database::Postgres(PostgresOptions::parse(&url).unwrap());
        let directory = tempfile::tempdir().unwrap();
        let (settings, limits) = (RegistrySettings::default(), ListenerLimits::default());
        Some(Self::open_nodes(3, directory, database, settings, limits, None, bucket).await)
    }

    async fn open(
        directory: TempDir,
        database: Database,
        settings: RegistrySettings,
        limits: ListenerLimits,
        tls: Option<Arc<Tls>>,
    ) -> Self {
        Self::open_nodes(1, directory, database, settings, limits, tls, None).await
    }

    async fn open_nodes(
        count: usize,
        directory: TempDir,
        database: Database,
        settings: RegistrySettings,
        limits: ListenerLimits,
        tls: Option<Arc<Tls>>,
        bucket: Option<Bucket>,
    ) -> Self {
        let shutdown = CancellationToken::new();
        let (mut registries, mut addresses, mut serving) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..count {
            let options = OpenOptions { database: database.clone(), clock: Clock::System };
            let metadata = Metadata::open(options).await.unwrap();
            let root = directory.path().join("blobs");
            let blobs = match (&bucket, &database) {
                (Some(bucket), _) => Blobs::open_s3(bucket.settings.clone()).await.unwrap(),
                (None, Database::Sqlite { .. }) => Blobs::open_local(root).await.unwrap(),
                (None, Database::Postgres(_)) => Blobs::open_shared(root).await.unwrap(),
            };
            let registry = Arc::new(Registry::new(metadata, blobs, settings.clone(), Policy::Open));
            let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), limits.clone()).await.unwrap();
            addresses.push(listener.local_addr().unwrap());
            let listener = match &tls {
                Some(tls) => listener.with_tls(tls.clone()),
                None => listener,
            };
            serving.push(tokio::spawn(listener.serve(v2_service(registry.clone()), shutdown.clone())));
            registries.push(registry);
        }
        let balancer = (count > 1).then(|| Balancer::start(&addresses, Probing::None).unwrap());
        let address = balancer.as_ref().map_or(addresses[0], Balancer::address);
        let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
        let registry = registries[0].clone();
        Self {
            registry,
            address,
            client,
            directory,
            database,
            bucket,
            shutdown,
            serving,
            registries,
            balancer,
        }
    }

    /// Stops the server and starts another on the same data.
    pub(crate) async fn restart(self) -> Self {
        self.shutdown.cancel();
        let count = self.serving.len();
        for serving in self.serving {
            assert!(serving.await.unwrap(), "requests under way did not end");
        }
        for registry in &self.registries {
            registry.metadata.close().await;
        }
        let settings = self.registry.settings.clone();
        let limits = ListenerLimits::default();
        Self::open_nodes(count, self.directory, self.database, settings, limits, None, self.bucket).await
    }

    /// Tells the server to stop; resolves when it has.
    pub(crate) async fn stop(self) -> bool {
        self.shutdown.cancel();
        let mut in_time = true;
        for serving in self.serving {
            in_time &= serving.await.unwrap();
        }
        in_time
    }

    pub(crate) fn begin_stop(&self) {
        self.shutdown.cancel();
    }

    pub(crate) fn url(&self, path: &str) -> String {
        if path.starts_with("http://") { path.to_owned() } else { format!("http://{}{path}", self.address) }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, self.url(path))
    }

    pub(crate) async fn get(&self, path: &str) -> Seen {
        self.request(Method::GET, path).seen().await
    }

    pub(crate) async fn head(&self, path: &str) -> Seen {
        self.request(Method::HEAD, path).seen().await
    }

    pub(crate) async fn delete(&self, path: &str) -> Seen {
        self.request(Method::DELETE, path).seen().await
    }

    pub(crate) async fn post(&self, path: &str) -> Seen {
        self.request(Method::POST, path).header("content-length", "0").seen().await
    }

    /// Begins an upload; its location.
    pub(crate) async fn begin(&self, repository: &str) -> String {
        let seen = self.post(&format!("/v2/{repository}/blobs/uploads/")).await;
        assert_eq!(seen.status, 202, "{seen:?}");
        seen.header("location").to_owned()
    }

    /// PATCH with a Content-Range of its own.
    pub(crate) async fn patch(&self, location: &str, start: usize, chunk: &[u8]) -> Seen {
        let end = start + chunk.len() - 1;
        self.request(Method::PATCH, location)
            .header("content-range", format!("{start}-{end}"))
            .header("content-type", "application/octet-stream")
            .body(chunk.to_vec())
            .seen()
            .await
    }

    /// The closing PUT.
    pub(crate) async fn close(&self, location: &str, digest: impl ToString, rest: &[u8]) -> Seen {
        let separator = if location.contains('?') { '&' } else { '?' };
        let path = format!("{location}{separator}digest={}", digest.to_string());
        self.request(Method::PUT, &path).body(rest.to_vec()).seen().await
    }

    pub(crate) async fn push_blob(&self, repository: &str, content: &[u8]) -> Digest {
        let digest = Digest::sha256(content);
        let location = self.begin(repository).await;
        let seen = self.close(&location, digest, content).await;
        assert_eq!(seen.status, 201, "{seen:?}");
        digest
    }

    pub(crate) async fn put_manifest(
        &self,
        repository: &str,
        reference: impl ToString,
        media_type: &str,
        content: impl Into<Vec<u8>>,
    ) -> Seen {
        self.request(Method::PUT, &format!("/v2/{repository}/manifests/{}", reference.to_string()))
            .header("content-type", media_type)
            .body(content.into())
            .seen()
            .await
    }

    /// An image with one layer of its own; its manifest's bytes and digest.
    pub(crate) async fn push_image(&self, repository: &str, tag: &str, content: &str) -> (Vec<u8>, Digest) {
        let layer = self.push_blob(repository, content.as_bytes()).await;
        let config = self.push_blob(repository, b"{}").await;
        let manifest = image(&config, 2, &layer, content.len());
        let seen = self.put_manifest(repository, tag, OCI_MANIFEST, manifest.clone()).await;
        assert_eq!(seen.status, 201, "{seen:?}");
        let digest = Digest::sha256(&manifest);
        (manifest, digest)
    }

    /// Sends bytes as they are and reads until the server closes, or for as long as a test may wait.
    pub(crate) async fn raw(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request).await.unwrap();
        read_to_end(&mut stream).await
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// How many uploads all nodes are writing.
    pub(crate) fn uploads_in_progress(&self) -> usize {
        self.registries.iter().map(|registry| registry.uploads_in_progress()).sum()
    }

    /// As every node does within a second.
    pub(crate) fn look_at_rules_again(&self) {
        self.registries.iter().for_each(|registry| registry.look_at_rules_again());
    }

    /// Whether clients speak with a balancer, which asks for every body itself.
    pub(crate) fn is_behind_a_balancer(&self) -> bool {
        self.balancer.is_some()
    }

    pub(crate) fn spools(&self) -> Vec<PathBuf> {
        match &self.bucket {
            Some(bucket) => files(&bucket.folder.join("_twinport/uploads")),
            None => files(&self.directory.path().join("blobs/twinport/spool")),
        }
    }

    pub(crate) fn stored_blobs(&self) -> Vec<PathBuf> {
        match &self.bucket {
            Some(bucket) => files(&bucket.folder.join("docker")),
            None => files(&self.directory.path().join("blobs/docker")),
        }
    }

    /// Whether nodes share no directory, in which one could keep the others from a session: of two that write it at once,
    /// one is told to look again.
    pub(crate) fn is_in_a_bucket(&self) -> bool {
        self.bucket.is_some()
    }

    pub(crate) fn data_directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn is_on_sqlite(&self) -> bool {
        matches!(self.database, Database::Sqlite { .. })
    }
}

pub(crate) async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    let ended = tokio::time::timeout(Duration::from_secs(30), reading).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert!(ended.is_ok(), "the server kept the connection open after: {text}");
    assert!(ended.unwrap().is_ok(), "the connection was reset after: {text}");
    text
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Sending, with every answer held to the forms that all answers share.
pub(crate) trait Send {
    async fn seen(self) -> Seen;
}

impl Send for reqwest::RequestBuilder {
    async fn seen(self) -> Seen {
        let (client, request) = self.build_split();
        let request = request.unwrap();
        let method = request.method().clone();
        let response = client.execute(request).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let seen = Seen { status, headers, body: response.bytes().await.unwrap() };
        seen.check(&method);
        seen
    }
}

impl Seen {
    fn check(&self, method: &Method) {
        assert_eq!(self.header("docker-distribution-api-version"), "registry/2.0", "{self:?}");
        assert_eq!(self.header("x-content-type-options"), "nosniff", "{self:?}");
        // None has a reason to warn; one that did would need the form of the specification's "Warnings".
        assert!(!self.headers.contains_key("warning"), "{self:?}");
        if *method == Method::HEAD {
            assert!(self.body.is_empty(), "{self:?}");
        } else if self.status >= 400 {
            self.check_error();
        }
    }

    /// OCI Distribution, "Error Codes".
    pub(crate) fn check_error(&self) {
        assert_eq!(self.header("content-type"), "application/json", "{self:?}");
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        let errors = body["errors"].as_array().unwrap();
        assert!(!errors.is_empty(), "{self:?}");
        for error in errors {
            let code = error["code"].as_str().unwrap();
            assert!(code.chars().all(|c| c.is_ascii_uppercase() || c == '_') && !code.is_empty(), "{self:?}");
            assert!(self.status >= 500 || CODES.contains(&code), "no code of the specification: {self:?}");
            assert!(error["message"].is_string(), "{self:?}");
        }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Where an upload stands: the last byte of its `Range`.
    #[track_caller]
    pub(crate) fn range_end(&self) -> usize {
        let range = self.header("range");
        range.strip_prefix("0-").and_then(|end| end.parse().ok()).unwrap_or_else(|| panic!("{self:?}"))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The code of the first error.
    pub(crate) fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn is(&self, status: StatusCode) -> &Self {
        assert_eq!(self.status, status.as_u16(), "{self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.code().as_str()), (status, code), "{self:?}");
    }

    /// The target of the Link header.
    pub(crate) fn next(&self) -> Option<String> {
        let link = self.headers.get("link")?.to_str().unwrap();
        Some(twinport_oci::parse_next_link(link).unwrap().to_owned())
    }
}

pub(crate) fn image(config: &Digest, config_size: usize, layer: &Digest, layer_size: usize) -> Vec<u8> {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": config, "size": config_size},
        "layers": [{"mediaType": OCI_LAYER, "digest": layer, "size": layer_size}],
    });
    serde_json::to_vec_pretty(&manifest).unwrap()
}

pub(crate) fn index(children: &[Digest]) -> Vec<u8> {
    let manifests: Vec<Value> = children
        .iter()
        .map(|digest| json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": 7}))
        .collect();
    serde_json::to_vec(&json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests})).unwrap()
}

/// Bytes that differ from seed to seed.
pub(crate) fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Polls until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never happened: {what}");
}
