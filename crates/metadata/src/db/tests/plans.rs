//! Prepared statements stay prepared.

use rusqlite::{StatementStatus, params};

#[test]
fn a_hot_read_is_planned_once() {
    let directory = tempfile::tempdir().unwrap();
    let connection = rusqlite::Connection::open(directory.path().join("x.db")).unwrap();
    crate::db::sqlite::keep_plans(&connection).unwrap();
    connection.execute_batch("CREATE TABLE t (a BLOB PRIMARY KEY, b TEXT) WITHOUT ROWID").unwrap();
    let replans = |times: i64| {
        let mut statement = connection.prepare_cached("SELECT b FROM t WHERE a >= ?1 AND b LIKE ?2").unwrap();
        for index in 0..times {
            let key = index.to_be_bytes();
            let found = statement
                .query_map(params![key.as_slice(), format!("{index}%")], |_| Ok(()))
                .unwrap()
                .count();
            assert_eq!(found, 0);
        }
        statement.get_status(StatementStatus::RePrepare)
    };
    assert_eq!(replans(50), 0);
    assert_eq!(replans(50), 0);
}
