# shellcheck shell=bash
# podman: an import, a build, a manifest list of its own, layers in zstd. Sourced by scripts/test-clients.

# Its run folder may have 50 characters at most.
podman_() {
  podman --root "$work/podman/root" --runroot "$work/p" --tmpdir "$work/podman/tmp" --storage-driver vfs \
    --cgroup-manager cgroupfs --events-backend none "$@"
}

# podman_push REPOSITORY:TAG IMAGE [OPTION…]: notes the digest that podman itself names.
podman_push() {
  local to=$1 image=$2
  shift 2
  podman_ push --quiet --signature-policy "$policy" --tls-verify="$verify" --digestfile "$work/podman-digest" "$@" "$image" "docker://$primary/$to"
  expect "${to%:*}" "${to#*:}" "$(cat "$work/podman-digest")"
}

push_an_import_with_podman() {
  tar_of_a_file "imported by podman" | podman_ import --quiet - podman-imported
  podman_push podman/imported:1 podman-imported
}

push_a_build_with_podman() {
  mkdir -p "$work/podman-context"
  echo "built by podman" >"$work/podman-context/built"
  printf 'FROM localhost/podman-imported\nCOPY built /built\n' >"$work/podman-context/Containerfile"
  podman_ build --quiet --isolation chroot --signature-policy "$policy" --tag podman-built "$work/podman-context"
  podman_push podman/built:1 podman-built
}

# A layer of its own: one that the registry has in gzip would be mounted from there.
push_zstd_layers_with_podman() {
  tar_of_a_file "in zstd by podman" | podman_ import --quiet - podman-zstd
  podman_push podman/zstd:1 podman-zstd --format oci --compression-format zstd
  manifest_at "$primary" podman/zstd 1 | jq -e '.layers[0].mediaType | endswith("+zstd")'
}

push_a_manifest_list_with_podman() {
  podman_ manifest create podman-list
  podman_ manifest add --arch amd64 podman-list containers-storage:localhost/podman-imported
  podman_ manifest add --arch arm64 podman-list containers-storage:localhost/podman-built
  podman_ manifest push --all --format v2s2 --tls-verify="$verify" --digestfile "$work/podman-digest" podman-list "docker://$primary/podman/list:1"
  expect podman/list 1 "$(cat "$work/podman-digest")"
  manifest_at "$primary" podman/list 1 | jq -e '.mediaType == "application/vnd.docker.distribution.manifest.list.v2+json"'
}

# pull_with_podman HOST REPOSITORY FILE TEXT: the digest that was pushed, and a file of the image as podman unpacked it.
pull_with_podman() {
  local image container
  image=$1/$2@$(expected_digest "$2" 1)
  podman_ pull --quiet --signature-policy "$policy" --tls-verify="$verify" "docker://$image"
  container=$(podman_ create "$image" none)
  podman_ cp "$container:/$3" "$work/podman-file"
  [ "$(cat "$work/podman-file")" = "$4" ] || { echo "$3 says '$(cat "$work/podman-file")', expected '$4'"; return 1; }
  podman_ rm "$container"
}

podman_push_all() {
  rooted podman "podman imports and pushes" push_an_import_with_podman
  rooted podman "podman builds and pushes" push_a_build_with_podman
  rooted podman "podman pushes layers in zstd" push_zstd_layers_with_podman
  rooted podman "podman pushes a manifest list" push_a_manifest_list_with_podman
}

podman_pull_all() {
  ! have podman || [ "$(id -u)" != 0 ] || podman_ rmi --all --force >/dev/null 2>&1 || true
  rooted podman "podman pulls its build by digest" pull_with_podman "$1" podman/built built "built by podman"
  rooted podman "podman pulls layers in zstd" pull_with_podman "$1" podman/zstd greeting "in zstd by podman"
}
