//! How many small requests of listings are under way at the primary at a time, by how long its answers take.
//! Guards: the pulls and pushes at the primary; a backfill takes what they leave, on a fast link as on a long one, and all of
//! it where the primary says that it has no clients.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

/// An answer is slow when it takes longer than this many times the quickest one, and this much longer still.
const SLOW: u32 = 2;
const SLACK: Duration = Duration::from_millis(2);
/// After so many answers the quickest of those before the last so many is forgotten.
const REMEMBERED: u32 = 256;
/// What a slow answer leaves of the room, and what all the answers of one round trip add to it when none is slow.
const LEFT: f64 = 0.8;
const ADDED: f64 = 0.25;
/// More is not added in a second: on a short link answers come by the hundred, and by the time that one of them is slow, the
/// primary's clients would wait behind as many requests as there may be.
const ADDED_PER_S: f64 = 2.0;

/// Where one request at a time is too many still, each answer is followed by a rest of up to this many times what it took:
/// the primary's clients come first, and a backfill goes on at a fifth of its pace.
const MOST_REST: f64 = 4.0;
/// What a slow answer adds to the rest, and what a quick one takes from it: one slow answer in fifty is borne.
const REST_MORE: f64 = 0.25;
const REST_LESS: f64 = 0.005;
/// No rest is longer than that of an answer which took this long.
const LONGEST: Duration = Duration::from_millis(250);

/// The room that all listings of this process share; cheap to clone.
#[derive(Clone)]
pub(crate) struct Pace {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    freed: Notify,
    most: f64,
}

struct State {
    /// The primary has clients: only then is the room limited.
    busy: bool,
    /// Requests that may be under way: never less than one.
    room: f64,
    under_way: u32,
    /// The quickest answer of this stretch and of the one before.
    quickest: [Option<Duration>; 2],
    answers: u32,
    /// When the last answer came.
    answered: Instant,
    /// How many times what an answer took nothing is asked after it.
    rest: f64,
    resting_until: Instant,
}

impl Pace {
    /// Limits nothing until the primary is busy; then it begins with one request at a time, and never has more than `most`.
    pub(crate) fn new(most: usize) -> Self {
        let answered = Instant::now();
        let state = State {
            busy: false,
            room: 1.0,
            under_way: 0,
            quickest: [None; 2],
            answers: 0,
            answered,
            rest: 0.0,
            resting_until: answered,
        };
        let most = f64::from(u32::try_from(most).unwrap_or(u32::MAX).max(1));
        Self { inner: Arc::new(Inner { state: Mutex::new(state), freed: Notify::new(), most }) }
    }

    /// What the primary last said of its clients.
    pub(crate) fn is_primary_busy(&self) -> bool {
        self.inner.state.lock().busy
    }

    /// What the primary says of its clients.
    pub(crate) fn primary_is(&self, busy: bool) {
        let mut state = self.inner.state.lock();
        if busy && !state.busy {
            state.room = 1.0;
        }
        state.busy = busy;
        if !busy {
            state.rest = 0.0;
            self.inner.freed.notify_one();
        }
    }

    /// Waits for room.
    pub(crate) async fn turn(&self) -> Turn {
        loop {
            // Asked for before it is looked: what is freed in between is not missed.
            let freed = self.inner.freed.notified();
            let resting_until = {
                let mut state = self.inner.state.lock();
                let now = Instant::now();
                let has_room = f64::from(state.under_way) < state.room.floor();
                if !state.busy || has_room && now >= state.resting_until {
                    state.under_way += 1;
                    // Where there was room for one, there may be for the next in the queue.
                    self.inner.freed.notify_one();
                    return Turn { inner: Arc::clone(&self.inner), began: now };
                }
                has_room.then_some(state.resting_until)
            };
            match resting_until {
                Some(until) => drop(timeout_at(until, freed).await),
                None => freed.await,
            }
        }
    }
}

/// The right to have one request under way.
pub(crate) struct Turn {
    inner: Arc<Inner>,
    began: Instant,
}

impl Turn {
    /// The primary's answer is here.
    pub(crate) fn answered(self) {
        let now = Instant::now();
        self.inner.learn(now.duration_since(self.began), now);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.inner.state.lock().under_way -= 1;
        self.inner.freed.notify_one();
    }
}

