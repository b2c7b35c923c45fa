//! What `docker save` writes: a manifest.json that lists a config and layer tars, without digests.
//! The layers are hashed here, and checked against the config's `rootfs`.

use serde::{Deserialize, Serialize};
use twinport_oci::{Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest, MediaType};

use super::{Gathered, Image, files::Files, layout::tag_of};
use crate::{Result, Slice};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: Option<RootFs>,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<Digest>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Reads the one image of the archive as a Docker schema 2 image.
pub(crate) fn read(files: &Files) -> Result<Image> {
    let mut gathered = Gathered::new(files.path());
    let listed = files.document("manifest.json", MAX_MANIFEST_BYTES as u64)?;
    let mut saved: Vec<Saved> = serde_json::from_slice(&listed)
        .map_err(|error| gathered.broken(format!("its manifest.json: {error}")))?;
    let only = match (saved.pop(), saved.len()) {
        (Some(only), 0) => only,
        (_, others) => {
            let count = others + 1;
            return Err(gathered.broken(format!("it holds {count} images: save one image per archive")));
        }
    };
    gathered.image.tag = only.repo_tags.iter().flatten().find_map(|name| tag_of(name));

    let find = |gathered: &Gathered, name: &str| {
        let slice = files.locate(name.trim_start_matches("./"));
        slice.ok_or_else(|| gathered.broken(format!("its file {name} is missing")))
    };
    let config_slice = find(&gathered, &only.config)?;
    let config_bytes = config_slice.read_all(MAX_MANIFEST_BYTES as u64)?;
    let config = Descriptor::new(
        Some(MediaType::DOCKER_CONFIG.as_str().to_owned()),
        Digest::sha256(&config_bytes),
        config_slice.len,
    );
    gathered.blob(&config, Some(config_slice))?;

    let diff_ids = diff_ids(&gathered, &config_bytes)?;
    if diff_ids.len() != only.layers.len() {
        let reason =
            format!("its config names {} layers and its manifest.json {}", diff_ids.len(), only.layers.len());
        return Err(gathered.broken(reason));
    }
    let mut layers = Vec::with_capacity(only.layers.len());
    for (name, diff_id) in only.layers.iter().zip(diff_ids) {
        let slice = find(&gathered, name)?;
        let layer = layer(&gathered, name, &slice, diff_id)?;
        gathered.blob(&layer, Some(slice))?;
        layers.push(layer);
    }
    let made = Made { schema_version: 2, media_type: MANIFEST, config, layers };
    let bytes = serde_json::to_vec(&made).map_err(|error| gathered.broken(error.to_string()))?;
    let manifest = Manifest::parse(&bytes, Some(&MediaType::DOCKER_MANIFEST))
        .map_err(|error| gathered.broken(format!("the manifest made for it: {error}")))?;
    gathered.manifest(Digest::sha256(&bytes), &manifest, bytes);
    Ok(gathered.image)
}

fn diff_ids(gathered: &Gathered, config: &[u8]) -> Result<Vec<Digest>> {
    let config: Config = serde_json::from_slice(config)
        .map_err(|error| gathered.broken(format!("its image config: {error}")))?;
    Ok(config.rootfs.map(|rootfs| rootfs.diff_ids).unwrap_or_default())
}

fn layer(gathered: &Gathered, name: &str, slice: &Slice, diff_id: Digest) -> Result<Descriptor> {
    let (digest, magic) = slice.hash()?;
    let media_type = match magic {
        [0x1f, 0x8b, ..] => MediaType::DOCKER_LAYER_GZIP,
        [0x28, 0xb5, 0x2f, 0xfd] => MediaType::DOCKER_LAYER_ZSTD,
        _ if digest == diff_id => MediaType::DOCKER_LAYER,
        _ => {
            return Err(
                gathered.broken(format!("its layer {name} hashes to {digest}, its config says {diff_id}"))
            );
        }
    };
    Ok(Descriptor::new(Some(media_type.as_str().to_owned()), digest, slice.len))
}
