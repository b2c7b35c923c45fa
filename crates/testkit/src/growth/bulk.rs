//! Rows in bulk: prepared inserts in large transactions on SQLite, COPY on PostgreSQL.
//! Guards: secondary indexes are those of the schema, made again by the texts that the database itself keeps.

use std::path::Path;

use anyhow::{Context as _, ensure};
use futures_util::pin_mut;
use rusqlite::{Connection, params_from_iter, types::Value};
use tokio_postgres::{
    NoTls,
    binary_copy::BinaryCopyInWriter,
    types::{ToSql, Type},
};

use super::{Columns, Growth, Kind, TABLES};
use crate::{Field, SiteDatabase};

/// Rows handed over at a time.
const BATCH: usize = 1_000;

/// The database of a stopped site.
pub(super) struct Bulk<'a> {
    database: &'a SiteDatabase,
    data: &'a Path,
}

impl<'a> Bulk<'a> {
    pub(super) fn new(database: &'a SiteDatabase, data: &'a Path) -> Self {
        Self { database, data }
    }

    /// How many rows were inserted.
    pub(super) async fn fill(&self, growth: &Growth) -> anyhow::Result<u64> {
        match self.database {
            SiteDatabase::Embedded => {
                let (path, growth) = (self.data.join("metadata.db"), growth.clone());
                tokio::task::spawn_blocking(move || fill_sqlite(&path, &growth)).await?
            }
            SiteDatabase::Postgres(url) => fill_postgres(url, growth).await,
        }
    }
}

fn fill_sqlite(path: &Path, growth: &Growth) -> anyhow::Result<u64> {
    const INDEXES: &str =
        "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL AND tbl_name = ?1";
    let connection = Connection::open(path)?;
    // Nothing here has to outlive a crash: the site is stopped, and a failed run is thrown away.
    connection.execute_batch(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE; \
         PRAGMA cache_size = -500000;",
    )?;
    let mut inserted = 0;
    for (table, columns) in TABLES {
        let indexes: Vec<(String, String)> = connection
            .prepare(INDEXES)?
            .query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        for (name, _) in &indexes {
            connection.execute_batch(&format!("DROP INDEX {name}"))?;
        }
        connection.execute_batch("BEGIN")?;
        let marks = vec!["?"; columns.len()].join(", ");
        let mut insert =
            connection.prepare(&format!("INSERT INTO {table} ({}) VALUES ({marks})", names(columns)))?;
        growth.rows(table, &mut |row| {
            insert.execute(params_from_iter(row.into_iter().map(sqlite_value)))?;
            inserted += 1;
            Ok(())
        })?;
        connection.execute_batch("COMMIT")?;
        for (_, sql) in &indexes {
            connection.execute_batch(sql)?;
        }
    }
    let sound: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    ensure!(sound == "ok", "the filled database is not sound: {sound}");
    connection.execute_batch("PRAGMA journal_mode = WAL")?;
    Ok(inserted)
}

fn sqlite_value(field: Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Int(number) => Value::Integer(number),
        Field::Text(text) => Value::Text(text),
        Field::Bytes(bytes) => Value::Blob(bytes),
    }
}

async fn fill_postgres(url: &str, growth: &Growth) -> anyhow::Result<u64> {
    // Those of constraints stay: rows come in the order of the key, and it is the key that is to be kept.
    const INDEXES: &str = "SELECT indexname::text, indexdef FROM pg_indexes WHERE tablename = $1 AND schemaname = 'public' \
         AND NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conname = indexname)";
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let connection = tokio::spawn(connection);
    client.batch_execute("SET maintenance_work_mem = '512MB'; SET synchronous_commit = off").await?;
    let mut inserted = 0;
    for (table, columns) in TABLES {
        let indexes = client.query(INDEXES, &[&table]).await?;
        for index in &indexes {
            client.batch_execute(&format!("DROP INDEX {}", index.get::<_, &str>(0))).await?;
        }
        inserted += copy(&client, table, columns, growth).await?;
        for index in &indexes {
            client.batch_execute(index.get(1)).await?;
        }
    }
    client
        .batch_execute(
            "SELECT setval(pg_get_serial_sequence('repositories', 'id'), (SELECT MAX(id) FROM repositories))",
        )
        .await?;
    // As autovacuum leaves a database that has come to this over months.
    client.batch_execute("VACUUM ANALYZE").await?;
    drop(client);
    connection.await??;
    Ok(inserted)
}

async fn copy(
    client: &tokio_postgres::Client,
    table: &'static str,
    columns: Columns,
    growth: &Growth,
) -> anyhow::Result<u64> {
    let sink = client.copy_in(&format!("COPY {table} ({}) FROM STDIN BINARY", names(columns))).await?;
    let types: Vec<Type> = columns
        .iter()
        .map(|(_, kind)| match kind {
            Kind::Int => Type::INT8,
            Kind::Text => Type::TEXT,
            Kind::Bytes => Type::BYTEA,
        })
        .collect();
    let writer = BinaryCopyInWriter::new(sink, &types);
    pin_mut!(writer);
    let (sender, mut batches) = tokio::sync::mpsc::channel::<Vec<Vec<Field>>>(4);
    let growth = growth.clone();
    let making = tokio::task::spawn_blocking(move || {
        let mut batch = Vec::with_capacity(BATCH);
        growth.rows(table, &mut |row| {
            batch.push(row);
            if batch.len() == BATCH {
                sender.blocking_send(std::mem::take(&mut batch)).context("the copy has ended")?;
            }
            Ok(())
        })?;
        sender.blocking_send(batch).context("the copy has ended")
    });
    while let Some(batch) = batches.recv().await {
        for row in batch {
            let params: Vec<&(dyn ToSql + Sync)> =
                row.iter().zip(columns).map(|(field, (_, kind))| postgres_value(field, *kind)).collect();
            writer.as_mut().write(&params).await?;
        }
    }
    making.await??;
    Ok(writer.as_mut().finish().await?)
}

fn postgres_value(field: &Field, kind: Kind) -> &(dyn ToSql + Sync) {
    match field {
        Field::Int(number) => number,
        Field::Text(text) => text,
        Field::Bytes(bytes) => bytes,
        Field::Null => match kind {
            Kind::Int => &None::<i64>,
            Kind::Text => &None::<String>,
            Kind::Bytes => &None::<Vec<u8>>,
        },
    }
}

fn names(columns: Columns) -> String {
    columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}
