//! Descriptors: how a manifest names a blob or another manifest (OCI Image Specification, "Content Descriptors").

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::digest::Digest;
use crate::json::{Keys, Text, TextMap};
use crate::media_type::MediaType;

/// A descriptor, as much of it as a registry needs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// As written; any text of at most 255 bytes without control characters, because stored images hold worse than
    /// RFC 6838 allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    pub digest: Digest,
    /// Bytes, at most `i64::MAX`. See [`Descriptor::stated_size`] for schema 1, which does not tell.
    pub size: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Whether the content is embedded as base64 in `data`. It is not a substitute for the blob.
    #[serde(skip)]
    pub has_data: bool,
}

/// The platform an index's child runs on. Absent fields are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
    #[serde(rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    #[serde(rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl Descriptor {
    /// A descriptor of nothing but a digest and a size.
    pub fn new(media_type: Option<String>, digest: Digest, size: u64) -> Self {
        Descriptor {
            media_type,
            digest,
            size,
            urls: Vec::new(),
            artifact_type: None,
            annotations: BTreeMap::new(),
            platform: None,
            has_data: false,
        }
    }

    /// Whether the bytes need not be present: a non-distributable or foreign layer, or one that names URLs.
    pub fn is_foreign(&self) -> bool {
        !self.urls.is_empty() || self.media_type.as_deref().is_some_and(MediaType::is_foreign_layer)
    }

    /// The size in bytes, or `None` where the manifest does not tell it: schema 1, whose layers read as size 0. A
    /// size of 0 is only believed for the digest of nothing.
    pub fn stated_size(&self) -> Option<u64> {
        let stated = self.size > 0 || self.digest == Digest::of(self.digest.algorithm(), b"");
        stated.then_some(self.size)
    }
}

const FIELDS: &[&str] =
    &["mediaType", "digest", "size", "urls", "artifactType", "annotations", "platform", "data"];

impl<'de> Deserialize<'de> for Descriptor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Descriptor;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a descriptor object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Descriptor, A::Error> {
                let (mut digest, mut size, mut keys) = (None, None, Keys::new(FIELDS));
                // The digest is filled in below; until then any value does.
                let mut descriptor = Descriptor::new(None, Digest::Sha256([0; 32]), 0);
                while let Some(key) = keys.next(&mut map)? {
                    match key {
                        "mediaType" => descriptor.media_type = type_name(map.next_value()?)?,
                        "artifactType" => descriptor.artifact_type = type_name(map.next_value()?)?,
                        "digest" => digest = Some(map.next_value::<Digest>()?),
                        "size" => size = Some(map.next_value::<u64>()?),
                        "urls" => {
                            let urls = map.next_value::<Option<Vec<Text>>>()?.unwrap_or_default();
                            descriptor.urls = urls.into_iter().map(|Text(url)| url).collect();
                        }
                        "annotations" => {
                            descriptor.annotations =
                                map.next_value::<Option<TextMap>>()?.unwrap_or_default().0;
                        }
                        "platform" => descriptor.platform = map.next_value()?,
                        "data" => descriptor.has_data = map.next_value::<Option<String>>()?.is_some(),
                        _ => _ = map.next_value::<IgnoredAny>()?,
                    }
                }
                descriptor.digest = digest.ok_or_else(|| de::Error::missing_field("digest"))?;
                descriptor.size = size.ok_or_else(|| de::Error::missing_field("size"))?;
                if descriptor.size > i64::MAX as u64 {
                    return Err(de::Error::custom("a descriptor's size does not fit 63 bits"));
                }
                Ok(descriptor)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// A media or artifact type as written; empty and null count as absent.
pub(super) fn type_name<E: de::Error>(text: Option<Text>) -> Result<Option<String>, E> {
    let Some(Text(name)) = text.filter(|Text(name)| !name.is_empty()) else { return Ok(None) };
    if name.len() > MediaType::MAX_LEN || name.chars().any(char::is_control) {
        return Err(E::custom("a media type is longer than 255 bytes or has control characters"));
    }
    Ok(Some(name))
}

impl<'de> Deserialize<'de> for Platform {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Platform;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a platform object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Platform, A::Error> {
                let mut keys = Keys::new(&["architecture", "os", "os.version", "os.features", "variant"]);
                let mut platform = Platform::default();
                while let Some(key) = keys.next(&mut map)? {
                    let text = match key {
                        "architecture" => &mut platform.architecture,
                        "os" => &mut platform.os,
                        "os.version" => &mut platform.os_version,
                        "variant" => &mut platform.variant,
                        "os.features" => {
                            let features = map.next_value::<Option<Vec<Text>>>()?.unwrap_or_default();
                            platform.os_features =
                                features.into_iter().map(|Text(feature)| feature).collect();
                            continue;
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *text = map.next_value::<Option<Text>>()?.unwrap_or_default().0;
                }
                Ok(platform)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}
