//! What reads cost in a registry of many tags next to one of few: manifest pulls, link checks, pages of tags and referrers.
//! Guards that every answer is the right one and reads a few pages of the database; times are printed, not asserted.
#![expect(clippy::print_stdout, reason = "figures of a run")]

use std::time::Instant;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tempfile::TempDir;
use twinport_oci::Digest;
use twinport_testkit::{
    Field, Growth, MANIFEST, SiteDatabase, SiteProcess, number, program, push_blob, seed, site_database,
};

const BINARY: &str = env!("CARGO_BIN_EXE_twinport");
/// Entries of a page that is asked for.
const PAGE: u64 = 100;
/// What one read may read of SQLite's file, in bytes: a few tree descents and a page of rows, each of 4 KiB pages.
const MOST_READ: u64 = 2 << 20;
const READS: [Read; 4] = [Read::Manifest, Read::Link, Read::Tags, Read::Referrers];
/// Tables that PostgreSQL must never read as a whole.
const GROWING: &str = "SELECT CAST(COALESCE(SUM(seq_tup_read), 0) AS BIGINT) FROM pg_stat_user_tables \
     WHERE relname IN ('blob_links', 'manifests', 'manifest_references', 'tags')";

#[tokio::test(flavor = "multi_thread")]
async fn reads_cost_the_same_at_many_tags_on_sqlite() -> anyhow::Result<()> {
    reads_cost_the_same("sqlite").await
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_cost_the_same_at_many_tags_on_postgresql() -> anyhow::Result<()> {
    reads_cost_the_same("postgresql").await
}

async fn reads_cost_the_same(kind: &str) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let few = Grown::start(kind, number("TWINPORT_TEST_FEW_TAGS", 2_000), &folder).await?;
    let Some(mut few) = few else {
        println!("skip growth on {kind}: it is not installed");
        return Ok(());
    };
    few.is_what_a_push_would_have_left().await?;
    let many = Grown::start(kind, number("TWINPORT_TEST_MANY_TAGS", 20_000), &folder).await?;
    let mut many = many.context("a second database")?;
    let seed = seed();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (rounds, reads) = (number("TWINPORT_TEST_ROUNDS", 2), number("TWINPORT_TEST_READS", 50));
    let whole = many.read_as_a_whole().await?;
    for read in READS {
        // The first round fills caches.
        let (mut at_few, mut at_many) = (Vec::new(), Vec::new());
        for round in 0..=rounds {
            // In turns, so that what disturbs the machine disturbs both.
            let (a, b) =
                (few.measure(read, reads, &mut random).await?, many.measure(read, reads, &mut random).await?);
            if round > 0 {
                at_few.extend(a);
                at_many.extend(b);
            }
        }
        let (few_ms, many_ms) = (median_ms(&mut at_few), median_ms(&mut at_many));
        println!(
            "figure: {} on {kind}: p50 {few_ms:.3} ms at {} tags, {many_ms:.3} ms at {}, ratio {:.2}",
            read.name(),
            few.growth.tags(),
            many.growth.tags(),
            many_ms / few_ms,
        );
    }
    // Sessions tell what they have read when they end.
    many.site.terminate()?;
    ensure!(many.read_as_a_whole().await? == whole, "PostgreSQL read a growing table as a whole");
    drop(many);
    few.replicates(kind, &folder).await
}

#[derive(Clone, Copy)]
enum Read {
    Manifest,
    Link,
    Tags,
    Referrers,
}

impl Read {
    fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest pull",
            Self::Link => "blob link check",
            Self::Tags => "tag page",
            Self::Referrers => "referrers page",
        }
    }
}

/// A site that was filled while it was stopped, and runs.
struct Grown {
    site: SiteProcess,
    growth: Growth,
    blobs: Vec<Bytes>,
    database: SiteDatabase,
    http: reqwest::Client,
}

