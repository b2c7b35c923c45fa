//! Access records cross with what stands for their secrets, and with nothing of it in the log.

use twinport_access::{AccessToken, Account, AccountKind, AccountName};
use twinport_metadata::{Actor, Metadata, NewAccount, RecordSecret};
use uuid::Uuid;

use crate::{
    on_both_databases,
    pair::{Pair, until},
    transport::ListingFault,
};

on_both_databases!(
    accounts_tokens_roles_and_rules_arrive_and_go,
    r10_what_was_there_before_the_join_arrives_page_by_page,
    a_site_that_was_away_learns_what_changed_and_nothing_in_between,
    r3_a_listing_that_lies_ends_nothing_and_takes_nothing_away,
    r29_nothing_counts_as_processed_while_a_record_is_not_fetched,
    a14_no_hash_is_in_either_log,
    token_keys_of_every_site_are_known_to_all_and_go_with_their_site,
);

const HASH: &str = "$argon2id$v=19$a-hash-that-nobody-may-see";

fn by() -> Actor {
    Actor { name: "operator".to_owned(), correlation: None }
}

fn name(text: &str) -> AccountName {
    text.parse().unwrap()
}

fn user(text: &str) -> NewAccount {
    let account = Account {
        name: name(text),
        kind: AccountKind::User,
        disabled: false,
        description: "a person".to_owned(),
        created_at_us: 1,
    };
    let roles = vec![format!("user:{text} writer team/**").parse().unwrap()];
    NewAccount { account, password: Some(RecordSecret::new(HASH)), roles, token: None }
}

async fn make(pair: &Pair, text: &str) {
    pair.primary.metadata.create_account(user(text), &by()).await.unwrap();
}

async fn make_token(pair: &Pair, account: &str) -> Uuid {
    let token = AccessToken {
        id: Uuid::new_v4(),
        account: name(account),
        label: String::new(),
        created_at_us: 1,
        expires_at_us: Some(2),
        limit: None,
    };
    let id = token.id;
    let hash = RecordSecret::new(vec![9; 32]);
    pair.primary.metadata.create_access_token(token, hash, false, &by()).await.unwrap();
    id
}

/// Kind, name, body, secret.
type Rows = Vec<(String, String, Option<String>, Option<Vec<u8>>)>;

/// Everything, tombstones too.
async fn records(metadata: &Metadata) -> Rows {
    let page = metadata.access_listing(None, 10_000).await.unwrap();
    let rows = page.rows.into_iter().map(|row| {
        let secret = row.secret.map(|secret| secret.reveal().to_vec());
        (row.record.kind, row.record.name, row.body, secret)
    });
    rows.collect()
}

async fn alike(pair: &Pair) {
    until("the access records are alike", async || {
        let (ours, theirs) = (records(&pair.secondary.metadata).await, records(&pair.primary.metadata).await);
        (ours != theirs).then(|| format!("{} here, {} there", ours.len(), theirs.len()))
    })
    .await;
}

/// Waits until nothing that the primary acknowledged is outstanding.
async fn processed(pair: &Pair) {
    let head = pair.primary.metadata.sequence_now().await.unwrap().position.seq;
    until("everything is processed", async || {
        let seq = pair.secondary.metadata.processed_seq().await.unwrap();
        (seq != Some(head)).then(|| format!("{seq:?} of {head}"))
    })
    .await;
}

async fn accounts_tokens_roles_and_rules_arrive_and_go(mut pair: Pair) {
    pair.join_and_start().await;
    let secondary = pair.secondary.metadata.clone();
    make(&pair, "alice").await;
    make(&pair, "bob").await;
    let token = make_token(&pair, "alice").await;
    let rule = r#"{"name":"frozen","repositories":"team/**","rule":"immutable_tags","tags":["v*"]}"#;
    pair.primary.metadata.create_rule(&serde_json::from_str(rule).unwrap(), &by()).await.unwrap();
    processed(&pair).await;
    alike(&pair).await;
    let alice = secondary.account(&name("alice")).await.unwrap().unwrap();
    assert_eq!(alice.password.unwrap().reveal(), HASH.as_bytes());
    assert_eq!(secondary.access_token(token).await.unwrap().unwrap().hash.reveal(), [9; 32]);
    assert_eq!((secondary.bindings().await.unwrap().len(), secondary.rules().await.unwrap().len()), (2, 1));

    let generation = secondary.access_generation().await.unwrap();
    pair.primary.metadata.delete_account(&name("alice"), AccountKind::User, &by()).await.unwrap();
    pair.primary.metadata.set_disabled(&name("bob"), true, &by()).await.unwrap();
    processed(&pair).await;
    alike(&pair).await;
    assert_eq!(secondary.account(&name("alice")).await.unwrap(), None);
    assert_eq!(secondary.access_token(token).await.unwrap(), None);
    assert!(secondary.account(&name("bob")).await.unwrap().unwrap().account.disabled);
    assert_eq!(secondary.bindings().await.unwrap().len(), 1);
    assert!(secondary.access_generation().await.unwrap() > generation);
    let refused = secondary.create_account(user("carol"), &by()).await.unwrap_err();
    assert!(refused.to_string().contains("paris"), "a secondary names its primary: {refused}");
}

async fn r10_what_was_there_before_the_join_arrives_page_by_page(mut pair: Pair) {
    for number in 0..7 {
        make(&pair, &format!("user-{number}")).await;
    }
    pair.primary.metadata.delete_account(&name("user-3"), AccountKind::User, &by()).await.unwrap();
    *pair.faults.listings.lock() = ListingFault::Paged(2);
    pair.join_and_start().await;
    make(&pair, "late").await;
    processed(&pair).await;
    alike(&pair).await;
    assert_eq!(pair.secondary.metadata.accounts(None, 100).await.unwrap().len(), 7);
    assert!(*pair.faults.access_pages.lock() >= 7, "it came page by page");
}

