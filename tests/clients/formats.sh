# shellcheck shell=bash
# Formats that no other client here writes: by regctl, and as documents pushed by curl. Sourced by scripts/test-clients.

# manifest_of REPOSITORY JQ: $work/format.json is an image manifest whose layer is a small tar, changed by jq.
manifest_of() {
  local repository=$1 change=$2 config layer
  tar_of_a_file "$repository" >"$work/format.tar"
  layer=$(put_blob "$primary" "$repository" "$work/format.tar")
  jq -cn --arg l "$layer" '{architecture: "amd64", os: "linux", config: {}, rootfs: {type: "layers", diff_ids: [$l]}}' >"$work/format.config"
  config=$(put_blob "$primary" "$repository" "$work/format.config")
  jq -n --arg c "$config" --argjson cs "$(stat -c %s "$work/format.config")" --arg l "$layer" --argjson ls "$(stat -c %s "$work/format.tar")" \
    "{schemaVersion: 2, mediaType: \"$oci_manifest\",
      config: {mediaType: \"$oci_config\", digest: \$c, size: \$cs}, layers: [{mediaType: \"$oci_layer\", digest: \$l, size: \$ls}]} | $change" >"$work/format.json"
}

# push_format REPOSITORY JQ [TYPE]: pushed by curl under tag 1, and read back from the primary byte for byte.
push_format() {
  local repository=$1 type=${3:-$oci_manifest} digest
  manifest_of "$repository" "$2"
  digest=sha256:$(sha256sum "$work/format.json" | cut -d' ' -f1)
  [ "$(put_manifest "$primary" "$repository" 1 "$type" "$work/format.json")" = "$digest" ]
  manifest_at "$primary" "$repository" 1 | cmp - "$work/format.json"
  expect "$repository" 1 "$digest"
}

elsewhere='digest: "sha256:aa00aa00aa00aa00aa00aa00aa00aa00aa00aa00aa00aa00aa00aa00aa00aa00", size: 1234567, urls: ["https://example.com/layer"]'

# Windows base images: the bytes are where `urls` says, and never here.
push_a_docker_foreign_layer_with_curl() {
  push_format formats/docker-foreign \
    '.mediaType = "application/vnd.docker.distribution.manifest.v2+json" | .config.mediaType = "application/vnd.docker.container.image.v1+json"
     | .layers[0].mediaType = "application/vnd.docker.image.rootfs.diff.tar"
     | .layers = [{mediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", '"$elsewhere"'}] + .layers' \
    application/vnd.docker.distribution.manifest.v2+json
}

# One elsewhere, one that was pushed all the same: the walk asks for the bytes of that one.
push_a_non_distributable_layer_with_curl() {
  push_format formats/non-distributable '.layers[0].mediaType = "application/vnd.oci.image.layer.nondistributable.v1.tar"
    | .layers = [{mediaType: "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", '"$elsewhere"'}] + .layers'
}

# A layer that is both elsewhere and here: its bytes count.
push_descriptors_with_urls_with_curl() {
  push_format formats/urls '.layers[0].urls = ["https://example.com/one", "https://example.com/two"]
    | .layers[0].annotations = {"org.example.kept": "yes"}'
}

push_unknown_media_types_with_curl() {
  push_format formats/unknown-config '.config.mediaType = "application/vnd.example.config.v7+json" | .layers[0].mediaType = "application/vnd.example.layer"'
  push_format formats/unknown-manifest 'del(.layers) | del(.config) | .mediaType = "application/vnd.example.manifest.v3+json" | .anything = {nested: [1, 2]}' \
    application/vnd.example.manifest.v3+json
}

# OCI 1.1 withdrew it before its release; registries of 2022 took it.
push_an_artifact_manifest_with_curl() {
  push_format formats/artifact-manifest '{mediaType: "application/vnd.oci.artifact.manifest.v1+json", artifactType: "application/vnd.example.thing", blobs: .layers}' \
    application/vnd.oci.artifact.manifest.v1+json
}

push_an_empty_index_with_curl() {
  push_format formats/empty-index '{schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests: []}' application/vnd.oci.image.index.v1+json
}

# The specification lets an index name what is not there, or not yet. There is nothing below it to walk.
push_a_sparse_index_with_curl() {
  push_format formats/sparse '{schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json",
    manifests: [{mediaType: "application/vnd.oci.image.manifest.v1+json", '"$elsewhere"'}]}' application/vnd.oci.image.index.v1+json
}

push_descriptors_with_data_with_regctl() {
  regctl image copy "ocidir://$work/flat:flat" "$1/formats/data:plain"
  regctl image mod "$1/formats/data:plain" --data-max 2000 --create "$1/formats/data:1"
  expect_named "$1" formats/data 1
  manifest_at "$1" formats/data 1 | jq -e '.manifests[0].data | length > 100'
}

# The CNCF's layout of a WASM component: config and layer of types of its own.
push_a_wasm_artifact_with_regctl() {
  # The smallest module there is: magic and version.
  printf '\0asm\1\0\0\0' >"$work/module.wasm"
  echo '{"architecture": "wasm", "os": "wasip2", "layerDigests": [], "component": {"exports": [], "imports": []}}' >"$work/wasm.config"
  regctl artifact put --config-type application/vnd.wasm.config.v0+json --config-file "$work/wasm.config" --file "$work/module.wasm" \
    --file-media-type application/wasm "$1/formats/wasm:1"
  expect_named "$1" formats/wasm 1
}

push_sha512_with_regctl() {
  regctl image mod "$1/formats/data:plain" --digest-algo sha512 --create "$1/formats/sha512:1"
  expect_named "$1" formats/sha512 1
  expected_digest formats/sha512 1 | grep ^sha512:
}

formats_push_all() {
  client curl "a Docker image with a foreign layer" push_a_docker_foreign_layer_with_curl
  client curl "an image with a non-distributable layer" push_a_non_distributable_layer_with_curl
  client curl "a descriptor with urls" push_descriptors_with_urls_with_curl
  client curl "configs, layers and manifests of unknown types" push_unknown_media_types_with_curl
  client curl "an artifact manifest of 2022" push_an_artifact_manifest_with_curl
  client curl "an index of nothing" push_an_empty_index_with_curl
  client curl "an index whose child is elsewhere" push_a_sparse_index_with_curl
  client regctl "regctl pushes descriptors with data" push_descriptors_with_data_with_regctl "$1"
  client regctl "regctl pushes a WASM component" push_a_wasm_artifact_with_regctl "$1"
  client regctl "regctl pushes an image by sha512" push_sha512_with_regctl "$1"
}

# The walk has hashed every byte at the secondary.
formats_pull_all() { :; }
