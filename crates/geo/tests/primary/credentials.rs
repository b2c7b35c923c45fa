//! Every credential that must not open anything (hazards A4, A9, R28).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use twinport_geo::{CREDENTIAL_LIFETIME_S, RefusalCode, SCOPE_PULL, SCOPE_STATUS, key_id};
use twinport_metadata::{Actor, Incarnation};

use crate::{
    on_both_databases,
    site::{Applicant, SECOND_US, TestSite, fresh_key, refused},
};

on_both_databases! {
    a_joined_site_may_pull_and_report_and_no_more,
    a9_a_call_without_a_credential_is_refused,
    a9_an_expired_credential_is_refused,
    a9_a_credential_from_the_future_is_refused,
    a9_a_credential_that_lives_too_long_is_refused,
    a9_a_credential_signed_by_another_site_is_refused,
    a9_a_credential_for_another_federation_is_refused,
    a9_a_credential_without_a_known_site_is_refused,
    a4_a_credential_with_algorithm_none_is_refused,
    a4_a_public_key_used_as_a_shared_secret_is_refused,
    a4_a_key_embedded_in_the_credential_is_not_trusted,
    a9_a_credential_without_the_scope_is_refused,
    r28_a_removed_site_is_refused,
    r28_a_removed_site_that_comes_back_under_the_same_name_is_refused,
}

async fn a_joined_site_may_pull_and_report_and_no_more(site: TestSite) {
    let tokyo = site.joined("tokyo").await;
    let credential = site.credential(&tokyo).await;
    for scope in [SCOPE_PULL, SCOPE_STATUS] {
        let peer = site.verifier.verify(Some(&credential), scope).await.unwrap();
        assert_eq!(peer.site.name, "tokyo");
    }
    for scope in ["push", "admin", "pull status", ""] {
        assert_eq!(
            refused(site.verifier.verify(Some(&credential), scope).await),
            RefusalCode::Scope,
            "{scope:?}"
        );
    }
    assert_eq!(key_id(credential.trim_start_matches("Bearer ")), Some(tokyo.incarnation));
}

async fn a9_a_call_without_a_credential_is_refused(site: TestSite) {
    assert_eq!(refused(site.verifier.verify(None, SCOPE_PULL).await), RefusalCode::CredentialMissing);
    for header in
        ["", "Bearer", "Bearer ", "Basic dG9reW86dG9reW8=", "Bearer x", "Bearer a.b.c", "Bearer ...", "\u{0}"]
    {
        assert_eq!(check(&site, header).await, RefusalCode::CredentialInvalid, "{header:?}");
    }
    let endless = format!("Bearer {}", "a".repeat(1 << 20));
    assert_eq!(check(&site, &endless).await, RefusalCode::CredentialInvalid);
}

async fn a9_an_expired_credential_is_refused(site: TestSite) {
    let tokyo = site.joined("tokyo").await;
    let credential = site.credential(&tokyo).await;
    // The clocks may differ by a minute.
    site.step_clock((CREDENTIAL_LIFETIME_S + 60) * SECOND_US);
    site.verifier.verify(Some(&credential), SCOPE_PULL).await.unwrap();
    site.step_clock(SECOND_US);
    assert_eq!(check(&site, &credential).await, RefusalCode::CredentialExpired);
}

async fn a9_a_credential_from_the_future_is_refused(site: TestSite) {
    let tokyo = site.joined("tokyo").await;
    site.step_clock(61 * SECOND_US);
    let credential = site.credential(&tokyo).await;
    site.step_clock(-61 * SECOND_US);
    assert_eq!(check(&site, &credential).await, RefusalCode::CredentialInvalid);
}

