-- The first schema. Columns are BIGINT, TEXT or BYTEA only, so that one text per query serves both databases.
-- Keys lead with the repository (or the log position) so that a table can be partitioned by it later.
-- `change` is the local id of the event that last changed a row; `position_*` is null while in motion.

-- local: this site's identity, role and keys
CREATE TABLE site (
  id BIGINT PRIMARY KEY CHECK (id = 1),
  incarnation BYTEA NOT NULL,
  name TEXT,
  role TEXT NOT NULL,
  federation BYTEA NOT NULL,
  signing_key BYTEA NOT NULL,
  public_key BYTEA NOT NULL,
  external_url TEXT,
  internal_url TEXT,
  primary_name TEXT,
  primary_url TEXT,
  primary_key BYTEA,
  primary_incarnation BYTEA,
  highest_epoch BIGINT NOT NULL,
  highest_epoch_owner BYTEA NOT NULL,
  halted TEXT
);

-- the log: its head (on a secondary the cursor: what is ingested), the epochs, the events
CREATE TABLE log_head (
  id BIGINT PRIMARY KEY CHECK (id = 1),
  epoch BIGINT NOT NULL,
  owner BYTEA NOT NULL,
  seq BIGINT NOT NULL,
  hash BYTEA NOT NULL,
  lease_holder BYTEA,
  lease_until_us BIGINT NOT NULL DEFAULT 0
);
CREATE TABLE epochs (
  number BIGINT NOT NULL,
  owner BYTEA NOT NULL,
  began_seq BIGINT NOT NULL,
  base_hash BYTEA NOT NULL,
  PRIMARY KEY (number, owner)
);
CREATE TABLE events (
  event_id BIGINT GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY,
  epoch BIGINT,
  owner BYTEA,
  seq BIGINT,
  hash BYTEA,
  repository BYTEA,
  body BYTEA NOT NULL
);
CREATE UNIQUE INDEX events_by_position ON events (seq, epoch, owner);
CREATE INDEX events_by_repository ON events (repository, seq);
CREATE INDEX events_unnumbered ON events (event_id) WHERE seq IS NULL;

-- logged: changed only together with an event
CREATE TABLE repositories (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  uuid BYTEA NOT NULL UNIQUE,
  path TEXT COLLATE "C" NOT NULL UNIQUE,
  created_at_us BIGINT NOT NULL,
  change BIGINT,
  position_epoch BIGINT,
  position_seq BIGINT
);
CREATE INDEX repositories_in_motion ON repositories (change) WHERE position_seq IS NULL;
CREATE TABLE blob_links (
  repository_id BIGINT NOT NULL,
  digest BYTEA NOT NULL,
  linked_at_us BIGINT NOT NULL,
  change BIGINT,
  position_epoch BIGINT,
  position_seq BIGINT,
  PRIMARY KEY (repository_id, digest)
);
CREATE INDEX blob_links_by_digest ON blob_links (digest);
CREATE INDEX blob_links_in_motion ON blob_links (change) WHERE position_seq IS NULL;
CREATE TABLE manifests (
  repository_id BIGINT NOT NULL,
  digest BYTEA NOT NULL,
  media_type TEXT NOT NULL,
  artifact_type TEXT,
  subject BYTEA,
  annotations TEXT,
  size BIGINT NOT NULL,
  body BYTEA NOT NULL,
  pushed_at_us BIGINT NOT NULL,
  change BIGINT,
  position_epoch BIGINT,
  position_seq BIGINT,
  PRIMARY KEY (repository_id, digest)
);
CREATE INDEX manifests_by_subject ON manifests (repository_id, subject, digest) WHERE subject IS NOT NULL;
CREATE INDEX manifests_by_subject_and_type ON manifests (repository_id, subject, artifact_type, digest)
  WHERE subject IS NOT NULL;
CREATE INDEX manifests_in_motion ON manifests (change) WHERE position_seq IS NULL;
CREATE TABLE tags (
  repository_id BIGINT NOT NULL,
  name TEXT COLLATE "C" NOT NULL,
  digest BYTEA NOT NULL,
  tagged_at_us BIGINT NOT NULL,
  change BIGINT,
  position_epoch BIGINT,
  position_seq BIGINT,
  PRIMARY KEY (repository_id, name)
);
CREATE INDEX tags_by_digest ON tags (repository_id, digest, name);
CREATE INDEX tags_in_motion ON tags (change) WHERE position_seq IS NULL;
CREATE TABLE tombstones (
  repository BYTEA NOT NULL,
  kind TEXT NOT NULL,
  key BYTEA NOT NULL,
  digest BYTEA,
  deleted_at_us BIGINT NOT NULL,
  change BIGINT,
  position_epoch BIGINT,
  position_seq BIGINT,
  PRIMARY KEY (repository, kind, key)
);
CREATE INDEX tombstones_in_motion ON tombstones (change) WHERE position_seq IS NULL;
CREATE TABLE sites (
  incarnation BYTEA PRIMARY KEY,
  name TEXT NOT NULL,
  public_key BYTEA NOT NULL,
  external_url TEXT,
  internal_url TEXT,
  protocol BIGINT NOT NULL,
  state TEXT NOT NULL,
  joined_at_us BIGINT NOT NULL,
  removed_at_us BIGINT,
  change BIGINT,
  position_epoch BIGINT,
  position_seq BIGINT
);
CREATE UNIQUE INDEX sites_by_name ON sites (name) WHERE state = 'joined';
CREATE INDEX sites_in_motion ON sites (change) WHERE position_seq IS NULL;

