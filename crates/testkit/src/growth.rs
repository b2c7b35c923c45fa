//! A registry grown to millions of tags: every row is made from its number, so that what a site answers can be foretold.
//! Guards: the rows are those that a push would have left; the test that uses them compares them with real ones.

mod bulk;

use std::{path::Path, time::Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use twinport_oci::Digest;

use self::bulk::Bulk;
use crate::{Field, MANIFEST, SiteDatabase};

/// Tags of every repository but the first.
const TAGS_EACH: u64 = 350;
/// The first one's share of all tags, in percent.
const LARGE_PERCENT: u64 = 30;
/// Tags that name one manifest.
const TAGS_OF_MANIFEST: u64 = 2;
/// Of so many manifests one refers to its repository's first.
const REFERRER_EVERY: u64 = 10;
/// Blobs that a repository links, of all that there are.
const LINKS_EACH: u64 = 100;
/// Bytes of a manifest that refers to none.
const MANIFEST_BYTES: usize = 300;
const CONFIG: &str = "application/vnd.oci.empty.v1+json";
const ARTIFACT: &str = "application/vnd.example.sbom";

/// A table that grows: its name, its columns with their PostgreSQL types, in the order of its key.
type Columns = &'static [(&'static str, Kind)];
const TABLES: [(&str, Columns); 5] = [
    (
        "repositories",
        &[
            ("id", Kind::Int),
            ("uuid", Kind::Bytes),
            ("path", Kind::Text),
            ("created_at_us", Kind::Int),
            ("position_epoch", Kind::Int),
            ("position_seq", Kind::Int),
        ],
    ),
    (
        "blob_links",
        &[
            ("repository_id", Kind::Int),
            ("digest", Kind::Bytes),
            ("linked_at_us", Kind::Int),
            ("position_epoch", Kind::Int),
            ("position_seq", Kind::Int),
        ],
    ),
    (
        "manifests",
        &[
            ("repository_id", Kind::Int),
            ("digest", Kind::Bytes),
            ("media_type", Kind::Text),
            ("artifact_type", Kind::Text),
            ("subject", Kind::Bytes),
            ("annotations", Kind::Text),
            ("size", Kind::Int),
            ("body", Kind::Bytes),
            ("pushed_at_us", Kind::Int),
            ("position_epoch", Kind::Int),
            ("position_seq", Kind::Int),
        ],
    ),
    (
        "manifest_references",
        &[
            ("repository_id", Kind::Int),
            ("manifest", Kind::Bytes),
            ("child", Kind::Bytes),
            ("kind", Kind::Text),
        ],
    ),
    (
        "tags",
        &[
            ("repository_id", Kind::Int),
            ("name", Kind::Text),
            ("digest", Kind::Bytes),
            ("tagged_at_us", Kind::Int),
            ("position_epoch", Kind::Int),
            ("position_seq", Kind::Int),
        ],
    ),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Int,
    Text,
    Bytes,
}

/// So many tags in many repositories, the first of which has a large share.
#[derive(Clone, Debug)]
pub struct Growth {
    tags: u64,
    /// Blobs that the site has, in no order, and the bytes of each.
    blobs: Vec<(Digest, u64)>,
    /// When all of it was pushed (µs since the epoch), and the log position that it has.
    at_us: i64,
    position: (i64, i64),
    /// The row id of the first repository.
    first_id: i64,
}

/// What was inserted.
#[derive(Clone, Debug)]
pub struct Filled {
    pub rows: u64,
    pub seconds: f64,
}

impl Growth {
    /// For the stopped site of `database`, which holds these blobs and at least one event.
    ///
    /// # Errors
    /// When the site has no log, or its database refuses.
    pub async fn of(
        tags: u64,
        blobs: Vec<(Digest, u64)>,
        database: &SiteDatabase,
        data: &Path,
    ) -> anyhow::Result<Self> {
        const STANDS: &str = "SELECT h.epoch, h.seq, (SELECT MAX(created_at_us) FROM repositories), \
             (SELECT MAX(id) FROM repositories) FROM log_head h WHERE h.id = 1";
        let rows = crate::records::rows(database, data, STANDS).await?;
        let row = rows.first().context("the site has a log")?;
        let position = (row[0].int()?, row[1].int()?);
        ensure!(position.1 > 0 && !blobs.is_empty(), "the site has no event and no blob yet");
        Ok(Self { tags, blobs, at_us: row[2].int()?, position, first_id: row[3].int()? + 1 })
    }

