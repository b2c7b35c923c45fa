//! `twinport doctor`.

use std::process::ExitCode;

use twinport_server::admin::{Check, Examination, Verdict};

use crate::{
    admin_client::{AdminClient, load},
    arguments::Target,
    output::{columns, show},
};

/// Asks the running site; where none runs, says so beside what can be told without it.
pub(super) async fn doctor(target: &Target) -> anyhow::Result<ExitCode> {
    let examination = match AdminClient::choose(&target.site) {
        Ok(client) => client.get("/api/v1/doctor").await.or_else(|error| without_site(target, &error))?,
        Err(error) => without_site(target, &error)?,
    };
    show(target.output, &examination, table)?;
    let failed = examination.checks.iter().any(|check| check.verdict == Verdict::Failed);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn without_site(target: &Target, error: &anyhow::Error) -> anyhow::Result<Examination> {
    let config = match load(&target.site, None, false) {
        Ok(config) => {
            let place =
                config.file.as_ref().map_or_else(|| "defaults".to_owned(), |file| file.display().to_string());
            let mut checks = vec![check("config", Verdict::Ok, place)];
            checks.extend(
                config.warnings.into_iter().map(|warning| check("config", Verdict::Warning, warning)),
            );
            checks
        }
        Err(error) => vec![check("config", Verdict::Failed, format!("{error:#}"))],
    };
    let mut checks = config;
    checks.push(check("site", Verdict::Failed, format!("{error:#}")));
    Ok(Examination { checks })
}

fn check(area: &str, verdict: Verdict, message: String) -> Check {
    Check { area: area.to_owned(), verdict, message }
}

fn table(examination: &Examination) -> String {
    let rows = examination.checks.iter().map(|check| {
        let verdict = match check.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Failed => "FAILED",
        };
        [check.area.clone(), verdict.to_owned(), check.message.clone()]
    });
    columns(["AREA", "VERDICT", "FOUND"], rows)
}
