-- Who may do what: accounts, tokens, roles, rules and the keys of token services, as records that replicate; and what each site
-- keeps for itself about them.

-- logged: a record that was deleted stays as a tombstone, its body and secret null
CREATE TABLE access_records (
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  body TEXT,
  secret BLOB,
  changed_at_us BIGINT NOT NULL,
  change BIGINT,
  position_epoch BIGINT,
  position_seq BIGINT,
  PRIMARY KEY (kind, name)
);
CREATE INDEX access_records_in_motion ON access_records (change) WHERE position_seq IS NULL;

-- derived: rises with every change of a record, so that whoever keeps a copy can tell whether it still holds
CREATE TABLE access_generation (
  id BIGINT PRIMARY KEY CHECK (id = 1),
  value BIGINT NOT NULL
);
INSERT INTO access_generation (id, value) VALUES (1, 0);

-- local: the private halves of this site's token keys; never logged, never shipped
CREATE TABLE token_signing_keys (
  kid TEXT PRIMARY KEY,
  private_key BLOB NOT NULL,
  created_at_us BIGINT NOT NULL,
  retires_at_us BIGINT
);

-- ephemeral: refresh tokens of this site's token service
CREATE TABLE refresh_tokens (
  hash BLOB PRIMARY KEY,
  family BLOB NOT NULL,
  account TEXT NOT NULL,
  service TEXT NOT NULL,
  scope TEXT NOT NULL,
  issued_at_us BIGINT NOT NULL,
  expires_at_us BIGINT NOT NULL,
  rotated_at_us BIGINT
);
CREATE INDEX refresh_tokens_by_family ON refresh_tokens (family);
CREATE INDEX refresh_tokens_by_account ON refresh_tokens (account);
CREATE INDEX refresh_tokens_by_expiry ON refresh_tokens (expires_at_us);

-- local: records that this secondary has been told of and not fetched; the kind `*` stands for all of them
CREATE TABLE access_pending (
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  position_seq BIGINT NOT NULL,
  last_seq BIGINT NOT NULL,
  PRIMARY KEY (kind, name)
);
CREATE INDEX access_pending_by_position ON access_pending (position_seq);