    /// Inserts everything into the stopped site's database.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn fill(&self, database: &SiteDatabase, data: &Path) -> anyhow::Result<Filled> {
        let began = Instant::now();
        let rows = Bulk::new(database, data).fill(self).await?;
        Ok(Filled { rows, seconds: began.elapsed().as_secs_f64() })
    }

    /// The tags that were asked for.
    #[must_use]
    pub fn tags(&self) -> u64 {
        self.tags
    }

    /// The tags that there are: small repositories are all of one size.
    #[must_use]
    pub fn tags_in_all(&self) -> u64 {
        self.tags_of(0) + (self.repositories() - 1) * TAGS_EACH
    }

    /// How many manifests of a repository refer to its first.
    #[must_use]
    pub fn referrers_of(&self, repository: u64) -> u64 {
        self.manifests_of(repository) / REFERRER_EVERY
    }

    /// How many repositories there are; the first, 0, is the large one.
    #[must_use]
    pub fn repositories(&self) -> u64 {
        1 + ((self.tags - self.tags_of(0)) / TAGS_EACH)
    }

    /// The name of a repository.
    #[must_use]
    pub fn repository(&self, number: u64) -> String {
        if number == 0 {
            "grown/large".to_owned()
        } else {
            format!("grown/group-{:03}/app-{number}", number % 200)
        }
    }

    /// How many tags a repository has.
    #[must_use]
    pub fn tags_of(&self, repository: u64) -> u64 {
        if repository == 0 { self.tags * LARGE_PERCENT / 100 } else { TAGS_EACH }
    }

    /// The name of a repository's tag; names are in the order of their numbers.
    #[must_use]
    pub fn tag(&self, number: u64) -> String {
        format!("v{number:08}")
    }

    /// How many manifests a repository has.
    #[must_use]
    pub fn manifests_of(&self, repository: u64) -> u64 {
        self.tags_of(repository).div_ceil(TAGS_OF_MANIFEST)
    }

    /// The manifest that a tag names, by its number.
    #[must_use]
    pub fn manifest_of(&self, tag: u64) -> u64 {
        tag / TAGS_OF_MANIFEST
    }

    /// The subject that a manifest refers to, as a manifest of the same repository.
    #[must_use]
    pub fn subject_of(&self, manifest: u64) -> Option<u64> {
        (manifest % REFERRER_EVERY == REFERRER_EVERY - 1).then_some(0)
    }

    /// The bytes of a repository's manifest.
    #[must_use]
    pub fn manifest(&self, repository: u64, number: u64) -> Bytes {
        let (config, size) = &self.blobs[self.blob_of(repository, number % self.links_of())];
        let refers = self.subject_of(number).map(|subject| {
            let subject = self.manifest(repository, subject);
            let (digest, size) = (Digest::sha256(&subject), subject.len());
            format!(
                r#""artifactType":"{ARTIFACT}","subject":{{"mediaType":"{MANIFEST}","digest":"{digest}","size":{size}}},"#
            )
        });
        let refers = refers.unwrap_or_default();
        let padding = MANIFEST_BYTES
            .saturating_sub(manifest_text(&refers, config, *size, &note(repository, number, 0)).len());
        manifest_text(&refers, config, *size, &note(repository, number, padding)).into()
    }

    /// How many blobs a repository links.
    #[must_use]
    pub fn links_of(&self) -> u64 {
        LINKS_EACH.min(self.blobs.len() as u64)
    }

    /// The digest of a repository's linked blob.
    #[must_use]
    pub fn link(&self, repository: u64, number: u64) -> &Digest {
        &self.blobs[self.blob_of(repository, number)].0
    }

    fn blob_of(&self, repository: u64, link: u64) -> usize {
        ((repository.wrapping_mul(37) + link) % self.blobs.len() as u64) as usize
    }

    /// Every row of a table, in the order of its key.
    fn rows(
        &self,
        table: &str,
        each: &mut dyn FnMut(Vec<Field>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        for repository in 0..self.repositories() {
            let id = Field::Int(self.first_id + i64::try_from(repository)?);
            match table {
                "repositories" => each(self.repository_row(repository, id))?,
                "blob_links" => {
                    let mut keys: Vec<_> =
                        (0..self.links_of()).map(|link| self.link(repository, link).to_key()).collect();
                    keys.sort_unstable();
                    for key in keys {
                        each(self.placed(vec![id.clone(), Field::Bytes(key)]))?;
                    }
                }
                "tags" => {
                    let mut named = Vec::new();
                    for tag in 0..self.tags_of(repository) {
                        if tag % TAGS_OF_MANIFEST == 0 {
                            named =
                                Digest::sha256(&self.manifest(repository, self.manifest_of(tag))).to_key();
                        }
                        each(self.placed(vec![
                            id.clone(),
                            Field::Text(self.tag(tag)),
                            Field::Bytes(named.clone()),
                        ]))?;
                    }
                }
                _ => {
                    let manifests = 0..self.manifests_of(repository);
                    let mut keys: Vec<_> = manifests
                        .map(|number| (Digest::sha256(&self.manifest(repository, number)).to_key(), number))
                        .collect();
                    keys.sort_unstable();
                    for (key, number) in keys {
                        each(if table == "manifests" {
                            self.manifest_row(repository, number, id.clone(), key)
                        } else {
                            let child = self.link(repository, number % self.links_of()).to_key();
                            vec![
                                id.clone(),
                                Field::Bytes(key),
                                Field::Bytes(child),
                                Field::Text("blob".to_owned()),
                            ]
                        })?;
                    }
                }
            }
        }
        Ok(())
    }

    fn repository_row(&self, repository: u64, id: Field) -> Vec<Field> {
        let path = self.repository(repository);
        let uuid = Digest::sha256(path.as_bytes()).to_key()[1..17].to_vec();
        self.placed(vec![id, Field::Bytes(uuid), Field::Text(path)])
    }

    fn manifest_row(&self, repository: u64, number: u64, id: Field, key: Vec<u8>) -> Vec<Field> {
        let body = self.manifest(repository, number);
        let subject = self.subject_of(number);
        let artifact_type = if subject.is_some() { ARTIFACT } else { CONFIG };
        let subject = subject.map(|subject| Digest::sha256(&self.manifest(repository, subject)).to_key());
        let text = String::from_utf8_lossy(&body);
        let annotations =
            text.rsplit_once(r#""annotations":"#).map_or("", |(_, rest)| &rest[..rest.len() - 1]);
        self.placed(vec![
            id,
            Field::Bytes(key),
            Field::Text(MANIFEST.to_owned()),
            Field::Text(artifact_type.to_owned()),
            subject.map_or(Field::Null, Field::Bytes),
            Field::Text(annotations.to_owned()),
            Field::Int(body.len() as i64),
            Field::Bytes(body.to_vec()),
        ])
    }

    /// With the time and the position that end most rows.
    fn placed(&self, mut row: Vec<Field>) -> Vec<Field> {
        row.extend([Field::Int(self.at_us), Field::Int(self.position.0), Field::Int(self.position.1)]);
        row
    }
}

fn manifest_text(refers: &str, config: &Digest, size: u64, note: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}",{refers}"config":{{"mediaType":"{CONFIG}","digest":"{config}","size":{size}}},"layers":[],"annotations":{{"n":"{note}"}}}}"#
    )
}

/// What makes a manifest's bytes its own.
fn note(repository: u64, number: u64, padding: usize) -> String {
    format!("{repository}-{number}{}", ".".repeat(padding))
}
