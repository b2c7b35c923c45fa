//! Tests: hazard A4. Every way that is known to malform or forge a token, each refused for its own reason. `genuine` has what passes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{BasicConstraints, IsCa, KeyUsagePurpose};
use serde_json::{Value, json};
use uuid::Uuid;

use super::keys::KeySet;
use super::minted::*;
use super::refusal::{Part, Refusal};
use super::verifier::TokenVerifier;
use super::{SKEW_S, SignedToken, SigningPair};

type Case = (&'static str, String, Refusal);

/// A token of ten minutes that ended then.
fn expired(at_s: i64) -> String {
    let begin = Some(json!(at_s - 600));
    let claims = with(with(claims(), "nbf", begin.clone()), "iat", begin);
    signed(&header(), &with(claims, "exp", Some(json!(at_s))))
}

fn head(field: &str, value: Value) -> String {
    signed(&with(header(), field, Some(value)), &claims())
}

fn malformed() -> Vec<Case> {
    let good = signed(&header(), &claims());
    let parts: Vec<&str> = good.split('.').collect();
    let text = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let deep = |levels: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    let twice = |field: &str, again: &str| claims().to_string().replacen(&format!("\"{field}\":"), again, 1);
    vec![
        ("nothing at all", String::new(), Refusal::Parts),
        ("two parts", parts[..2].join("."), Refusal::Parts),
        ("five parts, as an encrypted token has", format!("{good}.x.y"), Refusal::Parts),
        ("longer than 32 KiB", claim("pad", json!("x".repeat(33 << 10))), Refusal::TooLong),
        (
            "header not base64url",
            GITLAB.sign_parts("e30+", &text(&claims())),
            Refusal::Encoding(Part::Header),
        ),
        (
            "header with padding",
            GITLAB.sign_parts(&format!("{}=", parts[0]), parts[1]),
            Refusal::Encoding(Part::Header),
        ),
        ("claims not base64url", GITLAB.sign_parts(parts[0], "{}"), Refusal::Encoding(Part::Claims)),
        (
            "signature not base64url",
            format!("{}.{}.+/", parts[0], parts[1]),
            Refusal::Encoding(Part::Signature),
        ),
        ("header not JSON", GITLAB.sign("{alg:RS256}", b"{}"), Refusal::Json(Part::Header)),
        ("header a list", GITLAB.sign("[]", b"{}"), Refusal::Json(Part::Header)),
        ("claims a list", GITLAB.sign(&header().to_string(), b"[]"), Refusal::Json(Part::Claims)),
        (
            "claims not UTF-8",
            GITLAB.sign(&header().to_string(), b"{\"a\":\"\xff\"}"),
            Refusal::Json(Part::Claims),
        ),
        (
            "something after the claims",
            GITLAB.sign(&header().to_string(), format!("{} {{}}", claims()).as_bytes()),
            Refusal::Json(Part::Claims),
        ),
        (
            "algorithm twice in the header",
            GITLAB.sign(&header().to_string().replacen("{", r#"{"alg":"none","#, 1), b"{}"),
            Refusal::Duplicate { part: Part::Header, field: "alg".to_owned() },
        ),
        (
            "a claim twice",
            GITLAB.sign(&header().to_string(), twice("exp", r#""exp":9999999999,"exp":"#).as_bytes()),
            Refusal::Duplicate { part: Part::Claims, field: "exp".to_owned() },
        ),
        (
            "a claim twice within the access list",
            GITLAB.sign(&header().to_string(), twice("name", r#""name":"other","name":"#).as_bytes()),
            Refusal::Duplicate { part: Part::Claims, field: "name".to_owned() },
        ),
        (
            "a claim that nobody reads, twice",
            GITLAB.sign(&header().to_string(), twice("sub", r#""x":1,"x":1,"sub":"#).as_bytes()),
            Refusal::Duplicate { part: Part::Claims, field: "x".to_owned() },
        ),
        ("header nested deep", GITLAB.sign(&deep(1_000), b"{}"), Refusal::TooDeep(Part::Header)),
        (
            "claims nested deep",
            GITLAB.sign(&header().to_string(), deep(10_000).as_bytes()),
            Refusal::TooDeep(Part::Claims),
        ),
        ("critical extensions", head("crit", json!(["b64"])), Refusal::Critical),
        ("another type of token", head("typ", json!("logout+jwt")), Refusal::Type("logout+jwt".to_owned())),
    ]
}

fn of_algorithm() -> Vec<Case> {
    let good = signed(&header(), &claims());
    let message = good.rsplit_once('.').unwrap().0.to_owned();
    let with_secret = |secret: &[u8], algorithm: Algorithm, name: &str| {
        let header = with(header(), "alg", Some(json!(name))).to_string();
        let message =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims().to_string()));
        let key = EncodingKey::from_secret(secret);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
        format!("{message}.{signature}")
    };
    let unsigned = |name: &str, signature: &str| {
        let header = with(header(), "alg", Some(json!(name))).to_string();
        let claims = URL_SAFE_NO_PAD.encode(claims().to_string());
        format!("{}.{claims}.{signature}", URL_SAFE_NO_PAD.encode(header))
    };
    let pem = GITLAB.pair.public_key_pem();
    vec![
        ("algorithm none without a signature", unsigned("none", ""), Refusal::Unsigned),
        ("algorithm none with a signature", unsigned("none", "AAAA"), Refusal::Unsigned),
        ("algorithm none in other letters", unsigned("nOnE", "AAAA"), Refusal::Unsigned),
        ("the signature cut off", format!("{message}."), Refusal::Unsigned),
        (
            "HS256 with the public key as the secret",
            with_secret(pem.as_bytes(), Algorithm::HS256, "HS256"),
            Refusal::Symmetric("HS256".to_owned()),
        ),
        (
            "HS512 with the certificate as the secret",
            with_secret(GITLAB.certificate(true).der(), Algorithm::HS512, "HS512"),
            Refusal::Symmetric("HS512".to_owned()),
        ),
        ("an unknown algorithm", unsigned("RS1", "AAAA"), Refusal::UnknownAlgorithm("RS1".to_owned())),
        ("no algorithm", signed(&with(header(), "alg", None), &claims()), Refusal::HeaderField("alg")),
        ("an algorithm that is no text", head("alg", json!(["RS256"])), Refusal::HeaderField("alg")),
        ("an RSA key's id with ES256", unsigned("ES256", "AAAA"), Refusal::AlgorithmOfKey("ES256")),
        ("an RSA key's id with EdDSA", unsigned("EdDSA", "AAAA"), Refusal::AlgorithmOfKey("EdDSA")),
        (
            "a P-256 key's id with ES384",
            PLAIN.token(&json!({"alg": "ES384", "kid": PLAIN.kid()}), &claims()),
            Refusal::AlgorithmOfKey("ES384"),
        ),
    ]
}

fn of_key() -> Vec<Case> {
    let good = signed(&header(), &claims());
    let parts: Vec<&str> = good.split('.').collect();
    let mallory = |header: &Value| MALLORY.token(header, &claims());
    let other = URL_SAFE_NO_PAD.encode(with(claims(), "sub", Some(json!("root"))).to_string());
    let jwk = json!({"kty": "RSA", "kid": GITLAB.kid(), "n": "AQAB", "e": "AQAB"});
    vec![
        ("another key under a trusted id", mallory(&header()), Refusal::Signature),
        ("changed claims", format!("{}.{other}.{}", parts[0], parts[2]), Refusal::Signature),
        (
            "a changed header",
            {
                let header = URL_SAFE_NO_PAD.encode(with(header(), "x", Some(json!(1))).to_string());
                format!("{header}.{}.{}", parts[1], parts[2])
            },
            Refusal::Signature,
        ),
        ("half a signature", good[..good.len() - 170].to_owned(), Refusal::Signature),
        (
            "another RSA padding",
            signed(&with(header(), "alg", Some(json!("PS256"))), &claims()),
            Refusal::Signature,
        ),
        (
            "an id that nobody has",
            mallory(&with(header(), "kid", Some(json!(MALLORY.kid())))),
            Refusal::UnknownKey(MALLORY.kid()),
        ),
        ("an empty id", head("kid", json!("")), Refusal::UnknownKey(String::new())),
        ("an id that is no text", head("kid", json!(7)), Refusal::HeaderField("kid")),
        ("no id", signed(&with(header(), "kid", None), &claims()), Refusal::NoKey),
        (
            "an embedded key with a trusted id (CVE-2025-24976)",
            mallory(&with(header(), "jwk", Some(jwk.clone()))),
            Refusal::EmbeddedKey("jwk"),
        ),
        ("an embedded key alone", mallory(&json!({"alg": "RS256", "jwk": jwk})), Refusal::EmbeddedKey("jwk")),
        (
            "the address of a key set",
            mallory(&with(header(), "jku", Some(json!("https://mallory.example/jwks")))),
            Refusal::EmbeddedKey("jku"),
        ),
        (
            "the address of a certificate",
            mallory(&with(header(), "x5u", Some(json!("https://mallory.example/cert")))),
            Refusal::EmbeddedKey("x5u"),
        ),
    ]
}

fn of_chain() -> Vec<Case> {
    let chain = || Refusal::Chain(String::new());
    let mallory = |header: &Value| MALLORY.token(header, &claims());
    let vouched = MALLORY.certificate_by(&AUTHORITY, |_| {});
    let forged_authority = Signer::p256();
    let intermediate = forged_authority.certificate_by(&PLAIN, |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    vec![
        (
            "a chain of one's own making",
            mallory(&x5c(&[MALLORY.certificate(true).der().to_vec()], "RS256")),
            chain(),
        ),
        (
            "a chain to an authority of the same name",
            mallory(&x5c(&[MALLORY.certificate_by(&forged_authority, |_| {})], "RS256")),
            chain(),
        ),
        (
            "a chain to a certificate of the bundle that is no authority",
            mallory(&x5c(&[MALLORY.certificate_by(&PLAIN, |_| {})], "RS256")),
            chain(),
        ),
        (
            "a chain over an authority that brings itself",
            mallory(&x5c(&[MALLORY.certificate_by(&forged_authority, |_| {}), intermediate], "RS256")),
            chain(),
        ),
        (
            "a trusted certificate behind one's own",
            mallory(&x5c(
                &[MALLORY.certificate(false).der().to_vec(), GITLAB.certificate(true).der().to_vec()],
                "RS256",
            )),
            chain(),
        ),
        (
            "a certificate that has expired",
            mallory(&x5c(
                &[MALLORY.certificate_by(&AUTHORITY, |params| {
                    params.not_after = rcgen::date_time_ymd(2020, 1, 1)
                })],
                "RS256",
            )),
            chain(),
        ),
        (
            "a certificate that is not for signatures",
            mallory(&x5c(
                &[MALLORY.certificate_by(&AUTHORITY, |params| {
                    params.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
                })],
                "RS256",
            )),
            chain(),
        ),
        ("an empty chain", mallory(&x5c(&[], "RS256")), chain()),
        ("a chain of seven", mallory(&x5c(&vec![vouched.clone(); 7], "RS256")), chain()),
        ("a chain that is no list", head("x5c", json!("MII")), Refusal::HeaderField("x5c")),
        ("a chain that is not base64", head("x5c", json!(["~"])), chain()),
        ("a chain of garbage", head("x5c", json!(["AAAA"])), chain()),
        (
            "a good chain under another key's signature",
            GITLAB.token(&x5c(std::slice::from_ref(&vouched), "RS256"), &claims()),
            Refusal::Signature,
        ),
        (
            "a good chain with an algorithm of another kind of key",
            MALLORY.token(&x5c(&[vouched], "ES256"), &claims()),
            Refusal::AlgorithmOfKey("ES256"),
        ),
    ]
}

fn of_claims() -> Vec<Case> {
    let access = |entry: Value| claim("access", json!([entry]));
    let entry = json!({"type": "repository", "name": "a", "actions": ["pull"]});
    vec![
        ("another issuer", claim("iss", json!("mallory")), Refusal::Issuer("mallory".to_owned())),
        ("no issuer", no_claim("iss"), Refusal::Missing("iss")),
        ("an issuer that is no text", claim("iss", json!([ISSUER])), Refusal::Claim("iss")),
        (
            "another audience",
            claim("aud", json!("dependency_proxy")),
            Refusal::Audience("dependency_proxy".to_owned()),
        ),
        ("other audiences", claim("aud", json!(["a", "b"])), Refusal::Audience("a, b".to_owned())),
        ("an empty list of audiences", claim("aud", json!([])), Refusal::Audience(String::new())),
        ("no audience", no_claim("aud"), Refusal::Missing("aud")),
        ("an audience that is no text", claim("aud", json!({"a": SERVICE})), Refusal::Claim("aud")),
        ("expired", expired(NOW_S - SKEW_S - 1), Refusal::Expired { ago_s: SKEW_S + 1 }),
        ("no end", no_claim("exp"), Refusal::Missing("exp")),
        ("an end that is null", claim("exp", Value::Null), Refusal::Missing("exp")),
        ("an end that is a text", claim("exp", json!("9999999999")), Refusal::Claim("exp")),
        ("an end that no clock reaches", claim("exp", json!(1e300)), Refusal::Claim("exp")),
        ("an end before the epoch", claim("exp", json!(-1)), Refusal::Claim("exp")),
        ("not yet valid", claim("nbf", json!(NOW_S + SKEW_S + 1)), Refusal::NotYetValid { in_s: SKEW_S + 1 }),
        (
            "issued in the future",
            claim("iat", json!(NOW_S + SKEW_S + 1)),
            Refusal::IssuedInTheFuture { in_s: SKEW_S + 1 },
        ),
        ("over before it begins", claim("nbf", json!(NOW_S + 300)), Refusal::NoLifetime),
        ("a subject with a line break", claim("sub", json!("alice\nroot")), Refusal::Claim("sub")),
        ("a subject that is no text", claim("sub", json!(1)), Refusal::Claim("sub")),
        (
            "an unknown scope class",
            access(with(entry.clone(), "class", Some(json!("evil")))),
            Refusal::Class("evil".to_owned()),
        ),
        ("an access list that is none", claim("access", json!({"a": 1})), Refusal::Claim("access")),
        ("an entry that is a text", access(json!("repository:a:pull")), Refusal::Claim("access")),
        (
            "a name that is a list",
            access(with(entry.clone(), "name", Some(json!(["a"])))),
            Refusal::Claim("access"),
        ),
        (
            "actions that are one text",
            access(with(entry.clone(), "actions", Some(json!("pull")))),
            Refusal::Claim("access"),
        ),
        (
            "an action that is a number",
            access(with(entry.clone(), "actions", Some(json!(["pull", 1])))),
            Refusal::Claim("access"),
        ),
        (
            "meta that is a list",
            access(with(entry.clone(), "meta", Some(json!([])))),
            Refusal::Claim("access"),
        ),
        (
            "tag patterns of another shape",
            access(with(entry, "meta", Some(json!({"tag_deny_access_patterns": {"push": "^v"}})))),
            Refusal::Claim("access"),
        ),
        ("over a thousand entries", claim("access", json!(vec![json!({}); 1_001])), Refusal::TooManyEntries),
    ]
}

#[test]
fn a4_each_malformed_or_forged_token_is_refused_for_its_own_reason() {
    let cases: Vec<Case> =
        [malformed(), of_algorithm(), of_key(), of_chain(), of_claims()].into_iter().flatten().collect();
    assert!(cases.len() >= 30, "{} cases", cases.len());
    let verifier = verifier();
    let mut wrong = Vec::new();
    for (name, token, expected) in &cases {
        let found = verifier.verify(token, NOW_US).map(|token| token.subject.clone());
        let same = match (&found, expected) {
            // What a library says of a chain is its own affair.
            (Err(Refusal::Chain(_)), Refusal::Chain(_)) => true,
            (Err(found), expected) => found == expected,
            (Ok(_), _) => false,
        };
        if !same {
            wrong.push(format!("{name}: {found:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a4_an_algorithm_that_is_not_configured_is_refused_though_it_is_the_keys() {
    let keys = || KeySet::default().with_bundle(bundle().as_bytes()).unwrap();
    let only = |algorithm: &str| {
        let algorithms = Some(vec![algorithm.parse().unwrap()]);
        TokenVerifier::new(keys(), vec![ISSUER.to_owned()], vec![SERVICE.to_owned()], algorithms)
    };
    let token = signed(&header(), &claims());
    assert!(only("RS256").verify(&token, NOW_US).is_ok());
    assert_eq!(only("RS512").verify(&token, NOW_US), Err(Refusal::AlgorithmNotAllowed("RS256")));
    for algorithm in ["none", "HS256", "RS1", ""] {
        assert!(algorithm.parse::<super::SigningAlgorithm>().is_err(), "{algorithm}");
    }
}

#[test]
fn a4_keys_that_share_an_id_count_each_for_its_own_signatures() {
    let (first, second, third) = (Signer::p256(), Signer::p256(), Signer::ed25519());
    let jwk = |signer: &Signer| {
        let point = signer.pair.public_key_raw();
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match signer.algorithm {
            Algorithm::EdDSA => json!({"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": text(point)}),
            _ => {
                json!({"kty": "EC", "crv": "P-256", "kid": "1", "x": text(&point[1..33]), "y": text(&point[33..])})
            }
        }
    };
    let jwks = json!({"keys": [jwk(&first), jwk(&second), jwk(&third)]}).to_string();
    let keys = KeySet::default().with_jwks(jwks.as_bytes()).unwrap();
    let verifier = TokenVerifier::new(keys, vec![ISSUER.to_owned()], vec![SERVICE.to_owned()], None);
    let header = |algorithm: &str| json!({"alg": algorithm, "kid": "1"});
    for (signer, algorithm) in [(&first, "ES256"), (&second, "ES256"), (&third, "EdDSA")] {
        assert!(verifier.verify(&signer.token(&header(algorithm), &claims()), NOW_US).is_ok(), "{algorithm}");
    }
    let stranger = Signer::p256().token(&header("ES256"), &claims());
    assert_eq!(verifier.verify(&stranger, NOW_US), Err(Refusal::Signature));
    let swapped = third.token(&header("ES256"), &claims());
    assert_eq!(verifier.verify(&swapped, NOW_US), Err(Refusal::Signature));
}

#[test]
fn a4_an_oversized_token_is_not_even_taken_apart() {
    let long = claim("pad", json!("x".repeat(33 << 10)));
    assert_eq!(SignedToken::parse(&long).unwrap_err(), Refusal::TooLong);
}

#[test]
fn a_token_is_remembered_by_its_whole_text() {
    let verifier = verifier();
    let good = signed(&header(), &claims());
    verifier.verify(&good, NOW_US).unwrap();
    let (message, _) = good.rsplit_once('.').unwrap();
    let forged = format!("{message}.{}", MALLORY.token(&header(), &claims()).rsplit_once('.').unwrap().1);
    assert_eq!(verifier.verify(&forged, NOW_US), Err(Refusal::Signature));
}

#[test]
fn bundles_and_key_sets_that_cannot_be_used_are_refused_with_the_entry() {
    let bundle = |pem: &str| KeySet::default().with_bundle(pem.as_bytes()).unwrap_err().to_string();
    assert!(bundle("").contains("holds no PEM"));
    let private = format!("{}{}", GITLAB.certificate(true).pem(), MALLORY.pair.serialize_pem());
    assert!(bundle(&private).starts_with("entry 2 of the bundle cannot be used: it is a private key"));
    assert!(bundle("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").contains("no X.509"));
    assert!(bundle("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n").contains("no public key"));
    let jwks = |text: &str| KeySet::default().with_jwks(text.as_bytes()).unwrap_err().to_string();
    assert!(jwks("[]").contains("RFC 7517"));
    assert!(jwks(r#"{"keys":[]}"#).contains("no key that tokens can be signed with"));
    assert!(jwks(r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#).contains("no key that tokens"));
    assert!(jwks(r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#).contains("2048"));
    assert!(jwks(r#"{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}"#).contains("key 1 of it"));
}

#[test]
fn a4_a_stolen_retired_key_cannot_backdate_a_token_that_lasts() {
    let site = Uuid::from_u128(1).to_string();
    let pair = SigningPair::generate().unwrap();
    let key = SigningPair::from_pkcs8(&pair).unwrap();
    let public = key.public(Uuid::from_u128(1), 0, Some(NOW_US));
    let keys = KeySet::default().with_signing_key(&public, &site).unwrap();
    let verifier = TokenVerifier::new(keys, vec![site.clone()], vec![SERVICE.to_owned()], None);
    let forge = |iat: Option<i64>| {
        let header = json!({"alg": "ES256", "kid": key.kid()}).to_string();
        let claims = json!({"iss": site, "aud": SERVICE, "sub": "root", "iat": iat, "exp": NOW_S + 86_400});
        let message =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signing = EncodingKey::from_ec_der(&pair);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &signing, Algorithm::ES256).unwrap();
        format!("{message}.{signature}")
    };
    assert_eq!(verifier.verify(&forge(Some(NOW_S - 1)), NOW_US), Err(Refusal::Lifetime));
    assert_eq!(verifier.verify(&forge(None), NOW_US), Err(Refusal::Missing("iat")));
}
