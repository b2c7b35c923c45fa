//! One PostgreSQL connection in use: statements that nobody waits for travel with the next one that somebody does.
//!
//! **Architecture invariant:** the server gets statements in the order they were given; the first that failed is the
//! one reported; a connection is never handed back in the middle of a transaction.

use std::sync::Arc;

use deadpool::managed::Object;
use deadpool_postgres::ClientWrapper;
use futures_util::future::{join, join_all};
use tokio::sync::OwnedSemaphorePermit;
use tokio_postgres::{Statement, types::ToSql};

use super::{
    super::value::{Row, Value, from_postgres},
    pool::Sessions,
};
use crate::{Error, Result};

/// Statements kept back at most: what a session holds in memory is bounded, and so is what is lost with it.
const MAX_WAITING: usize = 32;

/// One connection; while a transaction is open it cannot go back to the pool.
#[derive(Debug)]
pub(crate) struct PostgresSession {
    client: Option<Object<Sessions>>,
    /// A client's place; given up after the connection.
    _turn: Option<OwnedSemaphorePermit>,
    /// Statements stay prepared for the next use.
    cached: bool,
    waiting: Waiting,
    /// The server may have begun a transaction.
    open: bool,
    /// The server has answered, or has been asked to commit: running everything again elsewhere could run it twice.
    answered: bool,
}

/// What was given and not sent.
#[derive(Debug, Default)]
struct Waiting {
    begin: Option<&'static str>,
    statements: Vec<(Arc<str>, Vec<Value>)>,
}

impl PostgresSession {
    pub(super) fn new(client: Object<Sessions>, turn: Option<OwnedSemaphorePermit>, cached: bool) -> Self {
        Self {
            client: Some(client),
            _turn: turn,
            cached,
            waiting: Waiting::default(),
            open: false,
            answered: false,
        }
    }

    /// Begins a transaction, together with its first statement.
    pub(crate) fn begin(&mut self, statement: &'static str) {
        self.waiting.begin = Some(statement);
    }

    /// Whether the server has said nothing yet, so that another connection may be given the same.
    pub(super) fn is_unanswered(&self) -> bool {
        !self.answered
    }

    /// Runs a statement that nobody waits for: its error comes with the next answer, at the latest with the commit's.
    pub(crate) async fn send(&mut self, text: Arc<str>, params: Vec<Value>) -> Result<()> {
        self.waiting.statements.push((text, params));
        if self.waiting.statements.len() < MAX_WAITING { Ok(()) } else { self.after_waiting(nothing).await }
    }

    pub(crate) async fn query(&mut self, text: &str, params: &[Value]) -> Result<Vec<Row>> {
        let rows = self
            .after_waiting(async |client, cached| {
                let statement = prepare(client, text, cached).await?;
                client.query(&statement, &borrow(params)).await
            })
            .await?;
        rows.iter().map(from_postgres).collect()
    }

    /// Several reads, sent together and run in this order.
    pub(crate) async fn query_each(&mut self, reads: &[(Arc<str>, Vec<Value>)]) -> Result<Vec<Vec<Row>>> {
        let answers = self
            .after_waiting(async |client, cached| {
                let mut prepared = Vec::with_capacity(reads.len());
                for (text, params) in reads {
                    prepared.push((prepare(client, text, cached).await?, borrow(params)));
                }
                let asked = prepared.iter().map(|(statement, params)| client.query(statement, params));
                join_all(asked).await.into_iter().collect::<std::result::Result<Vec<_>, _>>()
            })
            .await?;
        answers.iter().map(|rows| rows.iter().map(from_postgres).collect()).collect()
    }

    pub(crate) async fn execute(&mut self, text: &str, params: &[Value]) -> Result<u64> {
        self.execute_native(text, &borrow(params)).await
    }

    /// Runs a statement with native parameters, for types that [`Value`] has no word for.
    pub(crate) async fn execute_native(&mut self, text: &str, params: &[&(dyn ToSql + Sync)]) -> Result<u64> {
        self.after_waiting(async |client, cached| {
            let statement = prepare(client, text, cached).await?;
            client.execute(&statement, params).await
        })
        .await
    }

    pub(crate) async fn script(&mut self, text: &str) -> Result<()> {
        self.after_waiting(async |client, _| client.batch_execute(text).await).await
    }

    /// Sends what is waiting, and commits: where any of it failed, nothing is stored.
    pub(crate) async fn commit(&mut self) -> Result<()> {
        if self.waiting.begin.is_some() && self.waiting.statements.is_empty() {
            self.waiting.begin = None;
            return Ok(());
        }
        self.answered = true;
        // After a failed statement COMMIT rolls back: either way the transaction is over once it is answered.
        let mut ended = false;
        let outcome = self
            .after_waiting(async |client, _| client.batch_execute("COMMIT").await.inspect(|()| ended = true))
            .await;
        self.open &= !ended;
        outcome
    }

    /// Takes back what the transaction did. What was not sent is forgotten.
    pub(crate) async fn roll_back(&mut self) -> Result<()> {
        self.waiting = Waiting::default();
        if self.open {
            self.client()?.batch_execute("ROLLBACK").await?;
            self.open = false;
        }
        Ok(())
    }

    /// Sends what is waiting and `last` without waiting in between.
    async fn after_waiting<T>(
        &mut self,
        last: impl AsyncFnOnce(&ClientWrapper, bool) -> std::result::Result<T, tokio_postgres::Error>,
    ) -> Result<T> {
        let waiting = std::mem::take(&mut self.waiting);
        self.open |= waiting.begin.is_some();
        let (client, cached) = (self.client()?, self.cached);
        let mut prepared = Vec::with_capacity(waiting.statements.len());
        for (text, params) in &waiting.statements {
            prepared.push((prepare(client, text, cached).await?, borrow(params)));
        }
        // Each future sends when it is first polled, and these are polled in order.
        let begin = async {
            match waiting.begin {
                Some(statement) => client.batch_execute(statement).await,
                None => Ok(()),
            }
        };
        let sent = prepared.iter().map(|(statement, params)| client.execute(statement, params));
        let ((begun, ran), answer) = join(join(begin, join_all(sent)), last(client, cached)).await;
        begun?;
        for statement in ran {
            statement?;
        }
        let answer = answer?;
        self.answered = true;
        Ok(answer)
    }

    fn client(&self) -> Result<&ClientWrapper> {
        self.client.as_deref().ok_or_else(|| Error::Bug("a session without a connection".to_owned()))
    }
}

impl Drop for PostgresSession {
    fn drop(&mut self) {
        if self.open {
            // Cancelled inside a transaction: closing the connection rolls it back.
            drop(self.client.take().map(Object::take));
        }
    }
}

async fn prepare(
    client: &ClientWrapper,
    text: &str,
    cached: bool,
) -> std::result::Result<Statement, tokio_postgres::Error> {
    if cached { client.prepare_cached(text).await } else { client.prepare(text).await }
}

async fn nothing(_client: &ClientWrapper, _cached: bool) -> std::result::Result<(), tokio_postgres::Error> {
    Ok(())
}

fn borrow(params: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    params.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}
