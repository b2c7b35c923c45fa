//! A site's metadata for one test, on either database, and short ways to fill it.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use bytes::Bytes;
use twinport_access::TagGuard;
use twinport_metadata::{
    Actor, Clock, CommitBlob, Database, EventKind, LoggedEvent, Metadata, OpenOptions, PostgresOptions,
    PutManifest,
};
use twinport_oci::{Digest, Reference, RepositoryName, Tag};

/// Runs every named function twice: `sqlite::name` and `postgresql::name`, each on a database of its own.
#[macro_export]
macro_rules! on_both_databases {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name($crate::site::TestSite::on_sqlite().await).await;
            })*
        }
        mod postgresql {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                if let Some(site) = $crate::site::TestSite::on_postgresql(stringify!($name)).await {
                    super::$name(site).await;
                }
            })*
        }
    };
}

/// One site with an empty database; the database goes with it.
pub(crate) struct TestSite {
    pub(crate) metadata: Metadata,
    clock: Arc<AtomicI64>,
    storage: Storage,
}

enum Storage {
    Sqlite(tempfile::TempDir),
    Postgres(String),
}

/// A transaction that a test keeps open.
pub(crate) struct OpenTransaction(tokio_postgres::Client);

impl OpenTransaction {
    pub(crate) async fn commit(self) {
        self.0.batch_execute("COMMIT").await.unwrap();
    }
}

pub(crate) const NOON_US: i64 = 1_800_000_000_000_000;

