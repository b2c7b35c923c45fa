//! `/geo/v1` as another site meets it: the routes, their refusals, and how bytes leave.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::time::Duration;

use axum::{
    Router,
    body::{Body, to_bytes},
};
use bytes::Bytes;
use http::{
    HeaderMap, Method, Request, StatusCode,
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE},
};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;
use twinport_access::{AccountKind, TagGuard};
use twinport_blobs::Blobs;
use twinport_geo::{
    AddSite, Feed, SiteKey,
    protocol::{
        Frame, FrameDecoder, Head, JoinRequest, JoinResponse, LOG_STREAM, Nonce, StatusReport, Versions,
    },
};
use twinport_metadata::{
    Actor, Clock, CommitBlob, Database, Incarnation, Metadata, NewAccount, OpenOptions, PutManifest,
    RecordSecret, Repository,
};
use twinport_oci::Digest;
use twinport_server::{GeoApiState, geo_router};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(30);

struct Site {
    state: GeoApiState,
    router: Router,
    directory: TempDir,
}

struct Other {
    incarnation: Incarnation,
    credential: String,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The code of a refusal in the protocol's shape.
    fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap().to_owned()
    }
}

impl Site {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::Sqlite { path: directory.path().join("metadata.db") };
        let metadata = Metadata::open(OpenOptions { database, clock: Clock::System }).await.unwrap();
        metadata.name_site("paris").await.unwrap();
        let blobs = Blobs::open_local(directory.path().join("blobs")).await.unwrap();
        let feed = Feed::new(metadata.clone());
        let state = GeoApiState::new(metadata, blobs, feed);
        Self { router: geo_router(state.clone()), state, directory }
    }

    async fn send(&self, request: Request<Body>) -> http::Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(http::HeaderName, &str)],
        body: Body,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let response = self.send(request.body(body).unwrap()).await;
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, path: &str, site: &Other) -> Answer {
        self.call(Method::GET, path, &[(AUTHORIZATION, &site.credential)], Body::empty()).await
    }

    async fn post(&self, path: &str, credential: &str, body: &Value) -> Answer {
        let headers = [(AUTHORIZATION, credential), (CONTENT_TYPE, "application/json")];
        self.call(Method::POST, path, &headers, Body::from(body.to_string())).await
    }

    async fn join_request(&self, name: &str) -> (JoinRequest, SiteKey) {
        let add = AddSite {
            name: name.to_owned(),
            own_name: None,
            primary_url: "http://127.0.0.1:5000".to_owned(),
            tls_pin: None,
            lifetime: None,
        };
        let token = self.state.registrar.add(add).await.unwrap();
        let key = SiteKey::from_bytes(&[Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat())
            .unwrap();
        let mut request = JoinRequest {
            token_id: token.id,
            secret: token.secret,
            site: token.site,
            incarnation: Incarnation::random(),
            public_key: key.public_key().to_vec(),
            external_url: None,
            internal_url: None,
            versions: Versions::OURS,
            clock_us: Clock::System.now_us(),
            token_keys: Vec::new(),
            proof: Vec::new(),
        };
        request.proof = key.sign(&request.proof_message());
        (request, key)
    }

    async fn joined(&self, name: &str) -> Other {
        let (request, key) = self.join_request(name).await;
        let incarnation = request.incarnation;
        let answer = self.post("/geo/v1/join", "", &serde_json::to_value(request).unwrap()).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        let joined: JoinResponse = serde_json::from_slice(&answer.body).unwrap();
        let credential = key.credential(incarnation, joined.federation, Clock::System.now_us()).unwrap();
        Other { incarnation, credential: format!("Bearer {credential}") }
    }

    /// Stores a blob and links it in the test's repository.
    async fn blob(&self, content: impl Into<Bytes>) -> Digest {
        let content = content.into();
        let (digest, size) = (Digest::sha256(&content), content.len() as u64);
        let spool = self.state.blobs.put(&digest, content).await.unwrap();
        let commit = CommitBlob {
            repository: "library/alpine".parse().unwrap(),
            digest,
            size,
            upload: None,
            actor: Actor::anonymous(),
        };
        self.state.metadata.commit_blob(commit).await.unwrap();
        self.state.blobs.discard(&spool).await.unwrap();
        digest
    }

    async fn manifest(&self, body: &'static [u8], tag: &str) -> Digest {
        let digest = Digest::sha256(body);
        let put = PutManifest {
            repository: "library/alpine".parse().unwrap(),
            digest,
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            artifact_type: None,
            subject: None,
            annotations: String::new(),
            body: Bytes::from_static(body),
            blobs: Vec::new(),
            manifests: Vec::new(),
            tags: vec![tag.parse().unwrap()],
            guard: TagGuard::default(),
            actor: Actor::anonymous(),
        };
        self.state.metadata.put_manifest(put).await.unwrap();
        digest
    }

    async fn repository(&self) -> Repository {
        self.state.metadata.repository(&"library/alpine".parse().unwrap()).await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn a9_nothing_but_a_join_is_answered_without_a_credential() {
    let site = Site::new().await;
    site.blob("secret").await;
    let uuid = site.repository().await.uuid;
    let known = format!("/geo/v1/blobs/{}", Digest::sha256(b"secret"));
    for path in [
        "/geo/v1/log?number=1&seq=0",
        "/geo/v1/repositories",
        &format!("/geo/v1/repositories/{uuid}/listing"),
        &format!("/geo/v1/repositories/{uuid}/checksum"),
        &format!("/geo/v1/repositories/{uuid}/manifests/sha256:0"),
        "/geo/v1/repositories/nonsense/listing?limit=x",
        &known,
        "/geo/v1/blobs/nonsense",
    ] {
        let answer = site.call(Method::GET, path, &[], Body::empty()).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (StatusCode::UNAUTHORIZED, "CREDENTIAL_MISSING"),
            "{path}"
        );
        let answer = site.call(Method::HEAD, path, &[], Body::empty()).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}");
        let headers = [(AUTHORIZATION, "Bearer e30.e30.e30")];
        let answer = site.call(Method::GET, path, &headers, Body::empty()).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (StatusCode::UNAUTHORIZED, "CREDENTIAL_INVALID"),
            "{path}"
        );
    }
    for body in ["", "{", "{}", "null", "[1]"] {
        let headers = [(CONTENT_TYPE, "application/json")];
        let answer = site.call(Method::POST, "/geo/v1/status", &headers, Body::from(body)).await;
        assert_eq!(answer.code(), "CREDENTIAL_MISSING", "{body}");
    }
}

