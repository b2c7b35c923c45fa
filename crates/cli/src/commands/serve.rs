//! `twinport serve`.

use std::{io::Read as _, time::Duration};

use tokio_util::sync::CancellationToken;
use twinport_server::{Config, Ready, Reread, ServeOptions, install_logging, serve as run};

use crate::{admin_client::source, arguments::ServeArguments, output};

/// How long requests under way may go on once the parent is gone.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn serve(arguments: ServeArguments) -> anyhow::Result<()> {
    let source = source(&arguments.site, arguments.addr.clone(), arguments.lenient);
    let config = Config::load(&source)?;
    let log = install_logging(&config.log, arguments.node.as_deref())?;
    let stop = CancellationToken::new();
    if arguments.exit_with_parent {
        stop_with_standard_input(stop.clone())?;
    }
    let (ready, told) = tokio::sync::oneshot::channel();
    if arguments.announce {
        tokio::spawn(async move {
            if let Ok(Ready { address }) = told.await {
                output::say(&serde_json::json!({ "address": address }).to_string());
            }
        });
    }
    let reread = Some(Reread { source, log: log.control() });
    let notify_socket = std::env::var_os("NOTIFY_SOCKET");
    let admin_password_file = arguments.admin_password_file;
    let node = arguments.node.or_else(host_name);
    let options = ServeOptions { ready: Some(ready), stop, reread, admin_password_file, node, notify_socket };
    run(config, options).await?;
    Ok(())
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// The other end of standard input is held by whoever started this process; the kernel closes it when that process
/// ends, however it ends.
fn stop_with_standard_input(stop: CancellationToken) -> std::io::Result<()> {
    let watch = move || {
        let mut input = std::io::stdin().lock();
        let mut ignored = [0; 256];
        while matches!(input.read(&mut ignored), Ok(n) if n > 0) {}
        stop.cancel();
        // Nobody is left to wait for requests that do not end.
        std::thread::sleep(PATIENCE);
        std::process::exit(1);
    };
    std::thread::Builder::new().name("parent".to_owned()).spawn(watch).map(drop)
}
