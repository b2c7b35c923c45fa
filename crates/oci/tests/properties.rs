//! For all inputs: no parser panics, what is displayed reads back, and the hand-written grammars agree with the
//! specifications' own regular expressions.

use std::cell::RefCell;
use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;
use twinport_oci::{
    Algorithm, ByteRange, ContentRange, Digest, ErrorCode, Hasher, Manifest, MediaType, Reference,
    RepositoryName, Tag, UploadId, canonical_digest, next_link, parse_next_link, parse_ranges,
    schema1_payload,
};

const NAME: &str = "[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*)*";
/// Names by the same grammar, often near the limit of 255 bytes and never far beyond it.
const SHORT_NAME: &str = "[a-z0-9]{1,9}((\\.|_|__|-{1,4})[a-z0-9]{1,9}){0,2}(/[a-z0-9]{1,9}((\\.|_|__|-{1,4})[a-z0-9]{1,9}){0,2}){0,20}";
const TAG: &str = "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}";
const MEDIA_TYPE: &str = "[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}";

/// Text from an alphabet in which the grammars' edges are likely.
fn near_a_grammar() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c0-1._/-]{0,12}", "[a-zA-Z0-9_./:%@+ -]{0,40}", "\\PC{0,40}", any::<String>()]
}

/// Whether the whole text matches. Compiled once per pattern: a regex costs more than thousands of parses.
fn matches(pattern: &'static str, text: &str) -> bool {
    thread_local! {
        static COMPILED: RefCell<HashMap<&'static str, regex::Regex>> = RefCell::default();
    }
    COMPILED.with_borrow_mut(|compiled| {
        let compile = || regex::Regex::new(&format!("\\A(?:{pattern})\\z")).expect("a pattern compiles");
        compiled.entry(pattern).or_insert_with(compile).is_match(text)
    })
}

/// Parses as every value there is; returns nothing, because only panics count.
fn parse_as_everything(text: &str) {
    _ = text.parse::<Digest>();
    _ = text.parse::<Algorithm>();
    _ = RepositoryName::parse(text);
    _ = Tag::parse(text);
    _ = text.parse::<Reference>();
    _ = text.parse::<UploadId>();
    _ = MediaType::parse(text);
    _ = text.parse::<ContentRange>();
    _ = text.parse::<ErrorCode>();
    _ = parse_ranges(text);
    _ = parse_next_link(text);
    _ = next_link(text);
}

fn any_digest() -> impl Strategy<Value = Digest> {
    prop_oneof![
        any::<[u8; 32]>().prop_map(Digest::Sha256),
        vec(any::<u8>(), 64).prop_map(|raw| Digest::Sha512(raw.try_into().expect("64 bytes")))
    ]
}

/// JSON that is often a manifest, and as often nearly one.
fn near_a_manifest() -> impl Strategy<Value = String> {
    let digest = any_digest().prop_map(|digest| format!("\"{digest}\""));
    let scalar = prop_oneof![
        Just("null".to_owned()),
        Just("1".to_owned()),
        Just("2".to_owned()),
        Just("-1".to_owned()),
        Just("\"\"".to_owned()),
        Just("{}".to_owned()),
        Just("[]".to_owned()),
        digest,
        (0..MediaType::KNOWN.len()).prop_map(|at| format!("\"{}\"", MediaType::KNOWN[at])),
        "\\PC{0,8}",
    ];
    let key = prop::sample::select(vec![
        "schemaVersion",
        "mediaType",
        "artifactType",
        "config",
        "layers",
        "manifests",
        "blobs",
        "fsLayers",
        "signatures",
        "subject",
        "annotations",
        "digest",
        "size",
        "urls",
        "platform",
        "data",
        "blobSum",
        "protected",
        "x",
        "Layers",
    ]);
    scalar.prop_recursive(5, 64, 8, move |inner| {
        let object = vec((key.clone(), inner.clone()), 0..8).prop_map(|fields| {
            let fields: Vec<String> =
                fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            format!("{{{}}}", fields.join(","))
        });
        prop_oneof![3 => object, 1 => vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(",")))]
    })
}

