//! The secondary's side of access records: told of by the log, pending until fetched, never taken back by something older.

use twinport_access::AccountKind;
use twinport_metadata::{
    Actor, BOOTSTRAP_ACTOR, BecomeSecondary, EpochRecord, Error, LogPosition, LoggedEvent, Metadata,
    PendingRecord, RecordName, Refreshed, ReplicatedRecord,
};
use uuid::Uuid;

use crate::{
    access::{named, refresh, user},
    on_both_databases,
    site::{TestSite, actor},
};

on_both_databases!(
    r10_a_site_that_joins_has_everything_pending_until_it_was_listed,
    what_the_log_tells_of_is_pending_until_it_was_fetched_as_new,
    nothing_older_replaces_a_record_and_a_tombstone_deletes_it,
    a14_refresh_tokens_end_at_every_site_with_their_account,
    a_site_with_nothing_but_its_first_start_joins_and_forgets_it,
    a_site_with_an_account_of_its_own_does_not_join,
    a_primary_takes_over_nobodys_records,
);

/// Joins `site` to a primary at its own position, so that the log that it is given next continues it.
async fn join(site: &TestSite) -> Result<EpochRecord, Error> {
    let metadata = &site.metadata;
    let (own, head) = (metadata.site().await?, metadata.sequence_now().await?);
    let epoch = metadata.epochs().await?[0];
    metadata
        .become_secondary(BecomeSecondary {
            name: "tokyo".to_owned(),
            federation: own.federation,
            primary_name: "paris".to_owned(),
            primary_url: "https://paris.example.com".to_owned(),
            primary_key: vec![1; 32].into(),
            primary_incarnation: own.incarnation,
            epochs: vec![epoch],
            head,
        })
        .await?;
    Ok(epoch)
}

/// Ingests the primary's events about these records, one each.
async fn told(metadata: &Metadata, records: &[&RecordName]) -> i64 {
    for record in records {
        let head = metadata.log_head().await.unwrap();
        let position = LogPosition { epoch: head.position.epoch, seq: head.position.seq + 1 };
        let body = serde_json::json!({
            "v": 1, "kind": "access_changed", "at_us": 1, "origin": "paris", "record": record
        });
        let body = bytes::Bytes::from(body.to_string());
        let hash = twinport_metadata::chain(&head.hash, &position, &body);
        let lease = twinport_metadata::Lease { holder: Uuid::new_v4(), duration_us: 1_000_000 };
        let ingested = metadata.ingest(vec![LoggedEvent { position, hash, body }], lease).await.unwrap();
        assert!(ingested.access && ingested.leased.is_empty());
    }
    metadata.log_head().await.unwrap().position.seq
}

fn record(kind: &str, name: &str) -> RecordName {
    RecordName { kind: kind.to_owned(), name: name.to_owned() }
}

fn account_of(name: &str) -> String {
    serde_json::to_string(&user(name).account).unwrap()
}

fn fetched(epoch: &EpochRecord, record: &RecordName, body: Option<String>, seq: i64) -> ReplicatedRecord {
    ReplicatedRecord {
        record: record.clone(),
        secret: body
            .as_ref()
            .and(user(&record.name.replace(|c: char| !c.is_ascii_lowercase(), "x")).password),
        body,
        changed_at_us: 5,
        position: LogPosition { epoch: epoch.epoch, seq },
    }
}

async fn pending(metadata: &Metadata) -> Vec<(RecordName, i64)> {
    let pending = metadata.pending_access(100).await.unwrap();
    assert!(!pending.listing);
    pending.records.into_iter().map(|PendingRecord { record, last_seq }| (record, last_seq)).collect()
}

/// As if the repositories had been listed.
async fn nothing_else_to_do(metadata: &Metadata) {
    metadata.backfill_page(vec![], "", true).await.unwrap();
}

