//! Whose turn it is to write an upload session, within this process; between processes the session's version decides.
//! Invariant: two requests never write one spool at the same time, so their bytes cannot interleave (hazard S9).

use std::collections::HashMap;
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

/// The sessions that a request of this process holds or waits for.
#[derive(Debug, Default, Clone)]
pub(super) struct Sessions(Arc<Mutex<HashMap<UploadId, Arc<Slot>>>>);

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
        self.0.lock().len()
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
        let slot = self.0.lock().entry(id).or_default().clone();
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
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Before the slot is let go: a new slot for the same session must not be had while this one is held.
        self.guard.take();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut slots = self.sessions.0.lock();
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
