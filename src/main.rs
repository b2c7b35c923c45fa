//! The binary: install the one crypto provider, then hand over to the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Refused only where one is installed already, and then it is the same one.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    twinport_cli::main()
}
