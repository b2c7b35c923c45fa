//! The built-in accounts, as clients meet them: signing in, roles, what is taken away, and the second site with the first one dead.
//! Each site is a process of its own, told what to do by the commands that an operator has.

mod signing_in {
    pub(crate) mod platform;
    pub(crate) mod site;
    pub(crate) mod table;
}

use anyhow::{Context as _, ensure};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use signing_in::platform::Platform;
use signing_in::site::{AccountSite, basic, scope};

#[tokio::test]
async fn a_client_is_led_to_the_token_service_and_gets_what_it_may() -> anyhow::Result<()> {
    let site = AccountSite::start("paris").await?;
    site.user("alice", "correct horse battery", &["writer:team/**"])?;
    site.run(&["role", "grant", "anyone", "reader", "public/**"])?;

    let base = site.request(Method::GET, "/v2/", None).await?;
    ensure!(base.status() == StatusCode::UNAUTHORIZED);
    let challenge = base.headers()["www-authenticate"].to_str()?.to_owned();
    ensure!(
        challenge == format!("Bearer realm=\"{}/token\",service=\"twinport\"", site.url()),
        "{challenge}"
    );
    let body: Value = base.json().await?;
    ensure!(body["errors"][0]["code"] == "UNAUTHORIZED", "{body}");

    let refused = site.request(Method::GET, "/v2/team/app/tags/list", None).await?;
    let challenge = refused.headers()["www-authenticate"].to_str()?.to_owned();
    ensure!(challenge.ends_with(",scope=\"repository:team/app:pull\""), "{challenge}");

    // Partial: one scope is granted, the other left out; several in one parameter, and repeated.
    let alice = basic("alice", "correct horse battery");
    let query = format!(
        "{}&{}",
        scope("repository:team/app:pull,push,delete"),
        scope("repository:other:pull repository:public/x:pull,push")
    );
    let answer = site.token(&query, Some(&alice)).await?;
    let token = answer["token"].as_str().context("a token")?.to_owned();
    ensure!(answer["access_token"] == answer["token"] && answer["expires_in"] == 300, "{answer}");
    ensure!(answer["issued_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{answer}");
    let claims = signing_in::site::claims(&token)?;
    let granted: Vec<String> =
        claims["access"].as_array().context("a list")?.iter().map(ToString::to_string).collect();
    ensure!(granted.len() == 2, "{granted:?}");
    ensure!(
        granted[0].contains("team/app") && granted[0].contains("push") && !granted[0].contains("delete"),
        "{granted:?}"
    );
    ensure!(granted[1].contains("public/x") && !granted[1].contains("push"), "{granted:?}");

    let bearer = format!("Bearer {token}");
    site.push("team/app", "v1", &bearer).await?;
    let pulled = site.request(Method::GET, "/v2/team/app/manifests/v1", Some(&bearer)).await?;
    ensure!(pulled.status() == StatusCode::OK);
    ensure!(pulled.headers()["cache-control"].to_str()?.contains("private"));
    let elsewhere = site.request(Method::GET, "/v2/other/manifests/v1", Some(&bearer)).await?;
    ensure!(elsewhere.status() == StatusCode::UNAUTHORIZED);
    ensure!(elsewhere.headers()["www-authenticate"].to_str()?.ends_with(",error=\"insufficient_scope\""));

    // Anonymous: a token for what anyone may, and none of it for the rest.
    let anonymous = site.token(&scope("repository:public/x:pull repository:team/app:pull"), None).await?;
    let claims = signing_in::site::claims(anonymous["token"].as_str().context("a token")?)?;
    ensure!(claims["access"].as_array().is_some_and(|list| list.len() == 1), "{claims}");

    // Another service's tokens are not made here.
    let wrong = site.request(Method::GET, "/token?service=elsewhere", Some(&alice)).await?;
    ensure!(wrong.status() == StatusCode::BAD_REQUEST);
    let wrong = site.request(Method::GET, "/token?service=twinport", Some(&basic("alice", "wrong"))).await?;
    ensure!(wrong.status() == StatusCode::UNAUTHORIZED && wrong.headers().contains_key("www-authenticate"));
    Ok(())
}

#[tokio::test]
async fn the_oauth_form_gives_a_refresh_token_that_ends_with_the_password() -> anyhow::Result<()> {
    let site = AccountSite::start("paris").await?;
    site.user("alice", "correct horse battery", &["writer:team/**"])?;
    let form = "grant_type=password&username=alice&password=correct+horse+battery&service=twinport&client_id=test\
                &access_type=offline&scope=repository%3Ateam%2Fapp%3Apull%2Cpush";
    let answer = site.form(form).await?.error_for_status()?.json::<Value>().await?;
    ensure!(
        answer["scope"] == "repository:team/app:pull,push" && answer["token_type"] == "Bearer",
        "{answer}"
    );
    let refresh = answer["refresh_token"].as_str().context("a refresh token")?.to_owned();
    let again = format!(
        "grant_type=refresh_token&refresh_token={refresh}&service=twinport&client_id=test&scope=repository%3Ateam%2Fapp%3Apull"
    );
    let answer = site.form(&again).await?.error_for_status()?.json::<Value>().await?;
    site.request(
        Method::GET,
        "/v2/team/app/tags/list",
        Some(&format!("Bearer {}", answer["access_token"].as_str().context("a token")?)),
    )
    .await?;
    site.set_password("alice", "another long password")?;
    ensure!(site.form(&again).await?.status() == StatusCode::UNAUTHORIZED);
    let forged = again.replace(&refresh, "tpr_AAAA");
    ensure!(site.form(&forged).await?.status() == StatusCode::UNAUTHORIZED);
    Ok(())
}

#[tokio::test]
async fn a14_what_was_taken_away_counts_for_nothing_from_the_next_request_on() -> anyhow::Result<()> {
    let site = AccountSite::start("paris").await?;
    site.user("alice", "correct horse battery", &["writer:team/**"])?;
    let alice = basic("alice", "correct horse battery");
    let wanted = scope("repository:team/app:pull,push");
    let bearer = async || {
        anyhow::Ok(format!(
            "Bearer {}",
            site.token(&wanted, Some(&alice)).await?["token"].as_str().context("a token")?
        ))
    };
    let status = async |authorization: &str| {
        anyhow::Ok(
            site.request(Method::POST, "/v2/team/app/blobs/uploads/", Some(authorization)).await?.status(),
        )
    };
    let held = bearer().await?;
    ensure!(status(&held).await? == StatusCode::ACCEPTED && status(&alice).await? == StatusCode::ACCEPTED);

    site.run(&["role", "revoke", "user:alice", "writer", "team/**"])?;
    ensure!(status(&held).await? == StatusCode::UNAUTHORIZED, "the bearer token outlived the role");
    ensure!(status(&alice).await? == StatusCode::FORBIDDEN, "the login outlived the role");
    site.run(&["role", "grant", "user:alice", "writer", "team/**"])?;
    ensure!(status(&held).await? == StatusCode::ACCEPTED);

    // A personal token ends alone, and what it was exchanged for with it.
    let created = site.json(&["token", "create", "alice", "--label", "laptop"])?;
    let secret = created["secret"].as_str().with_context(|| format!("a secret in {created}"))?.to_owned();
    let laptop = basic("alice", &secret);
    let exchanged = site.token(&wanted, Some(&laptop)).await?;
    let exchanged = format!("Bearer {}", exchanged["token"].as_str().context("a token")?);
    ensure!(
        status(&laptop).await? == StatusCode::ACCEPTED && status(&exchanged).await? == StatusCode::ACCEPTED
    );
    let id = created["id"].as_str().with_context(|| format!("an id in {created}"))?;
    site.run(&["token", "revoke", id])?;
    ensure!(status(&laptop).await? == StatusCode::UNAUTHORIZED, "the personal token outlived its end");
    ensure!(status(&exchanged).await? == StatusCode::UNAUTHORIZED, "what it was exchanged for outlived it");
    ensure!(status(&held).await? == StatusCode::ACCEPTED);

    site.run(&["user", "disable", "alice"])?;
    ensure!(
        status(&held).await? == StatusCode::UNAUTHORIZED && status(&alice).await? == StatusCode::UNAUTHORIZED
    );
    site.run(&["user", "enable", "alice"])?;
    ensure!(status(&alice).await? == StatusCode::ACCEPTED);
    site.run(&["user", "delete", "alice"])?;
    ensure!(
        status(&held).await? == StatusCode::UNAUTHORIZED && status(&alice).await? == StatusCode::UNAUTHORIZED
    );
    // Somebody else of that name is somebody else.
    site.user("alice", "a wholly other password", &["writer:team/**"])?;
    ensure!(status(&alice).await? == StatusCode::UNAUTHORIZED);
    Ok(())
}

#[tokio::test]
async fn a11_what_is_private_and_what_is_absent_are_answered_the_same() -> anyhow::Result<()> {
    let site = AccountSite::start("paris").await?;
    site.user("alice", "correct horse battery", &["writer:team/**"])?;
    site.user("mallory", "mallory's own password", &["reader:public/**"])?;
    site.push("team/app", "v1", &basic("alice", "correct horse battery")).await?;
    let digest = twinport_oci::Digest::sha256(b"{}");
    let mallory = basic("mallory", "mallory's own password");
    let token =
        site.token(&scope("repository:team/app:pull repository:team/nil:pull"), Some(&mallory)).await?;
    let bearer = format!("Bearer {}", token["token"].as_str().context("a token")?);
    for authorization in [None, Some(&mallory), Some(&bearer)] {
        for (method, rest) in [
            (Method::GET, "manifests/v1".to_owned()),
            (Method::HEAD, "manifests/v1".to_owned()),
            (Method::DELETE, "manifests/v1".to_owned()),
            (Method::GET, format!("blobs/{digest}")),
            (Method::GET, "tags/list".to_owned()),
            (Method::GET, format!("referrers/{digest}")),
            (Method::POST, "blobs/uploads/".to_owned()),
        ] {
            let mut seen = Vec::new();
            for name in ["team/app", "team/nil"] {
                let path = format!("/v2/{name}/{rest}");
                let answer = site.request(method.clone(), &path, authorization.map(String::as_str)).await?;
                let status = answer.status();
                ensure!(
                    [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status),
                    "{method} {path}: {status}"
                );
                let mut headers: Vec<String> = answer
                    .headers()
                    .iter()
                    .filter(|(key, _)| !["date", "x-request-id"].contains(&key.as_str()))
                    .map(|(key, value)| format!("{key}: {value:?}").replace(name, "NAME"))
                    .collect();
                headers.sort();
                let body = answer.text().await?.replace(name, "NAME");
                seen.push((status, headers, body));
            }
            ensure!(seen[0] == seen[1], "{method} {rest}: {seen:?}");
        }
    }
    // A mount from what the caller may not read is an upload, never a refusal that tells.
    site.run(&["role", "grant", "user:mallory", "writer", "own/**"])?;
    let mount = format!("/v2/own/x/blobs/uploads/?mount={digest}&from=team/app");
    let mounted = site.request(Method::POST, &mount, Some(&mallory)).await?;
    ensure!(mounted.status() == StatusCode::ACCEPTED, "{}", mounted.status());
    let anonymous = site
        .request(Method::POST, &format!("/v2/own/x/blobs/uploads/?mount={digest}"), Some(&mallory))
        .await?;
    ensure!(anonymous.status() == StatusCode::ACCEPTED, "an anonymous mount reached a private blob");
    let listed: Value = site.request(Method::GET, "/v2/_catalog", Some(&mallory)).await?.json().await?;
    ensure!(listed["repositories"].as_array().is_some_and(Vec::is_empty), "{listed}");
    Ok(())
}

#[tokio::test]
async fn a11_guesses_are_slowed_down_and_nothing_of_them_is_logged() -> anyhow::Result<()> {
    let site = AccountSite::start("paris").await?;
    site.user("alice", "correct horse battery", &["writer:team/**"])?;
    let mut statuses = Vec::new();
    for number in 0..12 {
        let guess = basic("alice", &format!("hidden-guess-{number}"));
        let answer = site.request(Method::GET, "/token?service=twinport", Some(&guess)).await?;
        statuses.push(answer.status());
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            ensure!(answer.headers().contains_key("retry-after"));
        }
    }
    ensure!(
        statuses.contains(&StatusCode::UNAUTHORIZED) && statuses.contains(&StatusCode::TOO_MANY_REQUESTS),
        "{statuses:?}"
    );
    let log = site.log();
    ensure!(!log.contains("hidden-guess") && !log.contains("correct horse"), "a secret is in the log");
    ensure!(log.contains("sign_in_denied"), "no audit line of a refused sign-in");
    Ok(())
}

