//! What must not open anything between two running sites, asked over their real ports (hazards A9, R28).
//! Guards: each refusal says which rule it is, and leaves nothing behind.

use anyhow::{Context as _, ensure};
use reqwest::{Method, StatusCode, header::AUTHORIZATION};
use serde_json::{Value, json};
use twinport_geo::{CREDENTIAL_LIFETIME_S, SiteKey, protocol::paths};
use twinport_metadata::{Clock, Federation, Incarnation, RepositoryUuid};
use twinport_oci::Digest;
use twinport_testkit::{Image, MANIFEST, Pair, SiteDatabase, SiteProcess, program, pull_whole};

const BINARY: &str = env!("CARGO_BIN_EXE_twinport");

/// What a thief of a site's database has.
struct Identity {
    key: SiteKey,
    incarnation: Incarnation,
    federation: Federation,
}

impl Identity {
    async fn of(site: &SiteProcess) -> anyhow::Result<Self> {
        let rows = site.rows("SELECT signing_key, incarnation, federation FROM site").await?;
        let row = rows.first().context("a site has an identity")?;
        Ok(Self {
            key: SiteKey::from_bytes(row[0].bytes()?)?,
            incarnation: Incarnation(uuid(row[1].bytes()?)?),
            federation: Federation(uuid(row[2].bytes()?)?),
        })
    }

    fn credential(&self, now_us: i64) -> anyhow::Result<String> {
        self.credential_as(self.incarnation, now_us)
    }

    /// Signed with this site's key, in another's name.
    fn credential_as(&self, incarnation: Incarnation, now_us: i64) -> anyhow::Result<String> {
        Ok(format!("Bearer {}", self.key.credential(incarnation, self.federation, now_us)?))
    }
}

fn joined() -> anyhow::Result<Pair> {
    Pair::joined(BINARY, SiteDatabase::Embedded, SiteDatabase::Embedded)
}

/// Every call that another site makes, joins apart.
fn calls() -> Vec<(Method, String)> {
    let (uuid, digest) = (RepositoryUuid::random(), Digest::sha256(b"x"));
    let hash = "0".repeat(64);
    let log = format!("{}?number=1&owner={}&seq=0&hash={hash}", paths::LOG, uuid.0);
    vec![
        (Method::GET, log),
        (Method::POST, paths::STATUS.to_owned()),
        (Method::GET, paths::REPOSITORIES.to_owned()),
        (Method::GET, paths::listing(uuid)),
        (Method::GET, paths::checksum(uuid)),
        (Method::GET, paths::manifest(uuid, &digest)),
        (Method::GET, paths::blob(&digest)),
    ]
}

/// Makes every call with a credential; each has to be refused so.
async fn all_refused(
    site: &SiteProcess,
    credential: Option<&str>,
    status: u16,
    code: &str,
) -> anyhow::Result<()> {
    let http = reqwest::Client::new();
    for (method, path) in calls() {
        let mut request = http.request(method, format!("{}{path}", site.url()));
        if let Some(credential) = credential {
            request = request.header(AUTHORIZATION, credential);
        }
        let answer = request.send().await?;
        let got = answer.status().as_u16();
        let body: Value = answer.json().await?;
        ensure!(got == status && body["errors"][0]["code"] == code, "{path} answered {got}: {body}");
    }
    Ok(())
}

/// The list of repositories is what any joined site may read.
async fn accepted(site: &SiteProcess, credential: &str) -> anyhow::Result<StatusCode> {
    let request = reqwest::Client::new().get(format!("{}{}", site.url(), paths::REPOSITORIES));
    Ok(request.header(AUTHORIZATION, credential).send().await?.status())
}

