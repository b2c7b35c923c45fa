//! SQLite: one writer thread with group commit, and readers that never queue behind it.
//!
//! **Architecture invariant:** nobody is told of a write before the COMMIT that holds it has been synced; a
//! closure that fails takes no neighbour along, and none escapes its batch.

mod gathered;
#[cfg(test)]
mod tests;
mod wal_file;

use std::{
    collections::VecDeque,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    task::{Context, Poll, Waker},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, config::DbConfig};
use tokio::sync::oneshot;

use super::{
    LogSignals, TxFuture,
    dialect::{Dialect, Texts},
    tx::{Session, Tx, query_sqlite},
    value::{Row, Value},
};
use crate::{Clock, Error, Result};

/// Closures that share one COMMIT at most. Each is bounded in rows, so a batch is bounded in time.
const MAX_BATCH: usize = 512;
/// While several callers write at once, a commit waits for one more of them, since a shared COMMIT costs little more than one's
/// own: by this part of what the last one took, and never longer than that. A caller alone never waits.
const GATHER_PART: u32 = 8;
const GATHER: Duration = Duration::from_micros(500);
/// Read connections kept open; more are opened for a burst and closed after it.
const IDLE_READERS: usize = 4;
/// Prepared statements kept per connection.
const STATEMENTS: usize = 128;

/// The writer's pages in memory: the inner pages of every index that a push adds to.
const WRITER_CACHE_KIB: i64 = 8 << 10;
/// Pages of 4 KiB that the WAL takes before they go to the database: pages that change again and again go there once.
const CHECKPOINT_PAGES: i64 = 4_000;

/// FULL: in WAL mode, NORMAL loses acknowledged commits with the power. OFF, for showing that the durability tests can
/// fail, is another build.
const SYNCHRONOUS: &str = if cfg!(feature = "unsynced") { "OFF" } else { "FULL" };

/// A site's SQLite database.
#[derive(Debug)]
pub(crate) struct SqliteDb {
    path: PathBuf,
    clock: Clock,
    texts: Arc<Texts>,
    signals: Arc<LogSignals>,
    readers: Mutex<Vec<Tx>>,
    /// Grows after each commit that changed the site's own row.
    site_version: Arc<AtomicU64>,
    writer: Mutex<Option<Sender<Box<dyn Job>>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl SqliteDb {
    /// Opens or creates the file and starts its writer thread.
    pub(super) fn open(path: &Path, clock: &Clock, signals: LogSignals) -> Result<Self> {
        let flags = OpenFlags::default();
        let connection =
            Connection::open_with_flags_and_vfs(path, flags, wal_file::name()?).map_err(|error| {
                Error::Refused(format!("cannot open the database {}: {error}", path.display()))
            })?;
        keep_plans(&connection)?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA busy_timeout = 5000; PRAGMA temp_store = MEMORY;",
        )?;
        connection.pragma_update(None, "cache_size", WRITER_CACHE_KIB.saturating_neg())?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        connection.pragma_update(None, "synchronous", SYNCHRONOUS)?;
        if !cfg!(feature = "unsynced") {
            sync_directory(path)?;
        }
        let texts = Arc::new(Texts::new(Dialect::Sqlite));
        let signals = Arc::new(signals);
        let site_version = Arc::new(AtomicU64::new(0));
        let tx = Tx::new(Session::Sqlite(connection), Arc::clone(&texts), clock.clone());
        let (sender, receiver) = channel();
        let thread = std::thread::Builder::new()
            .name("metadata-writer".to_owned())
            .spawn({
                let (signals, site_version) = (Arc::clone(&signals), Arc::clone(&site_version));
                move || Writer { tx, signals, site_version }.run(&receiver)
            })
            .map_err(|error| Error::Refused(format!("cannot start the database writer: {error}")))?;
        Ok(Self {
            path: path.to_owned(),
            clock: clock.clone(),
            texts,
            signals,
            readers: Mutex::default(),
            site_version,
            writer: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
        })
    }

    pub(super) fn signals(&self) -> &LogSignals {
        &self.signals
    }

