//! One reader's stream: events in order, heartbeats in between, as encoded frames.
//! Guards: no event is left out, and one buffer is all that a slow reader costs.

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use twinport_metadata::{Incarnation, LogHead, Metadata, SiteState};

use super::{ClientActivity, ReaderSignal};
use crate::{
    Refusal, RefusalCode, Result,
    protocol::{Frame, HEARTBEAT_EVERY, Heartbeat, Nonce},
};

/// Events read while the reader keeps up; the read runs in place.
const TAIL_EVENTS: u32 = 100;
/// Events read at a time while the reader catches up.
const CATCH_UP_EVENTS: u32 = 1_000;

/// A log stream that is open.
pub struct LogFeed {
    metadata: Metadata,
    reader: Incarnation,
    /// The last event sent.
    sent_seq: i64,
    head: watch::Receiver<Option<LogHead>>,
    signal: watch::Receiver<ReaderSignal>,
    activity: ClientActivity,
    answered: u64,
    next_heartbeat: Instant,
    catching_up: bool,
}

impl LogFeed {
    pub(super) fn new(
        metadata: Metadata,
        reader: Incarnation,
        sent_seq: i64,
        signal: watch::Receiver<ReaderSignal>,
        activity: ClientActivity,
    ) -> Self {
        let head = metadata.watch_head();
        let answered = signal.borrow().reports;
        Self {
            metadata,
            reader,
            sent_seq,
            head,
            signal,
            activity,
            answered,
            next_heartbeat: Instant::now(),
            catching_up: false,
        }
    }

    /// The frames, as they are to be sent. The stream ends when the site is removed, and with an error when the
    /// database is away; the reader connects again.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        stream::unfold(Some(self), async |feed| {
            let mut feed = feed?;
            match feed.next().await {
                Ok(Some(frames)) => Some((Ok(frames), Some(feed))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// The next frames; none once the site is removed.
    ///
    /// # Errors
    /// What the database says; [`RefusalCode::BeyondHorizon`] where events were trimmed under the reader.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let signal = *self.signal.borrow_and_update();
            if signal.ended {
                return Ok(None);
            }
            if signal.reports != self.answered || Instant::now() >= self.next_heartbeat {
                self.answered = signal.reports;
                return self.heartbeat().await;
            }
            let head = self.head.borrow_and_update().map_or(0, |head| head.position.seq);
            if head > self.sent_seq
                && let Some(frames) = self.events().await?
            {
                return Ok(Some(frames));
            }
            tokio::select! {
                // Both senders live as long as the feed and the database; should one be gone, heartbeats go on.
                Ok(()) = self.head.changed() => {}
                Ok(()) = self.signal.changed() => {}
                () = sleep_until(self.next_heartbeat) => {}
            }
        }
    }

    async fn events(&mut self) -> Result<Option<Bytes>> {
        let limit = if self.catching_up { CATCH_UP_EVENTS } else { TAIL_EVENTS };
        let events = self.metadata.events_after(self.sent_seq, limit).await?;
        self.catching_up = events.len() == limit as usize;
        let mut frames = BytesMut::new();
        for event in events {
            let seq = event.position.seq;
            if seq != self.sent_seq + 1 {
                let message = format!(
                    "event {} is no longer kept here: compare instead of following",
                    self.sent_seq + 1
                );
                return Err(Refusal::new(RefusalCode::BeyondHorizon, message).into());
            }
            Frame::Event(event).encode(&mut frames)?;
            self.sent_seq = seq;
        }
        Ok((!frames.is_empty()).then(|| frames.freeze()))
    }

    async fn heartbeat(&mut self) -> Result<Option<Bytes>> {
        self.next_heartbeat = Instant::now() + HEARTBEAT_EVERY;
        let reader = self.metadata.reader_state(self.reader).await?;
        let Some(reader) = reader.filter(|reader| reader.state == SiteState::Joined) else {
            return Ok(None);
        };
        // After the nonce was read, never before: a head from an older pass would let a stale reader call itself fresh.
        let head = self.metadata.sequence_now().await?;
        if head.position.seq < self.sent_seq {
            let message = format!(
                "this site's log ends at event {}, and {} was sent already: its database went back",
                head.position.seq, self.sent_seq
            );
            return Err(Refusal::new(RefusalCode::Unavailable, message).into());
        }
        let heartbeat = Heartbeat {
            nonce: reader.nonce.map(Nonce),
            head: head.into(),
            clock_us: self.metadata.clock().now_us(),
            // What clients want of this node is known at once, and of the others when they last said.
            busy: self.activity.is_busy() || self.metadata.is_any_node_busy().await?,
        };
        let mut frame = BytesMut::new();
        Frame::Heartbeat(heartbeat).encode(&mut frame)?;
        Ok(Some(frame.freeze()))
    }
}
