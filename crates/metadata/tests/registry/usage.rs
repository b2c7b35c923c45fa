//! Counting what repositories hold, along the log: exact, once, and only as far as there is a quota.

use twinport_access::{Quota, TagGuard};
use twinport_metadata::PutManifest;

use crate::on_both_databases;
use crate::site::{TestSite, actor, manifest, name, tag};

on_both_databases!(
    counts_are_what_the_rows_say_whatever_was_done,
    a_quota_that_comes_later_is_complete_once_it_has_seen_every_repository,
    two_nodes_that_count_at_the_same_time_count_everything_once,
    a_quota_about_other_repositories_begins_anew_and_none_is_forgotten,
);

fn quota(rule: &str, pattern: &str) -> Quota {
    Quota {
        name: rule.parse().unwrap(),
        repositories: pattern.parse().unwrap(),
        most_bytes: Some(1),
        most_repositories: None,
    }
}

async fn count(site: &TestSite, quotas: &[Quota]) {
    site.metadata.sequence_now().await.unwrap();
    while site.metadata.count_usage(quotas, None).await.unwrap().more {}
}

/// Bytes and repositories, as the quota's row and as all rows say.
async fn assert_counted(site: &TestSite, quota: &Quota, like: &str) {
    let usage = site.metadata.quota_usage(quota).await.unwrap();
    assert!(usage.complete);
    let of = format!("FROM repositories r WHERE r.path LIKE '{like}'");
    let links = format!(
        "SELECT CAST(COALESCE(SUM((SELECT COALESCE(SUM(b.size), 0) FROM blob_links l JOIN blobs b ON b.digest = l.digest \
         WHERE l.repository_id = r.id)), 0) AS BIGINT) {of}"
    );
    let manifests = format!(
        "SELECT CAST(COALESCE(SUM((SELECT COALESCE(SUM(m.size), 0) FROM manifests m WHERE m.repository_id = r.id)), 0) \
         AS BIGINT) {of}"
    );
    let bytes = site.count(&links).await + site.count(&manifests).await;
    let repositories = site.count(&format!("SELECT COUNT(*) {of}")).await;
    assert_eq!((usage.bytes as i64, usage.repositories as i64), (bytes, repositories), "{}", quota.name);
}

async fn counts_are_what_the_rows_say_whatever_was_done(site: TestSite) {
    let quotas = [quota("all", "**"), quota("team", "team/*")];
    let guard = TagGuard::default();
    let check = async || {
        count(&site, &quotas).await;
        assert_counted(&site, &quotas[0], "%").await;
        assert_counted(&site, &quotas[1], "team/%").await;
    };
    check().await;
    let first = site.push_image("team/app", "one", "v1").await;
    site.push_image("team/app", "two", "v2").await;
    site.push_image("other", "three", "v1").await;
    check().await;
    // The same again adds nothing; a mount counts where it goes to.
    site.push_image("team/app", "one", "v1").await;
    let layer = site.push_blob("other", "shared layer").await;
    site.metadata.mount_blob(&name("other"), &name("team/new"), &layer, &actor()).await.unwrap();
    check().await;
    site.metadata.delete_manifest(&name("team/app"), &first, &guard, &actor()).await.unwrap();
    site.metadata.unlink_blob(&name("other"), &layer, &guard, &actor()).await.unwrap();
    check().await;
    // Out of one pattern, and into it.
    site.metadata.rename_repository(&name("team/app"), &name("elsewhere"), &actor()).await.unwrap();
    site.metadata.rename_repository(&name("other"), &name("team/other"), &actor()).await.unwrap();
    check().await;
    site.metadata.delete_repository(&name("team/other"), &guard, &actor()).await.unwrap();
    site.push_image("team/other", "again", "v1").await;
    check().await;
    let usage = site.metadata.quota_usage(&quotas[1]).await.unwrap();
    assert_eq!(usage.repositories, 2);
}

async fn a_quota_that_comes_later_is_complete_once_it_has_seen_every_repository(site: TestSite) {
    let first = [quota("all", "**")];
    for number in 0..520 {
        site.push_blob(&format!("team/app-{number}"), &format!("blob {number}")).await;
    }
    count(&site, &first).await;
    let both = [quota("all", "**"), quota("later", "team/**")];
    assert!(site.metadata.count_usage(&both, None).await.unwrap().more);
    let halfway = site.metadata.quota_usage(&both[1]).await.unwrap();
    assert!(!halfway.complete && halfway.repositories == 500, "{halfway:?}");
    // What changes meanwhile is counted on either side of where the filling is.
    for repository in ["team/app-0", "team/app-99", "team/zzz"] {
        site.push_blob(repository, "changed meanwhile").await;
    }
    count(&site, &both).await;
    assert_counted(&site, &both[0], "%").await;
    assert_counted(&site, &both[1], "team/%").await;
}

async fn two_nodes_that_count_at_the_same_time_count_everything_once(site: TestSite) {
    let quotas = [quota("all", "**")];
    for number in 0..100 {
        let put = PutManifest { tags: vec![tag("latest")], ..manifest("app", &format!("image {number}")) };
        site.metadata.put_manifest(put).await.unwrap();
    }
    tokio::join!(count(&site, &quotas), count(&site, &quotas), count(&site, &quotas));
    assert_counted(&site, &quotas[0], "%").await;
}

async fn a_quota_about_other_repositories_begins_anew_and_none_is_forgotten(site: TestSite) {
    site.push_blob("team/app", "one").await;
    count(&site, &[quota("q", "team/*")]).await;
    let other = quota("q", "other/*");
    assert!(!site.metadata.quota_usage(&other).await.unwrap().complete);
    count(&site, std::slice::from_ref(&other)).await;
    assert_counted(&site, &other, "other/%").await;
    count(&site, &[]).await;
    assert_eq!(site.count("SELECT COUNT(*) FROM quota_usage").await, 0);
    // What was pushed while nothing was counted is counted when there is something to count for.
    site.push_blob("other/app", "two").await;
    count(&site, std::slice::from_ref(&other)).await;
    assert_counted(&site, &other, "other/%").await;
}
