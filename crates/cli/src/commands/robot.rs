//! `twinport robot …`.

use twinport_server::admin::{
    AccountKind, AddAccountRequest, AddTokenRequest, AddedAccount, NewToken, Secret,
};

use super::user;
use crate::{
    admin_client::AdminClient,
    arguments::{AddRobotArguments, Format, RotateArguments, Target, UserArguments},
    output::{complain, show},
};

pub(super) async fn add(arguments: AddRobotArguments) -> anyhow::Result<()> {
    let request = AddAccountRequest {
        name: arguments.name,
        kind: AccountKind::Robot,
        description: arguments.description,
        password: None,
        roles: arguments.roles,
        expires_seconds: arguments.expires,
    };
    let target = &arguments.target;
    let client = AdminClient::choose(&target.site)?;
    let added: AddedAccount = client.post("/api/v1/accounts", &request).await?;
    if target.output == Format::Table {
        complain(&format!(
            "The secret of {}, shown this once; it signs in with it as its password:",
            added.account.name
        ));
    }
    show(target.output, &added, |added| {
        added.token.as_ref().map(|token| token.secret.0.clone()).unwrap_or_default()
    })?;
    if request.roles.is_empty() && target.output == Format::Table {
        complain(&format!(
            "It may do nothing yet: `twinport role grant robot:{} creator REPOSITORIES` changes that.",
            added.account.name
        ));
    }
    Ok(())
}

pub(super) async fn list(target: &Target) -> anyhow::Result<()> {
    user::list_kind(target, AccountKind::Robot, "No robots yet: `twinport robot add NAME` makes one.").await
}

pub(super) async fn rotate(arguments: &RotateArguments) -> anyhow::Result<()> {
    let client = AdminClient::choose(&arguments.target.site)?;
    let request = AddTokenRequest {
        account: arguments.name.clone(),
        label: String::new(),
        expires_seconds: arguments.expires,
        repositories: None,
        actions: None,
        replace: true,
    };
    let made: NewToken = client.post("/api/v1/tokens", &request).await?;
    if arguments.target.output == Format::Table {
        complain(&format!(
            "The secret of {}, shown this once; {} before it ended:",
            arguments.name,
            user::counted(made.replaced, "secret")
        ));
    }
    show(arguments.target.output, &made, |NewToken { secret: Secret(secret), .. }| secret.clone())
}

pub(super) async fn delete(arguments: &UserArguments) -> anyhow::Result<()> {
    user::delete(arguments, AccountKind::Robot).await
}
