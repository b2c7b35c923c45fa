//! A primary and a secondary in one process, joined, the engine started and stopped at will.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use twinport_blobs::{Blobs, Verdict};
use twinport_geo::{
    AddSite, Feed, JoinOptions, Registrar, Secondary, SecondaryHandle, SecondaryOptions, Tuning, accept,
    join_request,
};
use twinport_metadata::{
    Clock, Database, ListedRow, ListingCursor, Metadata, OpenOptions, PostgresOptions, TrackedItem,
};
use twinport_oci::{Digest, RepositoryName};

use crate::transport::{Faults, InProcess};

const START_US: i64 = 1_760_000_000_000_000;
pub(crate) const SECOND_US: i64 = 1_000_000;
/// How long a test waits for what must come; nothing is expected to take it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One site.
pub(crate) struct Site {
    pub(crate) metadata: Metadata,
    pub(crate) blobs: Blobs,
    pub(crate) directory: TempDir,
    clock: Option<Arc<AtomicI64>>,
}

impl Site {
    async fn open(database: Option<String>, manual_clock: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = match database {
            Some(url) => Database::Postgres(PostgresOptions::parse(&url).unwrap()),
            None => Database::Sqlite { path: directory.path().join("metadata.db") },
        };
        let steps = manual_clock.then(|| Arc::new(AtomicI64::new(START_US)));
        let clock = steps.clone().map_or(Clock::System, Clock::Manual);
        let metadata = Metadata::open(OpenOptions { database, clock }).await.unwrap();
        let blobs = Blobs::open_local(directory.path().join("blobs")).await.unwrap();
        blobs.set_incarnation(metadata.site().await.unwrap().incarnation.0).await.unwrap();
        Self { metadata, blobs, directory, clock: steps }
    }

    pub(crate) fn step_clock(&self, by_us: i64) {
        self.clock.as_ref().expect("a manual clock").fetch_add(by_us, Ordering::SeqCst);
    }
}

/// Two sites.
pub(crate) struct Pair {
    pub(crate) primary: Site,
    pub(crate) secondary: Site,
    pub(crate) faults: Arc<Faults>,
    pub(crate) feed: Feed,
    pub(crate) registrar: Registrar,
    pub(crate) tuning: Tuning,
    engine: Option<SecondaryHandle>,
}

impl Pair {
    pub(crate) async fn on_sqlite() -> Self {
        Self::open(None, None, false).await
    }

    pub(crate) async fn with_manual_clocks() -> Self {
        Self::open(None, None, true).await
    }

    pub(crate) async fn on_postgresql() -> Option<Self> {
        let primary = twinport_testkit::postgres_database().await.unwrap()?;
        let secondary = twinport_testkit::postgres_database().await.unwrap()?;
        Some(Self::open(Some(primary), Some(secondary), false).await)
    }

    async fn open(primary: Option<String>, secondary: Option<String>, manual_clocks: bool) -> Self {
        let primary = Site::open(primary, manual_clocks).await;
        let secondary = Site::open(secondary, manual_clocks).await;
        primary.metadata.name_site("paris").await.unwrap();
        let feed = Feed::new(primary.metadata.clone());
        let registrar = Registrar::new(primary.metadata.clone(), feed.clone());
        let tuning = Tuning {
            report_every: Duration::from_millis(50),
            quiet: Duration::from_millis(100),
            retry_first: Duration::from_millis(20),
            retry_most: Duration::from_millis(400),
            reconnect_most: Duration::from_millis(200),
            lease: Duration::from_millis(900),
            ..Tuning::default()
        };
        Self { primary, secondary, faults: Arc::default(), feed, registrar, tuning, engine: None }
    }

    /// Makes the secondary one.
    pub(crate) async fn join(&self) {
        let add = AddSite {
            name: "tokyo".to_owned(),
            own_name: None,
            primary_url: "http://127.0.0.1:5000".to_owned(),
            tls_pin: None,
            lifetime: None,
        };
        let token = self.registrar.add(add).await.unwrap();
        let options = JoinOptions::default();
        let site = self.secondary.metadata.site().await.unwrap();
        let now_us = self.secondary.metadata.clock().now_us();
        let request = join_request(&site, &token, &options, now_us).unwrap();
        let response = self.registrar.join(request).await.unwrap();
        accept(&self.secondary.metadata, &token, &options, response).await.unwrap();
    }

    /// Starts the engine, as a process start does.
    pub(crate) async fn start(&mut self) {
        let incarnation = self.secondary.metadata.site().await.unwrap().incarnation;
        let upstream = InProcess {
            metadata: self.primary.metadata.clone(),
            blobs: self.primary.blobs.clone(),
            feed: self.feed.clone(),
            reader: incarnation,
            faults: Arc::clone(&self.faults),
        };
        self.engine = Some(Secondary::start(SecondaryOptions {
            metadata: self.secondary.metadata.clone(),
            blobs: self.secondary.blobs.clone(),
            upstream,
            tuning: self.tuning.clone(),
        }));
    }

    pub(crate) async fn join_and_start(&mut self) {
        self.join().await;
        self.start().await;
    }

