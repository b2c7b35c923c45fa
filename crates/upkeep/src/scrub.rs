//! Hashes every stored blob anew and reports what is not as it should be (hazard S6).
//!
//! **Architecture invariant:** scrub only looks: what it finds is reported by image, and repaired elsewhere.

use futures_util::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use twinport_blobs::{Blobs, Verdict};
use twinport_metadata::{Metadata, StoredBlob};
use twinport_oci::{Digest, RepositoryName};

use crate::Result;

/// Blobs read from metadata at a time.
const PAGE: u32 = 500;
/// Findings listed; beyond them only the count grows, so that a lost disk does not fill memory.
const MAX_FINDINGS: usize = 1_000;
/// Repositories named with a finding.
const MAX_REPOSITORIES: u32 = 20;

/// Something that is not as metadata says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub digest: Digest,
    pub kind: FindingKind,
    /// Some of the repositories that link the blob.
    pub repositories: Vec<RepositoryName>,
}

/// What is wrong with a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Its bytes are those of another digest: a flipped bit, a truncation.
    Altered,
    /// Metadata knows it and no file holds it.
    Missing,
    /// A file holds it and metadata does not know it.
    Unowned,
}

/// How far a scrub is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubProgress {
    pub blobs: u64,
    pub bytes: u64,
    pub findings: u64,
}

/// What a whole scrub found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubReport {
    pub checked: ScrubProgress,
    /// At most 1,000 of the findings counted in `checked`.
    pub findings: Vec<Finding>,
}

impl ScrubReport {
    fn add(&mut self, finding: Finding) {
        tracing::error!(digest = %finding.digest, kind = ?finding.kind, repositories = ?finding.repositories, "scrub finding");
        self.checked.findings += 1;
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        }
    }
}

/// Hashes every blob that metadata knows, then looks for files that it does not know; `progress` hears of each
/// page.
///
/// # Errors
/// What the database or the disk says; a blob that is damaged is a finding, not an error.
pub async fn scrub(
    metadata: &Metadata,
    blobs: &Blobs,
    mut progress: impl FnMut(ScrubProgress),
) -> Result<ScrubReport> {
    let mut report = ScrubReport::default();
    let mut after: Option<Digest> = None;
    loop {
        let page = metadata.stored_blobs(after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.digest);
        check_page(metadata, blobs, &page, &mut report).await?;
        progress(report.checked);
    }
    find_unowned(metadata, blobs, &mut report).await?;
    progress(report.checked);
    Ok(report)
}

async fn check_page(
    metadata: &Metadata,
    blobs: &Blobs,
    page: &[StoredBlob],
    report: &mut ScrubReport,
) -> Result<()> {
    let mut whole = Vec::with_capacity(page.len());
    for blob in page {
        report.checked.blobs += 1;
        report.checked.bytes += blob.size;
        let kind = match blobs.verify(&blob.digest).await? {
            Verdict::Whole { .. } => {
                whole.push(blob.digest);
                continue;
            }
            Verdict::Altered { .. } => FindingKind::Altered,
            Verdict::Missing => FindingKind::Missing,
        };
        let repositories = metadata.repositories_linking(&blob.digest, MAX_REPOSITORIES).await?;
        report.add(Finding { digest: blob.digest, kind, repositories });
    }
    let now_us = metadata.clock().now_us();
    Ok(metadata.record_whole(whole, now_us).await?)
}

async fn find_unowned(metadata: &Metadata, blobs: &Blobs, report: &mut ScrubReport) -> Result<()> {
    let mut stored = std::pin::pin!(blobs.scan());
    while let Some((digest, _)) = stored.try_next().await? {
        // A blob that is being pushed has its file before its row, and is no finding.
        let now_us = metadata.clock().now_us();
        if metadata.blob_is_known(&digest).await?.is_none()
            && !blobs.may_await_commit(&digest, now_us).await?
        {
            report.add(Finding { digest, kind: FindingKind::Unowned, repositories: Vec::new() });
        }
    }
    Ok(())
}
