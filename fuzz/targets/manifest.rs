//! Manifests: the first byte chooses the Content-Type, the rest is the body. No body is an image and an index.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twinport_oci::{Algorithm, Manifest, MediaType, canonical_digest, schema1_payload};

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, body)) = bytes.split_first() else { return };
    let content_type = MediaType::KNOWN.get(usize::from(choice));
    if let Ok(manifest) = Manifest::parse(body, content_type) {
        let is_image = manifest.config.is_some() || !manifest.layers.is_empty();
        assert!(!is_image || manifest.manifests.is_empty());
        _ = canonical_digest(body, &manifest, Algorithm::Sha256);
        let again =
            Manifest::parse(body, Some(&manifest.media_type)).expect("it parses as what it said it is");
        assert_eq!(again, manifest);
    }
    if let Ok(payload) = schema1_payload(body) {
        assert!(schema1_payload(&payload).is_err(), "a payload holds signatures of its own");
    }
});
