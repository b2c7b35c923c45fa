//! What an HTTP/2 connection is doing. Invariant: pings alone hold no place, neither do answers that nobody takes (A10).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::sleep;

/// Fewer bytes than this, written in the time that a client is given, are no progress of an answer: pings and settings
/// are written too.
const PACE: u64 = 1024;

/// Counted by the connection, looked at by whoever ends it.
#[derive(Debug, Clone, Default)]
pub(super) struct Activity(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Requests without an answer yet.
    handled: AtomicUsize,
    /// Requests so far.
    requests: AtomicUsize,
    /// Bytes written so far.
    written: AtomicU64,
}

/// A request under way; it is one until this is dropped.
pub(super) struct Handled(Activity);

impl Drop for Handled {
    fn drop(&mut self) {
        self.0.0.handled.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Activity {
    pub(super) fn request_begins(&self) -> Handled {
        self.0.handled.fetch_add(1, Ordering::Relaxed);
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        Handled(self.clone())
    }

    pub(super) fn wrote(&self, bytes: usize) {
        self.0.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Resolves once, for at least `patience`, nothing was asked, nothing was being answered, and nothing to speak of
    /// was taken of earlier answers.
    pub(super) async fn ceases(&self, patience: Duration) {
        let mut last = self.look();
        loop {
            sleep(patience).await;
            if self.has_ceased_since(&mut last) {
                return;
            }
        }
    }

    fn look(&self) -> Look {
        let requests = self.0.requests.load(Ordering::Relaxed);
        Look { requests, written: self.0.written.load(Ordering::Relaxed) }
    }

    /// Whether nothing came of the connection since the last look, which this one replaces.
    fn has_ceased_since(&self, last: &mut Look) -> bool {
        let idle = self.0.handled.load(Ordering::Relaxed) == 0;
        let look = self.look();
        let Look { requests, written } = std::mem::replace(last, look);
        idle && look.requests == requests && look.written - written < PACE
    }
}

/// What had been counted at one moment.
#[derive(Debug, Clone, Copy)]
struct Look {
    requests: usize,
    written: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_ceased_only_when_nothing_goes_on() {
        let activity = Activity::default();
        let mut last = activity.look();
        let handled = activity.request_begins();
        assert!(!activity.has_ceased_since(&mut last), "a request came");
        assert!(!activity.has_ceased_since(&mut last), "it is being answered");
        drop(handled);
        activity.wrote(200_000);
        assert!(!activity.has_ceased_since(&mut last), "its answer is being taken");
        activity.wrote(1024);
        assert!(!activity.has_ceased_since(&mut last), "slowly");
        for _ in 0..3 {
            activity.wrote(17);
        }
        assert!(activity.has_ceased_since(&mut last), "pings are all there is");
    }
}
