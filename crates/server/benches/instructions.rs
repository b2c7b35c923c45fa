//! Hot paths of a site, each done a stated number of times, so that a tool can count the instructions of one.
//! Guards: `scripts/test-instructions` compares what one costs with the figures that are committed.
//!
//! ```text
//! instructions --list          every path, and how often to do it for a steady figure
//! instructions PATH TIMES
//! ```
//! Everything is made, and each path done a few times, before the counted ones: the difference of two runs with different
//! TIMES is what the path costs, over all threads, without start and end.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program for a script: what fails ends it")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use tempfile::TempDir;
use tower_service::Service as _;
use twinport_blobs::Blobs;
use twinport_metadata::{Actor, Clock, CommitBlob, Database, Metadata, OpenOptions};
use twinport_oci::{Digest, Manifest, MediaType, RepositoryName};
use twinport_server::{Policy, Registry, RegistrySettings, V2Service, v2_service};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const REPOSITORY: &str = "team/project/app";
/// Done before the counted ones: statements are planned, buffers have grown, threads run.
const WARM_UP: usize = 10;
/// Tags of the repository, and referrers of its one subject.
const LISTED: usize = 200;

/// What is done, and how often in one run: about 200 million instructions. The start, which gathers entropy from the
/// processor's timing, differs by up to half a million between two runs, and that must be little of it.
const PATHS: [(&str, usize); 10] = [
    ("parse-paths", 2000),
    ("digest-4-kib", 1000),
    ("project-manifest-8-kib", 400),
    ("get-manifest-by-tag", 4000),
    ("head-blob", 4000),
    ("get-blob-10-kib", 2500),
    ("tag-page-100", 1000),
    ("referrers-page-200", 200),
    ("commit-blob", 1000),
    ("put-manifest", 600),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        // What `cargo bench` passes along.
        ["--list"] | ["--bench"] => {
            for (path, times) in PATHS {
                println!("{path} {times}");
            }
        }
        [path, times] => run(path, times.parse().unwrap()),
        _ => panic!("say --list, or PATH TIMES"),
    }
}

fn run(path: &str, times: usize) {
    match path {
        "digest-4-kib" => repeat(times, digest),
        "project-manifest-8-kib" => {
            let manifest = large_manifest();
            repeat(times, || project(&manifest));
        }
        _ => {
            // One thread for all that may run on one, so that turns are taken alike in every run.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(run_on_site(path, times));
        }
    }
}

fn repeat(times: usize, mut path: impl FnMut()) {
    for _ in 0..WARM_UP + times {
        path();
    }
}

/// Hashes, writes and reads again.
fn digest() {
    let digest = Digest::sha256(black_box(&[7; 4096]));
    let text = digest.to_string();
    assert_eq!(black_box(text).parse::<Digest>().unwrap(), digest);
}

fn project(bytes: &[u8]) {
    let content_type = MediaType::parse(OCI_MANIFEST).unwrap();
    let manifest = Manifest::parse(black_box(bytes), Some(&content_type)).unwrap();
    black_box(manifest.blobs().count());
}

async fn run_on_site(path: &str, times: usize) {
    let site = Site::open().await;
    let image = site.push_image().await;
    let tags = format!("/v2/{REPOSITORY}/tags/list?n=100&last=t0050");
    let referrers = format!("/v2/{REPOSITORY}/referrers/{}", image.manifest);
    let layer = format!("/v2/{REPOSITORY}/blobs/{}", image.layer);
    match path {
        "tag-page-100" => site.push_tags(&image).await,
        "referrers-page-200" => site.push_referrers(&image).await,
        _ => {}
    }
    for i in 0..WARM_UP + times {
        match path {
            "parse-paths" => site.refuse_methods(&image).await,
            "get-manifest-by-tag" => site.get(&format!("/v2/{REPOSITORY}/manifests/latest")).await,
            "head-blob" => site.send(Method::HEAD, &layer, Bytes::new(), StatusCode::OK).await,
            "get-blob-10-kib" => site.get(&layer).await,
            "tag-page-100" => site.get(&tags).await,
            "referrers-page-200" => site.get(&referrers).await,
            "commit-blob" => site.commit_blob(i).await,
            "put-manifest" => site.put_tag(&format!("fresh-{i}"), &image.bytes).await,
            unknown => panic!("no path is named {unknown}: --list names them"),
        }
    }
    site.registry.metadata.close().await;
}

struct Image {
    layer: Digest,
    manifest: Digest,
    bytes: Bytes,
}

