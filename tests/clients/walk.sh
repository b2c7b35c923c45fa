# shellcheck shell=bash
# Reads an image with nothing but curl and hashes every byte of it. Sourced by scripts/test-clients.
# A client may skip what it thinks it has; this does not.

any_manifest=(-H "Accept: application/vnd.oci.image.index.v1+json" -H "Accept: application/vnd.oci.image.manifest.v1+json"
  -H "Accept: application/vnd.docker.distribution.manifest.list.v2+json"
  -H "Accept: application/vnd.docker.distribution.manifest.v2+json")

# walk HOST REPOSITORY REFERENCE DIGEST: the whole closure at HOST, each manifest and blob against its digest and size.
# Prints one line `manifests blobs bytes`.
walk() {
  local folder status=0
  folder=$(mktemp -d "$work/walk.XXXXXX")
  : >"$folder/seen"
  walk_manifest "$1" "$2" "$3" "$4" "$folder" || status=$?
  awk '{ n[$1]++; bytes += $3 } END { printf "%d manifests %d blobs %d bytes\n", n["manifest"], n["blob"], bytes }' "$folder/seen"
  rm -rf "$folder"
  return $status
}

walk_manifest() {
  local host=$1 repository=$2 reference=$3 digest=$4 folder=$5 file named child size
  file=$folder/${digest#*:}
  curl -fsS --max-time 60 "${any_manifest[@]}" -D "$file.head" -o "$file" "$scheme://$host/v2/$repository/manifests/$reference" || {
    echo "$repository: no manifest $reference at $host" >&2
    return 1
  }
  cp "$file" "$file.payload"
  ! jq -e 'has("signatures")' "$file" >/dev/null || schema_1_payload "$file" >"$file.payload"
  same_digest "$file.payload" "$digest" "manifest $repository:$reference" || return 1
  named=$(tr -d '\r' <"$file.head" | awk -F': ' 'tolower($1) == "docker-content-digest" { print $2 }')
  [ "$named" = "$digest" ] || { echo "$repository:$reference: the header names $named, expected $digest" >&2; return 1; }
  echo "manifest $digest $(stat -c %s "$file")" >>"$folder/seen"
  # Into files: a process substitution would hide what jq says no to.
  jq -r "$children_of" "$file" >"$file.children" && jq -r "$blobs_of" "$file" >"$file.blobs" || return 1
  while read -r child; do
    grep -q "^manifest $child " "$folder/seen" || walk_manifest "$host" "$repository" "$child" "$child" "$folder" || return 1
  done <"$file.children"
  while read -r child size; do
    grep -q "^blob $child " "$folder/seen" || walk_blob "$host" "$repository" "$child" "$size" "$folder" || return 1
  done <"$file.blobs"
}

# An index may list blobs: BuildKit's cache does.
names_a_blob='(.mediaType // "" | test("^application/vnd\\.(oci\\.image\\.(layer|config)|docker\\.(image\\.rootfs|container\\.image)|buildkit\\.cacheconfig)\\."))'

# What has `urls` is elsewhere.
children_of=".manifests[]? | select(($names_a_blob or .urls) | not) | .digest"

# Config, layers, the blobs of an artifact manifest, schema 1's layers (without sizes), and what an index lists. The bytes
# of foreign layers are elsewhere too.
is_foreign='(.mediaType // "" | test("nondistributable|\\.foreign\\.")) and .urls'
blobs_of="((.config // empty), (.layers, .blobs | .[]?), (.manifests[]? | select($names_a_blob)) | select($is_foreign | not) | \"\(.digest) \(.size)\"),
  (.fsLayers[]? | \"\(.blobSum) -\")"

# What the digest of a signed schema 1 manifest is over: the first formatLength bytes, then formatTail. Nothing of
# Twinport's has a part in it.
schema_1_payload() {
  local protected
  protected=$(jq -r '.signatures[0].protected' "$1" | from_base64url)
  head -c "$(jq -r .formatLength <<<"$protected")" "$1"
  jq -r .formatTail <<<"$protected" | from_base64url
}

from_base64url() {
  local text
  read -r text
  text=$(tr -- -_ +/ <<<"$text")
  while [ $((${#text} % 4)) != 0 ]; do text+='='; done
  base64 -d <<<"$text"
}

walk_blob() {
  local host=$1 repository=$2 digest=$3 size=$4 folder=$5 file=$5/blob
  curl -fsS --max-time 300 -L -o "$file" "$scheme://$host/v2/$repository/blobs/$digest" || {
    echo "$repository: no blob $digest at $host" >&2
    return 1
  }
  same_digest "$file" "$digest" "blob of $repository" || return 1
  [ "$size" = - ] || [ "$(stat -c %s "$file")" = "$size" ] || { echo "$repository: $digest is not $size bytes" >&2; return 1; }
  echo "blob $digest $(stat -c %s "$file")" >>"$folder/seen"
}

# By the algorithm that the expected digest names.
same_digest() {
  local actual
  actual=${2%%:*}:$("${2%%:*}sum" "$1" | cut -d' ' -f1)
  [ "$actual" = "$2" ] || { echo "$3: bytes hash to $actual, expected $2" >&2; return 1; }
}

# named_digest HOST REPOSITORY REFERENCE: what HEAD answers with.
named_digest() {
  curl -fsS --max-time 20 -I "${any_manifest[@]}" "$scheme://$1/v2/$2/manifests/$3" | tr -d '\r' \
    | awk -F': ' 'tolower($1) == "docker-content-digest" { print $2 }'
}

names_digest() { [ "$(named_digest "$1" "$2" "$3")" = "$4" ]; }

# answers STATUS URL
answers() { [ "$(curl -s --max-time 20 -o /dev/null -w '%{http_code}' "${any_manifest[@]}" "$2")" = "$1" ]; }

# referrers HOST REPOSITORY DIGEST: the digests that name it as their subject, sorted.
referrers() { curl -fsS --max-time 20 "$scheme://$1/v2/$2/referrers/$3" | jq -r '.manifests[].digest' | sort; }

# whole_layout FOLDER DIGEST: every blob of an OCI layout hashes to its name, and the digest is among them.
whole_layout() {
  local file hex
  for file in "$1"/blobs/sha256/*; do
    hex=$(sha256sum "$file" | cut -d' ' -f1)
    [ "$hex" = "$(basename "$file")" ] || { echo "$file hashes to $hex" >&2; return 1; }
  done
  [ -f "$1/blobs/sha256/${2#sha256:}" ] || { echo "$1 has no $2" >&2; return 1; }
}

# whole_folder FOLDER DIGEST: the same for skopeo's `dir:` form.
whole_folder() {
  local file
  same_digest "$1/manifest.json" "$2" manifest || return 1
  for file in "$1"/*; do
    case $(basename "$file") in
      manifest.json | version | *.manifest.json) ;;
      *) same_digest "$file" "sha256:$(basename "$file")" blob || return 1 ;;
    esac
  done
}

# manifest_at HOST REPOSITORY REFERENCE: its bytes.
manifest_at() { curl -fsS --max-time 60 "${any_manifest[@]}" "$scheme://$1/v2/$2/manifests/$3"; }
