//! `twinport blobs scrub`.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use twinport_server::admin::{Finding, FindingKind, ScrubLine, ScrubReport};

use crate::{
    admin_client::AdminClient,
    arguments::Target,
    demo::progress::Meter,
    output::{bytes, columns, show},
};

pub(super) async fn scrub(target: &Target) -> anyhow::Result<ExitCode> {
    let client = AdminClient::choose(&target.site)?;
    let mut response = client.stream("/api/v1/blobs/scrub").await?;
    let meter = Meter::counting("hashed");
    let mut buffer = Vec::new();
    let mut report = None;
    while let Some(chunk) = response.chunk().await.context("the site broke the scrub off")? {
        buffer.extend_from_slice(&chunk);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            match serde_json::from_slice(&line)? {
                ScrubLine::Progress(progress) => meter.set(progress.bytes),
                ScrubLine::Report(last) => report = Some(last),
                ScrubLine::Failed(reason) => bail!("the scrub could not go on: {reason}"),
            }
        }
    }
    meter.finish();
    let report = report.context("the site ended before the scrub did")?;
    show(target.output, &report, table)?;
    Ok(if report.checked.findings == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(report: &ScrubReport) -> String {
    let checked = &report.checked;
    let summary =
        format!("{} blobs, {} hashed: {} findings", checked.blobs, bytes(checked.bytes), checked.findings);
    if report.findings.is_empty() {
        return summary;
    }
    let rows = report.findings.iter().map(|Finding { digest, kind, repositories }| {
        let kind = match kind {
            FindingKind::Altered => "altered",
            FindingKind::Missing => "missing",
            FindingKind::Unowned => "unowned",
        };
        let names: Vec<String> = repositories.iter().map(ToString::to_string).collect();
        [digest.to_string(), kind.to_owned(), names.join(", ")]
    });
    format!("{summary}\n\n{}", columns(["BLOB", "KIND", "REPOSITORIES"], rows))
}
