//! Hashes of passwords, which are slow on purpose: on threads of their own, at low priority, so that a storm of wrong passwords
//! takes no processor from pulls and pushes.
//! Memory: one hash a thread (argon2: 19 MiB), and as many threads as half the processors, at most 4.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::error::Refusal;

/// Hashes that wait for a thread at most; more are told to come back.
const WAITING: usize = 64;
const MOST_THREADS: usize = 4;
/// As `nice` counts.
const NICE: i32 = 10;

type Job = Box<dyn FnOnce() + Send>;

/// The threads that hash.
#[derive(Debug, Clone)]
pub(crate) struct Hashing {
    jobs: SyncSender<Job>,
}

impl Hashing {
    /// Starts the threads; they end with the last clone.
    pub(crate) fn start() -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel::<Job>(WAITING);
        let queue = Arc::new(Mutex::new(queue));
        let processors = thread::available_parallelism().map_or(1, usize::from);
        for number in 0..(processors / 2).clamp(1, MOST_THREADS) {
            let queue = Arc::clone(&queue);
            thread::Builder::new().name(format!("password-{number}")).spawn(move || work(&queue))?;
        }
        Ok(Self { jobs })
    }

    /// Runs `hash` on one of the threads.
    ///
    /// # Errors
    /// 503 when too many wait already.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        hash: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let busy = || Refusal::unavailable("too many sign-ins are being checked: try again", 2);
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move || {
            // Whoever asked may have gone.
            answer.send(hash()).ok();
        });
        match self.jobs.try_send(job) {
            Ok(()) => answered.await.map_err(|_| busy()),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(busy()),
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    // Linux gives each thread a priority of its own. Where it may not be lowered, the work is done all the same.
    rustix::process::setpriority_process(None, NICE).ok();
    loop {
        let job = queue.lock().recv();
        match job {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_storm_is_told_to_come_back_and_takes_no_more_memory() {
        let hashing = Hashing::start().unwrap();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let wait = || {
            let held = Arc::clone(&held);
            move || held.lock().recv().ok()
        };
        let running: Vec<_> = (0..WAITING + 2 * MOST_THREADS)
            .map(|_| {
                let (hashing, wait) = (hashing.clone(), wait());
                tokio::spawn(async move { hashing.run(wait).await.is_ok() })
            })
            .collect();
        // All are tried before any is let go.
        while running.iter().filter(|task| task.is_finished()).count() < MOST_THREADS {
            tokio::task::yield_now().await;
        }
        drop(release);
        let mut met = 0;
        for task in running {
            met += usize::from(task.await.unwrap());
        }
        assert!((WAITING..=WAITING + MOST_THREADS).contains(&met), "{met}");
    }
}
