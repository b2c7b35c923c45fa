# shellcheck shell=bash
# What has to hold at a site: $expected lists `repository reference digest`, $gone `repository reference` of what was
# deleted. Sourced by scripts/test-clients.

expect() { printf '%s %s %s\n' "$1" "$2" "$3" >>"$expected"; }

# expect_named HOST REPOSITORY REFERENCE: for what only the client knows the digest of, and does not say.
expect_named() {
  local digest
  digest=$(named_digest "$1" "$2" "$3")
  [ -n "$digest" ] || { echo "$2 has no $3 at $1"; return 1; }
  expect "$2" "$3" "$digest"
}

# expect_referrers HOST REPOSITORY SUBJECT LEAST: all that name the subject, at least so many.
expect_referrers() {
  local digest count=0
  for digest in $(referrers "$1" "$2" "$3"); do
    expect "$2" "$digest" "$digest"
    count=$((count + 1))
  done
  [ $count -ge "$4" ] || { echo "$2@$3 has $count referrers, expected $4 or more"; return 1; }
}

expect_gone() { printf '%s %s\n' "$1" "$2" >>"$gone"; }

# Seen at the secondary first, so that what is tested is a delete that travels.
arrived() { eventually 60 names_digest "$secondary" "$1" "$2" "$3" || { echo "$1:$2 does not arrive at the secondary"; return 1; }; }

# Every push is visible at the secondary under the digest it has at the primary.
everything_arrives() {
  local repository reference digest
  while read -r repository reference digest; do
    eventually 120 names_digest "$secondary" "$repository" "$reference" "$digest" \
      || { echo "$repository:$reference is not $digest at the secondary"; return 1; }
  done <"$expected"
}

deletes_arrive() {
  local repository reference
  while read -r repository reference; do
    eventually 60 answers 404 "$scheme://$primary/v2/$repository/manifests/$reference" || { echo "$repository:$reference stays at the primary"; return 1; }
    eventually 60 answers 404 "$scheme://$secondary/v2/$repository/manifests/$reference" || { echo "$repository:$reference stays"; return 1; }
  done <"$gone"
}

same_tags() {
  local repository tags='[.tags[]?] | sort'
  # shellcheck disable=SC2013 # a repository name holds no blank
  for repository in $(cut -d' ' -f1 "$expected" | sort -u); do
    [ "$(curl -fsS "$scheme://$primary/v2/$repository/tags/list" | jq -c "$tags")" \
      = "$(curl -fsS "$scheme://$secondary/v2/$repository/tags/list" | jq -c "$tags")" ] || { echo "the tags of $repository differ"; return 1; }
  done
}

# Of every manifest that was pushed, whether it has referrers or not.
same_referrers() {
  local repository digest
  while read -r repository digest; do
    [ "$(referrers "$primary" "$repository" "$digest")" = "$(referrers "$secondary" "$repository" "$digest")" ] \
      || { echo "the referrers of $repository@$digest differ"; return 1; }
  done < <(cut -d' ' -f1,3 "$expected" | sort -u)
}

walk_everything() {
  local repository reference digest line
  while read -r repository reference digest; do
    line=$(walk "$1" "$repository" "$reference" "$digest") || return 1
    echo "$repository:$reference $line"
  done <"$expected"
}

# hash_everything HOST WHO. The figure matters, so this check shows it.
hash_everything() {
  local name="$where: every byte of every push at the $2, hashed" out
  if out=$(walk_everything "$1" 2>&1); then
    ok "$name ($(awk '{ m += $2; b += $4; n += $6 } END { printf "%d manifests, %d blobs, %.0f MiB", m, b, n / 1048576 }' <<<"$out"))"
  else
    tail -n 5 <<<"$out" | sed 's/^/    /'
    failed "$name"
  fi
}

expected_digest() { awk -v r="$1" -v t="$2" '$1 == r && $2 == t { print $3 }' "$expected" | tail -n 1; }
