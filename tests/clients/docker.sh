# shellcheck shell=bash
# Docker with a daemon that makes no bridge: an import, a build by its own builder, a manifest list, a plugin. Sourced by
# scripts/test-clients. Its daemon takes any certificate on loopback.

docker_() { docker --host "unix://$work/docker/socket" "$@"; }

start_dockerd() {
  [ "$(id -u)" = 0 ] && have dockerd && have docker || return 0
  rm -rf "$work/docker"
  mkdir -p "$work/docker"
  echo '{}' >"$work/docker/daemon.json"
  start_daemon dockerd dockerd --config-file "$work/docker/daemon.json" --storage-driver=vfs --iptables=false --ip6tables=false \
    --ip-masq=false --bridge=none --data-root "$work/docker/data" --exec-root "$work/docker/exec" --pidfile "$work/docker/pid" \
    --host "unix://$work/docker/socket" --insecure-registry 127.0.0.0/8
}

dockerd_answers() { eventually 60 docker_ version || { tail -n 15 "$work/dockerd.log"; return 1; }; }

# docker_push REPOSITORY:TAG: what is tagged so for the primary; docker's own word for the digest is its last line.
docker_push() {
  local digest
  digest=$(docker_ push "$primary/$1" | sed -n 's/.* digest: \(sha256:[0-9a-f]*\) .*/\1/p')
  expect "${1%:*}" "${1#*:}" "$digest"
}

push_an_import_with_docker() {
  tar_of_a_file "imported by docker" | docker_ import --change 'CMD ["none"]' - "$primary/docker/imported:1"
  docker_push docker/imported:1
  manifest_at "$primary" docker/imported 1 | jq -e '.mediaType == "application/vnd.docker.distribution.manifest.v2+json"'
}

push_a_build_with_docker() {
  mkdir -p "$work/docker-context"
  echo "built by docker" >"$work/docker-context/built"
  printf 'FROM %s/docker/imported:1\nCOPY built /built\n' "$primary" >"$work/docker-context/Dockerfile"
  DOCKER_BUILDKIT=0 docker_ build --quiet --tag "$primary/docker/built:1" "$work/docker-context"
  docker_push docker/built:1
}

# In clear alone: over TLS `docker manifest` mounts blobs by HTTP all the same when the registry is on loopback.
push_a_manifest_list_with_docker() {
  local digest
  docker_ manifest create --insecure "$primary/docker/list:1" "$primary/docker/imported:1" "$primary/docker/built:1"
  docker_ manifest annotate --arch arm64 "$primary/docker/list:1" "$primary/docker/built:1"
  digest=$(docker_ manifest push --insecure "$primary/docker/list:1" | tail -n 1)
  expect docker/list 1 "$digest"
}

# Its config is of a media type that nothing else has.
push_a_plugin_with_docker() {
  mkdir -p "$work/docker-plugin/rootfs"
  echo "a plugin" >"$work/docker-plugin/rootfs/plugin"
  cat >"$work/docker-plugin/config.json" <<'JSON'
{"description": "none", "entrypoint": ["/plugin"], "interface": {"types": ["docker.logdriver/1.0"], "socket": "plugin.sock"}, "network": {"type": "none"}}
JSON
  docker_ plugin create "$primary/docker/plugin:1" "$work/docker-plugin"
  docker_ plugin push "$primary/docker/plugin:1"
  expect_named "$primary" docker/plugin 1
}

# pull_with_docker HOST REPOSITORY FILE TEXT
pull_with_docker() {
  local image=$1/$2:1 container digest
  digest=$(expected_digest "$2" 1)
  docker_ pull "$image"
  docker_ image inspect "$image" | jq -e --arg d "$1/$2@$digest" '.[0].RepoDigests | index($d)'
  container=$(docker_ create --network none "$image" none)
  docker_ cp "$container:/$3" "$work/docker-file"
  [ "$(cat "$work/docker-file")" = "$4" ] || { echo "$3 says '$(cat "$work/docker-file")', expected '$4'"; return 1; }
  docker_ rm "$container"
}

pull_by_digest_with_docker() {
  docker_ pull "$1/$2@$(expected_digest "$2" 1)"
}

docker_push_all() {
  start_dockerd
  rooted dockerd "docker's daemon answers" dockerd_answers
  rooted dockerd "docker imports and pushes" push_an_import_with_docker
  rooted dockerd "docker builds and pushes" push_a_build_with_docker
  [ "$scheme" = https ] || rooted dockerd "docker pushes a manifest list" push_a_manifest_list_with_docker
  rooted dockerd "docker pushes a plugin" push_a_plugin_with_docker
}

docker_pull_all() {
  [ "$(id -u)" != 0 ] || ! have dockerd || docker_ images --quiet | sort -u | xargs -r docker --host "unix://$work/docker/socket" rmi --force >/dev/null 2>&1 || true
  rooted dockerd "docker pulls its build" pull_with_docker "$1" docker/built built "built by docker"
  rooted dockerd "docker pulls its import by digest" pull_by_digest_with_docker "$1" docker/imported
  [ "$scheme" = https ] || rooted dockerd "docker pulls a manifest list by digest" pull_by_digest_with_docker "$1" docker/list
}
