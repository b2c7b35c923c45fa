//! A PostgreSQL database whose tables lie on a disk of the test's choosing, while the server's log stays where it is.

use std::{
    os::unix::fs::{MetadataExt as _, chown},
    path::Path,
};

use anyhow::Context as _;
use tokio_postgres::NoTls;

use crate::strace::postgres_processes;

/// Moves a database that nobody uses to the file system below `directory`.
///
/// # Errors
/// When the server refuses, or does not run on this machine.
pub async fn move_postgres_database(url: &str, directory: &Path) -> anyhow::Result<()> {
    let (server, database) = url.rsplit_once('/').context("a database in the URL")?;
    let tables = directory.join("tables");
    std::fs::create_dir(&tables)?;
    // The server writes as its own user, and wants the directory for itself.
    let process = postgres_processes(url).await?[0];
    let user = std::fs::metadata(format!("/proc/{process}"))?;
    chown(&tables, Some(user.uid()), Some(user.gid()))?;
    let (client, connection) = tokio_postgres::connect(&format!("{server}/postgres"), NoTls).await?;
    let connection = tokio::spawn(connection);
    let name = format!("{database}_disk");
    client.batch_execute(&format!("CREATE TABLESPACE {name} LOCATION '{}'", tables.display())).await?;
    // Whoever looked up the server's processes may still be on the way out.
    let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
    client.query(ended, &[&database]).await?;
    client.batch_execute(&format!("ALTER DATABASE {database} SET TABLESPACE {name}")).await?;
    drop(client);
    Ok(connection.await??)
}

/// Drops a database that [`move_postgres_database`] has moved, so that its disk can go.
///
/// # Errors
/// When the server refuses.
pub async fn drop_moved_database(url: &str) -> anyhow::Result<()> {
    let (server, database) = url.rsplit_once('/').context("a database in the URL")?;
    let (client, connection) = tokio_postgres::connect(&format!("{server}/postgres"), NoTls).await?;
    let connection = tokio::spawn(connection);
    client.batch_execute(&format!("DROP DATABASE {database} WITH (FORCE)")).await?;
    client.batch_execute(&format!("DROP TABLESPACE {database}_disk")).await?;
    drop(client);
    Ok(connection.await??)
}
