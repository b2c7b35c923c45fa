//! Issuers that speak the protocol over loopback, with keys of their own, and what a site takes from them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

const NOW_S: i64 = 1_800_000_000;
const NOW_US: i64 = NOW_S * 1_000_000;
const SECOND_US: i64 = 1_000_000;
const AUDIENCE: &str = "https://registry.example";

/// What an issuer answers.
#[derive(Default)]
struct Answers {
    discovery: Mutex<Value>,
    jwks: Mutex<Value>,
    /// Where `/jwks` sends its callers instead of answering.
    redirect: Mutex<Option<String>>,
    status: Mutex<Option<u16>>,
    asked: AtomicUsize,
}

struct FakeIssuer {
    url: String,
    answers: Arc<Answers>,
    task: JoinHandle<()>,
}

impl Drop for FakeIssuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeIssuer {
    async fn start(keys: &[&Key]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers = Arc::new(Answers::default());
        *answers.discovery.lock() = json!({"issuer": url, "jwks_uri": format!("{url}/jwks")});
        let app = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/jwks", get(jwks))
            .route("/moved", get(moved))
            .with_state(Arc::clone(&answers));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let issuer = Self { url, answers, task };
        issuer.publish(keys);
        issuer
    }

    fn publish(&self, keys: &[&Key]) {
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        *self.answers.jwks.lock() = json!({"keys": keys});
    }

    /// How often the keys were asked for.
    fn asked(&self) -> usize {
        self.answers.asked.load(Ordering::SeqCst)
    }

    fn settings(&self, name: &str) -> WorkloadIssuer {
        WorkloadIssuer {
            name: name.parse().unwrap(),
            issuer: self.url.clone(),
            audiences: vec![AUDIENCE.to_owned()],
            keys: KeySource::Discovery,
            certificate_authorities: None,
            algorithms: None,
        }
    }

    fn claims(&self) -> Value {
        json!({
            "iss": self.url, "aud": AUDIENCE, "sub": "repo:acme/app:ref:refs/heads/main",
            "exp": NOW_S + 300, "nbf": NOW_S - 10, "iat": NOW_S - 10, "jti": "1",
            "repository": "acme/app", "ref": "refs/heads/main", "run_attempt": 1, "private": true,
        })
    }
}

async fn discovery(State(answers): State<Arc<Answers>>) -> Response {
    answers.discovery.lock().to_string().into_response()
}

async fn jwks(State(answers): State<Arc<Answers>>) -> Response {
    answers.asked.fetch_add(1, Ordering::SeqCst);
    if let Some(status) = *answers.status.lock() {
        return StatusCode::from_u16(status).unwrap().into_response();
    }
    if let Some(to) = answers.redirect.lock().clone() {
        return (StatusCode::FOUND, [(header::LOCATION, to)]).into_response();
    }
    answers.jwks.lock().to_string().into_response()
}

async fn moved(State(answers): State<Arc<Answers>>) -> Response {
    answers.jwks.lock().to_string().into_response()
}

struct Key {
    id: &'static str,
    pair: rcgen::KeyPair,
}

impl Key {
    fn new(id: &'static str) -> Self {
        Self { id, pair: rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap() }
    }

    fn jwk(&self) -> Value {
        let point = self.pair.public_key_raw();
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
            "x": text(&point[1..33]), "y": text(&point[33..]),
        })
    }

    fn token(&self, claims: &Value) -> String {
        self.token_of(self.id, claims)
    }

    fn token_of(&self, id: &str, claims: &Value) -> String {
        let mut header = jsonwebtoken::Header::new(Algorithm::ES256);
        header.kid = Some(id.to_owned());
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_ec_der(self.pair.serialized_der())).unwrap()
    }
}

fn providers(settings: WorkloadIssuer) -> IdentityProviders {
    IdentityProviders::new(vec![settings]).unwrap()
}