impl TestSite {
    pub(crate) async fn on_sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metadata.db");
        Self::open(Database::Sqlite { path }, Storage::Sqlite(directory)).await
    }

    /// `None`, and a line that says so, where there is no PostgreSQL.
    pub(crate) async fn on_postgresql(test: &str) -> Option<Self> {
        let Some(url) = twinport_testkit::postgres_database().await.unwrap() else {
            eprintln!(
                "skip {test} on PostgreSQL: it is not installed, and TWINPORT_TEST_POSTGRES is not set"
            );
            return None;
        };
        let options = PostgresOptions::parse(&url).unwrap();
        Some(Self::open(Database::Postgres(options), Storage::Postgres(url)).await)
    }

    async fn open(database: Database, storage: Storage) -> Self {
        let clock = Arc::new(AtomicI64::new(NOON_US));
        let options = OpenOptions { database, clock: Clock::Manual(Arc::clone(&clock)) };
        let metadata = Metadata::open(options).await.unwrap();
        Self { metadata, clock, storage }
    }

    /// A second node of a site on PostgreSQL.
    pub(crate) async fn another_node(&self) -> Metadata {
        let Storage::Postgres(url) = &self.storage else { panic!("SQLite has one node") };
        let database = Database::Postgres(PostgresOptions::parse(url).unwrap());
        Metadata::open(OpenOptions { database, clock: Clock::Manual(Arc::clone(&self.clock)) }).await.unwrap()
    }

    /// Begins a transaction on PostgreSQL with one statement, and leaves it open.
    pub(crate) async fn hold(&self, sql: &str) -> OpenTransaction {
        let Storage::Postgres(url) = &self.storage else { panic!("SQLite has one writer") };
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute(&format!("BEGIN; {sql}")).await.unwrap();
        OpenTransaction(client)
    }

    /// Waits until a transaction waits for another's row.
    pub(crate) async fn wait_for_waiters(&self) {
        const WAITING: &str = "SELECT COUNT(*) FROM pg_locks WHERE NOT granted";
        for _ in 0..600 {
            if self.count(WAITING).await > 0 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("nobody waits");
    }

    pub(crate) fn advance_clock(&self, by_us: i64) {
        self.clock.fetch_add(by_us, Ordering::SeqCst);
    }

    /// The number that a statement answers with, asked past the façade.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        match &self.storage {
            Storage::Sqlite(directory) => {
                let database = rusqlite::Connection::open(directory.path().join("metadata.db")).unwrap();
                database.query_row(sql, [], |row| row.get(0)).unwrap()
            }
            Storage::Postgres(url) => {
                let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
                let connection = tokio::spawn(connection);
                let count = client.query_one(sql, &[]).await.unwrap().get(0);
                drop(client);
                connection.await.unwrap().unwrap();
                count
            }
        }
    }

    /// Makes every INSERT into a table fail from here on, as a crash in the middle of a transaction would.
    pub(crate) async fn refuse_inserts_into(&self, table: &str) {
        self.execute(&match self.storage {
            Storage::Sqlite(_) => format!(
                "CREATE TRIGGER refused BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'refused'); END"
            ),
            Storage::Postgres(_) => format!(
                "CREATE FUNCTION refused() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN RAISE 'refused'; END $$; \
                 CREATE TRIGGER refused BEFORE INSERT ON {table} EXECUTE FUNCTION refused()"
            ),
        })
        .await;
    }

    pub(crate) async fn take_inserts_into(&self, table: &str) {
        self.execute(&match self.storage {
            Storage::Sqlite(_) => "DROP TRIGGER refused".to_owned(),
            Storage::Postgres(_) => format!("DROP TRIGGER refused ON {table}; DROP FUNCTION refused()"),
        })
        .await;
    }

    async fn execute(&self, sql: &str) {
        match &self.storage {
            Storage::Sqlite(directory) => {
                let database = rusqlite::Connection::open(directory.path().join("metadata.db")).unwrap();
                database.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
                database.execute_batch(sql).unwrap();
            }
            Storage::Postgres(url) => {
                let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
                let connection = tokio::spawn(connection);
                client.batch_execute(sql).await.unwrap();
                drop(client);
                connection.await.unwrap().unwrap();
            }
        }
    }

    /// Closes the site; how many of its transactions had to be broken because they waited for each other.
    pub(crate) async fn deadlocks(&self) -> i64 {
        self.metadata.close().await;
        if matches!(self.storage, Storage::Sqlite(_)) {
            return 0;
        }
        // A session reports its deadlocks at the latest when it ends.
        let others = "SELECT COUNT(*) FROM pg_stat_activity \
                      WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
        for _ in 0..200 {
            if self.count(others).await == 0 {
                return self
                    .count("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
                    .await;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("the site's sessions did not end");
    }

    /// The whole log, every acknowledged write in it.
    pub(crate) async fn log(&self) -> Vec<LoggedEvent> {
        self.metadata.sequence_now().await.unwrap();
        self.metadata.events_after(0, u32::MAX).await.unwrap()
    }

    /// The kinds of the events after the first `skipped`.
    pub(crate) async fn kinds_after(&self, skipped: usize) -> Vec<EventKind> {
        self.log().await.iter().skip(skipped).map(|logged| logged.event().unwrap().kind).collect()
    }

    /// Links a blob with this content.
    pub(crate) async fn push_blob(&self, repository: &str, content: &str) -> Digest {
        let commit = blob(repository, content);
        let digest = commit.digest;
        self.metadata.commit_blob(commit).await.unwrap();
        digest
    }

    /// Pushes a manifest under one tag, with one blob of its own.
    pub(crate) async fn push_image(&self, repository: &str, content: &str, tagged: &str) -> Digest {
        let layer = self.push_blob(repository, &format!("layer of {content}")).await;
        let put =
            PutManifest { blobs: vec![layer], tags: vec![tag(tagged)], ..manifest(repository, content) };
        let digest = put.digest;
        self.metadata.put_manifest(put).await.unwrap();
        digest
    }

    /// What a tag names.
    pub(crate) async fn resolve(&self, repository: &str, tagged: &str) -> Option<Digest> {
        let head =
            self.metadata.manifest_head(&name(repository), &Reference::Tag(tag(tagged))).await.unwrap();
        head.map(|head| head.digest)
    }

    pub(crate) async fn has_manifest(&self, repository: &str, digest: Digest) -> bool {
        let reference = Reference::Digest(digest);
        self.metadata.manifest(&name(repository), &reference).await.unwrap().is_some()
    }

    pub(crate) async fn has_blob(&self, repository: &str, digest: &Digest) -> bool {
        self.metadata.blob(&name(repository), digest).await.unwrap().is_some()
    }

    pub(crate) async fn tag_names(&self, repository: &str) -> Vec<String> {
        let tags = self.metadata.tags(&name(repository), None, 1000).await.unwrap().unwrap_or_default();
        tags.iter().map(ToString::to_string).collect()
    }
}

pub(crate) fn name(text: &str) -> RepositoryName {
    RepositoryName::parse(text).unwrap()
}

pub(crate) fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

pub(crate) fn actor() -> Actor {
    Actor::anonymous()
}

pub(crate) fn blob(repository: &str, content: &str) -> CommitBlob {
    CommitBlob {
        repository: name(repository),
        digest: Digest::sha256(content.as_bytes()),
        size: content.len() as u64,
        upload: None,
        actor: actor(),
    }
}

/// A manifest without blobs and tags; its digest is that of `content`.
pub(crate) fn manifest(repository: &str, content: &str) -> PutManifest {
    PutManifest {
        repository: name(repository),
        digest: Digest::sha256(content.as_bytes()),
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        artifact_type: None,
        subject: None,
        annotations: "{}".to_owned(),
        body: Bytes::copy_from_slice(content.as_bytes()),
        blobs: vec![],
        manifests: vec![],
        tags: vec![],
        guard: TagGuard::default(),
        actor: actor(),
    }
}
