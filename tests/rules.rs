//! Rules as an operator works with them: what they refuse, what they count at both sites, what they take and give back.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use serde_json::Value;
use twinport_testkit::{Image, Pair, SiteDatabase, SiteProcess, postgres_database};

const BUILT: &str = env!("CARGO_BIN_EXE_twinport");

/// What a command says on standard error as it fails.
fn refused(site: &SiteProcess, arguments: &[&str]) -> String {
    let output = site.run(arguments).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{arguments:?} was done: {said}");
    said
}

/// Waits until a command's answer satisfies this.
fn until(site: &SiteProcess, arguments: &[&str], holds: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    for _ in 0..600 {
        last = site.json(arguments).unwrap_or_default();
        if holds(&last) {
            return last;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{arguments:?} said {last} to the end");
}

fn tags(site: &SiteProcess, repository: &str) -> Vec<String> {
    let tags = site.json(&["repo", "tags", repository]).unwrap_or_default();
    tags.as_array().into_iter().flatten().map(|tag| tag["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_refuse_count_take_and_give_back() {
    let pair = Pair::joined(BUILT, SiteDatabase::Embedded, SiteDatabase::Embedded).unwrap();
    worked_with(&pair).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_refuse_count_take_and_give_back_on_postgresql_too() {
    let (Some(one), Some(other)) = (postgres_database().await.unwrap(), postgres_database().await.unwrap())
    else {
        eprintln!("skipped on PostgreSQL: it is not installed");
        return;
    };
    let pair = Pair::joined(BUILT, SiteDatabase::Postgres(one), SiteDatabase::Postgres(other)).unwrap();
    worked_with(&pair).await;
}

async fn worked_with(pair: &Pair) {
    let (paris, tokyo) = (&pair.primary, &pair.secondary);
    let (http, url) = (reqwest::Client::new(), paris.url());
    let push = async |seed: u64, repository: &str, tag: &str| {
        Image::random(seed, 2, 1000).push(&http, &url, repository, tag).await
    };
    for number in 0..14 {
        push(number, "team/app", &format!("nightly-{number:02}")).await.unwrap();
    }
    push(100, "team/app", "v1").await.unwrap();
    push(0, "elsewhere", "latest").await.unwrap();

    // A rule counts from the moment that its command ends.
    paris.json(&["rule", "add", "immutable-tags", "releases", "team/**", "--tags", "v*"]).unwrap();
    let moved = push(101, "team/app", "v1").await.unwrap_err().to_string();
    assert!(moved.contains("403") && moved.contains("the rule releases"), "{moved}");
    let deleted = refused(paris, &["repo", "delete", "team/app", "--yes"]);
    assert!(deleted.contains("team/app") && deleted.contains("v1"), "{deleted}");

    // A quota counts the same at both sites: at one along the log, at the other what it has applied.
    paris.json(&["rule", "add", "quota", "team", "team/**", "--size", "100KiB"]).unwrap();
    let counted =
        |answer: &Value| answer["quota"]["complete"] == true && answer["quota"]["repositories"] == 1;
    let at_paris = until(paris, &["rule", "preview", "team"], counted);
    let bytes = at_paris["quota"]["bytes"].as_u64().unwrap();
    assert!((30_000..60_000).contains(&bytes), "{at_paris}");
    until(tokyo, &["rule", "preview", "team"], |answer| *answer == at_paris);

    // Retention: a large share has to be confirmed; what it takes can be brought back.
    let nightly = ["--tags", "nightly-*", "--keep", "3"];
    paris.json(&[&["rule", "add", "retention", "nightly", "team/**"][..], &nightly].concat()).unwrap();
    let preview = paris.json(&["rule", "preview", "nightly"]).unwrap();
    assert_eq!(preview["retention"]["plan"]["planned"], 11, "{preview}");
    let braked = refused(paris, &["rule", "run", "nightly"]);
    assert!(braked.contains("11 of 14 tags") && braked.contains("--confirm"), "{braked}");
    assert_eq!(tags(paris, "team/app").len(), 15);
    assert!(refused(tokyo, &["rule", "run", "nightly", "--confirm"]).contains("primary"));
    assert_eq!(paris.json(&["rule", "run", "nightly", "--confirm"]).unwrap()["taken"], 11);
    let kept = ["nightly-11", "nightly-12", "nightly-13", "v1"];
    assert_eq!(tags(paris, "team/app"), kept);
    let trash = paris.json(&["rule", "trash", "team/app"]).unwrap();
    assert_eq!(trash.as_array().unwrap().len(), 11);
    let digest = Image::random(0, 2, 1000).digest().to_string();
    assert_eq!((&trash[0]["tag"], &trash[0]["digest"]), (&Value::from("nightly-00"), &Value::from(digest)));
    paris.json(&["rule", "restore", "team/app", "nightly-00"]).unwrap();
    assert!(refused(paris, &["rule", "restore", "team/app", "nightly-00"]).contains("trash"));
    assert!(refused(paris, &["rule", "restore", "team/app", "v9"]).contains("trash"));

    let everywhere = [&["nightly-00"][..], &kept].concat();
    until(tokyo, &["repo", "tags", "team/app"], |tags| {
        let names = tags.as_array().into_iter().flatten().filter_map(|tag| tag["name"].as_str());
        names.eq(everywhere.iter().copied())
    });
}
