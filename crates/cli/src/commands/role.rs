//! `twinport role …`.

use twinport_server::admin::{Binding, ChangedRole, Roles};

use crate::{
    admin_client::AdminClient,
    arguments::{Format, ListRolesArguments, RoleArguments},
    output::{columns, complain, show},
};

pub(super) async fn grant(arguments: RoleArguments) -> anyhow::Result<()> {
    let RoleArguments { subject, role, repositories, target } = arguments;
    let client = AdminClient::choose(&target.site)?;
    let request = Binding { subject, role, repositories };
    let changed: ChangedRole = client.post("/api/v1/roles", &request).await?;
    if !changed.account_known && target.output == Format::Table {
        complain(
            "No account is called that yet; the role waits for one, or for a user of the htpasswd file.",
        );
    }
    show(target.output, &changed, |changed| {
        let word = if changed.changed { "is" } else { "was already" };
        let Binding { subject, role, repositories } = &changed.role;
        format!("{subject} {word} {role} on {repositories}.")
    })
}

pub(super) async fn revoke(arguments: RoleArguments) -> anyhow::Result<()> {
    let RoleArguments { subject, role, repositories, target } = arguments;
    let client = AdminClient::choose(&target.site)?;
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("subject", &String::from(subject))
        .append_pair("role", role.as_str())
        .append_pair("repositories", repositories.as_str())
        .finish();
    let changed: ChangedRole = client.delete(&format!("/api/v1/roles?{query}")).await?;
    show(target.output, &changed, |ChangedRole { role: Binding { subject, role, repositories }, .. }| {
        format!("{subject} is no longer {role} on {repositories}.")
    })
}

pub(super) async fn list(arguments: &ListRolesArguments) -> anyhow::Result<()> {
    let client = AdminClient::choose(&arguments.target.site)?;
    let of = arguments.subject.as_ref().map_or_else(String::new, |subject| {
        let text = String::from(subject.clone());
        format!("?subject={}", url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>())
    });
    let Roles { roles } = client.get(&format!("/api/v1/roles{of}")).await?;
    show(arguments.target.output, &roles, |roles| {
        if roles.is_empty() {
            return "No roles were given: `twinport role grant --help` says how.".to_owned();
        }
        let rows = roles
            .iter()
            .map(|role| [role.subject.to_string(), role.role.to_string(), role.repositories.to_string()]);
        columns(["SUBJECT", "ROLE", "REPOSITORIES"], rows)
    })
}
