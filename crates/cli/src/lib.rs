//! The command line: parse, ask a running site over its unix socket (or be one), and show what came of it.
//!
//! **Architecture invariant:** results go to standard output, everything else to standard error; status 0 means done.

mod admin_client;
mod arguments;
mod commands;
mod demo;
mod output;
mod time;

use std::process::ExitCode;

use clap::Parser as _;

pub use self::arguments::Arguments;

/// Parses the process's arguments, does what they say, and tells how it went.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::Error::new(error).context("cannot start the runtime")),
    };
    let ended = runtime.block_on(commands::run(arguments));
    // A read of standard input that nobody answers must not hold the process.
    runtime.shutdown_background();
    match ended {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    output::complain(&format!("twinport: {error:#}"));
    ExitCode::FAILURE
}
