//! Manifests that name a subject, paged by digest.
//! Invariant: a referrer is listed whether or not its subject exists (OCI Distribution, "Listing Referrers").

use twinport_oci::{Digest, RepositoryName};

use crate::{Metadata, Result};

/// One manifest that refers to a subject: what its descriptor in the answer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    pub digest: Digest,
    pub media_type: String,
    /// Bytes.
    pub size: u64,
    pub artifact_type: Option<String>,
    /// A JSON object.
    pub annotations: String,
}

pub(crate) const ALL: &str = "SELECT digest, media_type, size, artifact_type, annotations FROM manifests \
     WHERE repository_id = (SELECT id FROM repositories WHERE path = $1) AND subject = $2 AND digest > $3 \
     ORDER BY digest LIMIT $4";
pub(crate) const OF_TYPE: &str = "SELECT digest, media_type, size, artifact_type, annotations FROM manifests \
     WHERE repository_id = (SELECT id FROM repositories WHERE path = $1) AND subject = $2 AND digest > $3 \
     AND artifact_type = $5 ORDER BY digest LIMIT $4";

impl Metadata {
    /// Up to `limit` manifests of a repository that name `subject`, by digest after `after`, of one artifact type
    /// where it is given. Nothing for a repository or a subject that does not exist.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        artifact_type: Option<&str>,
        after: Option<&Digest>,
        limit: u32,
    ) -> Result<Vec<Referrer>> {
        // Every digest's key is longer than no bytes, and so after them.
        let after = after.map(Digest::to_key).unwrap_or_default();
        let mut params = vec![repository.as_str().into(), subject.into(), after.into(), limit.into()];
        let sql = match artifact_type {
            None => ALL,
            Some(artifact_type) => {
                params.push(artifact_type.into());
                OF_TYPE
            }
        };
        let rows = self.db.scan(sql, params).await?;
        rows.iter()
            .map(|row| {
                Ok(Referrer {
                    digest: row.digest(0)?,
                    media_type: row.text(1)?,
                    size: row.size(2)?,
                    artifact_type: row.opt_text(3)?,
                    annotations: row.opt_text(4)?.unwrap_or_default(),
                })
            })
            .collect()
    }
}
