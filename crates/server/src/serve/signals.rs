//! SIGTERM and SIGINT: the first drains, the second ends the process at once. SIGHUP has things read again.

use std::io::Write as _;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::start_error::StartError;

/// Cancels `stop` at the first signal. Watches for as long as the process lives.
pub(super) fn watch(stop: CancellationToken) -> Result<(), StartError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;
    tokio::spawn(async move {
        let mut wait = async || {
            tokio::select! {
                _ = terminate.recv() => 128 + 15,
                _ = interrupt.recv() => 128 + 2,
            }
        };
        wait().await;
        stop.cancel();
        let status = wait().await;
        // Not through the log, whose writer would not live to write it.
        let said = "a second signal: ending at once, requests under way are broken off";
        drop(writeln!(std::io::stderr(), "twinport: {said}"));
        std::process::exit(status);
    });
    Ok(())
}

/// Each SIGHUP; from now on it no longer ends the process.
pub(super) fn hangups() -> Result<Signal, StartError> {
    signal(SignalKind::hangup()).map_err(StartError::Signals)
}
