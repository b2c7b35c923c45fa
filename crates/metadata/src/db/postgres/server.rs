//! Whether a server may be used: a primary that takes writes, keeps what it commits, and still has what this node saw.

use deadpool_postgres::ClientWrapper;

use super::{continuity::Continuity, options::PostgresHost};
use crate::{Error, Result};

const OLDEST_VERSION: i64 = 15;

const FACTS: &str = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only'), current_setting('fsync'), \
     CAST(current_setting('server_version_num') AS BIGINT), current_setting('synchronous_commit'), \
     (SELECT CAST(system_identifier AS TEXT) FROM pg_control_system()), \
     CASE WHEN pg_is_in_recovery() THEN '' ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END, \
     CAST(pg_postmaster_start_time() AS TEXT)";

/// One life of a server: while all of these stay the same, nothing that it committed can be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerLife {
    system: String,
    timeline: String,
    started: String,
}

/// Looks at a server before a session with it is used.
///
/// # Errors
/// [`Error::Refused`] for one on which an acknowledged write could be lost, or none could be made.
pub(super) async fn meet(client: &ClientWrapper, host: &PostgresHost, continuity: &Continuity) -> Result<()> {
    let facts = client.query_one(FACTS, &[]).await?;
    if facts.try_get(0)? {
        return Err(Error::Refused(format!(
            "the PostgreSQL server at {host} is a standby and takes no writes: point database.host at its primary \
             server, or list both there"
        )));
    }
    let read_only: &str = facts.try_get(1)?;
    if read_only == "on" {
        return Err(Error::Refused(format!(
            "the PostgreSQL server at {host} takes no writes (default_transaction_read_only is on): switch it off, or \
             point database.host at the server that takes them"
        )));
    }
    let fsync: &str = facts.try_get(2)?;
    if fsync == "off" {
        return Err(Error::Refused(format!(
            "the PostgreSQL server at {host} runs with fsync=off and would lose acknowledged pushes: set fsync=on"
        )));
    }
    let version = facts.try_get::<_, i64>(3)? / 10_000;
    if version < OLDEST_VERSION {
        return Err(Error::Refused(format!(
            "the PostgreSQL server at {host} is version {version}: {OLDEST_VERSION} or later is needed"
        )));
    }
    let synchronous: &str = facts.try_get(4)?;
    if synchronous != "on" {
        return Err(Error::Refused(format!(
            "a session with {host} has synchronous_commit={synchronous}, although on was asked for: a connection pooler \
             in between must pass on the startup parameter `options`, and pool by session"
        )));
    }
    let life =
        ServerLife { system: facts.try_get(5)?, timeline: facts.try_get(6)?, started: facts.try_get(7)? };
    continuity.hold_against(client, host, life).await
}
