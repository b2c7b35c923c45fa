//! Hazard S11: PostgreSQL ends in every way it can, under a site that runs on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use twinport_testkit::Stop;

use super::{checked_log, note, on_postgres, own_server};
use crate::{Error, Metadata};

/// What a server must have taken from the writers before it ends, each time: their load decides when, not the clock.
const WRITES_BEFORE_A_STOP: u64 = 30;

/// How the writers are doing, and when they may go home.
#[derive(Default)]
struct Load {
    acknowledged: AtomicU64,
    stop: AtomicBool,
}

impl Load {
    async fn write_until_stopped(self: Arc<Self>, metadata: Metadata, writer: usize) -> Vec<String> {
        let mut acknowledged = Vec::new();
        for index in 0.. {
            if self.stop.load(Ordering::SeqCst) {
                break;
            }
            let id = format!("{writer}-{index}");
            match note(&metadata, &format!("name {}", index % 3), &id).await {
                Ok(()) => {
                    acknowledged.push(id);
                    self.acknowledged.fetch_add(1, Ordering::SeqCst);
                }
                Err(error) => assert!(matches!(error, Error::Unavailable(_)), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        acknowledged
    }

    /// Until that many more were acknowledged, or a client's own patience is over.
    async fn wait_for_more(&self, writes: u64) {
        let wanted = self.acknowledged.load(Ordering::SeqCst) + writes;
        for _ in 0..1200 {
            if self.acknowledged.load(Ordering::SeqCst) >= wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the site does not take writes again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_a_server_that_is_restarted_in_any_way_costs_no_acknowledged_write_and_no_restart_of_ours() {
    let Some(mut server) = own_server(&[]) else { return };
    let metadata = on_postgres(&server.database("registry").await.unwrap()).await;
    let load = Arc::new(Load::default());
    let writers: Vec<_> = (0..6)
        .map(|writer| tokio::spawn(Arc::clone(&load).write_until_stopped(metadata.clone(), writer)))
        .collect();
    for how in [Stop::Fast, Stop::Immediate, Stop::Kill] {
        load.wait_for_more(WRITES_BEFORE_A_STOP).await;
        server.stop(how).unwrap();
        let error = note(&metadata, "x", "refused").await.unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{how:?}: {error}");
        assert!(metadata.ping().await.is_err(), "{how:?}: nobody is told that the site is well");
        server.resume().unwrap();
    }
    load.wait_for_more(WRITES_BEFORE_A_STOP).await;
    load.stop.store(true, Ordering::SeqCst);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    // Numbered by the site itself, without being asked.
    let mut head = metadata.watch_head();
    let least = acknowledged.len() as i64;
    let moved = head.wait_for(|head| head.is_some_and(|head| head.position.seq >= least));
    tokio::time::timeout(Duration::from_secs(60), moved).await.expect("events are numbered").unwrap();
    let stored: std::collections::HashSet<_> =
        checked_log(&metadata).await.iter().map(|event| event.event().unwrap().actor.unwrap()).collect();
    for id in &acknowledged {
        assert!(stored.contains(id), "write {id} was acknowledged and is gone");
    }
    assert_eq!(metadata.site().await.unwrap().halted, None, "a server that lost nothing is believed");
}
