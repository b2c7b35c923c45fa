//! The injected clock: nothing in the house reads the time by itself.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

/// Wall time in microseconds since the Unix epoch, UTC.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The machine's clock.
    System,
    /// A clock that a test sets and steps.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// Microseconds since the Unix epoch.
    #[must_use]
    pub fn now_us(&self) -> i64 {
        match self {
            Self::System => {
                #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
                let now = std::time::SystemTime::now();
                let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
            }
            Self::Manual(at) => at.load(Ordering::SeqCst),
        }
    }
}
