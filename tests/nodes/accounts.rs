//! Accounts, tokens and roles at a site of three nodes that are configured with nothing in common but database and store.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use reqwest::StatusCode;

use twinport_testkit::Cluster;

use super::{Runtime, Store, three_nodes};

#[test]
fn nodes_share_one_first_account_their_keys_and_what_is_revoked() -> anyhow::Result<()> {
    let (folder, runtime) = (tempfile::tempdir()?, Runtime::new()?);
    let accounts = [("REGISTRY_ACCOUNTS_ENABLED", "true"), ("REGISTRY_ACCOUNTS_SERVICE", "twinport")];
    let store = Store::Directory;
    let Some(cluster) = three_nodes(&runtime, &folder, "known", store, &accounts)? else { return Ok(()) };
    runtime.block_on(shared(&cluster))
}

async fn shared(cluster: &Cluster) -> anyhow::Result<()> {
    // Three nodes started at once, and one of them made the account.
    let made = cluster.nodes_that_logged("The first account of this registry is admin");
    ensure!(made == 1, "{made} nodes made a first account");

    let node = &cluster.nodes[0];
    let added = node.run(&["user", "add", "alice", "--role", "writer:team/**"])?;
    ensure!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    let password = String::from_utf8(added.stdout)?.trim().to_owned();

    let (http, url) = (reqwest::Client::new(), cluster.url());
    let token = eventually("a token", async || {
        let asked = http
            .get(format!("{url}/token?service=twinport&scope=repository:team/app:pull,push"))
            .basic_auth("alice", Some(&password));
        let answer = asked.send().await?;
        ensure!(answer.status() == StatusCode::OK, "{}", answer.text().await?);
        let body: serde_json::Value = answer.json().await?;
        Ok(body["token"].as_str().context("a token")?.to_owned())
    })
    .await?;
    let push = async || {
        let begun = http.post(format!("{url}/v2/team/app/blobs/uploads/")).bearer_auth(&token).send().await?;
        anyhow::Ok(begun.status())
    };
    // What one node signed, every node takes; a change that one made is known to all within a second.
    eventually("every node takes the token", async || {
        for _ in 0..6 {
            ensure!(push().await? == StatusCode::ACCEPTED);
        }
        Ok(())
    })
    .await?;
    node.json(&["user", "disable", "alice"])?;
    let began = Instant::now();
    eventually("no node takes the token of a disabled account", async || {
        for _ in 0..6 {
            ensure!(push().await? == StatusCode::UNAUTHORIZED);
        }
        Ok(())
    })
    .await?;
    println!("a disabled account was refused by every node after {} ms", began.elapsed().as_millis());
    Ok(())
}

async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => return Err(error.context(what.to_owned())),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
