# shellcheck shell=bash
# How scripts/bench starts each server on loopback. Sourced, never run.
#
# start_NAME PORT: in the background, with $work/data as its only data folder, its log in $work/server.log and a line per
# request in it, as operators run them; $! is the server itself. Every row without `default` in its name syncs what it
# acknowledges as far as that server can be told to.

title_of() {
  case $1 in
    twinport) echo "Twinport" ;;
    twinport-postgres) echo "Twinport on PostgreSQL" ;;
    twinport-bucket) echo "Twinport in a bucket" ;;
    twinport-bucket-redirects) echo "Twinport in a bucket, redirects" ;;
    distribution) echo "Distribution ${distribution_module#*@v}" ;;
    distribution-bucket) echo "Distribution ${distribution_module#*@v} in a bucket" ;;
    distribution-bucket-redirects) echo "Distribution ${distribution_module#*@v} in a bucket, redirects" ;;
    zot) echo "zot, commit on" ;;
    zot-default) echo "zot, default (no sync)" ;;
    angos) echo "angos, sync on" ;;
    angos-default) echo "angos, default (no sync)" ;;
  esac
}

start_twinport() {
  "$twinport" serve --data "$work/data" --addr "127.0.0.1:$1" >"$work/server.log" 2>&1 </dev/null &
}

start_twinport-postgres() { run_twinport "$1" "filesystem: {rootdirectory: \"$work/data/blobs\"}"; }
start_twinport-bucket() { run_twinport "$1" "$(bucket_keys), redirect: {disable: true}"; }
start_twinport-bucket-redirects() { run_twinport "$1" "$(bucket_keys)"; }

# run_twinport PORT STORAGE. Its database is one of its own on the server of scripts/with-postgres; see new_database.
run_twinport() {
  local address=${TWINPORT_TEST_POSTGRES#*@}
  address=${address%/*}
  cat >"$work/twinport.yml" <<YAML
version: 0.1
http: {addr: "127.0.0.1:$1"}
storage: {$2, delete: {enabled: true}}
database: {enabled: true, host: "${address%:*}", port: ${address##*:}, user: postgres, dbname: bench}
YAML
  "$twinport" serve --config "$work/twinport.yml" --data "$work/data" >"$work/server.log" 2>&1 </dev/null &
}

# The one bucket of this run's MinIO; each start has a prefix of its own, and both registries the same keys.
bucket_keys() {
  echo "s3: {bucket: layers, region: us-east-1, regionendpoint: \"http://$minio_address\", forcepathstyle: true, secure: false," \
    "accesskey: benching, secretkey: benching-secret, rootdirectory: /$bucket_prefix}"
}

# Sets minio_address and minio.
start_minio() {
  local port
  mkdir -p "$work/minio/layers"
  for _ in 1 2 3; do
    port=$(free_port)
    minio_address=127.0.0.1:$port
    MINIO_ROOT_USER=benching MINIO_ROOT_PASSWORD=benching-secret MINIO_UPDATE=off MINIO_BROWSER=off \
      minio server --quiet --address "$minio_address" "$work/minio" >"$work/minio.log" 2>&1 </dev/null &
    minio=$!
    eventually 60 minio_answers_or_ended || true
    gone "$minio" || return 0
  done
  tail -n 20 "$work/minio.log" >&2
  return 1
}

# Any answer to a request without credentials is one of a server that is up; it says 503 before it is.
minio_answers_or_ended() { [ "$(curl -s -o /dev/null -w '%{http_code}' "http://$minio_address/layers")" = 403 ] || gone "$minio"; }

new_database() {
  "$TWINPORT_TEST_POSTGRES_BIN/psql" -qX -v ON_ERROR_STOP=1 "$TWINPORT_TEST_POSTGRES" >/dev/null \
    -c 'SET client_min_messages = error' -c 'DROP DATABASE IF EXISTS bench WITH (FORCE)' -c 'CREATE DATABASE bench' -c 'CHECKPOINT'
}

start_distribution() { run_distribution "$1" "filesystem: {rootdirectory: $work/data}"; }
start_distribution-bucket() { run_distribution "$1" "$(bucket_keys), redirect: {disable: true}"; }
start_distribution-bucket-redirects() { run_distribution "$1" "$(bucket_keys)"; }

run_distribution() {
  cat >"$work/distribution.yml" <<YAML
version: 0.1
log: {level: error}
storage: {$2, delete: {enabled: true}}
http: {addr: 127.0.0.1:$1}
YAML
  OTEL_TRACES_EXPORTER=none "$tools/registry" serve "$work/distribution.yml" >"$work/server.log" 2>&1 </dev/null &
}

start_zot() { run_zot "$1" true; }
start_zot-default() { run_zot "$1" false; }

run_zot() {
  cat >"$work/zot.json" <<JSON
{"distSpecVersion": "1.1.1", "storage": {"rootDirectory": "$work/data", "commit": $2},
 "http": {"address": "127.0.0.1", "port": "$1"}, "log": {"level": "info"}}
JSON
  "${peers[zot]}" serve "$work/zot.json" >"$work/server.log" 2>&1 </dev/null &
}

start_angos() { run_angos "$1" true; }
start_angos-default() { run_angos "$1" false; }

# It serves repositories below the first words that it is told of: bench/….
run_angos() {
  cat >"$work/angos.toml" <<TOML
[server]
bind_address = "127.0.0.1"
port = $1
[global.access_policy]
default = "allow"
[repository."bench"]
[blob_store.fs]
root_dir = "$work/data"
sync_to_disk = $2
[metadata_store.fs]
root_dir = "$work/data"
sync_to_disk = $2
TOML
  "${peers[angos]}" -c "$work/angos.toml" server >"$work/server.log" 2>&1 </dev/null &
}
