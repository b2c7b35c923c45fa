//! Recovery, expiry and scrub on a real store and a real database.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use bytes::Bytes;
use twinport_blobs::{Blobs, Hidden, Progress, S3Settings, SpoolName};
use twinport_metadata::{Actor, Clock, CommitBlob, Database, Metadata, OpenOptions, UploadSession};
use twinport_oci::{Algorithm, Digest, RepositoryName, UploadId};
use twinport_testkit::{ObjectServer, ObjectServerKind, object_server};
use twinport_upkeep::{FindingKind, RecoveryReport, expire_uploads, recover, scrub};

struct Fixture {
    directory: tempfile::TempDir,
    metadata: Metadata,
    blobs: Blobs,
}

impl Fixture {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::Sqlite { path: directory.path().join("metadata.db") };
        let metadata = Metadata::open(OpenOptions { database, clock: Clock::System }).await.unwrap();
        let blobs = Blobs::open_local(directory.path().join("blobs")).await.unwrap();
        Self { directory, metadata, blobs }
    }

    /// A site whose blobs are in a bucket, which other nodes may have open; none where there is no server for it.
    async fn in_a_bucket() -> Option<Self> {
        let server =
            tokio::task::spawn_blocking(|| object_server(ObjectServerKind::Versity)).await.unwrap()?;
        let keys = (ObjectServer::ACCESS_KEY.to_owned(), Hidden::new(ObjectServer::SECRET_KEY));
        let settings = S3Settings {
            endpoint: Some(server.url()),
            path_style: true,
            root: format!("/upkeep/{}", UploadId::new()),
            keys: Some(keys),
            ..S3Settings::new(ObjectServer::BUCKET, ObjectServer::REGION)
        };
        let blobs = Blobs::open_s3(settings).await.unwrap();
        Some(Self { blobs, ..Self::new().await })
    }

    async fn store(&self, content: &'static [u8]) -> Digest {
        let digest = Digest::sha256(content);
        let spool = self.blobs.put(&digest, Bytes::from_static(content)).await.unwrap();
        self.commit(digest, content.len() as u64).await;
        self.blobs.discard(&spool).await.unwrap();
        self.blobs.all_placed().await;
        digest
    }

    /// A session that has a row, as one that has bytes.
    async fn begin_upload(&self) -> UploadSession {
        let session = self.metadata.begin_upload(&repository());
        self.metadata.advance_upload(&session, 0, &b"state"[..]).await.unwrap()
    }

    async fn commit(&self, digest: Digest, size: u64) {
        let commit =
            CommitBlob { repository: repository(), digest, size, upload: None, actor: Actor::anonymous() };
        self.metadata.commit_blob(commit).await.unwrap();
    }

    fn file_of(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.directory
            .path()
            .join("blobs/docker/registry/v2/blobs/sha256")
            .join(&hex[..2])
            .join(&hex)
            .join("data")
    }

    async fn append(&self, spool: &SpoolName, content: &'static [u8]) -> Progress {
        let body = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(content))]);
        self.blobs.append(spool, Progress::start(Algorithm::Sha256), body, u64::MAX).await.unwrap().progress
    }
}

fn repository() -> RepositoryName {
    "library/app".parse().unwrap()
}

fn flip_a_bit(path: &Path) {
    let mut content = std::fs::read(path).unwrap();
    content[0] ^= 1;
    std::fs::write(path, content).unwrap();
}

