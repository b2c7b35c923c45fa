//! Hazard R26: a database that went back is noticed before anything is written where acknowledged events were.

use std::time::Duration;

use twinport_testkit::{PostgresServer, Stop, TcpProxy};

use super::{checked_log, note, on_postgres, open_postgres, own_server};
use crate::{Error, Metadata, PostgresHost, PostgresOptions};

/// Waits until the database answers again.
async fn answers(metadata: &Metadata) {
    for _ in 0..600 {
        if metadata.site().await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the database does not come back: {:?}", metadata.site().await);
}

async fn halted(metadata: &Metadata) -> String {
    answers(metadata).await;
    let error = note(metadata, "x", "never").await.unwrap_err();
    assert!(matches!(error, Error::Halted(_)), "{error}");
    let site = metadata.site().await.unwrap();
    assert!(site.lost_writes(), "{:?}", site.halted);
    site.halted.unwrap()
}

/// Waits until readers of a node are told of this head, which may be a lower one than before.
async fn hear_of(node: &Metadata, seq: i64) {
    let mut head = node.watch_head();
    let moved = head.wait_for(|head| head.is_some_and(|head| head.position.seq == seq));
    let heard = tokio::time::timeout(Duration::from_secs(30), moved).await.is_ok();
    assert!(heard, "readers hear of {seq}, and not of {:?} alone", *node.watch_head().borrow());
}

async fn lose_what_follows_a_backup(server: &mut PostgresServer, metadata: &Metadata) {
    lose_after(server, metadata, async || ()).await;
}

/// `before` is what happens between the last write and the loss.
async fn lose_after(server: &mut PostgresServer, metadata: &Metadata, before: impl AsyncFnOnce()) {
    for index in 0..3 {
        note(metadata, "x", &format!("kept {index}")).await.unwrap();
    }
    let backup = server.base_backup().unwrap();
    for index in 0..4 {
        note(metadata, "x", &format!("lost {index}")).await.unwrap();
    }
    metadata.sequence_now().await.unwrap();
    before().await;
    server.stop(Stop::Fast).unwrap();
    server.restore(&backup).unwrap();
    server.resume().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn r26_a_server_restored_from_an_older_backup_takes_no_write_until_somebody_accepts_the_loss() {
    let Some(mut server) = own_server(&[]) else { return };
    let address = server.database("registry").await.unwrap();
    let (metadata, other_node) = (on_postgres(&address).await, on_postgres(&address).await);
    lose_what_follows_a_backup(&mut server, &metadata).await;

    let reason = halted(&metadata).await;
    assert!(reason.contains("event 7 is missing, its log ends at event 3"), "{reason}");
    assert!(reason.contains("twinport db accept-loss") && reason.contains("127.0.0.1"), "{reason}");
    halted(&other_node).await;
    assert_eq!(metadata.log_head().await.unwrap().position.seq, 3);

    // Another restart of the same server changes nothing.
    server.restart(Stop::Immediate).unwrap();
    halted(&metadata).await;

    metadata.accept_loss().await.unwrap();
    note(&metadata, "x", "after").await.unwrap();
    note(&other_node, "x", "after too").await.unwrap();
    assert_eq!(checked_log(&metadata).await.len(), 5);
    assert!(
        matches!(metadata.accept_loss().await, Err(Error::Refused(_))),
        "there is nothing left to accept"
    );
    // What was accepted is forgotten, on every node.
    for node in [&metadata, &other_node] {
        hear_of(node, 5).await;
    }
    server.restart(Stop::Fast).unwrap();
    answers(&metadata).await;
    answers(&other_node).await;
    note(&other_node, "x", "after a restart").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn r26_a_node_that_was_cut_off_until_the_loss_was_accepted_tells_its_readers() {
    let Some(mut server) = own_server(&[]) else { return };
    let metadata = on_postgres(&server.database("registry").await.unwrap()).await;
    let link = TcpProxy::to(([127, 0, 0, 1], server.port()).into()).unwrap();
    let away = on_postgres(&format!("postgres://postgres@{}/registry", link.address())).await;
    lose_after(&mut server, &metadata, async || {
        hear_of(&away, 7).await;
        link.cut();
    })
    .await;
    halted(&metadata).await;
    metadata.accept_loss().await.unwrap();
    note(&metadata, "x", "after").await.unwrap();
    link.resume();
    hear_of(&away, 4).await;
    note(&away, "x", "after too").await.unwrap();
    hear_of(&away, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r26_what_waits_for_a_number_gets_none_while_writes_are_stopped() {
    let Some(mut server) = own_server(&[]) else { return };
    let address = server.database("registry").await.unwrap();
    let metadata = on_postgres(&address).await;
    lose_what_follows_a_backup(&mut server, &metadata).await;
    halted(&metadata).await;
    // As if it had been committed just before the backup, by a node that did not get to number it.
    let waiting = "INSERT INTO events (repository, body) SELECT repository, body FROM events LIMIT 1";
    metadata.db.script(waiting).await.unwrap();
    assert!(matches!(metadata.sequence_now().await, Err(Error::Halted(_))));
    assert_eq!(metadata.log_head().await.unwrap().position.seq, 3);
    metadata.accept_loss().await.unwrap();
    assert_eq!(metadata.sequence_now().await.unwrap().position.seq, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn r26_a_node_that_was_restarted_itself_still_knows_what_it_saw() {
    let Some(mut server) = own_server(&[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut options = PostgresOptions::parse(&server.database("registry").await.unwrap()).unwrap();
    options.seen = Some(folder.path().join("database-seen.json"));
    let metadata = open_postgres(options.clone()).await.unwrap();
    for index in 0..2 {
        note(&metadata, "x", &index.to_string()).await.unwrap();
    }
    let backup = server.base_backup().unwrap();
    note(&metadata, "x", "lost").await.unwrap();
    metadata.sequence_now().await.unwrap();
    metadata.close().await;
    server.stop(Stop::Fast).unwrap();
    server.restore(&backup).unwrap();
    server.resume().unwrap();

    let kept = folder.path().join("as-it-was.json");
    std::fs::copy(folder.path().join("database-seen.json"), &kept).unwrap();
    let metadata = open_postgres(options.clone()).await.unwrap();
    assert!(halted(&metadata).await.contains("event 3 is missing"));
    metadata.accept_loss().await.unwrap();
    note(&metadata, "x", "after").await.unwrap();
    metadata.sequence_now().await.unwrap();
    metadata.close().await;
    let metadata = open_postgres(options.clone()).await.unwrap();
    note(&metadata, "x", "a loss is accepted once").await.unwrap();
    metadata.close().await;
    let mut node_that_was_off = options.clone();
    node_that_was_off.seen = Some(kept);
    let metadata = open_postgres(node_that_was_off).await.unwrap();
    note(&metadata, "x", "and for every node").await.unwrap();
    metadata.close().await;

    // An empty database, and one of another site, are not this node's.
    for (name, said) in [("empty", "holds no site"), ("other", "belongs to another site")] {
        let url = server.database(name).await.unwrap();
        if name == "other" {
            on_postgres(&url).await.close().await;
        }
        let mut elsewhere = PostgresOptions::parse(&url).unwrap();
        elsewhere.seen = options.seen.clone();
        let refusal = open_postgres(elsewhere).await.unwrap_err().to_string();
        assert!(refusal.contains(said), "{refusal}");
    }
    std::fs::write(folder.path().join("database-seen.json"), "{").unwrap();
    let refusal = open_postgres(options).await.unwrap_err().to_string();
    assert!(refusal.contains("database-seen.json") && refusal.contains("remove it"), "{refusal}");
}

/// Two servers that a site knows both of.
async fn pair(settings: &[&str]) -> Option<(PostgresServer, PostgresServer, PostgresOptions)> {
    let server = own_server(settings)?;
    let mut options = PostgresOptions::parse(&server.database("registry").await.unwrap()).unwrap();
    let standby = server.standby("twinport_standby").unwrap();
    options.hosts.push(PostgresHost { host: "127.0.0.1".to_owned(), port: standby.port() });
    Some((server, standby, options))
}

#[tokio::test(flavor = "multi_thread")]
async fn r26_a_failover_to_a_standby_that_had_not_received_everything_stops_writes() {
    let Some((mut server, mut standby, options)) = pair(&[]).await else { return };
    let address = format!("postgres://postgres@127.0.0.1:{}/registry", server.port());
    let metadata = open_postgres(options).await.unwrap();
    note(&metadata, "x", "kept").await.unwrap();
    metadata.sequence_now().await.unwrap();
    server.wait_for_standbys().await.unwrap();
    standby.stop(Stop::Fast).unwrap();
    // Acknowledged and not numbered yet: no head tells of it.
    let (numbering, connection) = tokio_postgres::connect(&address, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    numbering.batch_execute("BEGIN; SELECT 1 FROM log_head WHERE id = 1 FOR UPDATE").await.unwrap();
    note(&metadata, "x", "never received").await.unwrap();
    server.stop(Stop::Kill).unwrap();
    standby.resume().unwrap();
    assert!(note(&metadata, "x", "refused").await.is_err(), "a standby takes no writes");
    standby.promote().await.unwrap();
    let reason = halted(&metadata).await;
    assert!(
        reason.contains(&standby.port().to_string()) && reason.contains("that this node acknowledged"),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_a_failover_to_a_synchronous_standby_loses_nothing_and_writes_go_on() {
    let Some((mut server, standby, options)) = pair(&[]).await else { return };
    let synchronous =
        "ALTER SYSTEM SET synchronous_standby_names = 'twinport_standby'; SELECT pg_reload_conf()";
    server.execute(synchronous).await.unwrap();
    let metadata = open_postgres(options).await.unwrap();
    for index in 0..20 {
        note(&metadata, "x", &index.to_string()).await.unwrap();
    }
    let facts = metadata.server_facts().await.unwrap().unwrap();
    assert_eq!(
        (facts.synchronous_standbys.as_str(), facts.connected_standbys, facts.synchronous_commit.as_str()),
        ("twinport_standby", 1, "on")
    );
    server.stop(Stop::Kill).unwrap();
    standby.promote().await.unwrap();
    // The promoted server is configured as its primary was, and would wait for a standby that it does not have.
    standby
        .execute("ALTER SYSTEM SET synchronous_standby_names = ''; SELECT pg_reload_conf()")
        .await
        .unwrap();
    answers(&metadata).await;
    note(&metadata, "x", "after").await.unwrap();
    assert_eq!(metadata.site().await.unwrap().halted, None);
    assert_eq!(checked_log(&metadata).await.len(), 21);
}