-- derived from the log: which manifest points at which child
CREATE TABLE manifest_references (
  repository_id BIGINT NOT NULL,
  manifest BYTEA NOT NULL,
  child BYTEA NOT NULL,
  kind TEXT NOT NULL,
  PRIMARY KEY (repository_id, manifest, child)
);
CREATE INDEX manifest_references_by_child ON manifest_references (repository_id, child);

-- journaled: what this site stores, and what gc has to look at; never replicated as rows
CREATE TABLE blobs (
  digest BYTEA PRIMARY KEY,
  size BIGINT NOT NULL,
  state TEXT NOT NULL,
  location TEXT,
  stored_at_us BIGINT NOT NULL,
  verified_at_us BIGINT,
  condemned_at_us BIGINT
);
CREATE TABLE gc_candidates (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind TEXT NOT NULL,
  repository BYTEA,
  digest BYTEA NOT NULL,
  queued_at_us BIGINT NOT NULL
);

-- ephemeral: upload sessions, shaped for several nodes and multipart stores
CREATE TABLE uploads (
  id BYTEA PRIMARY KEY,
  path TEXT COLLATE "C" NOT NULL,
  bytes BIGINT NOT NULL,
  hash_state BYTEA,
  version BIGINT NOT NULL,
  store_upload TEXT,
  store_parts TEXT,
  started_at_us BIGINT NOT NULL,
  touched_at_us BIGINT NOT NULL,
  ended_at_us BIGINT
);
CREATE INDEX uploads_by_touch ON uploads (touched_at_us) WHERE ended_at_us IS NULL;
CREATE INDEX uploads_by_end ON uploads (ended_at_us) WHERE ended_at_us IS NOT NULL;
CREATE TABLE join_tokens (
  id BYTEA PRIMARY KEY,
  secret_hash BYTEA NOT NULL,
  site_name TEXT NOT NULL,
  created_at_us BIGINT NOT NULL,
  expires_at_us BIGINT NOT NULL,
  used_at_us BIGINT
);
CREATE TABLE site_reports (
  incarnation BYTEA PRIMARY KEY,
  nonce BYTEA NOT NULL,
  report TEXT NOT NULL,
  reported_at_us BIGINT NOT NULL
);

-- local: what this secondary has been told, fetched and verified
CREATE TABLE backfill (
  id BIGINT PRIMARY KEY CHECK (id = 1),
  head_seq BIGINT NOT NULL,
  after_path TEXT COLLATE "C" NOT NULL,
  finished_at_us BIGINT
);
CREATE TABLE tracked_repositories (
  repository BYTEA PRIMARY KEY,
  path TEXT COLLATE "C" NOT NULL,
  state TEXT NOT NULL,
  dirty_seq BIGINT NOT NULL,
  applied_seq BIGINT NOT NULL,
  needs_listing BIGINT NOT NULL,
  attempts BIGINT NOT NULL,
  next_attempt_us BIGINT NOT NULL,
  last_error TEXT,
  lease_holder BYTEA,
  lease_until_us BIGINT NOT NULL,
  verification TEXT NOT NULL,
  verified_seq BIGINT,
  checked_at_us BIGINT
);
CREATE INDEX tracked_repositories_due ON tracked_repositories (needs_listing, next_attempt_us) WHERE state <> 'synced';
CREATE INDEX tracked_repositories_unchecked ON tracked_repositories (checked_at_us)
  WHERE verification = 'pending' AND state = 'synced';
CREATE TABLE tracked_items (
  repository BYTEA NOT NULL,
  kind TEXT NOT NULL,
  key TEXT COLLATE "C" NOT NULL,
  digest BYTEA,
  position_seq BIGINT NOT NULL,
  state TEXT NOT NULL,
  verification TEXT NOT NULL,
  attempts BIGINT NOT NULL,
  next_attempt_us BIGINT NOT NULL,
  last_error TEXT,
  synced_at_us BIGINT,
  verified_at_us BIGINT,
  PRIMARY KEY (repository, kind, key)
);
CREATE INDEX tracked_items_unsettled ON tracked_items (repository, kind, next_attempt_us) WHERE state <> 'synced';
