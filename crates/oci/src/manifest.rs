//! Manifests of every kind, as a lenient projection over bytes that are stored and served verbatim.
//! Invariant: one document is read as one kind only, whatever Content-Type it came with (CVE-2021-41190).

mod descriptor;
mod document;
mod schema1;

use std::collections::BTreeMap;

pub use self::descriptor::{Descriptor, Platform};
use self::document::Document;
pub use self::schema1::schema1_payload;
use crate::digest::{Algorithm, Digest};
use crate::error::ManifestError;
pub use crate::json::{MAX_FIELDS, MAX_JSON_DEPTH};
use crate::media_type::MediaType;
use crate::text::quoted;

/// The largest manifest in bytes: the specification's minimum, and what other registries hold to.
pub const MAX_MANIFEST_BYTES: usize = 4 * 1024 * 1024;

/// The most layers, or children, of one manifest.
pub const MAX_DESCRIPTORS: usize = 10_000;

/// What a manifest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ManifestKind {
    OciImage,
    OciIndex,
    /// The artifact manifest that OCI 1.1 withdrew: a list of blobs.
    OciArtifact,
    DockerImage,
    DockerList,
    DockerSchema1,
    /// Its digest is over the payload, not over the stored bytes: see [`canonical_digest`].
    DockerSchema1Signed,
    /// A JSON document of a type and shape this crate does not know; it refers to nothing but its subject.
    Unknown,
}

impl ManifestKind {
    /// Whether it names other manifests.
    pub const fn is_index(self) -> bool {
        matches!(self, ManifestKind::OciIndex | ManifestKind::DockerList)
    }

    /// Whether it has a config and layers.
    pub const fn is_image(self) -> bool {
        matches!(self, ManifestKind::OciImage | ManifestKind::DockerImage)
    }

    pub const fn is_schema1(self) -> bool {
        matches!(self, ManifestKind::DockerSchema1 | ManifestKind::DockerSchema1Signed)
    }

    fn of(media_type: &MediaType) -> Option<Self> {
        const KINDS: [(MediaType, ManifestKind); 7] = [
            (MediaType::OCI_IMAGE_MANIFEST, ManifestKind::OciImage),
            (MediaType::OCI_IMAGE_INDEX, ManifestKind::OciIndex),
            (MediaType::OCI_ARTIFACT_MANIFEST, ManifestKind::OciArtifact),
            (MediaType::DOCKER_MANIFEST, ManifestKind::DockerImage),
            (MediaType::DOCKER_MANIFEST_LIST, ManifestKind::DockerList),
            (MediaType::DOCKER_SCHEMA1, ManifestKind::DockerSchema1),
            (MediaType::DOCKER_SCHEMA1_SIGNED, ManifestKind::DockerSchema1Signed),
        ];
        KINDS.iter().find(|(known, _)| known == media_type).map(|(_, kind)| *kind)
    }
}

/// What a registry needs to know of a manifest. The bytes stay the truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub kind: ManifestKind,
    /// What it is served as: the Content-Type it was sent with, else its `mediaType`, else what its shape says.
    pub media_type: MediaType,
    pub config: Option<Descriptor>,
    /// Layers in the document's order; the `blobs` of an artifact manifest; the `fsLayers` of schema 1, whose sizes
    /// are not known.
    pub layers: Vec<Descriptor>,
    /// Everything an index lists. [`Manifest::children`] leaves out what is no manifest.
    pub manifests: Vec<Descriptor>,
    pub subject: Option<Descriptor>,
    /// The type a referrer is listed with: `artifactType`, else, for an image, its config's media type.
    pub artifact_type: Option<String>,
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads a manifest that came with this Content-Type. `application/json` and `None` leave the type to the
    /// document. Media types that are not known pass when they end in `+json`; their kind is told by their shape.
    ///
    /// # Errors
    /// Over a limit, not a JSON object, a field twice or of the wrong type, a digest that is not one, fields of two
    /// kinds of manifest at once, or a `mediaType` other than the Content-Type.
    pub fn parse(bytes: &[u8], content_type: Option<&MediaType>) -> Result<Manifest, ManifestError> {
        let document = Document::read(bytes)?;
        let media_type = media_type(&document, content_type)?;
        let kind = kind(&document, &media_type)?;
        document.check(kind, &media_type)?;
        if kind != ManifestKind::DockerSchema1Signed {
            return Ok(document.project(kind, media_type));
        }
        // What is signed is what counts; it is the same document by the payload's invariant.
        let signatures = document.signatures.as_deref().unwrap_or_default();
        let signed = Document::read(&schema1::payload(bytes, signatures)?)?;
        signed.check(kind, &media_type)?;
        Ok(signed.project(kind, media_type))
    }

    /// Every blob that must be present, foreign ones included: config, layers, and what an index lists that is a
    /// layer or config by its type (BuildKit's cache does). Repeats where the manifest repeats.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let listed = self.manifests.iter().filter(|child| child.names_a_blob());
        self.config.iter().chain(&self.layers).chain(listed)
    }

    /// The manifests that this index lists. Repeats where it repeats.
    pub fn children(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests.iter().filter(|child| !child.names_a_blob())
    }
}

impl Descriptor {
    fn names_a_blob(&self) -> bool {
        self.media_type.as_deref().is_some_and(MediaType::is_blob)
    }
}

