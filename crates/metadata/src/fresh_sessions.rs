//! Upload sessions that this process has begun and never stored: there is no row to look for.
//! Invariant: a session is forgotten here before a write is asked for that may give it a row. Only where no other process has
//! the database does that say anything.

use std::collections::{HashSet, VecDeque};

use parking_lot::Mutex;
use twinport_oci::UploadId;

/// Sessions remembered, the latest ones: seconds of the busiest push, in less than a MiB. One that was forgotten is looked
/// for.
const REMEMBERED: usize = 16 << 10;

#[derive(Debug, Default)]
pub(crate) struct FreshSessions(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    ids: HashSet<UploadId>,
    /// Of all that were begun, also those that were stored since.
    in_order: VecDeque<UploadId>,
}

impl FreshSessions {
    pub(crate) fn begin(&self, id: UploadId) {
        let mut known = self.0.lock();
        known.ids.insert(id);
        known.in_order.push_back(id);
        if known.in_order.len() > REMEMBERED
            && let Some(oldest) = known.in_order.pop_front()
        {
            known.ids.remove(&oldest);
        }
    }

    pub(crate) fn contain(&self, id: &UploadId) -> bool {
        self.0.lock().ids.contains(id)
    }

    pub(crate) fn forget(&self, id: &UploadId) {
        self.0.lock().ids.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_sessions_are_known_until_they_are_stored() {
        let fresh = FreshSessions::default();
        let [first, second] = [UploadId::new(), UploadId::new()];
        fresh.begin(first);
        fresh.begin(second);
        fresh.forget(&second);
        assert!(fresh.contain(&first) && !fresh.contain(&second));
        for _ in 1..REMEMBERED {
            fresh.begin(UploadId::new());
        }
        assert!(!fresh.contain(&first));
        assert!(fresh.0.lock().ids.len() < REMEMBERED);
    }
}