    /// Moves with every change of the site's own row: what was read of it since this was asked is as good as new while this
    /// stays the same.
    pub(super) fn site_version(&self) -> u64 {
        self.site_version.load(Ordering::Acquire)
    }

    pub(super) fn query(&self, sql: &'static str, params: &[Value]) -> Result<Vec<Row>> {
        let text = self.texts.of(sql);
        self.with_reader(|tx| match &tx.session {
            Session::Sqlite(connection) => query_sqlite(connection, &text, params),
            Session::Postgres(_) => Err(Error::Bug("a PostgreSQL session among SQLite's readers".to_owned())),
        })
    }

    pub(super) fn snapshot<T, F>(&self, mut reads: F) -> Result<T>
    where
        F: for<'t> FnMut(&'t mut Tx) -> TxFuture<'t, T>,
    {
        self.with_reader(|tx| {
            at_once(tx.script("BEGIN"))?;
            let answer = at_once(reads(tx));
            at_once(tx.script("ROLLBACK"))?;
            answer
        })
    }

    fn with_reader<T>(&self, read: impl FnOnce(&mut Tx) -> Result<T>) -> Result<T> {
        let idle = self.readers.lock().pop();
        let mut tx = match idle {
            Some(tx) => tx,
            None => self.open_reader()?,
        };
        let answer = read(&mut tx)?;
        let mut readers = self.readers.lock();
        if readers.len() < IDLE_READERS {
            readers.push(tx);
        }
        Ok(answer)
    }

    fn open_reader(&self) -> Result<Tx> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        keep_plans(&connection)?;
        connection.execute_batch("PRAGMA busy_timeout = 5000; PRAGMA query_only = 1;")?;
        Ok(Tx::new(Session::Sqlite(connection), Arc::clone(&self.texts), self.clock.clone()))
    }

    /// Runs the closure on the writer thread; answers after the COMMIT.
    pub(super) async fn write<T, F>(&self, closure: F, alone: bool) -> Result<T>
    where
        T: Send + 'static,
        F: for<'t> FnMut(&'t mut Tx) -> TxFuture<'t, T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(TypedJob { closure, result: None, reply, alone });
        let sender = self.writer.lock().clone().ok_or_else(closed)?;
        sender.send(job).map_err(|_| closed())?;
        drop(sender);
        answer.await.map_err(|_| closed())?
    }

    /// Ends the writer after the writes it already has, then closes the readers.
    pub(super) async fn close(&self) {
        drop(self.writer.lock().take());
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        self.readers.lock().clear();
    }
}

/// Prepares each text once. Without stable plans SQLite looks into the parameters when it plans, and plans again at
/// every use: half of the time of a hot read.
pub(super) fn keep_plans(connection: &Connection) -> Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

fn closed() -> Error {
    Error::Unavailable("the database is closed".to_owned())
}

/// A file that was just created is durable only once its directory is.
fn sync_directory(path: &Path) -> Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(|error| {
        Error::Refused(format!("cannot sync the directory {}: {error}", directory.display()))
    })
}

/// Runs blocking work off the reactor.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Bug(error.to_string()))?
}

/// Runs a future that has nothing to wait for.
fn at_once<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => Err(Error::Bug("a transaction closure waited on something else".to_owned())),
    }
}

/// A closure in the writer's queue. It may run more than once before it is answered.
trait Job: Send {
    fn run(&mut self, tx: &mut Tx) -> Result<()>;
    fn alone(&self) -> bool;
    /// Hands out the closure's own result, or `commit`'s error where the transaction was lost.
    fn answer(self: Box<Self>, commit: Result<()>);
}

struct TypedJob<T, F> {
    closure: F,
    result: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
    alone: bool,
}

