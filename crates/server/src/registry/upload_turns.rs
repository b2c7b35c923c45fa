//! Whose turn it is to write an upload session, within this process; between processes the session's version decides.
//! Invariant: two requests never write one spool at the same time, so their bytes cannot interleave (hazard S9).

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use twinport_oci::UploadId;

use crate::error::Refusal;

/// A request waits this long for the one before it, which at worst stalls until its body times out.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ended sessions that this process remembers: minutes of the busiest push, in less than 2 MiB.
const REMEMBERED: usize = 32 << 10;

/// The sessions that a request of this process holds or waits for, and those that ended lately.
#[derive(Debug, Default, Clone)]
pub(super) struct Sessions {
    slots: Arc<Mutex<HashMap<UploadId, Arc<Slot>>>>,
    ended: Arc<Mutex<Ended>>,
}

/// Sessions that ended, the latest ones.
#[derive(Debug, Default)]
struct Ended {
    ids: HashSet<UploadId>,
    in_order: VecDeque<UploadId>,
}

#[derive(Debug, Default)]
struct Slot {
    turn: Arc<tokio::sync::Mutex<()>>,
    cancelled: CancellationToken,
}

/// The right to write one session, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    held: Held,
    guard: Option<OwnedMutexGuard<()>>,
}

/// A slot that somebody uses; the last one to let go removes it from the map.
#[derive(Debug)]
struct Held {
    sessions: Sessions,
    id: UploadId,
    slot: Arc<Slot>,
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.slots.lock().len()
    }

    /// Whether the session ended here lately.
    pub(super) fn have_ended(&self, id: &UploadId) -> bool {
        self.ended.lock().ids.contains(id)
    }

    /// Waits for the turn.
    pub(super) async fn turn(&self, id: UploadId) -> Result<Turn, Refusal> {
        self.hold(id).wait().await
    }

    /// Ends the body that is being written, if there is one, and waits for the turn.
    pub(super) async fn turn_after_cancelling(&self, id: UploadId) -> Result<Turn, Refusal> {
        let held = self.hold(id);
        held.slot.cancelled.cancel();
        held.wait().await
    }

    fn hold(&self, id: UploadId) -> Held {
        let slot = self.slots.lock().entry(id).or_default().clone();
        Held { sessions: self.clone(), id, slot }
    }
}

impl Held {
    async fn wait(self) -> Result<Turn, Refusal> {
        let turn = self.slot.turn.clone();
        match timeout(PATIENCE, turn.lock_owned()).await {
            Ok(guard) => Ok(Turn { held: self, guard: Some(guard) }),
            Err(_) => Err(Refusal::unavailable("another request is writing this upload", 5)),
        }
    }
}

impl Turn {
    /// Fires when the client cancels the session.
    pub(super) fn cancelled(&self) -> CancellationToken {
        self.held.slot.cancelled.clone()
    }

    /// Whether the session ended before this turn came.
    pub(super) fn has_ended(&self) -> bool {
        self.held.sessions.have_ended(&self.held.id)
    }

    /// Remembers that the session ended with this turn.
    pub(super) fn end(&self) {
        self.held.sessions.ended.lock().push(self.held.id);
    }
}

impl Ended {
    fn push(&mut self, id: UploadId) {
        if !self.ids.insert(id) {
            return;
        }
        self.in_order.push_back(id);
        if self.in_order.len() > REMEMBERED
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Before the slot is let go: a new slot for the same session must not be had while this one is held.
        self.guard.take();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut slots = self.sessions.slots.lock();
        // The map's own and this one: clones are made under the lock only.
        if Arc::strong_count(&self.slot) == 2 {
            slots.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn s9_turns_are_taken_one_at_a_time_and_leave_nothing_behind() {
        let sessions = Sessions::default();
        let id = UploadId::new();
        let first = sessions.turn(id).await.unwrap();
        let mut waiting = Box::pin(sessions.turn(id));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        let other = sessions.turn(UploadId::new()).await.unwrap();
        drop(first);
        let second = waiting.await.unwrap();
        assert_eq!(sessions.len(), 2);
        drop((second, other));
        assert_eq!(sessions.len(), 0);
    }

    #[tokio::test]
    async fn what_ended_is_remembered_up_to_a_number() {
        let sessions = Sessions::default();
        let first = UploadId::new();
        sessions.turn(first).await.unwrap().end();
        assert!(sessions.have_ended(&first));
        assert!(sessions.turn(first).await.unwrap().has_ended());
        for _ in 0..REMEMBERED {
            sessions.turn(UploadId::new()).await.unwrap().end();
        }
        assert!(!sessions.have_ended(&first));
        assert_eq!(sessions.ended.lock().ids.len(), REMEMBERED);
    }

    #[tokio::test]
    async fn cancelling_reaches_the_request_that_has_the_turn() {
        let sessions = Sessions::default();
        let id = UploadId::new();
        let writing = sessions.turn(id).await.unwrap();
        let cancelled = writing.cancelled();
        let mut cancelling = Box::pin(sessions.turn_after_cancelling(id));
        assert!(futures_util::poll!(cancelling.as_mut()).is_pending());
        assert!(cancelled.is_cancelled());
        drop(writing);
        cancelling.await.unwrap();
    }
}