async fn a_site_that_was_away_learns_what_changed_and_nothing_in_between(mut pair: Pair) {
    make(&pair, "alice").await;
    pair.join_and_start().await;
    processed(&pair).await;
    pair.faults.set_online(false);
    for number in 0..120 {
        make(&pair, &format!("user-{number}")).await;
    }
    pair.primary.metadata.delete_account(&name("user-5"), AccountKind::User, &by()).await.unwrap();
    for disabled in [true, false, true] {
        pair.primary.metadata.set_disabled(&name("alice"), disabled, &by()).await.unwrap();
    }
    assert!(!pair.secondary.metadata.account(&name("alice")).await.unwrap().unwrap().account.disabled);
    pair.faults.set_online(true);
    processed(&pair).await;
    alike(&pair).await;
    // A process that ends in the middle goes on where it was.
    pair.stop().await;
    pair.primary.metadata.set_disabled(&name("alice"), false, &by()).await.unwrap();
    pair.start().await;
    processed(&pair).await;
    alike(&pair).await;
}

async fn r3_a_listing_that_lies_ends_nothing_and_takes_nothing_away(mut pair: Pair) {
    for number in 0..4 {
        make(&pair, &format!("user-{number}")).await;
    }
    *pair.faults.listings.lock() = ListingFault::Failing;
    pair.join_and_start().await;
    for fault in [ListingFault::Failing, ListingFault::Empty, ListingFault::Truncated] {
        *pair.faults.listings.lock() = fault;
        let asked = *pair.faults.access_pages.lock();
        until("the listing was tried three times", async || {
            let tries = *pair.faults.access_pages.lock() - asked;
            (tries < 3).then(|| format!("{tries} tries"))
        })
        .await;
        assert!(
            pair.secondary.metadata.pending_access(1).await.unwrap().listing,
            "{fault:?} ended the listing"
        );
        assert_eq!(pair.secondary.metadata.processed_seq().await.unwrap(), None);
    }
    pair.faults.heal();
    processed(&pair).await;
    alike(&pair).await;
}

async fn r29_nothing_counts_as_processed_while_a_record_is_not_fetched(mut pair: Pair) {
    pair.join_and_start().await;
    processed(&pair).await;
    let before = pair.secondary.metadata.processed_seq().await.unwrap().unwrap();
    pair.faults.withheld_records.lock().push("alice".to_owned());
    make(&pair, "alice").await;
    make(&pair, "bob").await;
    until("bob arrived", async || {
        let bob = pair.secondary.metadata.account(&name("bob")).await.unwrap();
        bob.is_none().then(|| "he is not here".to_owned())
    })
    .await;
    pair.ingested().await;
    assert_eq!(pair.secondary.metadata.processed_seq().await.unwrap(), Some(before));
    assert_eq!(pair.secondary.metadata.account(&name("alice")).await.unwrap(), None);
    pair.faults.heal();
    processed(&pair).await;
    alike(&pair).await;
}

async fn a14_no_hash_is_in_either_log(mut pair: Pair) {
    pair.join_and_start().await;
    make(&pair, "alice").await;
    make_token(&pair, "alice").await;
    pair.secondary.metadata.current_token_key(i64::MAX, 0).await.unwrap();
    until("the second site's key is recorded", async || {
        pair.primary.metadata.signing_keys().await.unwrap().is_empty().then(|| "not yet".to_owned())
    })
    .await;
    processed(&pair).await;
    alike(&pair).await;
    for metadata in [&pair.primary.metadata, &pair.secondary.metadata] {
        for logged in metadata.events_after(0, 1_000).await.unwrap() {
            let body = String::from_utf8(logged.body.to_vec()).unwrap();
            assert!(!body.contains("argon2") && !body.contains("CQkJ") && !body.contains("090909"), "{body}");
        }
    }
    let secondary = &pair.secondary.metadata;
    let private = secondary.token_keys().await.unwrap().remove(0).private;
    for (_, _, body, secret) in records(&pair.primary.metadata).await {
        assert!(secret.is_none_or(|secret| secret != private), "a private key stays where it is");
        let body = body.unwrap_or_default();
        assert!(!body.contains("argon2"), "{body}");
    }
}

async fn token_keys_of_every_site_are_known_to_all_and_go_with_their_site(mut pair: Pair) {
    let primary = pair.primary.metadata.clone();
    let own = primary.site().await.unwrap().incarnation;
    let first = primary.current_token_key(i64::MAX, 0).await.unwrap().public;
    primary.publish_signing_keys(own, vec![first.clone()], &by()).await.unwrap();
    pair.join_and_start().await;
    let second = pair.secondary.metadata.current_token_key(i64::MAX, 0).await.unwrap().public;
    let known = async |metadata: &Metadata| {
        let keys = metadata.signing_keys().await.unwrap();
        keys.into_iter().map(|key| key.kid).collect::<std::collections::BTreeSet<_>>()
    };
    let both = [first.kid.clone(), second.kid].into();
    for metadata in [&primary, &pair.secondary.metadata] {
        until("both keys are known", async || {
            let kids = known(metadata).await;
            (kids != both).then(|| format!("{kids:?}"))
        })
        .await;
    }
    let third = pair.secondary.metadata.rotate_token_key(1_000_000).await.unwrap().public;
    until("its next key is known", async || {
        (!known(&primary).await.contains(&third.kid)).then(|| "not yet".to_owned())
    })
    .await;
    pair.registrar.remove("tokyo", &by()).await.unwrap();
    assert_eq!(known(&primary).await, [first.kid].into(), "what a removed site signs is refused");
}
