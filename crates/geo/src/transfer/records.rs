//! Blob rows of transfers that end at about the same time share a transaction.
//! Guards: a transfer ends only when its row is committed.

use tokio::sync::{mpsc, oneshot};
use twinport_metadata::{Metadata, Result as MetadataResult};
use twinport_oci::Digest;

use super::{Failure, local};
use crate::secondary::Tasks;

/// Rows of one transaction.
const BATCH: usize = 256;

struct Record {
    digest: Digest,
    size: u64,
    done: oneshot::Sender<MetadataResult<()>>,
}

/// The way to the one task that writes blob rows.
pub(super) struct Records {
    queue: mpsc::UnboundedSender<Record>,
}

impl Records {
    /// Starts the task; what waits in its queue is bounded by the transfers under way.
    pub(super) fn start(metadata: Metadata, tasks: &Tasks) -> Self {
        let (queue, records) = mpsc::unbounded_channel();
        tasks.spawn(write(metadata, records));
        Self { queue }
    }

    /// Records a blob that is published; durable when this returns.
    pub(super) async fn store(&self, digest: Digest, size: u64) -> Result<(), Failure> {
        let (done, written) = oneshot::channel();
        let stopped = || Failure::failed("this site is shutting down");
        self.queue.send(Record { digest, size, done }).map_err(|_| stopped())?;
        written.await.map_err(|_| stopped())?.map_err(local)
    }
}

async fn write(metadata: Metadata, mut records: mpsc::UnboundedReceiver<Record>) {
    let mut batch = Vec::new();
    while records.recv_many(&mut batch, BATCH).await > 0 {
        let rows = batch.iter().map(|record| (record.digest, record.size)).collect();
        let outcome = metadata.store_transferred_blobs(rows).await;
        for record in batch.drain(..) {
            // Whoever waited may have been stopped; the row stands all the same.
            let _ = record.done.send(outcome.clone());
        }
    }
}