#[tokio::test]
async fn r28_a_join_token_is_good_for_one_join_over_http() {
    let site = Site::new().await;
    let (request, _) = site.join_request("tokyo").await;
    let request = serde_json::to_value(request).unwrap();
    assert_eq!(site.post("/geo/v1/join", "", &request).await.status, StatusCode::OK);
    let again = site.post("/geo/v1/join", "", &request).await;
    assert_eq!((again.status, again.code().as_str()), (StatusCode::CONFLICT, "TOKEN_USED"));
    assert!(!String::from_utf8_lossy(&again.body).contains(request["secret"].as_str().unwrap()));
}

#[tokio::test]
async fn r28_a_removed_site_is_refused_at_once_and_its_stream_ends() {
    let site = Site::new().await;
    let tokyo = site.joined("tokyo").await;
    let head = Head::from(site.state.metadata.log_head().await.unwrap());
    let path = format!(
        "/geo/v1/log?number={}&owner={}&seq={}&hash={}",
        head.number,
        head.owner,
        head.seq,
        hexadecimal(&head.hash)
    );
    let request = Request::get(&path).header(AUTHORIZATION, &tokyo.credential).body(Body::empty()).unwrap();
    let response = site.send(request).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[CONTENT_TYPE], LOG_STREAM);
    let mut stream = response.into_body();
    let mut decoder = FrameDecoder::new();

    // A report is answered on the stream, and events come as they are committed.
    let nonce = Nonce::random();
    let report = StatusReport {
        nonce,
        incarnation: tokyo.incarnation,
        ingested: site.state.metadata.log_head().await.unwrap().position,
        applied_seq: head.seq,
        lag_events: None,
        lag_us: None,
        repositories: Default::default(),
        items: Default::default(),
        token_keys: Vec::new(),
    };
    let answer =
        site.post("/geo/v1/status", &tokyo.credential, &serde_json::to_value(&report).unwrap()).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    site.blob("a").await;
    let (mut echoed, mut seen) = (false, head.seq);
    while !echoed || seen < head.seq + 2 {
        match decoder.next_frame().unwrap() {
            Some(Frame::Heartbeat(heartbeat)) => echoed |= heartbeat.nonce == Some(nonce),
            Some(Frame::Event(event)) => seen = event.position.seq,
            None => decoder.push(&next(&mut stream).await.unwrap()),
        }
    }

    site.state.registrar.remove("tokyo", &Actor::anonymous()).await.unwrap().unwrap();
    let mut ended = false;
    for _ in 0..12 {
        ended |= next(&mut stream).await.is_none();
        if ended {
            break;
        }
    }
    assert!(ended, "the stream goes on");
    for path in ["/geo/v1/repositories", &path] {
        let answer = site.get(path, &tokyo).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::FORBIDDEN, "SITE_REMOVED"));
    }
}

