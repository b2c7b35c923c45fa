//! Media types, and the ones registries know by name.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::error::Error;
use crate::text::{quoted, textual};

/// A media type without parameters (RFC 6838, section 4.2), kept in the case it came in.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MediaType(Cow<'static, str>);

macro_rules! known {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        impl MediaType {
            $($(#[$doc])* pub const $name: MediaType = MediaType(Cow::Borrowed($text));)*

            /// Every media type this crate knows by name.
            pub const KNOWN: &[MediaType] = &[$(MediaType::$name,)*];
        }
    };
}

known! {
    OCI_IMAGE_MANIFEST = "application/vnd.oci.image.manifest.v1+json";
    OCI_IMAGE_INDEX = "application/vnd.oci.image.index.v1+json";
    /// Withdrawn before OCI 1.1 was final, but stored in registries that took it.
    OCI_ARTIFACT_MANIFEST = "application/vnd.oci.artifact.manifest.v1+json";
    OCI_IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json";
    OCI_EMPTY = "application/vnd.oci.empty.v1+json";
    OCI_LAYER = "application/vnd.oci.image.layer.v1.tar";
    OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip";
    OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd";
    OCI_LAYER_NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar";
    OCI_LAYER_NONDISTRIBUTABLE_GZIP = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    OCI_LAYER_NONDISTRIBUTABLE_ZSTD = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd";
    DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json";
    DOCKER_MANIFEST_LIST = "application/vnd.docker.distribution.manifest.list.v2+json";
    DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json";
    DOCKER_SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json";
    DOCKER_PLUGIN_CONFIG = "application/vnd.docker.plugin.v1+json";
    DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar";
    DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd";
    DOCKER_LAYER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar";
    DOCKER_LAYER_FOREIGN_GZIP = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    /// The config of a BuildKit cache, which an index may name among its manifests.
    BUILDKIT_CACHE_CONFIG = "application/vnd.buildkit.cacheconfig.v0";
    /// What is answered for a blob, whose type only a manifest tells.
    OCTET_STREAM = "application/octet-stream";
    JSON = "application/json";
}

impl MediaType {
    /// The longest media type in bytes: 127 for each side and the slash.
    pub const MAX_LEN: usize = 255;

    /// Reads a media type as in a Content-Type header: parameters and the space around them are dropped.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let invalid = |reason| Err(Error::MediaType { media_type: quoted(text), reason });
        let essence = text.split_once(';').map_or(text, |(essence, _)| essence).trim_matches([' ', '\t']);
        if essence.len() > Self::MAX_LEN {
            return invalid("it is longer than 255 bytes");
        }
        let Some((main, sub)) = essence.split_once('/') else { return invalid("it has no `/`") };
        if !is_restricted_name(main) || !is_restricted_name(sub) {
            return invalid("both sides of the `/` are 1 to 127 letters, digits or any of `!#$&-^_.+`");
        }
        let known = Self::KNOWN.iter().find(|known| known.as_str() == essence);
        Ok(known.cloned().unwrap_or_else(|| MediaType(Cow::Owned(essence.to_owned()))))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the bytes of a layer of this type are allowed to be missing: OCI's non-distributable and Docker's
    /// foreign layers.
    pub fn is_foreign_layer(text: &str) -> bool {
        [
            MediaType::OCI_LAYER_NONDISTRIBUTABLE,
            MediaType::OCI_LAYER_NONDISTRIBUTABLE_GZIP,
            MediaType::OCI_LAYER_NONDISTRIBUTABLE_ZSTD,
            MediaType::DOCKER_LAYER_FOREIGN,
            MediaType::DOCKER_LAYER_FOREIGN_GZIP,
        ]
        .iter()
        .any(|foreign| foreign.as_str() == text)
    }

    /// Whether a descriptor of this type names a blob for certain: a known layer or config.
    pub(crate) fn is_blob(text: &str) -> bool {
        let known_prefix = ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."]
            .iter()
            .any(|p| text.starts_with(p));
        known_prefix
            || [
                MediaType::OCI_IMAGE_CONFIG,
                MediaType::OCI_EMPTY,
                MediaType::DOCKER_CONFIG,
                MediaType::DOCKER_PLUGIN_CONFIG,
                MediaType::BUILDKIT_CACHE_CONFIG,
            ]
            .iter()
            .any(|blob| blob.as_str() == text)
    }
}

/// RFC 6838, section 4.2: `restricted-name`.
fn is_restricted_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    (1..=127).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(byte))
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for MediaType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        MediaType::parse(text)
    }
}

impl AsRef<str> for MediaType {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

textual!(MediaType, Error, "a media type");

#[cfg(test)]
mod tests {
    use super::MediaType;

    #[test]
    fn parameters_and_space_are_dropped() {
        let parsed = MediaType::parse(" application/vnd.oci.image.manifest.v1+json ; charset=utf-8").unwrap();
        assert_eq!(parsed, MediaType::OCI_IMAGE_MANIFEST);
        assert_eq!(MediaType::parse("text/Plain;x").unwrap().as_str(), "text/Plain");
    }

    #[test]
    fn every_known_type_is_valid() {
        for known in MediaType::KNOWN {
            assert_eq!(MediaType::parse(known.as_str()).as_ref(), Ok(known));
        }
    }

    #[test]
    fn what_rfc_6838_does_not_allow_is_refused() {
        let long = "x".repeat(128);
        for refused in [
            "",
            "/",
            "a/",
            "/b",
            "a",
            "a/b/c",
            "a b/c",
            "*/*",
            "a/*",
            "é/b",
            "a/\0",
            "a/b,c/d",
            "+a/b",
            &long,
            &format!("a/{long}"),
        ] {
            assert!(MediaType::parse(refused).is_err(), "{refused}");
        }
        assert!(MediaType::parse(&format!("{0}/{0}", "x".repeat(127))).is_ok());
    }
}