const MANIFEST_TYPES: [MediaType; 8] = [
    MediaType::OCI_IMAGE_MANIFEST,
    MediaType::OCI_IMAGE_INDEX,
    MediaType::OCI_ARTIFACT_MANIFEST,
    MediaType::DOCKER_MANIFEST,
    MediaType::DOCKER_MANIFEST_LIST,
    MediaType::DOCKER_SCHEMA1,
    MediaType::DOCKER_SCHEMA1_SIGNED,
    MediaType::JSON,
];

fn parse_as_a_manifest(bytes: &[u8]) {
    _ = schema1_payload(bytes);
    for content_type in std::iter::once(None).chain(MANIFEST_TYPES.iter().map(Some)) {
        if let Ok(manifest) = Manifest::parse(bytes, content_type) {
            let named = manifest.blobs().chain(manifest.children()).count();
            let listed =
                manifest.layers.len() + manifest.manifests.len() + usize::from(manifest.config.is_some());
            assert_eq!(named, listed, "something a manifest names is neither blob nor child");
            assert!(manifest.manifests.is_empty() || manifest.layers.is_empty() && manifest.config.is_none());
            assert!(content_type.is_none_or(|sent| *sent == manifest.media_type || *sent == MediaType::JSON));
            _ = canonical_digest(bytes, &manifest, Algorithm::Sha256);
        }
    }
}

