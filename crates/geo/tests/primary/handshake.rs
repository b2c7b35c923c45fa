//! Where a reader says it stands: rewritten history stops writes, a strange epoch stops nothing (hazards R26, R28).

use twinport_geo::{Error, RefusalCode, protocol::Head};
use twinport_metadata::{Actor, Incarnation};

use crate::{
    on_both_databases,
    site::{Applicant, TestSite, refused},
};

on_both_databases! {
    a_reader_may_stand_anywhere_on_the_log,
    r26_a_reader_that_remembers_another_event_stops_writes_and_is_named,
    r26_a_reader_ahead_of_the_log_stops_writes_and_is_named,
    r26_writes_go_on_when_the_site_that_stopped_them_is_removed,
    r28_an_epoch_that_only_the_reader_knows_stops_nothing,
}

async fn a_reader_may_stand_anywhere_on_the_log(site: TestSite) {
    let tokyo = site.joined("tokyo").await;
    for n in 0..5 {
        site.write(&n.to_string()).await.unwrap();
    }
    let base = site.metadata.epochs().await.unwrap()[0];
    let start = Head {
        number: base.epoch.number,
        owner: base.epoch.owner,
        seq: base.began_seq - 1,
        hash: base.base_hash,
    };
    let peer = site.peer(&tokyo).await;
    drop(site.feed.open(&peer, start).await.unwrap());
    for seq in 1..=site.head().await.position.seq {
        drop(site.feed.open(&peer, site.cursor_at(seq).await).await.unwrap());
    }
    assert_eq!(site.metadata.site().await.unwrap().halted, None);
    let negative = Head { seq: -1, ..start };
    assert_eq!(refused(site.feed.open(&peer, negative).await), RefusalCode::BadRequest);
}

async fn r26_a_reader_that_remembers_another_event_stops_writes_and_is_named(site: TestSite) {
    let tokyo = site.joined("tokyo").await;
    site.write("a").await.unwrap();
    let mut cursor = site.cursor_at(2).await;
    cursor.hash[0] ^= 1;
    stopped(&site, &tokyo, cursor, RefusalCode::HistoryRewritten).await;
}

async fn r26_a_reader_ahead_of_the_log_stops_writes_and_is_named(site: TestSite) {
    let tokyo = site.joined("tokyo").await;
    site.write("a").await.unwrap();
    let mut cursor = Head::from(site.head().await);
    cursor.seq += 1;
    stopped(&site, &tokyo, cursor, RefusalCode::PeerAhead).await;
}

async fn stopped(site: &TestSite, tokyo: &Applicant, cursor: Head, code: RefusalCode) {
    let error = site.feed.open(&site.peer(tokyo).await, cursor).await.err().unwrap();
    assert_eq!(error.code(), Some(code));
    assert!(error.to_string().contains("tokyo"), "{error}");

    let halted = site.metadata.site().await.unwrap().halted.unwrap();
    assert!(halted.contains("tokyo") && halted.contains(&tokyo.incarnation.to_string()), "{halted}");
    let refusal = site.write("b").await.unwrap_err();
    assert!(matches!(refusal, twinport_metadata::Error::Halted(_)), "{refusal}");
    // Who is where this site is may still follow.
    let head = Head::from(site.head().await);
    drop(site.feed.open(&site.peer(tokyo).await, head).await.unwrap());
}

async fn r26_writes_go_on_when_the_site_that_stopped_them_is_removed(site: TestSite) {
    let tokyo = site.joined("tokyo").await;
    site.joined("lima").await;
    let mut cursor = site.cursor_at(1).await;
    cursor.hash = [0; 32];
    assert_eq!(
        refused(site.feed.open(&site.peer(&tokyo).await, cursor).await),
        RefusalCode::HistoryRewritten
    );
    // Another site's removal is a write like any other.
    let error = site.registrar.remove("lima", &Actor::anonymous()).await.unwrap_err();
    assert!(matches!(error, Error::Metadata(twinport_metadata::Error::Halted(_))), "{error}");
    site.registrar.remove("tokyo", &Actor::anonymous()).await.unwrap().unwrap();
    assert_eq!(site.metadata.site().await.unwrap().halted, None);
    site.write("b").await.unwrap();
}

async fn r28_an_epoch_that_only_the_reader_knows_stops_nothing(site: TestSite) {
    let tokyo = site.joined("tokyo").await;
    let honest = Head::from(site.head().await);
    let stranger = Incarnation::random();
    for claim in [
        Head { number: i64::MAX, owner: tokyo.incarnation, ..honest },
        Head { number: honest.number + 1, ..honest },
        Head { owner: stranger, ..honest },
        Head { number: i64::MAX, owner: stranger, seq: i64::MAX, hash: [7; 32] },
        Head { number: i64::MIN, owner: stranger, seq: 1, hash: [7; 32] },
    ] {
        assert_eq!(refused(site.feed.open(&site.peer(&tokyo).await, claim).await), RefusalCode::EpochUnknown);
        assert_eq!(site.metadata.site().await.unwrap().halted, None);
    }
    site.write("a").await.unwrap();
    assert_eq!(site.metadata.site().await.unwrap().highest_epoch.number, honest.number);
}
