//! TLS at the listener: versions, client certificates, certificates that change, and clients that stall (A10).

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use twinport_metadata::Clock;
use twinport_oci::Digest;
use twinport_server::{
    ClientAuth, ClientCertificate, IncomingBody, Listener, ListenerLimits, Reloaded, Tls, TlsConfig,
    TlsVersion,
};
use twinport_testkit::{Authority, KeyedCertificate};

use crate::harness::{OCI_MANIFEST, Send as _, Site, content, image, read_to_end};

/// A certificate's files, and what is said about them.
struct Files {
    directory: TempDir,
    config: TlsConfig,
}

fn files(shown: &KeyedCertificate) -> Files {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = shown.write(directory.path()).unwrap();
    let config = TlsConfig::new(certificate, key);
    Files { directory, config }
}

impl Files {
    fn load(&self) -> Arc<Tls> {
        Tls::load(self.config.clone(), Clock::System).unwrap()
    }
}

/// A client that trusts this certificate and no other.
fn trusting(pem: &str) -> reqwest::ClientBuilder {
    let trusted = reqwest::Certificate::from_pem_bundle(pem.as_bytes()).unwrap();
    reqwest::Client::builder().tls_certs_only(trusted).timeout(Duration::from_secs(60))
}

fn https(site: &Site, path: &str) -> String {
    format!("https://{}{path}", site.address)
}

/// Every cause of an error, in words.
fn causes(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        said.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    said
}

#[tokio::test]
async fn an_image_is_pushed_and_pulled_over_tls_by_both_versions_of_http() {
    let shown = KeyedCertificate::self_signed().unwrap();
    let site = Site::start_with_tls(files(&shown).load(), ListenerLimits::default()).await;
    for (version, client) in [
        (http::Version::HTTP_2, trusting(&shown.certificate).build().unwrap()),
        (http::Version::HTTP_11, trusting(&shown.certificate).http1_only().build().unwrap()),
    ] {
        let layer = content(7, 3 << 20);
        let digest = Digest::sha256(&layer);
        let begun =
            client.post(https(&site, "/v2/x/blobs/uploads/")).header("content-length", 0).seen().await;
        let location = begun.header("location").to_owned();
        let put = client.put(https(&site, &format!("{location}?digest={digest}"))).body(layer.clone());
        assert_eq!(put.seen().await.status, 201);
        let config = Digest::sha256(b"{}");
        let put = client.post(https(&site, &format!("/v2/x/blobs/uploads/?digest={config}"))).body("{}");
        assert_eq!(put.seen().await.status, 201);
        let manifest = image(&config, 2, &digest, layer.len());
        let put = client.put(https(&site, "/v2/x/manifests/latest")).header("content-type", OCI_MANIFEST);
        assert_eq!(put.body(manifest).seen().await.status, 201);
        let pulled = client.get(https(&site, &format!("/v2/x/blobs/{digest}"))).send().await.unwrap();
        assert_eq!(pulled.version(), version);
        assert_eq!(pulled.bytes().await.unwrap(), layer);
    }
}

#[tokio::test]
async fn where_http2_is_switched_off_it_is_not_offered() {
    let shown = KeyedCertificate::self_signed().unwrap();
    let mut files = files(&shown);
    files.config.http2 = false;
    let site = Site::start_with_tls(files.load(), ListenerLimits::default()).await;
    let client = trusting(&shown.certificate).build().unwrap();
    let answer = client.get(https(&site, "/v2/")).send().await.unwrap();
    assert_eq!(answer.version(), http::Version::HTTP_11);
}

#[tokio::test]
async fn a_client_below_the_minimum_version_is_refused() {
    let shown = KeyedCertificate::self_signed().unwrap();
    let mut files = files(&shown);
    let old =
        || trusting(&shown.certificate).tls_version_max(reqwest::tls::Version::TLS_1_2).build().unwrap();
    let site = Site::start_with_tls(files.load(), ListenerLimits::default()).await;
    assert_eq!(old().get(https(&site, "/v2/")).seen().await.status, 200);
    files.config.minimum = TlsVersion::Tls13;
    let site = Site::start_with_tls(files.load(), ListenerLimits::default()).await;
    let refused = old().get(https(&site, "/v2/")).send().await.unwrap_err();
    assert!(refused.is_connect(), "{}", causes(&refused));
    let new = trusting(&shown.certificate).build().unwrap();
    assert_eq!(new.get(https(&site, "/v2/")).seen().await.status, 200);
}

