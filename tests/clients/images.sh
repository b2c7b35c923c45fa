# shellcheck shell=bash
# Images by skopeo, crane, regctl and buildah: pushed to the primary, pulled from the secondary. Sourced by scripts/test-clients.

skopeo_() { skopeo --policy "$policy" "$@"; }
buildah_() {
  local verb=$1
  shift
  # chroot isolation and vfs need neither a runtime nor an overlay mount.
  buildah --root "$work/buildah/root" --runroot "$work/buildah/run" --storage-driver vfs "$verb" "$@"
}

push_debian_with_skopeo() {
  skopeo_ copy --preserve-digests --dest-tls-verify="$verify" "oci:$debian:bookworm" "docker://$1/skopeo/debian:bookworm"
  expect skopeo/debian bookworm "$(digest_of "$debian")"
}

push_docker_schema_2_with_skopeo() {
  skopeo_ copy --format v2s2 --dest-tls-verify="$verify" --digestfile "$work/schema2" "oci:$debian:bookworm" "docker://$1/skopeo/debian:schema2"
  expect skopeo/debian schema2 "$(cat "$work/schema2")"
}

push_flat_index_with_skopeo() {
  skopeo_ copy --all --preserve-digests --dest-tls-verify="$verify" "oci:$work/flat" "docker://$1/skopeo/flat:1"
  expect skopeo/flat 1 "$(digest_of "$work/flat")"
}

push_nested_index_with_crane() {
  crane push "$work/nested" "$1/crane/nested:1"
  expect crane/nested 1 "$(digest_of "$work/nested")"
}

push_untagged_with_crane() {
  local digest
  digest=$(digest_of "$work/single")
  crane push "$work/single" "$1/crane/untagged@$digest"
  expect crane/untagged "$digest" "$digest"
}

# Debian's blobs are at the primary by now: crane mounts them from the other repository.
mount_with_crane() {
  crane copy "$1/skopeo/debian:bookworm" "$1/crane/mounted:bookworm"
  expect crane/mounted bookworm "$(digest_of "$debian")"
}

push_nested_index_with_regctl() {
  regctl image copy "ocidir://$work/nested:nested" "$1/regctl/nested:1"
  expect regctl/nested 1 "$(digest_of "$work/nested")"
}

push_untagged_with_regctl() {
  local digest
  digest=$(digest_of "$work/single")
  regctl image copy "ocidir://$work/single:only" "$1/regctl/untagged@$digest"
  expect regctl/untagged "$digest" "$digest"
}

# An SBOM about an image, and a signature about the SBOM: a referrer of a referrer.
push_referrers_with_regctl() {
  local subject sbom signature
  subject=$(digest_of "$work/flat")
  regctl image copy "ocidir://$work/flat:flat" "$1/regctl/signed:1"
  expect regctl/signed 1 "$subject"
  echo '{"bomFormat":"CycloneDX"}' >"$work/sbom.json"
  regctl artifact put --artifact-type application/vnd.cyclonedx+json --file "$work/sbom.json" --subject "$1/regctl/signed:1" \
    --annotation org.example.order=first
  sbom=$(referrers "$1" regctl/signed "$subject")
  [ "$(wc -w <<<"$sbom")" = 1 ] || { echo "the subject has referrers '$sbom', expected one"; return 1; }
  expect regctl/signed "$sbom" "$sbom"
  echo signature >"$work/signature"
  regctl artifact put --artifact-type application/vnd.example.signature --file "$work/signature" --subject "$1/regctl/signed@$sbom"
  signature=$(referrers "$1" regctl/signed "$sbom")
  expect regctl/signed "$signature" "$signature"
}

# An artifact of its own: no image config, a media type no registry knows.
push_artifact_with_regctl() {
  head -c 100000 /dev/urandom >"$work/model.bin"
  regctl artifact put --artifact-type application/vnd.example.model --file "$work/model.bin" --file-media-type application/vnd.example.weights \
    "$1/regctl/model:1"
  expect regctl/model 1 "$(regctl manifest head "$1/regctl/model:1")"
}

# Built on Debian, not copied: a layer that only buildah has packed.
push_built_with_buildah() {
  local container
  # buildah names the image after the layout's path, which has to be a repository name then.
  ln -sfn "$debian" "$work/debian"
  container=$(cd "$work" && buildah_ from --signature-policy "$policy" oci:debian:bookworm)
  echo "built here" >"$work/built"
  buildah_ copy "$container" "$work/built" /built
  buildah_ config --label org.example.built=yes "$container"
  buildah_ commit --signature-policy "$policy" "$container" twinport-built
  buildah_ push --signature-policy "$policy" --tls-verify="$verify" --digestfile "$work/built-digest" twinport-built "docker://$1/buildah/debian:built"
  buildah_ rm "$container"
  buildah_ rmi --force --all
  expect buildah/debian built "$(cat "$work/built-digest")"
}

