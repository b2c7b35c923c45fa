//! The private memory of a process, watched while a test loads it.
//! Guards: a peak between two looks of the test counts; mapped files do not, for they are the page cache's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

const EVERY: Duration = Duration::from_millis(50);

/// Looks at a process every 50 ms, on a thread of its own, until it is dropped.
#[derive(Debug)]
pub struct MemoryWatch {
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Seen {
    peak_kib: AtomicU64,
    looks: AtomicU64,
    ended: AtomicBool,
}

impl MemoryWatch {
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let seen = Arc::<Seen>::default();
        let thread = std::thread::spawn({
            let seen = Arc::clone(&seen);
            move || {
                while !seen.ended.load(Ordering::Relaxed) {
                    seen.peak_kib.fetch_max(private_kib(pid).unwrap_or_default(), Ordering::Relaxed);
                    seen.looks.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(EVERY);
                }
            }
        });
        Self { seen, thread: Some(thread) }
    }

    /// The most since the last call, in MiB, and how often it was looked at.
    #[must_use]
    pub fn take_peak(&self) -> (f64, u64) {
        let peak_kib = self.seen.peak_kib.swap(0, Ordering::Relaxed);
        (peak_kib as f64 / 1024.0, self.seen.looks.swap(0, Ordering::Relaxed))
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.seen.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// `RssAnon` and `RssShmem` of `/proc/PID/status`; none once the process has ended.
fn private_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok()
    };
    Some(field("RssAnon")? + field("RssShmem")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_fills_is_seen_and_a_peak_is_taken_once() {
        let own = std::process::id();
        let before = private_kib(own).unwrap();
        let held = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(private_kib(own).unwrap() >= before + (60 << 10), "64 MiB were filled");
        drop(held);
        assert_eq!(private_kib(u32::MAX), None);
    }
}
