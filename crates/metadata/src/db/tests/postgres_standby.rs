//! Servers that take no writes: standbys, and those that were made read-only, before a start and under a site that runs.

use std::time::Duration;

use super::{note, open_postgres, own_server};
use crate::{Error, PostgresOptions};

#[tokio::test(flavor = "multi_thread")]
async fn s11_a_standby_is_refused_at_a_start_and_the_primary_behind_it_is_found() {
    let Some(server) = own_server(&[]) else { return };
    let address = server.database("registry").await.unwrap();
    let metadata = open_postgres(PostgresOptions::parse(&address).unwrap()).await.unwrap();
    metadata.close().await;
    let standby = server.standby("twinport_standby").unwrap();
    let mut options = PostgresOptions::parse(&address).unwrap();
    options.hosts[0].port = standby.port();
    let refusal = open_postgres(options.clone()).await.unwrap_err();
    let text = refusal.to_string();
    assert!(matches!(refusal, Error::Refused(_)), "{text}");
    assert!(text.contains("is a standby") && text.contains(&standby.port().to_string()), "{text}");

    let mut primary = options.hosts[0].clone();
    primary.port = server.port();
    options.hosts.push(primary);
    let metadata = open_postgres(options).await.unwrap();
    note(&metadata, "x", "at the primary").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_a_server_that_becomes_read_only_under_a_site_refuses_writes_until_it_takes_them_again() {
    let Some(server) = own_server(&[]) else { return };
    let metadata =
        open_postgres(PostgresOptions::parse(&server.database("registry").await.unwrap()).unwrap()).await;
    let metadata = metadata.unwrap();
    note(&metadata, "x", "before").await.unwrap();
    server
        .execute("ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()")
        .await
        .unwrap();
    let mut refused = None;
    for _ in 0..600 {
        if let Err(error) = note(&metadata, "x", "maybe").await {
            refused = Some(error);
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let refused = refused.expect("writes are refused");
    assert!(
        matches!(&refused, Error::Unavailable(text) if text.contains("read-only") || text.contains("read_only")),
        "{refused}"
    );
    // A session is read-only until it says otherwise: this one has to.
    server
        .execute("SET default_transaction_read_only = off; ALTER SYSTEM RESET default_transaction_read_only; SELECT pg_reload_conf()")
        .await
        .unwrap();
    for _ in 0..600 {
        if note(&metadata, "x", "after").await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the site does not take writes again");
}
