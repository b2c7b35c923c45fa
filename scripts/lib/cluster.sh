# shellcheck shell=bash
# Sites of several nodes behind a balancer that sends every request to the next node, for scripts. Sourced, never run.
# They end with the script, however that ends: each holds a pipe that the kernel closes.

# build_cluster_program: sets cluster_program, to TWINPORT_CLUSTER where that is one.
build_cluster_program() {
  cluster_program=${TWINPORT_CLUSTER:-}
  [ -z "$cluster_program" ] || return 0
  (cd "$root" && cargo build --workspace --locked --bin twinport-cluster >&2) || return 1
  cluster_program=$(target_dir)/debug/twinport-cluster
}

cluster_ready_or_ended() { [ -s "$cluster_out" ] || gone "$cluster_pid"; }

# start_cluster TWINPORT FOLDER NAME NODES DATABASE-URL STORE: STORE is directory, or bucket or
# redirecting-bucket (of a MinIO of its own). Sets cluster_address (HOST:PORT), cluster_pid, and cluster_pids, its
# nodes' and its own. The data directories are FOLDER/NAME-1 and so on.
start_cluster() {
  local folder=$2 name=$3
  cluster_out=$folder/$name.cluster
  mkfifo "$folder/$name.pipe"
  "$cluster_program" "$1" "$folder" "$name" "$4" "$5" "$6" <"$folder/$name.pipe" >"$cluster_out" 2>"$folder/$name.err" &
  cluster_pid=$!
  # Held open until this shell ends.
  # shellcheck disable=SC2034
  exec {cluster_input}>"$folder/$name.pipe"
  eventually 120 cluster_ready_or_ended || true
  if ! jq -e .url "$cluster_out" >/dev/null 2>&1; then
    tail -n 20 "$folder/$name.err"
    return 1
  fi
  cluster_address=$(jq -r '.url | sub("^http://"; "")' "$cluster_out")
  mapfile -t cluster_pids < <(jq -r '.nodes[].pid' "$cluster_out")
  cluster_pids+=("$cluster_pid")
}

# each_push_was_spread FOLDER NAME: no repository was pushed to through one node alone, and some uploads had several nodes,
# as the nodes' own logs say.
each_push_was_spread() {
  local lines lonely uploads
  lines=$(cd "$1" && grep -o 'method=\(POST\|PATCH\|PUT\) path=/v2/[^ ]*' "$2"-[0-9]*.log | sed 's|^\([^:]*\):.*path=/v2/|\1 |')
  lonely=$(sed 's|/\(blobs/uploads\|manifests\)/[^ ]*$||' <<<"$lines" | sort | uniq -c \
    | awk '{requests[$3] += $1; nodes[$3]++} END {for (r in nodes) if (nodes[r] < 2 && requests[r] > 2) print r}')
  [ -z "$lonely" ] || { echo "repositories that one node had alone: $lonely"; return 1; }
  uploads=$(grep -o '^[^ ]* .*/blobs/uploads/[^/ ]\{20,\}$' <<<"$lines" | sort -u | awk '{nodes[$2]++} END {for (u in nodes) if (nodes[u] > 1) n++; print n + 0}')
  [ "$uploads" -gt 0 ] || { echo "no upload had several nodes"; return 1; }
}
