//! Every query text of this crate, read out of its sources.
//! Guards: a query that nobody thought of is judged too.

use std::{fs, path::Path};

/// Folders and files whose texts never run in a site, or are fragments.
const LEFT_OUT: [&str; 4] = ["tests", "tests.rs", "query_plans", "query_plans.rs"];
/// What only PostgreSQL is asked.
const POSTGRES_ONLY: [&str; 6] = [
    "sequencer.rs",
    "server_facts.rs",
    "db/postgres.rs",
    "db/postgres/continuity.rs",
    "db/postgres/server.rs",
    "db/postgres/session.rs",
];

/// A text as it stands in the source, templates filled in.
#[derive(Debug)]
pub(super) struct Text {
    /// Its file, from `src`.
    pub(super) file: String,
    pub(super) sql: &'static str,
    pub(super) postgres_only: bool,
}

pub(super) fn all() -> Vec<Text> {
    let mut texts = Vec::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    collect(&source, &source, &mut texts);
    texts
}

fn collect(source: &Path, folder: &Path, texts: &mut Vec<Text>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_str().unwrap();
        if LEFT_OUT.contains(&name) {
            continue;
        }
        if path.is_dir() {
            collect(source, &path, texts);
            continue;
        }
        let file = path.strip_prefix(source).unwrap().to_str().unwrap().to_owned();
        let code = fs::read_to_string(&path).unwrap();
        let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for sql in
            literals(code).into_iter().filter(|literal| is_query(literal)).flat_map(|text| filled(&text))
        {
            let postgres_only = POSTGRES_ONLY.contains(&file.as_str()) || sql.contains("pg_advisory");
            texts.push(Text { file: file.clone(), sql: sql.leak(), postgres_only });
        }
    }
}

fn is_query(literal: &str) -> bool {
    ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "WITH "].iter().any(|verb| literal.starts_with(verb))
}

/// The sequencer's templates, once for each table that they are used on.
fn filled(text: &str) -> Vec<String> {
    let text = text.replace("{NOW_US}", "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)");
    if !text.contains("{table}") {
        return vec![text];
    }
    let tables = ["repositories", "blob_links", "manifests", "tags", "tombstones", "sites", "access_records"];
    tables.iter().map(|table| text.replace("{table}", table)).collect()
}

/// The string literals of Rust code, with their line continuations joined.
fn literals(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find(['"', '/', '\'']) {
        let tail = &rest[at..];
        rest = if tail.starts_with("//") {
            tail.split_once('\n').map_or("", |(_, next)| next)
        } else if let Some(next) = tail.strip_prefix("'\"'") {
            next
        } else if let Some(text) = tail.strip_prefix('"') {
            let (literal, next) = literal(text);
            found.push(literal);
            next
        } else {
            &tail[1..]
        };
    }
    found
}

/// The literal that `text` begins with, and what comes after its closing quote.
fn literal(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let at = rest.find(['"', '\\']).expect("a string literal ends");
        value.push_str(&rest[..at]);
        let tail = &rest[at..];
        if let Some(next) = tail.strip_prefix('"') {
            return (value, next);
        }
        rest = match tail.strip_prefix("\\\n") {
            Some(next) => next.trim_start(),
            None => {
                value.push_str(&tail[..2]);
                &tail[2..]
            }
        };
    }
}

#[test]
fn literals_are_read_as_the_compiler_reads_them() {
    let code =
        "let a = \"SELECT 1 \\\n     FROM t\"; // \"SELECT no\"\nlet b = ['\"', 'x']; let c = \"a\\\"b\";";
    assert_eq!(literals(code), ["SELECT 1 FROM t", "a\\\"b"]);
}
