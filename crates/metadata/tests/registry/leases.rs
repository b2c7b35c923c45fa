//! Leases between nodes of one site (hazard S14), and the fence that keeps a node which lost one from writing.

use std::ops::ControlFlow;
use std::time::Duration;

use twinport_metadata::{Error, Job, JobLease, Metadata};

use crate::on_both_databases;
use crate::site::TestSite;

on_both_databases!(work_that_breaks_off_is_not_begun_again);

/// On SQLite one process does everything: there is nothing to lease.
macro_rules! on_postgresql {
    ($($name:ident),* $(,)?) => {
        mod on_postgresql {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                if let Some(site) = super::TestSite::on_postgresql(stringify!($name)).await {
                    super::$name(site).await;
                }
            })*
        }
    };
}

on_postgresql!(
    a_lease_is_kept_by_its_node_and_rises_when_it_changes_hands,
    a_node_that_leaves_frees_its_leases,
    a_note_is_as_old_as_it_is,
);

const LONG_US: i64 = 7_000_000;

async fn taken(metadata: &Metadata, job: Job) -> JobLease {
    metadata.take_lease(job).await.unwrap().unwrap()
}

async fn a_lease_is_kept_by_its_node_and_rises_when_it_changes_hands(site: TestSite) {
    let first = taken(&site.metadata, Job::Uploads).await;
    assert_eq!(taken(&site.metadata, Job::Uploads).await, first);
    site.advance_clock(LONG_US);
    let again = taken(&site.metadata, Job::Uploads).await;
    assert_eq!(again.token, first.token + 1, "it had lapsed, and may have been another's meanwhile");
    assert!(!site.metadata.renew_lease(&first, None).await.unwrap());
    assert!(site.metadata.renew_lease(&again, None).await.unwrap());
    let listed = site.metadata.leases().await.unwrap();
    let uploads = listed.iter().find(|lease| lease.job == "uploads").unwrap();
    assert_eq!((uploads.holder, uploads.token), (site.metadata.node(), again.token));
}

async fn a_node_that_leaves_frees_its_leases(site: TestSite) {
    site.metadata.node_is_here("one", "1.2.3", true).await.unwrap();
    assert!(site.metadata.is_any_node_busy().await.unwrap());
    let lease = taken(&site.metadata, Job::Usage).await;
    site.metadata.node_leaves().await.unwrap();
    assert!(site.metadata.nodes().await.unwrap().is_empty());
    assert!(taken(&site.metadata, Job::Usage).await.token > lease.token);
}

async fn a_note_is_as_old_as_it_is(site: TestSite) {
    let lease = taken(&site.metadata, Job::Replication).await;
    assert_eq!(site.metadata.lease_note(Job::Replication).await.unwrap(), None);
    site.metadata.renew_lease(&lease, Some("connected")).await.unwrap();
    site.advance_clock(1_000_000);
    // A renewal without one does not make it younger.
    site.metadata.renew_lease(&lease, None).await.unwrap();
    let note = site.metadata.lease_note(Job::Replication).await.unwrap().unwrap();
    assert_eq!((note.text.as_str(), note.age_us), ("connected", 1_000_000));
}

async fn work_that_breaks_off_is_not_begun_again(site: TestSite) {
    let leading = site.metadata.lead(Job::Scrub, async |_, lease| {
        assert_eq!(lease.job, Job::Scrub);
        ControlFlow::Break(())
    });
    tokio::time::timeout(Duration::from_secs(30), leading).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn s14_a_node_that_lost_its_lease_writes_nothing_under_it() {
    let Some(site) = TestSite::on_postgresql("s14_a_node_that_lost_its_lease_writes_nothing_under_it").await
    else {
        return;
    };
    let other = site.another_node().await;
    let lease = taken(&site.metadata, Job::Retention).await;
    let fenced = site.metadata.under(&lease);
    assert_eq!(other.take_lease(Job::Retention).await.unwrap(), None, "it is the first one's");
    fenced.set_urls(Some("https://while.it.held"), None).await.unwrap();

    site.advance_clock(LONG_US);
    // Nobody has taken it: nobody can have written against it.
    fenced.set_urls(Some("https://nobody.took.it"), None).await.unwrap();
    let theirs = taken(&other, Job::Retention).await;
    assert!(theirs.token > lease.token);
    let refused = fenced.set_urls(Some("https://too.late"), None).await.unwrap_err();
    assert!(matches!(refused, Error::LeaseLost("retention")), "{refused}");
    other.under(&theirs).set_urls(Some("https://theirs"), None).await.unwrap();
    assert_eq!(site.metadata.site().await.unwrap().external_url.as_deref(), Some("https://theirs"));
}

#[tokio::test(flavor = "multi_thread")]
async fn s14_a_takeover_waits_for_what_the_last_holder_is_committing() {
    let Some(site) = TestSite::on_postgresql("s14_a_takeover_waits").await else { return };
    let other = site.another_node().await;
    let lease = taken(&site.metadata, Job::Retention).await;
    let fence = format!("SELECT 1 FROM leases WHERE token = {} FOR KEY SHARE", lease.token);
    let committing = site.hold(&fence).await;
    site.advance_clock(LONG_US);
    let taking = tokio::spawn(async move { other.take_lease(Job::Retention).await });
    site.wait_for_waiters().await;
    assert!(!taking.is_finished());
    // Its own renewals do not wait.
    assert!(site.metadata.renew_lease(&lease, None).await.unwrap());
    committing.commit().await;
    assert_eq!(taking.await.unwrap().unwrap(), None, "it was renewed meanwhile");
}
