//! Pushing to the primary as `/v2` does, without HTTP.

use bytes::Bytes;
use serde_json::json;
use twinport_access::TagGuard;
use twinport_metadata::{Actor, CommitBlob, PutManifest};
use twinport_oci::{Digest, Manifest, MediaType, RepositoryName, Tag};

use crate::pair::Site;

pub(crate) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A child of an index: its digest, its size, its architecture.
pub(crate) type Child = (Digest, usize, &'static str);

pub(crate) fn name(path: &str) -> RepositoryName {
    RepositoryName::parse(path).unwrap()
}

impl Site {
    pub(crate) async fn push_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        let spool = self.blobs.put(&digest, Bytes::copy_from_slice(bytes)).await.unwrap();
        let commit = CommitBlob {
            repository: name(repository),
            digest,
            size: bytes.len() as u64,
            upload: None,
            actor: Actor::anonymous(),
        };
        self.metadata.commit_blob(commit).await.unwrap();
        self.blobs.discard(&spool).await.unwrap();
        digest
    }

    /// Stores a manifest as it is; what it names is read from it.
    pub(crate) async fn push_manifest(
        &self,
        repository: &str,
        body: &serde_json::Value,
        tags: &[&str],
    ) -> (Digest, usize) {
        let body = Bytes::from(serde_json::to_vec_pretty(body).unwrap());
        let manifest = Manifest::parse(&body, None::<&MediaType>).unwrap();
        let digest = Digest::sha256(&body);
        let size = body.len();
        let put = PutManifest {
            repository: name(repository),
            digest,
            media_type: manifest.media_type.to_string(),
            artifact_type: manifest.artifact_type.clone(),
            subject: manifest.subject.as_ref().map(|subject| subject.digest),
            annotations: serde_json::to_string(&manifest.annotations).unwrap(),
            blobs: manifest.blobs().filter(|blob| !blob.is_foreign()).map(|blob| blob.digest).collect(),
            manifests: manifest.children().map(|child| child.digest).collect(),
            tags: tags.iter().map(|tag| Tag::parse(tag).unwrap()).collect(),
            guard: TagGuard::default(),
            actor: Actor::anonymous(),
            body,
        };
        self.metadata.put_manifest(put).await.unwrap();
        (digest, size)
    }

    /// An image of one config and these layers.
    pub(crate) async fn push_image(
        &self,
        repository: &str,
        layers: &[&[u8]],
        tags: &[&str],
    ) -> (Digest, usize) {
        let mut digests = Vec::new();
        for layer in layers {
            digests.push((self.push_blob(repository, layer).await, layer.len()));
        }
        let config =
            json!({ "rootfs": digests.iter().map(|(digest, _)| digest.to_string()).collect::<Vec<_>>() });
        let config = serde_json::to_vec(&config).unwrap();
        let config_digest = self.push_blob(repository, &config).await;
        let layers: Vec<_> = digests
            .iter()
            .map(|(digest, size)| json!({ "mediaType": LAYER, "digest": digest.to_string(), "size": size }))
            .collect();
        let body = json!({
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "config": { "mediaType": CONFIG, "digest": config_digest.to_string(), "size": config.len() },
            "layers": layers,
        });
        self.push_manifest(repository, &body, tags).await
    }

    pub(crate) async fn push_index(
        &self,
        repository: &str,
        children: &[Child],
        tags: &[&str],
    ) -> (Digest, usize) {
        let manifests: Vec<_> = children
            .iter()
            .map(|(digest, size, architecture)| {
                let media_type = if *architecture == "index" { INDEX } else { IMAGE };
                json!({
                    "mediaType": media_type, "digest": digest.to_string(), "size": size,
                    "platform": { "architecture": architecture, "os": "linux" },
                })
            })
            .collect();
        let body = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        self.push_manifest(repository, &body, tags).await
    }

    /// An artifact without layers that refers to `subject`.
    pub(crate) async fn push_referrer(&self, repository: &str, subject: (Digest, usize)) -> (Digest, usize) {
        let config = self.push_blob(repository, b"{}").await;
        let body = json!({
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "artifactType": "application/vnd.example.signature",
            "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": config.to_string(), "size": 2 },
            "layers": [],
            "subject": { "mediaType": IMAGE, "digest": subject.0.to_string(), "size": subject.1 },
        });
        self.push_manifest(repository, &body, &[]).await
    }

    pub(crate) async fn delete_manifest(&self, repository: &str, digest: &Digest) -> bool {
        self.metadata
            .delete_manifest(&name(repository), digest, &TagGuard::default(), &Actor::anonymous())
            .await
            .unwrap()
    }

    pub(crate) async fn delete_tag(&self, repository: &str, tag: &str) -> bool {
        self.metadata
            .delete_tag(
                &name(repository),
                &Tag::parse(tag).unwrap(),
                &TagGuard::default(),
                &Actor::anonymous(),
            )
            .await
            .unwrap()
    }

    pub(crate) async fn delete_repository(&self, repository: &str) -> bool {
        self.metadata
            .delete_repository(&name(repository), &TagGuard::default(), &Actor::anonymous())
            .await
            .unwrap()
    }

    pub(crate) async fn rename(&self, from: &str, to: &str) -> bool {
        self.metadata.rename_repository(&name(from), &name(to), &Actor::anonymous()).await.unwrap()
    }

    pub(crate) async fn unlink(&self, repository: &str, digest: &Digest) -> bool {
        self.metadata
            .unlink_blob(&name(repository), digest, &TagGuard::default(), &Actor::anonymous())
            .await
            .unwrap()
    }
}
