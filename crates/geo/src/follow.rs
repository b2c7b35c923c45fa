//! Following the primary's log: connect, check every event's hash, ingest in batches, answer heartbeats.
//! Invariant: an event is stored only if it continues the running hash; one that this binary does not understand
//! stops ingest, and is never skipped (hazards R26, R27).

mod arrivals;

use std::time::{Duration, Instant};

use rand::Rng as _;
use tokio::time::timeout;
use twinport_metadata::{Event, EventKind, LogHead, LoggedEvent, needs_upgrade};

use self::arrivals::Arrivals;
use crate::{
    Error, RefusalCode, Result,
    protocol::{Frame, Heartbeat},
    secondary::{Connection, Engine, Lane, Waiting},
    upstream::Upstream,
};

/// Events of one transaction.
const BATCH_EVENTS: usize = 500;
/// Bytes of event bodies of one transaction, about.
const BATCH_BYTES: usize = 1 << 20;
const RECONNECT_FIRST: Duration = Duration::from_millis(100);
/// How long opening the stream may take.
const OPEN: Duration = Duration::from_secs(20);
/// After a break shorter than this, what failed before keeps its own time.
const OUTAGE: Duration = Duration::from_secs(1);
/// When to ask again after a refusal that an operator at the primary may lift.
const REFUSED: Duration = Duration::from_secs(10);

/// Follows the log until the engine ends, or must not go on.
pub(crate) async fn follow<U: Upstream>(mut engine: Engine<U>) {
    // Neither clients nor this site's own workers hold up the log.
    engine.metadata = engine.metadata.reserved();
    let mut wait = RECONNECT_FIRST;
    let mut lost: Option<Instant> = None;
    loop {
        let error = match once(&engine, &mut lost).await {
            Ok(()) => {
                wait = RECONNECT_FIRST;
                Error::Protocol("the primary ended the log stream".to_owned())
            }
            Err(Ended::Connected(error)) => {
                wait = RECONNECT_FIRST;
                error
            }
            Err(Ended::NotConnected(error)) => error,
        };
        lost.get_or_insert_with(Instant::now);
        if must_stop(&error) {
            return engine.give_up(error.to_string());
        }
        tracing::warn!(%error, "the primary's log is not connected, trying again");
        engine.shared.connection.send_replace(Connection::Waiting { reason: error.to_string() });
        let pause = if is_refused(&error) { REFUSED } else { wait };
        let jittered = rand::rng().random_range(pause / 2..=pause);
        tokio::time::sleep(jittered).await;
        wait = (wait * 2).min(engine.tuning.reconnect_most);
    }
}

/// How a connection ended.
enum Ended {
    NotConnected(Error),
    Connected(Error),
}

fn must_stop(error: &Error) -> bool {
    matches!(error, Error::Stopped(_))
        || matches!(error.code(), Some(RefusalCode::SiteRemoved | RefusalCode::Upgrade))
}

/// The primary answered, and what it says does not pass by itself soon.
fn is_refused(error: &Error) -> bool {
    let passing = [RefusalCode::Unavailable, RefusalCode::CredentialExpired];
    matches!(error, Error::HashMismatch { .. }) || error.code().is_some_and(|code| !passing.contains(&code))
}

async fn once<U: Upstream>(engine: &Engine<U>, lost: &mut Option<Instant>) -> Result<(), Ended> {
    let connect = async {
        let cursor = engine.metadata.log_head().await?;
        let stream = timeout(OPEN, engine.upstream.log(cursor)).await.map_err(|_| silent(OPEN))??;
        Ok((cursor, stream))
    };
    let (cursor, stream) = connect.await.map_err(Ended::NotConnected)?;
    engine.shared.connection.send_replace(Connection::Connected);
    let outage = lost.take().is_none_or(|since| since.elapsed() >= OUTAGE);
    make_due(engine, outage).await.map_err(Ended::Connected)?;
    tracing::info!(seq = cursor.position.seq, "following the primary's log");
    let mut reader = Reader { engine, cursor, arrivals: Arrivals::of(stream) };
    reader.read().await.map_err(Ended::Connected)
}

/// What waits for the primary's return waits no longer; after an outage that goes for everything that failed.
async fn make_due<U: Upstream>(engine: &Engine<U>, outage: bool) -> Result<()> {
    match engine.shared.away.take() {
        Waiting::For(named) if !outage => {
            for uuid in named {
                engine.hasten(uuid).await;
            }
        }
        Waiting::For(_) | Waiting::Many => {
            if let Err(error) = engine.metadata.retry_now().await {
                engine.shared.away.many();
                return Err(error.into());
            }
        }
    }
    engine.scheduler.look_by(Duration::ZERO);
    Ok(())
}

struct Reader<'r, U> {
    engine: &'r Engine<U>,
    /// The last event that is ingested.
    cursor: LogHead,
    arrivals: Arrivals,
}

