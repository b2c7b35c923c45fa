//! Numbers the committed events of PostgreSQL: densely, in an order that agrees with row locks and real time.
//!
//! A push only takes an id; commits become visible in another order than ids are taken. A pass holds the head
//! row, reads every committed event without a number in id order, and continues the chain. An event that is
//! visible has all events that it waited for visible too, with lower ids, so the order holds.
//!
//! **Architecture invariant:** whoever numbers holds the head row; the lease only says who polls.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};
use uuid::Uuid;

use crate::{
    Error, LogHead, LogPosition, Result,
    db::{PostgresDb, Standing, head_of},
    event::chain,
};

/// How long a pass may take events that nobody announced: commits of other nodes.
const POLL: Duration = Duration::from_millis(15);
/// Passes of the background begin this far apart at least: commits of a busy site share one, and with it the work that
/// every follower of the log has with each. What waits for a number by itself does not wait for this.
const GATHER: Duration = Duration::from_millis(20);
/// How long a sequencer that stopped keeps others from polling, microseconds.
const LEASE_US: i64 = 3_000_000;
/// Events numbered in one transaction.
const PASS_LIMIT: i64 = 2_000;
/// How long rows may stay without their position after their event has one.
const STAMP_EVERY: Duration = Duration::from_millis(100);
/// When rows that a transaction held at the last pass are met again, if nothing else moves the log.
const LOCKED_ROWS_AGAIN: Duration = Duration::from_secs(2);

const NOW_US: &str = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)";

/// The background numbering of one node.
#[derive(Debug)]
pub(crate) struct Sequencer {
    db: Arc<PostgresDb>,
    node: Uuid,
    tasks: Vec<JoinHandle<()>>,
}

impl Sequencer {
    pub(crate) fn start(db: Arc<PostgresDb>, node: Uuid) -> Self {
        let numbering = tokio::spawn(number_for_ever(Arc::clone(&db), node));
        let stamping = tokio::spawn(stamp_for_ever(Arc::clone(&db)));
        Self { db, node, tasks: vec![numbering, stamping] }
    }

    /// A whole pass, begun after this call; whoever holds the lease.
    pub(crate) async fn pass(&self) -> Result<LogHead> {
        loop {
            let (head, numbered) = self.number().await?;
            if numbered < PASS_LIMIT {
                return Ok(head);
            }
        }
    }

    async fn number(&self) -> Result<(LogHead, i64)> {
        match number(&self.db, self.node).await {
            // Nothing was numbered: whoever was in the way has had its turn.
            Err(Error::Conflict(_)) => number(&self.db, self.node).await,
            numbered => numbered,
        }
    }

