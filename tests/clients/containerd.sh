# shellcheck shell=bash
# containerd: pushes an index, and pulls from the primary's name while a hosts.toml sends it to the secondary. Sourced by
# scripts/test-clients.

ctr_() { ctr --address "$work/containerd/socket" "$@"; }

start_containerd() {
  [ "$(id -u)" = 0 ] && have containerd && have ctr || return 0
  mkdir -p "$work/containerd"
  cat >"$work/containerd/config.toml" <<TOML
version = 2
root = "$work/containerd/root"
state = "$work/containerd/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "$work/containerd/socket"
[ttrpc]
  address = "$work/containerd/socket.ttrpc"
TOML
  start_daemon containerd containerd --config "$work/containerd/config.toml"
}

containerd_answers() { eventually 60 ctr_ version || { tail -n 15 "$work/containerd.log"; return 1; }; }

ctr_target() { ctr_ images list "name==$1" | awk 'NR == 2 { print $3 }'; }

# direct: every host is what it is called. On its own ctr speaks HTTP to whatever is on loopback.
direct() {
  local host
  for host in "$primary" "$secondary"; do
    mkdir -p "$work/hosts/direct/$host"
    printf 'server = "%s"\n[host."%s"]\n' "$scheme://$host" "$scheme://$host" >"$work/hosts/direct/$host/hosts.toml"
  done
  echo "$work/hosts/direct"
}

# mirrored: the secondary is asked first for what is the primary's; containerd's docs/hosts.md.
mirrored() {
  mkdir -p "$work/hosts/mirrored/$primary"
  cat >"$work/hosts/mirrored/$primary/hosts.toml" <<TOML
server = "$scheme://$primary"
[host."$scheme://$secondary"]
  capabilities = ["pull", "resolve"]
TOML
  echo "$work/hosts/mirrored"
}

# ctr_pull HOSTS IMAGE DIGEST [OPTION…]
ctr_pull() {
  local hosts=$1 image=$2 digest=$3
  shift 3
  ctr_ images pull --hosts-dir "$hosts" --snapshotter native "$@" "$image"
  [ "$(ctr_target "$image")" = "$digest" ] || { echo "ctr says $image is $(ctr_target "$image"), expected $digest"; return 1; }
}

# Every platform is read from the primary and written under another name.
copy_an_index_with_containerd() {
  local digest
  digest=$(digest_of "$work/flat")
  ctr_pull "$(direct)" "$primary/skopeo/flat:1" "$digest" --all-platforms
  ctr_ images push --hosts-dir "$(direct)" "$primary/containerd/flat:1" "$primary/skopeo/flat:1"
  expect containerd/flat 1 "$digest"
}

pull_through_the_mirror_with_containerd() {
  ctr_pull "$(mirrored)" "$primary/containerd/flat:1" "$(digest_of "$work/flat")" --all-platforms
}

pull_and_unpack_debian_with_containerd() { ctr_pull "$(direct)" "$1/skopeo/debian:bookworm" "$(digest_of "$debian")"; }

containerd_push_all() {
  start_containerd
  rooted ctr "containerd answers" containerd_answers
  rooted ctr "containerd pulls an index and pushes it elsewhere" copy_an_index_with_containerd
}

containerd_pull_all() {
  [ "$(id -u)" != 0 ] || ! have ctr || ctr_ images list --quiet | xargs -r ctr --address "$work/containerd/socket" images remove --sync >/dev/null 2>&1 || true
  rooted ctr "containerd pulls by the primary's name from its mirror" pull_through_the_mirror_with_containerd
  rooted ctr "containerd pulls and unpacks Debian" pull_and_unpack_debian_with_containerd "$1"
}