/// The digest a manifest is known by: over its bytes, but for signed schema 1 over the payload without signatures.
pub fn canonical_digest(bytes: &[u8], manifest: &Manifest, algorithm: Algorithm) -> Digest {
    if manifest.kind == ManifestKind::DockerSchema1Signed
        && let Ok(payload) = schema1_payload(bytes)
    {
        return Digest::of(algorithm, &payload);
    }
    Digest::of(algorithm, bytes)
}

/// The type the manifest is served as.
fn media_type(document: &Document, content_type: Option<&MediaType>) -> Result<MediaType, ManifestError> {
    let sent = content_type.filter(|sent| **sent != MediaType::JSON);
    match (&document.media_type, sent) {
        (Some(field), Some(sent)) if field != sent.as_str() => Err(ManifestError::MediaTypeMismatch {
            field: quoted(field),
            content_type: sent.as_str().to_owned(),
        }),
        (_, Some(sent)) => Ok(sent.clone()),
        (Some(field), None) => match MediaType::parse(field) {
            Ok(media_type) if media_type.as_str() == field => Ok(media_type),
            _ => Err(ManifestError::NotAManifest { media_type: quoted(field) }),
        },
        (None, None) if document.manifests.is_some() => Ok(MediaType::OCI_IMAGE_INDEX),
        (None, None) if document.config.is_some() => Ok(MediaType::OCI_IMAGE_MANIFEST),
        (None, None) if document.fs_layers.is_some() && document.signatures.is_some() => {
            Ok(MediaType::DOCKER_SCHEMA1_SIGNED)
        }
        (None, None) if document.fs_layers.is_some() => Ok(MediaType::DOCKER_SCHEMA1),
        (None, None) => Err(ManifestError::UnknownShape),
    }
}

fn kind(document: &Document, media_type: &MediaType) -> Result<ManifestKind, ManifestError> {
    match ManifestKind::of(media_type) {
        // Readers of schema 1 go by the signatures, not by the type (containers/image, libtrust).
        Some(ManifestKind::DockerSchema1) if document.signatures.is_some() => {
            Ok(ManifestKind::DockerSchema1Signed)
        }
        Some(kind) => Ok(kind),
        None if !media_type.as_str().ends_with("+json") || MediaType::is_blob(media_type.as_str()) => {
            Err(ManifestError::NotAManifest { media_type: media_type.to_string() })
        }
        None if document.manifests.is_some() => Ok(ManifestKind::OciIndex),
        None if document.config.is_some() || document.layers.is_some() => Ok(ManifestKind::OciImage),
        None => Ok(ManifestKind::Unknown),
    }
}

impl Document {
    /// Whether the document has the fields of its kind and of no other.
    fn check(&self, kind: ManifestKind, media_type: &MediaType) -> Result<(), ManifestError> {
        let known = ManifestKind::of(media_type).is_some();
        let present = [
            ("config", self.config.is_some()),
            ("layers", self.layers.is_some()),
            ("manifests", self.manifests.is_some()),
            ("fsLayers", self.fs_layers.is_some()),
        ];
        let (own, required, version): (&[&str], Option<&'static str>, Option<i64>) = match kind {
            ManifestKind::OciImage | ManifestKind::DockerImage => {
                (&["config", "layers"], Some("config"), Some(2))
            }
            ManifestKind::OciIndex | ManifestKind::DockerList => (&["manifests"], Some("manifests"), Some(2)),
            ManifestKind::DockerSchema1 | ManifestKind::DockerSchema1Signed => {
                (&["fsLayers"], Some("fsLayers"), Some(1))
            }
            ManifestKind::OciArtifact | ManifestKind::Unknown => (&[], None, None),
        };
        let shown = || media_type.to_string();
        if let Some((field, _)) =
            present.iter().find(|(field, is_present)| *is_present && !own.contains(field))
        {
            return Err(ManifestError::Confused { media_type: shown(), field });
        }
        // Only the known types promise their fields; an unknown one is judged by what it has.
        if known && let Some(field) = required.filter(|field| !present.contains(&(*field, true))) {
            return Err(ManifestError::Missing { media_type: shown(), field });
        }
        if known && kind.is_image() && !matches!(self.config, Some(Some(_))) {
            return Err(ManifestError::Missing { media_type: shown(), field: "config" });
        }
        if matches!(kind, ManifestKind::DockerImage | ManifestKind::DockerList) && self.media_type.is_none() {
            return Err(ManifestError::Missing { media_type: shown(), field: "mediaType" });
        }
        match (self.schema_version, version) {
            (Some(found), Some(expected)) if known && found != expected => {
                Err(ManifestError::SchemaVersion { media_type: shown(), found, expected })
            }
            _ => Ok(()),
        }
    }

    fn project(self, kind: ManifestKind, media_type: MediaType) -> Manifest {
        let config = self.config.flatten();
        let layers = match kind {
            ManifestKind::OciArtifact => self.blobs.map_or_else(Vec::new, |blobs| blobs.items),
            _ if kind.is_schema1() => {
                let fs_layers = self.fs_layers.map_or_else(Vec::new, |fs_layers| fs_layers.items);
                fs_layers.into_iter().map(|layer| Descriptor::new(None, layer.blob_sum, 0)).collect()
            }
            _ => self.layers.map_or_else(Vec::new, |layers| layers.items),
        };
        let config_type =
            config.as_ref().filter(|_| kind.is_image()).and_then(|config| config.media_type.clone());
        Manifest {
            kind,
            media_type,
            config,
            layers,
            manifests: self.manifests.map_or_else(Vec::new, |manifests| manifests.items),
            subject: self.subject,
            artifact_type: self.artifact_type.or(config_type),
            annotations: self.annotations,
        }
    }
}