impl Inner {
    fn learn(&self, took: Duration, now: Instant) {
        let mut state = self.state.lock();
        let since = now.saturating_duration_since(state.answered);
        state.answered = now;
        state.answers += 1;
        if state.answers.is_multiple_of(REMEMBERED) {
            state.quickest = [None, state.quickest[0]];
        }
        state.quickest[0] = Some(state.quickest[0].map_or(took, |known| known.min(took)));
        let quickest = state.quickest.iter().flatten().min().copied().unwrap_or(took);
        if took > quickest * SLOW + SLACK {
            if state.room <= 1.0 {
                state.rest = (state.rest + REST_MORE).min(MOST_REST);
            }
            state.room = (state.room * LEFT).max(1.0);
        } else if state.rest > 0.0 {
            state.rest = (state.rest - REST_LESS).max(0.0);
        } else {
            let added = (ADDED / state.room).min(ADDED_PER_S * since.as_secs_f64());
            state.room = (state.room + added).min(self.most);
        }
        state.resting_until = now + took.min(LONGEST).mul_f64(state.rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next_to_clients() -> Pace {
        let pace = Pace::new(8);
        pace.primary_is(true);
        pace
    }

    /// One answer after the other, as with room for one.
    fn answers(pace: &Pace, took_ms: u64, times: u32) -> f64 {
        let took = Duration::from_millis(took_ms);
        let mut now = pace.inner.state.lock().answered;
        for _ in 0..times {
            now += took;
            pace.inner.learn(took, now);
        }
        pace.inner.state.lock().room
    }

    #[test]
    fn quick_answers_make_room_up_to_the_most_and_slow_ones_leave_one() {
        let pace = next_to_clients();
        assert!(answers(&pace, 1, 4_000) >= 8.0);
        assert!(answers(&pace, 50, 20) < 1.5);
    }

    #[test]
    fn on_a_short_link_room_takes_its_time() {
        let pace = next_to_clients();
        assert!(answers(&pace, 1, 500) <= 2.1, "half a second");
        assert!(answers(&pace, 1, 1_000) >= 3.0, "one and a half");
    }

    #[test]
    fn a_link_that_is_long_is_not_a_primary_that_is_busy() {
        let pace = next_to_clients();
        assert!(answers(&pace, 150, 200) >= 8.0);
    }

    #[test]
    fn a_link_that_became_longer_is_learned() {
        let pace = next_to_clients();
        answers(&pace, 1, 10);
        assert!(answers(&pace, 100, 100) < 1.5);
        // Those that rest was learned from are forgotten, then the rest is given back.
        assert!(answers(&pace, 100, 8 * REMEMBERED) >= 8.0);
    }

    #[test]
    fn rests_come_only_where_there_is_room_for_one_and_end_with_slow_answers() {
        let pace = next_to_clients();
        answers(&pace, 1, 4_000);
        let rest = || pace.inner.state.lock().rest;
        answers(&pace, 50, 2);
        assert!(rest() == 0.0, "there is room to take first");
        answers(&pace, 50, 30);
        assert!(rest() >= MOST_REST);
        answers(&pace, 1, 900);
        assert!(rest() == 0.0);
    }

    #[tokio::test]
    async fn whoever_rests_goes_on_after_it_or_when_the_clients_are_gone() {
        let pace = next_to_clients();
        answers(&pace, 1, 10);
        answers(&pace, 50, 30);
        let resting =
            |rest| pace.inner.state.lock().resting_until = Instant::now() + Duration::from_millis(rest);
        resting(20);
        drop(pace.turn().await);
        assert!(Instant::now() >= pace.inner.state.lock().resting_until);
        resting(3_600_000);
        let mut waiting = Box::pin(pace.turn());
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        pace.primary_is(false);
        drop(waiting.await);
    }

    #[tokio::test]
    async fn a_turn_waits_until_one_is_given_back() {
        let pace = next_to_clients();
        let first = pace.turn().await;
        let mut second = std::pin::pin!(pace.turn());
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        drop(first);
        second.await.answered();
        assert_eq!(pace.inner.state.lock().under_way, 0);
    }

    #[tokio::test]
    async fn whoever_waits_goes_on_when_the_clients_are_gone() {
        let pace = next_to_clients();
        let _first = pace.turn().await;
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(pace.turn())).collect();
        for turn in &mut waiting {
            assert!(futures_util::poll!(turn.as_mut()).is_pending());
        }
        pace.primary_is(false);
        assert_eq!(futures_util::future::join_all(waiting).await.len(), 3);
    }
}
