//! Quotas: a push that would take a rule's repositories over its limit is refused, with the figure.
//! Guards: the counts follow the log, so pushes that end at the same moment can go over a limit together; docs/reference/rules.md
//! says by how much. What adds nothing is never refused, however full a quota is.

use twinport_access::{Quota, Rules};
use twinport_metadata::QuotaUsage;
use twinport_oci::{Digest, Reference, RepositoryName};

use super::Registry;
use crate::error::Refusal;

/// What a request would add to a repository.
#[derive(Debug, Clone, Copy)]
pub(super) enum Addition<'a> {
    /// An upload that begins, or goes on: so many bytes at least.
    Upload {
        bytes: u64,
    },
    Blob {
        digest: &'a Digest,
        bytes: u64,
    },
    Manifest {
        digest: &'a Digest,
        bytes: u64,
    },
}

impl Addition<'_> {
    fn bytes(self) -> u64 {
        match self {
            // Of a length that nobody stated: a quota with no room at all is told at once.
            Self::Upload { bytes } => bytes.max(1),
            Self::Blob { bytes, .. } | Self::Manifest { bytes, .. } => bytes,
        }
    }
}

impl Registry {
    /// Refuses an addition that some quota has no room for.
    pub(super) async fn check_quotas(
        &self,
        rules: &Rules,
        repository: &RepositoryName,
        addition: Addition<'_>,
    ) -> Result<(), Refusal> {
        for quota in rules.quotas_on(repository) {
            let usage = self.metadata.quota_usage(quota).await?;
            // A rule that was made a moment ago is counted before it refuses.
            if !usage.complete {
                continue;
            }
            if let Some(refusal) = over_bytes(quota, &usage, addition)
                && !self.holds(repository, addition).await?
            {
                return Err(refusal);
            }
            if let Some(refusal) = over_repositories(quota, &usage)
                && self.metadata.repository(repository).await?.is_none()
            {
                return Err(refusal);
            }
        }
        Ok(())
    }

    /// Whether the repository has it already, so that nothing is added.
    async fn holds(&self, repository: &RepositoryName, addition: Addition<'_>) -> Result<bool, Refusal> {
        Ok(match addition {
            Addition::Upload { .. } => false,
            Addition::Blob { digest, .. } => self.metadata.blob(repository, digest).await?.is_some(),
            Addition::Manifest { digest, .. } => {
                let reference = Reference::Digest(*digest);
                self.metadata.manifest_head(repository, &reference).await?.is_some()
            }
        })
    }
}

fn over_bytes(quota: &Quota, usage: &QuotaUsage, addition: Addition<'_>) -> Option<Refusal> {
    let (most, used) = (quota.most_bytes?, usage.bytes);
    let adds = addition.bytes();
    (used.saturating_add(adds) > most).then(|| {
        let Quota { name, repositories, .. } = quota;
        Refusal::denied(format!(
            "the quota {name} is full: the repositories {repositories} hold {used} of {most} bytes, and this adds at \
             least {adds}"
        ))
    })
}

fn over_repositories(quota: &Quota, usage: &QuotaUsage) -> Option<Refusal> {
    let (most, used) = (quota.most_repositories?, usage.repositories);
    (used >= most).then(|| {
        let Quota { name, repositories, .. } = quota;
        Refusal::denied(format!(
            "the quota {name} is full: there are {used} of {most} repositories {repositories}, and this would be another"
        ))
    })
}