#[tokio::test]
async fn whoever_speaks_plain_http_is_told_so() {
    let shown = KeyedCertificate::self_signed().unwrap();
    let site = Site::start_with_tls(files(&shown).load(), ListenerLimits::default()).await;
    let answer = site.raw(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("use https"), "{answer}");
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_while_the_site_serves() {
    let (old, new) = (KeyedCertificate::self_signed().unwrap(), KeyedCertificate::self_signed().unwrap());
    let files = files(&old);
    let tls = files.load();
    let site = Site::start_with_tls(tls.clone(), ListenerLimits::default()).await;
    let kept = trusting(&old.certificate).build().unwrap();
    assert_eq!(kept.get(https(&site, "/v2/")).seen().await.status, 200);
    new.write(files.directory.path()).unwrap();
    assert_eq!(tls.reload().unwrap(), Reloaded::Changed);
    assert_eq!(tls.reload().unwrap(), Reloaded::Unchanged);
    // An open connection goes on; whoever comes anew is shown the new one.
    assert_eq!(kept.get(https(&site, "/v2/")).seen().await.status, 200);
    let fresh = trusting(&new.certificate).build().unwrap();
    assert_eq!(fresh.get(https(&site, "/v2/")).seen().await.status, 200);
    let stale = trusting(&old.certificate).build().unwrap();
    assert!(stale.get(https(&site, "/v2/")).send().await.unwrap_err().is_connect());
}

#[tokio::test]
async fn files_that_cannot_be_used_never_replace_the_certificate_in_use() {
    let old = KeyedCertificate::self_signed().unwrap();
    let other = KeyedCertificate::self_signed().unwrap();
    let files = files(&old);
    let tls = files.load();
    let site = Site::start_with_tls(tls.clone(), ListenerLimits::default()).await;
    let bad =
        |certificate: &str, key: &str| KeyedCertificate { certificate: certificate.into(), key: key.into() };
    let (certificate, key) = (&old.certificate, &old.key);
    for (wrong, said) in [
        (bad(&other.certificate, key), "does not go with"),
        (bad("", key), "holds no certificate"),
        (bad(&certificate[..certificate.len() / 2], key), "holds no certificate"),
        (bad(certificate, "no key\n"), "holds no private key"),
        (KeyedCertificate::expired().unwrap(), "has expired"),
    ] {
        wrong.write(files.directory.path()).unwrap();
        let error = tls.reload().unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        assert!(!error.contains("PRIVATE"), "{error}");
        let client = trusting(certificate).build().unwrap();
        assert_eq!(client.get(https(&site, "/v2/")).seen().await.status, 200);
    }
    std::fs::remove_file(files.directory.path().join("tls.key")).unwrap();
    let error = tls.reload().unwrap_err().to_string();
    assert!(error.contains("tls.key") && error.contains("http.tls.key"), "{error}");
}

#[test]
fn a_pair_that_cannot_be_used_is_named_at_the_start() {
    let files = files(&KeyedCertificate::self_signed().unwrap());
    let mut config = files.config.clone();
    config.key = Path::new("/nowhere/tls.key").to_owned();
    let error = Tls::load(config, Clock::System).unwrap_err().to_string();
    assert!(error.contains("cannot read /nowhere/tls.key, the file of http.tls.key"), "{error}");
}

/// Answers with the name of the certificate that the client showed.
async fn name_of_client(tls: Arc<Tls>) -> (std::net::SocketAddr, CancellationToken) {
    let service = tower::service_fn(|request: Request<IncomingBody>| async move {
        let shown = request.extensions().get::<ClientCertificate>();
        let name = shown.map_or_else(|| "nobody".to_owned(), |shown| shown.name().to_string());
        Ok::<_, Infallible>(Response::new(Body::from(name)))
    });
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), ListenerLimits::default()).await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    tokio::spawn(listener.with_tls(tls).serve(service, stop.clone()));
    (address, stop)
}