#[tokio::test]
async fn accounts_sign_in_at_the_second_site_with_the_first_one_dead() -> anyhow::Result<()> {
    let mut paris = AccountSite::start("paris").await?;
    let tokyo = AccountSite::start("tokyo").await?;
    paris.user("alice", "correct horse battery", &["writer:team/**"])?;
    paris.push("team/app", "v1", &basic("alice", "correct horse battery")).await?;
    paris.join(&tokyo)?;
    // What changes after the join arrives by the log, and a robot with its secret.
    let robot = paris.json(&["robot", "add", "ci", "--role", "reader:team/**"])?;
    let secret =
        robot["token"]["secret"].as_str().with_context(|| format!("a secret in {robot}"))?.to_owned();
    paris.user("bob", "bob's long password", &["reader:team/**"])?;
    paris.run(&["user", "disable", "bob"])?;
    let wanted = scope("repository:team/app:pull,push");
    let at_paris = paris.token(&wanted, Some(&basic("ci", &secret))).await?;
    let at_paris = format!("Bearer {}", at_paris["token"].as_str().context("a token")?);
    tokyo
        .wait_for(async || {
            let pulled = tokyo.request(Method::GET, "/v2/team/app/manifests/v1", Some(&at_paris)).await?;
            let bob =
                tokyo.request(Method::GET, "/token", Some(&basic("bob", "bob's long password"))).await?;
            anyhow::Ok(pulled.status() == StatusCode::OK && bob.status() == StatusCode::UNAUTHORIZED)
        })
        .await
        .context("a token of paris, and the records, count at tokyo")?;
    paris.kill();
    for (name, password) in [("alice", "correct horse battery"), ("ci", secret.as_str())] {
        let token = tokyo.token(&wanted, Some(&basic(name, password))).await?;
        let bearer = format!("Bearer {}", token["token"].as_str().context("a token")?);
        let pulled = tokyo.request(Method::GET, "/v2/team/app/manifests/v1", Some(&bearer)).await?;
        ensure!(pulled.status() == StatusCode::OK, "{name}: {}", pulled.status());
    }
    let bob = tokyo.request(Method::GET, "/token", Some(&basic("bob", "bob's long password"))).await?;
    ensure!(bob.status() == StatusCode::UNAUTHORIZED, "bob was disabled: {}", bob.status());
    Ok(())
}

