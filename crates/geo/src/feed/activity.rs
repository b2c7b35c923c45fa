//! Whether clients want something of this node, so that readers know when to hold back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// From so many requests of clients in a second on, a node counts as busy.
const BUSY_PER_S: u64 = 5;
/// A verdict is kept this long at least.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Counts requests of clients; cheap to clone.
#[derive(Clone, Debug)]
pub struct ClientActivity {
    requests: Arc<AtomicU64>,
    last: Arc<Mutex<Look>>,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    requests: u64,
    busy: bool,
}

impl Default for ClientActivity {
    fn default() -> Self {
        let last = Look { at: Instant::now(), requests: 0, busy: false };
        Self { requests: Arc::default(), last: Arc::new(Mutex::new(last)) }
    }
}

impl ClientActivity {
    /// A client asked for something.
    pub fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether clients have asked for much since this was last looked at.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.was_busy_until(Instant::now())
    }

    fn was_busy_until(&self, now: Instant) -> bool {
        let requests = self.requests.load(Ordering::Relaxed);
        let mut last = self.last.lock();
        let since = now.duration_since(last.at);
        if since >= LOOK_EVERY {
            let per_s = u128::from(requests - last.requests) * 1_000 / since.as_millis().max(1);
            *last = Look { at: now, requests, busy: per_s >= u128::from(BUSY_PER_S) };
        }
        last.busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_busy_while_clients_ask_and_no_longer() {
        let activity = ClientActivity::default();
        let began = Instant::now();
        let ask = |times: u32| (0..times).for_each(|_| activity.request());
        let busy_after = |seconds: f64| activity.was_busy_until(began + Duration::from_secs_f64(seconds));
        ask(10);
        assert!(!busy_after(0.3), "too soon to tell");
        assert!(busy_after(1.0));
        assert!(busy_after(1.1), "the verdict is kept for a moment");
        ask(4);
        assert!(!busy_after(2.0), "a probe now and then is no load");
        ask(10);
        assert!(!busy_after(60.0));
    }
}
