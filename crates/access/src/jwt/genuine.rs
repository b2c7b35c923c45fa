//! Tests: tokens that are genuine pass, for as long as they say, and give what they name and no more.

use rcgen::KeyUsagePurpose;
use serde_json::{Value, json};
use uuid::Uuid;

use super::keys::KeySet;
use super::minted::*;
use super::refusal::Refusal;
use super::verifier::TokenVerifier;
use super::{MAX_LIFETIME_S, Names, SKEW_S, SigningPair};
use crate::action::Action;
use crate::scope::Scope;

#[test]
fn a_gitlab_token_gives_what_it_names_and_no_more() {
    let token = verify(&signed(&header(), &claims())).unwrap();
    assert_eq!((token.issuer.as_str(), token.subject.as_str()), (ISSUER, "alice"));
    assert_eq!(token.auth_type.as_deref(), Some("personal_access_token"));
    assert_eq!(token.expires_at_us, (NOW_S + 300) * 1_000_000);
    let named = "group/project".parse().unwrap();
    assert_eq!(token.actions(&named).to_string(), "pull,create,push");
    for other in ["group/project2", "group", "group/project/x", "other"] {
        assert!(token.actions(&other.parse().unwrap()).is_empty(), "{other}");
    }
    assert!(token.catalog().is_empty());
    let entry = token.entries(&named).next().unwrap();
    let project = entry.project.as_ref().unwrap();
    assert_eq!(project.path.as_deref(), Some("group/project"));
    assert_eq!((project.id, project.root_namespace_id), (Some(7), Some(3)));
    assert!(entry.tags.may_push(&"v1".parse().unwrap()).is_err());
    assert!(entry.tags.is_immutable(&"release-1".parse().unwrap()).unwrap());
}

#[test]
fn entries_of_other_kinds_give_nothing_and_those_of_one_repository_add_up() {
    let access = json!([
        {"type": "repository", "name": "a", "actions": ["pull"]},
        {"type": "repository", "class": "image", "name": "a", "actions": ["push", "fly"]},
        {"type": "repository", "name": "b", "actions": ["*"]},
        {"type": "repository", "name": "c", "actions": null},
        {"type": "repository", "name": "group/project/*", "actions": ["pull"]},
        {"type": "repository", "name": "UPPER", "actions": ["pull"]},
        {"type": "import", "name": "d", "actions": ["*"]},
        {"type": "registry", "name": "catalog", "actions": ["*"]},
        {"type": "registry", "name": "everything", "actions": ["*"]},
    ]);
    let token = verify(&claim("access", access)).unwrap();
    let actions = |name: &str| token.actions(&name.parse().unwrap()).to_string();
    assert_eq!(actions("a"), "pull,create,push");
    assert_eq!(actions("b"), "pull,create,push,delete");
    assert_eq!(
        (actions("c").as_str(), actions("d").as_str(), actions("group/project").as_str()),
        ("", "", "")
    );
    assert!(token.catalog().contains(Action::Pull));
    assert!(verify(&no_claim("access")).unwrap().access.is_empty());
}

#[test]
fn what_is_genuine_passes_by_every_id_and_kind_of_key() {
    let (p384, ed25519) = (Signer::p384(), Signer::ed25519());
    let pem: String = [&p384, &ed25519].map(|signer| signer.pair.public_key_pem()).concat();
    let keys = KeySet::default().with_bundle(pem.as_bytes()).unwrap();
    assert_eq!(keys.len(), 2);
    let verifier = TokenVerifier::new(keys, vec![ISSUER.to_owned()], vec![SERVICE.to_owned()], None);
    for (signer, algorithm) in [(&p384, "ES384"), (&ed25519, "EdDSA")] {
        let token = signer.token(&json!({"alg": algorithm, "kid": signer.kid()}), &claims());
        assert!(verifier.verify(&token, NOW_US).is_ok(), "{algorithm}");
    }
    // RFC 7638 section 3.1: its key, its thumbprint.
    let rfc = r#"{"keys":[{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}]}"#;
    let keys = KeySet::default().with_jwks(rfc.as_bytes()).unwrap();
    assert!(keys.knows("2011-04-29") && keys.knows("NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"));
}

#[test]
fn a_chain_that_the_bundle_vouches_for_passes() {
    let direct = MALLORY.certificate_by(&AUTHORITY, |params| {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::CodeSigning];
    });
    assert!(verify(&MALLORY.token(&x5c(&[direct], "RS256"), &claims())).is_ok());
    let own = GITLAB.certificate(true).der().to_vec();
    assert!(
        verify(&GITLAB.token(&x5c(&[own], "RS256"), &claims())).is_ok(),
        "a certificate of the bundle itself"
    );
}

