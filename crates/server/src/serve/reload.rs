//! SIGHUP: certificate, key and client CAs are read again, and the configuration for its log level.
//! Invariant: what cannot be used changes nothing, and is said.

use std::sync::Arc;

use tokio::{signal::unix::Signal, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::{Reread, service_manager::ServiceManager};
use crate::{
    config::{Config, ConfigError},
    site::RunningSite,
};

/// Reads again at each hangup, until `stop`.
pub(super) async fn at_each(
    mut hangups: Signal,
    site: &Arc<RunningSite>,
    reread: Option<Reread>,
    manager: &ServiceManager,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            hangup = hangups.recv() => if hangup.is_none() { return },
            () = stop.cancelled() => return,
        }
        manager.reloading();
        read_certificate(site).await;
        if let Some(reread) = &reread {
            read_level(&site.config, reread).await;
        }
        manager.ready();
    }
}

async fn read_certificate(site: &RunningSite) {
    let Some(tls) = site.tls.clone() else { return };
    // What came of it is told and counted where it is done.
    drop(spawn_blocking(move || drop(tls.reload())).await);
}

async fn read_level(running: &Config, reread: &Reread) {
    let source = reread.source.clone();
    let read = spawn_blocking(move || Config::load(&source)).await;
    let read = match read.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())) {
        Ok(read) => read,
        Err(error) => return not_read(&error),
    };
    match reread.log.set_level(&read.log.level) {
        Ok(true) => tracing::warn!(level = read.log.level, "the log level has changed"),
        Ok(false) => {}
        Err(error) => tracing::error!(%error, "kept the log level"),
    }
    let mut comparable = read;
    comparable.log.level.clone_from(&running.log.level);
    comparable.warnings.clone_from(&running.warnings);
    if comparable != *running {
        tracing::warn!(
            "the configuration has changed in more than log.level: restart to put that into effect"
        );
    }
}

fn not_read(error: &ConfigError) {
    tracing::error!(%error, "kept the configuration in use");
}
