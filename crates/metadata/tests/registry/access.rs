//! Access records: what is written comes with an event that names it and keeps its secrets, and what ends takes along what
//! stood for it.

use twinport_access::{AccessToken, Account, AccountKind, AccountName, Binding, Rule, RuleKind, SigningKey};
use twinport_metadata::{
    Actor, Ended, Error, EventKind, Incarnation, Metadata, NewAccount, RecordKind, RecordSecret,
    RefreshToken, Refreshed,
};
use uuid::Uuid;

use crate::{
    on_both_databases,
    site::{NOON_US, TestSite, actor},
};

on_both_databases!(
    an_account_is_made_once_found_listed_and_deleted,
    every_change_has_one_event_that_names_it_and_a_change_of_nothing_has_none,
    a14_no_hash_is_in_an_event,
    a14_an_account_that_is_deleted_leaves_neither_tokens_nor_roles,
    a14_an_account_that_is_disabled_loses_its_tokens_for_good,
    a14_another_password_ends_refresh_tokens,
    a_token_is_for_an_account_that_is_there_and_enabled,
    a_token_that_stands_alone_ends_those_before_it,
    the_first_account_is_made_once_however_often_it_is_asked_for,
    roles_and_rules_come_and_go,
    the_generation_rises_with_every_change_and_with_nothing_else,
    a_record_gets_the_position_of_its_last_event,
    r26_a_halted_site_refuses_changes_of_access,
    signing_keys_are_their_sites_own,
    changes_of_access_and_pushes_at_once_wait_for_nobody_for_ever,
);

pub(crate) fn account(name: &str, kind: AccountKind) -> Account {
    Account { name: named(name), kind, disabled: false, description: String::new(), created_at_us: NOON_US }
}

pub(crate) fn named(name: &str) -> AccountName {
    AccountName::parse(name).unwrap()
}

pub(crate) fn user(name: &str) -> NewAccount {
    NewAccount {
        account: account(name, AccountKind::User),
        password: Some(RecordSecret::new(format!("$argon2id$hash-of-{name}"))),
        roles: vec![format!("user:{name} writer team/**").parse().unwrap()],
        token: None,
    }
}

pub(crate) fn token(account: &str) -> AccessToken {
    AccessToken {
        id: Uuid::new_v4(),
        account: named(account),
        label: "laptop".to_owned(),
        created_at_us: NOON_US,
        expires_at_us: None,
        limit: None,
    }
}

pub(crate) fn hash() -> RecordSecret {
    RecordSecret::new(vec![7_u8; 32])
}

async fn make_token(metadata: &Metadata, account: &str) -> Uuid {
    let token = token(account);
    let id = token.id;
    metadata.create_access_token(token, hash(), false, &actor()).await.unwrap();
    id
}

/// Keeps a refresh token of an account, and gives back its hash.
pub(crate) async fn refresh(metadata: &Metadata, account: &str, byte: u8) -> [u8; 32] {
    let token = RefreshToken {
        family: Uuid::new_v4(),
        account: named(account),
        service: "paris".to_owned(),
        scope: String::new(),
        issued_at_us: NOON_US,
        expires_at_us: NOON_US + 1_000_000_000,
    };
    metadata.create_refresh_token([byte; 32], token).await.unwrap();
    [byte; 32]
}

