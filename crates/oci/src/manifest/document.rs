//! The top level of a manifest's JSON, before anything is concluded from it.
//! Invariant: a field counts as present when its key is there, even as null or empty: that is how two readers of
//! one document are kept from seeing two kinds of manifest (CVE-2021-41190).

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::descriptor::{Descriptor, type_name};
use super::{MAX_DESCRIPTORS, MAX_MANIFEST_BYTES};
use crate::digest::Digest;
use crate::error::ManifestError;
use crate::json::{Bounded, Keys, MAX_JSON_DEPTH, Text, TextMap, is_shallow};

type Descriptors = Bounded<Descriptor, MAX_DESCRIPTORS>;

/// The fields of every kind of manifest. The outer `Option` of a field says whether its key is there.
#[derive(Default)]
pub(super) struct Document {
    pub(super) schema_version: Option<i64>,
    pub(super) media_type: Option<String>,
    pub(super) artifact_type: Option<String>,
    pub(super) config: Option<Option<Descriptor>>,
    pub(super) layers: Option<Descriptors>,
    pub(super) manifests: Option<Descriptors>,
    pub(super) blobs: Option<Descriptors>,
    pub(super) fs_layers: Option<Bounded<FsLayer, MAX_DESCRIPTORS>>,
    pub(super) signatures: Option<Vec<SignatureBlock>>,
    pub(super) subject: Option<Descriptor>,
    pub(super) annotations: BTreeMap<String, String>,
}

/// A layer of a schema 1 manifest.
#[derive(serde::Deserialize)]
pub(super) struct FsLayer {
    #[serde(rename = "blobSum")]
    pub(super) blob_sum: Digest,
}

/// One signature of a signed schema 1 manifest; only what tells where the payload ends.
#[derive(serde::Deserialize)]
pub(super) struct SignatureBlock {
    pub(super) protected: String,
}

impl Document {
    /// Reads the top level, within the limits of size, depth and number.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge { size: bytes.len(), limit: MAX_MANIFEST_BYTES });
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|error| ManifestError::Json(format!("not UTF-8 from byte {}", error.valid_up_to())))?;
        if !is_shallow(text) {
            return Err(ManifestError::TooDeep { limit: MAX_JSON_DEPTH });
        }
        let document: Document = serde_json::from_str(text).map_err(ManifestError::json)?;
        if document.overflowed() {
            return Err(ManifestError::TooManyDescriptors { limit: MAX_DESCRIPTORS });
        }
        Ok(document)
    }

    fn overflowed(&self) -> bool {
        let lists = [&self.layers, &self.manifests, &self.blobs];
        lists.iter().any(|list| list.as_ref().is_some_and(|list| list.overflowed))
            || self.fs_layers.as_ref().is_some_and(|list| list.overflowed)
    }
}

const FIELDS: &[&str] = &[
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "manifests",
    "blobs",
    "fsLayers",
    "signatures",
    "subject",
    "annotations",
];

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Document;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a manifest object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
                let mut keys = Keys::new(FIELDS);
                let mut document = Document::default();
                while let Some(key) = keys.next(&mut map)? {
                    match key {
                        "schemaVersion" => document.schema_version = Some(map.next_value()?),
                        "mediaType" => document.media_type = type_name(map.next_value::<Option<Text>>()?)?,
                        "artifactType" => {
                            document.artifact_type = type_name(map.next_value::<Option<Text>>()?)?
                        }
                        "config" => document.config = Some(map.next_value()?),
                        "layers" => document.layers = Some(map.next_value()?),
                        "manifests" => document.manifests = Some(map.next_value()?),
                        "blobs" => document.blobs = Some(map.next_value()?),
                        "fsLayers" => document.fs_layers = Some(map.next_value()?),
                        "signatures" => document.signatures = Some(map.next_value()?),
                        "subject" => document.subject = map.next_value()?,
                        "annotations" => {
                            document.annotations = map.next_value::<Option<TextMap>>()?.unwrap_or_default().0;
                        }
                        _ => _ = map.next_value::<IgnoredAny>()?,
                    }
                }
                Ok(document)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}
