//! The threads that hash and write the batches of uploads: as many as there are cores, so that requests get their share.
//!
//! A batch that waits for one costs no thread, and no wake-up once its turn has come: a thread that has ended a batch takes
//! the next one off the queue by itself. Turns handed out to tasks, which start a thread of the common pool each, cost 4
//! uploads of 256 MiB a twentieth more processor time and take a tenth longer.

use std::num::NonZero;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

use crate::{Error, Result};

/// A store's threads for batches.
#[derive(Debug)]
pub(crate) struct BatchThreads {
    queue: Handle,
    /// Nothing runs on it but blocking jobs. Taken when this is dropped, and only then.
    pool: Option<Runtime>,
    most: usize,
}

impl BatchThreads {
    /// Threads start with the first batches, and end when there have been none for a while.
    ///
    /// # Errors
    /// [`Error::Threads`], when the system has no room for them.
    pub(crate) fn new() -> Result<Self> {
        // One that waits for the disk leaves its core to another.
        let most = available_parallelism().map_or(2, NonZero::get).max(2);
        let pool = Builder::new_current_thread().thread_name("batches").max_blocking_threads(most).build();
        let pool = pool.map_err(Error::Threads)?;
        Ok(Self { queue: pool.handle().clone(), pool: Some(pool), most })
    }

    /// Whether so many uploads keep every thread busy with one batch each on their way.
    pub(crate) fn are_busy_with(&self, uploads: usize) -> bool {
        uploads > 2 * self.most
    }

    /// Queues a batch; those that came first run first. It runs to its end also when nobody waits for it any more.
    pub(crate) fn run<T: Send + 'static>(&self, batch: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        self.queue.spawn_blocking(batch)
    }
}

impl Drop for BatchThreads {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            // Waiting for what runs is not for a task to do, and stores are dropped by tasks.
            pool.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Barrier, mpsc};

    use super::*;

    #[tokio::test]
    async fn as_many_batches_run_at_one_time_as_there_are_cores_and_no_more() {
        let threads = BatchThreads::new().unwrap();
        let cores = threads.most;
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let all_run = Arc::new(Barrier::new(cores));
        let batches: Vec<_> = (0..8 * cores)
            .map(|number| {
                let (running, most, all_run) = (running.clone(), most.clone(), all_run.clone());
                threads.run(move || {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    all_run.wait();
                    running.fetch_sub(1, Ordering::SeqCst);
                    number
                })
            })
            .collect();
        for (number, batch) in batches.into_iter().enumerate() {
            assert_eq!(batch.await.unwrap(), number);
        }
        assert_eq!(most.load(Ordering::SeqCst), cores);
    }

    #[tokio::test]
    async fn what_runs_is_not_broken_off_by_the_end_of_its_store() {
        let threads = BatchThreads::new().unwrap();
        let (begun, begins) = tokio::sync::oneshot::channel();
        let (go, wait) = mpsc::channel();
        let batch = threads.run(move || {
            begun.send(()).unwrap();
            wait.recv() == Ok(7)
        });
        begins.await.unwrap();
        drop(threads);
        go.send(7).unwrap();
        assert!(batch.await.unwrap());
    }
}
