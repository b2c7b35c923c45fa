//! `twinport maintenance …`.

use twinport_server::admin::Maintenance;

use crate::{
    admin_client::AdminClient,
    arguments::{MaintenanceCommand, Target},
    output::show,
};

const PATH: &str = "/api/v1/maintenance";

pub(super) async fn run(command: MaintenanceCommand) -> anyhow::Result<()> {
    match command {
        MaintenanceCommand::On(arguments) => {
            set(&arguments.target, Maintenance { on: true, reason: arguments.reason }).await
        }
        MaintenanceCommand::Off(target) => set(&target, Maintenance { on: false, reason: None }).await,
        MaintenanceCommand::Status(target) => {
            let state = AdminClient::choose(&target.site)?.get(PATH).await?;
            show(target.output, &state, text)
        }
    }
}

async fn set(target: &Target, wanted: Maintenance) -> anyhow::Result<()> {
    let state: Maintenance = AdminClient::choose(&target.site)?.post(PATH, &wanted).await?;
    show(target.output, &state, text)
}

fn text(state: &Maintenance) -> String {
    match &state.reason {
        Some(reason) => {
            format!("This site is in maintenance mode ({reason}): pulls go on, pushes are told to come back.")
        }
        None => "This site takes writes.".to_owned(),
    }
}
