//! Images in local files: an OCI layout, the same in an archive, and what `docker save` writes.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use twinport_client::Image;
use twinport_oci::{Digest, MediaType};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn store(layout: &Path, bytes: &[u8]) -> Value {
    let digest = Digest::sha256(bytes);
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
    json!({ "digest": digest.to_string(), "size": bytes.len() })
}

fn typed(mut descriptor: Value, media_type: &str) -> Value {
    descriptor["mediaType"] = media_type.into();
    descriptor
}

fn image(layout: &Path, salt: &str) -> Value {
    let config = typed(
        store(layout, format!("{{\"salt\":\"{salt}\"}}").as_bytes()),
        "application/vnd.oci.image.config.v1+json",
    );
    let layer = typed(store(layout, b"a layer all share"), "application/vnd.oci.image.layer.v1.tar");
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
    typed(store(layout, &serde_json::to_vec(&manifest).unwrap()), MANIFEST)
}

fn finish(layout: &Path, entries: &[Value]) {
    let index = json!({ "schemaVersion": 2, "manifests": entries });
    std::fs::write(layout.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    std::fs::write(layout.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

fn archive(dir: &Path, to: &str) -> PathBuf {
    let path = dir.join("..").join(to);
    let mut builder = tar::Builder::new(std::fs::File::create(&path).unwrap());
    builder.append_dir_all(".", dir).unwrap();
    builder.finish().unwrap();
    path
}

#[tokio::test]
async fn a_nested_index_is_read_children_first_from_a_directory_and_from_an_archive() {
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("layout");
    let children = [image(&layout, "amd64"), image(&layout, "arm64")];
    let inner = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": children });
    let inner = typed(store(&layout, &serde_json::to_vec(&inner).unwrap()), INDEX);
    let outer = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [inner] });
    let mut outer = typed(store(&layout, &serde_json::to_vec(&outer).unwrap()), INDEX);
    outer["annotations"] = json!({ "org.opencontainers.image.ref.name": "registry.example.com/app:v1" });
    finish(&layout, std::slice::from_ref(&outer));

    for path in [layout.clone(), archive(&layout, "image.tar")] {
        let image = Image::open(&path).await.unwrap();
        assert_eq!(image.tag.as_ref().unwrap().as_str(), "v1");
        assert_eq!(image.manifests.len(), 4);
        assert_eq!(image.root().digest.to_string(), outer["digest"]);
        assert_eq!(image.blobs.len(), 3, "the shared layer is there once");
        for blob in &image.blobs {
            let bytes = std::fs::read(&blob.slice.path).unwrap();
            let at = usize::try_from(blob.slice.offset).unwrap();
            let len = usize::try_from(blob.slice.len).unwrap();
            assert_eq!(Digest::sha256(&bytes[at..at + len]), blob.digest);
        }
    }
}

#[tokio::test]
async fn several_images_in_one_layout_are_one_index() {
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("layout");
    finish(&layout, &[image(&layout, "a"), image(&layout, "b")]);
    let image = Image::open(&layout).await.unwrap();
    assert_eq!(image.root().media_type, MediaType::OCI_IMAGE_INDEX);
    assert_eq!(image.manifests.len(), 3);
}

#[tokio::test]
async fn a_missing_or_altered_part_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("layout");
    let entry = image(&layout, "x");
    finish(&layout, std::slice::from_ref(&entry));
    let layer = Digest::sha256(b"a layer all share");
    let layer_path = layout.join("blobs/sha256").join(layer.hex());
    std::fs::rename(&layer_path, dir.path().join("kept")).unwrap();
    let error = Image::open(&layout).await.unwrap_err().to_string();
    assert!(error.contains(&layer.to_string()) && error.contains("missing"), "{error}");
    std::fs::rename(dir.path().join("kept"), &layer_path).unwrap();

    let manifest = entry["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
    let path = layout.join("blobs/sha256").join(manifest);
    let altered = std::fs::read_to_string(&path).unwrap().replace("schemaVersion", "schemaversion");
    std::fs::write(&path, altered).unwrap();
    let error = Image::open(&layout).await.unwrap_err().to_string();
    assert!(error.contains("not an image"), "{error}");
}

#[tokio::test]
async fn what_docker_saves_becomes_a_schema_2_image_and_repeated_layers_are_links() {
    let dir = tempfile::tempdir().unwrap();
    let saved = dir.path().join("saved");
    let layer = b"the bytes of a layer tar";
    let diff_id = Digest::sha256(layer).to_string();
    for id in ["one", "two"] {
        std::fs::create_dir_all(saved.join(id)).unwrap();
    }
    std::fs::write(saved.join("one/layer.tar"), layer).unwrap();
    std::os::unix::fs::symlink("../one/layer.tar", saved.join("two/layer.tar")).unwrap();
    let config = json!({ "rootfs": { "type": "layers", "diff_ids": [diff_id, diff_id] } }).to_string();
    std::fs::write(saved.join("config.json"), &config).unwrap();
    let manifest = json!([{
        "Config": "config.json",
        "RepoTags": ["app:v2"],
        "Layers": ["one/layer.tar", "two/layer.tar"],
    }]);
    std::fs::write(saved.join("manifest.json"), manifest.to_string()).unwrap();
    let path = archive_with_links(&saved, dir.path().join("saved.tar"));

    let image = Image::open(&path).await.unwrap();
    assert_eq!(image.tag.as_ref().unwrap().as_str(), "v2");
    assert_eq!(image.root().media_type, MediaType::DOCKER_MANIFEST);
    assert_eq!(image.blobs.len(), 2, "config, and the layer once");
    assert!(image.blobs.iter().any(|blob| blob.digest.to_string() == diff_id));

    std::fs::write(saved.join("one/layer.tar"), b"other bytes of a layer t").unwrap();
    let path = archive_with_links(&saved, dir.path().join("altered.tar"));
    let error = Image::open(&path).await.unwrap_err().to_string();
    assert!(error.contains("its config says"), "{error}");
}

fn archive_with_links(dir: &Path, to: PathBuf) -> PathBuf {
    let mut builder = tar::Builder::new(std::fs::File::create(&to).unwrap());
    builder.follow_symlinks(false);
    builder.append_dir_all(".", dir).unwrap();
    builder.finish().unwrap();
    to
}

#[tokio::test]
async fn what_is_no_image_is_told_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tar.gz");
    std::fs::write(&path, [0x1f, 0x8b, 8, 0]).unwrap();
    assert!(Image::open(&path).await.unwrap_err().to_string().contains("gunzip"));
    std::fs::write(&path, b"not a tar archive, only text").unwrap();
    assert!(Image::open(&path).await.unwrap_err().to_string().contains("not an image"));
    let absent = Image::open(&dir.path().join("absent")).await.unwrap_err().to_string();
    assert!(absent.contains("absent"), "{absent}");
    assert!(Image::open(dir.path()).await.unwrap_err().to_string().contains("index.json"));
}

#[tokio::test]
async fn an_archive_that_was_cut_short_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("layout");
    finish(&layout, &[image(&layout, "x")]);
    let path = archive(&layout, "whole.tar");
    let bytes = std::fs::read(&path).unwrap();
    let cut = dir.path().join("cut.tar");
    // In the middle of a document, in whatever order the file system named the members.
    let word = b"schemaVersion";
    let middle = bytes.windows(word.len()).rposition(|window| window == word).unwrap() + word.len();
    std::fs::write(&cut, &bytes[..middle]).unwrap();
    assert!(Image::open(&cut).await.is_err());
}
