//! Reaching a server: each host in turn, each way that `sslmode` allows, and words for what went wrong.

use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use tokio::time::timeout;
use tokio_postgres::{Connection, NoTls, config::SslMode as WireMode, error::SqlState, tls::TlsStream};

use super::{
    options::{PostgresHost, PostgresOptions, SslMode},
    tls::{Connector, connector},
};
use crate::{Error, Result, error::with_source};

/// Acknowledged means synced, whatever the server's default; nobody holds a lock for ever, and a node that stands still in a
/// transaction not for so long that its work could not be taken over.
/// Every text is prepared and made for one plan, by index, whatever its parameters and however new a table is
/// (query_plans): planning anew at each use was most of what a statement cost.
const SETTINGS: &str = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c jit=off -c synchronous_commit=on \
     -c idle_in_transaction_session_timeout=8s -c lock_timeout=20s -c statement_timeout=120s \
     -c default_transaction_isolation=read\\ committed";
/// A server whose machine went without a word is given up after about 30 s.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVES: u32 = 3;

/// One connection to `host`, by the first of the ways that `sslmode` names and the server takes.
pub(super) async fn dial(options: &PostgresOptions, host: &PostgresHost) -> Result<ClientWrapper> {
    let mut first = None;
    for &mode in ways(options.tls.mode, host) {
        let secured = if mode == WireMode::Disable { None } else { Some(connector(&options.tls).await?) };
        let mut config = wire(options, host);
        config.ssl_mode(mode);
        let Ok(dialled) = timeout(options.connect_timeout, once(&config, secured)).await else {
            let seconds = options.connect_timeout.as_secs();
            return Err(unreachable(options, host, &format!("no answer within {seconds} s"), PLACE));
        };
        match dialled {
            Ok(client) => return Ok(client),
            // Nobody there is nobody there, with TLS and without.
            Err(error) if error.as_db_error().is_none() && !is_tls(&error) => {
                return Err(explain(options, host, &error));
            }
            Err(error) => {
                first.get_or_insert(explain(options, host, &error));
            }
        }
    }
    Err(first.unwrap_or_else(|| Error::Bug("a mode without a way to connect".to_owned())))
}

/// libpq's order of attempts.
fn ways(mode: SslMode, host: &PostgresHost) -> &'static [WireMode] {
    match mode {
        _ if host.host.starts_with('/') => &[WireMode::Disable],
        SslMode::Disable => &[WireMode::Disable],
        SslMode::Allow => &[WireMode::Disable, WireMode::Require],
        SslMode::Prefer => &[WireMode::Prefer, WireMode::Disable],
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[WireMode::Require],
    }
}

fn wire(options: &PostgresOptions, host: &PostgresHost) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::clone(&options.account);
    config
        .host(&host.host)
        .port(host.port)
        .options(SETTINGS)
        .application_name("twinport")
        .connect_timeout(options.connect_timeout)
        .keepalives_idle(KEEPALIVE_AFTER)
        .keepalives_interval(KEEPALIVE_EVERY)
        .keepalives_retries(KEEPALIVES)
        .tcp_user_timeout(KEEPALIVE_AFTER + KEEPALIVE_EVERY * KEEPALIVES);
    config
}

async fn once(
    config: &tokio_postgres::Config,
    secured: Option<Connector>,
) -> Result<ClientWrapper, tokio_postgres::Error> {
    match secured {
        None => started(config.connect(NoTls).await?),
        Some(connector) => started(config.connect(connector).await?),
    }
}

fn started<T>(
    (client, connection): (tokio_postgres::Client, Connection<tokio_postgres::Socket, T>),
) -> Result<ClientWrapper, tokio_postgres::Error>
where
    T: TlsStream + Unpin + Send + 'static,
{
    let driving = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %with_source(&error), "a database connection ended");
        }
    });
    Ok(ClientWrapper::new(client, driving))
}

fn is_tls(error: &tokio_postgres::Error) -> bool {
    error.to_string().starts_with("error performing TLS handshake")
}

const PLACE: &str = "is it running there? check database.host and database.port";

fn explain(options: &PostgresOptions, host: &PostgresHost, error: &tokio_postgres::Error) -> Error {
    let (text, fix) = match error.as_db_error() {
        Some(said) => (said.message().to_owned(), fix_of(said.code(), said.message())),
        None => {
            let text = with_source(error);
            let fix = if is_tls(error) { fix_of_tls(&text) } else { fix_of_silence(&text) };
            (text, fix)
        }
    };
    unreachable(options, host, &text, fix)
}

fn unreachable(options: &PostgresOptions, host: &PostgresHost, text: &str, fix: &str) -> Error {
    let database = options.database();
    let fix = if fix.is_empty() { String::new() } else { format!("; {fix}") };
    Error::Unavailable(format!("PostgreSQL at {host}, database {database}: {text}{fix}"))
}

fn fix_of(code: &SqlState, message: &str) -> &'static str {
    match *code {
        _ if message.contains("pg_hba.conf") => {
            "let this client in by a line of the server's pg_hba.conf, or change database.sslmode to what it asks for"
        }
        _ if message.contains("client certificate") || message.contains("certificate authentication") => {
            "set database.sslcert and database.sslkey to a certificate that the server knows for database.user"
        }
        SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            "check database.user, and database.password or database.password_file"
        }
        SqlState::INVALID_CATALOG_NAME => "create it, or correct database.dbname",
        SqlState::TOO_MANY_CONNECTIONS => {
            "raise max_connections of the server, or lower database.pool.maxopen"
        }
        SqlState::CANNOT_CONNECT_NOW => "it is starting or stopping: wait",
        _ => "",
    }
}

fn fix_of_tls(text: &str) -> &'static str {
    if text.contains("does not support TLS") {
        "switch on ssl at the server, or set database.sslmode to prefer or disable"
    } else if text.contains("UnknownIssuer") {
        "database.sslrootcert must hold the authority that signed the server's certificate"
    } else if text.contains("not valid for name") || text.contains("NotValidForName") {
        "database.host must be a name in the server's certificate, or database.sslmode verify-ca"
    } else if text.contains("Expired") || text.contains("expired") {
        "renew the server's certificate"
    } else {
        "check database.sslmode, database.sslrootcert, database.sslcert and database.sslkey"
    }
}

fn fix_of_silence(text: &str) -> &'static str {
    if text.contains("password missing") {
        "the server asks for a password: set database.password or database.password_file"
    } else if text.contains("alert") {
        "set database.sslcert and database.sslkey to a certificate that the server trusts"
    } else {
        PLACE
    }
}
