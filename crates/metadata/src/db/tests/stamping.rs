//! Row positions on PostgreSQL: known to listings as soon as the event has a number, stamped soon after, also on rows
//! that pushes hold all the time.

use std::time::Duration;

use twinport_oci::{Digest, RepositoryName};

use super::{on_postgres, postgres_address};
use crate::{Actor, CommitBlob, ListedRow, ListingCursor, Metadata};

async fn push(metadata: &Metadata, name: &RepositoryName, content: &[u8]) {
    let commit = CommitBlob {
        repository: name.clone(),
        digest: Digest::sha256(content),
        size: content.len() as u64,
        upload: None,
        actor: Actor::anonymous(),
    };
    metadata.commit_blob(commit).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_a_row_is_listed_with_its_position_before_the_stamper_came_by() {
    let Some(address) = postgres_address().await else { return };
    let metadata = on_postgres(&address).await;
    let name: RepositoryName = "library/app".parse().unwrap();
    // Each push is listed at once: the stamper comes by ten times a second at most.
    for index in 0..50_u8 {
        push(&metadata, &name, &[index]).await;
        let head = metadata.sequence_now().await.unwrap().position.seq;
        let repositories = metadata.repository_rows("", 10).await.unwrap().rows;
        assert!(repositories[0].position_seq.is_some_and(|seq| seq <= head));
        let listing =
            metadata.repository_listing(repositories[0].uuid, ListingCursor::start(), 100).await.unwrap();
        for row in listing.unwrap().rows {
            let ListedRow::BlobLink { position_seq, .. } = row else { panic!("only blobs were pushed") };
            assert!(
                position_seq.is_some_and(|seq| seq <= head),
                "a backfill up to {head} would skip this row"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_pushes_hold_all_the_time_is_stamped_all_the_same() {
    const UNSTAMPED: &str = "SELECT COUNT(*) FROM repositories WHERE position_seq IS NULL";
    let Some(address) = postgres_address().await else { return };
    let metadata = on_postgres(&address).await;
    let (mut client, connection) = tokio_postgres::connect(&address, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let name: RepositoryName = "library/app".parse().unwrap();
    push(&metadata, &name, b"x").await;
    let held = client.transaction().await.unwrap();
    held.execute("SELECT id FROM repositories FOR KEY SHARE", &[]).await.unwrap();
    // Changed again under the lock, so that the stamper has not been here before.
    metadata
        .db
        .write(|tx| {
            Box::pin(async move {
                let forget = "UPDATE repositories SET position_seq = NULL, position_epoch = NULL";
                tx.execute(forget, vec![]).await.map(drop)
            })
        })
        .await
        .unwrap();
    push(&metadata, &name, b"y").await;

    let stamped = async {
        while metadata.db.query(UNSTAMPED, vec![]).await.unwrap()[0].int(0).unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), stamped).await.expect("the stamper passes a shared lock");
    held.rollback().await.unwrap();
}
