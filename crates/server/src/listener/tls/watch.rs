//! Looks after the files of a certificate, so that a renewed one is taken without anybody saying so.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Tls;
use super::material::Files;

/// Reads the files every so often, and takes them once two readings in a row agree: certificate and key are two files,
/// and whoever renews them writes one after the other. What cannot be used is complained of once.
pub(crate) async fn watch(tls: Arc<Tls>, every: Duration, stop: CancellationToken) {
    let mut rounds = interval(every);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut last, mut tried) = (None, None);
    loop {
        tokio::select! {
            _ = rounds.tick() => {}
            () = stop.cancelled() => return,
        }
        let look = tls.clone();
        let looked = tokio::task::spawn_blocking(move || {
            // Which file is missing is said once the same is found again.
            let found = Files::read(&look.config).map(|files| files.hash()).ok();
            let (steady, is_new) = (last == Some(found), tried != Some(found));
            if steady && is_new {
                // Told and counted where it is done.
                drop(look.reload());
                return (found, Some(found));
            }
            (found, tried)
        });
        let Ok((found, now_tried)) = looked.await else { continue };
        (last, tried) = (Some(found), now_tried);
    }
}

#[cfg(test)]
mod tests {
    use twinport_metadata::Clock;
    use twinport_testkit::KeyedCertificate;

    use super::*;
    use crate::config::TlsConfig;

    #[tokio::test]
    async fn renewed_files_are_taken_by_themselves_and_broken_ones_are_counted_once() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = KeyedCertificate::self_signed().unwrap().write(folder.path()).unwrap();
        let config = TlsConfig::new(certificate.clone(), key);
        let tls = Tls::load(config, Clock::System).unwrap();
        let stop = CancellationToken::new();
        let watching = tokio::spawn(watch(tls.clone(), Duration::from_millis(10), stop.clone()));
        let until = async |what: &str, holds: &dyn Fn() -> bool| {
            for _ in 0..3000 {
                if holds() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("never happened: {what}");
        };
        let first = tls.chain();
        std::fs::write(&certificate, "nothing").unwrap();
        until("the broken file is counted", &|| tls.counters().reloads("failed") == 1).await;
        // Many more looks do not count it again: the next change is the next count.
        KeyedCertificate::self_signed().unwrap().write(folder.path()).unwrap();
        until("the new pair is taken", &|| tls.chain() != first).await;
        assert_eq!(tls.counters().reloads("ok"), 1);
        stop.cancel();
        watching.await.unwrap();
    }
}
