//! Paths under `/v2` as they arrive, and their queries: what names something has one form, and no way out of its place.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (path, query) = input;
    twinport_server::fuzzing::path(path);
    twinport_server::fuzzing::query(query);
});
