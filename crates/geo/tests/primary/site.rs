//! A primary with a clock that tests step, and sites that join it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::signature::Ed25519KeyPair;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tempfile::TempDir;
use twinport_geo::{
    AddSite, CredentialVerifier, Error, Feed, JoinToken, Peer, RefusalCode, Registrar, Result, SiteKey,
    protocol::{Frame, FrameDecoder, Head, JoinRequest, JoinResponse, Nonce, StatusReport, Versions},
};
use twinport_metadata::{
    Actor, Clock, CommitBlob, Database, Incarnation, LogHead, Metadata, OpenOptions, PostgresOptions,
};
use twinport_oci::Digest;

const START_US: i64 = 1_760_000_000_000_000;
pub(crate) const SECOND_US: i64 = 1_000_000;
/// How long a test waits for what must come; nothing is expected to take it.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct TestSite {
    pub(crate) metadata: Metadata,
    pub(crate) feed: Feed,
    pub(crate) registrar: Registrar,
    pub(crate) verifier: CredentialVerifier,
    clock: Arc<AtomicI64>,
    _directory: TempDir,
}

/// A site that has joined, or that tries to.
pub(crate) struct Applicant {
    pub(crate) name: String,
    pub(crate) incarnation: Incarnation,
    pub(crate) key: SiteKey,
}

impl Applicant {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), incarnation: Incarnation::random(), key: fresh_key() }
    }
}

pub(crate) fn fresh_key() -> SiteKey {
    let document = Ed25519KeyPair::generate().unwrap().to_pkcs8().unwrap();
    SiteKey::from_bytes(document.as_ref()).unwrap()
}

impl TestSite {
    pub(crate) async fn on_sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metadata.db");
        Self::open(Database::Sqlite { path }, directory).await
    }

    pub(crate) async fn on_postgresql() -> Option<Self> {
        let url = twinport_testkit::postgres_database().await.unwrap()?;
        let database = Database::Postgres(PostgresOptions::parse(&url).unwrap());
        Some(Self::open(database, tempfile::tempdir().unwrap()).await)
    }

    async fn open(database: Database, directory: TempDir) -> Self {
        let clock = Arc::new(AtomicI64::new(START_US));
        let options = OpenOptions { database, clock: Clock::Manual(Arc::clone(&clock)) };
        let metadata = Metadata::open(options).await.unwrap();
        metadata.name_site("paris").await.unwrap();
        let feed = Feed::new(metadata.clone());
        Self {
            registrar: Registrar::new(metadata.clone(), feed.clone()),
            verifier: CredentialVerifier::new(metadata.clone()),
            metadata,
            feed,
            clock,
            _directory: directory,
        }
    }

    pub(crate) fn now_us(&self) -> i64 {
        self.clock.load(Ordering::SeqCst)
    }

    pub(crate) fn step_clock(&self, by_us: i64) {
        self.clock.fetch_add(by_us, Ordering::SeqCst);
    }

    pub(crate) async fn token(&self, name: &str) -> JoinToken {
        let add = AddSite {
            name: name.to_owned(),
            own_name: None,
            primary_url: "http://127.0.0.1:5000".to_owned(),
            tls_pin: None,
            lifetime: None,
        };
        self.registrar.add(add).await.unwrap()
    }

    /// A join request as an honest site makes it.
    pub(crate) fn request(&self, token: &JoinToken, applicant: &Applicant) -> JoinRequest {
        let mut request = JoinRequest {
            token_id: token.id,
            secret: token.secret.clone(),
            site: token.site.clone(),
            incarnation: applicant.incarnation,
            public_key: applicant.key.public_key().to_vec(),
            external_url: None,
            internal_url: None,
            versions: Versions::OURS,
            clock_us: self.now_us(),
            token_keys: Vec::new(),
            proof: Vec::new(),
        };
        request.proof = applicant.key.sign(&request.proof_message());
        request
    }

    pub(crate) async fn join(&self, applicant: &Applicant) -> Result<JoinResponse> {
        let token = self.token(&applicant.name).await;
        self.registrar.join(self.request(&token, applicant)).await
    }

    /// A site called `name` that has joined.
    pub(crate) async fn joined(&self, name: &str) -> Applicant {
        let applicant = Applicant::new(name);
        self.join(&applicant).await.unwrap();
        applicant
    }

    pub(crate) async fn credential(&self, site: &Applicant) -> String {
        let federation = self.metadata.site().await.unwrap().federation;
        let token = site.key.credential(site.incarnation, federation, self.now_us()).unwrap();
        format!("Bearer {token}")
    }

    pub(crate) async fn peer(&self, site: &Applicant) -> Peer {
        let credential = self.credential(site).await;
        self.verifier.verify(Some(&credential), twinport_geo::SCOPE_PULL).await.unwrap()
    }

    /// A write, acknowledged; two events the first time, one after that.
    pub(crate) async fn write(&self, what: &str) -> twinport_metadata::Result<()> {
        self.metadata
            .commit_blob(CommitBlob {
                repository: "library/alpine".parse().unwrap(),
                digest: Digest::sha256(what.as_bytes()),
                size: 1,
                upload: None,
                actor: Actor::anonymous(),
            })
            .await
    }

    pub(crate) async fn head(&self) -> LogHead {
        self.metadata.sequence_now().await.unwrap()
    }

    /// The cursor of a reader that has everything up to `seq`.
    pub(crate) async fn cursor_at(&self, seq: i64) -> Head {
        // Numbered by now, on PostgreSQL too.
        self.head().await;
        let event = self.metadata.event_at(seq).await.unwrap().unwrap();
        LogHead { position: event.position, hash: event.hash }.into()
    }

    pub(crate) async fn report(&self, site: &Applicant, nonce: Nonce) -> Result<()> {
        let head = self.head().await;
        let report = StatusReport {
            nonce,
            incarnation: site.incarnation,
            ingested: head.position,
            applied_seq: head.position.seq,
            lag_events: Some(0),
            lag_us: Some(0),
            repositories: Default::default(),
            items: Default::default(),
            token_keys: Vec::new(),
        };
        self.feed.report(&self.peer(site).await, &report).await
    }
}

/// The code of a refusal; anything else fails the test.
pub(crate) fn refused<T>(result: Result<T>) -> RefusalCode {
    match result {
        Ok(_) => panic!("it was not refused"),
        Err(Error::Refused(refusal)) => refusal.code,
        Err(error) => panic!("it failed otherwise: {error}"),
    }
}

/// The frames of a log stream, one by one.
pub(crate) struct Reader<S> {
    stream: S,
    decoder: FrameDecoder,
}

impl<S: Stream<Item = Result<Bytes>> + Unpin> Reader<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, decoder: FrameDecoder::new() }
    }

    /// The next frame; none when the stream ended.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            let chunk =
                tokio::time::timeout(PATIENCE, self.stream.next()).await.expect("the stream is silent")?;
            self.decoder.push(&chunk.unwrap());
        }
    }

    /// Reads to the end, which a stream without one never reaches: heartbeats would go on.
    pub(crate) async fn ends(&mut self) {
        for _ in 0..12 {
            if self.next().await.is_none() {
                return;
            }
        }
        panic!("the stream goes on");
    }
}
