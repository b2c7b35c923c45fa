//! Digests, their database keys and hasher states: what is accepted has one form and can be used.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twinport_oci::{Digest, Hasher};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(digest) = text.parse::<Digest>()
    {
        assert_eq!(digest.to_string(), text);
    }
    if let Ok(digest) = Digest::from_key(bytes) {
        assert_eq!(digest.to_key(), bytes);
    }
    if let Ok(mut hasher) = Hasher::resume(bytes) {
        assert_eq!(hasher.state(), bytes);
        hasher.update(bytes);
        hasher.finish();
    }
});