/// A registry without a listener: requests are handed to the service that the listener would call.
struct Site {
    registry: Arc<Registry>,
    service: V2Service,
    _directory: TempDir,
}

impl Site {
    async fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::Sqlite { path: directory.path().join("metadata.db") };
        let metadata = Metadata::open(OpenOptions { database, clock: Clock::System }).await.unwrap();
        let blobs = Blobs::open_local(directory.path().join("blobs")).await.unwrap();
        let registry = Arc::new(Registry::new(metadata, blobs, RegistrySettings::default(), Policy::Open));
        Self { service: v2_service(registry.clone()), registry, _directory: directory }
    }

    async fn send(&self, method: Method, path: &str, body: Bytes, expected: StatusCode) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "registry.example.com")
            .header("accept", OCI_MANIFEST)
            .header("content-type", OCI_MANIFEST)
            .header("content-length", body.len())
            .body(Body::from(body))
            .unwrap();
        let answer = self.service.clone().call(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(status, expected, "{path}: {}", String::from_utf8_lossy(&body));
        black_box(body);
    }

    async fn get(&self, path: &str) {
        self.send(Method::GET, path, Bytes::new(), StatusCode::OK).await;
    }

    async fn put_tag(&self, reference: &str, manifest: &Bytes) {
        let path = format!("/v2/{REPOSITORY}/manifests/{reference}");
        self.send(Method::PUT, &path, manifest.clone(), StatusCode::CREATED).await;
    }

    async fn push_blob(&self, bytes: &'static [u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        let path = format!("/v2/{REPOSITORY}/blobs/uploads/?digest={digest}");
        self.send(Method::POST, &path, Bytes::from_static(bytes), StatusCode::CREATED).await;
        digest
    }

    async fn push_image(&self) -> Image {
        let layer = self.push_blob(&[3; 10 << 10]).await;
        let config = self.push_blob(b"{}").await;
        let bytes = Bytes::from(format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":2}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer}","size":10240}}]}}"#
        ));
        self.put_tag("latest", &bytes).await;
        Image { layer, manifest: Digest::sha256(&bytes), bytes }
    }

    async fn push_tags(&self, image: &Image) {
        for i in 0..LISTED {
            self.put_tag(&format!("t{i:04}"), &image.bytes).await;
        }
    }

    async fn push_referrers(&self, image: &Image) {
        for i in 0..LISTED {
            let artifact = Bytes::from(format!(
                r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","artifactType":"application/vnd.example.signature","config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{}","size":2}},"layers":[],"subject":{{"mediaType":"{OCI_MANIFEST}","digest":"{}","size":{}}},"annotations":{{"number":"{i}"}}}}"#,
                Digest::sha256(b"{}"),
                image.manifest,
                image.bytes.len()
            ));
            self.put_tag(&Digest::sha256(&artifact).to_string(), &artifact).await;
        }
    }

    /// One path of each kind with a method that it does not take: what is done before a handler is called.
    async fn refuse_methods(&self, image: &Image) {
        let (layer, manifest) = (&image.layer, &image.manifest);
        for rest in [
            "manifests/latest".to_owned(),
            format!("manifests/{manifest}"),
            format!("blobs/{layer}"),
            format!("referrers/{manifest}"),
            "tags/list".to_owned(),
        ] {
            let path = format!("/v2/{REPOSITORY}/{rest}");
            self.send(Method::PATCH, &path, Bytes::new(), StatusCode::METHOD_NOT_ALLOWED).await;
        }
    }

    async fn commit_blob(&self, number: usize) {
        let commit = CommitBlob {
            repository: RepositoryName::parse(REPOSITORY).unwrap(),
            digest: Digest::sha256(&number.to_be_bytes()),
            size: 10 << 10,
            upload: None,
            actor: Actor::anonymous(),
        };
        self.registry.metadata.commit_blob(commit).await.unwrap();
    }
}

/// 48 layers: 8 KiB of descriptors, as a large image has.
fn large_manifest() -> Vec<u8> {
    let mut text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":2}},"layers":["#,
        Digest::sha256(b"{}")
    );
    for i in 0..48_u32 {
        let separator = if i == 0 { "" } else { "," };
        let digest = Digest::sha256(&i.to_be_bytes());
        write!(
            text,
            r#"{separator}{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{digest}","size":{i}}}"#
        )
        .unwrap();
    }
    text.push_str("]}");
    text.into_bytes()
}
