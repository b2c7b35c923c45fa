//! `twinport site …`.

use anyhow::{Context as _, bail};
use twinport_geo::{SiteStanding, SitesStatus};
use twinport_metadata::SiteState;
use twinport_server::admin::{AddSiteRequest, AddedSite, JoinSiteRequest, JoinedSite, OwnSite, RemovedSite};

use crate::{
    admin_client::AdminClient,
    arguments::{AddArguments, Format, JoinArguments, RemoveArguments, ShowArguments, Target},
    output::{columns, complain, facts, or_unknown, say, show as show_result},
    time::{moment, span},
};

pub(super) async fn add(arguments: AddArguments) -> anyhow::Result<()> {
    let client = AdminClient::choose(&arguments.target.site)?;
    let request = AddSiteRequest {
        name: arguments.name,
        own_name: arguments.own_name,
        url: arguments.url,
        no_pin: arguments.no_pin,
        lifetime_seconds: arguments.expires.map(|minutes| minutes * 60),
    };
    let added = add_site(&client, &request).await?;
    if arguments.target.output == Format::Table {
        // The token alone on standard output: `TOKEN=$(twinport site add tokyo)` works.
        complain(&format!(
            "A token for {}, good for one join until {}. On the new site:\n  twinport site join --token …",
            added.site,
            moment(added.expires_at_us)
        ));
    }
    show_result(arguments.target.output, &added, |added| added.token.clone())
}

/// Makes a join token.
pub(crate) async fn add_site(client: &AdminClient, request: &AddSiteRequest) -> anyhow::Result<AddedSite> {
    client.post("/api/v1/sites", request).await
}

pub(super) async fn join(arguments: JoinArguments) -> anyhow::Result<()> {
    let token = match arguments.token.as_str() {
        "-" => {
            std::io::read_to_string(std::io::stdin()).context("cannot read the token from standard input")?
        }
        token => token.to_owned(),
    };
    let client = AdminClient::choose(&arguments.target.site)?;
    let joined = join_site(&client, &JoinSiteRequest { token: token.trim().to_owned() }).await?;
    show_result(arguments.target.output, &joined, |joined| {
        let next = if joined.following {
            "It follows from now on: `twinport geo status` shows how far it is."
        } else {
            "Replication is switched off here: set geo.replication.enabled and restart."
        };
        format!(
            "{} is a secondary of {} at {}.\n{next}",
            joined.site, joined.primary_name, joined.primary_url
        )
    })
}

/// Joins the site behind `client` to the token's primary.
pub(crate) async fn join_site(client: &AdminClient, request: &JoinSiteRequest) -> anyhow::Result<JoinedSite> {
    client.post("/api/v1/sites/join", request).await
}

pub(super) async fn list(target: &Target) -> anyhow::Result<()> {
    let client = AdminClient::choose(&target.site)?;
    let (own, status): (OwnSite, SitesStatus) =
        tokio::try_join!(client.get("/api/v1/site"), client.get("/api/v1/sites"))?;
    show_result(target.output, &status, |status| table(&own, status))
}

/// This site first, then its primary where it has one, then every other site.
fn table(own: &OwnSite, status: &SitesStatus) -> String {
    let name = own.name.clone().unwrap_or_else(|| "(unnamed)".to_owned());
    let mut rows = vec![[
        format!("{name} (here)"),
        own.role.clone(),
        "joined".to_owned(),
        "-".to_owned(),
        own.url.clone(),
    ]];
    if let Some(primary) = &own.primary_name {
        let url = own.primary_url.clone().unwrap_or_default();
        rows.push([primary.clone(), "primary".to_owned(), "joined".to_owned(), "-".to_owned(), url]);
    }
    let own_incarnation = own.incarnation.as_str();
    let others = status.sites.iter().filter(|standing| {
        standing.site.incarnation.to_string() != own_incarnation
            && Some(&standing.site.name) != own.primary_name.as_ref()
    });
    rows.extend(others.map(row));
    columns(["NAME", "ROLE", "STATE", "HEARD", "URL"], rows)
}

fn row(standing: &SiteStanding) -> [String; 5] {
    let site = &standing.site;
    let state = match site.state {
        SiteState::Joined => "joined",
        SiteState::Removed => "removed",
    };
    let heard = standing.heard_ago_us.map_or_else(|| "never".to_owned(), |ago| format!("{} ago", span(ago)));
    let url = site.internal_url.clone().or_else(|| site.external_url.clone()).unwrap_or_default();
    [site.name.clone(), "secondary".to_owned(), state.to_owned(), heard, url]
}

pub(super) async fn show(arguments: ShowArguments) -> anyhow::Result<()> {
    let client = AdminClient::choose(&arguments.target.site)?;
    let own: OwnSite = client.get("/api/v1/site").await?;
    let Some(name) = arguments.name.filter(|name| Some(name) != own.name.as_ref()) else {
        return show_result(arguments.target.output, &own, own_facts);
    };
    let status: SitesStatus = client.get("/api/v1/sites").await?;
    let Some(standing) = status.sites.into_iter().find(|standing| standing.site.name == name) else {
        bail!("no site is called {name}: `twinport site list` shows those that are");
    };
    show_result(arguments.target.output, &standing, standing_facts)
}

fn own_facts(own: &OwnSite) -> String {
    let mut rows = vec![
        ("name", own.name.clone().unwrap_or_else(|| "(unnamed)".to_owned())),
        ("role", own.role.clone()),
        ("URL", own.url.clone()),
        ("data directory", own.data_dir.clone()),
        ("database", own.database.clone()),
        ("process", own.pid.to_string()),
        ("version", own.version.clone()),
        ("incarnation", own.incarnation.clone()),
        ("federation", own.federation.clone()),
    ];
    if let (Some(name), Some(url)) = (&own.primary_name, &own.primary_url) {
        rows.push(("primary", format!("{name} at {url}")));
    }
    if let Some(reason) = &own.halted {
        rows.push(("writes", format!("stopped: {reason}")));
    }
    facts(rows)
}

fn standing_facts(standing: &SiteStanding) -> String {
    let [name, role, state, heard, url] = row(standing);
    let mut rows = vec![
        ("name", name),
        ("role", role),
        ("state", state),
        ("URL", url),
        ("heard of", heard),
        ("incarnation", standing.site.incarnation.to_string()),
        ("joined", moment(standing.site.joined_at_us)),
        ("events behind", or_unknown(standing.behind_events)),
    ];
    if let Some(at_us) = standing.site.removed_at_us {
        rows.push(("removed", moment(at_us)));
    }
    facts(rows)
}

pub(super) async fn remove(arguments: RemoveArguments) -> anyhow::Result<()> {
    let client = AdminClient::choose(&arguments.target.site)?;
    let removed: RemovedSite = client.delete(&format!("/api/v1/sites/{}", segment(&arguments.name)?)).await?;
    show_result(arguments.target.output, &removed, |removed| {
        format!("{} is removed: its credentials are refused from now on.", removed.site)
    })?;
    if arguments.target.output == Format::Table {
        say(
            "Its copy stays where it is, and serves what it has; delete its data directory when it is not needed.",
        );
    }
    Ok(())
}

/// A name that can stand in a path as it is.
fn segment(name: &str) -> anyhow::Result<&str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
    if name.is_empty() || !name.chars().all(plain) {
        bail!("{name:?} is no site name: `twinport site list` shows those that are");
    }
    Ok(name)
}
