//! `twinport db …`.

use serde::Serialize;
use twinport_server::admin::{AcceptedLoss, DatabaseStatus, NodeStatus};

use crate::{
    admin_client::{AdminClient, load},
    arguments::{AcceptLossArguments, MigrateArguments, Target},
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

/// One step of the schema, for programs.
#[derive(Serialize)]
struct Step {
    number: i64,
    name: String,
    state: &'static str,
}

pub(super) async fn migrate(arguments: &MigrateArguments) -> anyhow::Result<()> {
    let config = load(&arguments.target.site, None, false)?;
    let before = twinport_server::migrate(&config, true).await?;
    if !arguments.dry_run {
        twinport_server::migrate(&config, false).await?;
    }
    let steps: Vec<Step> = before
        .into_iter()
        .map(|change| Step {
            number: change.number,
            name: change.name,
            state: match (change.applied, arguments.dry_run) {
                (true, _) => "applied before",
                (false, true) => "pending",
                (false, false) => "applied",
            },
        })
        .collect();
    show(arguments.target.output, &steps, |steps| {
        let rows =
            steps.iter().map(|step| [step.number.to_string(), step.name.clone(), step.state.to_owned()]);
        columns(["SCHEMA", "CHANGE", "STATE"], rows)
    })
}

pub(super) async fn accept_loss(arguments: &AcceptLossArguments) -> anyhow::Result<()> {
    if !arguments.yes {
        anyhow::bail!(
            "this gives up for good what the database lost, and sites that have it will have to be removed and joined again: \
             say --yes to mean it"
        );
    }
    let target = &arguments.target;
    let client = AdminClient::choose(&target.site)?;
    let accepted: AcceptedLoss = client.post("/api/v1/database/accept-loss", &()).await?;
    show(target.output, &accepted, |accepted| {
        format!(
            "This site takes writes again, after event {}. What came after it is lost.\n\
             Sites that have more stop it again and are named: `twinport site remove NAME`, then join them anew.",
            accepted.log_head_seq
        )
    })
}