async fn r10_a_site_that_joins_has_everything_pending_until_it_was_listed(site: TestSite) {
    let metadata = &site.metadata;
    let epoch = join(&site).await.unwrap();
    nothing_else_to_do(metadata).await;
    assert!(metadata.pending_access(10).await.unwrap().listing);
    assert_eq!(metadata.processed_seq().await.unwrap(), None, "no position is complete");
    metadata
        .apply_access(vec![fetched(&epoch, &record("account", "alice"), Some(account_of("alice")), 0)])
        .await
        .unwrap();
    assert_eq!(metadata.processed_seq().await.unwrap(), None);
    metadata.finish_access_listing().await.unwrap();
    assert_eq!(metadata.processed_seq().await.unwrap(), Some(0));
    assert!(metadata.account(&named("alice")).await.unwrap().is_some());
}

async fn what_the_log_tells_of_is_pending_until_it_was_fetched_as_new(site: TestSite) {
    let metadata = &site.metadata;
    let epoch = join(&site).await.unwrap();
    nothing_else_to_do(metadata).await;
    metadata.finish_access_listing().await.unwrap();
    let (alice, future) = (record("account", "alice"), record("moon_base", "of a later/version"));
    told(metadata, &[&alice, &future, &alice]).await;
    assert_eq!(pending(metadata).await, [(alice.clone(), 3), (future.clone(), 2)]);
    assert_eq!(metadata.processed_seq().await.unwrap(), Some(0));

    // What was fetched before the second event is not what the second event is about.
    let generation = metadata.access_generation().await.unwrap();
    metadata.apply_access(vec![fetched(&epoch, &alice, Some(account_of("alice")), 1)]).await.unwrap();
    assert_eq!(pending(metadata).await.len(), 2);
    assert_eq!(metadata.processed_seq().await.unwrap(), Some(1));
    assert!(metadata.access_generation().await.unwrap() > generation);
    metadata.apply_access(vec![fetched(&epoch, &alice, Some(account_of("alice")), 3)]).await.unwrap();
    assert_eq!(pending(metadata).await, [(future.clone(), 2)]);
    assert_eq!(metadata.processed_seq().await.unwrap(), Some(1));
    metadata.apply_access(vec![fetched(&epoch, &future, Some("{}".to_owned()), 2)]).await.unwrap();
    assert_eq!(metadata.processed_seq().await.unwrap(), Some(3));
    let kept = metadata.access_records_named(vec![future.clone()]).await.unwrap();
    assert_eq!((kept[0].body.as_deref(), kept[0].position_seq), (Some("{}"), Some(2)));
}

async fn nothing_older_replaces_a_record_and_a_tombstone_deletes_it(site: TestSite) {
    let metadata = &site.metadata;
    let epoch = join(&site).await.unwrap();
    metadata.finish_access_listing().await.unwrap();
    let alice = record("account", "alice");
    let disabled = account_of("alice").replace("\"disabled\":false", "\"disabled\":true");
    metadata.apply_access(vec![fetched(&epoch, &alice, Some(disabled), 7)]).await.unwrap();
    let generation = metadata.access_generation().await.unwrap();
    for older in [6, 7] {
        metadata.apply_access(vec![fetched(&epoch, &alice, Some(account_of("alice")), older)]).await.unwrap();
    }
    assert_eq!(metadata.access_generation().await.unwrap(), generation);
    assert!(metadata.account(&named("alice")).await.unwrap().unwrap().account.disabled);
    metadata.apply_access(vec![fetched(&epoch, &alice, None, 8)]).await.unwrap();
    assert_eq!(metadata.account(&named("alice")).await.unwrap(), None);
    metadata.apply_access(vec![fetched(&epoch, &alice, Some(account_of("alice")), 7)]).await.unwrap();
    assert_eq!(
        metadata.account(&named("alice")).await.unwrap(),
        None,
        "a tombstone outlives what was before it"
    );
    let listed = metadata.access_listing(None, 10).await.unwrap().rows;
    assert!(listed[0].body.is_none() && listed[0].secret.is_none());
}

