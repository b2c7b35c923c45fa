//! How far this site is behind, and whether what it serves is fresh.
//! Invariant: every claim rests on a nonce that this site sent, timed by its own monotonic clock; silence makes the
//! figures grow, never shrink (hazards R20, R29).

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::protocol::{Heartbeat, Nonce};

/// A read is fresh when it is whole up to a head whose nonce was sent at most this long ago.
pub const FRESH_FOR: Duration = Duration::from_secs(5);
/// Nonces that may still be answered; older ones prove nothing that newer ones do not.
const NONCES: usize = 16;
/// Heads that are not reached yet; when there are more, every other one is forgotten.
const HEADS: usize = 256;

/// How far behind one of the two stages is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Events of the primary's last known head that are not done; none before the first contact.
    pub events: Option<u64>,
    /// How old the state is that this stage has in full; none until it had one. It grows while the primary is away.
    pub age: Option<Duration>,
}

/// One stage: the youngest moment of the primary that it has in full.
#[derive(Debug, Default)]
struct Stage {
    /// Where it is; none while no position is complete.
    seq: Option<i64>,
    as_of: Option<Instant>,
    /// Heads to be reached, with when their nonce was sent; both rise.
    ahead: VecDeque<(i64, Instant)>,
}

impl Stage {
    fn head(&mut self, seq: i64, sent: Instant) {
        self.ahead.push_back((seq, sent));
        if self.ahead.len() > HEADS {
            let mut keep = false;
            self.ahead.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.settle();
    }

    fn reached(&mut self, seq: Option<i64>) {
        self.seq = seq;
        self.settle();
    }

    fn settle(&mut self) {
        while let Some((seq, sent)) = self.ahead.front().copied()
            && self.seq.is_some_and(|reached| seq <= reached)
        {
            self.ahead.pop_front();
            self.as_of = self.as_of.max(Some(sent));
        }
    }

    fn lag(&self, head: Option<i64>, now: Instant) -> Lag {
        Lag {
            events: head.map(|head| u64::try_from(head - self.seq.unwrap_or(0)).unwrap_or(0)),
            age: self.as_of.map(|as_of| now.saturating_duration_since(as_of)),
        }
    }
}

/// What this process knows of the primary's head and of its own distance to it.
#[derive(Debug, Default)]
pub struct LagTracker {
    nonces: VecDeque<(Nonce, Instant)>,
    /// The primary's last known head.
    head_seq: Option<i64>,
    last_contact: Option<Instant>,
    /// How far this site's clock was ahead of the primary's (µs) when that was last heard.
    clock_ahead_us: Option<i64>,
    ingest: Stage,
    apply: Stage,
}

impl LagTracker {
    /// A nonce is about to be sent.
    pub fn sending(&mut self, nonce: Nonce, now: Instant) {
        if self.nonces.len() == NONCES {
            self.nonces.pop_front();
        }
        self.nonces.push_back((nonce, now));
    }

    /// A heartbeat arrived. Its head proves something only if its nonce is one of ours, and no more than that the
    /// head is younger than the moment the nonce was sent.
    pub fn heartbeat(&mut self, heartbeat: &Heartbeat, own_us: i64, now: Instant) {
        self.last_contact = Some(now);
        self.clock_ahead_us = Some(own_us.saturating_sub(heartbeat.clock_us));
        self.head_seq = self.head_seq.max(Some(heartbeat.head.seq));
        let Some(nonce) = heartbeat.nonce else { return };
        let Some(at) = self.nonces.iter().position(|(sent, _)| *sent == nonce) else { return };
        let Some((_, sent)) = self.nonces.get(at).copied() else { return };
        // Older nonces cannot prove more; this one may be echoed again, with a younger head.
        self.nonces.drain(..at);
        self.ingest.head(heartbeat.head.seq, sent);
        self.apply.head(heartbeat.head.seq, sent);
    }

    /// Everything up to `seq` is ingested.
    pub fn ingested(&mut self, seq: i64) {
        self.head_seq = self.head_seq.map(|head| head.max(seq));
        self.ingest.reached(Some(seq));
    }

    /// Everything up to `seq` is applied, or, with none, no position is complete.
    pub fn processed(&mut self, seq: Option<i64>) {
        self.apply.reached(seq);
    }

    /// How far ingest is behind.
    #[must_use]
    pub fn ingest_lag(&self, now: Instant) -> Lag {
        self.ingest.lag(self.head_seq, now)
    }

    /// How far apply is behind.
    #[must_use]
    pub fn apply_lag(&self, now: Instant) -> Lag {
        self.apply.lag(self.head_seq, now)
    }

    /// Whether a read of anything here is as good as one at the primary at most [`FRESH_FOR`] ago.
    #[must_use]
    pub fn fresh(&self, now: Instant) -> bool {
        self.apply_lag(now).age.is_some_and(|age| age <= FRESH_FOR)
    }

    /// The primary's last known head.
    #[must_use]
    pub fn head_seq(&self) -> Option<i64> {
        self.head_seq
    }