async fn a9_a_credential_that_lives_too_long_is_refused(site: TestSite) {
    let tokyo = site.joined("tokyo").await;
    for (field, value) in
        [("exp", CREDENTIAL_LIFETIME_S + 1), ("exp", 1 << 40), ("exp", 0), ("iat", -1_000_000)]
    {
        let mut claims = claims(&site, &tokyo).await;
        claims[field] = (site.now_us() / SECOND_US + value).into();
        let forged = signed(&claims, &header(Algorithm::EdDSA, tokyo.incarnation), &tokyo);
        assert_eq!(check(&site, &forged).await, RefusalCode::CredentialInvalid, "{field} {value}");
    }
    for (field, value) in [("exp", i64::MAX), ("exp", i64::MIN), ("iat", i64::MIN), ("nbf", i64::MAX)] {
        let mut claims = claims(&site, &tokyo).await;
        claims[field] = value.into();
        let forged = signed(&claims, &header(Algorithm::EdDSA, tokyo.incarnation), &tokyo);
        assert_eq!(check(&site, &forged).await, RefusalCode::CredentialInvalid, "{field} {value}");
    }
}

async fn a9_a_credential_signed_by_another_site_is_refused(site: TestSite) {
    let tokyo = site.joined("tokyo").await;
    let lima = site.joined("lima").await;
    let claims = claims(&site, &tokyo).await;
    // Lima's key, Tokyo's name in the header.
    let forged = signed(&claims, &header(Algorithm::EdDSA, tokyo.incarnation), &lima);
    assert_eq!(check(&site, &forged).await, RefusalCode::CredentialInvalid);
    // Lima's key and header, Tokyo's name in the claims.
    let forged = signed(&claims, &header(Algorithm::EdDSA, lima.incarnation), &lima);
    assert_eq!(check(&site, &forged).await, RefusalCode::CredentialInvalid);
}

async fn a9_a_credential_for_another_federation_is_refused(site: TestSite) {
    let tokyo = site.joined("tokyo").await;
    let mut claims = claims(&site, &tokyo).await;
    claims["aud"] = Incarnation::random().to_string().into();
    let forged = signed(&claims, &header(Algorithm::EdDSA, tokyo.incarnation), &tokyo);
    assert_eq!(check(&site, &forged).await, RefusalCode::CredentialInvalid);
    claims.as_object_mut().unwrap().remove("aud");
    let forged = signed(&claims, &header(Algorithm::EdDSA, tokyo.incarnation), &tokyo);
    assert_eq!(check(&site, &forged).await, RefusalCode::CredentialInvalid);
}

async fn a9_a_credential_without_a_known_site_is_refused(site: TestSite) {
    let stranger = Applicant::new("tokyo");
    let credential = site.credential(&stranger).await;
    assert_eq!(check(&site, &credential).await, RefusalCode::CredentialInvalid);
    let nameless = signed(&claims(&site, &stranger).await, &Header::new(Algorithm::EdDSA), &stranger);
    assert_eq!(check(&site, &nameless).await, RefusalCode::CredentialInvalid);
}

async fn a4_a_credential_with_algorithm_none_is_refused(site: TestSite) {
    let tokyo = site.joined("tokyo").await;
    let claims = URL_SAFE_NO_PAD.encode(claims(&site, &tokyo).await.to_string());
    for algorithm in ["none", "None", "", "EdDSA"] {
        let header = json!({ "alg": algorithm, "typ": "JWT", "kid": tokyo.incarnation.to_string() });
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        for signature in ["", "AAAA"] {
            let forged = format!("Bearer {header}.{claims}.{signature}");
            assert_eq!(check(&site, &forged).await, RefusalCode::CredentialInvalid, "{algorithm:?}");
        }
    }
}

async fn a4_a_public_key_used_as_a_shared_secret_is_refused(site: TestSite) {
    let tokyo = site.joined("tokyo").await;
    let secret = EncodingKey::from_secret(tokyo.key.public_key());
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let claims = claims(&site, &tokyo).await;
        let forged = jsonwebtoken::encode(&header(algorithm, tokyo.incarnation), &claims, &secret).unwrap();
        assert_eq!(check(&site, &format!("Bearer {forged}")).await, RefusalCode::CredentialInvalid);
    }
}