    /// Ends the engine at whatever it is doing: its tasks are dropped where they stand.
    pub(crate) async fn stop(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.stop().await;
        }
    }

    pub(crate) fn engine(&self) -> &SecondaryHandle {
        self.engine.as_ref().expect("the engine runs")
    }

    /// Waits until both sites are equal, and everything on the second one is hashed and on record as verified.
    pub(crate) async fn converged(&self) {
        until("the sites are equal", async || self.difference().await).await;
    }

    async fn difference(&self) -> Option<String> {
        let (primary, secondary) = (&self.primary.metadata, &self.secondary.metadata);
        let theirs = primary.repository_rows("", 10_000).await.unwrap().rows;
        let ours = secondary.repository_rows("", 10_000).await.unwrap().rows;
        let names = |rows: &[twinport_metadata::ListedRepository]| {
            rows.iter().map(|row| (row.path.clone(), row.uuid)).collect::<Vec<_>>()
        };
        if names(&theirs) != names(&ours) {
            return Some(format!("repositories {:?} and {:?}", names(&theirs), names(&ours)));
        }
        for repository in &theirs {
            let one = primary.repository_checksum(repository.uuid).await.unwrap().unwrap();
            let other = secondary.repository_checksum(repository.uuid).await.unwrap().unwrap();
            if one.checksum != other.checksum {
                return Some(format!("{} differs: {one:?} and {other:?}", repository.path));
            }
            if let Some(difference) = self.rows_differ(repository).await {
                return Some(format!("{}: {difference}", repository.path));
            }
        }
        let summary = secondary.tracking_summary().await.unwrap();
        let (repositories, items) = (summary.repositories, summary.items);
        let verified = repositories.verification_succeeded == theirs.len() as u64
            && repositories.synced == theirs.len() as u64
            && items.synced == items.verification_succeeded
            && items.pending + items.failed == 0;
        (!verified).then(|| format!("tracking: {summary:?}"))
    }

    async fn rows_differ(&self, repository: &twinport_metadata::ListedRepository) -> Option<String> {
        let theirs = rows(&self.primary.metadata, repository.uuid).await;
        let ours = rows(&self.secondary.metadata, repository.uuid).await;
        if theirs != ours {
            return Some(format!("rows {theirs:?} and {ours:?}"));
        }
        let name = RepositoryName::parse(&repository.path).unwrap();
        for (kind, key, digest) in ours {
            match kind {
                "blob_link" => {
                    let verdict = self.secondary.blobs.verify(&digest).await.unwrap();
                    if !matches!(verdict, Verdict::Whole { .. }) {
                        return Some(format!("blob {digest} is {verdict:?}"));
                    }
                }
                _ => {
                    let item = self.secondary.metadata.tracked_item(&name, kind, &key).await.unwrap();
                    let fine = item.as_ref().is_some_and(|item| {
                        item.state == "synced"
                            && item.verification == "succeeded"
                            && item.digest == Some(digest)
                    });
                    if !fine {
                        return Some(format!("{kind} {key} is tracked as {item:?}"));
                    }
                }
            }
        }
        None
    }

    /// What is on record at the secondary.
    pub(crate) async fn item(&self, repository: &str, kind: &str, key: impl ToString) -> Option<TrackedItem> {
        let name = RepositoryName::parse(repository).unwrap();
        self.secondary.metadata.tracked_item(&name, kind, &key.to_string()).await.unwrap()
    }

    /// Waits until an item is on record in that state.
    pub(crate) async fn item_is(&self, repository: &str, kind: &str, key: impl ToString, state: &str) {
        let key = key.to_string();
        until(&format!("{kind} {key} is {state}"), async || {
            let item = self.item(repository, kind, &key).await;
            (item.as_ref().is_none_or(|item| item.state != state)).then(|| format!("{item:?}"))
        })
        .await;
    }

    /// What a tag names at the secondary.
    pub(crate) async fn tag(&self, repository: &str, tag: &str) -> Option<Digest> {
        let name = RepositoryName::parse(repository).unwrap();
        let head = self.secondary.metadata.manifest_head(&name, &tag.parse().unwrap()).await.unwrap();
        head.map(|head| head.digest)
    }

    /// Waits until everything that the primary has done is ingested at the secondary.
    pub(crate) async fn ingested(&self) {
        let head = self.primary.metadata.sequence_now().await.unwrap().position.seq;
        until("the log is ingested", async || {
            let seq = self.secondary.metadata.log_head().await.unwrap().position.seq;
            (seq < head).then(|| format!("{seq} of {head}"))
        })
        .await;
    }
}

/// Every row of a repository: kind, key, digest.
pub(crate) async fn rows(
    metadata: &Metadata,
    repository: twinport_metadata::RepositoryUuid,
) -> Vec<(&'static str, String, Digest)> {
    let page =
        metadata.repository_listing(repository, ListingCursor::start(), 100_000).await.unwrap().unwrap();
    page.rows
        .into_iter()
        .map(|row| match row {
            ListedRow::BlobLink { digest, .. } => ("blob_link", digest.to_string(), digest),
            ListedRow::Manifest { digest, .. } => ("manifest", digest.to_string(), digest),
            ListedRow::Tag { name, digest, .. } => ("tag", name, digest),
        })
        .collect()
}

/// Polls until `what` holds: until `unmet` has nothing to say.
pub(crate) async fn until(what: &str, mut unmet: impl AsyncFnMut() -> Option<String>) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let Some(reason) = unmet().await else { return };
        assert!(tokio::time::Instant::now() < deadline, "waited for {what} in vain: {reason}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
