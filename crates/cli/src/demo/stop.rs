//! Ctrl-C and SIGTERM: the demo ends its sites first, then itself.

use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Whether the demo was told to stop.
#[derive(Clone)]
pub(super) struct Stop(CancellationToken);

impl Stop {
    pub(super) fn watch() -> anyhow::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for Ctrl-C")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
        let token = CancellationToken::new();
        let stop = token.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            stop.cancel();
        });
        Ok(Self(token))
    }

    pub(super) async fn wait(&self) {
        self.0.cancelled().await;
    }

    /// What `work` comes to; nothing when the demo was told to stop meanwhile.
    pub(super) async fn unless<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.wait() => None,
        }
    }
}

/// Told to stop before anything was shown to hold.
pub(super) fn interrupted() -> ExitCode {
    crate::output::complain("twinport: stopped before everything was compared");
    ExitCode::from(130)
}
