# shellcheck shell=bash
# A pair of sites, paris (primary) and tokyo (secondary), from `twinport demo` or from two servers joined by hand.
# Sourced by scripts/test-clients. Sets primary, secondary (HOST:PORT), primary_pid, secondary_pid; stop_pair ends all.

demo_pid='' primary='' secondary='' primary_pid='' secondary_pid='' primary_nodes=()

# Processes of ours that are to be gone after stop_pair.
pair_pids=()

show_logs() { tail -n 20 "$pair"/*.err 2>/dev/null || true; }

serves() { answers 200 "$scheme://$1/readyz"; }

serves_or_ended() { serves "$1" || gone "$2"; }

# A whole line: the demo may be in the middle of writing it.
demo_line() {
  local line
  read -r line <"$pair/demo.out" && jq -e '.sites | length == 2' <<<"$line" >/dev/null
}
demo_line_or_ended() { demo_line || gone "$demo_pid"; }

start_demo_pair() {
  local line role
  primary_nodes=()
  pair=$work/pair-demo
  mkdir -p "$pair"
  "$twinport" demo --output json --dir "$pair/sites" >"$pair/demo.out" 2>"$pair/demo.err" </dev/null &
  demo_pid=$!
  pair_pids=("$demo_pid")
  eventually 120 demo_line_or_ended || true
  demo_line || { show_logs; return 1; }
  line=$(head -n 1 "$pair/demo.out")
  [ "$(jq -r .verified <<<"$line")" = true ] || { echo "the demo's line does not say verified: $line"; return 1; }
  for role in primary secondary; do
    read -r "$role" "${role}_pid" < <(jq -r --arg r $role '.sites[] | select(.role == $r) | "\(.url | sub("^http://"; "") | rtrimstr("/")) \(.pid)"' <<<"$line")
  done
  pair_pids+=("$primary_pid" "$secondary_pid")
}

# write_config SITE PORT DATABASE: `sqlite` needs no database section.
write_config() {
  local site=$1 port=$2 database=$3 user host dbport rest
  cat >"$pair/$site.yml" <<YAML
version: 0.1
http:
  addr: 127.0.0.1:$port
storage:
  filesystem:
    rootdirectory: $pair/$site/blobs
  delete:
    enabled: true
geo:
  site: $site
YAML
  [ "$scheme" = http ] || sed -i "s|^http:|&\n  tls: {certificate: $work/tls/tls.crt, key: $work/tls/tls.key}|" "$pair/$site.yml"
  [ "$database" = postgresql ] || return 0
  # postgres://USER@HOST:PORT/DATABASE, as scripts/with-postgres makes it.
  rest=${TWINPORT_TEST_POSTGRES#*://}
  user=${rest%%@*}
  rest=${rest#*@}
  host=${rest%%:*}
  dbport=${rest#*:}
  dbport=${dbport%%/*}
  cat >>"$pair/$site.yml" <<YAML
database:
  enabled: true
  host: $host
  port: $dbport
  dbname: $(new_database "$site")
  user: ${user%%:*}
  password: unused-under-trust
YAML
}

new_database() {
  local name=clients_${1}_$$_$RANDOM
  psql -q -d "$TWINPORT_TEST_POSTGRES" -c "CREATE DATABASE $name" >/dev/null || return 1
  echo "$name"
}

# start_nodes SITE: a site of $nodes nodes on PostgreSQL; admin commands go to the first of them.
start_nodes() {
  local site=$1 database
  database=${TWINPORT_TEST_POSTGRES%/*}/$(new_database "$site") || return 1
  start_cluster "$twinport" "$pair" "$site" "$nodes" "$database" "$store" || return 1
  ln -s "$site-1" "$pair/$site"
  site_address=$cluster_address site_pid=$cluster_pid
  pair_pids+=("${cluster_pids[@]}")
}

# start_site SITE DATABASE: sets site_address and site_pid.
start_site() {
  local site=$1 database=$2 port
  cluster_pids=()
  if [ "$database" = postgresql ] && [ "${nodes:-1}" -gt 1 ]; then
    start_nodes "$site"
    return
  fi
  mkdir -p "$pair/$site"
  for _ in 1 2 3; do
    port=$(free_port)
    write_config "$site" "$port" "$database" || return 1
    "$twinport" serve --config "$pair/$site.yml" --data "$pair/$site" >"$pair/$site.out" 2>"$pair/$site.err" </dev/null &
    site_pid=$!
    pair_pids+=("$site_pid")
    site_address=127.0.0.1:$port
    eventually 30 serves_or_ended "$site_address" "$site_pid" || true
    if ! gone "$site_pid" && serves "$site_address"; then return 0; fi
    stop "$site_pid"
  done
  show_logs
  return 1
}

start_served_pair() {
  local token
  pair=$work/pair-$where
  mkdir -p "$pair"
  start_site paris "$1" || return 1
  primary=$site_address primary_pid=$site_pid primary_nodes=("${cluster_pids[@]}")
  start_site tokyo "$2" || return 1
  secondary=$site_address secondary_pid=$site_pid
  token=$("$twinport" site add tokyo --as paris --url "$scheme://$primary" --data "$pair/paris" --output json 2>"$pair/add.err" \
    | jq -er .token) || { show_logs; return 1; }
  "$twinport" site join --token "$token" --data "$pair/tokyo" >"$pair/join.out" 2>"$pair/join.err" || { show_logs; return 1; }
}

kill_primary() {
  local pid
  ! gone "$primary_pid" || return 1
  for pid in "$primary_pid" "${primary_nodes[@]}"; do
    gone "$pid" || kill -s KILL "$pid" 2>/dev/null || true
    eventually 10 gone "$pid" || return 1
  done
  ! answers 200 "$scheme://$primary/v2/"
}

stop_pair() {
  local pid
  if [ -n "$demo_pid" ]; then
    # Ctrl-C is how a demo ends; its sites end with it.
    kill -s INT "$demo_pid" 2>/dev/null || true
    eventually 20 gone "$demo_pid" || true
  else
    for pid in "${pair_pids[@]}"; do kill -s TERM "$pid" 2>/dev/null || true; done
  fi
}

# Nothing of the pair lives or listens.
pair_is_gone() {
  local pid
  for pid in "${pair_pids[@]}"; do
    eventually 20 gone "$pid" || { echo "process $pid still runs"; return 1; }
  done
  ! answers 200 "$scheme://$primary/v2/" && ! answers 200 "$scheme://$secondary/v2/"
}

kill_what_is_left() {
  local pid
  # A demo that is killed hard leaves its sites behind: it is asked first.
  [ -z "$demo_pid" ] || stop "$demo_pid" INT
  for pid in "${pair_pids[@]}"; do gone "$pid" || kill -s KILL "$pid" 2>/dev/null || true; done
  pair_pids=() demo_pid=''
}
