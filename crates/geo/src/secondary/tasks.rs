//! The tasks of one engine: started anywhere in it, ended together.
//! Guards: after a stop nothing of the engine runs on, and nothing new starts.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::task::JoinSet;

/// A set of tasks; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Tasks {
    set: Arc<Mutex<Set>>,
}

#[derive(Default)]
struct Set {
    running: JoinSet<()>,
    ended: bool,
}

impl Tasks {
    /// Starts a task, unless the set was ended. A panic in it is logged and ends it alone.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut set = self.set.lock();
        if set.ended {
            return;
        }
        while set.running.try_join_next().is_some() {}
        set.running.spawn(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                tracing::error!("bug: a task of the replication engine panicked");
            }
        });
    }

    /// Ends every task and waits until they have ended.
    pub(crate) async fn stop(&self) {
        loop {
            let mut running = {
                let mut set = self.set.lock();
                set.ended = true;
                std::mem::take(&mut set.running)
            };
            if running.is_empty() {
                return;
            }
            running.shutdown().await;
        }
    }

    /// Ends every task without waiting.
    pub(crate) fn abort(&self) {
        let mut set = self.set.lock();
        set.ended = true;
        set.running.abort_all();
    }
}
