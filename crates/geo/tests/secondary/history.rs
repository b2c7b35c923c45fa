//! Histories that do not match, events that are not understood, and sites that are no longer welcome.

use bytes::Bytes;
use twinport_geo::{Connection, protocol::Frame};
use twinport_metadata::Actor;

use crate::{
    on_both_databases,
    pair::{Pair, until},
    registry::name,
};

on_both_databases!(
    r6_no_event_is_lost_however_often_the_engine_ends,
    r26_a_broken_hash_chain_is_never_ingested,
    r26_a_database_and_a_blob_store_that_do_not_belong_together_do_not_run,
    r26_a_rewritten_history_stops_both_sites,
    r27_an_unknown_kind_of_event_stops_ingest_and_is_never_skipped,
    r27_events_of_a_peer_one_version_older_are_understood,
    r28_a_removed_site_stops_and_says_so,
);

async fn stops_with(pair: &Pair, words: &str) {
    until(&format!("the engine stops: {words}"), async || match pair.engine().status().connection {
        Connection::Stopped { reason } if reason.contains(words) => None,
        other => Some(format!("{other:?}")),
    })
    .await;
}

async fn r6_no_event_is_lost_however_often_the_engine_ends(mut pair: Pair) {
    pair.join_and_start().await;
    for round in 0..15 {
        for push in 0..4 {
            let layer = format!("{round} {push}");
            let tag = format!("r{round}");
            pair.primary.push_image("team/app", &[layer.as_bytes()], &[&tag, "latest"]).await;
        }
        pair.stop().await;
        pair.primary.delete_tag("team/app", &format!("r{}", round / 2)).await;
        pair.start().await;
    }
    pair.converged().await;
    // Every event is here as the primary wrote it.
    let theirs = pair.primary.metadata.events_after(1, 10_000).await.unwrap();
    let ours = pair.secondary.metadata.events_after(0, 10_000).await.unwrap();
    assert!(!ours.is_empty());
    assert_eq!(ours, theirs[theirs.len() - ours.len()..]);
}

async fn r26_a_broken_hash_chain_is_never_ingested(mut pair: Pair) {
    pair.join_and_start().await;
    pair.primary.push_image("team/app", &[b"one"], &["one"]).await;
    pair.converged().await;
    let cursor = pair.secondary.metadata.log_head().await.unwrap();
    // The bytes of an event are others than its origin wrote; its own hash is kept.
    *pair.faults.frames.lock() = Some(Box::new(|frame| match frame {
        Frame::Event(mut event) => {
            event.body = Bytes::from(String::from_utf8(event.body.to_vec()).unwrap().replace("two", "six"));
            Frame::Event(event)
        }
        heartbeat => heartbeat,
    }));
    pair.primary.push_image("team/app", &[b"two"], &["two"]).await;
    until("the break is noticed", async || match pair.engine().status().connection {
        Connection::Waiting { reason } if reason.contains("running hash breaks") => None,
        other => Some(format!("{other:?}")),
    })
    .await;
    let held = pair.secondary.metadata.events_after(cursor.position.seq, 100).await.unwrap();
    assert!(held.iter().all(|event| !String::from_utf8_lossy(&event.body).contains("six")));
    pair.stop().await;
    pair.faults.heal();
    pair.start().await;
    pair.converged().await;
}

async fn r26_a_database_and_a_blob_store_that_do_not_belong_together_do_not_run(mut pair: Pair) {
    pair.primary.push_image("team/app", &[b"one"], &["one"]).await;
    pair.join().await;
    pair.secondary.blobs.set_incarnation(uuid::Uuid::new_v4()).await.unwrap();
    pair.start().await;
    stops_with(&pair, "one of the two was restored or swapped").await;
    assert!(pair.secondary.metadata.events_after(0, 10).await.unwrap().is_empty());
    assert!(!pair.engine().is_fresh());
}

async fn r26_a_rewritten_history_stops_both_sites(mut pair: Pair) {
    pair.join_and_start().await;
    pair.primary.push_image("team/app", &[b"one"], &["one"]).await;
    pair.converged().await;
    pair.stop().await;
    // The secondary remembers more than the primary has, as after a restore of the primary: an event of its own
    // making continues its log, and the primary's goes on otherwise.
    let cursor = pair.secondary.metadata.log_head().await.unwrap();
    let last = pair.secondary.metadata.event_at(cursor.position.seq).await.unwrap().unwrap();
    let forged = forge(&last, last.body.clone());
    let lease = twinport_metadata::Lease { holder: uuid::Uuid::new_v4(), duration_us: 1 };
    pair.secondary.metadata.ingest(vec![forged], lease).await.unwrap();
    pair.start().await;
    until("the primary refuses the cursor", async || match pair.engine().status().connection {
        Connection::Waiting { reason } if reason.contains("history was rewritten") => None,
        other => Some(format!("{other:?}")),
    })
    .await;
    assert!(
        pair.primary.metadata.site().await.unwrap().halted.is_some_and(|reason| reason.contains("tokyo"))
    );
    assert!(!pair.engine().is_fresh());
}

