# shellcheck shell=bash
# cosign without a transparency log: signs, attests an SBOM, verifies, lists, removes. Sourced by scripts/test-clients.

# What it shows of a registry's certificates and keys goes with every verb; no service on the network is asked.
cosign_() {
  local verb=$1
  shift
  # shellcheck disable=SC2154 # speak sets it
  COSIGN_PASSWORD='' cosign "$verb" "${cosign_transport[@]}" "$@"
}

cosign_key() {
  [ -f "$work/cosign/cosign.key" ] || {
    mkdir -p "$work/cosign"
    (cd "$work/cosign" && COSIGN_PASSWORD='' cosign generate-key-pair)
  }
  echo "$work/cosign/cosign.key"
}

sign_with_cosign() {
  local subject
  subject=$(digest_of "$work/single")
  skopeo_ copy --preserve-digests --dest-tls-verify="$verify" "oci:$work/single:only" "docker://$1/cosign/signed:1"
  expect cosign/signed 1 "$subject"
  cosign_ sign --key "$(cosign_key)" --use-signing-config=false --tlog-upload=false --yes "$1/cosign/signed@$subject"
  expect_referrers "$1" cosign/signed "$subject" 1
}

# As cosign 2 did: a tag made of the subject's digest.
sign_by_tag_with_cosign() {
  local subject
  subject=$(digest_of "$work/other")
  skopeo_ copy --preserve-digests --dest-tls-verify="$verify" "oci:$work/other:only" "docker://$1/cosign/tagged:1"
  expect cosign/tagged 1 "$subject"
  cosign_ sign --key "$(cosign_key)" --use-signing-config=false --tlog-upload=false --new-bundle-format=false --yes "$1/cosign/tagged@$subject"
  expect_named "$1" cosign/tagged "${subject/:/-}.sig"
}

attest_an_sbom_with_cosign() {
  local subject
  subject=$(digest_of "$work/single")
  cat >"$work/sbom.spdx.json" <<'JSON'
{"spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "name": "greeting", "dataLicense": "CC0-1.0", "packages": []}
JSON
  cosign_ attest --key "$(cosign_key)" --use-signing-config=false --tlog-upload=false --type spdxjson --predicate "$work/sbom.spdx.json" \
    --yes "$1/cosign/signed@$subject"
  expect_referrers "$1" cosign/signed "$subject" 2
}

verify_with_cosign() {
  cosign_ verify --key "$work/cosign/cosign.pub" --insecure-ignore-tlog --private-infrastructure "$1/cosign/signed@$(digest_of "$work/single")"
}

verify_by_tag_with_cosign() {
  cosign_ verify --key "$work/cosign/cosign.pub" --insecure-ignore-tlog --private-infrastructure --new-bundle-format=false \
    "$1/cosign/tagged@$(digest_of "$work/other")"
}

refuses_the_unsigned_with_cosign() {
  ! cosign_ verify --key "$work/cosign/cosign.pub" --insecure-ignore-tlog --private-infrastructure "$1/skopeo/flat@$(digest_of "$work/flat")"
}

verify_the_sbom_with_cosign() {
  cosign_ verify-attestation --key "$work/cosign/cosign.pub" --insecure-ignore-tlog --private-infrastructure --type spdxjson \
    "$1/cosign/signed@$(digest_of "$work/single")" | jq -r '.payload // .dsseEnvelope.payload' | base64 -d | jq -e '.predicate.name == "greeting"'
}

list_with_cosign() {
  cosign_ tree "$1/cosign/signed@$(digest_of "$work/single")" | tee "$work/cosign/tree"
  grep -q sha256: "$work/cosign/tree"
}

# Signed, seen at the secondary, and unsigned again.
clean_with_cosign() {
  local subject signature
  subject=$(digest_of "$work/single")
  signature=${subject/:/-}.sig
  skopeo_ copy --preserve-digests --dest-tls-verify="$verify" "oci:$work/single:only" "docker://$1/cosign/cleaned:1"
  expect cosign/cleaned 1 "$subject"
  cosign_ sign --key "$(cosign_key)" --use-signing-config=false --tlog-upload=false --new-bundle-format=false --yes "$1/cosign/cleaned@$subject"
  arrived cosign/cleaned "$signature" "$(named_digest "$1" cosign/cleaned "$signature")"
  cosign_ clean --force --type signature "$1/cosign/cleaned@$subject"
  expect_gone cosign/cleaned "$signature"
}

cosign_push_all() {
  client cosign "cosign signs, as a referrer" sign_with_cosign "$1"
  client cosign "cosign attests an SBOM" attest_an_sbom_with_cosign "$1"
  client cosign "cosign signs, under a tag" sign_by_tag_with_cosign "$1"
  client cosign "cosign removes a signature" clean_with_cosign "$1"
}

cosign_pull_all() {
  client cosign "cosign verifies the referrer's signature" verify_with_cosign "$1"
  client cosign "cosign verifies the tag's signature" verify_by_tag_with_cosign "$1"
  client cosign "cosign verifies the SBOM and reads it" verify_the_sbom_with_cosign "$1"
  client cosign "cosign does not verify what nobody signed" refuses_the_unsigned_with_cosign "$1"
  client cosign "cosign lists what is attached" list_with_cosign "$1"
}