impl<T, F> Job for TypedJob<T, F>
where
    T: Send,
    F: for<'t> FnMut(&'t mut Tx) -> TxFuture<'t, T> + Send,
{
    fn run(&mut self, tx: &mut Tx) -> Result<()> {
        let result = catch_unwind(AssertUnwindSafe(|| at_once((self.closure)(tx))))
            .unwrap_or_else(|_| Err(Error::Bug("a transaction closure panicked".to_owned())));
        let outcome = result.as_ref().map(|_| ()).map_err(Clone::clone);
        self.result = Some(result);
        outcome
    }

    fn alone(&self) -> bool {
        self.alone
    }

    fn answer(self: Box<Self>, commit: Result<()>) {
        let own =
            self.result.unwrap_or_else(|| Err(Error::Bug("a closure was answered before it ran".to_owned())));
        let answer = match (own, commit) {
            (Ok(_), Err(lost)) => Err(lost),
            (own, _) => own,
        };
        // The caller may have gone away; the write stands all the same.
        let _ = self.reply.send(answer);
    }
}

/// Why the closures of a batch do not commit together.
enum Abandoned {
    /// The database ended the transaction.
    Lost(Error),
    /// A closure failed after it had changed something.
    TraceLeft,
}

impl From<Error> for Abandoned {
    fn from(error: Error) -> Self {
        Self::Lost(error)
    }
}

/// The one thread that writes.
struct Writer {
    tx: Tx,
    signals: Arc<LogSignals>,
    site_version: Arc<AtomicU64>,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Box<dyn Job>>) {
        let mut waiting = VecDeque::new();
        let (mut shared, mut took) = (1, Duration::ZERO);
        loop {
            if waiting.is_empty() {
                let Ok(job) = queue.recv() else { break };
                waiting.push_back(job);
            }
            let wanted = if shared > 1 { shared + 1 } else { 1 };
            gather(queue, &mut waiting, wanted, GATHER.min(took / GATHER_PART));
            let batch = next_batch(&mut waiting);
            shared = batch.len();
            let began = Instant::now();
            self.commit(batch);
            took = began.elapsed();
        }
        // Leaves one file behind where it can; a failure costs only time at the next start.
        let _ = at_once(self.tx.script("PRAGMA wal_checkpoint(TRUNCATE)"));
    }

    /// One transaction for all; if it is lost, one for each, so that only the culprit fails.
    fn commit(&mut self, mut batch: Vec<Box<dyn Job>>) {
        let single = batch.len() == 1;
        let outcome = self.attempt(&mut batch);
        // Before anybody hears of it. Of a change that was lost too: that costs a read.
        if std::mem::take(&mut self.tx.changed_site) {
            self.site_version.fetch_add(1, Ordering::Release);
        }
        match outcome {
            Ok(()) => {
                // Readers of the log first: they are other sites, and what they read is committed already.
                if let Some(head) = self.tx.moved_head.take() {
                    self.signals.head.send_replace(Some(head));
                }
                batch.into_iter().for_each(|job| job.answer(Ok(())));
            }
            Err(lost) if single => batch.into_iter().for_each(|job| job.answer(Err(lost.clone()))),
            Err(lost) => {
                tracing::warn!(error = %lost, closures = batch.len(), "group commit lost, running each closure alone");
                batch.into_iter().for_each(|job| self.commit(vec![job]));
            }
        }
    }

    /// Runs the batch in one transaction. `Err` means that nothing of it is stored. A savepoint around every closure
    /// costs a copy of every page it touches, and hardly any closure fails: only after one did, and left something
    /// behind, all run again with savepoints.
    fn attempt(&mut self, batch: &mut [Box<dyn Job>]) -> Result<()> {
        match self.run_all(batch, Self::run_bare) {
            Err(Abandoned::TraceLeft) => self.run_all(batch, Self::run_in_savepoint),
            outcome => outcome,
        }
        .map_err(|abandoned| match abandoned {
            Abandoned::Lost(error) => error,
            Abandoned::TraceLeft => Error::Bug("a savepoint kept what its closure left".to_owned()),
        })
    }

    fn run_all(
        &mut self,
        batch: &mut [Box<dyn Job>],
        run: fn(&mut Self, &mut dyn Job) -> Result<(), Abandoned>,
    ) -> Result<(), Abandoned> {
        self.tx.moved_head = None;
        self.tx.head_unwritten = false;
        self.tx.originator = None;
        self.control("BEGIN IMMEDIATE")?;
        for job in batch.iter_mut() {
            if let Err(abandoned) = run(self, job.as_mut()) {
                self.roll_back();
                return Err(abandoned);
            }
        }
        let committed = self.tx.write_head().and_then(|()| self.control("COMMIT"));
        if committed.is_err() {
            self.roll_back();
        }
        Ok(committed?)
    }

    /// `Ok` when the closure succeeded, or failed before it changed anything.
    fn run_bare(&mut self, job: &mut dyn Job) -> Result<(), Abandoned> {
        let head = self.tx.moved_head;
        let before = self.connection()?.total_changes();
        let outcome = job.run(&mut self.tx);
        self.check_open(&outcome)?;
        if outcome.is_err() {
            self.tx.restore_head(head);
            self.tx.originator = None;
            if self.connection()?.total_changes() != before {
                return Err(Abandoned::TraceLeft);
            }
        }
        Ok(())
    }

    /// `Ok` when the closure succeeded, or failed and left no trace.
    fn run_in_savepoint(&mut self, job: &mut dyn Job) -> Result<(), Abandoned> {
        let head = self.tx.moved_head;
        self.control("SAVEPOINT closure")?;
        let outcome = job.run(&mut self.tx);
        self.check_open(&outcome)?;
        if outcome.is_err() {
            self.tx.restore_head(head);
            self.tx.originator = None;
            self.control("ROLLBACK TO closure")?;
        }
        Ok(self.control("RELEASE closure")?)
    }

    /// SQLITE_FULL and its like roll back everything, savepoints included: what followed would run outside.
    fn check_open(&self, outcome: &Result<()>) -> Result<(), Abandoned> {
        if self.connection()?.is_autocommit() {
            let ended = || Error::Bug("a closure ended the transaction".to_owned());
            return Err(Abandoned::Lost(outcome.as_ref().err().cloned().unwrap_or_else(ended)));
        }
        Ok(())
    }

    fn roll_back(&mut self) {
        self.tx.restore_head(None);
        if self.connection().is_ok_and(|connection| !connection.is_autocommit())
            && let Err(error) = self.control("ROLLBACK")
        {
            tracing::error!(%error, "rollback failed");
        }
    }

    /// Begins and ends what closures run in; parsed once.
    fn control(&self, sql: &'static str) -> Result<()> {
        let run = |connection: &Connection| connection.prepare_cached(sql)?.execute(());
        run(self.connection()?).inspect_err(exit_if_not_synced)?;
        Ok(())
    }

    fn connection(&self) -> Result<&Connection> {
        match &self.tx.session {
            Session::Sqlite(connection) => Ok(connection),
            Session::Postgres(_) => {
                Err(Error::Bug("the SQLite writer holds a PostgreSQL session".to_owned()))
            }
        }
    }
}