impl Grown {
    async fn start(kind: &str, tags: u64, folder: &TempDir) -> anyhow::Result<Option<Self>> {
        let Some(database) = site_database(kind).await? else { return Ok(None) };
        let (binary, http) = (program(BINARY), reqwest::Client::new());
        let mut site =
            SiteProcess::start(&binary, &folder.path().join(format!("site-{tags}")), database.clone())?;
        // Real ones, in the blob store and in the log: whatever the rows name can be read.
        let blobs: Vec<Bytes> =
            (0..(tags / 2_000).max(16)).map(|blob| Bytes::from(format!(r#"{{"blob":{blob}}}"#))).collect();
        for blob in &blobs {
            push_blob(&http, &site.url(), "grown/blobs", blob).await?;
        }
        site.terminate()?;
        let known = blobs.iter().map(|blob| (Digest::sha256(blob), blob.len() as u64)).collect();
        let growth = Growth::of(tags, known, &database, site.data()).await?;
        let filled = growth.fill(&database, site.data()).await?;
        site.start_again()?;
        let grown = Self { site, growth, blobs, database, http };
        println!(
            "figure: fill on {kind}: {tags} tags in {} repositories, {} rows in {:.1} s, {:.2} GB",
            grown.growth.repositories(),
            filled.rows,
            filled.seconds,
            grown.database_bytes().await? as f64 / 1e9,
        );
        Ok(Some(grown))
    }

    async fn database_bytes(&self) -> anyhow::Result<u64> {
        Ok(match &self.database {
            SiteDatabase::Embedded => std::fs::metadata(self.site.data().join("metadata.db"))?.len(),
            SiteDatabase::Postgres(_) => {
                let size = self.site.rows("SELECT pg_database_size(current_database())").await?;
                u64::try_from(size[0][0].int()?)?
            }
        })
    }

    /// Rows that PostgreSQL has read in scans of growing tables.
    async fn read_as_a_whole(&self) -> anyhow::Result<i64> {
        match &self.database {
            SiteDatabase::Embedded => Ok(0),
            SiteDatabase::Postgres(_) => self.site.rows(GROWING).await?[0][0].int(),
        }
    }

    /// So many reads, one after the other; microseconds of each.
    async fn measure(&self, read: Read, reads: u64, random: &mut StdRng) -> anyhow::Result<Vec<u64>> {
        let before = self.bytes_read()?;
        let mut took = Vec::new();
        for _ in 0..reads {
            took.push(self.read(read, random).await.context(read.name())?);
        }
        let each = (self.bytes_read()? - before) / reads.max(1);
        ensure!(
            each <= MOST_READ,
            "a {} reads {each} bytes of the database at {} tags",
            read.name(),
            self.growth.tags()
        );
        Ok(took)
    }

    /// What the site has read from files, page cache or not.
    fn bytes_read(&self) -> anyhow::Result<u64> {
        let pid = self.site.pid().context("the site runs")?;
        let io = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
        Ok(io.lines().find_map(|line| line.strip_prefix("rchar: ")).context("rchar")?.parse()?)
    }

    /// One read of something drawn by lot, half of the time in the large repository; its answer is compared.
    async fn read(&self, read: Read, random: &mut StdRng) -> anyhow::Result<u64> {
        let growth = &self.growth;
        let repository = if random.random() { 0 } else { random.random_range(0..growth.repositories()) };
        let base = format!("{}/v2/{}", self.site.url(), growth.repository(repository));
        match read {
            Read::Manifest => {
                let tag = random.random_range(0..growth.tags_of(repository));
                let expected = growth.manifest(repository, growth.manifest_of(tag));
                let (took, body) = self.get(&format!("{base}/manifests/{}", growth.tag(tag))).await?;
                ensure!(body == expected, "{base}:{} is another manifest", growth.tag(tag));
                Ok(took)
            }
            Read::Link => {
                let digest = growth.link(repository, random.random_range(0..growth.links_of()));
                let began = Instant::now();
                let answer = self.http.head(format!("{base}/blobs/{digest}")).send().await?;
                let took = u64::try_from(began.elapsed().as_micros())?;
                ensure!(answer.status() == 200, "{base}/blobs/{digest}: {}", answer.status());
                Ok(took)
            }
            Read::Tags => {
                let last = random.random_range(0..growth.tags_of(repository) - PAGE);
                let address = format!("{base}/tags/list?n={PAGE}&last={}", growth.tag(last));
                let (took, body) = self.get(&address).await?;
                let listed: serde_json::Value = serde_json::from_slice(&body)?;
                let expected: Vec<String> = (last + 1..=last + PAGE).map(|tag| growth.tag(tag)).collect();
                ensure!(listed["tags"] == serde_json::json!(expected), "{address}: another page");
                Ok(took)
            }
            Read::Referrers => {
                let base = format!("{}/v2/{}", self.site.url(), growth.repository(0));
                let subject = Digest::sha256(&growth.manifest(0, 0));
                // Far enough from the end for a whole page, where there is one at all.
                let (first, rest) = (random.random_range(0..3_u8), random.random::<u64>());
                let last = format!("sha256:{first:x}{rest:016x}{:047}", 0);
                let address = format!("{base}/referrers/{subject}?n={PAGE}&last={last}");
                let (took, body) = self.get(&address).await?;
                let listed: serde_json::Value = serde_json::from_slice(&body)?;
                let listed = listed["manifests"].as_array().context("manifests")?;
                let digests: Vec<&str> = listed.iter().filter_map(|entry| entry["digest"].as_str()).collect();
                let wanted = PAGE.min(growth.referrers_of(0) / 2);
                ensure!(digests.len() as u64 >= wanted, "{address}: {} entries", digests.len());
                ensure!(digests.is_sorted() && digests[0] > last.as_str(), "{address}: not in order");
                Ok(took)
            }
        }
    }

    /// Microseconds until the whole answer is there, and the answer.
    async fn get(&self, address: &str) -> anyhow::Result<(u64, Bytes)> {
        let began = Instant::now();
        let answer = self.http.get(address).header("Accept", MANIFEST).send().await?;
        let status = answer.status();
        let body = answer.bytes().await?;
        let took = u64::try_from(began.elapsed().as_micros())?;
        ensure!(status == 200, "{address}: {status}");
        Ok((took, body))
    }

    /// Pushes a filled repository's manifests once more into one of their own, and compares the rows.
    async fn is_what_a_push_would_have_left(&self) -> anyhow::Result<()> {
        const ROWS: &str = "SELECT m.digest, m.media_type, m.artifact_type, m.subject, m.annotations, m.size, m.body, x.child, x.kind \
             FROM manifests m JOIN repositories r ON r.id = m.repository_id \
             JOIN manifest_references x ON x.repository_id = m.repository_id AND x.manifest = m.digest WHERE r.path = ";
        let growth = &self.growth;
        for blob in &self.blobs {
            push_blob(&self.http, &self.site.url(), "real/one", blob).await?;
        }
        for manifest in 0..growth.manifests_of(1) {
            let body = growth.manifest(1, manifest);
            let address = format!("{}/v2/real/one/manifests/{}", self.site.url(), Digest::sha256(&body));
            let answer = self.http.put(&address).header("Content-Type", MANIFEST).body(body).send().await?;
            ensure!(answer.status() == 201, "{address}: {}: {}", answer.status(), answer.text().await?);
        }
        let rows = async |path: &str| {
            let mut rows = self.site.rows(&format!("{ROWS}'{path}'")).await?;
            rows.sort_by_key(|row| row[0].bytes().map(<[u8]>::to_vec).unwrap_or_default());
            anyhow::Ok::<Vec<Vec<Field>>>(rows)
        };
        let (filled, pushed) = (rows(&growth.repository(1)).await?, rows("real/one").await?);
        ensure!(filled.len() as u64 == growth.manifests_of(1), "{} manifests were filled", filled.len());
        for (filled, pushed) in filled.iter().zip(&pushed) {
            ensure!(filled == pushed, "filled: {filled:?}\nreal:   {pushed:?}");
        }
        ensure!(filled.len() == pushed.len(), "{} manifests were pushed", pushed.len());
        Ok(())
    }

    /// Another site takes all of it over and finds the same checksums: the site's own check of its rows.
    async fn replicates(&mut self, kind: &str, folder: &TempDir) -> anyhow::Result<()> {
        let database = site_database(kind).await?.context("a third database")?;
        let secondary = SiteProcess::start(&program(BINARY), &folder.path().join("second"), database)?;
        self.site.join("paris", &secondary, "tokyo")?;
        let tags = "SELECT count(*) FROM tracked_items WHERE kind = 'tag' AND verification = 'succeeded'";
        secondary.wait_for_count(tags, usize::try_from(self.growth.tags_in_all())?).await?;
        let unchecked = "SELECT count(*) FROM tracked_repositories WHERE state <> 'synced' OR verification <> 'succeeded'";
        secondary.wait_for_count(unchecked, 0).await
    }
}

fn median_ms(took: &mut [u64]) -> f64 {
    took.sort_unstable();
    took[took.len() / 2] as f64 / 1_000.0
}