    /// How long ago the primary was last heard.
    #[must_use]
    pub fn silence(&self, now: Instant) -> Option<Duration> {
        self.last_contact.map(|at| now.saturating_duration_since(at))
    }

    /// How far this site's clock is ahead of the primary's (µs), give or take the way of a heartbeat.
    #[must_use]
    pub fn clock_ahead_us(&self) -> Option<i64> {
        self.clock_ahead_us
    }
}

#[cfg(test)]
mod tests {
    use twinport_metadata::Incarnation;

    use super::*;
    use crate::protocol::Head;

    fn heartbeat(nonce: Option<Nonce>, seq: i64, clock_us: i64) -> Heartbeat {
        let head = Head { number: 1, owner: Incarnation::random(), seq, hash: [0; 32] };
        Heartbeat { nonce, head, clock_us, busy: false }
    }

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn r29_lag_is_unknown_before_the_first_contact_and_never_zero() {
        let mut lag = LagTracker::default();
        lag.ingested(7);
        lag.processed(Some(7));
        assert_eq!(lag.apply_lag(Instant::now()), Lag { events: None, age: None });
        assert!(!lag.fresh(Instant::now()));
    }

    #[test]
    fn r29_lag_grows_while_the_primary_is_away_and_a_read_is_stale_after_five_seconds() {
        let start = Instant::now();
        let mut lag = LagTracker::default();
        lag.ingested(7);
        lag.processed(Some(7));
        let nonce = Nonce::random();
        lag.sending(nonce, start);
        lag.heartbeat(&heartbeat(Some(nonce), 7, 1), 0, at(start, 20));
        assert!(lag.fresh(at(start, 4_000)));
        assert_eq!(lag.apply_lag(at(start, 4_000)).age, Some(Duration::from_secs(4)));
        assert!(!lag.fresh(at(start, 5_001)));
        assert_eq!(lag.apply_lag(at(start, 3_600_000)).age, Some(Duration::from_secs(3_600)));
    }

    /// A site that has everything of an empty log: only what it has heard decides whether it is fresh.
    fn nothing_to_do() -> LagTracker {
        let mut lag = LagTracker::default();
        lag.ingested(0);
        lag.processed(Some(0));
        lag
    }

    #[test]
    fn r29_a_heartbeat_without_our_nonce_proves_nothing() {
        let start = Instant::now();
        let mut lag = nothing_to_do();
        lag.sending(Nonce::random(), start);
        lag.heartbeat(&heartbeat(None, 0, 1), 0, start);
        lag.heartbeat(&heartbeat(Some(Nonce::random()), 0, 1), 0, start);
        assert!(!lag.fresh(start));
    }

    #[test]
    fn r29_a_delayed_heartbeat_is_as_old_as_its_nonce() {
        let start = Instant::now();
        let mut lag = nothing_to_do();
        let nonce = Nonce::random();
        lag.sending(nonce, start);
        lag.heartbeat(&heartbeat(Some(nonce), 0, 1), 0, at(start, 60_000));
        assert!(!lag.fresh(at(start, 60_000)));
        assert_eq!(lag.ingest_lag(at(start, 60_000)).age, Some(Duration::from_secs(60)));
    }

    #[test]
    fn a_head_counts_for_each_stage_when_that_stage_has_reached_it() {
        let start = Instant::now();
        let mut lag = LagTracker::default();
        let nonce = Nonce::random();
        lag.sending(nonce, start);
        lag.heartbeat(&heartbeat(Some(nonce), 10, 1), 0, start);
        lag.ingested(10);
        lag.processed(Some(9));
        assert_eq!(lag.ingest_lag(start), Lag { events: Some(0), age: Some(Duration::ZERO) });
        assert_eq!(lag.apply_lag(start), Lag { events: Some(1), age: None });
        lag.processed(Some(10));
        assert!(lag.fresh(start));
    }

    #[test]
    fn r20_a_primary_clock_that_steps_back_changes_no_age() {
        let start = Instant::now();
        let mut lag = LagTracker::default();
        for (second, clock_us) in [(0, 9_000_000_000), (1, 1), (2, 1)] {
            let nonce = Nonce::random();
            let now = at(start, second * 1_000);
            lag.sending(nonce, now);
            lag.heartbeat(&heartbeat(Some(nonce), 0, clock_us), 0, now);
            lag.processed(Some(0));
        }
        assert_eq!(lag.apply_lag(at(start, 3_000)).age, Some(Duration::from_secs(1)));
    }

    #[test]
    fn heads_far_ahead_are_thinned_out_and_still_counted_in_order() {
        let start = Instant::now();
        let mut lag = LagTracker::default();
        for second in 0..10_000 {
            let nonce = Nonce::random();
            let now = at(start, second * 1_000);
            lag.sending(nonce, now);
            lag.heartbeat(&heartbeat(Some(nonce), i64::try_from(second).unwrap(), 1), 0, now);
        }
        assert!(lag.apply.ahead.len() <= HEADS + 1);
        lag.processed(Some(9_999));
        let age = lag.apply_lag(at(start, 10_000_000)).age.unwrap();
        assert!(age <= Duration::from_secs(9_999), "{age:?}");
    }
}
