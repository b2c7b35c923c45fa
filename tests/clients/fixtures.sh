# shellcheck shell=bash
# What the clients push: real content as OCI layouts in a work folder. Sourced by scripts/test-clients.
# Everything is made from files whose digests are known before any registry sees them.

oci_manifest=application/vnd.oci.image.manifest.v1+json
oci_index=application/vnd.oci.image.index.v1+json
oci_config=application/vnd.oci.image.config.v1+json
oci_layer=application/vnd.oci.image.layer.v1.tar

# The package mirror this machine is set up with, if it says.
configured_mirror() {
  # shellcheck disable=SC2016 # apt fills it in
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $1" 2>/dev/null | head -n 1
}

# debian_layout FOLDER: a cached OCI layout whose tag `bookworm` is Debian's minimal root file system plus one small layer.
debian_layout() {
  local layout=$1 suite=bookworm making rootfs source=debootstrap
  [ ! -f "$layout/index.json" ] || { cat "$layout/source"; return 0; }
  making=$(mktemp -d "$cache/fixtures/making.XXXXXX")
  rootfs=$making/rootfs
  # shellcheck disable=SC2046 # no mirror, no argument
  if [ "$(id -u)" = 0 ] && have debootstrap \
    && debootstrap --variant=minbase "$suite" "$rootfs" $(configured_mirror "$suite") >"$making/debootstrap.log" 2>&1; then
    tar --numeric-owner --sort=name -C "$rootfs" --exclude='./dev/*' --exclude='./var/cache/apt/archives/*.deb' -cf "$making/layer.tar" .
  else
    # Still real files of a real system, only not a bootable one.
    source="this machine's /usr/bin (debootstrap did not run: $(tail -n 1 "$making/debootstrap.log" 2>/dev/null || echo 'not root or not installed'))"
    tar --numeric-owner --sort=name -C / --ignore-failed-read -cf "$making/layer.tar" usr/bin
  fi
  mkdir -p "$making/etc"
  echo "made for Twinport's client tests" >"$making/etc/twinport-fixture"
  tar --numeric-owner --owner=0 --group=0 -C "$making" -cf "$making/small.tar" etc
  umoci init --layout "$making/layout"
  umoci new --image "$making/layout:$suite"
  umoci raw add-layer --image "$making/layout:$suite" "$making/layer.tar"
  umoci raw add-layer --image "$making/layout:$suite" "$making/small.tar"
  umoci gc --layout "$making/layout"
  echo "$source" >"$making/layout/source"
  rm -rf "$layout"
  mv "$making/layout" "$layout"
  rm -rf "$making"
  echo "$source"
}

# blob LAYOUT FILE MEDIA_TYPE: stores the file by its digest, prints its descriptor.
blob() {
  local hex
  hex=$(sha256sum "$2" | cut -d' ' -f1)
  cp "$2" "$1/blobs/sha256/$hex"
  jq -cn --arg t "$3" --arg d "sha256:$hex" --argjson s "$(stat -c %s "$2")" '{mediaType:$t,digest:$d,size:$s}'
}

new_layout() {
  mkdir -p "$1/blobs/sha256"
  echo '{"imageLayoutVersion":"1.0.0"}' >"$1/oci-layout"
}

# tag_layout LAYOUT TAG DESCRIPTOR: makes the descriptor the layout's only entry.
tag_layout() {
  jq -cn --arg n "$2" --argjson d "$3" \
    '{schemaVersion:2,manifests:[$d+{annotations:{"org.opencontainers.image.ref.name":$n}}]}' >"$1/index.json"
}

# small_image LAYOUT ARCHITECTURE TEXT: one image of one tiny layer, prints its descriptor.
small_image() {
  local layout=$1 scratch config layer
  scratch=$(mktemp -d "$work/small.XXXXXX")
  echo "$3" >"$scratch/greeting"
  tar --numeric-owner --owner=0 --group=0 --mtime=@0 -C "$scratch" -cf "$scratch/layer.tar" greeting
  layer=$(blob "$layout" "$scratch/layer.tar" $oci_layer)
  jq -cn --arg a "$2" --argjson l "$layer" >"$scratch/config" \
    '{architecture:$a,os:"linux",config:{},rootfs:{type:"layers",diff_ids:[$l.digest]},history:[{created_by:"tar"}]}'
  config=$(blob "$layout" "$scratch/config" $oci_config)
  jq -cn --arg t $oci_manifest --argjson c "$config" --argjson l "$layer" \
    '{schemaVersion:2,mediaType:$t,config:$c,layers:[$l]}' >"$scratch/manifest"
  blob "$layout" "$scratch/manifest" $oci_manifest
  rm -rf "$scratch"
}

# index_of LAYOUT DESCRIPTOR…: an index over the descriptors, prints its own.
index_of() {
  local layout=$1 file
  shift
  file=$(mktemp "$work/index.XXXXXX")
  printf '%s\n' "$@" | jq -cs --arg t $oci_index '{schemaVersion:2,mediaType:$t,manifests:.}' >"$file"
  blob "$layout" "$file" $oci_index
  rm -f "$file"
}

with_platform() { jq -c --arg a "$2" '. + {platform:{architecture:$a,os:"linux"}}' <<<"$1"; }

# An index whose first child is an index: Debian for amd64, two small images for other machines.
nested_layout() {
  local layout=$1 debian=$2 real arm riscv inner outer
  new_layout "$layout"
  cp "$debian"/blobs/sha256/* "$layout/blobs/sha256/"
  real=$(jq -c '.manifests[0] | {mediaType,digest,size}' "$debian/index.json")
  arm=$(small_image "$layout" arm64 "from arm64")
  riscv=$(small_image "$layout" riscv64 "from riscv64")
  inner=$(index_of "$layout" "$(with_platform "$real" amd64)" "$(with_platform "$arm" arm64)")
  outer=$(index_of "$layout" "$inner" "$(with_platform "$riscv" riscv64)")
  tag_layout "$layout" nested "$outer"
}

# A flat index, as every multi-platform image is.
flat_layout() {
  local layout=$1 amd arm index
  new_layout "$layout"
  amd=$(small_image "$layout" amd64 "flat amd64")
  arm=$(small_image "$layout" arm64 "flat arm64")
  index=$(index_of "$layout" "$(with_platform "$amd" amd64)" "$(with_platform "$arm" arm64)")
  tag_layout "$layout" flat "$index"
}

# One small image under a tag that only the layout knows.
single_layout() {
  new_layout "$1"
  tag_layout "$1" only "$(small_image "$1" amd64 "$2")"
}

# digest_of LAYOUT: what its only entry is.
digest_of() { jq -r '.manifests[0].digest' "$1/index.json"; }

# tar_of_a_file TEXT: a root file system of one file `greeting`, on standard output.
tar_of_a_file() {
  local scratch
  scratch=$(mktemp -d "$work/tar.XXXXXX")
  echo "$1" >"$scratch/greeting"
  tar --numeric-owner --owner=0 --group=0 -C "$scratch" -cf - greeting
  rm -rf "$scratch"
}
