//! Joining: one token, one site, once (hazards A9, R28).

use futures_util::future::join_all;
use twinport_geo::{AddSite, RefusalCode, protocol::Versions};
use twinport_metadata::{Actor, BecomeSecondary, EventKind, SiteRecord, SiteState};

use crate::{
    on_both_databases,
    site::{Applicant, SECOND_US, TestSite, fresh_key, refused},
};

on_both_databases! {
    a_join_is_logged_and_the_answer_says_from_where_to_follow,
    r28_a_join_token_used_twice_is_refused,
    r28_of_two_joins_that_race_with_one_token_one_is_admitted,
    r28_of_two_tokens_for_one_name_one_is_admitted,
    a9_a_join_token_that_expired_is_refused,
    a9_a_join_with_a_wrong_secret_or_another_name_is_refused,
    a9_a_join_that_does_not_prove_its_key_is_refused,
    a_join_with_clocks_apart_names_both_and_spares_the_token,
    a_join_of_a_version_too_old_says_which_site_to_upgrade,
    a_site_that_has_no_name_asks_for_one,
    a_secondary_adds_no_site,
}

async fn a_join_is_logged_and_the_answer_says_from_where_to_follow(site: TestSite) {
    site.write("before").await.unwrap();
    let tokyo = Applicant::new("tokyo");
    let answer = site.join(&tokyo).await.unwrap();

    let own = site.metadata.site().await.unwrap();
    assert_eq!(answer.federation, own.federation);
    assert_eq!(answer.primary.name, "paris");
    assert_eq!(answer.primary.incarnation, own.incarnation);
    assert_eq!(answer.primary.public_key, own.public_key);
    assert_eq!(answer.versions, Versions::OURS);
    assert_eq!(answer.clock_us, site.now_us());
    assert_eq!(answer.epochs.len(), 1);
    assert_eq!(answer.sites.len(), 1);
    assert_eq!(answer.sites[0].incarnation, tokyo.incarnation);

    let event = site.metadata.event_at(answer.head.seq).await.unwrap().unwrap();
    assert_eq!(event.hash, answer.head.hash);
    let event = event.event().unwrap();
    assert_eq!(event.kind, EventKind::SiteChanged);
    let record: SiteRecord = serde_json::from_value(event.site.unwrap()).unwrap();
    assert_eq!((record.name.as_str(), record.state), ("tokyo", SiteState::Joined));
    assert_eq!(record, answer.sites[0]);
}

async fn r28_a_join_token_used_twice_is_refused(site: TestSite) {
    let token = site.token("tokyo").await;
    let tokyo = Applicant::new("tokyo");
    let request = site.request(&token, &tokyo);
    site.registrar.join(request.clone()).await.unwrap();
    let head = site.head().await;
    // The very same request, and the token in other hands.
    assert_eq!(refused(site.registrar.join(request).await), RefusalCode::TokenUsed);
    let other = site.request(&token, &Applicant::new("tokyo"));
    assert_eq!(refused(site.registrar.join(other.clone()).await), RefusalCode::TokenUsed);
    assert_eq!(site.head().await, head);
    assert_eq!(site.metadata.sites().await.unwrap().len(), 1);
    // A removal does not make the token good again.
    site.registrar.remove("tokyo", &Actor::anonymous()).await.unwrap().unwrap();
    assert_eq!(refused(site.registrar.join(other).await), RefusalCode::TokenUsed);
}

async fn r28_of_two_joins_that_race_with_one_token_one_is_admitted(site: TestSite) {
    for round in 0..5 {
        let name = format!("site-{round}");
        let token = site.token(&name).await;
        let racers: Vec<_> = (0..6).map(|_| site.request(&token, &Applicant::new(&name))).collect();
        let answers = join_all(racers.into_iter().map(|request| site.registrar.join(request))).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
        for answer in answers.into_iter().filter(Result::is_err) {
            assert_eq!(refused(answer), RefusalCode::TokenUsed);
        }
        assert_eq!(site.metadata.sites().await.unwrap().len(), round + 1);
    }
}

async fn r28_of_two_tokens_for_one_name_one_is_admitted(site: TestSite) {
    let tokens = [site.token("tokyo").await, site.token("tokyo").await];
    let racers =
        tokens.iter().map(|token| site.registrar.join(site.request(token, &Applicant::new("tokyo"))));
    let answers = join_all(racers).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    let loser = answers.into_iter().find(Result::is_err).unwrap();
    assert_eq!(refused(loser), RefusalCode::SiteExists);
}

async fn a9_a_join_token_that_expired_is_refused(site: TestSite) {
    let token = site.token("tokyo").await;
    site.step_clock(3_600 * SECOND_US);
    let request = site.request(&token, &Applicant::new("tokyo"));
    assert_eq!(refused(site.registrar.join(request).await), RefusalCode::TokenExpired);
    assert!(site.metadata.sites().await.unwrap().is_empty());
}