#[tokio::test]
async fn the_table_of_roles_is_what_the_page_says() -> anyhow::Result<()> {
    let made = signing_in::table::roles().await?;
    signing_in::table::check("roles", &made)
}

#[tokio::test]
async fn a_job_signs_in_with_what_its_platform_signed_and_gets_the_roles_of_its_claims() -> anyhow::Result<()>
{
    let platform = Platform::new()?;
    let site = AccountSite::start_with_issuer("paris", &platform).await?;
    site.run(&["role", "grant", "workload:ci,repository=acme/*,ref=refs/heads/main", "writer", "acme/**"])?;
    let wanted = scope("repository:acme/app:pull,push");
    let granted = async |token: &str, name: &str| {
        let answer = site
            .request(Method::GET, &format!("/token?service=twinport&{wanted}"), Some(&basic(name, token)))
            .await?;
        if answer.status() != StatusCode::OK {
            return anyhow::Ok(None);
        }
        let body: Value = answer.json().await?;
        let token = body["token"].as_str().context("a token")?.to_owned();
        let access = signing_in::site::claims(&token)?["access"].as_array().context("a list")?.len();
        anyhow::Ok(Some((token, access)))
    };
    let main = platform.token("registry", "refs/heads/main", 0)?;
    let (token, access) = granted(&main, "ci").await?.context("the job signs in")?;
    ensure!(access == 1, "the role of its claims");
    site.push("acme/app", "v1", &format!("Bearer {token}")).await?;
    let (_, access) =
        granted(&platform.token("registry", "refs/heads/other", 0)?, "ci").await?.context("signs in")?;
    ensure!(access == 0, "another branch has no role");
    for (refused, why) in [
        (granted(&platform.token("elsewhere", "refs/heads/main", 0)?, "ci").await?, "another audience"),
        (granted(&platform.token("registry", "refs/heads/main", -7_200)?, "ci").await?, "expired"),
        (
            granted(&Platform::new()?.token("registry", "refs/heads/main", 0)?, "ci").await?,
            "another platform's key",
        ),
        (granted(&main, "alice").await?, "another name"),
    ] {
        ensure!(refused.is_none(), "{why}");
    }
    let log = site.log();
    ensure!(
        !log.contains(&main) && log.contains("workload job of ci"),
        "the audit names the job, and no token"
    );
    Ok(())
}