fn refusal(found: Result<Identity, NotIdentified>) -> Refusal {
    match found {
        Err(NotIdentified::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

fn unavailable(found: Result<Identity, NotIdentified>) -> FetchError {
    match found {
        Err(NotIdentified::Unavailable { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_job_is_known_by_its_issuer_and_its_claims() {
    let key = Key::new("k1");
    let github = FakeIssuer::start(&[&key]).await;
    let sites = providers(github.settings("github"));
    let token = key.token(&github.claims());
    assert!(sites.may_know(&token));
    let found = sites.identify(&token, NOW_US).await.unwrap();
    let Identity::Workload { issuer, subject, claims } = found else { panic!("{found:?}") };
    assert_eq!((issuer.as_str(), subject.as_str()), ("github", "repo:acme/app:ref:refs/heads/main"));
    let text = |claim: &str| claims.get(claim).cloned().unwrap_or_default();
    assert_eq!((text("repository"), text("ref")), ("acme/app".to_owned(), "refs/heads/main".to_owned()));
    assert_eq!((text("run_attempt"), text("private")), ("1".to_owned(), "true".to_owned()));
}

#[tokio::test]
async fn what_kubernetes_nests_has_its_path_as_a_name() {
    let key = Key::new("k1");
    let cluster = FakeIssuer::start(&[&key]).await;
    let mut claims = cluster.claims();
    claims["aud"] = json!([AUDIENCE, "https://kubernetes.default.svc"]);
    claims["sub"] = json!("system:serviceaccount:build:pusher");
    claims["kubernetes.io"] = json!({"namespace": "build", "serviceaccount": {"name": "pusher", "uid": "1"}});
    // Nothing on the outer level passes for what is nested, nor the other way round.
    claims["repository"] = json!({"repository": "x"});
    let found = providers(cluster.settings("cluster")).identify(&key.token(&claims), NOW_US).await.unwrap();
    let Identity::Workload { claims, .. } = found else { panic!("{found:?}") };
    let expected: BTreeMap<&str, &str> = BTreeMap::from([
        ("kubernetes.io/namespace", "build"),
        ("kubernetes.io/serviceaccount/name", "pusher"),
        ("repository/repository", "x"),
    ]);
    for (claim, value) in expected {
        assert_eq!(claims.get(claim).map(String::as_str), Some(value), "{claim}");
    }
    assert!(!claims.contains_key("repository") && !claims.contains_key("aud"));
}

#[tokio::test]
async fn a4_what_is_not_the_issuers_own_is_refused() {
    let (key, stranger) = (Key::new("k1"), Key::new("k1"));
    let github = FakeIssuer::start(&[&key]).await;
    let sites = providers(github.settings("github"));
    let changed = |claim: &str, value: Value| {
        let mut claims = github.claims();
        claims[claim] = value;
        key.token(&claims)
    };
    let cases = [
        (stranger.token(&github.claims()), Refusal::Signature),
        (changed("iss", json!("https://evil.example")), Refusal::Issuer("https://evil.example".to_owned())),
        (changed("iss", json!(format!("{}/", github.url))), Refusal::Issuer(format!("{}/", github.url))),
        (changed("aud", json!("sts.amazonaws.com")), Refusal::Audience("sts.amazonaws.com".to_owned())),
        (changed("exp", json!(NOW_S - 100)), Refusal::NoLifetime),
        (changed("nbf", json!(NOW_S + 100)), Refusal::NotYetValid { in_s: 100 }),
        (changed("sub", json!("")), Refusal::Missing("sub")),
    ];
    for (token, expected) in cases {
        assert_eq!(refusal(sites.identify(&token, NOW_US).await), expected);
    }
    let late = sites.identify(&key.token(&github.claims()), NOW_US + 400 * SECOND_US).await;
    assert_eq!(refusal(late), Refusal::Expired { ago_s: 100 });
    let many: BTreeMap<String, u32> = (0..101).map(|number| (format!("c{number}"), number)).collect();
    assert_eq!(refusal(sites.identify(&changed("many", json!(many)), NOW_US).await), Refusal::TooManyClaims);
    assert!(!sites.may_know(&changed("iss", json!("https://evil.example"))));
}

#[tokio::test]
async fn one_issuers_key_signs_for_no_other() {
    let (ours, theirs) = (Key::new("k1"), Key::new("k1"));
    let (github, gitlab) = (FakeIssuer::start(&[&ours]).await, FakeIssuer::start(&[&theirs]).await);
    let sites = IdentityProviders::new(vec![github.settings("github"), gitlab.settings("gitlab")]).unwrap();
    assert!(sites.identify(&ours.token(&github.claims()), NOW_US).await.is_ok());
    assert!(sites.identify(&theirs.token(&gitlab.claims()), NOW_US).await.is_ok());
    assert_eq!(refusal(sites.identify(&theirs.token(&github.claims()), NOW_US).await), Refusal::Signature);
}

#[tokio::test]
async fn a4_a_storm_of_unknown_key_ids_asks_the_issuer_once_in_ten_seconds() {
    let key = Key::new("k1");
    let github = FakeIssuer::start(&[&key]).await;
    let sites = Arc::new(providers(github.settings("github")));
    let good = key.token(&github.claims());
    sites.identify(&good, NOW_US).await.unwrap();
    assert_eq!(github.asked(), 1);
    let storm = |from: usize, now_us: i64| {
        let tokens: Vec<String> = (from..from + 200)
            .map(|number| key.token_of(&format!("random-{number}"), &github.claims()))
            .collect();
        let sites = Arc::clone(&sites);
        async move {
            let tries: Vec<_> = tokens
                .into_iter()
                .map(|token| {
                    let sites = Arc::clone(&sites);
                    tokio::spawn(async move { refusal(sites.identify(&token, now_us).await) })
                })
                .collect();
            for one in tries {
                assert!(matches!(one.await.unwrap(), Refusal::UnknownKey(_)));
            }
        }
    };
    storm(0, NOW_US + 9 * SECOND_US).await;
    assert_eq!(github.asked(), 1, "ten seconds have not passed");
    storm(200, NOW_US + 10 * SECOND_US).await;
    assert_eq!(github.asked(), 2);
    storm(400, NOW_US + 19 * SECOND_US).await;
    assert_eq!(github.asked(), 2);
    assert!(sites.identify(&good, NOW_US + 19 * SECOND_US).await.is_ok());
}

#[tokio::test]
async fn a_rotated_key_is_found_and_one_taken_away_stops_counting_within_the_hour() {
    let (old, new) = (Key::new("k1"), Key::new("k2"));
    let github = FakeIssuer::start(&[&old]).await;
    let sites = providers(github.settings("github"));
    let mut claims = github.claims();
    claims["exp"] = json!(NOW_S + 86_400);
    sites.identify(&old.token(&claims), NOW_US).await.unwrap();
    github.publish(&[&old, &new]);
    let later = NOW_US + 11 * SECOND_US;
    sites.identify(&new.token(&claims), later).await.unwrap();
    github.publish(&[&new]);
    assert!(sites.identify(&old.token(&claims), later + 60 * SECOND_US).await.is_ok(), "not looked at yet");
    let hour_us = later + 3_600 * SECOND_US;
    assert_eq!(
        refusal(sites.identify(&old.token(&claims), hour_us).await),
        Refusal::UnknownKey("k1".to_owned())
    );
    assert!(sites.identify(&new.token(&claims), hour_us).await.is_ok());
}

#[tokio::test]
async fn known_keys_count_for_a_day_while_the_issuer_is_away() {
    let key = Key::new("k1");
    let github = FakeIssuer::start(&[&key]).await;
    let sites = providers(github.settings("github"));
    let mut claims = github.claims();
    claims["exp"] = json!(NOW_S + 200_000);
    let token = key.token(&claims);
    *github.answers.status.lock() = Some(500);
    assert!(matches!(
        unavailable(sites.identify(&token, NOW_US).await),
        FetchError::Status { status: 500, .. }
    ));
    let soon = NOW_US + SECOND_US;
    assert!(matches!(unavailable(sites.identify(&token, soon).await), FetchError::Status { .. }));
    assert_eq!(github.asked(), 1, "a failure counts as a question");
    *github.answers.status.lock() = None;
    let later = NOW_US + 10 * SECOND_US;
    sites.identify(&token, later).await.unwrap();
    *github.answers.status.lock() = Some(500);
    assert!(sites.identify(&token, later + 23 * 3_600 * SECOND_US).await.is_ok());
    assert!(matches!(
        unavailable(sites.identify(&token, later + 24 * 3_600 * SECOND_US).await),
        FetchError::Status { .. }
    ));
}

#[tokio::test]
async fn a8_no_redirect_leads_to_another_host() {
    let key = Key::new("k1");
    let (github, elsewhere) = (FakeIssuer::start(&[&key]).await, FakeIssuer::start(&[&key]).await);
    let token = key.token(&github.claims());
    *github.answers.redirect.lock() = Some(format!("{}/jwks", elsewhere.url));
    let found = unavailable(providers(github.settings("github")).identify(&token, NOW_US).await);
    assert!(matches!(found, FetchError::Status { status: 302, .. }), "{found}");
    assert_eq!(elsewhere.asked(), 0);
    *github.answers.redirect.lock() = Some("/moved".to_owned());
    assert!(
        providers(github.settings("github")).identify(&token, NOW_US).await.is_ok(),
        "within the host it may"
    );
}

#[tokio::test]
async fn answers_that_are_no_keys_are_said_so() {
    let key = Key::new("k1");
    let github = FakeIssuer::start(&[&key]).await;
    let token = key.token(&github.claims());
    let ask = async || unavailable(providers(github.settings("github")).identify(&token, NOW_US).await);
    *github.answers.jwks.lock() = json!({"keys": [], "pad": "x".repeat(300 << 10)});
    assert!(matches!(ask().await, FetchError::TooLarge { .. }));
    *github.answers.jwks.lock() = json!({"keys": []});
    assert!(matches!(ask().await, FetchError::Keys { .. }));
    *github.answers.discovery.lock() =
        json!({"issuer": "https://other.example", "jwks_uri": "https://other.example"});
    assert!(matches!(ask().await, FetchError::Discovery { .. }));
    let dead = WorkloadIssuer { issuer: "http://127.0.0.1:9".to_owned(), ..github.settings("dead") };
    let claims = json!({"iss": "http://127.0.0.1:9", "aud": AUDIENCE, "exp": NOW_S + 9, "sub": "x"});
    let found = unavailable(providers(dead).identify(&key.token(&claims), NOW_US).await);
    assert!(matches!(found, FetchError::Unreachable { .. }), "{found}");
}

#[tokio::test]
async fn keys_come_from_an_address_or_a_file_too() {
    let (key, next) = (Key::new("k1"), Key::new("k2"));
    let cluster = FakeIssuer::start(&[&key]).await;
    let at = |keys: KeySource| providers(WorkloadIssuer { keys, ..cluster.settings("cluster") });
    *cluster.answers.discovery.lock() = Value::Null;
    let url = KeySource::Url(format!("{}/jwks", cluster.url).parse().unwrap());
    assert!(at(url).identify(&key.token(&cluster.claims()), NOW_US).await.is_ok());

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    let write = |path: &Path, key: &Key| {
        std::fs::write(path, json!({"keys": [key.jwk()]}).to_string()).unwrap();
    };
    let sites = at(KeySource::File(path.clone()));
    let found = unavailable(sites.identify(&key.token(&cluster.claims()), NOW_US).await);
    assert!(matches!(found, FetchError::File { .. }), "{found}");
    write(&path, &key);
    let later = NOW_US + 10 * SECOND_US;
    assert!(sites.identify(&key.token(&cluster.claims()), later).await.is_ok());
    write(&path, &next);
    assert!(sites.identify(&next.token(&cluster.claims()), later + 10 * SECOND_US).await.is_ok());
}
