//! Makes every request of docs/reference/http-api.md, row by row, at two joined sites, and holds the page to the routes
//! of the code.

use std::{collections::HashMap, path::Path};

use anyhow::{Context as _, ensure};
use reqwest::{Client, Method, header::AUTHORIZATION};
use serde_json::{Value, json};
use twinport_geo::{
    JoinToken, SiteKey,
    protocol::{JoinRequest, Nonce, Versions},
};
use twinport_metadata::{Clock, Federation, Incarnation};
use twinport_oci::Digest;
use twinport_testkit::{Pair, SiteDatabase, SiteProcess, program};
use uuid::Uuid;

const BINARY: &str = env!("CARGO_BIN_EXE_twinport");
const PAGE: &str = include_str!("../docs/reference/http-api.md");

/// A row of the page.
#[derive(Debug)]
struct Row {
    method: Method,
    target: String,
    headers: Vec<(String, String)>,
    body: String,
    status: u16,
    /// Headers of the answer.
    named: Vec<String>,
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn rows() -> Vec<Row> {
    PAGE.lines().filter_map(row).collect()
}

/// A line of a table whose first cell begins with a method in capitals.
fn row(line: &str) -> Option<Row> {
    let cells: Vec<&str> = line.strip_prefix("| ")?.split(" |").map(str::trim).collect();
    let [request, sends, answers, ..] = cells.as_slice() else { return None };
    let request = quoted(request).into_iter().next()?;
    let (method, target) = request.split_once(' ')?;
    let method = Method::from_bytes(method.as_bytes()).ok()?;
    let mut headers: Vec<(String, String)> = Vec::new();
    let mut body = String::new();
    for item in quoted(sends) {
        match item
            .split_once(": ")
            .filter(|(name, _)| name.chars().all(|c| c.is_ascii_alphabetic() || c == '-'))
        {
            Some((name, value)) => headers.push((name.to_owned(), value.to_owned())),
            None => body = item,
        }
    }
    let mut answers = quoted(answers).into_iter();
    let status = answers.next()?.parse().ok()?;
    Some(Row { method, target: target.to_owned(), headers, body, status, named: answers.collect() })
}

/// What the page's names stand for.
struct Words {
    /// `{name}` in a target, a header or a body.
    values: HashMap<&'static str, String>,
    /// `@name` as a body.
    bodies: HashMap<&'static str, Vec<u8>>,
}

impl Words {
    fn new() -> Self {
        let (layer, config) = (b"hello".to_vec(), b"{}".to_vec());
        let descriptor = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": Digest::sha256(bytes), "size": bytes.len()});
        let image = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": image,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)]});
        let manifest = manifest.to_string().into_bytes();
        let artifact = json!({"schemaVersion": 2, "mediaType": image, "artifactType": "application/vnd.example",
            "config": descriptor("application/vnd.oci.empty.v1+json", &config), "layers": [],
            "subject": descriptor(image, &manifest)});
        let artifact = artifact.to_string().into_bytes();
        let bodies = HashMap::from([
            ("layer", layer),
            ("config", config),
            ("manifest", manifest),
            ("artifact", artifact),
        ]);
        let values = bodies.iter().map(|(name, bytes)| (*name, Digest::sha256(bytes).to_string())).collect();
        Self { values, bodies }
    }

    fn filled(&self, text: &str) -> String {
        self.values
            .iter()
            .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
    }

