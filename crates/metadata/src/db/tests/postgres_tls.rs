//! TLS to PostgreSQL, on a real server: each `sslmode` as libpq has it, client certificates, passwords, channel binding.

use std::path::PathBuf;

use twinport_testkit::{Authority, PostgresServer, Stop};

use super::{open_postgres, own_server};
use crate::{PostgresHost, PostgresOptions, Result, SslMode};

/// A server with TLS, and the files of clients.
struct Secured {
    server: PostgresServer,
    folder: tempfile::TempDir,
    authority: Authority,
}

impl Secured {
    async fn start() -> Option<Self> {
        let mut server = own_server(&[])?;
        server.execute("CREATE ROLE registry SUPERUSER LOGIN PASSWORD 'right-one'").await.unwrap();
        server.database("registry").await.unwrap();
        let authority = Authority::new("the database's").unwrap();
        let clients = Authority::new("the clients'").unwrap();
        let own = authority.server().unwrap();
        let certificate = server.file("server.crt", &own.certificate).unwrap();
        let key = server.file("server.key", &own.key).unwrap();
        let known = server.file("clients.crt", clients.pem()).unwrap();
        server
            .configure(&[
                "ssl = on",
                &format!("ssl_cert_file = '{}'", certificate.display()),
                &format!("ssl_key_file = '{}'", key.display()),
                &format!("ssl_ca_file = '{}'", known.display()),
            ])
            .unwrap();
        server.restart(Stop::Fast).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let secured = Self { server, folder, authority };
        secured.write("ca.crt", secured.authority.pem());
        secured.write("other.crt", clients.pem());
        let known = clients.client("registry").unwrap();
        secured.write("known.crt", &known.certificate);
        secured.write("known.key", &known.key);
        let unknown = secured.authority.client("registry").unwrap();
        secured.write("unknown.crt", &unknown.certificate);
        secured.write("unknown.key", &unknown.key);
        Some(secured)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Lets in whom these lines name.
    fn letting_in(&mut self, lines: &[&str]) {
        self.server.let_in(lines).unwrap();
        self.server.restart(Stop::Fast).unwrap();
    }

    fn options(&self, mode: SslMode) -> PostgresOptions {
        let host = PostgresHost { host: "127.0.0.1".to_owned(), port: self.server.port() };
        let mut options = PostgresOptions::new(vec![host], "registry", "registry", None);
        options.tls.mode = mode;
        options
    }

    fn rooted(&self, mode: SslMode, roots: &str) -> PostgresOptions {
        let mut options = self.options(mode);
        options.tls.root_certificates = Some(self.path(roots));
        options
    }

    fn with_certificate(&self, name: &str) -> PostgresOptions {
        let mut options = self.rooted(SslMode::VerifyFull, "ca.crt");
        options.tls.certificate = Some(self.path(&format!("{name}.crt")));
        options.tls.key = Some(self.path(&format!("{name}.key")));
        options
    }
}

/// With which TLS a site runs that is opened so.
async fn tls(options: PostgresOptions) -> Result<Option<String>> {
    let metadata = open_postgres(options).await?;
    let tls = metadata.server_facts().await.unwrap().unwrap().tls;
    metadata.close().await;
    Ok(tls)
}

async fn speaks_tls(options: PostgresOptions) -> bool {
    tls(options).await.unwrap().is_some()
}

async fn refusal(options: PostgresOptions) -> String {
    tls(options).await.unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sslmode_does_what_libpq_does() {
    let Some(mut db) = Secured::start().await else { return };
    let on_loopback = "all all 127.0.0.1/32 trust";
    db.letting_in(&[&format!("host {on_loopback}")]);
    for (mode, secured) in [
        (SslMode::Disable, false),
        (SslMode::Allow, false),
        (SslMode::Prefer, true),
        (SslMode::Require, true),
    ] {
        assert_eq!(speaks_tls(db.options(mode)).await, secured, "{mode:?}");
    }
    assert!(speaks_tls(db.rooted(SslMode::VerifyCa, "ca.crt")).await);
    assert!(speaks_tls(db.rooted(SslMode::VerifyFull, "ca.crt")).await);
    // Whoever gives authorities has them asked; `prefer` then goes on in clear, as libpq does.
    for mode in [SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull] {
        let refusal = refusal(db.rooted(mode, "other.crt")).await;
        assert!(refusal.contains("database.sslrootcert must hold the authority"), "{mode:?}: {refusal}");
    }
    assert!(!speaks_tls(db.rooted(SslMode::Prefer, "other.crt")).await);
    // Nothing vouches for a server that only this test knows.
    assert!(refusal(db.options(SslMode::VerifyFull)).await.contains("TLS"), "the machine's own authorities");
    assert!(refusal(db.options(SslMode::VerifyCa)).await.contains("needs database.sslrootcert"));

    db.letting_in(&[&format!("hostssl {on_loopback}")]);
    let refused = refusal(db.options(SslMode::Disable)).await;
    assert!(refused.contains("pg_hba.conf") && refused.contains("database.sslmode"), "{refused}");
    assert!(speaks_tls(db.options(SslMode::Allow)).await, "allow goes on with TLS where clear is refused");

    db.letting_in(&[&format!("hostnossl {on_loopback}")]);
    assert!(!speaks_tls(db.options(SslMode::Prefer)).await, "prefer goes on in clear where TLS is refused");
    assert!(refusal(db.options(SslMode::Require)).await.contains("pg_hba.conf"));
    let mut socket = db.options(SslMode::VerifyFull);
    socket.hosts[0].host = db.server.sockets().to_string_lossy().into_owned();
    assert!(!speaks_tls(socket).await, "a unix socket has no TLS, whatever the mode");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_known_by_its_name_and_one_without_tls_is_no_surprise() {
    let Some(mut db) = Secured::start().await else { return };
    let other = db.authority.server_named("db.example.com").unwrap();
    db.server.file("server.crt", &other.certificate).unwrap();
    db.server.file("server.key", &other.key).unwrap();
    db.server.restart(Stop::Fast).unwrap();
    assert!(speaks_tls(db.rooted(SslMode::VerifyCa, "ca.crt")).await, "verify-ca does not ask for names");
    let refused = refusal(db.rooted(SslMode::VerifyFull, "ca.crt")).await;
    assert!(refused.contains("database.host must be a name in the server's certificate"), "{refused}");
    assert!(refused.contains(&format!("127.0.0.1:{}", db.server.port())), "{refused}");
    assert!(refused.contains("database registry"), "{refused}");

    // A certificate that is listed itself needs nobody else, even where it calls itself an authority.
    db.write("listed.crt", &other.certificate);
    assert!(speaks_tls(db.rooted(SslMode::VerifyCa, "listed.crt")).await);

    db.server.configure(&["ssl = off"]).unwrap();
    db.server.restart(Stop::Fast).unwrap();
    for mode in [SslMode::Disable, SslMode::Allow, SslMode::Prefer] {
        assert!(!speaks_tls(db.options(mode)).await, "{mode:?}");
    }
    for options in [db.options(SslMode::Require), db.rooted(SslMode::VerifyFull, "ca.crt")] {
        let refused = refusal(options).await;
        assert!(refused.contains("does not support TLS") && refused.contains("switch on ssl"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_stands_for_a_password() {
    let Some(mut db) = Secured::start().await else { return };
    db.letting_in(&["hostssl all all 127.0.0.1/32 cert"]);
    assert!(speaks_tls(db.with_certificate("known")).await);
    let without = refusal(db.rooted(SslMode::VerifyFull, "ca.crt")).await;
    assert!(without.contains("set database.sslcert and database.sslkey"), "{without}");
    let unknown = refusal(db.with_certificate("unknown")).await;
    assert!(unknown.contains("database.sslcert"), "{unknown}");
    let mut mixed = db.with_certificate("known");
    mixed.tls.key = Some(db.path("unknown.key"));
    let mixed = refusal(mixed).await;
    assert!(mixed.contains("database.sslkey") && mixed.contains("does not fit"), "{mixed}");
    let mut absent = db.with_certificate("known");
    absent.tls.certificate = Some(db.path("absent.crt"));
    let absent = refusal(absent).await;
    assert!(absent.contains("database.sslcert") && absent.contains("absent.crt"), "{absent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_bound_to_the_connection_and_told_by_no_error() {
    let Some(mut db) = Secured::start().await else { return };
    db.letting_in(&["hostssl all all 127.0.0.1/32 scram-sha-256"]);
    let port = db.server.port();
    let with = |password: &str| {
        let url = format!(
            "postgres://registry:{password}@127.0.0.1:{port}/registry?sslmode=require&channel_binding=require"
        );
        PostgresOptions::parse(&url).unwrap()
    };
    assert!(speaks_tls(with("right-one")).await, "the server knows the binding to its certificate");
    let wrong = refusal(with("wrong-one")).await;
    assert!(wrong.contains("check database.user, and database.password"), "{wrong}");
    assert!(
        !wrong.contains("wrong-one") && !format!("{:?}", with("wrong-one")).contains("wrong-one"),
        "{wrong}"
    );
    let none = refusal(db.options(SslMode::Require)).await;
    assert!(none.contains("database.password_file"), "{none}");
    let url = format!("postgres://registry:right-one@127.0.0.1:{port}/nowhere?sslmode=require");
    let nowhere = PostgresOptions::parse(&url).unwrap();
    let nowhere = refusal(nowhere).await;
    assert!(nowhere.contains("database nowhere") && nowhere.contains("correct database.dbname"), "{nowhere}");
    let mut silent = with("right-one");
    silent.hosts[0].port = 1;
    let silent = refusal(silent).await;
    assert!(silent.contains("127.0.0.1:1") && silent.contains("check database.host"), "{silent}");
}
