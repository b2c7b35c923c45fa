//! Hazard S11: PostgreSQL ends in every way it can, under a site that runs on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use twinport_testkit::Stop;

use super::{checked_log, note, on_postgres, own_server};
use crate::{Error, Metadata};

async fn write_until(metadata: Metadata, writer: usize, stop: Arc<AtomicBool>) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for index in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let id = format!("{writer}-{index}");
        match note(&metadata, &format!("name {}", index % 3), &id).await {
            Ok(()) => acknowledged.push(id),
            Err(error) => assert!(matches!(error, Error::Unavailable(_)), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_a_server_that_is_restarted_in_any_way_costs_no_acknowledged_write_and_no_restart_of_ours() {
    let Some(mut server) = own_server(&[]) else { return };
    let metadata = on_postgres(&server.database("registry").await.unwrap()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> =
        (0..6).map(|writer| tokio::spawn(write_until(metadata.clone(), writer, Arc::clone(&stop)))).collect();
    for how in [Stop::Fast, Stop::Immediate, Stop::Kill] {
        note_at_last(&metadata, "before").await;
        server.stop(how).unwrap();
        let error = note(&metadata, "x", "refused").await.unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{how:?}: {error}");
        assert!(metadata.ping().await.is_err(), "{how:?}: nobody is told that the site is well");
        server.resume().unwrap();
        note_at_last(&metadata, "after").await;
    }
    stop.store(true, Ordering::SeqCst);
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
    assert!(acknowledged.len() > 20, "{} writes are no load", acknowledged.len());
    for id in &acknowledged {
        assert!(stored.contains(id), "write {id} was acknowledged and is gone");
    }
    assert_eq!(metadata.site().await.unwrap().halted, None, "a server that lost nothing is believed");
}

/// A client's own patience.
async fn note_at_last(metadata: &Metadata, id: &str) {
    for _ in 0..600 {
        if note(metadata, "x", id).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the site does not take writes again");
}