proptest! {
    #[test]
    fn no_text_panics_a_parser(text in any::<String>(), near in near_a_grammar()) {
        parse_as_everything(&text);
        parse_as_everything(&near);
    }

    #[test]
    fn no_bytes_panic_a_parser(bytes in vec(any::<u8>(), 0..200)) {
        parse_as_everything(&String::from_utf8_lossy(&bytes));
        _ = Digest::from_key(&bytes);
        _ = Hasher::resume(&bytes);
        parse_as_a_manifest(&bytes);
    }

    #[test]
    fn no_near_manifest_panics_the_parser(document in near_a_manifest(), cut in any::<prop::sample::Index>()) {
        parse_as_a_manifest(document.as_bytes());
        parse_as_a_manifest(&document.as_bytes()[..cut.index(document.len() + 1)]);
    }

    #[test]
    fn names_agree_with_the_specification(text in near_a_grammar(), valid in SHORT_NAME) {
        for name in [&text, &valid] {
            let parsed = RepositoryName::parse(name);
            prop_assert_eq!(parsed.is_ok(), matches(NAME, name) && name.len() <= 255, "{}", name);
            if let Ok(parsed) = parsed {
                prop_assert_eq!(parsed.to_string().parse::<RepositoryName>().unwrap(), parsed);
            }
        }
    }

    #[test]
    fn tags_and_references_agree_with_the_specification(text in near_a_grammar(), valid in TAG) {
        for tag in [&text, &valid] {
            prop_assert_eq!(Tag::parse(tag).is_ok(), matches(TAG, tag), "{}", tag);
            let reference = tag.parse::<Reference>();
            prop_assert_eq!(reference.is_ok(), matches(TAG, tag) || tag.parse::<Digest>().is_ok());
            if let Ok(reference) = reference {
                prop_assert_eq!(reference.to_string(), tag.as_str());
            }
        }
    }

    #[test]
    fn media_types_agree_with_rfc_6838(text in near_a_grammar(), valid in MEDIA_TYPE, parameter in "[^/]{0,8}") {
        let essence = text.split(';').next().unwrap_or_default().trim_matches([' ', '\t']);
        prop_assert_eq!(MediaType::parse(&text).is_ok(), matches(MEDIA_TYPE, essence), "{}", text);
        let parsed = MediaType::parse(&format!("{valid};{parameter}")).unwrap();
        prop_assert_eq!(parsed.as_str(), valid.as_str());
        prop_assert_eq!(parsed.to_string().parse::<MediaType>().unwrap(), parsed);
    }

    #[test]
    fn digests_read_back_as_text_json_and_key(digest in any_digest(), near in "sha(256|512):[0-9a-fA-F]{60,66}") {
        prop_assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        prop_assert_eq!(Digest::from_key(&digest.to_key()).unwrap(), digest);
        let json = serde_json::to_string(&digest).unwrap();
        prop_assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        prop_assert_eq!(near.parse::<Digest>().is_ok(), matches("sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}", &near));
    }

    #[test]
    fn digests_sort_as_their_keys_do(one in any_digest(), two in any_digest()) {
        prop_assert_eq!(one.cmp(&two), one.to_key().cmp(&two.to_key()));
    }

    #[test]
    fn a_hasher_resumed_anywhere_any_number_of_times_gives_the_digest_of_the_whole(
        chunks in vec(vec(any::<u8>(), 0..300), 0..8),
        sha512 in any::<bool>(),
    ) {
        let algorithm = if sha512 { Algorithm::Sha512 } else { Algorithm::Sha256 };
        let mut hasher = Hasher::new(algorithm);
        for chunk in &chunks {
            hasher = Hasher::resume(&hasher.state()).unwrap();
            hasher.update(chunk);
        }
        prop_assert_eq!(hasher.finish(), Digest::of(algorithm, &chunks.concat()));
    }

    #[test]
    fn a_state_that_is_accepted_can_be_used(mut state in vec(any::<u8>(), 209..=209), sha512 in any::<bool>()) {
        state[0] = if sha512 { 2 } else { 1 };
        // Most random states have an impossible position or tail; make them likely to pass.
        let end = if sha512 { 1 + 64 + 16 } else { 1 + 32 + 8 };
        state[end..].fill(0);
        state[end - 2..end].fill(0);
        if sha512 { state[1 + 64 + 6..end].fill(0); }
        state.truncate(if sha512 { 209 } else { 105 });
        let mut hasher = Hasher::resume(&state).unwrap();
        hasher.update(&[7; 1000]);
        hasher.finish();
    }

    #[test]
    fn a_resolved_range_is_not_empty_and_within(first in any::<u64>(), other in any::<u64>(), size in any::<u64>()) {
        let (low, high) = (first.min(other), first.max(other));
        for range in [ByteRange::FromTo(low, high), ByteRange::From(first), ByteRange::Last(first)] {
            let header = format!("bytes={range}");
            prop_assert_eq!(parse_ranges(&header).unwrap(), [range]);
            if let Some(resolved) = range.resolve(size) {
                prop_assert!(resolved.start < resolved.end && resolved.end <= size);
            }
        }
    }

    #[test]
    fn content_ranges_read_back(start in 0..i64::MAX as u64, more in 0..i64::MAX as u64) {
        let end_inclusive = start.saturating_add(more).min(i64::MAX as u64 - 1);
        let range = ContentRange { start, end_inclusive };
        prop_assert_eq!(range.to_string().parse::<ContentRange>().unwrap(), range);
        let http = format!("bytes {range}/{}", end_inclusive + 1);
        prop_assert_eq!(http.parse::<ContentRange>().unwrap(), range);
        prop_assert_eq!(range.len(), end_inclusive - start + 1);
    }

    #[test]
    fn upload_ids_and_error_codes_read_back(raw in any::<u128>(), at in 0..ErrorCode::ALL.len()) {
        let id = UploadId(uuid::Uuid::from_u128(raw));
        prop_assert_eq!(id.to_string().parse::<UploadId>().unwrap(), id);
        let code = ErrorCode::ALL[at];
        prop_assert_eq!(code.to_string().parse::<ErrorCode>().unwrap(), code);
    }

    #[test]
    fn any_target_survives_a_link_header(target in any::<String>()) {
        let link = next_link(&target);
        prop_assert!(link.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
        let read = parse_next_link(&link).unwrap();
        prop_assert!(!read.contains(['<', '>', '"', ' ']));
        if target.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/?&=%._-".contains(&byte)) {
            prop_assert_eq!(read, target);
        }
    }
}
