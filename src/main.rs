//! The binary: parse the command line, install the crypto provider, dispatch.
fn main() {}