async fn a14_refresh_tokens_end_at_every_site_with_their_account(site: TestSite) {
    let metadata = &site.metadata;
    let epoch = join(&site).await.unwrap();
    metadata.finish_access_listing().await.unwrap();
    let alice = record("account", "alice");
    let enabled = |seq| fetched(&epoch, &alice, Some(account_of("alice")), seq);
    metadata.apply_access(vec![enabled(1)]).await.unwrap();
    let good =
        async |hash| matches!(metadata.refresh_token(hash, "paris").await.unwrap(), Refreshed::Good(_));

    let hash = refresh(metadata, "alice", 1).await;
    metadata.apply_access(vec![enabled(2)]).await.unwrap();
    assert!(good(hash).await, "nothing that concerns it changed");
    let disabled = account_of("alice").replace("\"disabled\":false", "\"disabled\":true");
    metadata.apply_access(vec![ReplicatedRecord { body: Some(disabled), ..enabled(3) }]).await.unwrap();
    assert!(!good(hash).await, "disabled");
    let hash = refresh(metadata, "alice", 2).await;
    let password = Some(twinport_metadata::RecordSecret::new("$argon2id$other"));
    metadata.apply_access(vec![ReplicatedRecord { secret: password, ..enabled(4) }]).await.unwrap();
    assert!(!good(hash).await, "another password");
    let hash = refresh(metadata, "alice", 3).await;
    metadata.apply_access(vec![fetched(&epoch, &alice, None, 5)]).await.unwrap();
    assert!(!good(hash).await, "deleted");
}

async fn a_site_with_nothing_but_its_first_start_joins_and_forgets_it(site: TestSite) {
    let metadata = &site.metadata;
    let bootstrap = Actor { name: BOOTSTRAP_ACTOR.to_owned(), correlation: None };
    assert!(metadata.create_first_account(user("admin"), &bootstrap).await.unwrap());
    let key = metadata.current_token_key(i64::MAX, 0).await.unwrap();
    let own = metadata.site().await.unwrap().incarnation;
    metadata.publish_signing_keys(own, vec![key.public.clone()], &bootstrap).await.unwrap();
    let refreshing = refresh(metadata, "admin", 1).await;
    assert!(!metadata.holds_anything().await.unwrap());
    join(&site).await.unwrap();
    assert_eq!(metadata.account(&named("admin")).await.unwrap(), None);
    assert!(
        metadata.bindings().await.unwrap().is_empty() && metadata.signing_keys().await.unwrap().is_empty()
    );
    assert_eq!(metadata.refresh_token(refreshing, "paris").await.unwrap(), Refreshed::Unknown);
    assert!(metadata.events_after(0, 10).await.unwrap().is_empty());
    assert_eq!(metadata.token_keys().await.unwrap(), [key], "the key is this site's own");
}

async fn a_site_with_an_account_of_its_own_does_not_join(site: TestSite) {
    let metadata = &site.metadata;
    let bootstrap = Actor { name: BOOTSTRAP_ACTOR.to_owned(), correlation: None };
    metadata.create_first_account(user("admin"), &bootstrap).await.unwrap();
    metadata.create_account(user("alice"), &actor()).await.unwrap();
    assert!(metadata.holds_anything().await.unwrap());
    let refused = join(&site).await.unwrap_err();
    assert!(matches!(refused, Error::Refused(_)), "{refused:?}");
    assert!(metadata.account(&named("alice")).await.unwrap().is_some());
    metadata.delete_account(&named("alice"), AccountKind::User, &actor()).await.unwrap();
    assert!(join(&site).await.is_err(), "its history remains");
}

async fn a_primary_takes_over_nobodys_records(site: TestSite) {
    let epoch = site.metadata.epochs().await.unwrap()[0];
    let taken = site
        .metadata
        .apply_access(vec![fetched(&epoch, &record("account", "mallory"), Some("{}".to_owned()), 9)])
        .await;
    assert!(matches!(taken, Err(Error::Refused(_))), "{taken:?}");
    assert!(site.metadata.access_listing(None, 10).await.unwrap().rows.is_empty());
}
