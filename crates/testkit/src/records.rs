//! What a site has on record, read from its database beside the running process.
//! Guards: a test believes the record, not an answer that the process computes for it.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, bail, ensure};
use tokio_postgres::{error::SqlState, types::Type};

use crate::SiteDatabase;

/// How often statements are run again after a deadlock: as often as a node does.
const DEADLOCKS: u32 = 10;

/// One value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    Null,
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
}

impl Field {
    /// The number that it is.
    ///
    /// # Errors
    /// When it is none.
    pub fn int(&self) -> anyhow::Result<i64> {
        let Self::Int(number) = self else { bail!("{self:?} is no number") };
        Ok(*number)
    }

    /// The text that it is.
    ///
    /// # Errors
    /// When it is none.
    pub fn text(&self) -> anyhow::Result<&str> {
        let Self::Text(text) = self else { bail!("{self:?} is no text") };
        Ok(text)
    }

    /// The bytes that it is.
    ///
    /// # Errors
    /// When it is none.
    pub fn bytes(&self) -> anyhow::Result<&[u8]> {
        let Self::Bytes(bytes) = self else { bail!("{self:?} is no byte string") };
        Ok(bytes)
    }
}

/// What a query finds in the database of the site whose data directory is `data`. Nothing is written.
///
/// # Errors
/// When the database cannot be opened or refuses; for a column that is no BIGINT, TEXT or byte string.
pub(crate) async fn rows(
    database: &SiteDatabase,
    data: &Path,
    query: &str,
) -> anyhow::Result<Vec<Vec<Field>>> {
    match database {
        SiteDatabase::Embedded => {
            let (path, query) = (data.join("metadata.db"), query.to_owned());
            tokio::task::spawn_blocking(move || sqlite_rows(&path, &query)).await?
        }
        SiteDatabase::Postgres(url) => postgres_rows(url, query).await,
    }
}

fn sqlite_rows(path: &Path, query: &str) -> anyhow::Result<Vec<Vec<Field>>> {
    use rusqlite::{Connection, OpenFlags, types::ValueRef};
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .with_context(|| format!("cannot open {}", path.display()))?;
    connection.busy_timeout(Duration::from_secs(10))?;
    let mut statement = connection.prepare(query)?;
    let columns = statement.column_count();
    let mut found = statement.query([])?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let fields = (0..columns).map(|column| {
            Ok(match row.get_ref(column)? {
                ValueRef::Null => Field::Null,
                ValueRef::Integer(number) => Field::Int(number),
                ValueRef::Text(text) => Field::Text(String::from_utf8_lossy(text).into_owned()),
                ValueRef::Blob(bytes) => Field::Bytes(bytes.to_vec()),
                ValueRef::Real(number) => bail!("{number} is no integer"),
            })
        });
        rows.push(fields.collect::<anyhow::Result<Vec<_>>>()?);
    }
    Ok(rows)
}

async fn postgres_rows(url: &str, query: &str) -> anyhow::Result<Vec<Vec<Field>>> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    let found = client.query(query, &[]).await?;
    drop(client);
    connection.await??;
    found.iter().map(postgres_row).collect()
}

/// Runs statements in one transaction in a site's database in PostgreSQL, again where they lose a deadlock to the
/// site that works meanwhile, as a node does with its changes of the schema.
///
/// # Errors
/// When the database refuses, or is SQLite.
pub(crate) async fn alter(database: &SiteDatabase, statements: &str) -> anyhow::Result<()> {
    let SiteDatabase::Postgres(url) = database else { bail!("the site is not on PostgreSQL") };
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    let mut deadlocks = 0;
    while let Err(error) = client.batch_execute(statements).await {
        ensure!(error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) && deadlocks < DEADLOCKS, error);
        deadlocks += 1;
    }
    drop(client);
    Ok(connection.await??)
}

fn postgres_row(row: &tokio_postgres::Row) -> anyhow::Result<Vec<Field>> {
    let field = |index: usize| {
        let field = match *row.columns()[index].type_() {
            Type::INT8 => row.try_get::<_, Option<i64>>(index)?.map(Field::Int),
            Type::TEXT => row.try_get::<_, Option<String>>(index)?.map(Field::Text),
            Type::BYTEA => row.try_get::<_, Option<Vec<u8>>>(index)?.map(Field::Bytes),
            ref other => bail!("column {index} is {other}"),
        };
        Ok(field.unwrap_or(Field::Null))
    };
    (0..row.len()).map(field).collect()
}
