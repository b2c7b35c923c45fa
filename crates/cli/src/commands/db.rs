//! `twinport db status`.

use twinport_server::admin::{DatabaseStatus, NodeStatus};

use crate::{
    admin_client::AdminClient,
    arguments::Target,
    output::{bytes, columns, facts, show},
    time::span,
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
        let facts = facts(rows);
        if status.nodes.is_empty() { facts } else { format!("{facts}\n\n{}", nodes(&status.nodes)) }
    })
}

fn nodes(nodes: &[NodeStatus]) -> String {
    let rows = nodes.iter().map(|node| {
        let jobs: Vec<&str> = node.jobs.iter().map(|job| job.job.as_str()).collect();
        [
            if node.this { format!("{} (this one)", node.name) } else { node.name.clone() },
            node.version.clone(),
            if node.live { "live".to_owned() } else { format!("silent for {}", span(node.silent_us)) },
            if jobs.is_empty() { "-".to_owned() } else { jobs.join(", ") },
        ]
    });
    columns(["NODE", "VERSION", "STATE", "JOBS"], rows)
}
