# shellcheck shell=bash
# Docker schema 1, signed and unsigned. Debian's docker-registry 2.8 is the reference: the last registry that takes it, with
# a setting. Sourced by scripts/test-clients.

schema1_type=application/vnd.docker.distribution.manifest.v1+json
schema1_signed_type=application/vnd.docker.distribution.manifest.v1+prettyjws

# start_docker_registry: on a port of its own; sets reference_registry.
reference_registry=''
start_docker_registry() {
  local port
  have docker-registry || return 0
  port=$(free_port)
  mkdir -p "$work/reference"
  cat >"$work/reference/config.yml" <<YAML
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: "$work/reference/data"}}
http: {addr: "127.0.0.1:$port"}
compatibility: {schema1: {enabled: true}}
YAML
  start_daemon docker-registry docker-registry serve "$work/reference/config.yml"
  reference_registry=127.0.0.1:$port
}

reference_answers() { eventually 60 curl -fsS "http://$reference_registry/v2/" || { tail -n 15 "$work/docker-registry.log"; return 1; }; }

# In clear: the reference speaks nothing else.
skopeo_to_reference() { skopeo_ copy --format v2s1 --dest-tls-verify=false "oci:$1" "docker://$reference_registry/$2"; }

push_schema_1_with_skopeo() {
  skopeo_ copy --format v2s1 --dest-tls-verify="$verify" "oci:$debian:bookworm" "docker://$1/schema1/debian:1"
  expect_named "$1" schema1/debian 1
  manifest_at "$1" schema1/debian 1 | jq -e '.schemaVersion == 1 and (.signatures | length == 1)'
}

# The name and the tag are part of the document: pushed under the same ones, it has the same digest.
schema_1_has_the_digest_that_docker_registry_gives() {
  skopeo_to_reference "$debian:bookworm" schema1/debian:1
  [ "$(scheme=http named_digest "$reference_registry" schema1/debian 1)" = "$(expected_digest schema1/debian 1)" ]
}

# put_manifest HOST REPOSITORY REFERENCE TYPE FILE: prints the digest that is answered.
put_manifest() {
  curl -fsS --max-time 60 -D - -o /dev/null -X PUT -H "Content-Type: $4" --data-binary "@$5" "$scheme://$1/v2/$2/manifests/$3" | tr -d '\r' \
    | awk -F': ' 'tolower($1) == "docker-content-digest" { print $2 }'
}

# put_blob HOST REPOSITORY FILE: prints its digest.
put_blob() {
  local digest
  digest=sha256:$(sha256sum "$3" | cut -d' ' -f1)
  curl -fsS --max-time 60 -o /dev/null -X POST -H 'Content-Type: application/octet-stream' --data-binary "@$3" "$scheme://$1/v2/$2/blobs/uploads/?digest=$digest"
  echo "$digest"
}

# What docker-registry signed with its own key and serves, pushed byte for byte.
push_what_docker_registry_signed() {
  local layer digest file=$work/reference/signed.json
  skopeo_to_reference "$work/single:only" schema1/signed:1
  scheme=http manifest_at "$reference_registry" schema1/signed 1 >"$file"
  for layer in $(jq -r '.fsLayers[].blobSum' "$file" | sort -u); do
    curl -fsS -o "$work/reference/layer" "http://$reference_registry/v2/schema1/signed/blobs/$layer"
    put_blob "$1" schema1/signed "$work/reference/layer"
  done
  digest=$(put_manifest "$1" schema1/signed 1 $schema1_signed_type "$file")
  [ "$digest" = "$(scheme=http named_digest "$reference_registry" schema1/signed 1)" ]
  expect schema1/signed 1 "$digest"
}

# No client writes it without a signature any more: the same document, by curl, as Docker 1.3 and Quay had them.
push_unsigned_schema_1_with_curl() {
  local layer file=$work/unsigned.json
  tar_of_a_file "schema 1" | gzip -n >"$work/schema1.tar.gz"
  layer=$(put_blob "$1" schema1/unsigned "$work/schema1.tar.gz")
  jq --indent 3 -n --arg l "$layer" '{schemaVersion: 1, name: "schema1/unsigned", tag: "1", architecture: "amd64", fsLayers: [{blobSum: $l}],
    history: [{v1Compatibility: ({id: "6f5c8d2bfa1e4a50ad5a1b4b7f1c0a3fb35a5b1b0a1d5d2f7c7f0c7f0d0a1b2c", os: "linux", architecture: "amd64"} | tojson)}]}' >"$file"
  [ "$(put_manifest "$1" schema1/unsigned 1 $schema1_type "$file")" = "sha256:$(sha256sum "$file" | cut -d' ' -f1)" ]
  expect_named "$1" schema1/unsigned 1
}

# The digest leaves the signatures out, so the bytes are compared as well; the type is the one that was sent.
schema_1_comes_back_verbatim() {
  local name file type head=$work/schema1.head
  for name in signed unsigned; do
    case $name in
      signed) file=$work/reference/signed.json type=$schema1_signed_type ;;
      unsigned) file=$work/unsigned.json type=$schema1_type ;;
    esac
    [ -f "$file" ] || continue
    curl -fsS "${any_manifest[@]}" -D "$head" -o "$work/schema1.json" "$scheme://$1/v2/schema1/$name/manifests/1"
    cmp "$file" "$work/schema1.json"
    tr -d '\r' <"$head" | grep -qix "content-type: $type"
  done
}

pull_schema_1_with_skopeo() {
  rm -rf "$work/pulled"
  skopeo_ copy --preserve-digests --src-tls-verify="$verify" "docker://$1/schema1/debian:1" "dir:$work/pulled"
  schema_1_payload "$work/pulled/manifest.json" >"$work/schema1.payload"
  same_digest "$work/schema1.payload" "$(expected_digest schema1/debian 1)" "schema 1"
}

schema1_push_all() {
  start_docker_registry
  client skopeo "skopeo pushes schema 1" push_schema_1_with_skopeo "$1"
  client docker-registry "docker-registry 2.8 answers" reference_answers
  client docker-registry "schema 1 has the digest that docker-registry 2.8 gives" schema_1_has_the_digest_that_docker_registry_gives
  client docker-registry "what docker-registry 2.8 signed is pushed" push_what_docker_registry_signed "$1"
  client curl "schema 1 without a signature is pushed" push_unsigned_schema_1_with_curl "$1"
  client curl "schema 1 comes back from the primary byte for byte" schema_1_comes_back_verbatim "$1"
}

schema1_pull_all() {
  client skopeo "skopeo pulls schema 1" pull_schema_1_with_skopeo "$1"
  client curl "schema 1 comes back from the secondary byte for byte" schema_1_comes_back_verbatim "$1"
}
