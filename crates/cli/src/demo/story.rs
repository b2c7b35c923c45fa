//! What the demo does once its sites run, step by step, and how it tells of it.

use std::{
    io::BufRead as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use twinport_client::{Image, PushStep, RegistryClient};
use twinport_metadata::Clock;
use twinport_oci::{Digest, RepositoryName, Tag};
use twinport_server::admin::{AddSiteRequest, GeoStatus, JoinSiteRequest};

use super::{
    PRIMARY, SECONDARY,
    compare::{Compared, compare},
    package,
    progress::Meter,
    report,
    site_process::{SiteHandle, SiteProcess},
    stop::Stop,
    verified,
};
use crate::{
    admin_client::AdminClient,
    arguments::DemoArguments,
    commands::site::{add_site, join_site},
    output::{bytes, complain, say},
    time::span,
};

/// Everything that held.
pub(super) struct Told {
    pub(super) primary: SiteHandle,
    pub(super) secondary: SiteHandle,
    pub(super) statuses: [GeoStatus; 2],
    pub(super) repository: RepositoryName,
    pub(super) tag: Tag,
    pub(super) digest: Digest,
    /// From the primary's 201 to the secondary's verified record (µs).
    pub(super) lag_us: i64,
    pub(super) compared: Compared,
}

/// How the demo speaks: to a person on standard output, or to a program, with the rest on standard error.
pub(super) struct Story {
    json: bool,
}

impl Story {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    fn line(&self, text: &str) {
        if self.json { complain(text) } else { say(text) }
    }

    pub(super) fn sites_started(&self, sites: &[SiteProcess]) {
        self.line("Two sites, each a process of its own:");
        for site in sites {
            let site = site.handle();
            let (url, data) = (report::url(site), site.data.display());
            self.line(&format!("  {}  {url}  process {}  data in {data}", site.name, site.pid));
        }
    }

    /// Joins, pushes, waits, compares. Nothing when told to stop.
    pub(super) async fn tell(
        &self,
        arguments: &DemoArguments,
        place: &Path,
        primary: &SiteHandle,
        secondary: &SiteHandle,
        stop: Stop,
    ) -> anyhow::Result<Option<Told>> {
        stop.unless(self.steps(arguments, place, primary, secondary)).await.transpose()
    }

    async fn steps(
        &self,
        arguments: &DemoArguments,
        place: &Path,
        primary: &SiteHandle,
        secondary: &SiteHandle,
    ) -> anyhow::Result<Told> {
        let (paris, tokyo) = (AdminClient::at(&primary.data)?, AdminClient::at(&secondary.data)?);
        let request = AddSiteRequest {
            name: SECONDARY.to_owned(),
            own_name: Some(PRIMARY.to_owned()),
            url: None,
            no_pin: false,
            lifetime_seconds: None,
        };
        let added = add_site(&paris, &request).await.context("cannot invite the second site")?;
        let joined =
            join_site(&tokyo, &JoinSiteRequest { token: added.token }).await.context("the join failed")?;
        self.line(&format!("Joined: {} follows {}.", joined.site, joined.primary_name));

        let (image, repository) = self.image(arguments.image.as_deref(), place).await?;
        let tag = match &image.tag {
            Some(tag) => tag.clone(),
            None => Tag::parse("latest")?,
        };
        let digest = image.root().digest;
        let acknowledged_us = self.push(primary, &repository, &tag, &image).await?;
        let verified_us = verified::wait(&tokyo, &repository, &tag, &digest).await?;
        // The record can be written before the 201 has crossed to this process.
        let lag_us = (verified_us - acknowledged_us).max(0);
        self.line(&format!(
            "Verified on {SECONDARY} {} after {PRIMARY} acknowledged the push.",
            span(lag_us)
        ));
        if arguments.pause_before_compare {
            self.pause().await?;
        }
        let client = RegistryClient::new(secondary.url.clone())?;
        let compared = compare(&client, &repository, &tag, &image).await?;
        let statuses = [paris.get("/api/v1/geo/status").await?, tokyo.get("/api/v1/geo/status").await?];
        let (primary, secondary) = (primary.clone(), secondary.clone());
        Ok(Told { primary, secondary, statuses, repository, tag, digest, lag_us, compared })
    }

    /// The image to push, and the repository it goes to.
    async fn image(&self, chosen: Option<&Path>, place: &Path) -> anyhow::Result<(Image, RepositoryName)> {
        if let Some(path) = chosen {
            let image = Image::open(path).await?;
            self.line(&format!(
                "Image {}: {} in {} blobs.",
                path.display(),
                bytes(image.blob_bytes()),
                image.blobs.len()
            ));
            return Ok((image, repository_for(path)?));
        }
        let layout = place.join("image");
        let to = layout.clone();
        let packed = tokio::task::spawn_blocking(move || {
            let program: PathBuf = std::env::current_exe().context("cannot find this program's own file")?;
            package::pack(&program, &to)
        });
        packed.await??;
        let image = Image::open(&layout).await?;
        self.line(&format!("Packed this program into an image of {}.", bytes(image.blob_bytes())));
        Ok((image, RepositoryName::parse("demo/twinport")?))
    }

    /// Pushes to the primary; when it acknowledged the tag (µs since the Unix epoch).
    async fn push(
        &self,
        primary: &SiteHandle,
        repository: &RepositoryName,
        tag: &Tag,
        image: &Image,
    ) -> anyhow::Result<i64> {
        self.line(&format!("Pushing {repository}:{tag} to {PRIMARY}."));
        let client = RegistryClient::new(primary.url.clone())?;
        let meter = Meter::of("pushed", image.blob_bytes());
        let report = |step: PushStep| match step {
            PushStep::Sent { bytes } | PushStep::Present { size: bytes, .. } => {
                meter.add(i64::try_from(bytes).unwrap_or(i64::MAX));
            }
            PushStep::Lost { bytes } => meter.add(-i64::try_from(bytes).unwrap_or(i64::MAX)),
            PushStep::Blob { .. } | PushStep::Manifest { .. } => {}
        };
        client.push_image(repository, tag, image, &report).await.context("the push failed")?;
        let acknowledged_us = Clock::System.now_us();
        meter.finish();
        Ok(acknowledged_us)
    }

    /// Holds until a line comes on standard input, or SIGUSR1. An input that ends is no line.
    async fn pause(&self) -> anyhow::Result<()> {
        let mut signalled = signal(SignalKind::user_defined1()).context("cannot watch for SIGUSR1")?;
        let (entered, line) = tokio::sync::oneshot::channel();
        std::thread::Builder::new().name("pause".to_owned()).spawn(move || {
            let mut text = String::new();
            if matches!(std::io::stdin().lock().read_line(&mut text), Ok(n) if n > 0) {
                entered.send(()).ok();
            } else {
                // Kept for ever: dropping it would end the wait.
                std::mem::forget(entered);
            }
        })?;
        complain("paused before the comparison: press Enter, or send SIGUSR1");
        tokio::select! {
            _ = line => {}
            _ = signalled.recv() => {}
        }
        Ok(())
    }

    /// Tells what held; for programs, in the one line.
    pub(super) fn held(&self, told: &Told) {
        say(&if self.json { report::line(told) } else { report::text(told) });
    }

    pub(super) fn serving_on(&self, told: &Told, temporary: bool) {
        self.line(&format!("\n{}", report::to_try(told)));
        let then = if temporary { " and removes their data" } else { "" };
        self.line(&format!("\nBoth sites serve on. Ctrl-C ends them{then}."));
    }
}

/// A repository named after the image's file.
fn repository_for(path: &Path) -> anyhow::Result<RepositoryName> {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let plain: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(64).collect();
    let words: Vec<&str> = plain.split('-').filter(|word| !word.is_empty()).collect();
    let name = if words.is_empty() { "image".to_owned() } else { words.join("-") };
    Ok(RepositoryName::parse(&format!("demo/{name}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_file_name_makes_a_repository_name() {
        for (path, name) in [
            ("/tmp/Debian 12.tar", "demo/debian-12"),
            ("./layout", "demo/layout"),
            ("..", "demo/image"),
            ("_x__.oci", "demo/x"),
            ("日本.tar", "demo/image"),
        ] {
            assert_eq!(repository_for(Path::new(path)).unwrap().as_str(), name, "{path}");
        }
    }
}
