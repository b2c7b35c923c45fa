//! `twinport db status`.

use twinport_server::admin::DatabaseStatus;

use crate::{
    admin_client::AdminClient,
    arguments::Target,
    output::{bytes, facts, show},
};

pub(super) async fn status(target: &Target) -> anyhow::Result<()> {
    let client = AdminClient::choose(&target.site)?;
    let status: DatabaseStatus = client.get("/api/v1/database").await?;
    show(target.output, &status, |status| {
        let mut rows = vec![
            ("database", status.backend.clone()),
            ("schema", format!("{} (this binary knows up to {})", status.schema, status.newest_schema)),
            ("last event ID", status.log_head_seq.to_string()),
            ("epoch", status.epoch.to_string()),
        ];
        if let Some(file) = &status.file {
            rows.push(("file", file.clone()));
        }
        if let Some(size) = status.bytes {
            rows.push(("size", bytes(size)));
        }
        facts(rows)
    })
}
