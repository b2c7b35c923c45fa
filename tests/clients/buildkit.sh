# shellcheck shell=bash
# BuildKit: images with attestations, caches of both shapes, layers in zstd and eStargz, WASM; platforms pushed side by
# side. Sourced by scripts/test-clients.

buildctl_() { buildctl --addr "unix://$work/buildkit/socket" "$@"; }

start_buildkitd() {
  local host
  [ "$(id -u)" = 0 ] && have buildkitd && have buildctl || return 0
  mkdir -p "$work/buildkit"
  cat >"$work/buildkit/buildkitd.toml" <<TOML
root = "$work/buildkit/root"
[grpc]
  address = ["unix://$work/buildkit/socket"]
[worker.oci]
  snapshotter = "native"
  networkMode = "host"
[worker.containerd]
  enabled = false
TOML
  # Both told in so many words: unasked, it speaks HTTP to whatever is on loopback.
  for host in "$primary" "$secondary"; do
    printf '[registry."%s"]\n  http = %s\n' "$host" "$([ "$scheme" = http ] && echo true || echo false)" >>"$work/buildkit/buildkitd.toml"
  done
  start_daemon buildkitd buildkitd --config "$work/buildkit/buildkitd.toml"
}

buildkitd_answers() { eventually 60 buildctl_ debug workers || { tail -n 15 "$work/buildkitd.log"; return 1; }; }

# build CONTEXT TEXT OPTION…: a build of one file on nothing.
build() {
  local context=$work/buildkit/$1
  mkdir -p "$context"
  echo "$2" >"$context/greeting"
  printf 'FROM scratch\nCOPY greeting /greeting\n' >"$context/Dockerfile"
  shift 2
  buildctl_ build --progress plain --frontend dockerfile.v0 --local "context=$context" --local "dockerfile=$context" "$@"
}

pushed_as() { echo "type=image,name=$primary/$1,push=true,oci-mediatypes=true$2"; }

# push_with_buildkit REPOSITORY EXPORTER-OPTIONS JQ-OF-ITS-MANIFEST [OPTION…]
push_with_buildkit() {
  local repository=$1 exporter=$2 holds=$3
  shift 3
  build "${repository#*/}" "built as $repository" --metadata-file "$work/buildkit/metadata" --output "$(pushed_as "$repository:1" "$exporter")" "$@"
  expect "$repository" 1 "$(jq -er '."containerimage.digest"' "$work/buildkit/metadata")"
  manifest_at "$primary" "$repository" 1 | jq -e "$holds"
}

push_attestations_with_buildkit() {
  push_with_buildkit buildkit/attested "" '[.manifests[] | .annotations["vnd.docker.reference.type"]] | map(select(. == "attestation-manifest")) | length == 2' \
    --opt platform=linux/amd64,linux/arm64 --opt attest:provenance=mode=max
}

