//! Upload sessions: one writer at a time, and only through their repository.

use bytes::Bytes;
use twinport_metadata::{CommitBlob, Error, UploadSession};
use twinport_oci::UploadId;

use crate::{
    on_both_databases,
    site::{NOON_US, TestSite, blob, name},
};

on_both_databases!(
    a5_another_repositorys_upload_session_is_invisible,
    s9_the_second_of_two_writers_is_told_where_the_first_got_to,
    s9_of_many_writers_from_one_offset_exactly_one_goes_on,
    s9_a_session_goes_on_from_its_stored_hash_state,
    s9_a_session_is_committed_once,
    a_session_makes_no_repository,
    a_session_without_bytes_has_no_row,
    a_session_that_is_cancelled_before_its_first_byte_is_gone,
    a_cancelled_session_is_gone,
    an_ended_session_is_forgotten_when_its_id_is_worth_nothing,
    sessions_expire_by_their_last_advance,
);

/// A session that has a row.
async fn stored(site: &TestSite, repository: &str) -> UploadSession {
    let session = site.metadata.begin_upload(&name(repository));
    site.metadata.advance_upload(&session, 0, Bytes::new()).await.unwrap()
}

async fn a5_another_repositorys_upload_session_is_invisible(site: TestSite) {
    let session = stored(&site, "mine").await;
    let theirs = name("theirs");
    assert_eq!(site.metadata.upload(&theirs, &session.id).await.unwrap(), None);
    assert!(!site.metadata.cancel_upload(&theirs, &session.id).await.unwrap());
    let mut stolen = session.clone();
    stolen.repository = theirs;
    let advanced = site.metadata.advance_upload(&stolen, 10, Bytes::from_static(b"state")).await;
    assert!(matches!(advanced, Err(Error::UploadUnknown)), "{advanced:?}");
    let committed =
        site.metadata.commit_blob(CommitBlob { upload: Some(session.id), ..blob("theirs", "x") }).await;
    assert!(matches!(committed, Err(Error::UploadUnknown)), "{committed:?}");
    assert_eq!(site.metadata.repository(&name("theirs")).await.unwrap(), None);
    assert_eq!(site.metadata.upload(&name("mine"), &session.id).await.unwrap(), Some(session));
}

async fn s9_the_second_of_two_writers_is_told_where_the_first_got_to(site: TestSite) {
    let session = stored(&site, "app").await;
    let first = site.metadata.advance_upload(&session, 100, Bytes::from_static(b"first")).await.unwrap();
    let second = site.metadata.advance_upload(&session, 70, Bytes::from_static(b"second")).await;
    assert!(matches!(second, Err(Error::UploadConflict { offset: 100 })), "{second:?}");
    assert_eq!(site.metadata.upload(&name("app"), &session.id).await.unwrap(), Some(first));
}

async fn s9_of_many_writers_from_one_offset_exactly_one_goes_on(site: TestSite) {
    let session = stored(&site, "app").await;
    let writers = (1..=16_u64).map(|writer| {
        let (metadata, session) = (site.metadata.clone(), session.clone());
        tokio::spawn(
            async move { metadata.advance_upload(&session, writer, writer.to_be_bytes().to_vec()).await },
        )
    });
    let mut winner = None;
    for writer in writers.collect::<Vec<_>>() {
        match writer.await.unwrap() {
            Ok(advanced) => assert!(winner.replace(advanced).is_none(), "two writers went on"),
            Err(Error::UploadConflict { offset }) => assert!((1..=16).contains(&offset)),
            Err(error) => panic!("{error}"),
        }
    }
    let stored = site.metadata.upload(&name("app"), &session.id).await.unwrap();
    assert!(winner.is_some());
    assert_eq!(stored, winner);
}

async fn s9_a_session_goes_on_from_its_stored_hash_state(site: TestSite) {
    let session = site.metadata.begin_upload(&name("app"));
    assert_eq!((session.offset, &session.hash_state), (0, &None));
    site.advance_clock(5);
    site.metadata.advance_upload(&session, 7, Bytes::from_static(b"seven")).await.unwrap();
    let stored = site.metadata.upload(&name("app"), &session.id).await.unwrap().unwrap();
    assert_eq!((stored.offset, stored.hash_state.as_deref()), (7, Some(b"seven".as_slice())));
    assert_eq!((stored.started_at_us, stored.touched_at_us), (NOON_US, NOON_US + 5));
    let again = site.metadata.advance_upload(&stored, 9, Bytes::from_static(b"nine")).await.unwrap();
    assert_eq!(again.offset, 9);
}

