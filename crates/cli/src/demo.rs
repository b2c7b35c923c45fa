//! `twinport demo`: two sites as processes of their own, one push, replicated, verified, pulled back, compared.
//! Invariant: it succeeds only if every byte held, and leaves no process and no temporary file behind.

mod compare;
mod package;
pub(crate) mod progress;
mod report;
mod site_process;
mod stop;
mod story;
mod verified;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use self::{site_process::SiteProcess, stop::Stop, story::Story};
use crate::arguments::{DemoArguments, Format};

/// The two sites, by where they would be.
const PRIMARY: &str = "paris";
const SECONDARY: &str = "tokyo";

/// Runs the demo to its end.
pub(crate) async fn demo(arguments: DemoArguments) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::watch()?;
    if let Some(image) = &arguments.image {
        // Before two sites are started for nothing.
        std::fs::metadata(image).with_context(|| format!("there is no image at {}", image.display()))?;
    }
    let place = Place::make(arguments.dir.as_deref())?;
    let story = Story::new(arguments.output == Format::Json);
    let mut sites = Sites { started: Vec::new() };
    let ended = play(&arguments, &place, &story, &mut sites, &mut stop).await;
    sites.end().await;
    place.clear();
    match ended {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(Ended::Stopped) => Ok(stop::interrupted()),
        Err(Ended::Failed(error)) => Err(error),
    }
}

/// Why the demo ended before its end.
enum Ended {
    /// Ctrl-C or SIGTERM before everything was compared.
    Stopped,
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The sites that were started, so that they end however the demo ends.
struct Sites {
    started: Vec<SiteProcess>,
}

impl Sites {
    async fn end(&mut self) {
        // The secondary first: it would only log that its primary went away.
        while let Some(site) = self.started.pop() {
            site.end().await;
        }
    }

    /// Ends when a site does, which is always an error; the others' answers are not waited for then.
    async fn death(&mut self) -> anyhow::Error {
        let deaths = self.started.iter_mut().map(|site| Box::pin(site.death()));
        let (error, index, _) = futures_util::future::select_all(deaths).await;
        self.started.remove(index);
        error
    }

    /// Serves until told to stop. A script may kill one site to see the other serve on; the status tells of it.
    async fn serve_on(&mut self, stop: &Stop) -> anyhow::Result<()> {
        let mut first = None;
        while !self.started.is_empty() {
            tokio::select! {
                () = stop.wait() => break,
                error = self.death() => {
                    crate::output::complain(&format!("{error:#}"));
                    first.get_or_insert(error);
                }
            }
        }
        first.map_or(Ok(()), Err)
    }
}

async fn play(
    arguments: &DemoArguments,
    place: &Place,
    story: &Story,
    sites: &mut Sites,
    stop: &mut Stop,
) -> Result<(), Ended> {
    let acting = async {
        for name in [PRIMARY, SECONDARY] {
            sites.started.push(SiteProcess::start(name, place.path()).await?);
        }
        story.sites_started(&sites.started);
        anyhow::Ok(())
    };
    stop.unless(acting).await.ok_or(Ended::Stopped)??;

    let [primary, secondary] = [sites.started[0].clone_handle(), sites.started[1].clone_handle()];
    let acting = story.tell(arguments, place.path(), &primary, &secondary, stop.clone());
    let told = tokio::select! {
        told = acting => told,
        error = sites.death() => return Err(Ended::Failed(error)),
    };
    let Some(told) = told? else { return Err(Ended::Stopped) };
    story.held(&told);
    if arguments.exit {
        return Ok(());
    }
    story.serving_on(&told, place.is_temporary());
    Ok(sites.serve_on(stop).await?)
}

/// The directory that holds both sites.
struct Place {
    path: PathBuf,
    temporary: Option<TempDir>,
}

impl Place {
    fn make(chosen: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = chosen else {
            let temporary = tempfile::Builder::new().prefix("twinport-demo-").tempdir();
            let temporary = temporary.context("cannot make a temporary directory")?;
            return Ok(Self { path: temporary.path().to_owned(), temporary: Some(temporary) });
        };
        std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        let mut entries =
            std::fs::read_dir(path).with_context(|| format!("cannot look into {}", path.display()))?;
        if entries.next().is_some() {
            bail!(
                "{} is not empty: choose another directory, or remove what an earlier demo left there",
                path.display()
            );
        }
        // Sites are told absolute paths, so that the commands to try work from anywhere.
        let path = path.canonicalize().with_context(|| format!("cannot resolve {}", path.display()))?;
        Ok(Self { path, temporary: None })
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    fn clear(self) {
        if let Some(temporary) = self.temporary
            && let Err(error) = temporary.close()
        {
            crate::output::complain(&format!("{} could not be removed: {error}", self.path.display()));
        }
    }
}
