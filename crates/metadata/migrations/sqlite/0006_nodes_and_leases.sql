-- The nodes of this site, and which of them does what only one may do at a time.

-- ephemeral: who is there; a node says so every few seconds, by the database's clock
CREATE TABLE nodes (
  id BLOB PRIMARY KEY,
  name TEXT NOT NULL,
  version TEXT NOT NULL,
  started_at_us BIGINT NOT NULL,
  seen_at_us BIGINT NOT NULL,
  busy BIGINT NOT NULL
);

-- ephemeral: a lease holds until `until_us` by the database's clock; `token` rises whenever it changes hands
CREATE TABLE leases (
  job TEXT PRIMARY KEY,
  holder BLOB,
  token BIGINT NOT NULL,
  since_us BIGINT NOT NULL,
  until_us BIGINT NOT NULL,
  note TEXT,
  noted_at_us BIGINT
);
