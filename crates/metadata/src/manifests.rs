//! Manifests: verbatim bytes, what they point at, and the event that says so.
//! Invariant: bytes and media type are answered as they were pushed first, at every site.

pub(crate) mod delete;
pub(crate) mod put;

use bytes::Bytes;
use twinport_access::TagGuard;
use twinport_oci::{Digest, Reference, RepositoryName, Tag};

pub(crate) use self::{delete::check_unheld, put::insert_references};
use crate::{Actor, Error, Metadata, Result, db::Row};

/// A parsed manifest on its way in.
#[derive(Clone, Debug)]
pub struct PutManifest {
    pub repository: RepositoryName,
    pub digest: Digest,
    pub media_type: String,
    /// The effective artifact type (OCI Distribution, "Listing Referrers").
    pub artifact_type: Option<String>,
    pub subject: Option<Digest>,
    /// The manifest's annotations, a JSON object; `{}` or empty when there are none.
    pub annotations: String,
    /// The bytes, as they were pushed.
    pub body: Bytes,
    /// Config and layers, which the repository must link. Foreign layers are left out.
    pub blobs: Vec<Digest>,
    /// An index's children; they may be missing.
    pub manifests: Vec<Digest>,
    /// The tags to point at it; none for a push by digest.
    pub tags: Vec<Tag>,
    /// What holds the repository's tags.
    pub guard: TagGuard,
    pub actor: Actor,
}

/// What a push changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutOutcome {
    /// The repository did not have this manifest before.
    pub created: bool,
}

/// A manifest with its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredManifest {
    pub digest: Digest,
    pub media_type: String,
    pub body: Bytes,
}

/// What a HEAD answers with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestHead {
    pub digest: Digest,
    pub media_type: String,
    /// Bytes.
    pub size: u64,
}

pub(crate) const BY_TAG: &str = "SELECT m.digest, m.media_type, m.body FROM repositories r \
     JOIN tags t ON t.repository_id = r.id AND t.name = $2 \
     JOIN manifests m ON m.repository_id = t.repository_id AND m.digest = t.digest WHERE r.path = $1";
pub(crate) const BY_DIGEST: &str = "SELECT m.digest, m.media_type, m.body FROM repositories r \
     JOIN manifests m ON m.repository_id = r.id AND m.digest = $2 WHERE r.path = $1";
pub(crate) const HEAD_BY_TAG: &str = "SELECT m.digest, m.media_type, m.size FROM repositories r \
     JOIN tags t ON t.repository_id = r.id AND t.name = $2 \
     JOIN manifests m ON m.repository_id = t.repository_id AND m.digest = t.digest WHERE r.path = $1";
pub(crate) const HEAD_BY_DIGEST: &str = "SELECT m.digest, m.media_type, m.size FROM repositories r \
     JOIN manifests m ON m.repository_id = r.id AND m.digest = $2 WHERE r.path = $1";

impl Metadata {
    /// The manifest that a tag or digest names in a repository, in one statement.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<StoredManifest>> {
        let row = self.find_manifest(repository, reference, BY_TAG, BY_DIGEST).await?;
        row.map(|row| {
            Ok(StoredManifest { digest: row.digest(0)?, media_type: row.text(1)?, body: row.blob(2)? })
        })
        .transpose()
    }

    /// [`Self::manifest`] without its bytes.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn manifest_head(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<ManifestHead>> {
        let row = self.find_manifest(repository, reference, HEAD_BY_TAG, HEAD_BY_DIGEST).await?;
        row.map(|row| {
            Ok(ManifestHead { digest: row.digest(0)?, media_type: row.text(1)?, size: row.size(2)? })
        })
        .transpose()
    }

    async fn find_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        by_tag: &'static str,
        by_digest: &'static str,
    ) -> Result<Option<Row>> {
        let path = repository.as_str().into();
        match reference {
            Reference::Tag(tag) => self.db.query_opt(by_tag, vec![path, tag.as_str().into()]).await,
            Reference::Digest(digest) => self.db.query_opt(by_digest, vec![path, digest.into()]).await,
        }
    }

    /// Stores a manifest, what it points at, and its tags, with their events, or nothing of it. What is there
    /// already appends no event.
    ///
    /// # Errors
    /// [`Error::BlobsUnknown`] with every blob that the repository does not link; [`Error::TagHeld`] where a tag may not
    /// be moved, or set, to this manifest; [`Error::NotPrimary`], [`Error::Halted`].
    pub async fn put_manifest(&self, put: PutManifest) -> Result<PutOutcome> {
        put::put_manifest(&self.db, put).await
    }

    /// Deletes a manifest and the tags that point at it; tags on other manifests stay. `false`: there is none.
    /// With very many tags it takes several transactions, the manifest going with the last.
    ///
    /// # Errors
    /// [`Error::StillHeld`] where a tag may not be deleted that names it, or an index of it; [`Error::NotPrimary`], [`Error::Halted`]; those of the database.
    pub async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        guard: &TagGuard,
        actor: &Actor,
    ) -> Result<bool> {
        delete::delete_manifest(&self.db, repository, digest, guard, actor).await
    }
}

/// A stored text read back as a tag.
pub(crate) fn tag_of(text: &str) -> Result<Tag> {
    Tag::parse(text).map_err(|error| Error::Corrupt(format!("a tag's name: {error}")))
}
