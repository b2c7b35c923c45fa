//! Which repositories are waiting for a worker, in this process.
//! Guards: one worker at a time has a repository; a repository that is told of while it is worked on is worked on
//! again; live events overtake listings; one that rests does so for a moment at most.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};
use twinport_metadata::RepositoryUuid;

/// How long blobs wait for the manifest that names them: most of a push is through by then, and one transaction makes all
/// of it visible.
pub(crate) const REST: Duration = Duration::from_millis(250);

/// Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Scheduler {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    queues: Mutex<Queues>,
    /// For workers that take anything.
    any: Notify,
    /// For workers that take live work alone.
    live: Notify,
    /// For whoever looks into the database for due work.
    look: Notify,
    look_at: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Queues {
    live: VecDeque<RepositoryUuid>,
    background: VecDeque<RepositoryUuid>,
    places: HashMap<RepositoryUuid, Place>,
    /// Since when those rest that were not worked on to the end since.
    rested_from: HashMap<RepositoryUuid, Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Queued,
    Active,
    /// Active, and told of again.
    ActiveAgain,
    /// Left alone until it is told of again, or the moment is over.
    Resting,
}

/// Which queue a repository waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Live,
    Background,
}

impl Scheduler {
    /// Queues a repository, unless it waits already.
    pub(crate) fn push(&self, uuid: RepositoryUuid, lane: Lane) {
        let mut queues = self.inner.queues.lock();
        match queues.places.get_mut(&uuid) {
            Some(place @ Place::Active) => *place = Place::ActiveAgain,
            Some(Place::Queued | Place::ActiveAgain) => {}
            Some(Place::Resting) | None => queues.enqueue(uuid, lane),
        }
        drop(queues);
        self.wake(lane);
    }

    fn wake(&self, lane: Lane) {
        self.inner.any.notify_one();
        if lane == Lane::Live {
            self.inner.live.notify_one();
        }
    }

    /// The next repository for a worker, which must give it back by [`Self::done`].
    pub(crate) async fn next(&self, listings: bool) -> RepositoryUuid {
        loop {
            {
                let mut queues = self.inner.queues.lock();
                let next = queues.live.pop_front();
                let next = next.or_else(|| listings.then(|| queues.background.pop_front()).flatten());
                if let Some(uuid) = next {
                    queues.places.insert(uuid, Place::Active);
                    let low = queues.background.is_empty();
                    drop(queues);
                    if low {
                        self.inner.look.notify_one();
                    }
                    return uuid;
                }
            }
            if listings {
                self.inner.any.notified().await;
            } else {
                self.inner.live.notified().await;
            }
        }
    }

    /// A worker is through with a repository; `again` queues it in that lane.
    pub(crate) fn done(&self, uuid: RepositoryUuid, again: Option<Lane>) {
        let mut queues = self.inner.queues.lock();
        queues.rested_from.remove(&uuid);
        let told = queues.places.remove(&uuid) == Some(Place::ActiveAgain);
        let again = again.or(told.then_some(Lane::Live));
        if let Some(lane) = again {
            queues.enqueue(uuid, lane);
            drop(queues);
            self.wake(lane);
        }
    }

    /// Whether a repository may be left alone for now.
    pub(crate) fn may_rest(&self, uuid: RepositoryUuid) -> bool {
        self.inner.queues.lock().rested_from.get(&uuid).is_none_or(|from| from.elapsed() < REST)
    }

    /// A worker leaves a repository alone until it is told of again, for [`REST`] at most. Its lease stays.
    pub(crate) fn rest(&self, uuid: RepositoryUuid) -> impl Future<Output = ()> + use<> {
        let mut queues = self.inner.queues.lock();
        let from = *queues.rested_from.entry(uuid).or_insert_with(Instant::now);
        let told = queues.places.insert(uuid, Place::Resting) == Some(Place::ActiveAgain);
        drop(queues);
        let scheduler = self.clone();
        if told {
            scheduler.end_rest(uuid);
        }
        async move {
            tokio::time::sleep_until(from + REST).await;
            scheduler.end_rest(uuid);
        }
    }

    fn end_rest(&self, uuid: RepositoryUuid) {
        let mut queues = self.inner.queues.lock();
        if queues.places.get(&uuid) == Some(&Place::Resting) {
            queues.enqueue(uuid, Lane::Live);
            drop(queues);
            self.wake(Lane::Live);
        }
    }