# The scanner is an image that BuildKit pulls and runs on what it has built: here one on Debian, which says the same of all.
push_an_sbom_with_buildkit() {
  local context=$work/buildkit/scanner
  mkdir -p "$context"
  cat >"$context/scan" <<'SCRIPT'
#!/bin/sh
set -eu
cat >"$BUILDKIT_SCAN_DESTINATION/sbom.spdx.json" <<JSON
{"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://spdx.dev/Document",
 "predicate": {"spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "name": "greeting", "dataLicense": "CC0-1.0"}}
JSON
SCRIPT
  chmod +x "$context/scan"
  printf 'FROM %s/skopeo/debian:bookworm\nCOPY scan /scan\nRUN ["/bin/sh", "-n", "/scan"]\nENTRYPOINT ["/scan"]\n' "$primary" >"$context/Dockerfile"
  buildctl_ build --progress plain --frontend dockerfile.v0 --local "context=$context" --local "dockerfile=$context" \
    --metadata-file "$work/buildkit/metadata" --output "$(pushed_as buildkit/scanner:1 "")"
  expect buildkit/scanner 1 "$(jq -er '."containerimage.digest"' "$work/buildkit/metadata")"
  push_with_buildkit buildkit/sbom "" '.manifests | length == 2' --opt platform=linux/amd64 --opt "attest:sbom=generator=$primary/buildkit/scanner:1"
  manifest_at "$primary" buildkit/sbom "$(manifest_at "$primary" buildkit/sbom 1 | jq -r '.manifests[1].digest')" \
    | jq -e '.layers | any(.annotations["in-toto.io/predicate-type"] == "https://spdx.dev/Document")'
}

# The manifests of all platforms and of their attestations go out at once, before the index that names them.
push_platforms_side_by_side_with_buildkit() {
  local times=$1 pushed=0 turn
  for turn in $(seq "$times"); do
    build parallel "turn $turn of $where" --opt platform=linux/amd64,linux/arm64,linux/riscv64 --opt attest:provenance=mode=max \
      --metadata-file "$work/buildkit/metadata" --output "$(pushed_as "buildkit/parallel:$turn" "")" >"$work/buildkit/turn.log" 2>&1 \
      || { tail -n 5 "$work/buildkit/turn.log"; continue; }
    expect buildkit/parallel "$turn" "$(jq -er '."containerimage.digest"' "$work/buildkit/metadata")"
    pushed=$((pushed + 1))
  done
  [ $pushed = "$times" ] || { echo "$pushed of $times pushes got through"; return 1; }
}

push_zstd_layers_with_buildkit() {
  push_with_buildkit buildkit/zstd ,compression=zstd,force-compression=true '.layers[0].mediaType | endswith("+zstd")' --opt platform=linux/amd64
}

# The table of contents of an eStargz layer is named in its annotations.
push_estargz_layers_with_buildkit() {
  push_with_buildkit buildkit/estargz ,compression=estargz,force-compression=true \
    '.layers[0].annotations["containerd.io/snapshot/stargz/toc.digest"] | startswith("sha256:")' --opt platform=linux/amd64
}

# An image whose platform is WASM, as Docker and containerd run it.
push_wasm_with_buildkit() {
  push_with_buildkit buildkit/wasm "" '.config.mediaType == "application/vnd.oci.image.config.v1+json"' --opt platform=wasi/wasm
}

# push_cache_with_buildkit TAG TRUE|FALSE JQ: image-manifest or index.
push_cache_with_buildkit() {
  build "cache-$1" "cached $1" --export-cache "type=registry,ref=$primary/buildkit/cache:$1,mode=max,image-manifest=$2,oci-mediatypes=true"
  expect_named "$primary" buildkit/cache "$1"
  manifest_at "$primary" buildkit/cache "$1" | jq -e "$3"
}

push_image_shaped_cache_with_buildkit() {
  push_cache_with_buildkit image true '.config.mediaType == "application/vnd.buildkit.cacheconfig.v0" and (.layers | length > 0)'
}

push_index_shaped_cache_with_buildkit() {
  push_cache_with_buildkit index false '.manifests | any(.mediaType == "application/vnd.buildkit.cacheconfig.v0")'
}

# A daemon that has forgotten everything takes the step from the cache.
use_cache_with_buildkit() {
  buildctl_ prune --all >/dev/null
  build "cache-$2" "cached $2" --import-cache "type=registry,ref=$1/buildkit/cache:$2" 2>&1 | tee "$work/buildkit/cached.log"
  grep -q CACHED "$work/buildkit/cached.log"
}

# build_on_with_buildkit HOST REPOSITORY: a base image is pulled, whole, into a tar file.
build_on_with_buildkit() {
  local context=$work/buildkit/on
  mkdir -p "$context"
  printf 'FROM %s/%s:1\nCOPY Dockerfile /Dockerfile\n' "$1" "$2" >"$context/Dockerfile"
  buildctl_ build --frontend dockerfile.v0 --local "context=$context" --local "dockerfile=$context" --opt platform=linux/amd64 \
    --output "type=tar,dest=$work/buildkit/on.tar"
  [ "$(tar -xOf "$work/buildkit/on.tar" greeting)" = "built as $2" ]
}

buildkit_push_all() {
  local times=20
  ! $smoke || times=3
  start_buildkitd
  rooted buildkitd "BuildKit's daemon answers" buildkitd_answers
  rooted buildkitd "BuildKit pushes an image with attestations" push_attestations_with_buildkit
  # Not in the smoke form: Debian is unpacked three times for it.
  # shellcheck disable=SC2154 # scripts/test-clients sets it
  if $smoke; then :
  elif [ "$source" = debootstrap ]; then rooted buildkitd "BuildKit runs a scanner and pushes an SBOM" push_an_sbom_with_buildkit
  else skip "$where: BuildKit runs a scanner and pushes an SBOM" "its root file system is $source"
  fi
  rooted buildkitd "BuildKit pushes platforms with attestations side by side, $times of $times" push_platforms_side_by_side_with_buildkit $times
  rooted buildkitd "BuildKit pushes layers in zstd" push_zstd_layers_with_buildkit
  rooted buildkitd "BuildKit pushes layers in eStargz" push_estargz_layers_with_buildkit
  rooted buildkitd "BuildKit pushes an image for WASM" push_wasm_with_buildkit
  rooted buildkitd "BuildKit pushes a cache shaped as an image" push_image_shaped_cache_with_buildkit
  rooted buildkitd "BuildKit pushes a cache shaped as an index" push_index_shaped_cache_with_buildkit
}

buildkit_pull_all() {
  rooted buildkitd "BuildKit builds from the image-shaped cache" use_cache_with_buildkit "$1" image
  rooted buildkitd "BuildKit builds from the index-shaped cache" use_cache_with_buildkit "$1" index
  rooted buildkitd "BuildKit builds on an image with attestations" build_on_with_buildkit "$1" buildkit/attested
  rooted buildkitd "BuildKit builds on eStargz layers" build_on_with_buildkit "$1" buildkit/estargz
  rooted buildkitd "BuildKit builds on layers in zstd" build_on_with_buildkit "$1" buildkit/zstd
}
