//! `twinport token …`.

use twinport_server::admin::{AccessToken, AddTokenRequest, NewToken, Secret, Tokens};

use crate::{
    admin_client::AdminClient,
    arguments::{CreateTokenArguments, Format, ListTokensArguments, RevokeTokenArguments},
    output::{columns, complain, show},
    time::moment,
};

pub(super) async fn create(arguments: CreateTokenArguments) -> anyhow::Result<()> {
    let request = AddTokenRequest {
        account: arguments.account,
        label: arguments.label,
        expires_seconds: arguments.expires,
        repositories: arguments.repositories,
        actions: arguments.actions,
        replace: false,
    };
    let client = AdminClient::choose(&arguments.target.site)?;
    let made: NewToken = client.post("/api/v1/tokens", &request).await?;
    if arguments.target.output == Format::Table {
        complain(&format!(
            "A token of {}, shown this once; it {}. `twinport token revoke {}` ends it.",
            made.token.account,
            expiry(&made.token),
            made.token.id
        ));
    }
    show(arguments.target.output, &made, |NewToken { secret: Secret(secret), .. }| secret.clone())
}

pub(super) async fn list(arguments: &ListTokensArguments) -> anyhow::Result<()> {
    let client = AdminClient::choose(&arguments.target.site)?;
    let of = arguments.account.as_ref().map_or_else(String::new, |account| format!("?account={account}"));
    let Tokens { tokens } = client.get(&format!("/api/v1/tokens{of}")).await?;
    show(arguments.target.output, &tokens, |tokens| {
        if tokens.is_empty() {
            return "No tokens.".to_owned();
        }
        token_rows(tokens)
    })
}

pub(super) async fn revoke(arguments: &RevokeTokenArguments) -> anyhow::Result<()> {
    let client = AdminClient::choose(&arguments.target.site)?;
    let ended: AccessToken = client.delete(&format!("/api/v1/tokens/{}", arguments.id)).await?;
    show(arguments.target.output, &ended, |ended| {
        format!("The token {} of {} is ended.", ended.id, ended.account)
    })
}

pub(super) fn token_rows(tokens: &[AccessToken]) -> String {
    let rows = tokens.iter().map(|token| {
        let limit = token.limit.as_ref();
        let may = limit.map_or_else(
            || "all that the account may".to_owned(),
            |limit| format!("{} on {}", limit.actions, limit.repositories),
        );
        [token.id.to_string(), token.account.to_string(), token.label.clone(), expiry(token), may]
    });
    columns(["ID", "ACCOUNT", "LABEL", "EXPIRY", "MAY"], rows)
}

fn expiry(token: &AccessToken) -> String {
    token.expires_at_us.map_or_else(|| "does not expire".to_owned(), |at| format!("expires {}", moment(at)))
}
