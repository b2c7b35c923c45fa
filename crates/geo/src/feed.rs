//! The primary's end of a log stream: the handshake, events as they are numbered, heartbeats, and reports.
//!
//! **Architecture invariant:** a heartbeat's head comes from a sequencer pass begun after its nonce was read.

mod activity;
mod handshake;
mod stream;

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::watch;
use twinport_access::SigningKey;
use twinport_metadata::{Actor, Incarnation, LogHead, Metadata, SiteRecord, StoredReport};

pub use self::{activity::ClientActivity, stream::LogFeed};
use crate::{
    Error, Peer, Refusal, RefusalCode, Result,
    credential::removed,
    protocol::{Head, StatusReport},
};

/// Everything that streams of this process share; cheap to clone.
#[derive(Clone)]
pub struct Feed {
    metadata: Metadata,
    readers: Arc<Mutex<Readers>>,
    activity: ClientActivity,
}

#[derive(Default)]
struct Readers {
    signals: HashMap<Incarnation, watch::Sender<ReaderSignal>>,
    closed: bool,
}

/// Why a stream looks up from waiting. What is true is read from the database, so that any node may hold the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ReaderSignal {
    /// Counts reports that brought a nonce.
    reports: u64,
    /// The site was removed.
    ended: bool,
}

impl Feed {
    /// A feed of the log of `metadata`; one for the process.
    #[must_use]
    pub fn new(metadata: Metadata) -> Self {
        // Whoever follows must not wait behind this site's clients: its lag would grow with their number.
        let metadata = metadata.reserved();
        Self { metadata, readers: Arc::default(), activity: ClientActivity::default() }
    }

    /// What counts this node's clients, which readers give way to.
    #[must_use]
    pub fn activity(&self) -> &ClientActivity {
        &self.activity
    }

    /// Checks where `peer` says it stands, and streams what comes after.
    ///
    /// # Errors
    /// [`Error::Refused`] with `EPOCH_UNKNOWN`, `HISTORY_REWRITTEN`, `PEER_AHEAD`, `BEYOND_HORIZON`, `NOT_PRIMARY` or
    /// `SITE_REMOVED`. The second and third stop writes on this site, naming the peer.
    pub async fn open(&self, peer: &Peer, cursor: Head) -> Result<LogFeed> {
        let cursor = LogHead::from(cursor);
        handshake::check(&self.metadata, &peer.site, &cursor).await?;
        let signal = self.signal(peer.site.incarnation)?;
        let sent_seq = cursor.position.seq;
        Ok(LogFeed::new(
            self.metadata.clone(),
            peer.site.incarnation,
            sent_seq,
            signal,
            self.activity.clone(),
        ))
    }

    /// Keeps a peer's report and lets its streams answer the nonce at once.
    ///
    /// # Errors
    /// [`Error::Refused`] with `SCOPE` for a report about another site, with `SITE_REMOVED` after a removal.
    pub async fn report(&self, peer: &Peer, report: &StatusReport) -> Result<()> {
        let incarnation = peer.site.incarnation;
        if report.incarnation != incarnation {
            let message = format!("site {} may report its own status only", peer.site.name);
            return Err(Refusal::new(RefusalCode::Scope, message).into());
        }
        let stored = StoredReport {
            incarnation,
            nonce: report.nonce.0,
            report: serde_json::to_string(report).map_err(|error| Error::Protocol(error.to_string()))?,
            reported_at_us: self.metadata.clock().now_us(),
        };
        if !self.metadata.store_report(stored).await? {
            return Err(removed(&peer.site));
        }
        if let Some(reader) = self.readers.lock().signals.get(&incarnation) {
            reader.send_modify(|signal| signal.reports += 1);
        }
        record_token_keys(&self.metadata, &peer.site, report.token_keys.clone()).await;
        Ok(())
    }

    /// Ends the streams of a site that was just removed; other nodes see the removal at their next heartbeat.
    pub fn end(&self, incarnation: Incarnation) {
        if let Some(reader) = self.readers.lock().signals.remove(&incarnation) {
            reader.send_modify(|signal| signal.ended = true);
        }
    }

    /// Ends every stream and opens no more: the process is shutting down.
    pub fn close(&self) {
        let mut readers = self.readers.lock();
        readers.closed = true;
        for (_, reader) in readers.signals.drain() {
            reader.send_modify(|signal| signal.ended = true);
        }
    }

    fn signal(&self, incarnation: Incarnation) -> Result<watch::Receiver<ReaderSignal>> {
        let mut readers = self.readers.lock();
        if readers.closed {
            return Err(
                Refusal::new(RefusalCode::Unavailable, "this site is shutting down: connect again").into()
            );
        }
        Ok(readers.signals.entry(incarnation).or_default().subscribe())
    }
}

/// Records the keys that a site signs tokens with, for all sites. What it reports besides does not depend on them.
pub(crate) async fn record_token_keys(metadata: &Metadata, site: &SiteRecord, keys: Vec<SigningKey>) {
    if keys.is_empty() {
        return;
    }
    let actor = Actor { name: format!("site {}", site.name), correlation: None };
    match metadata.publish_signing_keys(site.incarnation, keys, &actor).await {
        Ok(true) => tracing::info!(site = %site.name, "a site's token keys were recorded"),
        Ok(false) => {}
        // Whoever halted it has been told, and the site reports again.
        Err(twinport_metadata::Error::Halted(_)) => {}
        Err(error) => tracing::warn!(site = %site.name, %error, "a site's token keys could not be recorded"),
    }
}