#[tokio::test(flavor = "multi_thread")]
async fn a9_calls_without_a_credential_are_refused() -> anyhow::Result<()> {
    let pair = joined()?;
    all_refused(&pair.primary, None, 401, "CREDENTIAL_MISSING").await?;
    for header in ["Bearer", "Basic dG9reW86dG9reW8=", "Bearer x.y.z"] {
        all_refused(&pair.primary, Some(header), 401, "CREDENTIAL_INVALID").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a9_an_expired_credential_is_refused() -> anyhow::Result<()> {
    let pair = joined()?;
    let (tokyo, now_us) = (Identity::of(&pair.secondary).await?, Clock::System.now_us());
    assert_eq!(accepted(&pair.primary, &tokyo.credential(now_us)?).await?, StatusCode::OK);
    // The clocks of two sites may differ by a minute.
    let expired = tokyo.credential(now_us - (CREDENTIAL_LIFETIME_S + 65) * 1_000_000)?;
    all_refused(&pair.primary, Some(&expired), 401, "CREDENTIAL_EXPIRED").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a9_another_sites_credential_is_refused() -> anyhow::Result<()> {
    let pair = joined()?;
    let stranger = SiteProcess::start(&program(BINARY), &pair.folder().join("lima"), SiteDatabase::Embedded)?;
    let now_us = Clock::System.now_us();
    let (tokyo, lima) = (Identity::of(&pair.secondary).await?, Identity::of(&stranger).await?);

    all_refused(&pair.primary, Some(&lima.credential(now_us)?), 401, "CREDENTIAL_INVALID").await?;
    // A site that never joined, in the name of one that did, with the right federation.
    let impostor = Identity { federation: tokyo.federation, ..lima };
    let forged = impostor.credential_as(tokyo.incarnation, now_us)?;
    all_refused(&pair.primary, Some(&forged), 401, "CREDENTIAL_INVALID").await?;
    // One that did join, for another federation.
    let elsewhere = Identity { federation: Identity::of(&stranger).await?.federation, ..tokyo };
    all_refused(&pair.primary, Some(&elsewhere.credential(now_us)?), 401, "CREDENTIAL_INVALID").await?;

    // And a secondary believes nobody: it has no sites that follow it.
    let paris = Identity::of(&pair.primary).await?;
    all_refused(&pair.secondary, Some(&paris.credential(now_us)?), 401, "CREDENTIAL_INVALID").await
}

#[tokio::test(flavor = "multi_thread")]
async fn r28_a_replayed_join_token_is_refused() -> anyhow::Result<()> {
    let pair = Pair::apart(BINARY, SiteDatabase::Embedded, SiteDatabase::Embedded)?;
    let token = pair.primary.join_token(&pair.link.url(), "paris", "tokyo")?;
    pair.secondary.json(&["site", "join", "--token", &token])?;

    let thief = SiteProcess::start(&program(BINARY), &pair.folder().join("thief"), SiteDatabase::Embedded)?;
    let refused = thief.run(&["site", "join", "--token", &token])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && said.contains("used already"), "{said}");

    // Nothing of it stays: the thief is a site of its own still, and the primary knows one site.
    let role = thief.rows("SELECT role FROM site").await?;
    assert_eq!(role[0][0].text()?, "primary");
    pair.primary.wait_for_count("SELECT count(*) FROM sites", 1).await?;
    let lima = Identity::of(&thief).await?;
    all_refused(&pair.primary, Some(&lima.credential(Clock::System.now_us())?), 401, "CREDENTIAL_INVALID")
        .await?;
    // The site that used it first goes on.
    let tokyo = Identity::of(&pair.secondary).await?.credential(Clock::System.now_us())?;
    assert_eq!(accepted(&pair.primary, &tokyo).await?, StatusCode::OK);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r28_a_removed_site_is_refused_and_cannot_come_back() -> anyhow::Result<()> {
    let pair = joined()?;
    let http = reqwest::Client::new();
    let (before, after) = (Image::random(1, 1, 1000), Image::random(2, 1, 1000));
    before.push(&http, &pair.primary.url(), "app", "before").await?;
    let verified = "SELECT count(*) FROM tracked_items WHERE kind = 'tag' AND verification = 'succeeded'";
    pair.secondary.wait_for_count(verified, 1).await?;

    pair.primary.json(&["site", "remove", "tokyo"])?;
    let credential = Identity::of(&pair.secondary).await?.credential(Clock::System.now_us())?;
    all_refused(&pair.primary, Some(&credential), 403, "SITE_REMOVED").await?;

    // Its stream has ended, and it is not let in again with what it has; what it has, it serves.
    let token = pair.primary.join_token(&pair.link.url(), "paris", "tokyo")?;
    let refused = pair.secondary.run(&["site", "join", "--token", &token])?;
    ensure!(!refused.status.success(), "a removed site joined again");
    after.push(&http, &pair.primary.url(), "app", "after").await?;
    assert_eq!(pull_whole(&http, &pair.secondary.url(), "app", "before").await?, before.digest());
    all_refused(&pair.primary, Some(&credential), 403, "SITE_REMOVED").await?;
    pair.secondary.wait_for_count(verified, 1).await?;
    // The token that it could not use is good for the site that takes its place.
    let next = SiteProcess::start(&program(BINARY), &pair.folder().join("next"), SiteDatabase::Embedded)?;
    next.json(&["site", "join", "--token", &token])?;
    next.wait_for_count(verified, 2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a9_a_secondarys_key_does_not_push() -> anyhow::Result<()> {
    let pair = joined()?;
    let (http, url) = (reqwest::Client::new(), pair.primary.url());
    let image = Image::random(3, 1, 1000);
    image.push(&http, &url, "app", "kept").await?;
    let credential = Identity::of(&pair.secondary).await?.credential(Clock::System.now_us())?;
    let (blob, manifest) = (Digest::sha256(&image.blobs[1]), image.digest());

    let attempts = [
        (Method::POST, "/v2/app/blobs/uploads/".to_owned(), Vec::new()),
        (
            Method::POST,
            format!("/v2/app/blobs/uploads/?digest={}", Digest::sha256(b"stolen")),
            b"stolen".to_vec(),
        ),
        (Method::POST, format!("/v2/other/blobs/uploads/?mount={blob}&from=app"), Vec::new()),
        (Method::PUT, "/v2/app/manifests/stolen".to_owned(), image.manifest.to_vec()),
        (
            Method::PUT,
            "/v2/app/manifests/kept".to_owned(),
            Image::of(vec![image.blobs[0].clone()]).manifest.to_vec(),
        ),
        (Method::DELETE, "/v2/app/manifests/kept".to_owned(), Vec::new()),
        (Method::DELETE, format!("/v2/app/manifests/{manifest}"), Vec::new()),
        (Method::DELETE, format!("/v2/app/blobs/{blob}"), Vec::new()),
    ];
    for (method, path, body) in attempts {
        let request = http.request(method.clone(), format!("{url}{path}")).header(AUTHORIZATION, &credential);
        let answer = request.header("Content-Type", MANIFEST).body(body).send().await?;
        let status = answer.status();
        let body: Value = answer.json().await.unwrap_or_else(|error| json!({"none": error.to_string()}));
        ensure!(
            status == StatusCode::FORBIDDEN && body["errors"][0]["code"] == "DENIED",
            "{method} {path} answered {status}: {body}"
        );
    }
    // Nothing changed, and nothing was begun.
    assert_eq!(pull_whole(&http, &url, "app", "kept").await?, image.digest());
    for (table, rows) in [("uploads", 0), ("repositories", 1), ("manifests", 1), ("tags", 1)] {
        pair.primary.wait_for_count(&format!("SELECT count(*) FROM {table}"), rows).await?;
    }
    Ok(())
}

fn uuid(bytes: &[u8]) -> anyhow::Result<uuid::Uuid> {
    Ok(uuid::Uuid::from_slice(bytes)?)
}