#[test]
fn a_token_that_fills_a_header_of_32_kib_passes() {
    let entries: Vec<Value> = (0..190)
        .map(|number| json!({"type": "repository", "name": format!("group/project/{number}"), "actions": ["pull"], "meta": {"project_path": "group/project", "project_id": number}}))
        .collect();
    let token = claim("access", json!(entries));
    let header = format!("authorization: Bearer {token}\r\n").len();
    assert!((30 << 10..=32 << 10).contains(&header), "{header} bytes");
    let verified = verify(&token).unwrap();
    assert!(verified.actions(&"group/project/189".parse().unwrap()).contains(Action::Pull));
}

#[test]
fn times_are_held_within_the_skew_at_every_use() {
    let verifier = verifier();
    let token = signed(&header(), &claims());
    let end_us = (NOW_S + 300 + SKEW_S) * 1_000_000;
    assert!(verifier.verify(&token, NOW_US).is_ok());
    assert!(verifier.verify(&token, end_us).is_ok(), "remembered");
    assert!(matches!(verifier.verify(&token, end_us + 1_000_000), Err(Refusal::Expired { .. })));
    assert!(matches!(verifier.verify(&token, NOW_US - 100_000_000), Err(Refusal::NotYetValid { .. })));
    let early = claim("nbf", json!(NOW_S + SKEW_S));
    assert!(verify(&early).is_ok());
    assert!(verify(&claim("exp", json!(f64::from(i32::MAX) - 0.5))).is_ok(), "fractions are allowed");
    let bare = with(with(claims(), "nbf", None), "iat", None);
    assert!(verify(&signed(&header(), &bare)).is_ok(), "only the end must be there");
    assert!(verify(&claim("aud", json!(["other", SERVICE]))).is_ok());
}

#[test]
fn minted_tokens_verify_at_every_site_until_their_key_retires() {
    let (tokyo, oslo) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let [key, other] = [(); 2].map(|()| SigningPair::from_pkcs8(&SigningPair::generate().unwrap()).unwrap());
    let retires_at_us = NOW_US + 600_000_000;
    let keys = KeySet::default()
        .with_signing_key(&key.public(tokyo, NOW_US, Some(retires_at_us)), &tokyo.to_string())
        .unwrap()
        .with_signing_key(&other.public(oslo, NOW_US, None), &oslo.to_string())
        .unwrap();
    let issuers = vec![tokyo.to_string(), oslo.to_string()];
    let verifier = TokenVerifier::new(keys, issuers, vec!["registry.example".to_owned()], None);
    let scopes: Vec<Scope> =
        ["repository:team/app:pull,create", "repository(plugin):p:pull", "registry:catalog:*"]
            .map(|text| text.parse().unwrap())
            .to_vec();
    let mint = |key: &SigningPair, issuer: Uuid, service: &str, at_us: i64, lifetime_s: i64| {
        let names = Names { issuer: &issuer.to_string(), subject: "user alice", service };
        key.mint(names, &scopes, Vec::new(), at_us, lifetime_s).unwrap()
    };
    let minted = mint(&key, tokyo, "registry.example", NOW_US, 300);
    assert_eq!((minted.issued_at_s, minted.expires_at_s), (NOW_S, NOW_S + 300));
    let token = verifier.verify(&minted.token, NOW_US).unwrap();
    assert_eq!(token.subject, "user alice");
    assert_eq!(token.id, Some(minted.id.to_string()));
    assert_eq!(token.actions(&"team/app".parse().unwrap()).to_string(), "pull,create");
    assert!(token.catalog().contains(Action::Pull));
    let read: Vec<Scope> = token
        .access
        .iter()
        .map(|entry| Scope { resource: entry.resource.clone(), actions: entry.actions })
        .collect();
    assert_eq!(read, scopes);

    let refused = |token: &str, now_us| verifier.verify(token, now_us).unwrap_err();
    let elsewhere = mint(&key, tokyo, "other.example", NOW_US, 300);
    assert_eq!(refused(&elsewhere.token, NOW_US), Refusal::Audience("other.example".to_owned()));
    let as_another = mint(&other, tokyo, "registry.example", NOW_US, 300);
    assert_eq!(refused(&as_another.token, NOW_US), Refusal::IssuerOfKey(tokyo.to_string()));
    let late_us = retires_at_us + 1_000_000;
    assert_eq!(
        refused(&mint(&key, tokyo, "registry.example", late_us, 300).token, late_us),
        Refusal::KeyRetired
    );
    assert!(verifier.verify(&mint(&other, oslo, "registry.example", late_us, 300).token, late_us).is_ok());
    let capped = mint(&other, oslo, "registry.example", NOW_US, 86_400);
    assert_eq!(capped.expires_at_s, NOW_S + MAX_LIFETIME_S);
    assert!(!format!("{key:?}{minted:?}").contains(&minted.token));
}
