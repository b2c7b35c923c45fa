//! The numbers of events: dense, chained, and never against what a client could have observed.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::{checked_log, note, on_postgres, on_sqlite, postgres_address};
use crate::Metadata;

/// When each write began and was acknowledged, on one logical clock.
#[derive(Clone, Default)]
struct Timeline {
    ticks: Arc<AtomicU64>,
    spans: Arc<Mutex<HashMap<String, (u64, u64)>>>,
}

impl Timeline {
    async fn write(&self, metadata: &Metadata, lock: &str, id: String) {
        let began = self.ticks.fetch_add(1, Ordering::SeqCst);
        note(metadata, lock, &id).await.unwrap();
        let acknowledged = self.ticks.fetch_add(1, Ordering::SeqCst);
        self.spans.lock().insert(id, (began, acknowledged));
    }

    /// Acknowledged before another began: the lower number.
    async fn check(&self, metadata: &Metadata) {
        let log = checked_log(metadata).await;
        let spans = self.spans.lock();
        assert_eq!(log.len(), spans.len(), "as many events as acknowledged writes");
        let mut latest_begin = 0;
        for logged in &log {
            let id = logged.event().unwrap().actor.unwrap();
            let (began, acknowledged) = spans[&id];
            assert!(
                acknowledged > latest_begin,
                "{id} was acknowledged before a write that has a lower number began"
            );
            latest_begin = latest_begin.max(began);
        }
    }
}

async fn write_from_many(metadata: &Metadata, timeline: &Timeline, prefix: &str, writes: usize) {
    let mut writers = JoinSet::new();
    for writer in 0..12 {
        let (metadata, timeline, prefix) = (metadata.clone(), timeline.clone(), prefix.to_owned());
        writers.spawn(async move {
            for index in 0..writes {
                // A third of the writers fight for one name, as pushes of one tag do.
                let lock = if writer % 3 == 0 { "shared".to_owned() } else { format!("{writer}-{index}") };
                timeline.write(&metadata, &lock, format!("{prefix}-{writer}-{index}")).await;
            }
        });
    }
    writers.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writers_leave_a_dense_chain_in_real_time_order_on_sqlite() {
    let site = on_sqlite().await;
    let timeline = Timeline::default();
    write_from_many(&site.metadata, &timeline, "a", 40).await;
    timeline.check(&site.metadata).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writers_leave_a_dense_chain_in_real_time_order_on_postgres() {
    let Some(address) = postgres_address().await else { return };
    let metadata = on_postgres(&address).await;
    let timeline = Timeline::default();
    write_from_many(&metadata, &timeline, "a", 40).await;
    timeline.check(&metadata).await;
}

/// Hazard R29's other half: whoever numbers may vanish at any moment, and nothing is numbered twice or late.
#[tokio::test(flavor = "multi_thread")]
async fn the_order_holds_while_the_sequencer_is_killed_and_replaced() {
    let Some(address) = postgres_address().await else { return };
    let writer = on_postgres(&address).await;
    let timeline = Timeline::default();
    let writing = {
        let (writer, timeline) = (writer.clone(), timeline.clone());
        tokio::spawn(async move { write_from_many(&writer, &timeline, "a", 60).await })
    };
    while !writing.is_finished() {
        // A node that starts, numbers in competition, and dies in the middle of whatever it does.
        let node = on_postgres(&address).await;
        let passes = tokio::spawn({
            let node = node.clone();
            async move { while node.sequence_now().await.is_ok() {} }
        });
        tokio::time::sleep(Duration::from_millis(30)).await;
        passes.abort();
        node.close().await;
    }
    writing.await.unwrap();
    timeline.check(&writer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_transaction_in_another_database_delays_no_event() {
    let Some(address) = postgres_address().await else { return };
    let other = postgres_address().await.unwrap();
    let (client, connection) = tokio_postgres::connect(&other, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    // Writing gives it a transaction id, which holds back the whole server's snapshots.
    client.batch_execute("BEGIN; CREATE TABLE held (id BIGINT)").await.unwrap();

    let metadata = on_postgres(&address).await;
    let mut head = metadata.watch_head();
    note(&metadata, "x", "seen").await.unwrap();

    let moved = head.wait_for(|head| head.is_some_and(|head| head.position.seq == 1));
    tokio::time::timeout(Duration::from_secs(20), moved).await.expect("the event was numbered").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_did_not_write_sees_the_head_move() {
    let Some(address) = postgres_address().await else { return };
    let (writer, reader) = (on_postgres(&address).await, on_postgres(&address).await);
    let mut head = reader.watch_head();
    note(&writer, "x", "seen").await.unwrap();
    let moved = head.wait_for(|head| head.is_some_and(|head| head.position.seq == 1));
    tokio::time::timeout(Duration::from_secs(20), moved).await.expect("the other node hears of it").unwrap();
}
