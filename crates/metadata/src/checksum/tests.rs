//! One content, one checksum, on every database; another content, another checksum.

use twinport_oci::Digest;
use uuid::Uuid;

use super::*;
use crate::{Clock, Database, OpenOptions, PostgresOptions};

const REPOSITORY: RepositoryUuid = RepositoryUuid(Uuid::from_u128(0x5eed));

struct Content {
    manifests: Vec<(Digest, &'static str, Option<i64>)>,
    tags: Vec<(&'static str, Digest, Option<i64>)>,
    tombstones: Vec<Option<i64>>,
}

fn digest(n: u32) -> Digest {
    Digest::sha256(&n.to_be_bytes())
}

fn content() -> Content {
    const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
    Content {
        manifests: vec![
            (digest(3), OCI, Some(7)),
            (digest(1), OCI, Some(5)),
            (digest(2), "application/json", Some(6)),
        ],
        // Sorted by a language's rules, by case or by bytes, these come in three orders.
        tags: vec![
            ("b", digest(1), Some(9)),
            ("B", digest(2), Some(8)),
            ("_a", digest(3), Some(3)),
            ("a-1", digest(1), Some(2)),
            ("a.1", digest(1), Some(2)),
            ("A1", digest(2), Some(1)),
            ("a", digest(3), Some(4)),
        ],
        tombstones: vec![Some(11)],
    }
}

async fn open(database: Database) -> Metadata {
    Metadata::open(OpenOptions { database, clock: Clock::System }).await.unwrap()
}

/// Replaces the repository's rows, so that the checksum has nothing else to go by.
async fn fill(metadata: &Metadata, content: Content) {
    const INSERT: &str =
        "INSERT INTO repositories (uuid, path, created_at_us) VALUES ($1, 'r', 0) RETURNING id";
    let manifests: Vec<_> = content.manifests;
    let tags: Vec<_> = content.tags;
    let tombstones: Vec<_> = content.tombstones;
    metadata
        .db
        .write(move |tx| {
            let (manifests, tags, tombstones) = (manifests.clone(), tags.clone(), tombstones.clone());
            Box::pin(async move {
                for table in ["DELETE FROM repositories", "DELETE FROM manifests", "DELETE FROM tags", "DELETE FROM tombstones"] {
                    tx.execute(table, vec![]).await?;
                }
                let id = tx.query_opt(INSERT, vec![REPOSITORY.into()]).await?.unwrap().int(0)?;
                for (digest, media_type, seq) in manifests {
                    tx.execute(
                        "INSERT INTO manifests (repository_id, digest, media_type, size, body, pushed_at_us, position_seq) \
                         VALUES ($1, $2, $3, 0, $4, 0, $5)",
                        vec![id.into(), digest.into(), media_type.into(), Vec::new().into(), seq.into()],
                    )
                    .await?;
                }
                for (name, digest, seq) in tags {
                    tx.execute(
                        "INSERT INTO tags (repository_id, name, digest, tagged_at_us, position_seq) \
                         VALUES ($1, $2, $3, 0, $4)",
                        vec![id.into(), name.into(), digest.into(), seq.into()],
                    )
                    .await?;
                }
                for (n, seq) in tombstones.into_iter().enumerate() {
                    tx.execute(
                        "INSERT INTO tombstones (repository, kind, key, deleted_at_us, position_seq) \
                         VALUES ($1, 'tag', $2, 0, $3)",
                        vec![REPOSITORY.into(), vec![n as u8].into(), seq.into()],
                    )
                    .await?;
                }
                Ok(())
            })
        })
        .await
        .unwrap();
}

async fn checksum(metadata: &Metadata, content: Content) -> RepositoryChecksum {
    fill(metadata, content).await;
    metadata.repository_checksum(REPOSITORY).await.unwrap().unwrap()
}

async fn on_sqlite() -> (Metadata, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (open(Database::Sqlite { path: directory.path().join("metadata.db") }).await, directory)
}

#[tokio::test]
async fn r17_the_same_content_has_one_checksum_on_both_databases() {
    let (sqlite, _directory) = on_sqlite().await;
    let ours = checksum(&sqlite, content()).await;
    assert_eq!((ours.manifests, ours.tags, ours.through_seq, ours.in_motion), (3, 7, 11, false));
    // The encoding is part of the protocol: it does not change unnoticed.
    assert_eq!(
        hex::encode(ours.checksum),
        "051d997071bf74faa4569e9c6d58282f316745ba792673a28a0de90ba6009d6a"
    );

    let mut shuffled = content();
    shuffled.manifests.reverse();
    shuffled.tags.reverse();
    assert_eq!(checksum(&sqlite, shuffled).await, ours);

    let Some(url) = twinport_testkit::postgres_database().await.unwrap() else {
        println!("skipped: PostgreSQL is not installed");
        return;
    };
    let postgresql = open(Database::Postgres(PostgresOptions::parse(&url).unwrap())).await;
    assert_eq!(checksum(&postgresql, content()).await, ours);
}

#[tokio::test]
async fn r17_another_content_has_another_checksum() {
    let (sqlite, _directory) = on_sqlite().await;
    let whole = checksum(&sqlite, content()).await.checksum;
    let changes: [fn(&mut Content); 6] = [
        |content| content.tags.truncate(6),
        |content| content.manifests.truncate(2),
        |content| content.tags[0].1 = digest(2),
        |content| content.tags[0].0 = "c",
        |content| content.manifests[0].1 = "application/json",
        |content| content.manifests[0].0 = digest(4),
    ];
    for (n, change) in changes.iter().enumerate() {
        let mut other = content();
        change(&mut other);
        assert_ne!(checksum(&sqlite, other).await.checksum, whole, "change {n}");
    }
    // Where rows stand in history is no content.
    let mut moved = content();
    moved.tags[0].2 = Some(99);
    let moved = checksum(&sqlite, moved).await;
    assert_eq!((moved.checksum, moved.through_seq), (whole, 99));
}

#[tokio::test]
async fn r18_a_row_without_a_position_puts_the_repository_in_motion() {
    let (sqlite, _directory) = on_sqlite().await;
    let changes: [fn(&mut Content); 3] = [
        |content| content.tags[0].2 = None,
        |content| content.manifests[0].2 = None,
        |content| content.tombstones.push(None),
    ];
    for change in changes {
        let mut other = content();
        change(&mut other);
        assert!(checksum(&sqlite, other).await.in_motion);
    }
    assert!(!checksum(&sqlite, content()).await.in_motion);
    assert_eq!(sqlite.repository_checksum(RepositoryUuid::random()).await.unwrap(), None);
}

#[tokio::test]
async fn a_repository_longer_than_a_page_is_summed_whole() {
    let (sqlite, _directory) = on_sqlite().await;
    fill(&sqlite, content()).await;
    sqlite
        .db
        .write(|tx| {
            Box::pin(async move {
                let rows = (0..2 * PAGE as i64).map(|n| vec![Value::Int(n), digest(0).into()]);
                tx.send_each(
                    "INSERT INTO tags (repository_id, name, digest, tagged_at_us, position_seq) \
                     SELECT id, 't' || $1, $2, 0, 1 FROM repositories",
                    rows.collect(),
                )
                .await
            })
        })
        .await
        .unwrap();
    let sum = sqlite.repository_checksum(REPOSITORY).await.unwrap().unwrap();
    assert_eq!(sum.tags, 7 + 2 * PAGE as u64);
}