/// Events that wait for their transaction.
#[derive(Default)]
struct Batch {
    events: Vec<LoggedEvent>,
    bytes: usize,
    /// The next event cannot be ingested by this binary.
    upgrade: Option<String>,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.events.len() >= BATCH_EVENTS || self.bytes >= BATCH_BYTES || self.upgrade.is_some()
    }
}

impl<U: Upstream> Reader<'_, U> {
    async fn read(&mut self) -> Result<()> {
        let idle = self.engine.tuning.log_idle;
        loop {
            let Some(first) = timeout(idle, self.arrivals.next()).await.map_err(|_| silent(idle))? else {
                return Ok(());
            };
            let mut batch = Batch::default();
            let mut heartbeat = self.take(first?, &mut batch)?;
            // What has arrived already shares the transaction; nothing is waited for.
            let mut ended = false;
            let mut broken = None;
            while heartbeat.is_none() && !batch.is_full() {
                match self.arrivals.at_once() {
                    Some(Some(Ok(frame))) => match self.take(frame, &mut batch) {
                        Ok(beat) => heartbeat = beat,
                        Err(error) => {
                            broken = Some(error);
                            break;
                        }
                    },
                    Some(Some(Err(error))) => {
                        broken = Some(error);
                        break;
                    }
                    Some(None) => {
                        ended = true;
                        break;
                    }
                    None => break,
                }
            }
            let upgrade = batch.upgrade.take();
            self.ingest(batch).await?;
            if let Some(reason) = upgrade {
                return Err(Error::Stopped(reason));
            }
            if let Some(error) = broken {
                return Err(error);
            }
            if let Some(heartbeat) = heartbeat {
                self.heartbeat(&heartbeat)?;
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// Adds an event to the batch, or answers the heartbeat.
    fn take(&self, frame: Frame, batch: &mut Batch) -> Result<Option<Heartbeat>> {
        let logged = match frame {
            Frame::Heartbeat(heartbeat) => return Ok(Some(heartbeat)),
            Frame::Event(logged) => logged,
        };
        let seq = logged.position.seq;
        let (before, hash) = match batch.events.last() {
            Some(last) => (last.position.seq, last.hash),
            None => (self.cursor.position.seq, self.cursor.hash),
        };
        if seq != before + 1 || !logged.continues(&hash) {
            return Err(Error::HashMismatch { seq });
        }
        // The hash holds, so these are the bytes that the origin wrote: if they cannot be read, it is of another kind.
        let event = logged.event().map_err(|error| {
            Error::Stopped(format!("{error}: it was written by a newer version, so upgrade this site"))
        });
        match event {
            Ok(event) => match needs_upgrade(&event) {
                Some(reason) => batch.upgrade = Some(format!("event {seq}: {reason}")),
                None => {
                    self.prefetch(&event);
                    batch.bytes += logged.body.len();
                    batch.events.push(logged);
                }
            },
            Err(error) => batch.upgrade = Some(error.to_string()),
        }
        Ok(None)
    }

    /// A linked blob will be wanted in a moment.
    fn prefetch(&self, event: &Event) {
        if event.kind == EventKind::BlobLinked
            && let Some(digest) = event.digest
        {
            self.engine.transfers.prefetch(digest, event.size);
        }
    }

    async fn ingest(&mut self, batch: Batch) -> Result<()> {
        if batch.events.is_empty() {
            return Ok(());
        }
        let ingesting = self.engine.metadata.ingest(batch.events, self.engine.lease);
        let ingested = self.arrivals.meanwhile(ingesting).await?;
        self.cursor = ingested.head;
        for uuid in ingested.leased {
            self.engine.scheduler.push(uuid, Lane::Live);
        }
        if ingested.access {
            self.engine.shared.access.notify_one();
        }
        self.engine.shared.lag.lock().ingested(self.cursor.position.seq);
        self.engine.progressed();
        Ok(())
    }

    fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<()> {
        let head = LogHead::from(heartbeat.head);
        if head.position.seq < self.cursor.position.seq {
            // Whoever asks again with the cursor tells the primary, which then stops its writes.
            return Err(Error::Protocol(format!(
                "the primary's log ends at event {}, and this site has event {}: the primary's database went back",
                head.position.seq, self.cursor.position.seq
            )));
        }
        if head.position.seq == self.cursor.position.seq && head.hash != self.cursor.hash {
            return Err(Error::HashMismatch { seq: head.position.seq });
        }
        self.engine.pace.primary_is(heartbeat.busy);
        self.engine.shared.lag.lock().heartbeat(heartbeat, self.engine.now_us(), Instant::now());
        self.engine.progressed();
        Ok(())
    }
}

fn silent(limit: Duration) -> Error {
    Error::Unreachable {
        url: "the primary".to_owned(),
        reason: format!("nothing was heard of it for {limit:?}"),
    }
}
