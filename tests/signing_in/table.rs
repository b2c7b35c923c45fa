//! The table of docs/reference/access.md: what each role may do, as a running site answers.

use anyhow::{Context as _, ensure};
use reqwest::Method;
use twinport_oci::Digest;

use super::site::{AccountSite, basic, manifest};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/access.md");
const PASSWORD: &str = "correct horse battery";
const ROLES: [&str; 5] = ["reader", "creator", "writer", "maintainer", "admin"];

/// What is tried, in this order; deletions come last.
const ACTIONS: [&str; 15] = [
    "see the repository in the catalog",
    "list tags",
    "pull a manifest by tag",
    "pull a manifest by digest",
    "pull a blob",
    "list referrers",
    "push a blob",
    "mount a blob from here into a repository of its own",
    "push a new tag",
    "push a manifest by digest, without a tag",
    "push a tag again as it is",
    "move a tag",
    "delete a tag",
    "delete a manifest",
    "delete a blob",
];

/// Tries every action as nobody, as somebody without a role, and in every role.
pub(crate) async fn roles() -> anyhow::Result<String> {
    let site = AccountSite::start("paris").await?;
    site.user("root", PASSWORD, &["admin:**"])?;
    let mut columns = vec![("nobody", None), ("no role", Some(basic("none", PASSWORD)))];
    site.user("none", PASSWORD, &["writer:own-none/**"])?;
    for role in ROLES {
        let (here, own) = (format!("{role}:{role}-app"), format!("writer:own-{role}/**"));
        let name = format!("the-{role}");
        site.user(&name, PASSWORD, &[here.as_str(), own.as_str()])?;
        columns.push((role, Some(basic(&name, PASSWORD))));
    }
    let mut table =
        format!("| | {} |\n", columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" | "));
    table.push_str(&format!("|---{}|\n", "|---".repeat(columns.len())));
    let mut rows: Vec<Vec<&str>> = Vec::new();
    for (name, authorization) in &columns {
        let short = if *name == "no role" { "none" } else { name };
        rows.push(column(&site, short, authorization.as_deref()).await?);
    }
    for (index, action) in ACTIONS.iter().enumerate() {
        let cells: Vec<&str> = rows.iter().map(|column| column[index]).collect();
        table.push_str(&format!("| {action} | {} |\n", cells.join(" | ")));
    }
    Ok(table)
}

/// What one caller may do in a repository of its own making, which somebody else filled.
async fn column(
    site: &AccountSite,
    who: &str,
    authorization: Option<&str>,
) -> anyhow::Result<Vec<&'static str>> {
    let root = basic("root", PASSWORD);
    let name = format!("{who}-app");
    let digest = site.push(&name, "latest", &root).await?;
    let other = site.push(&name, "other", &root).await?;
    let config = Digest::sha256(b"{}");
    let mut cells = Vec::new();
    for action in ACTIONS {
        let at = |rest: &str| format!("/v2/{name}/{rest}");
        let image = "application/vnd.oci.image.manifest.v1+json";
        let octets = "application/octet-stream";
        let blob = action.as_bytes().to_vec();
        let blob_path = at(&format!("blobs/uploads/?digest={}", Digest::sha256(&blob)));
        let (method, path, kind, body) = match action {
            "see the repository in the catalog" => (Method::GET, "/v2/_catalog".to_owned(), "", Vec::new()),
            "list tags" => (Method::GET, at("tags/list"), "", Vec::new()),
            "pull a manifest by tag" => (Method::GET, at("manifests/latest"), "", Vec::new()),
            "pull a manifest by digest" => (Method::GET, at(&format!("manifests/{digest}")), "", Vec::new()),
            "pull a blob" => (Method::GET, at(&format!("blobs/{config}")), "", Vec::new()),
            "list referrers" => (Method::GET, at(&format!("referrers/{digest}")), "", Vec::new()),
            "push a blob" => (Method::POST, blob_path, octets, blob),
            "mount a blob from here into a repository of its own" => {
                let path = format!("/v2/own-{who}/x/blobs/uploads/?mount={config}&from={name}");
                (Method::POST, path, "", Vec::new())
            }
            "push a new tag" => (Method::PUT, at("manifests/new"), image, manifest("latest")),
            "push a manifest by digest, without a tag" => {
                let body = manifest("untagged");
                (Method::PUT, at(&format!("manifests/{}", Digest::sha256(&body))), image, body)
            }
            "push a tag again as it is" => (Method::PUT, at("manifests/latest"), image, manifest("latest")),
            "move a tag" => (Method::PUT, at("manifests/latest"), image, manifest("moved")),
            "delete a tag" => (Method::DELETE, at("manifests/other"), "", Vec::new()),
            "delete a manifest" => (Method::DELETE, at(&format!("manifests/{other}")), "", Vec::new()),
            "delete a blob" => (Method::DELETE, at(&format!("blobs/{config}")), "", Vec::new()),
            action => anyhow::bail!("{action} is not tried"),
        };
        let answer = site.send(method, &path, authorization, kind, body).await?;
        let status = answer.status().as_u16();
        let text = answer.text().await?;
        cells.push(match (action, status) {
            ("see the repository in the catalog", 200) if text.contains(&format!("\"{name}\"")) => "yes",
            ("see the repository in the catalog", 200) => "no",
            // An upload is begun instead: that it could not be mounted tells nothing.
            ("mount a blob from here into a repository of its own", 202) => "no",
            (_, 200..=202) => "yes",
            (_, 401 | 403) => "no",
            _ => anyhow::bail!("{action} by {who}: {status} {text}"),
        });
    }
    Ok(cells)
}