#[tokio::test]
async fn a13_access_records_are_given_to_sites_alone_page_by_page_and_by_name() {
    let site = Site::new().await;
    let tokyo = site.joined("tokyo").await;
    let metadata = &site.state.metadata;
    for name in ["alice", "bob"] {
        let account = json!({ "name": name, "kind": "user", "created_at_us": 1 });
        let new = NewAccount {
            account: serde_json::from_value(account).unwrap(),
            password: Some(RecordSecret::new("hash")),
            roles: vec![format!("user:{name} reader **").parse().unwrap()],
            token: None,
        };
        metadata.create_account(new, &Actor::anonymous()).await.unwrap();
    }
    metadata.delete_account(&"bob".parse().unwrap(), AccountKind::User, &Actor::anonymous()).await.unwrap();

    let (mut records, mut after) = (Vec::new(), String::new());
    loop {
        let answer = site.get(&format!("/geo/v1/access?limit=1{after}"), &tokyo).await;
        assert_eq!(answer.headers["cache-control"], "no-store");
        let page = answer.json();
        records.extend(page["records"].as_array().unwrap().iter().cloned());
        if page["complete"] == true {
            assert!(page.get("next").is_none());
            break;
        }
        let next = page["next"].as_str().unwrap();
        after = format!("&after={}", next.replace(' ', "%20").replace('*', "%2A"));
    }
    let named: Vec<_> = records.iter().map(|row| (row["kind"].clone(), row["name"].clone())).collect();
    assert_eq!(
        named,
        [
            ("account", "alice"),
            ("account", "bob"),
            ("binding", "user:alice reader **"),
            ("binding", "user:bob reader **")
        ]
        .map(|(kind, name)| (json!(kind), json!(name)))
    );
    assert_eq!(records[0]["secret"], json!("aGFzaA"));
    assert!(records[0]["body"].is_string() && records[0]["position_seq"].is_i64());
    assert!(
        records[1].get("body").is_none() && records[1].get("secret").is_none(),
        "a tombstone says nothing else"
    );

    let wanted = json!({ "records": [{ "kind": "account", "name": "alice" }, { "kind": "account", "name": "carol" }] });
    let answer = site.post("/geo/v1/access", &tokyo.credential, &wanted).await;
    assert_eq!(answer.json(), json!({ "records": [records[0]], "complete": true }));

    let refused = [
        site.call(Method::GET, "/geo/v1/access", &[], Body::empty()).await,
        site.post("/geo/v1/access", "Basic YWxpY2U6aGFzaA==", &wanted).await,
        site.get("/geo/v1/access?after=nonsense", &tokyo).await,
    ];
    let codes: Vec<_> = refused.iter().map(Answer::code).collect();
    assert_eq!(codes, ["CREDENTIAL_MISSING", "CREDENTIAL_INVALID", "BAD_REQUEST"]);
    let many = vec![json!({ "kind": "account", "name": "x" }); 101];
    let answer = site.post("/geo/v1/access", &tokyo.credential, &json!({ "records": many })).await;
    assert_eq!(answer.code(), "BAD_REQUEST");
    site.state.registrar.remove("tokyo", &Actor::anonymous()).await.unwrap();
    assert_eq!(site.get("/geo/v1/access", &tokyo).await.code(), "SITE_REMOVED");
}

