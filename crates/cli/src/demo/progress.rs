//! Progress of something counted in bytes: a bar on a terminal, plain lines elsewhere, both on standard error.

use std::{
    io::IsTerminal as _,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::{bytes, complain};

/// A plain line is due after this share of the whole, or of silence.
const SHARE: u64 = 10;
const SILENCE: Duration = Duration::from_secs(5);

/// Counts bytes, and shows them.
pub(crate) struct Meter {
    what: &'static str,
    total: Option<u64>,
    done: AtomicI64,
    shown: AtomicU64,
    began: Instant,
    /// Only on a terminal.
    bar: Option<ProgressBar>,
}

impl Meter {
    /// Of a known whole.
    pub(crate) fn of(what: &'static str, total: u64) -> Self {
        let style = "  {bar:30} {bytes} of {total_bytes} {msg}, {bytes_per_sec}";
        Self::new(what, Some(total), ProgressBar::new(total), style)
    }

    /// Of an unknown whole.
    pub(crate) fn counting(what: &'static str) -> Self {
        Self::new(what, None, ProgressBar::no_length(), "  {spinner} {bytes} {msg}, {bytes_per_sec}")
    }

    fn new(what: &'static str, total: Option<u64>, bar: ProgressBar, template: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.with_style(style).with_message(what)
        });
        Self { what, total, done: AtomicI64::new(0), shown: AtomicU64::new(0), began: Instant::now(), bar }
    }

    /// More was done; less, where something has to be done again.
    pub(crate) fn add(&self, delta: i64) {
        let done = self.done.fetch_add(delta, Ordering::Relaxed) + delta;
        self.show(u64::try_from(done).unwrap_or(0));
    }

    /// This much is done.
    pub(crate) fn set(&self, done: u64) {
        self.done.store(i64::try_from(done).unwrap_or(i64::MAX), Ordering::Relaxed);
        self.show(done);
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn show(&self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            return;
        }
        // A step is a tenth of the whole, or some seconds; each is told once.
        let step = match self.total {
            Some(total) if total > 0 => done.saturating_mul(SHARE) / total,
            _ => self.began.elapsed().as_secs() / SILENCE.as_secs(),
        };
        if self.shown.fetch_max(step, Ordering::Relaxed) >= step {
            return;
        }
        let whole = self.total.map_or_else(String::new, |total| format!(" of {}", bytes(total)));
        complain(&format!("  {}{whole} {}", bytes(done), self.what));
    }
}
