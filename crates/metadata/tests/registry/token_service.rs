//! What the token service keeps for itself: its keys, and refresh tokens by their hashes.

use twinport_metadata::{RefreshToken, Refreshed};
use uuid::Uuid;

use crate::{
    access::{named, refresh},
    on_both_databases,
    site::{NOON_US, TestSite},
};

on_both_databases!(
    a_key_is_made_once_and_replaced_when_it_is_old,
    nodes_that_start_together_make_one_key,
    a_refresh_token_is_good_until_it_expires_and_for_its_service,
    a4_a_refresh_token_that_is_shown_twice_ends_its_family,
    refresh_tokens_that_expired_are_forgotten,
);

const DAY_US: i64 = 24 * 3_600_000_000;
const MINUTE_US: i64 = 60_000_000;

async fn a_key_is_made_once_and_replaced_when_it_is_old(site: TestSite) {
    let metadata = &site.metadata;
    assert!(metadata.token_keys().await.unwrap().is_empty());
    let first = metadata.current_token_key(DAY_US, MINUTE_US).await.unwrap();
    assert_eq!(first.public.site, metadata.site().await.unwrap().incarnation.0);
    assert_eq!((first.public.created_at_us, first.public.retires_at_us), (NOON_US, None));
    assert_eq!(metadata.current_token_key(DAY_US, MINUTE_US).await.unwrap(), first);

    site.advance_clock(DAY_US + 1);
    let second = metadata.current_token_key(DAY_US, MINUTE_US).await.unwrap();
    assert_ne!(second.public.kid, first.public.kid);
    let keys = metadata.token_keys().await.unwrap();
    assert_eq!(keys[0], second);
    assert_eq!(keys[1].private, first.private);
    assert_eq!(keys[1].public.retires_at_us, Some(NOON_US + DAY_US + 1 + MINUTE_US));

    site.advance_clock(MINUTE_US + 1);
    let third = metadata.rotate_token_key(MINUTE_US).await.unwrap();
    let kept: Vec<_> = metadata.token_keys().await.unwrap().into_iter().map(|key| key.public.kid).collect();
    assert_eq!(kept, [third.public.kid, second.public.kid], "the first one's private half is gone");
    assert!(site.log().await.is_empty(), "a private key is nobody else's business");
}

async fn nodes_that_start_together_make_one_key(site: TestSite) {
    let makers = (0..8).map(|_| {
        let metadata = site.metadata.clone();
        tokio::spawn(async move { metadata.current_token_key(DAY_US, MINUTE_US).await.unwrap() })
    });
    let mut made = Vec::new();
    for maker in makers.collect::<Vec<_>>() {
        made.push(maker.await.unwrap());
    }
    made.dedup();
    assert_eq!(made.len(), 1);
    assert_eq!(site.metadata.token_keys().await.unwrap().len(), 1);
}

async fn a_refresh_token_is_good_until_it_expires_and_for_its_service(site: TestSite) {
    let metadata = &site.metadata;
    let hash = refresh(metadata, "alice", 1).await;
    let Refreshed::Good(found) = metadata.refresh_token(hash, "paris").await.unwrap() else {
        panic!("it is good");
    };
    assert_eq!(found.account, named("alice"));
    assert!(matches!(metadata.refresh_token(hash, "paris").await.unwrap(), Refreshed::Good(_)));
    assert_eq!(metadata.refresh_token(hash, "tokyo").await.unwrap(), Refreshed::Unknown);
    assert_eq!(metadata.refresh_token([9; 32], "paris").await.unwrap(), Refreshed::Unknown);
    site.advance_clock(1_000_000_000);
    assert_eq!(metadata.refresh_token(hash, "paris").await.unwrap(), Refreshed::Unknown);
    let rotated = metadata.rotate_refresh_token(hash, "paris", [2; 32], i64::MAX).await.unwrap();
    assert_eq!(rotated, Refreshed::Unknown);
}

async fn a4_a_refresh_token_that_is_shown_twice_ends_its_family(site: TestSite) {
    let metadata = &site.metadata;
    let first = refresh(metadata, "alice", 1).await;
    let other = refresh(metadata, "alice", 100).await;
    let until = NOON_US + 5_000_000_000;
    let rotated = metadata.rotate_refresh_token(first, "tokyo", [2; 32], until).await.unwrap();
    assert_eq!(rotated, Refreshed::Unknown, "for another service it is none");
    let rotated = metadata.rotate_refresh_token(first, "paris", [2; 32], until).await.unwrap();
    assert!(
        matches!(&rotated, Refreshed::Good(RefreshToken { expires_at_us, .. }) if *expires_at_us == until)
    );
    assert_eq!(metadata.refresh_token(first, "paris").await.unwrap(), Refreshed::Unknown);
    assert!(matches!(metadata.refresh_token([2; 32], "paris").await.unwrap(), Refreshed::Good(_)));

    let again = metadata.rotate_refresh_token(first, "paris", [3; 32], until).await.unwrap();
    assert_eq!(again, Refreshed::Reused(named("alice")));
    for ended in [first, [2; 32], [3; 32]] {
        assert_eq!(metadata.refresh_token(ended, "paris").await.unwrap(), Refreshed::Unknown);
    }
    assert!(matches!(metadata.refresh_token(other, "paris").await.unwrap(), Refreshed::Good(_)));
    metadata.revoke_refresh_tokens(&named("alice")).await.unwrap();
    assert_eq!(metadata.refresh_token(other, "paris").await.unwrap(), Refreshed::Unknown);
}

async fn refresh_tokens_that_expired_are_forgotten(site: TestSite) {
    let metadata = &site.metadata;
    refresh(metadata, "alice", 1).await;
    assert_eq!(metadata.purge_refresh_tokens().await.unwrap(), 0);
    site.advance_clock(1_000_000_000);
    let fresh = RefreshToken {
        family: Uuid::new_v4(),
        account: named("bob"),
        service: "paris".to_owned(),
        scope: "repository:a:pull".to_owned(),
        issued_at_us: NOON_US,
        expires_at_us: i64::MAX,
    };
    metadata.create_refresh_token([2; 32], fresh.clone()).await.unwrap();
    assert_eq!(metadata.purge_refresh_tokens().await.unwrap(), 1);
    assert_eq!(metadata.refresh_token([2; 32], "paris").await.unwrap(), Refreshed::Good(fresh));
}