async fn a4_a_key_embedded_in_the_credential_is_not_trusted(site: TestSite) {
    let tokyo = site.joined("tokyo").await;
    let attacker = Applicant { name: "tokyo".to_owned(), incarnation: tokyo.incarnation, key: fresh_key() };
    let x = URL_SAFE_NO_PAD.encode(attacker.key.public_key());
    let jwk = serde_json::from_value(json!({ "kty": "OKP", "crv": "Ed25519", "x": x })).unwrap();
    let header = Header { jwk: Some(jwk), ..header(Algorithm::EdDSA, tokyo.incarnation) };
    let forged = signed(&claims(&site, &tokyo).await, &header, &attacker);
    assert_eq!(check(&site, &forged).await, RefusalCode::CredentialInvalid);
}

async fn a9_a_credential_without_the_scope_is_refused(site: TestSite) {
    let tokyo = site.joined("tokyo").await;
    let mut claims = claims(&site, &tokyo).await;
    claims["scope"] = "status".into();
    let reporter = signed(&claims, &header(Algorithm::EdDSA, tokyo.incarnation), &tokyo);
    site.verifier.verify(Some(&reporter), SCOPE_STATUS).await.unwrap();
    assert_eq!(refused(site.verifier.verify(Some(&reporter), SCOPE_PULL).await), RefusalCode::Scope);
}

async fn r28_a_removed_site_is_refused(site: TestSite) {
    let tokyo = site.joined("tokyo").await;
    let credential = site.credential(&tokyo).await;
    site.registrar.remove("tokyo", &Actor::anonymous()).await.unwrap().unwrap();
    assert_eq!(check(&site, &credential).await, RefusalCode::SiteRemoved);
    // Whoever cannot sign learns nothing about who was removed.
    let attacker = Applicant { name: "tokyo".to_owned(), incarnation: tokyo.incarnation, key: fresh_key() };
    let forged = site.credential(&attacker).await;
    assert_eq!(check(&site, &forged).await, RefusalCode::CredentialInvalid);
}

async fn r28_a_removed_site_that_comes_back_under_the_same_name_is_refused(site: TestSite) {
    let tokyo = site.joined("tokyo").await;
    let credential = site.credential(&tokyo).await;
    site.registrar.remove("tokyo", &Actor::anonymous()).await.unwrap().unwrap();

    // Neither its incarnation nor its key comes back, not even with a fresh token.
    assert_eq!(refused(site.join(&tokyo).await), RefusalCode::SiteRemoved);
    let reborn = Applicant { incarnation: Incarnation::random(), ..tokyo };
    assert_eq!(refused(site.join(&reborn).await), RefusalCode::SiteRemoved);

    // Another machine may take the name; the old credential stays refused.
    let successor = site.joined("tokyo").await;
    assert_eq!(check(&site, &credential).await, RefusalCode::SiteRemoved);
    let credential = site.credential(&successor).await;
    site.verifier.verify(Some(&credential), SCOPE_PULL).await.unwrap();
}

async fn check(site: &TestSite, header: &str) -> RefusalCode {
    refused(site.verifier.verify(Some(header), SCOPE_PULL).await)
}

/// What a credential of `site` claims, to be altered.
async fn claims(primary: &TestSite, site: &Applicant) -> Value {
    let now = primary.now_us() / SECOND_US;
    json!({
        "iss": site.incarnation.to_string(),
        "aud": primary.metadata.site().await.unwrap().federation.to_string(),
        "scope": "pull status",
        "iat": now,
        "nbf": now,
        "exp": now + CREDENTIAL_LIFETIME_S,
        "jti": "1",
    })
}

fn header(algorithm: Algorithm, incarnation: Incarnation) -> Header {
    Header { kid: Some(incarnation.to_string()), ..Header::new(algorithm) }
}

fn signed(claims: &Value, header: &Header, by: &Applicant) -> String {
    // The token is put together by hand, so that claims may be anything.
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(header).unwrap()),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let signature = URL_SAFE_NO_PAD.encode(by.key.sign(message.as_bytes()));
    format!("Bearer {message}.{signature}")
}
