# shellcheck shell=bash
# A slow suite whose checks are tests of the root package, run against a release build. Sourced, never run.
# After checks.sh and paths.sh. A test prints `figure: …` lines, which are shown, and `skip …` lines, which make it a skip.

# suite_arguments USAGE_LINES ARGUMENT…: sets smoke.
suite_arguments() {
  local usage=$1
  shift
  smoke=false
  while [ $# -gt 0 ]; do
    case $1 in
      --smoke) smoke=true ;;
      *) sed -n "2,${usage}s/^# \{0,1\}//p" "$0" >&2; exit 2 ;;
    esac
    shift
  done
}

# The server under test: TWINPORT_BINARY, else a release build of this clone.
suite_binary() {
  if [ -z "${TWINPORT_BINARY:-}" ]; then
    (cd "$root" && cargo build --release --locked --bin twinport)
    export TWINPORT_BINARY
    TWINPORT_BINARY=$(target_dir)/release/twinport
  fi
}

# suite_tests FILE [CARGO_ARGUMENT…]: one check a test, one test at a time; what they printed stays in $suite_log.
suite_tests() {
  local file=$1 name verdict reason
  shift
  suite_log=$(mktemp "${TMPDIR:-/tmp}/twinport-suite.XXXXXX")
  (cd "$root" && cargo test --locked "$@" --package twinport --test "$file" -- --test-threads 1 --show-output) >"$suite_log" 2>&1 || true
  grep '^figure: ' "$suite_log" || true
  if ! grep -q '^test result:' "$suite_log"; then
    tail -n 30 "$suite_log" | sed 's/^/    /'
    failed "tests of $file" "they did not come to an end"
    return
  fi
  if ! grep -q '^test result: ok' "$suite_log"; then
    sed -n '/^failures:$/,$p' "$suite_log" | tail -n 60 | sed 's/^/    /'
  fi
  while IFS=$'\t' read -r name verdict reason; do
    name=${name//_/ }
    case $verdict in
      ok) ok "$name" ;;
      skip) skip "$name" "$reason" ;;
      *) failed "$name" ;;
    esac
  done < <(awk '
    /^test .* \.\.\. / { name[++n] = $2; verdict[n] = $NF }
    /^---- .* stdout ----$/ { current = $2 }
    /^skip / && current != "" { sub(/^skip [^:]*: /, ""); reason[current] = $0 }
    END { for (i = 1; i <= n; i++) printf "%s\t%s\t%s\n", name[i], name[i] in reason ? "skip" : verdict[i], reason[name[i]] }' "$suite_log")
}
