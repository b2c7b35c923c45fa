//! What an operator wants to know of the PostgreSQL server: whether a failover could lose what was acknowledged, and
//! how the connection is secured.

use crate::{Metadata, Result, db::Dialect};

/// A PostgreSQL server as a session sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// Such as `15.7`.
    pub version: String,
    /// Who has to have a commit before it is acknowledged; empty: nobody but the server itself.
    pub synchronous_standbys: String,
    /// Standbys that are connected to the server, synchronous or not.
    pub connected_standbys: i64,
    /// What this site's sessions wait for at a commit.
    pub synchronous_commit: String,
    /// `TLSv1.3`; none in clear.
    pub tls: Option<String>,
}

impl Metadata {
    /// The server's facts; none where the database is embedded.
    ///
    /// # Errors
    /// What the database says.
    pub async fn server_facts(&self) -> Result<Option<ServerFacts>> {
        const FACTS: &str = "SELECT current_setting('server_version'), current_setting('synchronous_standby_names'), \
             current_setting('synchronous_commit'), \
             (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl), \
             (SELECT count(*) FROM pg_stat_replication)";
        if self.db.dialect() == Dialect::Sqlite {
            return Ok(None);
        }
        let Some(row) = self.db.query_opt(FACTS, vec![]).await? else { return Ok(None) };
        Ok(Some(ServerFacts {
            version: row.text(0)?,
            synchronous_standbys: row.text(1)?.trim().to_owned(),
            connected_standbys: row.int(4)?,
            synchronous_commit: row.text(2)?,
            tls: row.opt_text(3)?,
        }))
    }
}