/// An event that continues `last`, hashed as its origin would.
fn forge(last: &twinport_metadata::LoggedEvent, body: Bytes) -> twinport_metadata::LoggedEvent {
    let position = twinport_metadata::LogPosition { seq: last.position.seq + 1, ..last.position };
    let hash = twinport_metadata::chain(&last.hash, &position, &body);
    twinport_metadata::LoggedEvent { position, hash, body }
}

/// Replaces the bodies of events on their way and hashes them anew, as another primary would have.
fn rewrite(pair: &Pair, change: impl Fn(&mut serde_json::Value) + Send + Sync + 'static) {
    let hash = parking_lot::Mutex::new(None);
    *pair.faults.frames.lock() = Some(Box::new(move |frame| match frame {
        Frame::Event(mut event) => {
            let mut body = serde_json::from_slice(&event.body).unwrap();
            change(&mut body);
            let mut known = hash.lock();
            let before: [u8; 32] = match *known {
                Some((seq, hash)) if seq + 1 == event.position.seq => hash,
                _ => return Frame::Event(event),
            };
            event.body = Bytes::from(serde_json::to_vec(&body).unwrap());
            event.hash = twinport_metadata::chain(&before, &event.position, &event.body);
            *known = Some((event.position.seq, event.hash));
            Frame::Event(event)
        }
        Frame::Heartbeat(heartbeat) => {
            let mut known = hash.lock();
            if known.is_none() {
                *known = Some((heartbeat.head.seq, heartbeat.head.hash));
            }
            let mut heartbeat = heartbeat;
            // What this reader is told of the head agrees with what it was sent.
            if let Some((seq, hash)) = *known
                && seq == heartbeat.head.seq
            {
                heartbeat.head.hash = hash;
            }
            Frame::Heartbeat(heartbeat)
        }
    }));
}

async fn r27_an_unknown_kind_of_event_stops_ingest_and_is_never_skipped(mut pair: Pair) {
    rewrite(&pair, |body| {
        if body["kind"] == "tag_deleted" {
            body["kind"] = "tag_protected".into();
        }
    });
    pair.join_and_start().await;
    until("the hook has seen a heartbeat", async || {
        pair.engine().status().silent_seconds.is_none().then(|| "silence".to_owned())
    })
    .await;
    pair.primary.push_image("team/app", &[b"one"], &["one", "two"]).await;
    pair.primary.delete_tag("team/app", "one").await;
    let stop = pair.primary.metadata.sequence_now().await.unwrap().position.seq;
    pair.primary.delete_tag("team/app", "two").await;
    stops_with(&pair, "upgrade this site").await;
    // Everything before it is here and applied, nothing from it on.
    assert_eq!(pair.secondary.metadata.log_head().await.unwrap().position.seq, stop - 1);
    pair.item_is("team/app", "tag", "two", "synced").await;
    assert!(pair.tag("team/app", "one").await.is_some());
    until("reads are stale", async || pair.engine().is_fresh().then(|| "fresh".to_owned())).await;
}

async fn r27_events_of_a_peer_one_version_older_are_understood(mut pair: Pair) {
    // The older version wrote none of the fields that are not needed to understand the event.
    rewrite(&pair, |body| {
        let object = body.as_object_mut().unwrap();
        for field in ["size", "media_type", "subject", "previous", "actor", "correlation"] {
            object.remove(field);
        }
        object.insert("v".to_owned(), 0.into());
    });
    pair.join_and_start().await;
    until("the hook has seen a heartbeat", async || {
        pair.engine().status().silent_seconds.is_none().then(|| "silence".to_owned())
    })
    .await;
    let image = pair.primary.push_image("team/app", &[b"one", &[3; 400_000]], &["one"]).await;
    pair.primary.push_referrer("team/app", image).await;
    pair.primary.push_image("team/app", &[b"two"], &["one"]).await;
    pair.converged().await;
    assert_ne!(
        pair.secondary.metadata.log_head().await.unwrap().hash,
        pair.primary.metadata.log_head().await.unwrap().hash,
        "the hook rewrote the events"
    );
}

async fn r28_a_removed_site_stops_and_says_so(mut pair: Pair) {
    pair.join_and_start().await;
    pair.primary.push_image("team/app", &[b"one"], &["one"]).await;
    pair.converged().await;
    pair.registrar.remove("tokyo", &Actor::anonymous()).await.unwrap().unwrap();
    stops_with(&pair, "SITE_REMOVED").await;
    let stored = pair.secondary.metadata.repository(&name("team/app")).await.unwrap();
    assert!(stored.is_some(), "what is here stays");
}
