//! References, tags, media types and upload ids: what is accepted reads back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twinport_oci::{MediaType, Reference, UploadId};

fuzz_target!(|text: &str| {
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string(), text);
        assert_eq!(reference.digest().is_some(), text.contains(':'));
        assert!(!text.contains(['/', '%', '\0']));
    }
    if let Ok(media_type) = MediaType::parse(text) {
        assert_eq!(MediaType::parse(media_type.as_str()), Ok(media_type));
    }
    if let Ok(id) = text.parse::<UploadId>() {
        assert_eq!(id.to_string(), text);
    }
});
