//! What a log stream carries: every event once and in order, and heartbeats that cannot flatter (hazard R29).

use std::sync::Arc;

use futures_util::future::try_join_all;
use twinport_geo::{
    Feed, RefusalCode, SitesStatus,
    protocol::{Frame, Head, Nonce, StatusReport},
};
use twinport_metadata::Actor;

use crate::{
    on_both_databases,
    site::{Reader, SECOND_US, TestSite, refused},
};

on_both_databases! {
    a_stream_carries_every_event_while_writers_write,
    r29_a_heartbeat_covers_all_that_was_acknowledged_before_its_nonce_was_sent,
    r29_a_stream_opens_with_a_heartbeat_and_no_nonce_that_nobody_sent,
    a_heartbeat_says_whether_clients_keep_the_node_busy,
    r29_a_site_that_never_reported_has_no_lag,
    r28_a_removed_sites_streams_end_on_every_node,
    r28_a_removed_site_cannot_report,
    a9_a_site_reports_its_own_status_only,
    streams_end_when_the_process_shuts_down,
}

async fn a_stream_carries_every_event_while_writers_write(site: TestSite) {
    const WRITERS: usize = 4;
    const EACH: usize = 60;
    let tokyo = site.joined("tokyo").await;
    let start = site.head().await;
    let feed = site.feed.open(&site.peer(&tokyo).await, start.into()).await.unwrap();
    let mut reader = Reader::new(Box::pin(feed.into_stream()));

    let site = Arc::new(site);
    let writers = (0..WRITERS).map(|writer| {
        let site = Arc::clone(&site);
        tokio::spawn(async move {
            for n in 0..EACH {
                site.write(&format!("{writer}-{n}")).await.unwrap();
            }
        })
    });
    let writers = tokio::spawn(try_join_all(writers.collect::<Vec<_>>()));

    // One event creates the repository, each write links one blob.
    let (mut seq, mut hash) = (start.position.seq, start.hash);
    let last = seq + 1 + (WRITERS * EACH) as i64;
    while seq < last {
        if let Frame::Event(event) = reader.next().await.unwrap() {
            assert_eq!(event.position.seq, seq + 1);
            assert!(event.continues(&hash), "event {seq} does not continue the log");
            (seq, hash) = (event.position.seq, event.hash);
        }
    }
    writers.await.unwrap().unwrap();
    let head = site.head().await;
    assert_eq!((head.position.seq, head.hash), (seq, hash));
}

async fn r29_a_heartbeat_covers_all_that_was_acknowledged_before_its_nonce_was_sent(site: TestSite) {
    let tokyo = site.joined("tokyo").await;
    let feed = site.feed.open(&site.peer(&tokyo).await, site.head().await.into()).await.unwrap();
    let mut reader = Reader::new(Box::pin(feed.into_stream()));
    let first = site.head().await.position.seq;
    for round in 0..40 {
        site.write(&round.to_string()).await.unwrap();
        // What was acknowledged by now; the first write makes the repository too.
        let acknowledged = first + 2 + round;
        let nonce = Nonce::random();
        report_without_a_pass(&site, &tokyo, nonce).await;
        let heartbeat = loop {
            match reader.next().await.unwrap() {
                Frame::Heartbeat(heartbeat) if heartbeat.nonce == Some(nonce) => break heartbeat,
                _ => {}
            }
        };
        assert!(heartbeat.head.seq >= acknowledged, "{} < {acknowledged}", heartbeat.head.seq);
        assert_eq!(heartbeat.clock_us, site.now_us());
    }
}

/// A report that asks for no sequencer pass of its own, so that only the heartbeat's can number the write.
async fn report_without_a_pass(site: &TestSite, tokyo: &crate::site::Applicant, nonce: Nonce) {
    let report = StatusReport {
        nonce,
        incarnation: tokyo.incarnation,
        ingested: site.metadata.log_head().await.unwrap().position,
        applied_seq: 0,
        lag_events: None,
        lag_us: None,
        repositories: Default::default(),
        items: Default::default(),
        token_keys: Vec::new(),
    };
    site.feed.report(&site.peer(tokyo).await, &report).await.unwrap();
}

async fn r29_a_stream_opens_with_a_heartbeat_and_no_nonce_that_nobody_sent(site: TestSite) {
    let tokyo = site.joined("tokyo").await;
    let feed = site.feed.open(&site.peer(&tokyo).await, site.head().await.into()).await.unwrap();
    let mut reader = Reader::new(Box::pin(feed.into_stream()));
    let Some(Frame::Heartbeat(first)) = reader.next().await else { panic!("no heartbeat") };
    assert_eq!(first.nonce, None);
    assert_eq!(first.head, Head::from(site.head().await));
    // Another comes by itself.
    assert!(matches!(reader.next().await, Some(Frame::Heartbeat(_))));
}

