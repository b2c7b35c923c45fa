//! `twinport repo …`.

use std::io::{IsTerminal as _, Write as _};

use anyhow::bail;
use reqwest::Method;
use twinport_server::admin::{RenameRequest, Repositories, TagEntry, Tags};

use crate::{
    admin_client::AdminClient,
    arguments::{DeleteArguments, RenameArguments, RepositoryArguments, Target},
    output::{columns, say, short, show},
};

pub(super) async fn list(target: &Target) -> anyhow::Result<()> {
    let client = AdminClient::choose(&target.site)?;
    let mut names: Vec<String> = Vec::new();
    let mut after = String::new();
    loop {
        let page: Repositories = client.get(&format!("/api/v1/repositories{after}")).await?;
        names.extend(page.repositories);
        let Some(next) = page.next else { break };
        after = format!("?after={}", query(&next));
    }
    show(target.output, &names, |names| {
        if names.is_empty() {
            return "No repositories yet: push an image to make one.".to_owned();
        }
        names.join("\n")
    })
}

pub(super) async fn tags(arguments: &RepositoryArguments) -> anyhow::Result<()> {
    let client = AdminClient::choose(&arguments.target.site)?;
    let base = format!("/api/v1/tags?repository={}", query(&arguments.repository));
    let mut tags: Vec<TagEntry> = Vec::new();
    let mut after = String::new();
    loop {
        let page: Tags = client.get(&format!("{base}{after}")).await?;
        tags.extend(page.tags);
        let Some(next) = page.next else { break };
        after = format!("&after={}", query(&next));
    }
    show(arguments.target.output, &tags, |tags| {
        let rows = tags.iter().map(|tag| {
            let digest = tag.digest.as_deref().map(short).unwrap_or_default();
            [tag.name.clone(), digest, tag.media_type.clone().unwrap_or_default()]
        });
        columns(["TAG", "DIGEST", "MEDIA TYPE"], rows)
    })
}

pub(super) async fn rename(arguments: RenameArguments) -> anyhow::Result<()> {
    let client = AdminClient::choose(&arguments.target.site)?;
    let request = RenameRequest { from: arguments.from, to: arguments.to };
    client.order(Method::POST, "/api/v1/repositories/rename", Some(&request)).await?;
    show(arguments.target.output, &request, |request| {
        format!("{} is called {} from now on.", request.from, request.to)
    })
}

pub(super) async fn delete(arguments: &DeleteArguments) -> anyhow::Result<()> {
    let client = AdminClient::choose(&arguments.target.site)?;
    let name = &arguments.repository;
    if !arguments.yes && !confirmed(name)? {
        bail!("nothing was deleted");
    }
    let path = format!("/api/v1/repositories?repository={}", query(name));
    client.order::<()>(Method::DELETE, &path, None).await?;
    show(arguments.target.output, &serde_json::json!({ "deleted": name }), |_| format!("{name} is deleted."))
}

fn confirmed(name: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("deleting {name} removes it from every site: say --yes to mean it");
    }
    let mut out = std::io::stdout().lock();
    write!(out, "Delete {name} with all its tags, here and on every site that follows? Type its name: ")?;
    out.flush()?;
    drop(out);
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if answer.trim() != name {
        say("That is not its name.");
        return Ok(false);
    }
    Ok(true)
}

/// A value of a query; names hold nothing else that a query could misread.
fn query(value: &str) -> String {
    url::form_urlencoded::byte_serialize(value.as_bytes()).collect()
}