/// Holds a table of the page to what was found; `TWINPORT_UPDATE_PAGES=1` writes it there.
pub(crate) fn check(name: &str, made: &str) -> anyhow::Result<()> {
    let page = std::fs::read_to_string(PAGE)?;
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let (before, rest) = page.split_once(&begin).with_context(|| format!("no {begin} in {PAGE}"))?;
    let (written, after) = rest.split_once(&end).with_context(|| format!("no {end} in {PAGE}"))?;
    if std::env::var_os("TWINPORT_UPDATE_PAGES").is_some() {
        std::fs::write(PAGE, format!("{before}{begin}{made}{end}{after}"))?;
        return Ok(());
    }
    ensure!(
        written == made,
        "docs/reference/access.md says\n{written}and the site does\n{made}run again with TWINPORT_UPDATE_PAGES=1"
    );
    Ok(())
}

/// The rules of the second table: what it is called there, and the words after `twinport rule add KIND NAME REPOSITORIES`.
const RULES: [(&str, &[&str]); 6] = [
    ("no rule", &[]),
    ("immutable-tags", &[]),
    ("create-only", &[]),
    ("maximum-size", &["--blob", "1KiB"]),
    ("quota", &["--size", "1KiB"]),
    ("foreign-urls", &["--allow", "mirror.example.com"]),
];

const RULED: [&str; 8] = [
    "push a blob of 4 KiB",
    "push a new tag",
    "push a tag again as it is",
    "move a tag",
    "push an image whose layer is at another host",
    "delete a tag",
    "delete a manifest",
    "pull",
];

/// Tries what rules are about as an admin, under each of them.
pub(crate) async fn rules() -> anyhow::Result<String> {
    let site = AccountSite::start("paris").await?;
    site.user("root", PASSWORD, &["admin:**"])?;
    let titles: Vec<&str> = RULES.iter().map(|(name, _)| *name).collect();
    let mut table = format!("| | {} |\n|---{}|\n", titles.join(" | "), "|---".repeat(RULES.len()));
    let mut columns = Vec::new();
    for (kind, words) in RULES {
        columns.push(under(&site, kind, words).await.with_context(|| kind.to_owned())?);
    }
    for (index, action) in RULED.iter().enumerate() {
        let cells: Vec<&str> = columns.iter().map(|column| column[index]).collect();
        table.push_str(&format!("| {action} | {} |\n", cells.join(" | ")));
    }
    Ok(table)
}

/// What an admin may do in a repository of 4 KiB under one rule.
async fn under(site: &AccountSite, kind: &str, words: &[&str]) -> anyhow::Result<Vec<&'static str>> {
    let root = basic("root", PASSWORD);
    let name = format!("{}-app", kind.replace(' ', "-"));
    let octets = "application/octet-stream";
    let image = "application/vnd.oci.image.manifest.v1+json";
    let upload = |blob: &[u8]| format!("/v2/{name}/blobs/uploads/?digest={}", Digest::sha256(blob));
    let (first, second) = (vec![1; 4096], vec![2; 4096]);
    site.push(&name, "latest", &root).await?;
    let other = site.push(&name, "other", &root).await?;
    site.send(Method::POST, &upload(&first), Some(&root), octets, first.clone()).await?.error_for_status()?;
    if kind != "no rule" {
        site.run(&[&["rule", "add", kind, &format!("the-{kind}"), &name], words].concat())?;
    }
    if kind == "quota" {
        // A new quota refuses once it has counted what is there.
        let begin = format!("/v2/{name}/blobs/uploads/");
        site.wait_for(async || {
            Ok(site.request(Method::POST, &begin, Some(&root)).await?.status()
                == reqwest::StatusCode::FORBIDDEN)
        })
        .await?;
    }
    let foreign = String::from_utf8(manifest("foreign"))?.replace(
        "\"layers\":[]",
        &format!(
            "\"layers\":[{{\"mediaType\":\"application/vnd.oci.image.layer.nondistributable.v1.tar\",\"digest\":\"{}\",\
             \"size\":9,\"urls\":[\"https://elsewhere.example.com/layer\"]}}]",
            Digest::sha256(b"elsewhere")
        ),
    );
    let at = |rest: &str| format!("/v2/{name}/{rest}");
    let mut cells = Vec::new();
    for action in RULED {
        let (method, path, kind, body) = match action {
            "push a blob of 4 KiB" => (Method::POST, upload(&second), octets, second.clone()),
            "push a new tag" => (Method::PUT, at("manifests/new"), image, manifest("latest")),
            "push a tag again as it is" => (Method::PUT, at("manifests/latest"), image, manifest("latest")),
            "move a tag" => (Method::PUT, at("manifests/latest"), image, manifest("moved")),
            "push an image whose layer is at another host" => {
                (Method::PUT, at("manifests/foreign"), image, foreign.clone().into_bytes())
            }
            "delete a tag" => (Method::DELETE, at("manifests/other"), "", Vec::new()),
            "delete a manifest" => (Method::DELETE, at(&format!("manifests/{other}")), "", Vec::new()),
            "pull" => (Method::GET, at("manifests/latest"), "", Vec::new()),
            action => anyhow::bail!("{action} is not tried"),
        };
        let answer = site.send(method, &path, Some(&root), kind, body).await?;
        let status = answer.status().as_u16();
        cells.push(match status {
            200..=202 => "yes",
            403 | 413 => "no",
            _ => anyhow::bail!("{action}: {status} {}", answer.text().await?),
        });
    }
    Ok(cells)
}
