//! The demo's result: in words, or as the one line of JSON that scripts read.

use serde_json::json;
use twinport_server::admin::GeoStatus;

use super::{site_process::SiteHandle, story::Told};
use crate::{commands::geo, output::bytes, time::span};

/// `{"sites":[…],"image","digest","lag_ms","verified"}` on one line.
pub(super) fn line(told: &Told) -> String {
    let sites: Vec<_> = [(&told.primary, "primary"), (&told.secondary, "secondary")]
        .into_iter()
        .map(|(site, role)| {
            json!({
                "name": site.name,
                "role": role,
                "url": url(site),
                "pid": site.pid,
                "data_dir": site.data.display().to_string(),
            })
        })
        .collect();
    json!({
        "sites": sites,
        "image": format!("{}:{}", told.repository, told.tag),
        "digest": told.digest.to_string(),
        "lag_ms": told.lag_us as f64 / 1e3,
        "verified": true,
    })
    .to_string()
}

/// The same for a person, with both sites' status and what to try next.
pub(super) fn text(told: &Told) -> String {
    let compared = &told.compared;
    let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    let mut text = format!(
        "Pulled back from {}: {} and {}, {}, every byte equal.\n\n  image   {}:{}\n  digest  {}\n  lag     {}\n",
        told.secondary.name,
        plural(compared.manifests, "manifest"),
        plural(compared.blobs, "blob"),
        bytes(compared.bytes),
        told.repository,
        told.tag,
        told.digest,
        span(told.lag_us),
    );
    for (site, status) in [&told.primary, &told.secondary].into_iter().zip(&told.statuses) {
        text.push_str(&format!("\n{}:\n{}\n", site.name, indented(status)));
    }
    text
}

fn indented(status: &GeoStatus) -> String {
    geo::text(status)
        .lines()
        .map(|line| format!("  {line}").trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Commands to try while both sites serve on.
pub(super) fn to_try(told: &Told) -> String {
    let (primary, secondary) = (&told.primary, &told.secondary);
    let host = |site: &SiteHandle| url(site).trim_start_matches("http://").to_owned();
    let commands = [
        format!("twinport geo status --data {}", quoted(secondary)),
        format!("twinport site list --data {}", quoted(primary)),
        format!("twinport doctor --data {}", quoted(secondary)),
        format!("curl {}/v2/{}/tags/list", url(secondary), told.repository),
        format!(
            "skopeo inspect --raw --tls-verify=false docker://{}/{}:{}",
            host(secondary),
            told.repository,
            told.tag
        ),
        format!(
            "skopeo copy --dest-tls-verify=false docker://alpine docker://{}/alpine:latest",
            host(primary)
        ),
    ];
    format!("Try next, in another terminal:\n  {}", commands.join("\n  "))
}

/// The address without a trailing slash.
pub(super) fn url(site: &SiteHandle) -> String {
    site.url.as_str().trim_end_matches('/').to_owned()
}

fn quoted(site: &SiteHandle) -> String {
    let path = site.data.display().to_string();
    if path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c)) {
        path
    } else {
        format!("'{}'", path.replace('\'', r"'\''"))
    }
}
