//! One look at one manifest, as cheap as it gets.

use anyhow::{Context as _, bail};
use twinport_oci::Digest;

use crate::MANIFEST;

/// What a reference names at a site; none where the site says that it names nothing.
pub(super) async fn named(
    http: &reqwest::Client,
    url: &str,
    repository: &str,
    reference: &str,
) -> anyhow::Result<Option<Digest>> {
    let address = format!("{url}/v2/{repository}/manifests/{reference}");
    let answer = http.head(&address).header("Accept", MANIFEST).send().await?;
    match answer.status().as_u16() {
        200 => {
            let digest = answer.headers().get("Docker-Content-Digest").context("a digest header")?;
            Ok(Some(digest.to_str()?.parse()?))
        }
        404 => Ok(None),
        other => bail!("{address}: {other}"),
    }
}