    pub(crate) fn stop(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Drop for Sequencer {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn number_for_ever(db: Arc<PostgresDb>, node: Uuid) {
    let mut passed: Option<Instant> = None;
    loop {
        // A commit of this node wakes it at once; those of others are seen by the poll.
        let announced = timeout(POLL, db.signals().unnumbered.notified()).await.is_ok();
        if announced {
            if let Some(passed) = passed {
                sleep_until(passed + GATHER).await;
            }
            passed = Some(Instant::now());
        }
        if let Err(error) = tick(&db, node, announced).await {
            tracing::warn!(%error, "events could not be numbered, trying again");
            sleep(Duration::from_millis(500)).await;
        }
    }
}

async fn tick(db: &PostgresDb, node: Uuid, announced: bool) -> Result<()> {
    if !announced {
        let seen = look(db, node).await?;
        if !seen.waiting || !seen.mine || seen.standing.halted {
            publish(db, seen.head, seen.standing);
            return Ok(());
        }
    }
    match number(db, node).await {
        // Said already, where writes were stopped.
        Err(Error::Halted(_)) => Ok(()),
        numbered => numbered.map(drop),
    }
}

/// What a look at the head finds.
struct Seen {
    head: LogHead,
    /// Events wait for numbers.
    waiting: bool,
    /// This node is the one to number them.
    mine: bool,
    standing: Standing,
}

async fn look(db: &PostgresDb, node: Uuid) -> Result<Seen> {
    let text = format!(
        "SELECT epoch, owner, seq, hash, EXISTS (SELECT 1 FROM events WHERE seq IS NULL), \
         lease_holder IS NULL OR lease_holder = $1 OR lease_until_us < {NOW_US}, \
         s.halted IS NOT NULL, s.accepted_losses FROM log_head h, site s WHERE h.id = 1 AND s.id = 1"
    );
    let rows = db.session().await?.query(&text, &[node.into()]).await?;
    let row = rows.first().ok_or_else(|| Error::Corrupt("the log has no head row".to_owned()))?;
    Ok(Seen {
        head: head_of(row)?,
        waiting: row.int(4)? != 0,
        mine: row.int(5)? != 0,
        standing: Standing { halted: row.int(6)? != 0, accepted_losses: row.int(7)? },
    })
}

/// One pass: the head it leaves, and how many events it numbered. Where writes are stopped, what still waits for a number
/// gets none: the position may be another event's already.
async fn number(db: &PostgresDb, node: Uuid) -> Result<(LogHead, i64)> {
    const HEAD: &str = "SELECT epoch, owner, seq, hash FROM log_head WHERE id = 1 FOR UPDATE";
    // A statement of its own after the lock is held: its snapshot sees all that was committed before this pass.
    const WAITING: &str = "SELECT event_id, body FROM events WHERE seq IS NULL ORDER BY event_id LIMIT $1";
    let mut session = db.session().await?;
    session.begin("BEGIN");
    const HALTED: &str = "SELECT halted, accepted_losses FROM site WHERE id = 1";
    let reads = [(HEAD.into(), vec![]), (WAITING.into(), vec![PASS_LIMIT.into()]), (HALTED.into(), vec![])];
    let answers = session.query_each(&reads).await?;
    let [heads, waiting, halted] = answers.as_slice() else {
        return Err(Error::Bug("three reads have three answers".to_owned()));
    };
    let site = halted.first().ok_or_else(|| Error::Corrupt("the site has no identity row".to_owned()))?;
    let halted = site.opt_text(0)?;
    let standing = Standing { halted: halted.is_some(), accepted_losses: site.int(1)? };
    let row = heads.first().ok_or_else(|| Error::Corrupt("the log has no head row".to_owned()))?;
    let mut head = head_of(row)?;
    if waiting.is_empty() {
        session.roll_back().await?;
        publish(db, head, standing);
        return Ok((head, 0));
    }
    if let Some(reason) = halted {
        session.roll_back().await?;
        publish(db, head, standing);
        return Err(Error::Halted(reason));
    }
    let mut ids = Vec::with_capacity(waiting.len());
    let mut seqs = Vec::with_capacity(waiting.len());
    let mut hashes = Vec::with_capacity(waiting.len());
    for row in waiting {
        let position = LogPosition { epoch: head.position.epoch, seq: head.position.seq + 1 };
        let hash = chain(&head.hash, &position, &row.blob(1)?);
        head = LogHead { position, hash };
        ids.push(row.int(0)?);
        seqs.push(position.seq);
        hashes.push(hash.to_vec());
    }
    let owner = head.position.epoch.owner.0.as_bytes().to_vec();
    let changed = session
        .execute_native(
            "UPDATE events SET epoch = $1, owner = $2, seq = v.seq, hash = v.hash \
             FROM unnest($3::bigint[], $4::bigint[], $5::bytea[]) AS v(event_id, seq, hash) \
             WHERE events.event_id = v.event_id AND events.seq IS NULL",
            &[&head.position.epoch.number, &owner, &ids, &seqs, &hashes],
        )
        .await?;
    if changed != ids.len() as u64 {
        return Err(Error::Bug(format!("{changed} of {} events were numbered", ids.len())));
    }
    let lease = format!(
        "UPDATE log_head SET seq = $1, hash = $2, lease_holder = $3, lease_until_us = {NOW_US} + $4 WHERE id = 1"
    );
    let params = vec![head.position.seq.into(), head.hash.into(), node.into(), LEASE_US.into()];
    session.send(lease.into(), params).await?;
    session.commit().await?;
    publish(db, head, standing);
    Ok((head, i64::try_from(ids.len()).unwrap_or(PASS_LIMIT)))
}

/// Tells the node's readers, who may have been told of a later head by another task already.
fn publish(db: &PostgresDb, head: LogHead, standing: Standing) {
    // A server that lacks what was known is right about its own head: readers have to hear of it.
    let went_back = db.continuity().saw(head, standing);
    db.signals().head.send_if_modified(|known| {
        let moved =
            known.is_none_or(|known| known.position.seq < head.position.seq || (went_back && known != head));
        if moved {
            *known = Some(head);
        }
        moved
    });
}

/// Gives rows the position of the event that last changed them, behind the log, never inside a push.
async fn stamp_for_ever(db: Arc<PostgresDb>) {
    let mut moved = db.signals().head.subscribe();
    loop {
        sleep(STAMP_EVERY).await;
        match stamp(&db).await {
            // Nothing to stamp until the log moves, but for rows that were locked and skipped.
            Ok(0) => {
                if let Ok(Err(_)) = timeout(LOCKED_ROWS_AGAIN, moved.changed()).await {
                    return;
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "row positions could not be stamped, trying again");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn stamp(db: &PostgresDb) -> Result<u64> {
    const TABLES: [&str; 7] =
        ["repositories", "blob_links", "manifests", "tags", "tombstones", "sites", "access_records"];
    let mut session = db.session().await?;
    session.begin("BEGIN");
    // A stamp that is lost with the server is made again: it is derived from the log.
    session.send("SET LOCAL synchronous_commit = off".into(), vec![]).await?;
    let updates: Vec<_> = TABLES.iter().map(|table| (stamping(table).into(), vec![])).collect();
    let stamped = session.query_each(&updates).await?.iter().map(|rows| rows.len() as u64).sum();
    session.commit().await?;
    Ok(stamped)
}

fn stamping(table: &str) -> String {
    format!(
        "UPDATE {table} SET position_epoch = e.epoch, position_seq = e.seq FROM events e, \
         (SELECT ctid AS row, change FROM {table} WHERE position_seq IS NULL AND change IS NOT NULL \
          ORDER BY change LIMIT 2000 FOR NO KEY UPDATE SKIP LOCKED) waiting \
         WHERE {table}.ctid = waiting.row AND e.event_id = waiting.change AND e.seq IS NOT NULL RETURNING 1"
    )
}
