//! Accounts, tokens, roles and rules as an operator works with them, at the primary and at a site that follows it.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use serde_json::{Value, json};
use twinport_testkit::{Pair, SiteDatabase, SiteProcess, postgres_database};

const BUILT: &str = env!("CARGO_BIN_EXE_twinport");

/// What a command says on standard error as it fails.
fn refused(site: &SiteProcess, arguments: &[&str]) -> String {
    let output = site.run(arguments).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{arguments:?} was done: {said}");
    assert!(output.stdout.is_empty(), "{arguments:?} printed something");
    said
}

/// What a command prints on standard output.
fn printed(site: &SiteProcess, arguments: &[&str]) -> String {
    let output = site.run(arguments).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect()
}

/// Waits until a command's answer is this.
fn until(site: &SiteProcess, arguments: &[&str], expected: &Value) {
    let mut last = Value::Null;
    for _ in 0..600 {
        last = site.json(arguments).unwrap();
        if last == *expected {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{arguments:?} never said {expected}, but {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_worked_with_at_the_primary_and_known_at_every_site() {
    let pair = Pair::joined(BUILT, SiteDatabase::Embedded, SiteDatabase::Embedded).unwrap();
    worked_with(&pair);
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_worked_with_on_postgresql_too() {
    let (Some(one), Some(other)) = (postgres_database().await.unwrap(), postgres_database().await.unwrap())
    else {
        eprintln!("skipped on PostgreSQL: it is not installed");
        return;
    };
    let pair = Pair::joined(BUILT, SiteDatabase::Postgres(one), SiteDatabase::Postgres(other)).unwrap();
    worked_with(&pair);
}

fn worked_with(pair: &Pair) {
    let (paris, tokyo) = (&pair.primary, &pair.secondary);
    // Alone on standard output, so that it can be piped.
    let password =
        printed(paris, &["user", "add", "alice", "--role", "writer:team/**", "--description", "Alice"]);
    assert!(password.len() >= 20 && !password.contains(char::is_whitespace), "{password}");
    let robot =
        paris.json(&["robot", "add", "ci", "--role", "creator:team/app", "--expires", "90d"]).unwrap();
    let secret = robot["token"]["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("tp_"), "{robot}");
    let again = refused(paris, &["user", "add", "ci"]);
    assert!(again.contains("ci exists already"), "{again}");
    assert_eq!(names(&paris.json(&["user", "list"]).unwrap()), ["alice"]);
    assert_eq!(names(&paris.json(&["robot", "list"]).unwrap()), ["ci"]);

    let token = paris
        .json(&[
            "token",
            "create",
            "alice",
            "--label",
            "laptop",
            "--repositories",
            "team/*",
            "--actions",
            "pull",
        ])
        .unwrap();
    assert_eq!(token["limit"], json!({ "repositories": "team/*", "actions": "pull" }));
    let shown = paris.json(&["user", "show", "alice"]).unwrap();
    assert_eq!(shown["roles"], json!(["writer:team/**"]));
    assert_eq!(shown["tokens"][0]["id"], token["id"]);
    assert_eq!(shown["tokens"][0].get("secret"), None, "a secret is shown once");
    paris.json(&["role", "grant", "anyone", "reader", "public/**"]).unwrap();
    let unknown = paris.json(&["role", "grant", "user:dora", "reader", "public/**"]).unwrap();
    assert_eq!((&unknown["changed"], &unknown["account_known"]), (&json!(true), &json!(false)));
    paris
        .json(&["rule", "add", "immutable-tags", "releases", "team/**", "--tags", "v*", "--except", "v0.*"])
        .unwrap();
    assert!(printed(paris, &["rule", "list"]).contains("v* but v0.*"));
    assert!(printed(paris, &["token", "list"]).contains("pull on team/*"));

    // The other site knows it all, and says where to change it.
    for list in [["user", "list"], ["robot", "list"], ["token", "list"], ["role", "list"], ["rule", "list"]] {
        until(tokyo, &list, &paris.json(&list).unwrap());
    }
    let id = token["id"].as_str().unwrap();
    for change in [
        &["user", "add", "bob"][..],
        &["user", "reset-password", "alice"],
        &["user", "disable", "alice"],
        &["user", "delete", "alice"],
        &["robot", "rotate", "ci"],
        &["token", "create", "alice"],
        &["token", "revoke", id],
        &["role", "grant", "anyone", "reader", "**"],
        &["rule", "delete", "releases"],
    ] {
        let said = refused(tokyo, change);
        assert!(said.contains("write to the primary site paris"), "{change:?}: {said}");
    }

    let rotated = paris.json(&["robot", "rotate", "ci"]).unwrap();
    assert_ne!(rotated["secret"], json!(secret));
    assert_eq!(rotated["replaced"], json!(1));
    let another = printed(paris, &["user", "reset-password", "alice"]);
    assert_ne!(another, password);
    paris.json(&["token", "revoke", id]).unwrap();
    paris.json(&["rule", "delete", "releases"]).unwrap();
    paris.json(&["role", "revoke", "anyone", "reader", "public/**"]).unwrap();
    let ended = paris.json(&["robot", "delete", "ci"]).unwrap();
    assert_eq!((&ended["tokens"], &ended["roles"]), (&json!(1), &json!(1)));
    paris.json(&["user", "disable", "alice"]).unwrap();
    for list in [["user", "list"], ["robot", "list"], ["token", "list"], ["role", "list"], ["rule", "list"]] {
        until(tokyo, &list, &paris.json(&list).unwrap());
    }
    assert_eq!(tokyo.json(&["user", "show", "alice"]).unwrap()["disabled"], json!(true));

    for log in [paris.log(), tokyo.log()] {
        for secret in [&password, &another, &secret, rotated["secret"].as_str().unwrap(), "argon2"] {
            assert!(!log.contains(secret), "a secret is in the log");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a14_a_password_is_long_enough_chosen_or_made_and_never_an_argument() {
    let folder = tempfile::tempdir().unwrap();
    let site =
        SiteProcess::start(BUILT.as_ref(), &folder.path().join("data"), SiteDatabase::Embedded).unwrap();
    let file = folder.path().join("password");
    let path = file.to_str().unwrap();
    let add = ["user", "add", "alice", "--password-file", path];
    assert!(refused(&site, &add).contains("cannot read the password"));
    for (text, reason) in [("", "is empty"), ("\nhunter2-hunter2", "is empty"), ("hunter2", "12 characters")]
    {
        std::fs::write(&file, text).unwrap();
        let said = refused(&site, &add);
        assert!(said.contains(reason), "{text:?}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    assert_eq!(site.json(&["user", "list"]).unwrap(), json!([]), "nothing was made");
    std::fs::write(&file, "correct horse battery\nand a note").unwrap();
    let added = site.json(&add).unwrap();
    assert_eq!(added.get("password"), None, "what was chosen is not shown");
    let robot = refused(&site, &["user", "reset-password", "nobody"]);
    assert!(robot.contains("no account is called nobody"), "{robot}");
    site.json(&["robot", "add", "ci"]).unwrap();
    let robot = refused(&site, &["user", "reset-password", "ci"]);
    assert!(robot.contains("robots have no password"), "{robot}");
    assert!(!site.log().contains("correct horse"));

    // The API of all this is behind the socket file and nowhere else.
    let answer = reqwest::get(format!("{}/api/v1/accounts", site.url())).await.unwrap();
    assert_eq!(answer.status().as_u16(), 404);
}

/// The password that a first start printed.
fn printed_password(log: &str) -> Option<&str> {
    let rest = log.split("Its password, shown this once:").nth(1)?;
    rest.lines().map(str::trim).find(|line| !line.is_empty())
}

const ACCOUNTS: (&str, &str) = ("REGISTRY_ACCOUNTS_ENABLED", "true");

#[tokio::test(flavor = "multi_thread")]
async fn a14_the_first_start_makes_one_account_with_a_password_that_nobody_knew() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut site =
        SiteProcess::start_with(BUILT.as_ref(), &data, SiteDatabase::Embedded, &[ACCOUNTS]).unwrap();
    let log = site.log();
    let password = printed_password(&log).expect("a password is printed").to_owned();
    assert!(password.len() >= 20, "{password}");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(&password)).collect();
    assert_eq!(lines.len(), 1, "it is printed once");
    assert_eq!(lines[0].trim(), password, "and on no line of the log");
    assert_eq!(names(&site.json(&["user", "list"]).unwrap()), ["admin"]);
    let role = json!([{ "subject": "user:admin", "role": "admin", "repositories": "**" }]);
    assert_eq!(site.json(&["role", "list"]).unwrap(), role);

    let client = reqwest::Client::new();
    let sign_in = async |site: &SiteProcess, password: &str| {
        let request = client.get(format!("{}/v2/", site.url())).basic_auth("admin", Some(password));
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(sign_in(&site, &password).await, 200);
    for guess in ["", "admin", "password", "twinport", "changeme", "Harbor12345"] {
        assert_eq!(sign_in(&site, guess).await, 401, "{guess:?}");
    }

    // Another start makes and prints nothing, also after the account is gone.
    site.json(&["user", "delete", "admin"]).unwrap();
    site.terminate().unwrap();
    site.start_again().unwrap();
    assert_eq!(site.log().matches("shown this once").count(), 1);
    assert_eq!(site.json(&["user", "list"]).unwrap(), json!([]));
    assert_eq!(sign_in(&site, &password).await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a14_the_first_password_is_the_operators_where_a_file_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    let environment = [ACCOUNTS, ("TWINPORT_ADMIN_PASSWORD_FILE", file.to_str().unwrap())];
    let start = |name: &str| {
        SiteProcess::start_with(
            BUILT.as_ref(),
            &folder.path().join(name),
            SiteDatabase::Embedded,
            &environment,
        )
    };
    for (name, text) in [("missing", None), ("empty", Some("\n")), ("short", Some("hunter2"))] {
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let refused = start(name).unwrap_err().to_string();
        assert!(refused.contains("password") && !refused.contains("hunter2"), "{name}: {refused}");
    }
    std::fs::write(&file, "correct horse battery\n").unwrap();
    let site = start("data").unwrap();
    assert_eq!(printed_password(&site.log()), None);
    assert!(!site.log().contains("correct horse"));
    let request = reqwest::Client::new().get(format!("{}/v2/", site.url()));
    let answer = request.basic_auth("admin", Some("correct horse battery")).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    assert_eq!(names(&site.json(&["user", "list"]).unwrap()), ["admin"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_with_accounts_joins_another_and_forgets_its_own_first_one() {
    let folder = tempfile::tempdir().unwrap();
    let start = |name: &str| {
        let data = folder.path().join(name);
        SiteProcess::start_with(BUILT.as_ref(), &data, SiteDatabase::Embedded, &[ACCOUNTS]).unwrap()
    };
    let (paris, mut tokyo) = (start("paris"), start("tokyo"));
    let forgotten = printed_password(&tokyo.log()).unwrap().to_owned();
    let known = printed_password(&paris.log()).unwrap().to_owned();
    paris.join("paris", &tokyo, "tokyo").unwrap();
    let password = paris.json(&["user", "add", "alice", "--role", "reader:**"]).unwrap();
    let password = password["password"].as_str().unwrap();
    until(&tokyo, &["user", "list"], &paris.json(&["user", "list"]).unwrap());
    let signed_in = async |site: &SiteProcess, name: &str, password: &str| {
        let request = reqwest::Client::new().get(format!("{}/v2/", site.url()));
        request.basic_auth(name, Some(password)).send().await.unwrap().status().as_u16() == 200
    };
    assert!(!signed_in(&tokyo, "admin", &forgotten).await, "its own first account went with the join");
    assert!(signed_in(&tokyo, "admin", &known).await);

    // Also with the primary dead, and after a start of its own.
    drop(paris);
    tokyo.kill();
    tokyo.start_again().unwrap();
    assert!(signed_in(&tokyo, "alice", password).await);
    assert_eq!(tokyo.log().matches("shown this once").count(), 1, "a secondary makes no account");
}
