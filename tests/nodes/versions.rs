//! Nodes of this version on a schema that the next one has added to, as its first node does in an upgrade.
//! Guards: no request fails when the schema grows under nodes that run, and a node that starts on it serves.

use anyhow::ensure;
use tokio::runtime::Handle;
use twinport_testkit::Cluster;

use super::{
    Runtime, Store,
    restart::{restart_each, under_load},
    three_nodes,
};

/// What a migration may do to any table: a column that may be null, one with a default, an index, a table.
const GROW: &str = "DO $$ DECLARE t text; n bigint; BEGIN \
     SELECT count(*) INTO n FROM schema_migrations; \
     FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename <> 'schema_migrations' LOOP \
       EXECUTE format('ALTER TABLE %I ADD COLUMN %I TEXT', t, 'later_' || n); \
       EXECUTE format('ALTER TABLE %I ADD COLUMN %I BIGINT NOT NULL DEFAULT 7', t, 'counted_' || n); \
       EXECUTE format('CREATE INDEX ON %I (%I)', t, 'later_' || n); \
     END LOOP; \
     EXECUTE format('CREATE TABLE %I (id BIGINT PRIMARY KEY)', 'things_' || n); \
     INSERT INTO schema_migrations SELECT max(number) + 1, 'later things', 'none', 0 FROM schema_migrations; \
     END $$";

#[test]
fn nodes_serve_on_and_start_on_a_schema_that_a_newer_version_added_to() -> anyhow::Result<()> {
    let (folder, runtime) = (tempfile::tempdir()?, Runtime::new()?);
    let Some(cluster) = three_nodes(&runtime, &folder, "versions", Store::Directory, &[])? else {
        return Ok(());
    };
    runtime.block_on(under_load(cluster, upgrade))
}

/// The newer node's migration, and then restarts on what it left.
fn upgrade(cluster: &mut Cluster) -> anyhow::Result<()> {
    Handle::current().block_on(cluster.nodes[0].alter(GROW))?;
    restart_each(cluster)?;
    let log = cluster.nodes[0].log();
    ensure!(log.contains("the schema is newer than this binary"), "{log}");
    Ok(())
}
