# shellcheck shell=bash
# Notary Project signatures by notation-go, of which tests/clients/notation makes a small program. Sourced by scripts/test-clients.

notation_() { notation-client "$work/notation" "$scheme" "$@"; }

sign_with_notation() {
  local subject
  subject=$(digest_of "$work/flat")
  skopeo_ copy --all --preserve-digests --dest-tls-verify="$verify" "oci:$work/flat" "docker://$1/notation/signed:1"
  expect notation/signed 1 "$subject"
  notation_ sign cose "$1/notation/signed@$subject"
  notation_ sign jws "$1/notation/signed@$subject"
  expect_referrers "$1" notation/signed "$subject" 2
}

verify_with_notation() { notation_ verify "$1/notation/signed@$(digest_of "$work/flat")"; }

refuses_the_unsigned_with_notation() { ! notation_ verify "$1/skopeo/flat@$(digest_of "$work/flat")"; }

list_with_notation() {
  [ "$(notation_ list "$1/notation/signed@$(digest_of "$work/flat")" | grep -c '^sha256:')" = 2 ]
}

notation_push_all() {
  client notation-client "notation-go signs, in both envelopes" sign_with_notation "$1"
}

notation_pull_all() {
  client notation-client "notation-go verifies" verify_with_notation "$1"
  client notation-client "notation-go does not verify what nobody signed" refuses_the_unsigned_with_notation "$1"
  client notation-client "notation-go lists the signatures" list_with_notation "$1"
}
