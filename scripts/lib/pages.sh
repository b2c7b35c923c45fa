# shellcheck shell=bash
# Types the lines of a page at machines of its own, and fails where a reader would. Sourced by scripts/test-docs.
#
# A line `NAME$ COMMAND`, in a code block or alone in an HTML comment, is typed at machine NAME: a folder with one site on
# loopback, of which https://NAME.example.com is the address: by that name for curl where the machine's config.yml has
# `tls:`, else in clear. `twinport-join-v1.…` is the token that was printed last.
# Besides what a shell knows: `push REPOSITORY` pushes a small artifact, `eventually whole` waits until a secondary has
# everything and has compared it, `lose` ends the site and removes its data.

# run_page PAGE: expects $twinport.
run_page() {
  local page=$1 line
  sandbox=$(mktemp -d "${TMPDIR:-/tmp}/twinport-page.XXXXXX")
  # A check runs in a subshell: its end is the page's end.
  trap 'leave_machines; rm -rf "$sandbox"' EXIT
  mkdir "$sandbox/bin"
  ln -s "$(realpath "$twinport")" "$sandbox/bin/twinport"
  token=''
  while read -r line; do
    type_at "${line%%\$ *}" "${line#*\$ }" || { echo "$page: '$line' failed"; return 1; }
  done < <(sed -nE 's/^<!-- ([a-z]+\$ .*) -->$/\1/; /^[a-z]+\$ /p' "$page")
}

leave_machines() {
  local file
  for file in "$sandbox"/*/pid; do [ ! -f "$file" ] || stop "$(cat "$file")"; done
}

type_at() {
  local machine=$sandbox/$1 line=$2 out status=0
  [ -d "$machine" ] || {
    mkdir "$machine"
    free_port >"$machine/port"
    echo "connect-to = \"$1.example.com:443:$(address_of "$machine")\"" >>"$sandbox/.curlrc"
  }
  echo "$1\$ $line"
  case $line in
    "twinport serve"*) serve_at "$machine" "$line" ;;
    "push "*) push_artifact "$(url_of "$machine")" "${line#push }" ;;
    "eventually whole") eventually 120 whole_at "$machine" || { whole_at "$machine"; return 1; } ;;
    lose)
      stop "$(cat "$machine/pid")" KILL
      rm -rf "${machine:?}"
      ;;
    *)
      line=${line//twinport-join-v1.…/$token}
      out=$(run_at "$machine" "$(with_addresses "$line")" 2>&1) || status=$?
      echo "$out"
      [[ $out =~ twinport-join-v1\.[A-Za-z0-9_-]+ ]] && token=${BASH_REMATCH[0]}
      return $status
      ;;
  esac
}

run_at() { (cd "$1" && CURL_HOME=$sandbox PATH=$sandbox/bin:$PATH NO_COLOR=1 bash -euo pipefail -c "$2" </dev/null); }

has_tls() { grep -qs '^ *tls:' "$1/config.yml"; }

# Where a machine's site is, for those who do not look at names.
url_of() { if has_tls "$1"; then echo "https://$(address_of "$1")"; else echo "http://$(address_of "$1")"; fi; }

address_of() { echo "127.0.0.1:$(cat "$1/port")"; }

with_addresses() {
  local line=$1 machine
  for machine in "$sandbox"/*/port; do
    machine=$(dirname "$machine")
    # curl looks the certificate's name up in its configuration; a site has no such thing.
    if has_tls "$machine" && [[ $line == curl\ * ]]; then continue; fi
    line=${line//https:\/\/$(basename "$machine").example.com/$(url_of "$machine")}
  done
  echo "$line"
}

serve_at() {
  local machine=$1 pid
  [ ! -f "$machine/pid" ] || gone "$(cat "$machine/pid")" || { echo "a site is served there already"; return 1; }
  (cd "$machine" && exec "$sandbox/bin/twinport" ${2#twinport } --addr "$(address_of "$machine")" >log 2>&1 </dev/null) &
  pid=$!
  echo $pid >"$machine/pid"
  eventually 60 ready_or_gone "$machine" "$pid" || true
  ! gone $pid || { tail -n 20 "$machine/log"; return 1; }
}

ready_or_gone() { curl -fsSk -o /dev/null "$(url_of "$1")/readyz" || gone "$2"; }

whole_at() {
  run_at "$1" 'twinport geo status --output json' | jq -e '.replication
    | if .backfill_finished and .fresh and .lag_events == 0 and .repositories.synced > 0 and .items.verification_succeeded > 0
        and ([.repositories, .items | .pending, .started, .failed, .verification_pending, .verification_failed] | add) == 0
      then true else error(tostring) end'
}

# The smallest thing a registry holds: an artifact of one empty document.
push_artifact() {
  local digest manifest
  digest=sha256:$(printf '{}' | sha256sum | cut -d' ' -f1)
  curl -fsSk -o /dev/null -X POST -H 'Content-Type: application/octet-stream' --data-binary '{}' "$1/v2/$2/blobs/uploads/?digest=$digest"
  manifest=$(jq -cn --arg d "$digest" '{mediaType: "application/vnd.oci.empty.v1+json", digest: $d, size: 2} as $empty
    | {schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json", artifactType: "application/vnd.example", config: $empty, layers: [$empty]}')
  curl -fsSk -o /dev/null -X PUT -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' --data-binary "$manifest" "$1/v2/$2/manifests/latest"
}