async fn s9_a_session_is_committed_once(site: TestSite) {
    let session = stored(&site, "app").await;
    let commit = CommitBlob { upload: Some(session.id), ..blob("app", "layer") };
    let (first, second) =
        tokio::join!(site.metadata.commit_blob(commit.clone()), site.metadata.commit_blob(commit.clone()));
    assert_eq!(u8::from(first.is_ok()) + u8::from(second.is_ok()), 1, "{first:?} {second:?}");
    assert!(matches!(first.and(second), Err(Error::UploadUnknown)));
    assert!(!site.metadata.upload_exists(&session.id).await.unwrap());
    let late = site.metadata.advance_upload(&session, 1, Bytes::new()).await;
    assert!(matches!(late, Err(Error::UploadUnknown)), "{late:?}");
}

async fn a_session_makes_no_repository(site: TestSite) {
    let session = stored(&site, "app").await;
    assert_eq!(site.metadata.repository(&name("app")).await.unwrap(), None);
    assert!(site.log().await.is_empty());
    assert!(site.metadata.upload_exists(&session.id).await.unwrap());
    assert!(!site.metadata.upload_exists(&UploadId::new()).await.unwrap());
}

async fn a_session_without_bytes_has_no_row(site: TestSite) {
    let session = site.metadata.begin_upload(&name("app"));
    assert!(!session.is_stored());
    assert_eq!(
        site.metadata.upload(&name("app"), &session.id).await.unwrap().map(|s| s.id),
        Some(session.id)
    );
    assert_eq!(site.metadata.upload(&name("theirs"), &session.id).await.unwrap(), None);
    assert_eq!(site.metadata.upload(&name("app"), &UploadId::new()).await.unwrap(), None);
    assert!(!site.metadata.upload_exists(&session.id).await.unwrap());
    site.advance_clock(25 * 3600 * 1_000_000);
    assert_eq!(site.metadata.upload(&name("app"), &session.id).await.unwrap(), None);
}

async fn a_session_that_is_cancelled_before_its_first_byte_is_gone(site: TestSite) {
    let session = site.metadata.begin_upload(&name("app"));
    assert!(!site.metadata.cancel_upload(&name("theirs"), &session.id).await.unwrap());
    assert!(site.metadata.cancel_upload(&name("app"), &session.id).await.unwrap());
    assert!(!site.metadata.cancel_upload(&name("app"), &session.id).await.unwrap());
    assert_eq!(site.metadata.upload(&name("app"), &session.id).await.unwrap(), None);
    let late = site.metadata.advance_upload(&session, 1, Bytes::new()).await;
    assert!(matches!(late, Err(Error::UploadUnknown)), "{late:?}");
}

async fn an_ended_session_is_forgotten_when_its_id_is_worth_nothing(site: TestSite) {
    let session = stored(&site, "app").await;
    assert!(site.metadata.cancel_upload(&name("app"), &session.id).await.unwrap());
    assert_eq!(site.metadata.stale_uploads(i64::MAX, 10).await.unwrap(), []);
    assert_eq!(site.metadata.forget_ended_uploads(10).await.unwrap(), 0);
    site.advance_clock(49 * 3600 * 1_000_000);
    assert_eq!(site.metadata.forget_ended_uploads(10).await.unwrap(), 1);
    assert_eq!(site.metadata.upload(&name("app"), &session.id).await.unwrap(), None);
}

async fn a_cancelled_session_is_gone(site: TestSite) {
    let session = stored(&site, "app").await;
    assert!(site.metadata.cancel_upload(&name("app"), &session.id).await.unwrap());
    assert!(!site.metadata.cancel_upload(&name("app"), &session.id).await.unwrap());
    assert_eq!(site.metadata.upload(&name("app"), &session.id).await.unwrap(), None);
}

async fn sessions_expire_by_their_last_advance(site: TestSite) {
    let old = stored(&site, "app").await;
    let busy = stored(&site, "app").await;
    site.advance_clock(1_000_000);
    site.metadata.advance_upload(&busy, 1, Bytes::from_static(b"one")).await.unwrap();
    let before_us = NOON_US + 500_000;
    assert_eq!(site.metadata.stale_uploads(before_us, 10).await.unwrap(), [old.id]);
    assert!(!site.metadata.expire_upload(&busy.id, before_us).await.unwrap());
    assert!(site.metadata.expire_upload(&old.id, before_us).await.unwrap());
    assert_eq!(site.metadata.stale_uploads(i64::MAX, 10).await.unwrap(), [busy.id]);
}