async fn a_heartbeat_says_whether_clients_keep_the_node_busy(site: TestSite) {
    let tokyo = site.joined("tokyo").await;
    let feed = site.feed.open(&site.peer(&tokyo).await, site.head().await.into()).await.unwrap();
    let mut reader = Reader::new(Box::pin(feed.into_stream()));
    for busy in [true, false] {
        // The verdict is of the time before a heartbeat, so it may come with the next but one.
        loop {
            if busy {
                (0..100).for_each(|_| site.feed.activity().request());
            }
            if let Some(Frame::Heartbeat(heartbeat)) = reader.next().await
                && heartbeat.busy == busy
            {
                break;
            }
        }
    }
}

async fn r29_a_site_that_never_reported_has_no_lag(site: TestSite) {
    let tokyo = site.joined("tokyo").await;
    let status = SitesStatus::read(&site.metadata).await.unwrap();
    assert_eq!(status.sites[0].heard_ago_us, None);
    assert_eq!(status.sites[0].behind_events, None);

    site.report(&tokyo, Nonce::random()).await.unwrap();
    site.write("a").await.unwrap();
    site.step_clock(3 * SECOND_US);
    let status = SitesStatus::read(&site.metadata).await.unwrap();
    assert_eq!(status.sites[0].heard_ago_us, Some(3 * SECOND_US));
    assert_eq!(status.sites[0].behind_events, Some(2));
    assert_eq!(status.name.as_deref(), Some("paris"));
}

async fn r28_a_removed_sites_streams_end_on_every_node(site: TestSite) {
    let tokyo = site.joined("tokyo").await;
    let lima = site.joined("lima").await;
    let head = Head::from(site.head().await);
    // Another node of the same site has a feed of its own, which hears of the removal from the database.
    let other_node = Feed::new(site.metadata.clone());
    let peer = site.peer(&tokyo).await;
    let mut ending = vec![
        Reader::new(Box::pin(site.feed.open(&peer, head).await.unwrap().into_stream())),
        Reader::new(Box::pin(other_node.open(&peer, head).await.unwrap().into_stream())),
    ];
    let mut going_on =
        Reader::new(Box::pin(site.feed.open(&site.peer(&lima).await, head).await.unwrap().into_stream()));
    for reader in &mut ending {
        assert!(reader.next().await.is_some());
    }
    site.registrar.remove("tokyo", &Actor::anonymous()).await.unwrap().unwrap();
    for reader in &mut ending {
        reader.ends().await;
    }
    // Lima hears of it as an event, and goes on.
    loop {
        if let Frame::Event(event) = going_on.next().await.unwrap() {
            assert_eq!(event.position.seq, head.seq + 1);
            break;
        }
    }
    assert!(going_on.next().await.is_some());
}

async fn r28_a_removed_site_cannot_report(site: TestSite) {
    let tokyo = site.joined("tokyo").await;
    let peer = site.peer(&tokyo).await;
    site.report(&tokyo, Nonce::random()).await.unwrap();
    site.registrar.remove("tokyo", &Actor::anonymous()).await.unwrap().unwrap();
    // The credential was checked just before the removal.
    let report = StatusReport {
        nonce: Nonce::random(),
        incarnation: tokyo.incarnation,
        ingested: site.head().await.position,
        applied_seq: 0,
        lag_events: None,
        lag_us: None,
        repositories: Default::default(),
        items: Default::default(),
        token_keys: Vec::new(),
    };
    assert_eq!(refused(site.feed.report(&peer, &report).await), RefusalCode::SiteRemoved);
    assert!(site.metadata.reports().await.unwrap().is_empty());
}

async fn a9_a_site_reports_its_own_status_only(site: TestSite) {
    let tokyo = site.joined("tokyo").await;
    let lima = site.joined("lima").await;
    let report = StatusReport {
        nonce: Nonce::random(),
        incarnation: lima.incarnation,
        ingested: site.head().await.position,
        applied_seq: 0,
        lag_events: None,
        lag_us: None,
        repositories: Default::default(),
        items: Default::default(),
        token_keys: Vec::new(),
    };
    assert_eq!(refused(site.feed.report(&site.peer(&tokyo).await, &report).await), RefusalCode::Scope);
    assert!(site.metadata.reports().await.unwrap().is_empty());
}

async fn streams_end_when_the_process_shuts_down(site: TestSite) {
    let tokyo = site.joined("tokyo").await;
    let peer = site.peer(&tokyo).await;
    let head = Head::from(site.head().await);
    let mut reader = Reader::new(Box::pin(site.feed.open(&peer, head).await.unwrap().into_stream()));
    assert!(reader.next().await.is_some());
    site.feed.close();
    reader.ends().await;
    assert_eq!(refused(site.feed.open(&peer, head).await), RefusalCode::Unavailable);
}
