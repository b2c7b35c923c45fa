//! Repository names: what is accepted is safe inside a path and a URL.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twinport_oci::RepositoryName;

fuzz_target!(|text: &str| {
    if let Ok(name) = RepositoryName::parse(text) {
        assert_eq!(name.as_str(), text);
        assert!(text.len() <= RepositoryName::MAX_LEN);
        assert!(
            text.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/".contains(&byte))
        );
        assert!(!text.contains("..") && text.split('/').all(|part| !part.is_empty()));
    }
});
