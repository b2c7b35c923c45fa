//! Rows for the plans to be judged on: every table that grows, with four large repositories among many small ones.

use crate::{Metadata, db::Dialect};

/// Rows of each kind in each of the large repositories.
pub(super) const ROWS: u32 = 10_000;

/// `{key}` makes a digest's key of the number `i`, `{id}` a uuid's bytes, `{repository}` the uuid of repository `r.id`.
/// One row in a thousand is in motion or unsettled; of the tracked
/// repositories one in twenty waits, as in a backfill.
const FILL: &str = "
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
        INSERT INTO repositories (uuid, path, created_at_us, change, position_epoch, position_seq)
        SELECT {id}, 'group/project-' || i, i, i, 1, {position} FROM n;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
        INSERT INTO blobs (digest, size, state, stored_at_us) SELECT {key}, i, 'live', i FROM n;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}), r (id) AS (VALUES (1), (2), (3), (4))
        INSERT INTO blob_links (repository_id, digest, linked_at_us, change, position_epoch, position_seq)
        SELECT r.id, {key}, i, i, 1, {position} FROM n, r;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}), r (id) AS (VALUES (1), (2), (3), (4))
        INSERT INTO manifests (repository_id, digest, media_type, artifact_type, subject, size, body, pushed_at_us,
            change, position_epoch, position_seq)
        SELECT r.id, {key}, 'm', 'type-' || i % 7, CASE WHEN i % 2 = 0 THEN {one} END, i, {key}, i, i, 1, {position} FROM n, r;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}), r (id) AS (VALUES (1), (2), (3), (4))
        INSERT INTO manifest_references (repository_id, manifest, child, kind) SELECT r.id, {key}, {key}, 'blob' FROM n, r;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}), r (id) AS (VALUES (1), (2), (3), (4))
        INSERT INTO tags (repository_id, name, digest, tagged_at_us, change, position_epoch, position_seq)
        SELECT r.id, 'tag-' || i, CASE WHEN i % 2 = 0 THEN {one} ELSE {key} END, i, i, 1, {position} FROM n, r;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}), r (id) AS (VALUES (1), (2), (3), (4))
        INSERT INTO tombstones (repository, kind, key, digest, deleted_at_us, change, position_epoch, position_seq)
        SELECT {repository}, 'blob_link', {key}, {key}, i, i, 1, {position} FROM n, r;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}), r (id) AS (VALUES (1), (2), (3), (4))
        INSERT INTO events (epoch, owner, seq, hash, repository, body)
        SELECT 1, {one}, i * 4 + r.id, {key}, {repository}, {key} FROM n, r;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
        INSERT INTO uploads (id, path, bytes, version, started_at_us, touched_at_us)
        SELECT {id}, 'group/project-' || i % 2000, i, 0, i, i FROM n;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
        INSERT INTO gc_candidates (kind, digest, queued_at_us) SELECT 'link', {key}, i FROM n;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4 * {rows})
        INSERT INTO tracked_repositories (repository, path, state, dirty_seq, applied_seq, needs_listing, attempts,
            next_attempt_us, lease_until_us, verification, checked_at_us)
        SELECT {id}, 'group/project-' || i, CASE WHEN i % 20 = 0 THEN 'pending' ELSE 'synced' END, i, i, i % 3 / 2, 0, i, 0,
            CASE WHEN i % 20 < 2 THEN 'pending' ELSE 'succeeded' END, i FROM n;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}), r (id) AS (VALUES (1), (2), (3), (4))
        INSERT INTO tracked_items (repository, kind, key, digest, position_seq, state, verification, attempts, next_attempt_us)
        SELECT {repository}, 'tag', 'tag-' || i, {key}, i, CASE WHEN i % 1000 = 0 THEN 'pending' ELSE 'synced' END,
            'succeeded', 0, 0 FROM n, r;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
        INSERT INTO access_records (kind, name, body, secret, changed_at_us, change, position_epoch, position_seq)
        SELECT CASE WHEN i % 2 = 0 THEN 'account' ELSE 'token' END, 'name-' || i, CASE WHEN i % 10 > 0 THEN '{}' END, {key},
            i, i, 1, {position} FROM n;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
        INSERT INTO access_pending (kind, name, position_seq, last_seq) SELECT 'token', 'name-' || i, i, i FROM n;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
        INSERT INTO refresh_tokens (hash, family, account, service, scope, issued_at_us, expires_at_us)
        SELECT {key}, {id}, 'name-' || i, 's', '', i, i FROM n;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
        INSERT INTO repository_usage (repository, path, bytes, counted_seq) SELECT {id}, 'group/project-' || i, i, i FROM n;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}), r (id) AS (VALUES (1), (2), (3), (4))
        INSERT INTO retention_trash (repository, digest, tag, rule, taken_at_us, due_at_us)
        SELECT {repository}, {key}, 'tag-' || i, 'rule', i, i FROM n, r;
";

pub(super) async fn fill(metadata: &Metadata) {
    let hex = |digits: u32, number: &str| match metadata.db.dialect() {
        Dialect::Sqlite => format!("unhex(printf('%0{digits}x', {number}))"),
        Dialect::Postgres => format!("decode(lpad(to_hex({number}), {digits}, '0'), 'hex')"),
    };
    let text = FILL
        .replace("{key}", &hex(66, "i"))
        .replace("{id}", &hex(32, "i"))
        .replace("{repository}", &hex(32, "r.id"))
        .replace("{one}", &hex(66, "1"))
        .replace("{position}", "CASE WHEN i % 1000 <> 0 THEN i END")
        .replace("{rows}", &ROWS.to_string());
    metadata.db.script(text.leak()).await.unwrap();
}