#[tokio::test]
async fn in_maintenance_mode_pulls_go_on_and_pushes_are_told_to_come_back() -> anyhow::Result<()> {
    let site = AccountSite::start("paris").await?;
    site.user("alice", "correct horse battery", &["writer:team/**"])?;
    let alice = basic("alice", "correct horse battery");
    site.push("team/app", "v1", &alice).await?;
    site.run(&["maintenance", "on", "--reason", "moving disks"])?;
    for (method, path) in
        [(Method::POST, "/v2/team/app/blobs/uploads/"), (Method::PUT, "/v2/team/app/manifests/v2")]
    {
        let answer = site
            .send(
                method,
                path,
                Some(&alice),
                "application/vnd.oci.image.manifest.v1+json",
                signing_in::site::manifest("v2"),
            )
            .await?;
        ensure!(answer.status() == StatusCode::SERVICE_UNAVAILABLE, "{path}: {}", answer.status());
        ensure!(answer.headers().contains_key("retry-after"));
        let body = answer.text().await?;
        ensure!(body.contains("moving disks") && body.contains("UNAVAILABLE"), "{body}");
    }
    let pulled = site.request(Method::GET, "/v2/team/app/manifests/v1", Some(&alice)).await?;
    ensure!(pulled.status() == StatusCode::OK);
    site.token(&scope("repository:team/app:pull"), Some(&alice)).await.context("signing in goes on")?;
    site.run(&["maintenance", "off"])?;
    site.push("team/app", "v2", &alice).await?;
    Ok(())
}

#[tokio::test]
async fn the_table_of_rules_is_what_the_page_says() -> anyhow::Result<()> {
    let made = signing_in::table::rules().await?;
    signing_in::table::check("rules", &made)
}