#[tokio::test]
async fn a_client_certificate_of_a_named_authority_is_required_and_says_who_it_is() {
    let shown = KeyedCertificate::self_signed().unwrap();
    let (ours, foreign) = (Authority::new("ours").unwrap(), Authority::new("foreign").unwrap());
    let mut files = files(&shown);
    let authorities = files.directory.path().join("clients.pem");
    std::fs::write(&authorities, ours.pem()).unwrap();
    files.config.client_cas = vec![authorities];
    let with = |client: Option<KeyedCertificate>| {
        let builder = trusting(&shown.certificate);
        match client {
            Some(KeyedCertificate { certificate, key }) => {
                let identity = reqwest::Identity::from_pem(format!("{certificate}{key}").as_bytes()).unwrap();
                builder.identity(identity).build().unwrap()
            }
            None => builder.build().unwrap(),
        }
    };
    let own = Some(ours.client("ci-runner").unwrap());
    let alien = Some(foreign.client("ci-runner").unwrap());
    let (address, stop) = name_of_client(files.load()).await;
    let url = format!("https://{address}/");
    assert_eq!(with(own.clone()).get(&url).send().await.unwrap().text().await.unwrap(), "ci-runner");
    assert!(with(None).get(&url).send().await.is_err());
    assert!(with(alien.clone()).get(&url).send().await.is_err());
    stop.cancel();

    files.config.client_auth = ClientAuth::IfGiven;
    let (address, stop) = name_of_client(files.load()).await;
    let url = format!("https://{address}/");
    assert_eq!(with(own).get(&url).send().await.unwrap().text().await.unwrap(), "ci-runner");
    assert_eq!(with(None).get(&url).send().await.unwrap().text().await.unwrap(), "nobody");
    assert!(with(alien).get(&url).send().await.is_err());
    stop.cancel();
}

#[tokio::test]
async fn a10_a_stalled_handshake_is_cut_off_and_holds_nobody_up() {
    let shown = KeyedCertificate::self_signed().unwrap();
    let limits =
        ListenerLimits { handshake_timeout: Duration::from_millis(700), ..ListenerLimits::default() };
    let site = Site::start_with_tls(files(&shown).load(), limits).await;
    let mut stalled = Vec::new();
    // Nothing, half a record header, and a record that announces more than comes.
    for begun in [&b""[..], b"\x16\x03", b"\x16\x03\x01\x02\x00\x01\x00\x01"] {
        let mut stream = site.connect().await;
        stream.write_all(begun).await.unwrap();
        stalled.push(stream);
    }
    let client = trusting(&shown.certificate).build().unwrap();
    assert_eq!(client.get(https(&site, "/v2/")).seen().await.status, 200);
    for mut stream in stalled {
        read_to_end(&mut stream).await;
    }
}

#[tokio::test]
async fn a10_connections_stalled_in_their_handshake_give_their_places_back() {
    let shown = KeyedCertificate::self_signed().unwrap();
    let limits = ListenerLimits {
        handshake_timeout: Duration::from_millis(700),
        max_connections: 4,
        ..ListenerLimits::default()
    };
    let site = Site::start_with_tls(files(&shown).load(), limits).await;
    let mut half_open = Vec::new();
    for _ in 0..20 {
        half_open.push(site.connect().await);
    }
    let client = trusting(&shown.certificate).build().unwrap();
    assert_eq!(client.get(https(&site, "/v2/")).seen().await.status, 200);
}