# Two tags on one manifest and a second manifest: one tag and the second manifest go again, the sibling tag stays.
delete_with_regctl_and_crane() {
  local digest other
  digest=$(digest_of "$work/single")
  other=$(digest_of "$work/other")
  crane push "$work/single" "$1/crane/kept:kept"
  crane tag "$1/crane/kept:kept" doomed
  crane push "$work/other" "$1/crane/kept:gone"
  arrived crane/kept doomed "$digest"
  arrived crane/kept gone "$other"
  regctl tag delete "$1/crane/kept:doomed"
  crane delete "$1/crane/kept@$other"
  expect crane/kept kept "$digest"
  expect_gone crane/kept doomed
  expect_gone crane/kept gone
  expect_gone crane/kept "$other"
}

delete_with_skopeo() {
  skopeo_ copy --preserve-digests --dest-tls-verify="$verify" "oci:$work/other:only" "docker://$1/skopeo/deleted:1"
  arrived skopeo/deleted 1 "$(digest_of "$work/other")"
  skopeo_ delete --tls-verify="$verify" "docker://$1/skopeo/deleted:1"
  expect_gone skopeo/deleted 1
}

images_push_all() {
  client skopeo "skopeo pushes Debian's root file system" push_debian_with_skopeo "$1"
  client skopeo "skopeo pushes it as Docker schema 2" push_docker_schema_2_with_skopeo "$1"
  client skopeo "skopeo pushes a flat index" push_flat_index_with_skopeo "$1"
  client crane "crane pushes a nested index" push_nested_index_with_crane "$1"
  client crane "crane pushes a manifest by digest, without a tag" push_untagged_with_crane "$1"
  client crane "crane copies between repositories" mount_with_crane "$1"
  client regctl "regctl pushes a nested index" push_nested_index_with_regctl "$1"
  client regctl "regctl pushes a manifest by digest, without a tag" push_untagged_with_regctl "$1"
  client regctl "regctl attaches a referrer and a referrer's referrer" push_referrers_with_regctl "$1"
  client regctl "regctl pushes an artifact" push_artifact_with_regctl "$1"
  client buildah "buildah builds on Debian, commits and pushes" push_built_with_buildah "$1"
  client skopeo "skopeo deletes an image" delete_with_skopeo "$1"
  if have regctl; then client crane "regctl deletes a tag and crane a manifest" delete_with_regctl_and_crane "$1"
  else skip "$where: regctl deletes a tag and crane a manifest" "regctl is not installed"
  fi
}

pull_with_skopeo() {
  rm -rf "$work/pulled"
  skopeo_ copy --preserve-digests --src-tls-verify="$verify" "docker://$1/skopeo/debian:$2" "dir:$work/pulled"
  whole_folder "$work/pulled" "$3"
}

pull_with_crane() {
  rm -rf "$work/pulled"
  crane pull --format oci "$1/$2" "$work/pulled"
  whole_layout "$work/pulled" "$3"
}

pull_with_regctl() {
  rm -rf "$work/pulled"
  regctl image copy --referrers "$1/$2" "ocidir://$work/pulled:pulled"
  whole_layout "$work/pulled" "$3"
}

pull_with_buildah() {
  local container folder
  container=$(buildah_ from --signature-policy "$policy" --tls-verify="$verify" "docker://$1/buildah/debian:built")
  folder=$(buildah_ mount "$container")
  [ "$(cat "$folder/built")" = "built here" ] && [ "$(cat "$folder/etc/twinport-fixture")" = "made for Twinport's client tests" ]
  buildah_ rm "$container"
  buildah_ rmi --force --all
}

referrers_are_listed_by_regctl() {
  local subject=$2
  regctl artifact list --format '{{range .Descriptors}}{{.Digest}}{{end}}' "$1/regctl/signed@$subject" | grep -q sha256:
}

images_pull_all() {
  local untagged
  untagged=$(digest_of "$work/single")
  client skopeo "skopeo pulls Debian" pull_with_skopeo "$1" bookworm "$(digest_of "$debian")"
  client skopeo "skopeo pulls Docker schema 2" pull_with_skopeo "$1" schema2 "$(cat "$work/schema2" 2>/dev/null || echo none)"
  client crane "crane pulls the nested index" pull_with_crane "$1" crane/nested:1 "$(digest_of "$work/nested")"
  client crane "crane pulls a manifest by digest" pull_with_crane "$1" "crane/untagged@$untagged" "$untagged"
  client regctl "regctl pulls the nested index" pull_with_regctl "$1" regctl/nested:1 "$(digest_of "$work/nested")"
  client regctl "regctl pulls an image with its referrers" pull_with_regctl "$1" regctl/signed:1 "$(digest_of "$work/flat")"
  client regctl "regctl lists the referrers" referrers_are_listed_by_regctl "$1" "$(digest_of "$work/flat")"
  client buildah "buildah pulls and unpacks what it built" pull_with_buildah "$1"
}
