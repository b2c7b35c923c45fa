# From the document of bench-medians.jq to Markdown. Run with --raw-output.

def short: if . == null then "–" elif . >= 100 then round elif . >= 10 then . * 10 | round / 10 else . * 100 | round / 100 end | tostring;
def line: "| " + join(" | ") + " |";
def rule: "|" + (map("---|") | add);
# Why there is no figure, each reason once.
def notes: [.scenarios[].servers[].why | select(. != null)] | unique;
def unit: if .scenario | test("big|streamed|chunked") then "mib_s" else "per_s" end;

# table(TITLE; COLUMNS; CELL): a row a scenario; CELL gets {s: the scenario, at: the server's figures, name}.
def table($title; $columns; cell):
  . as $all
  | "", "### \($title)", "", (["scenario"] + ($columns | map(.title)) | line), (["scenario"] + $columns | rule),
    ($all.scenarios[] | . as $s | [.scenario] + [$columns[] | .name as $name
      | $s.servers[$name] as $at
      | if $at == null then "–" elif $at.why then "\(if $at.failed > 0 then "failed" else "skipped" end) (\($all | notes | index($at.why) + 1))" else {s: $s, at: $at, name: $name} | cell end] | line);

def ours: .servers | map(select(.name | startswith("twinport")));
def theirs: .servers | map(select(.name | startswith("twinport") | not));

def ratio_table($our; $named):
  theirs as $peers | select($peers != [])
  | table("\($named) / the peer: rate, CPU of one operation, private memory"; $peers;
      .s.ratios[$our][.name] as $r | if $r.per_s == null then "–" else "**\($r.per_s | short)**, \($r.cpu_ms_each | short), \($r.private_mib | short)" end);

. as $document
| "Medians of \([.runs[].run] | max) interleaved run(s), commit \(.commit), \(.cpus) cores shared with the client (\(.processor)), \(.file_system), \(.kernel), \(.rustc).",
  (if .quick then "This was a quick run: its figures mean nothing." else empty end),
  (if .flush_ms then "Every fsync and fdatasync took \(.flush_ms) ms more than the disk needs, on every server and in PostgreSQL: compare these figures with each other only." else empty end),
  "Every byte was compared with what was pushed. Rates above 1 and CPU and memory below 1 speak for Twinport.",
  (ours[] as $our | ratio_table($our.name; $our.title)),
  table("Rate"; .servers; (.s | unit) as $unit | "\(.at[$unit] | short) \(if $unit == "mib_s" then "MiB/s" else "/s" end)"),
  table("Latency, ms: half of the operations, 99 of 100"; .servers; "\(.at.p50_ms | short), \(.at.p99_ms | short)"),
  table("CPU of one operation, ms"; .servers;
    (.at.cpu_ms_each | short) + (if .at.database_cpu_ms_each > 0 then " + \(.at.database_cpu_ms_each | short) in PostgreSQL" else "" end)
      + (if .at.store_cpu_ms_each > 0 then " + \(.at.store_cpu_ms_each | short) in MinIO" else "" end)),
  table("Private memory at its peak, MiB (the server's own, without PostgreSQL's)"; .servers; .at.private_mib | short),
  (["all of these"] + [.servers[] | $document.private_mib[.name] | short] | line),
  (notes | select(. != []) | "", (to_entries[] | "(\(.key + 1)) \(.value)")),
  ([.scenarios[] | .scenario as $s | .servers | to_entries[] | select(.value.note) | "\($s), \(.key): \(.value.note)"] | select(. != []) | "", .[])