/// Takes what is in the queue, and waits up to `patience` where that is less than `wanted`.
fn gather(
    queue: &Receiver<Box<dyn Job>>,
    waiting: &mut VecDeque<Box<dyn Job>>,
    wanted: usize,
    patience: Duration,
) {
    let until = Instant::now() + patience;
    while waiting.len() < MAX_BATCH {
        let next = match queue.try_recv() {
            Err(_) if waiting.len() < wanted => {
                queue.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
            }
            next => next.ok(),
        };
        let Some(job) = next else { break };
        waiting.push_back(job);
    }
}

/// The closures of the next transaction: one that must be alone is.
fn next_batch(waiting: &mut VecDeque<Box<dyn Job>>) -> Vec<Box<dyn Job>> {
    let shared = waiting.iter().take_while(|job| !job.alone()).count();
    waiting.drain(..shared.max(1)).collect()
}

/// After a failed fsync the kernel may have dropped the dirty pages: only a restart reads the truth.
fn exit_if_not_synced(error: &rusqlite::Error) {
    const FSYNC: i32 = rusqlite::ffi::SQLITE_IOERR_FSYNC;
    const DIRECTORY: i32 = rusqlite::ffi::SQLITE_IOERR_DIR_FSYNC;
    if let Some(code) = error.sqlite_error()
        && [FSYNC, DIRECTORY].contains(&code.extended_code)
    {
        tracing::error!(%error, "the database could not be synced, exiting: check the disk, then start again");
        std::process::exit(74);
    }
}