async fn an_account_is_made_once_found_listed_and_deleted(site: TestSite) {
    let metadata = &site.metadata;
    assert!(!metadata.had_accounts().await.unwrap());
    for name in ["bob", "alice", "carol"] {
        metadata.create_account(user(name), &actor()).await.unwrap();
    }
    let again = metadata.create_account(user("bob"), &actor()).await.unwrap_err();
    assert!(matches!(&again, Error::Exists(text) if text.contains("bob")), "{again:?}");
    let robot = NewAccount { account: account("bob", AccountKind::Robot), ..user("bob") };
    assert!(matches!(metadata.create_account(robot, &actor()).await, Err(Error::Exists(_))));

    let found = metadata.account(&named("alice")).await.unwrap().unwrap();
    assert_eq!(found.account, account("alice", AccountKind::User));
    assert_eq!(found.password.unwrap().reveal(), b"$argon2id$hash-of-alice");
    assert_eq!(metadata.account(&named("dora")).await.unwrap(), None);
    let first: Vec<_> = metadata.accounts(None, 2).await.unwrap();
    assert_eq!(first.iter().map(|account| account.name.as_str()).collect::<Vec<_>>(), ["alice", "bob"]);
    let rest = metadata.accounts(Some(&named("bob")), 2).await.unwrap();
    assert_eq!(rest.iter().map(|account| account.name.as_str()).collect::<Vec<_>>(), ["carol"]);

    assert_eq!(metadata.delete_account(&named("bob"), AccountKind::Robot, &actor()).await.unwrap(), None);
    let ended = metadata.delete_account(&named("bob"), AccountKind::User, &actor()).await.unwrap();
    assert_eq!(ended, Some(Ended { tokens: 0, roles: 1 }));
    assert_eq!(metadata.account(&named("bob")).await.unwrap(), None);
    assert_eq!(metadata.delete_account(&named("bob"), AccountKind::User, &actor()).await.unwrap(), None);
    // The name is free again, and nothing comes back with it.
    let bare = NewAccount { roles: vec![], ..user("bob") };
    metadata.create_account(bare, &actor()).await.unwrap();
    assert_eq!(metadata.bindings().await.unwrap().len(), 2);
}

async fn every_change_has_one_event_that_names_it_and_a_change_of_nothing_has_none(site: TestSite) {
    let metadata = &site.metadata;
    let who = Actor { name: "user root".to_owned(), correlation: Some("request-7".to_owned()) };
    metadata.create_account(user("alice"), &who).await.unwrap();
    let binding: Binding = "anyone reader public/**".parse().unwrap();
    assert!(metadata.grant_role(&binding, &who).await.unwrap());
    assert!(!metadata.grant_role(&binding, &who).await.unwrap());
    assert!(metadata.set_disabled(&named("alice"), false, &who).await.unwrap().is_none());
    assert!(metadata.revoke_role(&binding, &who).await.unwrap());
    assert!(!metadata.revoke_role(&binding, &who).await.unwrap());
    let mut named = Vec::new();
    for logged in site.log().await {
        let event = logged.event().unwrap();
        assert_eq!(event.kind, EventKind::AccessChanged);
        assert_eq!(event.actor.as_deref(), Some("user root"));
        assert_eq!(event.correlation.as_deref(), Some("request-7"));
        assert_eq!(event.repository, None);
        named.push(event.record.unwrap().to_string());
    }
    assert_eq!(
        named,
        [
            "account alice",
            "binding user:alice writer team/**",
            "binding anyone reader public/**",
            "binding anyone reader public/**"
        ]
    );
}

async fn a14_no_hash_is_in_an_event(site: TestSite) {
    let metadata = &site.metadata;
    metadata.create_account(user("alice"), &actor()).await.unwrap();
    make_token(metadata, "alice").await;
    metadata.set_password(&named("alice"), RecordSecret::new("$argon2id$other"), &actor()).await.unwrap();
    let key = metadata.current_token_key(i64::MAX, 0).await.unwrap();
    let own = metadata.site().await.unwrap().incarnation;
    metadata.publish_signing_keys(own, vec![key.public.clone()], &actor()).await.unwrap();
    for logged in site.log().await {
        let body = String::from_utf8(logged.body.to_vec()).unwrap();
        assert!(!body.contains("argon2"), "{body}");
        assert!(!body.contains(&"07".repeat(32)) && !body.contains(&key.public.public_key), "{body}");
    }
    let shown = format!("{:?} {key:?}", metadata.account(&named("alice")).await.unwrap());
    assert!(!shown.contains("argon2") && !shown.contains("private"), "{shown}");
}

async fn a14_an_account_that_is_deleted_leaves_neither_tokens_nor_roles(site: TestSite) {
    let metadata = &site.metadata;
    for name in ["alice", "bob"] {
        metadata.create_account(user(name), &actor()).await.unwrap();
    }
    let robot = NewAccount { account: account("ci", AccountKind::Robot), password: None, ..user("ci") };
    metadata.create_account(robot, &actor()).await.unwrap();
    let (of_alice, of_bob) = (make_token(metadata, "alice").await, make_token(metadata, "bob").await);
    let refreshing = refresh(metadata, "alice", 1).await;
    let ended = metadata.delete_account(&named("alice"), AccountKind::User, &actor()).await.unwrap();
    assert_eq!(ended, Some(Ended { tokens: 1, roles: 1 }));
    assert_eq!(metadata.access_token(of_alice).await.unwrap(), None);
    assert!(metadata.access_token(of_bob).await.unwrap().is_some());
    assert_eq!(metadata.refresh_token(refreshing, "paris").await.unwrap(), Refreshed::Unknown);
    let roles: Vec<_> = metadata.bindings().await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(roles, ["user:bob writer team/**", "user:ci writer team/**"]);
}

