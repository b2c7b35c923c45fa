-- What repositories hold, counted along the log, and what retention took away and may still bring back.

-- derived: up to where the log is counted
CREATE TABLE usage_cursor (
  id BIGINT PRIMARY KEY CHECK (id = 1),
  seq BIGINT NOT NULL
);
INSERT INTO usage_cursor (id, seq) VALUES (1, 0);

-- derived: the bytes that a repository links and its manifests have, as of the event `counted_seq`
CREATE TABLE repository_usage (
  repository BYTEA PRIMARY KEY,
  path TEXT COLLATE "C" NOT NULL,
  bytes BIGINT NOT NULL,
  counted_seq BIGINT NOT NULL
);
CREATE INDEX repository_usage_by_path ON repository_usage (path);

-- derived: what the repositories of a quota hold together, those up to `after_path` so far; null once it is all
CREATE TABLE quota_usage (
  rule TEXT COLLATE "C" PRIMARY KEY,
  pattern TEXT NOT NULL,
  bytes BIGINT NOT NULL,
  repositories BIGINT NOT NULL,
  after_path TEXT COLLATE "C"
);

-- local: tags that retention took, with the manifest that each named; without a tag, what went with such a manifest
CREATE TABLE retention_trash (
  repository BYTEA NOT NULL,
  digest BYTEA NOT NULL,
  tag TEXT COLLATE "C" NOT NULL,
  rule TEXT NOT NULL,
  taken_at_us BIGINT NOT NULL,
  due_at_us BIGINT NOT NULL,
  PRIMARY KEY (repository, digest, tag)
);
CREATE INDEX retention_trash_by_time ON retention_trash (due_at_us);
CREATE INDEX retention_trash_by_tag ON retention_trash (repository, tag, digest);

-- local: the latest run of each retention rule
CREATE TABLE retention_runs (
  rule TEXT COLLATE "C" PRIMARY KEY,
  ran_at_us BIGINT NOT NULL,
  considered BIGINT NOT NULL,
  planned BIGINT NOT NULL,
  taken BIGINT NOT NULL,
  outcome TEXT NOT NULL
);
