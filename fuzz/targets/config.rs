//! Configuration files: whatever a file holds, it is refused with the line, or read and shown so that it reads back.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| twinport_server::fuzzing::config(text));