async fn a14_an_account_that_is_disabled_loses_its_tokens_for_good(site: TestSite) {
    let metadata = &site.metadata;
    metadata.create_account(user("alice"), &actor()).await.unwrap();
    let id = make_token(metadata, "alice").await;
    let refreshing = refresh(metadata, "alice", 1).await;
    let ended = metadata.set_disabled(&named("alice"), true, &actor()).await.unwrap();
    assert_eq!(ended, Some(Ended { tokens: 1, roles: 0 }));
    assert_eq!(metadata.refresh_token(refreshing, "paris").await.unwrap(), Refreshed::Unknown);
    let found = metadata.account(&named("alice")).await.unwrap().unwrap();
    assert!(found.account.disabled && found.password.is_some());
    assert!(metadata.set_disabled(&named("alice"), false, &actor()).await.unwrap().is_some());
    assert_eq!(metadata.access_token(id).await.unwrap(), None);
    assert_eq!(metadata.bindings().await.unwrap().len(), 1);
}

async fn a14_another_password_ends_refresh_tokens(site: TestSite) {
    let metadata = &site.metadata;
    for name in ["alice", "bob"] {
        metadata.create_account(user(name), &actor()).await.unwrap();
    }
    let personal = make_token(metadata, "alice").await;
    let (of_alice, of_bob) = (refresh(metadata, "alice", 1).await, refresh(metadata, "bob", 2).await);
    metadata.set_password(&named("alice"), RecordSecret::new("$argon2id$other"), &actor()).await.unwrap();
    assert_eq!(metadata.refresh_token(of_alice, "paris").await.unwrap(), Refreshed::Unknown);
    assert!(matches!(metadata.refresh_token(of_bob, "paris").await.unwrap(), Refreshed::Good(_)));
    assert!(metadata.access_token(personal).await.unwrap().is_some());
    let unknown = metadata.set_password(&named("dora"), RecordSecret::new("x"), &actor()).await;
    assert!(matches!(unknown, Err(Error::Unknown(_))), "{unknown:?}");
}

async fn a_token_is_for_an_account_that_is_there_and_enabled(site: TestSite) {
    let metadata = &site.metadata;
    let unknown = metadata.create_access_token(token("alice"), hash(), false, &actor()).await;
    assert!(matches!(unknown, Err(Error::Unknown(_))), "{unknown:?}");
    metadata.create_account(user("alice"), &actor()).await.unwrap();
    let id = make_token(metadata, "alice").await;
    assert_eq!(metadata.access_token(id).await.unwrap().unwrap().hash, hash());
    assert_eq!(metadata.access_tokens(Some(&named("alice"))).await.unwrap().len(), 1);
    assert_eq!(metadata.delete_access_token(id, &actor()).await.unwrap().unwrap().id, id);
    assert_eq!(metadata.delete_access_token(id, &actor()).await.unwrap(), None);
    metadata.set_disabled(&named("alice"), true, &actor()).await.unwrap();
    let disabled = metadata.create_access_token(token("alice"), hash(), false, &actor()).await;
    assert!(matches!(disabled, Err(Error::Refused(_))), "{disabled:?}");
}

async fn a_token_that_stands_alone_ends_those_before_it(site: TestSite) {
    let metadata = &site.metadata;
    let first = token("ci");
    let robot = NewAccount {
        account: account("ci", AccountKind::Robot),
        password: None,
        roles: vec![],
        token: Some((first.clone(), hash())),
    };
    metadata.create_account(robot, &actor()).await.unwrap();
    metadata.create_account(user("alice"), &actor()).await.unwrap();
    let of_alice = make_token(metadata, "alice").await;
    let second = token("ci");
    assert_eq!(metadata.create_access_token(second.clone(), hash(), true, &actor()).await.unwrap(), 1);
    assert_eq!(metadata.access_token(first.id).await.unwrap(), None);
    assert!(metadata.access_token(second.id).await.unwrap().is_some());
    assert!(metadata.access_token(of_alice).await.unwrap().is_some());
    let password = metadata.set_password(&named("ci"), RecordSecret::new("x"), &actor()).await;
    assert!(matches!(password, Err(Error::Refused(_))), "{password:?}");
}

