# shellcheck shell=bash
# ORAS artifacts by its Python library: two files, a referrer of them, chunked uploads, a deleted tag. Sourced by
# scripts/test-clients.

oras_() { (cd "$work/oras" && oras-python "$root/tests/clients/oras_client.py" "$scheme" "$@"); }

push_files_with_oras() {
  mkdir -p "$work/oras"
  echo "an artifact of text" >"$work/oras/notes.txt"
  head -c 3000000 /dev/urandom >"$work/oras/weights.bin"
  expect oras/files 1 "$(oras_ push "$1/oras/files:1" notes.txt:text/plain weights.bin:application/vnd.example.weights)"
}

# In chunks of 1 MB, as a client without a known length does.
push_in_chunks_with_oras() {
  expect oras/chunked 1 "$(oras_ push-chunked "$1/oras/chunked:1" weights.bin:application/vnd.example.weights)"
}

attach_with_oras() {
  local subject
  subject=$(expected_digest oras/files 1)
  echo "looked at" >"$work/oras/review.txt"
  oras_ attach "$1/oras/files:review" review.txt:text/plain "$subject" "$(manifest_at "$1" oras/files 1 | wc -c)"
  expect_named "$1" oras/files review
  expect_referrers "$1" oras/files "$subject" 1
}

delete_with_oras() {
  local digest
  echo "not for long" >"$work/oras/doomed.txt"
  digest=$(oras_ push "$1/oras/deleted:doomed" doomed.txt:text/plain)
  arrived oras/deleted doomed "$digest"
  oras_ delete "$1/oras/deleted" doomed
  expect_gone oras/deleted doomed
}

pull_files_with_oras() {
  local file
  rm -rf "$work/oras/pulled"
  oras_ pull "$1/oras/files:1" "$work/oras/pulled"
  for file in notes.txt weights.bin; do cmp "$work/oras/$file" "$work/oras/pulled/$file"; done
}

oras_push_all() {
  client oras-python "oras' library pushes files" push_files_with_oras "$1"
  client oras-python "oras' library pushes in chunks" push_in_chunks_with_oras "$1"
  client oras-python "oras' library attaches a referrer" attach_with_oras "$1"
  client oras-python "oras' library deletes an artifact" delete_with_oras "$1"
}

oras_pull_all() {
  client oras-python "oras' library pulls the files it pushed" pull_files_with_oras "$1"
}
