# shellcheck shell=bash
# One line per check, in one form, so that whoever runs a script can count them. Sourced, never run.
#   ok NAME · FAILED NAME: reason · skip NAME: reason
# A line that starts otherwise is talk. `finish` sets the status: 0 only if nothing failed.

checks_ok=0 checks_failed=0 checks_skipped=0

ok() { checks_ok=$((checks_ok + 1)); printf 'ok %s\n' "$1"; }
failed() { checks_failed=$((checks_failed + 1)); printf 'FAILED %s: %s\n' "$1" "${2:-see the lines above}"; }
skip() { checks_skipped=$((checks_skipped + 1)); printf 'skip %s: %s\n' "$1" "$2"; }

# check NAME COMMAND…: runs it with its output kept back, shown only when it fails.
check() {
  local name=$1 out status=0
  shift
  # errexit is off inside a condition: a failing line in the middle of a shell function would go unseen. Hence the subshell.
  set +e
  out=$(set -e; "$@" 2>&1)
  status=$?
  set -e
  if [ $status = 0 ]; then ok "$name"; return 0; fi
  [ -z "$out" ] || tail -n 15 <<<"$out" | sed 's/^/    /'
  failed "$name" "status $status from: $(printf '%.160s' "$*")"
  return 0
}

# eventually SECONDS COMMAND…: polls until the command succeeds; the bound is wall time.
eventually() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || return 1
    sleep 0.1
  done
}

# A loopback port nobody answers on. Someone may take it before the caller does: callers try again with another.
free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  echo "$port"
}

# stop PID [SIGNAL]: ends one process of ours and waits for it, hard after 15 s.
stop() {
  local pid=$1
  kill -s "${2:-TERM}" "$pid" 2>/dev/null || return 0
  eventually 15 gone "$pid" || kill -s KILL "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
}

# A zombie has ended too: its parent may be a process that has not asked yet.
gone() {
  local state
  state=$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f1) || return 0
  [ -z "$state" ] || [ "$state" = Z ]
}

finish() {
  printf '%d passed, %d failed' $checks_ok $checks_failed
  [ $checks_skipped = 0 ] || printf ', %d skipped' $checks_skipped
  printf '\n'
  [ $checks_failed = 0 ]
}