async fn the_first_account_is_made_once_however_often_it_is_asked_for(site: TestSite) {
    let metadata = &site.metadata;
    let first = |name: &str| {
        let (metadata, new) = (metadata.clone(), user(name));
        tokio::spawn(async move { metadata.create_first_account(new, &actor()).await.unwrap() })
    };
    let made: Vec<bool> = [first("a").await.unwrap(), first("b").await.unwrap()].into();
    assert_eq!(made, [true, false]);
    metadata.delete_account(&named("a"), AccountKind::User, &actor()).await.unwrap();
    assert!(!first("c").await.unwrap(), "an account that was deleted is not followed by a default one");
    assert!(metadata.had_accounts().await.unwrap());
}

async fn roles_and_rules_come_and_go(site: TestSite) {
    let metadata = &site.metadata;
    let rule = Rule {
        name: named("releases"),
        repositories: "team/**".parse().unwrap(),
        what: RuleKind::ImmutableTags { tags: vec!["v*".parse().unwrap()], except: vec![] },
    };
    metadata.create_rule(&rule, &actor()).await.unwrap();
    assert!(matches!(metadata.create_rule(&rule, &actor()).await, Err(Error::Exists(_))));
    assert_eq!(metadata.rules().await.unwrap(), [rule]);
    assert!(metadata.delete_rule(&named("releases"), &actor()).await.unwrap());
    assert!(!metadata.delete_rule(&named("releases"), &actor()).await.unwrap());
    assert!(metadata.rules().await.unwrap().is_empty());

    let claims: Vec<String> = (0..16).map(|n| format!("claim-{n}={}", "x".repeat(200))).collect();
    let long: Binding = format!("workload:gitlab,{} reader **", claims.join(",")).parse().unwrap();
    let refused = metadata.grant_role(&long, &actor()).await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
}

async fn the_generation_rises_with_every_change_and_with_nothing_else(site: TestSite) {
    let metadata = &site.metadata;
    let start = metadata.access_generation().await.unwrap();
    metadata.create_account(user("alice"), &actor()).await.unwrap();
    let made = metadata.access_generation().await.unwrap();
    assert!(made > start);
    site.push_image("team/app", "image", "latest").await;
    refresh(metadata, "alice", 1).await;
    assert!(metadata.create_account(user("alice"), &actor()).await.is_err());
    assert!(!metadata.grant_role(&"user:alice writer team/**".parse().unwrap(), &actor()).await.unwrap());
    assert_eq!(metadata.access_generation().await.unwrap(), made);
    metadata.delete_account(&named("alice"), AccountKind::User, &actor()).await.unwrap();
    assert!(metadata.access_generation().await.unwrap() > made);
}

