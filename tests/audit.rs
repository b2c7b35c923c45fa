//! Who changed what, where and by which request is on one line of the log each; secrets are on none, nor anywhere else.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use reqwest::{Client, Method, RequestBuilder};
use twinport_oci::Digest;
use twinport_testkit::{Pair, SiteDatabase, SiteProcess, program};

const BUILT: &str = env!("CARGO_BIN_EXE_twinport");
const PAGE: &str = include_str!("../docs/reference/logs.md");

/// The events that the page lists.
fn documented() -> BTreeSet<&'static str> {
    let table = PAGE.split("| event | when |").nth(1).unwrap();
    table.lines().filter(|line| line.starts_with("| `")).filter_map(|line| line.split('`').nth(1)).collect()
}

/// The audit lines of a site, without what stands before the target.
fn lines(site: &SiteProcess) -> Vec<String> {
    site.log()
        .lines()
        .filter_map(|line| line.split_once(" audit: "))
        .map(|(_, rest)| rest.to_owned())
        .collect()
}

fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let rest = line.split(&format!("{name}=")).nth(1).unwrap_or_default();
    let end = if rest.starts_with('"') { "\"" } else { " " };
    rest.trim_start_matches('"').split(end).next().unwrap_or_default()
}

/// Lines come from a thread of their own, a moment after the answer.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("never happened: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_has_one_audit_line_that_says_who_what_where_and_by_which_request() {
    let pair = Pair::joined(BUILT, SiteDatabase::Embedded, SiteDatabase::Embedded).unwrap();
    let (site, client) = (&pair.primary, Client::new());
    let (config, layer) = (Digest::sha256(b"{}"), Digest::sha256(b"layer"));
    let manifest = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"config\":{{\"mediaType\":\
         \"application/vnd.oci.empty.v1+json\",\"digest\":\"{config}\",\"size\":2}},\"layers\":[]}}"
    );
    let digest = Digest::sha256(manifest.as_bytes());
    let mut asked = 0;
    let mut ask = async |method: Method, path: &str, body: &str, status: u16| {
        asked += 1;
        let url = if path.starts_with('/') { format!("{}{path}", site.url()) } else { path.to_owned() };
        let request = client.request(method, &url).header("x-request-id", format!("asked-{asked}"));
        let answer = request.body(body.to_owned()).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{url}");
        answer
            .headers()
            .get("location")
            .map(|location| location.to_str().unwrap().to_owned())
            .unwrap_or_default()
    };
    let mut expected: Vec<(String, &str, String)> = Vec::new();
    let uploads = "/v2/team/app/blobs/uploads/";
    ask(Method::POST, &format!("{uploads}?digest={config}"), "{}", 201).await;
    expected.push(("asked-1".to_owned(), "blob_push", config.to_string()));
    let upload = ask(Method::POST, uploads, "", 202).await;
    ask(Method::PUT, &format!("{upload}?digest={layer}"), "layer", 201).await;
    expected.push(("asked-3".to_owned(), "blob_push", layer.to_string()));
    ask(Method::POST, &format!("/v2/team/other/blobs/uploads/?mount={layer}&from=team/app"), "", 201).await;
    expected.push(("asked-4".to_owned(), "blob_mount", layer.to_string()));
    let upload = ask(Method::POST, uploads, "", 202).await;
    ask(Method::DELETE, &upload, "", 204).await;
    expected.push(("asked-6".to_owned(), "upload_cancel", upload.rsplit('/').next().unwrap().to_owned()));
    ask(Method::PUT, "/v2/team/app/manifests/latest", &manifest, 201).await;
    expected.push(("asked-7".to_owned(), "manifest_push", "latest".to_owned()));
    ask(Method::PUT, &format!("/v2/team/app/manifests/{digest}?tag=v1&tag=v2"), &manifest, 201).await;
    expected.push(("asked-8".to_owned(), "manifest_push", digest.to_string()));
    ask(Method::DELETE, "/v2/team/app/manifests/v1", "", 202).await;
    expected.push(("asked-9".to_owned(), "tag_delete", "v1".to_owned()));
    ask(Method::DELETE, &format!("/v2/team/app/manifests/{digest}"), "", 202).await;
    expected.push(("asked-10".to_owned(), "manifest_delete", digest.to_string()));
    ask(Method::DELETE, &format!("/v2/team/app/blobs/{layer}"), "", 202).await;
    expected.push(("asked-11".to_owned(), "blob_delete", layer.to_string()));
    for tag in ["old", "new"] {
        ask(Method::PUT, &format!("/v2/team/app/manifests/{tag}"), &manifest, 201).await;
    }
    // What is refused, and what only reads, changes nothing.
    ask(Method::PUT, &format!("/v2/team/app/manifests/{layer}"), &manifest, 400).await;
    ask(Method::DELETE, "/v2/team/app/manifests/v9", "", 404).await;
    ask(Method::GET, "/v2/team/app/tags/list", "", 200).await;
    let (refused, read) = (asked - 2, asked);

    site.json(&["repo", "rename", "team/other", "team/moved"]).unwrap();
    site.json(&["repo", "delete", "team/moved", "--yes"]).unwrap();
    work_with_accounts(site);
    site.json(&["maintenance", "on", "--reason", "moving disks"]).unwrap();
    site.json(&["maintenance", "off"]).unwrap();
    site.json(&["site", "remove", "tokyo"]).unwrap();
    until("everything is logged", || lines(site).iter().any(|line| field(line, "event") == "site_remove"));

    let log = lines(site);
    for (id, event, reference) in &expected {
        let of_request: Vec<_> = log.iter().filter(|line| field(line, "request_id") == id).collect();
        assert_eq!(of_request.len(), 1, "{id}: {log:#?}");
        let line = of_request[0];
        assert_eq!((field(line, "event"), field(line, "reference")), (*event, reference.as_str()), "{line}");
        assert_eq!((field(line, "actor"), field(line, "client")), ("anonymous", "127.0.0.1"), "{line}");
        assert_eq!(field(line, "outcome"), "done", "{line}");
        assert!(field(line, "repository").starts_with("team/"), "{line}");
    }
    for id in refused..=read {
        assert!(!log.iter().any(|line| field(line, "request_id") == format!("asked-{id}")), "{log:#?}");
    }
    let pushed = log.iter().find(|line| field(line, "request_id") == "asked-8").unwrap();
    assert_eq!((field(pushed, "digest"), field(pushed, "tags")), (digest.to_string().as_str(), "v1,v2"));
    for (event, actor, subject) in [
        ("site_add", "operator", "tokyo"),
        ("site_admit", "site", "tokyo"),
        ("repository_rename", "operator", "team/other to team/moved"),
        ("repository_delete", "operator", "team/moved"),
        ("account_add", "operator", "user alice"),
        ("account_disable", "operator", "alice"),
        ("account_enable", "operator", "alice"),
        ("password_reset", "operator", "alice"),
        ("role_grant", "operator", "user:alice reader **"),
        ("role_revoke", "operator", "user:alice reader **"),
        ("rule_add", "operator", "releases"),
        ("rule_delete", "operator", "releases"),
        ("rule_run", "operator", "nightly, 1 tags"),
        ("tag_restore", "operator", "team/app:old"),
        ("account_delete", "operator", "alice"),
        ("maintenance_on", "operator", "moving disks"),
        ("maintenance_off", "operator", "this site"),
        ("site_remove", "operator", "tokyo"),
    ] {
        let line = log
            .iter()
            .find(|line| field(line, "event") == event)
            .unwrap_or_else(|| panic!("{event}: {log:#?}"));
        assert!(field(line, "actor").starts_with(actor) && field(line, "subject") == subject, "{line}");
        assert!(!field(line, "request_id").is_empty(), "{line}");
        assert_eq!(field(line, "client") == "socket", actor == "operator", "{line}");
    }
    let seen: BTreeSet<String> =
        log.iter().chain(&lines(&pair.secondary)).map(|line| field(line, "event").to_owned()).collect();
    // A loss is accepted where a database has lost something: `tests/database_restore.rs`.
    let elsewhere = BTreeSet::from(["loss_accept"]);
    let here: BTreeSet<_> = documented().difference(&elsewhere).copied().collect();
    assert_eq!(seen.iter().map(String::as_str).collect::<BTreeSet<_>>(), here);
}