#[tokio::test]
async fn a10_a_tls_client_that_stops_reading_is_let_go() {
    let shown = KeyedCertificate::self_signed().unwrap();
    let limits = ListenerLimits {
        write_timeout: Duration::from_millis(700),
        max_connections: 1,
        ..ListenerLimits::default()
    };
    let site = Site::start_with_tls(files(&shown).load(), limits).await;
    let bytes = content(2, 64 << 20);
    let digest = Digest::sha256(&bytes);
    {
        let client = trusting(&shown.certificate).http1_only().pool_max_idle_per_host(0).build().unwrap();
        let pushed = client.post(https(&site, &format!("/v2/x/blobs/uploads/?digest={digest}"))).body(bytes);
        assert_eq!(pushed.header("connection", "close").seen().await.status, 201);
    }
    let mut stuck = connect_tls(&site, &shown).await;
    let request = format!("GET /v2/x/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n");
    stuck.write_all(request.as_bytes()).await.unwrap();
    let mut first = [0; 15];
    stuck.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    // The only place becomes free although the client holds on to the connection.
    let client = trusting(&shown.certificate).build().unwrap();
    assert_eq!(client.get(https(&site, "/v2/")).seen().await.status, 200);
    drop(stuck);
}

#[tokio::test]
async fn a10_http2_connections_that_nothing_comes_of_give_their_places_back() {
    let shown = KeyedCertificate::self_signed().unwrap();
    let limits = ListenerLimits {
        header_timeout: Duration::from_millis(700),
        write_timeout: Duration::from_millis(700),
        max_connections: 1,
        ..ListenerLimits::default()
    };
    let site = Site::start_with_tls(files(&shown).load(), limits).await;
    let client = || trusting(&shown.certificate).build().unwrap();
    let bytes = content(3, 32 << 20);
    let digest = Digest::sha256(&bytes);
    let idle = client();
    let pushed = idle.post(https(&site, &format!("/v2/x/blobs/uploads/?digest={digest}"))).body(bytes);
    assert_eq!(pushed.seen().await.status, 201);
    // The pool holds on to the only connection, and answers its pings.
    let stuck = client().get(https(&site, &format!("/v2/x/blobs/{digest}"))).send().await.unwrap();
    assert_eq!(stuck.version(), http::Version::HTTP_2);
    // Nobody takes more of that answer than a window.
    assert_eq!(client().get(https(&site, "/v2/")).seen().await.status, 200);
    drop((idle, stuck));
}

#[tokio::test]
async fn the_event_of_a_change_names_the_certificate_of_its_client() {
    let shown = KeyedCertificate::self_signed().unwrap();
    let authority = Authority::new("ours").unwrap();
    let mut files = files(&shown);
    let authorities = files.directory.path().join("clients.pem");
    std::fs::write(&authorities, authority.pem()).unwrap();
    files.config.client_cas = vec![authorities];
    let site = Site::start_with_tls(files.load(), ListenerLimits::default()).await;
    let KeyedCertificate { certificate, key } = authority.client("ci-runner").unwrap();
    let identity = reqwest::Identity::from_pem(format!("{certificate}{key}").as_bytes()).unwrap();
    let client = trusting(&shown.certificate).identity(identity).build().unwrap();
    let digest = Digest::sha256(b"x");
    let pushed = client.post(https(&site, &format!("/v2/x/blobs/uploads/?digest={digest}"))).body("x");
    assert_eq!(pushed.seen().await.status, 201);
    let events = site.registry.metadata.events_after(0, 10).await.unwrap();
    let actors: Vec<_> = events.iter().filter_map(|logged| logged.event().unwrap().actor).collect();
    assert!(actors.iter().any(|actor| actor == "certificate ci-runner"), "{actors:?}");
}

#[tokio::test]
async fn a_refusal_reaches_a_tls_client_that_sends_on_regardless() {
    let shown = KeyedCertificate::self_signed().unwrap();
    let site = Site::start_with_tls(files(&shown).load(), ListenerLimits::default()).await;
    let (mut reading, mut writing) = tokio::io::split(connect_tls(&site, &shown).await);
    let head = format!(
        "PUT /v2/x/manifests/latest HTTP/1.1\r\nHost: x\r\nContent-Type: {OCI_MANIFEST}\r\nContent-Length: 20000000\r\n\r\n"
    );
    writing.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..200 {
        writing.write_all(&[b' '; 100_000]).await.unwrap();
    }
    let mut answer = Vec::new();
    reading.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer));
}

async fn connect_tls(
    site: &Site,
    shown: &KeyedCertificate,
) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(shown.certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(ServerName::try_from("localhost").unwrap(), site.connect().await).await.unwrap()
}
