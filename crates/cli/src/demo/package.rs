//! Packs the running program into an OCI image: one layer, its config, a manifest, in a layout directory.
//! Memory stays at one buffer, however large the program is.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use anyhow::Context as _;
use serde_json::{Value, json};
use twinport_oci::{Algorithm, Digest, Hasher, MediaType};

/// Where the program is inside the image.
const INSIDE: &str = "usr/bin/twinport";

/// Writes the layout into `layout`, which is made. Blocks.
pub(super) fn pack(program: &Path, layout: &Path) -> anyhow::Result<()> {
    let blobs = layout.join("blobs").join("sha256");
    std::fs::create_dir_all(&blobs).with_context(|| format!("cannot make {}", blobs.display()))?;

    let unnamed = layout.join("layer.tar");
    let (layer, layer_size) = write_layer(program, &unnamed).context("cannot pack this program")?;
    std::fs::rename(&unnamed, blobs.join(layer.hex()))?;

    let config = store(&blobs, &config(&layer))?;
    let manifest = store(
        &blobs,
        &json!({
            "schemaVersion": 2,
            "mediaType": MediaType::OCI_IMAGE_MANIFEST.as_str(),
            "config": descriptor(&MediaType::OCI_IMAGE_CONFIG, &config),
            "layers": [descriptor(&MediaType::OCI_LAYER, &(layer, layer_size))],
            "annotations": {
                "org.opencontainers.image.title": "twinport",
                "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
            },
        }),
    )?;
    let mut entry = descriptor(&MediaType::OCI_IMAGE_MANIFEST, &manifest);
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": env!("CARGO_PKG_VERSION") });
    write(&layout.join("index.json"), &json!({ "schemaVersion": 2, "manifests": [entry] }))?;
    write(&layout.join("oci-layout"), &json!({ "imageLayoutVersion": "1.0.0" }))
}

/// The image config. It carries no time, so that the same program makes the same image.
fn config(layer: &Digest) -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "architecture": architecture,
        "os": std::env::consts::OS,
        "config": { "Entrypoint": [format!("/{INSIDE}")], "Cmd": ["--help"] },
        "rootfs": { "type": "layers", "diff_ids": [layer.to_string()] },
        "history": [{ "created_by": "twinport demo" }],
    })
}

fn write_layer(program: &Path, to: &Path) -> io::Result<(Digest, u64)> {
    let mut source = File::open(program)?;
    let mut header = tar::Header::new_gnu();
    header.set_size(source.metadata()?.len());
    header.set_mode(0o755);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    let output =
        Hashing { inner: BufWriter::new(File::create(to)?), hasher: Hasher::new(Algorithm::Sha256), size: 0 };
    let mut archive = tar::Builder::new(output);
    archive.append_data(&mut header, INSIDE, &mut source)?;
    let mut output = archive.into_inner()?;
    output.inner.flush()?;
    Ok((output.hasher.finish(), output.size))
}

/// A writer that hashes what goes through it.
struct Hashing<W> {
    inner: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn descriptor(media_type: &MediaType, (digest, size): &(Digest, u64)) -> Value {
    json!({ "mediaType": media_type.as_str(), "digest": digest.to_string(), "size": size })
}

fn store(blobs: &Path, document: &Value) -> anyhow::Result<(Digest, u64)> {
    let bytes = serde_json::to_vec(document)?;
    let digest = Digest::sha256(&bytes);
    let path = blobs.join(digest.hex());
    std::fs::write(&path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
    Ok((digest, bytes.len() as u64))
}

fn write(path: &Path, document: &Value) -> anyhow::Result<()> {
    std::fs::write(path, serde_json::to_vec(document)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_packed_program_is_an_image_that_opens() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        std::fs::write(&program, vec![7; 3 << 20]).unwrap();
        let layout = dir.path().join("layout");
        pack(&program, &layout).unwrap();
        let image = twinport_client::Image::open(&layout).await.unwrap();
        assert_eq!(image.manifests.len(), 1);
        assert_eq!(image.blobs.len(), 2);
        assert!(image.blob_bytes() > 3 << 20);
        assert_eq!(image.tag.unwrap().as_str(), env!("CARGO_PKG_VERSION"));
    }
}