/// Each of the changes once.
fn work_with_accounts(site: &SiteProcess) {
    site.json(&["user", "add", "alice"]).unwrap();
    let token = site.json(&["token", "create", "alice"]).unwrap();
    for change in [
        &["token", "revoke", token["id"].as_str().unwrap()][..],
        &["user", "disable", "alice"],
        &["user", "enable", "alice"],
        &["user", "reset-password", "alice"],
        &["role", "grant", "user:alice", "reader", "**"],
        &["role", "revoke", "user:alice", "reader", "**"],
        &["rule", "add", "create-only", "releases", "**"],
        &["rule", "delete", "releases"],
        &["rule", "add", "retention", "nightly", "team/**", "--tags", "*", "--keep", "1"],
        &["rule", "run", "nightly"],
        &["rule", "restore", "team/app", "old"],
        &["user", "delete", "alice"],
    ] {
        site.json(change).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a13_no_secret_is_in_a_log_line_an_answer_a_metric_or_the_configuration_shown() {
    let folder = tempfile::tempdir().unwrap();
    let environment = [
        ("REGISTRY_LOG_LEVEL", "trace"),
        ("REGISTRY_HTTP_SECRET", "hidden-http-secret"),
        ("REGISTRY_DATABASE_PASSWORD", "hidden-database-password"),
    ];
    let start = |name: &str| {
        let data = folder.path().join(name);
        SiteProcess::start_with(&program(BUILT), &data, SiteDatabase::Embedded, &environment).unwrap()
    };
    let (site, other) = (start("paris"), start("tokyo"));
    let client = Client::new();
    let mut said = Vec::new();
    let ask = async |request: RequestBuilder| {
        let request =
            request.header("cookie", "session=hidden-cookie").basic_auth("someone", Some("hidden-password"));
        request.send().await.unwrap().text().await.unwrap()
    };
    let digest = Digest::sha256(b"{}");
    for (method, path) in [
        (Method::GET, "/v2/?token=hidden-query".to_owned()),
        (Method::POST, format!("/v2/a/blobs/uploads/?digest={digest}&account=hidden-query")),
        (Method::PUT, "/v2/a/manifests/latest?_state=hidden-query".to_owned()),
        (Method::GET, "/v2/A/manifests/latest?token=hidden-query".to_owned()),
        (Method::GET, "/v2/a/tags/list?n=hidden-query".to_owned()),
        (Method::GET, "/geo/v1/repositories?token=hidden-query".to_owned()),
        (Method::POST, "/geo/v1/join?token=hidden-query".to_owned()),
        (Method::GET, "/nothing?token=hidden-query".to_owned()),
    ] {
        let url = format!("{}{path}", site.url());
        said.push(ask(client.request(method.clone(), &url).body("{}")).await);
        let bearer =
            client.request(method, &url).bearer_auth("hidden-bearer.hidden-bearer.hidden-bearer").body("{}");
        said.push(bearer.send().await.unwrap().text().await.unwrap());
    }
    let token = site.join_token(&site.url(), "paris", "tokyo").unwrap();
    other.json(&["site", "join", "--token", &token]).unwrap();
    let again = other.run(&["site", "join", "--token", &token]).unwrap();
    assert!(!again.status.success());
    said.push(String::from_utf8_lossy(&again.stderr).into_owned());
    for command in
        [&["config", "show"][..], &["doctor"], &["geo", "status"], &["site", "list"], &["site", "show"]]
    {
        let output = site.run(command).unwrap();
        said.push(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned());
    }
    assert!(
        said.iter().any(|text| text.contains("rootdirectory")),
        "the configuration was not shown: {said:#?}"
    );
    said.push(client.get(format!("{}/metrics", site.url())).send().await.unwrap().text().await.unwrap());

    let mut secrets: Vec<String> =
        ["http-secret", "database-password", "cookie", "password", "query", "bearer"]
            .map(|kind| format!("hidden-{kind}"))
            .to_vec();
    secrets.push(token);
    let user = site.json(&["user", "add", "alice"]).unwrap();
    secrets.push(user["password"].as_str().unwrap().to_owned());
    let robot = site.json(&["robot", "add", "ci"]).unwrap();
    secrets.push(robot["token"]["secret"].as_str().unwrap().to_owned());
    secrets.push("$argon2".to_owned());
    // The key with which a site signs, in the forms in which it could be written.
    for site in [&site, &other] {
        let rows = site.rows("SELECT signing_key FROM site").await.unwrap();
        // PKCS #8: the secret itself begins after 16 bytes that every such key has.
        let key = rows[0][0].bytes().unwrap()[16..48].to_vec();
        secrets.push(key.iter().map(|byte| format!("{byte:02x}")).collect());
        secrets.push(format!("{key:?}").trim_matches(['[', ']']).to_owned());
    }
    said.extend([site.log(), other.log()]);
    assert!(site.log().contains(" access: ") && site.log().contains(" audit: "), "{}", site.log());
    for text in &said {
        for secret in &secrets {
            let found = text.lines().find(|line| line.contains(secret.as_str()));
            assert!(found.is_none(), "{secret} is in: {}", found.unwrap_or_default());
        }
    }
}
