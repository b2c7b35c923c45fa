//! Two sites, joined over a link that a test watches.
//! Guards: nothing of a pair outlives it: processes first, then the link, then the data.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{SiteBucket, SiteDatabase, SiteProcess, TcpProxy, postgres_database};

/// Names another program than the one that the tests were built with: a release build, for figures.
pub const BINARY_VARIABLE: &str = "TWINPORT_BINARY";

/// The program under test: the one in [`BINARY_VARIABLE`], else `built`.
#[must_use]
pub fn program(built: &str) -> PathBuf {
    std::env::var_os(BINARY_VARIABLE)
        .filter(|path| !path.is_empty())
        .map_or_else(|| built.into(), PathBuf::from)
}

/// The primary `paris` and the secondary `tokyo`, which reaches it through `link` only.
#[derive(Debug)]
pub struct Pair {
    pub primary: SiteProcess,
    pub secondary: SiteProcess,
    pub link: TcpProxy,
    folder: TempDir,
}

impl Pair {
    /// Starts two sites without data, on these databases; they do not know each other yet.
    ///
    /// # Errors
    /// When one does not get ready; the text has its log.
    pub fn apart(built: &str, primary: SiteDatabase, secondary: SiteDatabase) -> anyhow::Result<Self> {
        Self::apart_on(built, (primary, None), (secondary, None))
    }

    /// [`Self::apart`], with a bucket for the blobs of a site that has one.
    ///
    /// # Errors
    /// When one does not get ready; the text has its log.
    pub fn apart_on(
        built: &str,
        primary: (SiteDatabase, Option<SiteBucket>),
        secondary: (SiteDatabase, Option<SiteBucket>),
    ) -> anyhow::Result<Self> {
        let (folder, program) = (tempfile::tempdir()?, program(built));
        let start = |name, (database, bucket)| {
            SiteProcess::start_on(&program, &folder.path().join(name), database, bucket)
        };
        let (primary, secondary) = (start("paris", primary)?, start("tokyo", secondary)?);
        let link = TcpProxy::to(primary.address())?;
        Ok(Self { primary, secondary, link, folder })
    }

    /// [`Self::apart`], then [`Self::join`].
    ///
    /// # Errors
    /// When a site does not start, or the join is refused.
    pub fn joined(built: &str, primary: SiteDatabase, secondary: SiteDatabase) -> anyhow::Result<Self> {
        let pair = Self::apart(built, primary, secondary)?;
        pair.join()?;
        Ok(pair)
    }

    /// Joins the secondary through the link.
    ///
    /// # Errors
    /// When it is refused, with what was said.
    pub fn join(&self) -> anyhow::Result<()> {
        self.primary.join_at(&self.link.url(), "paris", &self.secondary, "tokyo")
    }

    /// Where the pair's data directories are; another site's may be put beside them.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// An empty database of a kind, `sqlite` or `postgresql`; `None` where PostgreSQL is not installed.
///
/// # Errors
/// When the server refuses to make one.
pub async fn site_database(kind: &str) -> anyhow::Result<Option<SiteDatabase>> {
    match kind {
        "sqlite" => Ok(Some(SiteDatabase::Embedded)),
        "postgresql" => Ok(postgres_database().await?.map(SiteDatabase::Postgres)),
        other => anyhow::bail!("{other} is no database: sqlite or postgresql"),
    }
}
