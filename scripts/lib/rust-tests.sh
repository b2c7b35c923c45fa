# shellcheck shell=bash
# Integration tests of this clone as checks of a suite: one line a test, with its figures. Sourced, never run.
# Their code is built once; TWINPORT_BINARY, where it is set, is the server that they start.

declare -A test_programs=()

# build_tests [--release] NAME…: builds tests/NAME.rs, and remembers what came of it.
build_tests() {
  local name lines
  local -a arguments=()
  if [ "$1" = --release ]; then arguments=(--release); shift; fi
  for name in "$@"; do arguments+=(--test "$name"); done
  # The whole workspace, as the step `tests` builds it: see there.
  lines=$(cargo test --workspace --locked "${arguments[@]}" --no-run 2>&1) || { tail -n 30 <<<"$lines"; failed "build of the tests"; finish; exit 1; }
  for name in "$@"; do
    test_programs[$name]=$(sed -n "s|^ *Executable tests/$name\.rs (\(.*\))$|\1|p" <<<"$lines")
    case ${test_programs[$name]} in
      *$'\n'*) failed "two packages have a test program $name: rename one"; finish; exit 1 ;;
    esac
    case ${test_programs[$name]} in /*) ;; *) test_programs[$name]=$root/${test_programs[$name]} ;; esac
  done
}

# run_one NAME TEST: one test of tests/NAME.rs, with all that it says.
run_one() { RUST_BACKTRACE=0 "${test_programs[$1]}" --exact "$2" --nocapture --test-threads=1 2>&1; }

# run_tests NAME [PART]: every test of tests/NAME.rs (with PART in its name), one after the other. What a passing one prints is kept as talk.
run_tests() {
  local name=$1 test out status started
  for test in $("${test_programs[$name]}" --list --format terse ${2:+"$2"} | sed -n 's/: test$//p'); do
    status=0 started=$SECONDS
    out=$(run_one "$name" "$test") || status=$?
    # The harness names the test before what the test prints first.
    out=${out//"test $test ... "/}
    if [ $status != 0 ]; then
      tail -n 40 <<<"$out" | cut -c1-2000 | sed 's/^/    /'
      failed "$test" "status $status after $((SECONDS - started)) s"
    elif grep -q '^skip ' <<<"$out"; then
      skip "$test" "$(sed -n 's/^skip [^:]*: //p' <<<"$out" | head -n 1)"
    else
      grep -vE '^(running |test result|ok$|$)' <<<"$out" | sed 's/^/    /' || true
      ok "$test ($((SECONDS - started)) s)"
    fi
  done
}
