//! One text per query: `$N` parameters and a handful of fragments in braces, rewritten once per database.

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;

use super::value::Value;
use crate::Clock;

/// When the statement began: the same throughout it, so that plans may take it for a constant.
pub(crate) const DATABASE_NOW: &str = "CAST(EXTRACT(EPOCH FROM statement_timestamp()) * 1000000 AS BIGINT)";

/// The table whose one row says where the log ends.
const LOG_HEAD: &str = "log_head";

/// Which SQL a text is rewritten to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// The parameter of a `{now $N}`: none where the database's own clock counts, which all nodes of a site share.
    pub(crate) fn lease_clock(self, clock: &Clock) -> Value {
        match (self, clock) {
            (Self::Postgres, Clock::System) => Value::Null,
            _ => clock.now_us().into(),
        }
    }
}

/// Rewritten texts, by the address of the static text they came from.
#[derive(Debug)]
pub(super) struct Texts {
    dialect: Dialect,
    known: RwLock<HashMap<(usize, usize), Known>>,
}

/// A rewritten text.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) text: Arc<str>,
    /// Whether it names the head of the log.
    pub(super) names_head: bool,
}

impl Texts {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, known: RwLock::default() }
    }

    pub(super) fn of(&self, sql: &'static str) -> Arc<str> {
        self.known(sql).text
    }

    pub(super) fn known(&self, sql: &'static str) -> Known {
        let key = (sql.as_ptr() as usize, sql.len());
        if let Some(known) = self.known.read().get(&key) {
            return known.clone();
        }
        let text = rewrite(sql, self.dialect);
        let known = Known { names_head: text.contains(LOG_HEAD), text: text.into() };
        self.known.write().insert(key, known.clone());
        known
    }
}

/// `{for …}` vanishes on SQLite, where one writer excludes all others; `{any $N}` is a set of byte strings;
/// `{now $N}` is the time that leases are held by (µs since the epoch).
fn rewrite(sql: &str, dialect: Dialect) -> String {
    let mut out = String::with_capacity(sql.len() + 32);
    let mut rest = sql;
    while let Some(at) = rest.find(['$', '{']) {
        out.push_str(&rest[..at]);
        let tail = &rest[at..];
        if let Some(number) = tail.strip_prefix('$') {
            out.push(if dialect == Dialect::Sqlite { '?' } else { '$' });
            rest = number;
            continue;
        }
        let end = tail.find('}').unwrap_or(tail.len() - 1);
        let fragment = &tail[1..end];
        if let Some(number) = fragment.strip_prefix("now $") {
            out.push_str(&match dialect {
                Dialect::Sqlite => format!("?{number}"),
                Dialect::Postgres => format!("COALESCE(${number}, {DATABASE_NOW})"),
            });
            rest = &tail[end + 1..];
            continue;
        }
        match (fragment.strip_prefix("any $"), dialect) {
            (Some(number), Dialect::Sqlite) => {
                out.push_str("IN (SELECT unhex(value) FROM json_each(?");
                out.push_str(number);
                out.push_str("))");
            }
            (Some(number), Dialect::Postgres) => {
                out.push_str("= ANY($");
                out.push_str(number);
                out.push(')');
            }
            (None, Dialect::Sqlite) => {}
            (None, Dialect::Postgres) => out.push_str(&fragment.to_uppercase()),
        }
        rest = &tail[end + 1..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_fragments_are_rewritten_for_each_database() {
        let sql = "SELECT a FROM t WHERE a = $1 AND d {any $12} {for update skip locked}";
        assert_eq!(
            rewrite(sql, Dialect::Sqlite),
            "SELECT a FROM t WHERE a = ?1 AND d IN (SELECT unhex(value) FROM json_each(?12)) "
        );
        assert_eq!(
            rewrite(sql, Dialect::Postgres),
            "SELECT a FROM t WHERE a = $1 AND d = ANY($12) FOR UPDATE SKIP LOCKED"
        );
    }
}
