# shellcheck shell=bash
# A build folder for continuous integration that outlives clones. Sourced, never run.
# Never stale: what another clone built of this project's own crates is forgotten, since cargo tells by file times only.

# use_cached_target: exports CARGO_TARGET_DIR, keyed by the compiler and Cargo.lock, and locks it for this run (descriptor 9).
use_cached_target() {
  local folder=$cache/target compiler key newest
  compiler=$(rustc -vV | sha256sum | cut -c1-12)
  key=$compiler-$(sha256sum "$root/Cargo.lock" | cut -c1-12)
  mkdir -p "$folder"
  exec 9>"$folder/.lock"
  flock -n 9 || { echo "waiting for another run that builds in $folder"; flock 9; }

  if [ ! -d "$folder/$key" ]; then
    # Only what this compiler built can be used again.
    newest=$(newest_target "$folder" "$compiler-*")
    if [ -n "$newest" ]; then
      rm -rf "$folder/.making"
      copy_dependencies "$newest" "$folder/.making"
      mv "$folder/.making" "$folder/$key"
    fi
    mkdir -p "$folder/$key"
  fi
  touch "$folder/$key"
  prune_targets "$folder"
  forget_other_clones "$folder/$key"
  export CARGO_TARGET_DIR=$folder/$key
}

newest_target() {
  find "$1" -mindepth 1 -maxdepth 1 -type d -name "$2" -printf '%T@ %p\n' | sort -rn | head -n 1 | cut -d' ' -f2-
}

# copy_dependencies FROM TO: what the crates of others were built to. Programs and this project's own crates are built anew, and
# are nine tenths of a folder. Copied, not hard-linked: cargo writes some of its files in place.
copy_dependencies() {
  mkdir -p "$2"
  (cd "$1" && find . \
    \( -path './*/incremental' -o -path ./doc -o -path './*/.fingerprint/twinport*' -o -path './*/build/twinport*' \) -prune \
    -o -path './*/deps/*' \( -name '*twinport*' -o ! -name '*.*' \) -prune -o -type f -print0) \
    | tar -C "$1" --null -T - -cf - | tar -C "$2" -xf -
}

prune_targets() {
  find "$1" -mindepth 1 -maxdepth 1 -type d -printf '%T@ %p\n' | sort -rn | tail -n +3 | cut -d' ' -f2- | xargs -r -d '\n' rm -rf
}

# Two clones at one path differ in the inode of their folder.
forget_other_clones() {
  local clone
  clone="$root $(stat -c '%i %W' "$root")"
  [ "$(cat "$1/.clone" 2>/dev/null)" != "$clone" ] || return 0
  rm -rf "$1"/*/.fingerprint/twinport*
  echo "$clone" >"$1/.clone"
}