    fn body(&self, text: &str) -> anyhow::Result<Vec<u8>> {
        match text.strip_prefix('@') {
            Some(name) => self.bodies.get(name).cloned().with_context(|| format!("nobody knows @{name}")),
            None => Ok(self.filled(text).into_bytes()),
        }
    }
}

/// A client of a site's socket file.
fn by_socket(site: &SiteProcess) -> anyhow::Result<Client> {
    Ok(Client::builder().unix_socket(site.data().join("twinport.sock")).build()?)
}

/// A bearer credential of a site that has joined.
async fn credential(site: &SiteProcess) -> anyhow::Result<(Incarnation, String)> {
    let rows = site.rows("SELECT signing_key, incarnation, federation FROM site").await?;
    let row = rows.first().context("a site has an identity")?;
    let incarnation = Incarnation(Uuid::from_slice(row[1].bytes()?)?);
    let federation = Federation(Uuid::from_slice(row[2].bytes()?)?);
    let key = SiteKey::from_bytes(row[0].bytes()?)?;
    Ok((incarnation, format!("Bearer {}", key.credential(incarnation, federation, Clock::System.now_us())?)))
}

/// The request of a site that presents a token, with a key that nobody else has.
fn join_request(token: &str) -> anyhow::Result<Vec<u8>> {
    let token: JoinToken = token.parse()?;
    let key = SiteKey::from_bytes(&[Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat())?;
    let mut request = JoinRequest {
        token_id: token.id,
        secret: token.secret,
        site: token.site,
        incarnation: Incarnation::random(),
        public_key: key.public_key().to_vec(),
        external_url: None,
        internal_url: None,
        versions: Versions::OURS,
        clock_us: Clock::System.now_us(),
        token_keys: Vec::new(),
        proof: Vec::new(),
    };
    request.proof = key.sign(&request.proof_message());
    Ok(serde_json::to_vec(&request)?)
}

/// What calls of other sites say, which only this federation knows.
async fn learn_of_sites(pair: &Pair, words: &mut Words) -> anyhow::Result<String> {
    let (incarnation, credential) = credential(&pair.secondary).await?;
    let head = pair.primary.rows("SELECT epoch, owner, seq, hash FROM log_head").await?;
    let row = head.first().context("a log has a head")?;
    let (number, seq) = (row[0].int()?, row[2].int()?);
    let owner = Uuid::from_slice(row[1].bytes()?)?;
    let hash: String = row[3].bytes()?.iter().map(|byte| format!("{byte:02x}")).collect();
    words.values.insert("cursor", format!("number={number}&owner={owner}&seq={seq}&hash={hash}"));
    let repository = pair.primary.rows("SELECT uuid FROM repositories WHERE path = 'team/app'").await?;
    let uuid = repository.first().context("team/app is there")?[0].bytes()?;
    words.values.insert("repository", Uuid::from_slice(uuid)?.to_string());
    let counts = json!({"pending": 0, "started": 0, "synced": 0, "failed": 0,
        "verification_pending": 0, "verification_succeeded": 0, "verification_failed": 0});
    let status = json!({"nonce": Nonce::random(), "incarnation": incarnation,
        "ingested": {"epoch": {"number": number, "owner": owner}, "seq": seq}, "applied_seq": seq,
        "repositories": counts, "items": counts});
    words.bodies.insert("status", status.to_string().into_bytes());
    let url = pair.primary.url();
    words.bodies.insert("join", join_request(&pair.primary.join_token(&url, "paris", "oslo")?)?);
    Ok(credential)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_of_the_page_is_answered_as_it_says() -> anyhow::Result<()> {
    let pair = Pair::joined(BINARY, SiteDatabase::Embedded, SiteDatabase::Embedded)?;
    let joining = SiteProcess::start(&program(BINARY), &pair.folder().join("lima"), SiteDatabase::Embedded)?;
    let mut words = Words::new();
    let mut of_sites = None;
    let rows = rows();
    ensure!(rows.len() > 60, "the page has {} requests", rows.len());
    for row in &rows {
        if row.target.starts_with("/geo/") && of_sites.is_none() {
            of_sites = Some(learn_of_sites(&pair, &mut words).await?);
        }
        let site = if row.target == "/api/v1/sites/join" { &joining } else { &pair.primary };
        let client = if row.target.starts_with("/api/") { by_socket(site)? } else { Client::new() };
        let target = words.filled(&row.target);
        let url = if target.starts_with('/') { format!("{}{target}", site.url()) } else { target };
        let mut request = client.request(row.method.clone(), url).body(words.body(&row.body)?);
        for (name, value) in &row.headers {
            request = request.header(name, words.filled(value));
        }
        if let Some(credential) = of_sites.as_ref().filter(|_| row.target != "/geo/v1/join") {
            request = request.header(AUTHORIZATION, credential);
        }
        let answer = request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        // The log does not end.
        let body =
            if row.target.starts_with("/geo/v1/log") { Vec::new() } else { answer.bytes().await?.to_vec() };
        let shown = String::from_utf8_lossy(&body);
        ensure!(status == row.status, "{} {} answered {status}: {shown}", row.method, row.target);
        for name in &row.named {
            ensure!(headers.contains_key(name), "{} {}: no {name}: {headers:?}", row.method, row.target);
        }
        ensure!(headers.contains_key("x-request-id"), "{} {}: {headers:?}", row.method, row.target);
        if let Some(location) = headers.get("location").and_then(|location| location.to_str().ok())
            && location.contains("/blobs/uploads/")
        {
            words.values.insert("upload", location.to_owned());
        }
        if let Some(token) =
            serde_json::from_slice::<Value>(&body).ok().as_ref().and_then(|body| body["token"].as_str())
        {
            words.values.insert("token", token.to_owned());
        }
    }
    Ok(())
}

/// `/a/{x}/b` for `/a/7/b?c=d`: whether a request of the page is one of a route's.
fn is_of(target: &str, route: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    let (path, route): (Vec<_>, Vec<_>) = (path.split('/').collect(), route.split('/').collect());
    path.len() == route.len()
        && path.iter().zip(&route).all(|(part, wanted)| wanted.starts_with('{') || part == wanted)
}

#[test]
fn every_route_of_the_code_is_on_the_page() -> anyhow::Result<()> {
    let rows = rows();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/server/src");
    let mut routes = 0;
    for file in ["geo_api.rs", "admin_api.rs", "health.rs"] {
        let text = std::fs::read_to_string(source.join(file))?;
        for call in text.split(".route(").skip(1) {
            let Some(route) = call.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next())
            else {
                continue;
            };
            if route.contains("{*") {
                continue;
            }
            let handlers =
                call.split(".route(").next().unwrap_or_default().lines().next().unwrap_or_default();
            for method in ["get", "post", "delete"] {
                if !handlers.contains(&format!("{method}(")) {
                    continue;
                }
                routes += 1;
                let listed = rows
                    .iter()
                    .any(|row| row.method.as_str().eq_ignore_ascii_case(method) && is_of(&row.target, route));
                ensure!(listed, "{file} has {method} {route}, and the page has not");
            }
        }
    }
    ensure!(routes > 20, "{routes} routes were found");
    // The endpoints of the specification by their words, as the page has no pattern for names.
    for (method, part) in [
        ("GET", "/v2/"),
        ("GET", "/blobs/{"),
        ("HEAD", "/blobs/{"),
        ("DELETE", "/blobs/{"),
        ("GET", "/manifests/"),
        ("HEAD", "/manifests/"),
        ("PUT", "/manifests/"),
        ("DELETE", "/manifests/"),
        ("POST", "/blobs/uploads/"),
        ("POST", "?digest="),
        ("POST", "?digest-algorithm="),
        ("POST", "&from="),
        ("POST", "?mount="),
        ("PATCH", "{upload}"),
        ("PUT", "{upload}?digest="),
        ("GET", "{upload}"),
        ("DELETE", "{upload}"),
        ("PUT", "?tag="),
        ("GET", "/tags/list"),
        ("GET", "/tags/list?n="),
        ("GET", "/_catalog"),
        ("GET", "/referrers/"),
        ("GET", "?artifactType="),
        ("GET", "?ns="),
        ("OPTIONS", "/v2/"),
    ] {
        let listed = rows.iter().any(|row| row.method.as_str() == method && row.target.contains(part));
        ensure!(listed, "the page has no {method} of {part}");
    }
    Ok(())
}
