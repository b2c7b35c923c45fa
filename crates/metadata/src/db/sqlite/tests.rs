//! Other connections, and what a crash leaves, see of every commit exactly what it wrote.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::wal_file;

/// A connection that writes by way of the layer. It keeps so little in memory that a large transaction is written before it
/// commits, and never syncs: nothing but the end of a commit brings its last page to the file.
fn writer(path: &Path) -> Connection {
    let writer =
        Connection::open_with_flags_and_vfs(path, OpenFlags::default(), wal_file::name().unwrap()).unwrap();
    writer
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA cache_size = 8; PRAGMA cache_spill = 8; \
             PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB NOT NULL);",
        )
        .unwrap();
    writer
}

fn rows(connection: &Connection) -> Vec<(i64, Vec<u8>)> {
    let mut statement = connection.prepare_cached("SELECT id, body FROM t ORDER BY id").unwrap();
    let rows = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

fn is_whole(connection: &Connection) -> bool {
    connection.query_row("PRAGMA integrity_check", (), |row| row.get::<_, String>(0)).unwrap() == "ok"
}

/// What a machine that stops at this moment, with its page cache on the disk, would find.
fn left_by_a_crash(path: &Path, copies: &Path) -> Connection {
    for end in ["", "-wal"] {
        let name = format!("{}{end}", path.file_name().unwrap().to_str().unwrap());
        std::fs::copy(path.with_file_name(&name), copies.join(name)).unwrap();
    }
    // Its index of the log is made anew, from the log alone.
    let _of_the_copy_before = std::fs::remove_file(copies.join("a.db-shm"));
    Connection::open(copies.join("a.db")).unwrap()
}

/// A transaction that changes some rows: more of them in every third.
fn change(writer: &Connection, round: i64) {
    let several = if round % 3 == 0 { 60 } else { 3 };
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    for n in 0..several {
        let id = (round * 7 + n * 13) % 101;
        let body =
            vec![u8::try_from(round % 251).unwrap(); usize::try_from(200 + (round * n) % 9000).unwrap()];
        writer
            .execute(
                "INSERT INTO t VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET body = excluded.body",
                (id, body),
            )
            .unwrap();
    }
}

#[test]
fn what_was_committed_is_in_the_file_and_what_was_rolled_back_is_not() {
    let (directory, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = directory.path().join("a.db");
    let writer = writer(&path);
    let reader = Connection::open(&path).unwrap();
    let mut committed = Vec::new();
    for round in 1..90 {
        change(&writer, round);
        // The writer reads its own pages back from the log.
        let changed = rows(&writer);
        assert!(changed != committed, "round {round}");
        assert!(rows(&reader) == committed, "round {round}: before the end of the transaction");
        if round % 5 == 0 {
            writer.execute_batch("ROLLBACK").unwrap();
        } else {
            writer.execute_batch("COMMIT").unwrap();
            committed = changed;
        }
        assert!(rows(&reader) == committed, "round {round}");
        if round % 4 == 0 {
            let crashed = left_by_a_crash(&path, copies.path());
            assert!(rows(&crashed) == committed, "round {round}: after a crash");
            assert!(is_whole(&crashed), "round {round}");
        }
        match round % 20 {
            7 => writer.execute_batch("PRAGMA wal_checkpoint(PASSIVE)").unwrap(),
            17 => writer.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap(),
            _ => {}
        }
    }
    drop((writer, reader));
    let again = Connection::open(&path).unwrap();
    assert!(rows(&again) == committed);
    assert!(is_whole(&again));
}