#[tokio::test]
async fn r3_only_the_last_page_of_a_listing_says_complete() {
    let site = Site::new().await;
    let tokyo = site.joined("tokyo").await;
    for n in 0..5 {
        site.blob(format!("blob {n}")).await;
    }
    site.manifest(br#"{"a":1}"#, "one").await;
    site.manifest(br#"{"a":2}"#, "two").await;
    let uuid = site.repository().await.uuid;

    let whole = site.get(&format!("/geo/v1/repositories/{uuid}/listing"), &tokyo).await.json();
    assert_eq!(whole["complete"], true);
    assert_eq!(whole["entries"].as_array().unwrap().len(), 9);
    for limit in 1..=10 {
        let (mut entries, mut after) = (Vec::new(), String::new());
        loop {
            let page = site
                .get(&format!("/geo/v1/repositories/{uuid}/listing?limit={limit}{after}"), &tokyo)
                .await
                .json();
            entries.extend(page["entries"].as_array().unwrap().iter().cloned());
            if page["complete"] == true {
                assert!(page.get("next").is_none());
                break;
            }
            after = format!("&after={}", page["next"].as_str().unwrap());
        }
        assert_eq!(Value::Array(entries), whole["entries"], "pages of {limit}");
    }
    let kinds: Vec<_> =
        whole["entries"].as_array().unwrap().iter().map(|entry| entry["kind"].clone()).collect();
    assert!(kinds.is_sorted_by_key(|kind| ["blob_link", "manifest", "tag"].iter().position(|k| kind == k)));
    assert!(whole["entries"].as_array().unwrap().iter().all(|entry| entry["position_seq"].is_i64()));

    let page = site.get("/geo/v1/repositories?limit=1", &tokyo).await.json();
    assert_eq!(
        page,
        json!({
            "repositories": [{ "uuid": uuid, "path": "library/alpine", "position_seq": 2 }], "complete": true
        })
    );
    let page = site.get("/geo/v1/repositories?after=library/alpine", &tokyo).await.json();
    assert_eq!(page, json!({ "repositories": [], "complete": true }));
}

#[tokio::test]
async fn a_checksum_and_manifests_are_served_by_repository_uuid() {
    let site = Site::new().await;
    let tokyo = site.joined("tokyo").await;
    let body = br#"{ "schemaVersion": 2,  "odd": "spacing" }"#;
    let digest = site.manifest(body, "one").await;
    let uuid = site.repository().await.uuid;
    let answer = site.get(&format!("/geo/v1/repositories/{uuid}/manifests/{digest}"), &tokyo).await;
    assert_eq!(answer.body.as_ref(), body);
    assert_eq!(answer.headers[CONTENT_TYPE], "application/vnd.oci.image.manifest.v1+json");

    let sum = site.get(&format!("/geo/v1/repositories/{uuid}/checksum"), &tokyo).await.json();
    assert_eq!((&sum["manifests"], &sum["tags"], &sum["in_motion"]), (&json!(1), &json!(1), &json!(false)));
    assert_eq!(sum["through_seq"], site.state.metadata.log_head().await.unwrap().position.seq);
    assert_eq!(sum["checksum"].as_str().unwrap().len(), 64);

    let absent = Uuid::new_v4();
    for call in ["listing", "checksum"] {
        let answer = site.get(&format!("/geo/v1/repositories/{absent}/{call}"), &tokyo).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::NOT_FOUND, "REPOSITORY_UNKNOWN"));
    }
    let other = Digest::sha256(b"other");
    for uuid in [uuid.0, absent] {
        let answer = site.get(&format!("/geo/v1/repositories/{uuid}/manifests/{other}"), &tokyo).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"));
    }
}

#[tokio::test]
async fn a1_garbage_in_a_call_is_refused_as_the_protocol_refuses() {
    let site = Site::new().await;
    let tokyo = site.joined("tokyo").await;
    let uuid = Uuid::new_v4();
    let long = "9".repeat(4_000);
    for path in [
        "/geo/v1/log".to_owned(),
        "/geo/v1/log?number=x&owner=y&seq=z&hash=w".to_owned(),
        format!("/geo/v1/log?number=1&owner={uuid}&seq=1&hash=00"),
        "/geo/v1/repositories?limit=-1".to_owned(),
        format!("/geo/v1/repositories?limit={long}"),
        "/geo/v1/repositories?after=%00".to_owned(),
        format!("/geo/v1/repositories/{uuid}/listing?after=%00"),
        format!("/geo/v1/repositories/{uuid}/listing?after=t.%00"),
        format!("/geo/v1/repositories/{uuid}/listing?after=b.zz"),
        "/geo/v1/repositories/..%2f..%2fetc/listing".to_owned(),
        "/geo/v1/repositories/%00/checksum".to_owned(),
        format!("/geo/v1/repositories/{uuid}/manifests/latest"),
        "/geo/v1/blobs/sha256:..%2f..%2f..%2fmetadata.db".to_owned(),
        "/geo/v1/blobs/md5:00".to_owned(),
    ] {
        let answer = site.get(&path, &tokyo).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (StatusCode::BAD_REQUEST, "BAD_REQUEST"),
            "{path}"
        );
    }
    let answer = site.get("/geo/v1/unheard/of", &tokyo).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::NOT_FOUND, "CALL_UNKNOWN"));

    let huge = format!("{{\"site\":\"{}\"}}", "a".repeat(1 << 20));
    let deep = "[".repeat(20_000);
    for body in ["", "{}", "nonsense", &huge, &deep] {
        for path in ["/geo/v1/join", "/geo/v1/status"] {
            let headers = [(AUTHORIZATION, tokyo.credential.as_str()), (CONTENT_TYPE, "application/json")];
            let answer = site.call(Method::POST, path, &headers, Body::from(body.to_owned())).await;
            assert_eq!((answer.status, answer.code().as_str()), (StatusCode::BAD_REQUEST, "BAD_REQUEST"));
        }
    }
}

