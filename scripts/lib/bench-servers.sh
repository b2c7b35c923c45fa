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
    distribution) echo "Distribution ${distribution_module#*@v}" ;;
    zot) echo "zot, commit on" ;;
    zot-default) echo "zot, default (no sync)" ;;
    angos) echo "angos, sync on" ;;
    angos-default) echo "angos, default (no sync)" ;;
  esac
}

start_twinport() {
  "$twinport" serve --data "$work/data" --addr "127.0.0.1:$1" >"$work/server.log" 2>&1 </dev/null &
}

# Its database is one of its own on the server of scripts/with-postgres; see new_database.
start_twinport-postgres() {
  local address=${TWINPORT_TEST_POSTGRES#*@}
  address=${address%/*}
  cat >"$work/twinport.yml" <<YAML
version: 0.1
http: {addr: "127.0.0.1:$1"}
storage: {filesystem: {rootdirectory: "$work/data/blobs"}, delete: {enabled: true}}
database: {enabled: true, host: "${address%:*}", port: ${address##*:}, user: postgres, dbname: bench}
YAML
  "$twinport" serve --config "$work/twinport.yml" --data "$work/data" >"$work/server.log" 2>&1 </dev/null &
}

new_database() {
  "$TWINPORT_TEST_POSTGRES_BIN/psql" -qX -v ON_ERROR_STOP=1 "$TWINPORT_TEST_POSTGRES" >/dev/null \
    -c 'SET client_min_messages = error' -c 'DROP DATABASE IF EXISTS bench WITH (FORCE)' -c 'CREATE DATABASE bench' -c 'CHECKPOINT'
}

start_distribution() {
  cat >"$work/distribution.yml" <<YAML
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: $work/data}, delete: {enabled: true}}
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