    /// What is queued, worked on or rests: the leases to renew.
    pub(crate) fn held(&self) -> Vec<RepositoryUuid> {
        self.inner.queues.lock().places.keys().copied().collect()
    }

    /// How many wait in the background lane.
    pub(crate) fn waiting(&self) -> usize {
        self.inner.queues.lock().background.len()
    }

    /// Asks for a look into the database after `wait` at the latest.
    pub(crate) fn look_by(&self, wait: Duration) {
        let at = Instant::now() + wait;
        let mut look_at = self.inner.look_at.lock();
        if look_at.is_none_or(|planned| at < planned) {
            *look_at = Some(at);
            drop(look_at);
            self.inner.look.notify_one();
        }
    }

    /// Waits until it is time to look into the database, at most `most`.
    pub(crate) async fn time_to_look(&self, most: Duration) {
        let limit = Instant::now() + most;
        loop {
            let planned = *self.inner.look_at.lock();
            let until = planned.map_or(limit, |at| at.min(limit));
            if until <= Instant::now() {
                self.inner.look_at.lock().take();
                return;
            }
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                () = self.inner.look.notified() => {
                    if self.inner.queues.lock().background.is_empty() && planned.is_none() {
                        return;
                    }
                }
            }
        }
    }
}

impl Queues {
    fn enqueue(&mut self, uuid: RepositoryUuid, lane: Lane) {
        self.places.insert(uuid, Place::Queued);
        match lane {
            Lane::Live => self.live.push_back(uuid),
            Lane::Background => self.background.push_back(uuid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uuid() -> RepositoryUuid {
        RepositoryUuid::random()
    }

    #[tokio::test]
    async fn live_work_overtakes_the_background() {
        let scheduler = Scheduler::default();
        let (old, live) = (uuid(), uuid());
        scheduler.push(old, Lane::Background);
        scheduler.push(live, Lane::Live);
        assert_eq!(scheduler.next(true).await, live);
        assert_eq!(scheduler.next(true).await, old);
    }

    #[tokio::test]
    async fn a_repository_told_of_while_it_is_worked_on_is_worked_on_again_and_never_twice_at_once() {
        let scheduler = Scheduler::default();
        let one = uuid();
        scheduler.push(one, Lane::Live);
        scheduler.push(one, Lane::Live);
        assert_eq!(scheduler.next(true).await, one);
        scheduler.push(one, Lane::Live);
        assert!(scheduler.inner.queues.lock().live.is_empty());
        scheduler.done(one, None);
        assert_eq!(scheduler.next(false).await, one);
        scheduler.done(one, None);
        assert!(scheduler.held().is_empty());
    }

    #[tokio::test]
    async fn who_rests_is_woken_by_news_or_by_the_end_of_the_moment_and_rests_no_longer() {
        let (scheduler, one) = (Scheduler::default(), uuid());
        let began = Instant::now();
        scheduler.push(one, Lane::Live);
        assert_eq!(scheduler.next(true).await, one);
        let moment = scheduler.rest(one);
        assert_eq!(scheduler.held(), [one], "its lease is renewed");
        // Told of before the moment is over: its timer does not run here.
        scheduler.push(one, Lane::Live);
        assert_eq!(scheduler.next(true).await, one);
        drop(moment);
        tokio::spawn(scheduler.rest(one));
        assert_eq!(scheduler.next(false).await, one);
        assert!(began.elapsed() >= REST, "the moment begins with the first rest");
        assert!(!scheduler.may_rest(one));
        scheduler.done(one, None);
        assert!(scheduler.may_rest(one) && scheduler.held().is_empty());
        // Told of while it was worked on: no rest.
        scheduler.push(one, Lane::Live);
        assert_eq!(scheduler.next(true).await, one);
        scheduler.push(one, Lane::Live);
        drop(scheduler.rest(one));
        assert_eq!(scheduler.next(true).await, one);
    }

    #[tokio::test]
    async fn a_look_asked_for_sooner_comes_sooner() {
        let scheduler = Scheduler::default();
        scheduler.look_by(Duration::from_secs(3_600));
        scheduler.look_by(Duration::ZERO);
        tokio::time::timeout(Duration::from_secs(10), scheduler.time_to_look(Duration::from_secs(3_600)))
            .await
            .unwrap();
    }
}
