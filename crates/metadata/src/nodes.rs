//! The nodes of a site: each is one run of one process, and says every few seconds that it is there.
//! Guards: nothing is decided by a node's absence but by leases; this is for people, and for readers that give way.

use uuid::Uuid;

use crate::{
    Metadata, Result,
    db::{Row, Value},
};

/// A node that is not heard of for this long counts as gone (µs).
pub const NODE_SILENCE_US: i64 = 10_000_000;
/// Nodes that have been gone for this long are forgotten (µs): an hour.
const FORGET_AFTER_US: i64 = 3_600 * 1_000_000;

/// A node as its site knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    pub id: Uuid,
    pub name: String,
    pub version: String,
    /// µs since the epoch, UTC, by the database's clock.
    pub started_at_us: i64,
    /// How long ago it said that it is there (µs).
    pub silent_us: i64,
    /// It is the node that was asked.
    pub is_this: bool,
}

impl NodeRecord {
    /// Whether it was heard of lately.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.silent_us < NODE_SILENCE_US
    }
}

impl Metadata {
    /// The id of this node's run.
    #[must_use]
    pub fn node(&self) -> Uuid {
        self.node
    }

    /// Says that this node is there (on SQLite there is no other to hear it), and whether clients want something of it; forgets nodes that are long gone.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn node_is_here(&self, name: &str, version: &str, busy: bool) -> Result<()> {
        const HERE: &str = "INSERT INTO nodes (id, name, version, started_at_us, seen_at_us, busy) \
             VALUES ($1, $2, $3, {now $4}, {now $4}, $5) \
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, seen_at_us = excluded.seen_at_us, busy = excluded.busy";
        const FORGET: &str = "DELETE FROM nodes WHERE seen_at_us < {now $1} - $2";
        if self.is_alone() {
            return Ok(());
        }
        let (name, version) = (name.to_owned(), version.to_owned());
        let id = self.node;
        self.db
            .reserved()
            .write(move |tx| {
                let clock = tx.lease_clock();
                let here: Vec<Value> = vec![
                    id.into(),
                    name.as_str().into(),
                    version.as_str().into(),
                    clock.clone(),
                    busy.into(),
                ];
                Box::pin(async move {
                    tx.commit_lazily().await?;
                    tx.send(HERE, here).await?;
                    tx.send(FORGET, vec![clock, FORGET_AFTER_US.into()]).await
                })
            })
            .await
    }

    /// Says that this node goes, and hands its leases to whoever asks next.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn node_leaves(&self) -> Result<()> {
        const LEAVE: &str = "DELETE FROM nodes WHERE id = $1";
        const GIVE: &str = "UPDATE leases SET until_us = 0 WHERE holder = $1";
        if self.is_alone() {
            return Ok(());
        }
        let id = self.node;
        self.db
            .write(move |tx| {
                Box::pin(async move {
                    tx.send(LEAVE, vec![id.into()]).await?;
                    tx.send(GIVE, vec![id.into()]).await
                })
            })
            .await
    }

    /// Ends what an earlier run held that has certainly ended.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn succeed(&self, earlier: Uuid) -> Result<()> {
        const GONE: &str = "DELETE FROM nodes WHERE id = $1";
        const JOBS: &str = "UPDATE leases SET until_us = 0 WHERE holder = $1";
        const NUMBERING: &str = "UPDATE log_head SET lease_until_us = 0 WHERE id = 1 AND lease_holder = $1";
        const REPOSITORIES: &str = "UPDATE tracked_repositories SET lease_holder = NULL, lease_until_us = 0 \
             WHERE lease_holder = $1";
        self.db
            .write(move |tx| {
                Box::pin(async move {
                    for end in [NUMBERING, GONE, JOBS, REPOSITORIES] {
                        tx.send(end, vec![earlier.into()]).await?;
                    }
                    Ok(())
                })
            })
            .await
    }

    /// Every node that was heard of in the last hour, the longest running first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn nodes(&self) -> Result<Vec<NodeRecord>> {
        const NODES: &str = "SELECT id, name, version, started_at_us, {now $1} - seen_at_us FROM nodes \
             ORDER BY started_at_us, id";
        let own = self.node;
        let read = |row: &Row| {
            let id = row.uuid(0)?;
            Ok(NodeRecord {
                id,
                name: row.text(1)?,
                version: row.text(2)?,
                started_at_us: row.int(3)?,
                silent_us: row.int(4)?.max(0),
                is_this: id == own,
            })
        };
        self.db.query(NODES, vec![self.lease_clock()]).await?.iter().map(read).collect()
    }

    /// Whether clients want something of any node of this site, as the nodes said lately.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn is_any_node_busy(&self) -> Result<bool> {
        const BUSY: &str = "SELECT 1 FROM nodes WHERE busy = 1 AND seen_at_us > {now $1} - $2 LIMIT 1";
        let params = vec![self.lease_clock(), NODE_SILENCE_US.into()];
        Ok(self.db.query_opt(BUSY, params).await?.is_some())
    }
}
