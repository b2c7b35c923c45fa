//! The binary: tune the allocator, install the one crypto provider, then hand over to the command line.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod allocator;

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    allocator::keep_freed_memory();
    // Refused only where one is installed already, and then it is the same one.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    twinport_cli::main()
}
