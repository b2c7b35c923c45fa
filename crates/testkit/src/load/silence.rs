//! Requests that nothing ever comes back for, told apart from connections that broke.
//! Guards: a site that keeps a request and says nothing fails the test that asked, with what the sockets look like.

use std::{fmt::Write as _, time::Duration};

/// Longer than any request of a load takes on a loaded machine.
const SILENCE: Duration = Duration::from_secs(60);

/// The client of a load: no request of it waits for ever.
///
/// # Errors
/// When the system's certificates cannot be read.
pub fn load_client() -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder().timeout(SILENCE).build()?)
}

/// Passes over a connection that broke; anything else, silence among it, stays an error.
///
/// # Errors
/// The one given.
pub(super) fn broke(error: anyhow::Error) -> anyhow::Result<()> {
    match error.downcast_ref::<reqwest::Error>() {
        Some(silent) if silent.is_timeout() => {
            let port = silent.url().and_then(reqwest::Url::port);
            let sockets = port.map(sockets_of).transpose()?.unwrap_or_default();
            Err(error.context(format!("no answer within {} s; its sockets:\n{sockets}", SILENCE.as_secs())))
        }
        Some(_) => Ok(()),
        None => Err(error),
    }
}

/// What the system knows of the connections from and to a port of this machine: addresses and ports in hexadecimal, the
/// state (01 is established, 0A listens), bytes not sent and not read.
fn sockets_of(port: u16) -> anyhow::Result<String> {
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let wanted = format!(":{port:04X}");
    let mut sockets = String::new();
    for line in table.lines() {
        let mut fields = line.split_whitespace().skip(1);
        let (Some(local), Some(remote), Some(state), Some(queues)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if local.ends_with(&wanted) || remote.ends_with(&wanted) {
            writeln!(sockets, "{local} {remote} {state} {queues}")?;
        }
    }
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::{broke, sockets_of};

    #[tokio::test]
    async fn silence_is_no_broken_connection() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        let brief = std::time::Duration::from_millis(50);
        let ask = || reqwest::Client::new().get(format!("http://{address}/")).timeout(brief).send();
        let error = broke(ask().await.unwrap_err().into()).unwrap_err();
        assert!(format!("{error}").contains("0A"), "{error}");
        assert!(!sockets_of(address.port()).unwrap().is_empty());
        drop(silent);
        broke(ask().await.unwrap_err().into()).unwrap();
    }
}