async fn a_record_gets_the_position_of_its_last_event(site: TestSite) {
    const STAMPED: &str = "SELECT COUNT(*) FROM access_records a JOIN events e ON e.event_id = a.change \
         WHERE a.position_seq = e.seq AND a.position_epoch = e.epoch";
    let metadata = &site.metadata;
    metadata.create_account(user("alice"), &actor()).await.unwrap();
    metadata.set_disabled(&named("alice"), true, &actor()).await.unwrap();
    // Known to listings at once, stamped soon after.
    site.log().await;
    let listed = metadata.access_listing(None, 10).await.unwrap();
    assert!(listed.complete);
    let positions: Vec<_> =
        listed.rows.iter().map(|row| (row.record.kind.as_str(), row.position_seq)).collect();
    assert_eq!(positions, [("account", Some(3)), ("binding", Some(2))]);
    for _ in 0..200 {
        if site.count(STAMPED).await == 2 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("records never get their positions");
}

async fn r26_a_halted_site_refuses_changes_of_access(site: TestSite) {
    let metadata = &site.metadata;
    metadata.create_account(user("alice"), &actor()).await.unwrap();
    let before = site.log().await.len();
    metadata.halt("history was rewritten").await.unwrap();
    let (alice, by) = (named("alice"), actor());
    let binding: Binding = "anyone reader **".parse().unwrap();
    let refusals = [
        metadata.create_account(user("bob"), &by).await,
        metadata.set_password(&alice, hash(), &by).await,
        metadata.set_disabled(&alice, true, &by).await.map(drop),
        metadata.delete_account(&alice, AccountKind::User, &by).await.map(drop),
        metadata.create_access_token(token("alice"), hash(), false, &by).await.map(drop),
        metadata.grant_role(&binding, &by).await.map(drop),
        metadata.delete_rule(&named("x"), &by).await.map(drop),
    ];
    for (number, refusal) in refusals.iter().enumerate() {
        assert!(matches!(refusal, Err(Error::Halted(_))), "change {number}: {refusal:?}");
    }
    assert_eq!(site.log().await.len(), before);
    assert!(metadata.account(&alice).await.unwrap().is_some());
}

async fn signing_keys_are_their_sites_own(site: TestSite) {
    let metadata = &site.metadata;
    let own = metadata.site().await.unwrap().incarnation;
    let key = metadata.current_token_key(i64::MAX, 0).await.unwrap().public;
    let by = actor();
    assert!(metadata.publish_signing_keys(own, vec![key.clone()], &by).await.unwrap());
    assert!(!metadata.publish_signing_keys(own, vec![key.clone()], &by).await.unwrap());
    assert_eq!(metadata.signing_keys().await.unwrap(), std::slice::from_ref(&key));

    let stranger = Incarnation::random();
    let forged = SigningKey { site: stranger.0, ..key.clone() };
    for keys in [
        vec![key.clone()],
        vec![forged],
        vec![SigningKey { kid: "other".to_owned(), site: stranger.0, ..key.clone() }],
    ] {
        let refused = metadata.publish_signing_keys(stranger, keys, &by).await;
        assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    }
    let many = (0..9).map(|n| SigningKey { kid: format!("key-{n}"), ..key.clone() }).collect();
    assert!(matches!(metadata.publish_signing_keys(own, many, &by).await, Err(Error::Refused(_))));

    // One that retired is kept for a day, in which what it signed expires.
    let next = metadata.rotate_token_key(0).await.unwrap().public;
    let keys: Vec<_> = metadata.token_keys().await.unwrap().into_iter().map(|key| key.public).collect();
    assert_eq!(keys.len(), 2);
    metadata.publish_signing_keys(own, keys, &by).await.unwrap();
    site.advance_clock(3_600_000_000);
    metadata.publish_signing_keys(own, vec![next.clone()], &by).await.unwrap();
    assert_eq!(metadata.signing_keys().await.unwrap().len(), 2);
    site.advance_clock(24 * 3_600_000_000);
    metadata.publish_signing_keys(own, vec![next.clone()], &by).await.unwrap();
    assert_eq!(metadata.signing_keys().await.unwrap(), [next]);
}

async fn changes_of_access_and_pushes_at_once_wait_for_nobody_for_ever(site: TestSite) {
    let mut tasks = Vec::new();
    for client in 0..6 {
        let metadata = site.metadata.clone();
        tasks.push(tokio::spawn(async move {
            for round in 0..8 {
                let name = format!("u{}", (client + round) % 4);
                let kind = AccountKind::User;
                match round % 4 {
                    0 | 1 => drop(metadata.create_account(user(&name), &actor()).await),
                    2 => drop(metadata.set_disabled(&named(&name), true, &actor()).await),
                    _ => drop(metadata.delete_account(&named(&name), kind, &actor()).await),
                }
                let pushed = crate::site::blob("team/app", &format!("{client} {round}"));
                metadata.commit_blob(pushed).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    // What is there is what the last event about each record left.
    let mut last = std::collections::BTreeMap::new();
    for logged in site.log().await {
        if let Some(record) = logged.event().unwrap().record {
            last.insert((record.kind, record.name), logged.position.seq);
        }
    }
    let listed = site.metadata.access_listing(None, 1_000).await.unwrap().rows;
    let positions: std::collections::BTreeMap<_, _> = listed
        .into_iter()
        .map(|row| ((row.record.kind, row.record.name), row.position_seq.unwrap()))
        .collect();
    assert_eq!(positions, last);
    let accounts = site.metadata.access_records(RecordKind::Account, None, 100).await.unwrap().rows;
    assert_eq!(accounts.len(), site.metadata.bindings().await.unwrap().len());
    assert_eq!(site.deadlocks().await, 0);
}