#[tokio::test]
async fn a_blob_published_without_a_commit_is_taken_back() {
    let site = Fixture::new().await;
    let digest = Digest::sha256(b"orphan");
    site.blobs.put(&digest, Bytes::from_static(b"orphan")).await.unwrap();

    let report = recover(&site.metadata, &site.blobs, true).await.unwrap();

    assert_eq!(report, RecoveryReport { kept: 0, discarded: 1, unpublished: 1, elsewhere: 0 });
    assert_eq!(site.blobs.stat(&digest).await.unwrap(), None);
    assert!(site.blobs.spools().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_blob_whose_commit_came_stays_and_only_its_spool_goes() {
    let site = Fixture::new().await;
    let digest = Digest::sha256(b"owned");
    site.blobs.put(&digest, Bytes::from_static(b"owned")).await.unwrap();
    site.commit(digest, 5).await;

    let report = recover(&site.metadata, &site.blobs, true).await.unwrap();

    assert_eq!(report, RecoveryReport { kept: 0, discarded: 1, unpublished: 0, elsewhere: 0 });
    assert_eq!(site.blobs.stat(&digest).await.unwrap(), Some(5));
}

#[tokio::test]
async fn an_open_session_survives_even_when_it_was_published_already() {
    let site = Fixture::new().await;
    let session = site.begin_upload().await;
    let spool = SpoolName::Upload(session.id);
    let digest = site.append(&spool, b"resumable").await.hasher.finish();
    site.blobs.publish(&spool, &digest, 9).await.unwrap();

    let report = recover(&site.metadata, &site.blobs, true).await.unwrap();

    assert_eq!(report, RecoveryReport { kept: 1, discarded: 0, unpublished: 1, elsewhere: 0 });
    assert_eq!(site.blobs.stat(&digest).await.unwrap(), None);
    assert_eq!(site.blobs.spool_len(&spool).await.unwrap(), Some(9));
}

#[tokio::test]
async fn a_spool_of_no_session_is_removed() {
    let site = Fixture::new().await;
    site.append(&SpoolName::Upload(UploadId::new()), b"left").await;
    let report = recover(&site.metadata, &site.blobs, true).await.unwrap();
    assert_eq!(report, RecoveryReport { kept: 0, discarded: 1, unpublished: 0, elsewhere: 0 });
}

#[tokio::test]
async fn a_session_that_nobody_came_back_to_ends_with_its_bytes() {
    let site = Fixture::new().await;
    let session = site.begin_upload().await;
    let spool = SpoolName::Upload(session.id);
    site.append(&spool, b"forgotten").await;

    assert_eq!(expire_uploads(&site.metadata, &site.blobs, session.touched_at_us).await.unwrap(), 0);
    assert_eq!(expire_uploads(&site.metadata, &site.blobs, session.touched_at_us + 1).await.unwrap(), 1);

    assert!(site.metadata.upload(&repository(), &session.id).await.unwrap().is_none());
    assert_eq!(site.blobs.spool_len(&spool).await.unwrap(), None);
}

#[tokio::test]
async fn s6_scrub_finds_flipped_truncated_missing_and_unowned_blobs_and_names_the_repository() {
    let site = Fixture::new().await;
    let whole = site.store(b"whole").await;
    let flipped = site.store(b"flipped").await;
    let truncated = site.store(b"truncated").await;
    let missing = site.store(b"missing").await;
    let unowned = Digest::sha256(b"unowned");
    let spool = site.blobs.put(&unowned, Bytes::from_static(b"unowned")).await.unwrap();
    site.blobs.discard(&spool).await.unwrap();
    flip_a_bit(&site.file_of(&flipped));
    std::fs::write(site.file_of(&truncated), b"trunc").unwrap();
    std::fs::remove_file(site.file_of(&missing)).unwrap();

    let report = scrub(&site.metadata, &site.blobs, |_| {}).await.unwrap();

    let kind_of =
        |digest| report.findings.iter().find(|finding| finding.digest == digest).map(|found| found.kind);
    assert_eq!(kind_of(whole), None);
    assert_eq!(kind_of(flipped), Some(FindingKind::Altered));
    assert_eq!(kind_of(truncated), Some(FindingKind::Altered));
    assert_eq!(kind_of(missing), Some(FindingKind::Missing));
    assert_eq!(kind_of(unowned), Some(FindingKind::Unowned));
    assert_eq!(report.checked.findings, 4);
    assert!(
        report
            .findings
            .iter()
            .filter(|found| found.digest != unowned)
            .all(|found| found.repositories == [repository()])
    );
}

#[tokio::test]
async fn a_bucket_is_cleaned_by_age_alone_as_other_nodes_may_be_at_work() {
    let Some(site) = Fixture::in_a_bucket().await else { return };
    // What another node is about to commit, what it is writing, and what nobody will come back to, all look the same.
    let digest = Digest::sha256(b"soon");
    site.blobs.put(&digest, Bytes::from_static(b"soon")).await.unwrap();
    let open = SpoolName::Upload(site.begin_upload().await.id);
    let (left, transfer) = (SpoolName::Upload(UploadId::new()), SpoolName::Transfer(digest));
    for spool in [&open, &left, &transfer] {
        site.append(spool, b"bytes").await;
    }
    assert_eq!(recover(&site.metadata, &site.blobs, false).await.unwrap(), RecoveryReport::default());
    let report = scrub(&site.metadata, &site.blobs, |_| {}).await.unwrap();
    assert_eq!(report.findings, []);
    assert_eq!(expire_uploads(&site.metadata, &site.blobs, 0).await.unwrap(), 0);
    assert_eq!(site.blobs.spools().await.unwrap().len(), 3);
    assert_eq!(site.blobs.stat(&digest).await.unwrap(), Some(4));
    // Later: only the session that metadata knows to be open keeps its bytes, until it expires itself.
    let later_us = site.metadata.clock().now_us() + 60_000_000;
    assert_eq!(expire_uploads(&site.metadata, &site.blobs, later_us).await.unwrap(), 1);
    assert_eq!(site.blobs.spools().await.unwrap(), []);
}
