//! OCI image layouts (OCI Image Specification, "Image Layout"), in a directory or an archive.

use twinport_oci::{Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest, MediaType, Tag, canonical_digest};

use super::{Gathered, Image, files::Files};
use crate::Result;

/// The annotation that names the image a descriptor of index.json stands for.
const REFERENCE_NAME: &str = "org.opencontainers.image.ref.name";
/// How deep indexes may nest.
const MAX_DEPTH: usize = 8;

/// Reads the image of index.json: its one manifest, or index.json itself where it lists several.
pub(crate) fn read(files: &Files) -> Result<Image> {
    let bytes = files.document("index.json", MAX_MANIFEST_BYTES as u64)?;
    let mut gathered = Gathered::new(files.path());
    let index = Manifest::parse(&bytes, Some(&MediaType::OCI_IMAGE_INDEX))
        .map_err(|error| gathered.broken(format!("its index.json: {error}")))?;
    match index.manifests.as_slice() {
        [] => return Err(gathered.broken("its index.json lists no manifest".to_owned())),
        [only] => {
            gathered.image.tag = only.annotations.get(REFERENCE_NAME).and_then(|name| tag_of(name));
            if !visit(files, &mut gathered, only, 0)? {
                return Err(gathered.broken(format!("its manifest {} is missing", only.digest)));
            }
        }
        _ => {
            for child in index.children() {
                visit(files, &mut gathered, child, 0)?;
            }
            for blob in index.blobs() {
                gathered.blob(blob, files.locate(&blob_path(&blob.digest)))?;
            }
            gathered.manifest(Digest::sha256(&bytes), &index, bytes);
        }
    }
    Ok(gathered.image)
}

/// Gathers what a descriptor of a manifest stands for, children first. False where the layout does not have it, as in
/// one that holds a single platform of an index.
fn visit(files: &Files, gathered: &mut Gathered, descriptor: &Descriptor, depth: usize) -> Result<bool> {
    let digest = descriptor.digest;
    if gathered.has_manifest(&digest) {
        return Ok(true);
    }
    if depth > MAX_DEPTH {
        return Err(gathered.broken(format!("its indexes nest more than {MAX_DEPTH} deep")));
    }
    let Some(slice) = files.locate(&blob_path(&digest)) else { return Ok(false) };
    let bytes = slice.read_all(MAX_MANIFEST_BYTES as u64)?;
    let media_type = descriptor.media_type.as_deref().and_then(|text| MediaType::parse(text).ok());
    let manifest = Manifest::parse(&bytes, media_type.as_ref())
        .map_err(|error| gathered.broken(format!("its manifest {digest}: {error}")))?;
    let actual = canonical_digest(&bytes, &manifest, digest.algorithm());
    if actual != digest {
        return Err(gathered.broken(format!("its manifest {digest} hashes to {actual}")));
    }
    for child in manifest.children() {
        visit(files, gathered, child, depth + 1)?;
    }
    for blob in manifest.blobs() {
        gathered.blob(blob, files.locate(&blob_path(&blob.digest)))?;
    }
    gathered.manifest(digest, &manifest, bytes);
    Ok(true)
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

/// A reference name is a tag, or a whole image name that ends in one.
pub(super) fn tag_of(name: &str) -> Option<Tag> {
    let last = name.rsplit('/').next().unwrap_or(name);
    let last = last.split('@').next().unwrap_or(last);
    let tag = last.rsplit_once(':').map_or(last, |(_, tag)| tag);
    Tag::parse(tag).ok()
}