#[tokio::test]
async fn r12_a_transfer_that_broke_goes_on_where_it_stopped() {
    let site = Site::new().await;
    let tokyo = site.joined("tokyo").await;
    let content: Vec<u8> = (0..300_000_u32).map(|n| (n / 7) as u8).collect();
    let digest = site.blob(content.clone()).await;
    let path = format!("/geo/v1/blobs/{digest}");

    let whole = site.get(&path, &tokyo).await;
    assert_eq!((whole.status, whole.body.as_ref()), (StatusCode::OK, content.as_slice()));
    assert_eq!(whole.headers[CONTENT_LENGTH], "300000");
    for (range, expected) in [
        ("bytes=0-", 0..300_000),
        ("bytes=299999-", 299_999..300_000),
        ("bytes=5-9", 5..10),
        ("bytes=-3", 299_997..300_000),
    ] {
        let headers = [(AUTHORIZATION, tokyo.credential.as_str()), (RANGE, range)];
        let answer = site.call(Method::GET, &path, &headers, Body::empty()).await;
        assert_eq!(
            (answer.status, answer.body.as_ref()),
            (StatusCode::PARTIAL_CONTENT, &content[expected.clone()])
        );
        let stated = format!("bytes {}-{}/300000", expected.start, expected.end - 1);
        assert_eq!(answer.headers[CONTENT_RANGE], stated.as_str());
    }
    let headers = [(AUTHORIZATION, tokyo.credential.as_str()), (RANGE, "bytes=300000-")];
    let answer = site.call(Method::GET, &path, &headers, Body::empty()).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID"));
    assert_eq!(answer.headers[CONTENT_RANGE], "bytes */300000");

    let answer = site.get(&format!("/geo/v1/blobs/{}", Digest::sha256(b"absent")), &tokyo).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"));
}

#[tokio::test]
async fn s6_a_blob_cut_short_on_the_disk_is_not_sent_as_whole() {
    let site = Site::new().await;
    let tokyo = site.joined("tokyo").await;
    let digest = site.blob(vec![7; 200_000]).await;
    let hex = digest.hex();
    let file = site
        .directory
        .path()
        .join("blobs/docker/registry/v2/blobs/sha256")
        .join(&hex[..2])
        .join(&hex)
        .join("data");
    std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(100_000).unwrap();
    let answer = site.get(&format!("/geo/v1/blobs/{digest}"), &tokyo).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"));
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(!text.contains(site.directory.path().to_str().unwrap()), "{text}");
}

#[tokio::test]
async fn s8_memory_does_not_grow_with_the_blob() {
    const SIZE: usize = 96 << 20;
    let site = Site::new().await;
    let tokyo = site.joined("tokyo").await;
    let digest = site.blob(vec![7; SIZE]).await;
    let path = format!("/geo/v1/blobs/{digest}");
    let before = anonymous_kib();
    let mut most = before;
    let mut bodies = Vec::new();
    for _ in 0..4 {
        let request =
            Request::get(&path).header(AUTHORIZATION, &tokyo.credential).body(Body::empty()).unwrap();
        bodies.push((site.send(request).await.into_body(), 0));
    }
    // Four readers side by side, each at its own pace.
    while !bodies.is_empty() {
        for (body, received) in &mut bodies {
            match next(body).await {
                Some(chunk) => *received += chunk.len(),
                None => {
                    assert_eq!(*received, SIZE);
                    *received = usize::MAX;
                }
            }
        }
        bodies.retain(|(_, received)| *received != usize::MAX);
        most = most.max(anonymous_kib());
    }
    let grown = most.saturating_sub(before);
    assert!(grown < 32 << 10, "memory grew by {grown} KiB while {} MiB were sent", 4 * (SIZE >> 20));
}

/// Memory of this process that is not a file's, in KiB.
fn anonymous_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn next(body: &mut Body) -> Option<Bytes> {
    let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("the body is silent")?;
    Some(frame.unwrap().into_data().unwrap())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
