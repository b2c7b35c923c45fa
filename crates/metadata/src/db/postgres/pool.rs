//! The sessions of one node: made and checked, used again while they are young, and shared so that replication never
//! queues behind clients.
//! Invariant: no session is given out before its server was held against what this node knows (`continuity`).

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use deadpool::managed::{Manager, Metrics, Pool, QueueMode, RecycleError, RecycleResult, WeakPool};
use deadpool_postgres::{ClientWrapper, Runtime};
use tokio::{sync::Semaphore, task::JoinHandle, time::timeout};

use super::{
    continuity::Continuity,
    dial::dial,
    options::{PoolLimits, PostgresHost, PostgresOptions},
    server::meet,
    session::PostgresSession,
};
use crate::{Error, Result};

/// How long whoever needs a session waits for one.
const WAIT: Duration = Duration::from_secs(15);
/// What checking a server may take beyond reaching it.
const CHECKS: Duration = Duration::from_secs(30);
/// How often idle sessions are looked at, and what was seen of the log is written down.
const UPKEEP: Duration = Duration::from_secs(1);

/// Makes sessions and says which may be used again.
#[derive(Debug)]
pub(super) struct Sessions {
    options: PostgresOptions,
    continuity: Arc<Continuity>,
    /// The host that answered last, by its place in the list.
    last: AtomicUsize,
}

impl Sessions {
    async fn at(&self, host: &PostgresHost) -> Result<ClientWrapper> {
        let client = dial(&self.options, host).await?;
        meet(&client, host, &self.continuity).await?;
        Ok(client)
    }
}

impl Manager for Sessions {
    type Type = ClientWrapper;
    type Error = Error;

    async fn create(&self) -> Result<ClientWrapper> {
        let hosts = &self.options.hosts;
        let first = self.last.load(Ordering::Relaxed);
        let mut problems = Vec::new();
        for place in (0..hosts.len()).map(|step| (first + step) % hosts.len()) {
            // Every future that may need a session holds this one: it is made seldom and kept apart.
            match Box::pin(self.at(&hosts[place])).await {
                Ok(client) => {
                    self.last.store(place, Ordering::Relaxed);
                    return Ok(client);
                }
                Err(problem) => problems.push(problem),
            }
        }
        if problems.len() == 1 {
            return Err(problems.remove(0));
        }
        let texts: Vec<_> = problems.iter().map(reason).collect();
        Err(Error::Unavailable(format!(
            "none of the servers of database.host can be used: {}",
            texts.join("; ")
        )))
    }

    async fn recycle(&self, client: &mut ClientWrapper, metrics: &Metrics) -> RecycleResult<Error> {
        if client.is_closed() {
            return Err(RecycleError::message("the connection is closed"));
        }
        if self.options.pool.max_lifetime.is_some_and(|limit| metrics.age() >= limit) {
            return Err(RecycleError::message("the connection is older than database.pool.maxlifetime"));
        }
        Ok(())
    }
}

/// An error's own words, without those that say what kind it is.
fn reason(error: &Error) -> String {
    match error {
        Error::Unavailable(text) | Error::Refused(text) => text.clone(),
        error => error.to_string(),
    }
}

/// A node's connections, as one of two kinds of users sees them.
#[derive(Clone, Debug)]
pub(super) struct SharedPool {
    pool: Pool<Sessions>,
    /// Clients take turns; replication needs none, and so finds connections that clients cannot hold.
    turns: Option<Arc<Semaphore>>,
    cached: bool,
    drain_timeout: Duration,
    upkeep: Arc<JoinHandle<()>>,
}

impl SharedPool {
    pub(super) fn new(options: &PostgresOptions, continuity: &Arc<Continuity>) -> Result<Self> {
        let limits = options.pool;
        let manager = Sessions {
            options: options.clone(),
            continuity: Arc::clone(continuity),
            last: AtomicUsize::new(0),
        };
        let hosts = u32::try_from(options.hosts.len()).unwrap_or(u32::MAX);
        let pool = Pool::builder(manager)
            .max_size(limits.max_open)
            // The session used last has the statements planned and its caches warm; the others rest.
            .queue_mode(QueueMode::Lifo)
            .wait_timeout(Some(WAIT))
            .create_timeout(Some(options.connect_timeout.saturating_mul(hosts * 2) + CHECKS))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| Error::Refused(format!("cannot set up the database pool: {error}")))?;
        let upkeep = tokio::spawn(keep(pool.weak(), limits, Arc::clone(continuity)));
        Ok(Self {
            pool,
            turns: Some(Arc::new(Semaphore::new(limits.max_open.saturating_sub(limits.reserved()).max(1)))),
            cached: options.prepared_statements,
            drain_timeout: options.drain_timeout,
            upkeep: Arc::new(upkeep),
        })
    }

    /// The same connections for whoever must not queue behind clients.
    pub(super) fn reserved(&self) -> Self {
        Self { turns: None, ..self.clone() }
    }

    /// A session, after waiting for one at most 15 s.
    pub(super) async fn session(&self) -> Result<PostgresSession> {
        match self.first_session().await {
            // A server that is not fit to be used may be fit again in a moment: a failover puts another in its place.
            Err(Error::Refused(text)) => Err(Error::Unavailable(text)),
            session => session,
        }
    }

    /// As above; a server that must not be used is [`Error::Refused`].
    pub(super) async fn first_session(&self) -> Result<PostgresSession> {
        let turn = match &self.turns {
            None => None,
            Some(turns) => Some(
                timeout(WAIT, Arc::clone(turns).acquire_owned())
                    .await
                    .map_err(|_| busy())?
                    .map_err(|_| Error::Unavailable("the database is closed".to_owned()))?,
            ),
        };
        Ok(PostgresSession::new(self.pool.get().await?, turn, self.cached))
    }

    /// Takes no more work, and lets what is under way end.
    pub(super) async fn close(&self) {
        self.upkeep.abort();
        self.pool.close();
        if let Some(turns) = &self.turns {
            turns.close();
        }
        let emptied = async {
            while self.pool.status().size > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if timeout(self.drain_timeout, emptied).await.is_err() {
            tracing::warn!(
                limit_s = self.drain_timeout.as_secs(),
                "transactions were still under way at the end of database.draintimeout: they are rolled back"
            );
        }
    }
}

fn busy() -> Error {
    Error::Unavailable(format!(
        "all connections that clients may use were busy for {} s: raise database.pool.maxopen if this lasts",
        WAIT.as_secs()
    ))
}

/// Closes sessions that rested too long, for as long as the pool lives.
async fn keep(pool: WeakPool<Sessions>, limits: PoolLimits, continuity: Arc<Continuity>) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut kept = 0;
        let most = limits.max_idle.unwrap_or(usize::MAX);
        pool.retain(|_, metrics| {
            let young = limits.max_idle_time.is_none_or(|limit| metrics.last_used() < limit)
                && limits.max_lifetime.is_none_or(|limit| metrics.age() < limit);
            let stays = young && kept < most;
            kept += usize::from(stays);
            stays
        });
        continuity.save().await;
    }
}