async fn a9_a_join_with_a_wrong_secret_or_another_name_is_refused(site: TestSite) {
    let token = site.token("tokyo").await;
    let mut guessed = token.clone();
    guessed.secret[31] ^= 1;
    let mut unknown = token.clone();
    unknown.id = uuid::Uuid::new_v4();
    let mut renamed = token.clone();
    renamed.site = "lima".to_owned();
    let mut empty = token.clone();
    empty.secret.clear();
    for forged in [guessed, unknown, renamed, empty] {
        let request = site.request(&forged, &Applicant::new("tokyo"));
        assert_eq!(refused(site.registrar.join(request).await), RefusalCode::TokenInvalid);
    }
    site.registrar.join(site.request(&token, &Applicant::new("tokyo"))).await.unwrap();
}

async fn a9_a_join_that_does_not_prove_its_key_is_refused(site: TestSite) {
    let token = site.token("tokyo").await;
    let tokyo = Applicant::new("tokyo");
    let honest = site.request(&token, &tokyo);

    let mut another_key = honest.clone();
    another_key.public_key = fresh_key().public_key().to_vec();
    let mut another_incarnation = honest.clone();
    another_incarnation.incarnation = Applicant::new("tokyo").incarnation;
    let mut another_time = honest.clone();
    another_time.clock_us += 1;
    let mut no_proof = honest.clone();
    no_proof.proof.clear();
    let mut short_key = honest.clone();
    short_key.public_key.truncate(31);
    for forged in [another_key, another_incarnation, another_time, no_proof, short_key] {
        assert_eq!(refused(site.registrar.join(forged).await), RefusalCode::ProofInvalid);
    }
    site.registrar.join(honest).await.unwrap();
}

async fn a_join_with_clocks_apart_names_both_and_spares_the_token(site: TestSite) {
    let token = site.token("tokyo").await;
    let tokyo = Applicant::new("tokyo");
    for apart in [61, -61] {
        let mut request = site.request(&token, &tokyo);
        request.clock_us += apart * SECOND_US;
        request.proof = tokyo.key.sign(&request.proof_message());
        let theirs = request.clock_us;
        let error = site.registrar.join(request).await.unwrap_err();
        assert_eq!(error.code(), Some(RefusalCode::ClockSkew));
        let text = error.to_string();
        assert!(text.contains(&site.now_us().to_string()) && text.contains(&theirs.to_string()), "{text}");
    }
    site.registrar.join(site.request(&token, &tokyo)).await.unwrap();
}

async fn a_join_of_a_version_too_old_says_which_site_to_upgrade(site: TestSite) {
    let token = site.token("tokyo").await;
    let tokyo = Applicant::new("tokyo");
    let mut request = site.request(&token, &tokyo);
    request.versions = Versions { protocol: Versions::OURS.protocol + 2, ..Versions::OURS };
    let error = site.registrar.join(request.clone()).await.unwrap_err();
    assert_eq!(error.code(), Some(RefusalCode::Upgrade));
    assert!(error.to_string().contains("upgrade the primary site"), "{error}");
    // One apart is fine.
    request.versions = Versions { protocol: Versions::OURS.protocol + 1, ..Versions::OURS };
    site.registrar.join(request).await.unwrap();
}

async fn a_site_that_has_no_name_asks_for_one(site: TestSite) {
    let add = |own: Option<&str>| AddSite {
        name: "tokyo".to_owned(),
        own_name: own.map(str::to_owned),
        primary_url: "http://127.0.0.1:5000".to_owned(),
        tls_pin: None,
        lifetime: None,
    };
    // This one is called paris.
    assert_eq!(site.registrar.add(add(None)).await.unwrap().primary_name, "paris");
    assert_eq!(site.registrar.add(add(Some("paris"))).await.unwrap().primary_name, "paris");
    let error = site.registrar.add(add(Some("rome"))).await.unwrap_err().to_string();
    assert!(error.contains("called paris"), "{error}");
    let own_name = AddSite { name: "paris".to_owned(), ..add(None) };
    let error = site.registrar.add(own_name).await.unwrap_err().to_string();
    assert!(error.contains("paris is part of the federation already"), "{error}");
}

async fn a_secondary_adds_no_site(site: TestSite) {
    let own = site.metadata.site().await.unwrap();
    let join = BecomeSecondary {
        name: "paris".to_owned(),
        federation: own.federation,
        primary_name: "rome".to_owned(),
        primary_url: "http://127.0.0.1:1".to_owned(),
        primary_key: own.public_key,
        primary_incarnation: own.incarnation,
        epochs: site.metadata.epochs().await.unwrap(),
        head: site.head().await,
    };
    site.metadata.become_secondary(join).await.unwrap();
    let add = AddSite {
        name: "tokyo".to_owned(),
        own_name: None,
        primary_url: "http://127.0.0.1:5000".to_owned(),
        tls_pin: None,
        lifetime: None,
    };
    let error = site.registrar.add(add).await.unwrap_err().to_string();
    assert!(error.contains("rome"), "{error}");
}
