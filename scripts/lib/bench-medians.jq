# From all rows of all runs to medians and ratios: the document that scripts/bench writes. `--slurp` it.
# Needs $machine (an object) and $servers ([{name, title}], those whose names begin with twinport are ours).

def median: sort | if length == 0 then null elif length % 2 == 1 then .[length / 2 | floor] else (.[length / 2 - 1] + .[length / 2]) / 2 end;
def in_order: reduce .[] as $x ([]; if index($x) then . else . + [$x] end);
def ratio(a; b): if a == null or b == null or b == 0 then null else a / b * 100 | round / 100 end;

# Rows of one scenario on one server. A run with a failed operation, or that was skipped, gives no figure.
def figures:
  [.[] | select(.failed == 0 and (.skipped | not))] as $good
  | if ($good | length) < length then {failed: (map(.failed) | add), why: (map(.skipped // .error | select(. != null)) | first)}
    else {
      per_s: ($good | map(.per_s) | median), per_s_least: ($good | map(.per_s) | min), per_s_most: ($good | map(.per_s) | max),
      mib_s: ($good | map(.mib_s) | median), p50_ms: ($good | map(.p50_ms) | median), p99_ms: ($good | map(.p99_ms) | median),
      cpu_ms_each: ($good | map(.server_cpu_ms_each) | median), database_cpu_ms_each: ($good | map(.database_cpu_ms_each) | median),
      store_cpu_ms_each: ($good | map(.store_cpu_ms_each) | median),
      private_mib: ($good | map(.server_private_mib) | median), failed: 0, note: ($good | map(.note | select(. != null)) | first)}
    end;

def ours: map(.name | select(startswith("twinport")));

. as $rows
| $machine + {servers: $servers, scenarios: [
    (map(.scenario) | in_order[]) as $scenario
    | {scenario: $scenario,
       servers: ([$rows[] | select(.scenario == $scenario)] | group_by(.server) | map({key: .[0].server, value: figures}) | from_entries)}
    | .servers as $at
    | .ratios = ([$servers | ours[] as $our | {key: $our, value: ([$servers[].name | select(startswith("twinport") | not) as $peer
        | select($at[$our] and $at[$peer]) | {key: $peer, value: {
            per_s: ratio($at[$our].per_s; $at[$peer].per_s),
            cpu_ms_each: ratio($at[$our].cpu_ms_each; $at[$peer].cpu_ms_each),
            private_mib: ratio($at[$our].private_mib; $at[$peer].private_mib)}}] | from_entries)}] | from_entries)
  ]}
# The most that each server held in any scenario.
| .private_mib = ([$servers[].name as $name | {key: $name, value: ([.scenarios[].servers[$name].private_mib | select(. != null)] | max)}] | from_entries)
| .runs = $rows
