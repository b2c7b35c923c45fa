//! Manifests of every kind, read as registries and clients read them; hazards A1 and A2 on the parser's side.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use twinport_oci::{
    Algorithm, Descriptor, Digest, ErrorCode, MAX_DESCRIPTORS, MAX_FIELDS, MAX_JSON_DEPTH,
    MAX_MANIFEST_BYTES, Manifest, ManifestError, ManifestKind, MediaType, canonical_digest, schema1_payload,
};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn descriptor(media_type: &str, content: &str) -> Value {
    json!({"mediaType": media_type, "digest": Digest::sha256(content.as_bytes()), "size": content.len()})
}

fn image() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OCI_IMAGE_MANIFEST,
        "config": descriptor(CONFIG, "config"),
        "layers": [descriptor(LAYER, "one"), descriptor(LAYER, "two")],
    })
}

fn index() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OCI_IMAGE_INDEX,
        "manifests": [descriptor(MediaType::OCI_IMAGE_MANIFEST.as_str(), "child")],
    })
}

fn with(mut document: Value, field: &str, value: Value) -> Value {
    document[field] = value;
    document
}

fn without(mut document: Value, field: &str) -> Value {
    document.as_object_mut().expect("a document is an object").remove(field);
    document
}

fn parse(document: &Value, content_type: Option<&MediaType>) -> Result<Manifest, ManifestError> {
    Manifest::parse(document.to_string().as_bytes(), content_type)
}

fn contents<'a>(descriptors: impl Iterator<Item = &'a Descriptor>) -> Vec<Digest> {
    descriptors.map(|descriptor| descriptor.digest).collect()
}

#[test]
fn an_image_names_its_config_and_layers() {
    let manifest = parse(&image(), Some(&MediaType::OCI_IMAGE_MANIFEST)).unwrap();
    assert_eq!(
        (manifest.kind, &manifest.media_type),
        (ManifestKind::OciImage, &MediaType::OCI_IMAGE_MANIFEST)
    );
    let expected = [b"config".as_slice(), b"one", b"two"].map(Digest::sha256);
    assert_eq!(contents(manifest.blobs()), expected);
    assert_eq!(manifest.layers[0].size, 3);
    assert_eq!(manifest.children().count(), 0);
    assert_eq!(manifest.artifact_type.as_deref(), Some(CONFIG));
}

#[test]
fn an_index_names_its_children_and_their_platforms() {
    let mut document = index();
    document["manifests"][0]["platform"] = json!({"architecture": "arm64", "os": "linux", "variant": "v8", "os.features": ["x"], "new": {"a": [1]}});
    document["manifests"][0]["artifactType"] = json!("application/x");
    let manifest = parse(&document, None).unwrap();
    assert_eq!(manifest.kind, ManifestKind::OciIndex);
    assert_eq!(contents(manifest.children()), [Digest::sha256(b"child")]);
    assert_eq!(manifest.blobs().count(), 0);
    assert_eq!(manifest.artifact_type, None, "an index has no config to take a type from");
    let child = &manifest.manifests[0];
    let platform = child.platform.as_ref().unwrap();
    assert_eq!((platform.architecture.as_str(), platform.variant.as_str()), ("arm64", "v8"));
    assert_eq!(child.artifact_type.as_deref(), Some("application/x"));
    let json = serde_json::to_value(child).unwrap();
    assert_eq!(
        json["platform"],
        json!({"architecture": "arm64", "os": "linux", "variant": "v8", "os.features": ["x"]})
    );
    assert_eq!(serde_json::from_value::<Descriptor>(json).unwrap(), *child);
}

#[test]
fn docker_manifests_are_read_and_must_say_their_type() {
    let image = with(image(), "mediaType", json!(MediaType::DOCKER_MANIFEST));
    let list = with(index(), "mediaType", json!(MediaType::DOCKER_MANIFEST_LIST));
    for (document, media_type, kind) in [
        (image, MediaType::DOCKER_MANIFEST, ManifestKind::DockerImage),
        (list, MediaType::DOCKER_MANIFEST_LIST, ManifestKind::DockerList),
    ] {
        assert_eq!(parse(&document, Some(&media_type)).unwrap().kind, kind);
        assert_eq!(parse(&document, None).unwrap().kind, kind);
        let silent = without(document, "mediaType");
        assert!(matches!(
            parse(&silent, Some(&media_type)),
            Err(ManifestError::Missing { field: "mediaType", .. })
        ));
    }
}

#[test]
fn a_type_that_nobody_states_is_told_by_the_shape() {
    let image = without(image(), "mediaType");
    let index = without(index(), "mediaType");
    for content_type in [None, Some(&MediaType::JSON)] {
        assert_eq!(parse(&image, content_type).unwrap().media_type, MediaType::OCI_IMAGE_MANIFEST);
        assert_eq!(parse(&index, content_type).unwrap().media_type, MediaType::OCI_IMAGE_INDEX);
        for shapeless in [json!({}), json!({"layers": []}), json!({"schemaVersion": 2}), json!({"blobs": []})]
        {
            assert_eq!(parse(&shapeless, content_type), Err(ManifestError::UnknownShape));
        }
    }
}

#[test]
fn unknown_media_types_pass_with_the_kind_of_their_shape() {
    let unknown = MediaType::parse("application/vnd.example.thing.v3+json").unwrap();
    for (document, kind) in [
        (without(image(), "mediaType"), ManifestKind::OciImage),
        (without(index(), "mediaType"), ManifestKind::OciIndex),
        (json!({"schemaVersion": 7, "anything": [1]}), ManifestKind::Unknown),
        (json!({"mediaType": unknown, "blobs": "its own idea of it"}), ManifestKind::Unknown),
    ] {
        let document =
            with(document, "subject", descriptor(MediaType::OCI_IMAGE_MANIFEST.as_str(), "subject"));
        if kind == ManifestKind::Unknown && document["blobs"].is_string() {
            assert!(parse(&document, Some(&unknown)).is_err(), "a field with a meaning keeps its type");
            continue;
        }
        let manifest = parse(&document, Some(&unknown)).unwrap();
        assert_eq!((manifest.kind, &manifest.media_type), (kind, &unknown));
        assert_eq!(manifest.subject.unwrap().digest, Digest::sha256(b"subject"));
    }
    for no_manifest in
        ["text/plain", "application/x-www-form-urlencoded", "application/octet-stream", LAYER, CONFIG]
    {
        let no_manifest = MediaType::parse(no_manifest).unwrap();
        let refused = parse(&without(image(), "mediaType"), Some(&no_manifest));
        assert!(matches!(refused, Err(ManifestError::NotAManifest { .. })), "{no_manifest}");
    }
}

#[test]
fn a_referrer_has_a_subject_and_an_effective_type() {
    let subject = descriptor(MediaType::OCI_IMAGE_MANIFEST.as_str(), "subject");
    let mut referrer = with(image(), "subject", subject);
    referrer["annotations"] = json!({"org.example.key": "value"});
    let manifest = parse(&referrer, None).unwrap();
    assert_eq!(manifest.subject.unwrap().digest, Digest::sha256(b"subject"));
    assert_eq!(manifest.annotations["org.example.key"], "value");
    assert_eq!(manifest.artifact_type.as_deref(), Some(CONFIG));
    let named = with(referrer.clone(), "artifactType", json!("application/vnd.example.sbom"));
    assert_eq!(parse(&named, None).unwrap().artifact_type.as_deref(), Some("application/vnd.example.sbom"));
    let empty = with(referrer, "artifactType", json!(""));
    assert_eq!(parse(&empty, None).unwrap().artifact_type.as_deref(), Some(CONFIG));
}

#[test]
fn absent_null_and_empty_optional_fields_mean_the_same() {
    let plain = parse(&image(), None).unwrap();
    let mut nulls = image();
    for field in ["subject", "annotations", "artifactType"] {
        nulls[field] = Value::Null;
    }
    for field in ["urls", "annotations", "platform", "data", "artifactType"] {
        nulls["config"][field] = Value::Null;
    }
    assert_eq!(parse(&nulls, None).unwrap(), plain);
    for empty in [json!([]), Value::Null] {
        assert_eq!(parse(&with(image(), "layers", empty.clone()), None).unwrap().layers, []);
        assert_eq!(parse(&with(index(), "manifests", empty), None).unwrap().manifests, []);
    }
    assert_eq!(parse(&without(image(), "layers"), None).unwrap().layers, []);
    assert!(parse(&with(image(), "config", Value::Null), None).is_err());
    assert!(parse(&without(image(), "config"), None).is_err());
    assert!(parse(&without(index(), "manifests"), None).is_err());
}

#[test]
fn a_buildkit_cache_index_lists_blobs_among_its_manifests() {
    let cache = with(
        index(),
        "manifests",
        json!([
            descriptor(LAYER, "layer"),
            descriptor(MediaType::BUILDKIT_CACHE_CONFIG.as_str(), "cache"),
            descriptor("application/vnd.example.unknown", "unknown"),
            {"digest": Digest::sha256(b"untyped"), "size": 7},
        ]),
    );
    let manifest = parse(&cache, Some(&MediaType::OCI_IMAGE_INDEX)).unwrap();
    assert_eq!(contents(manifest.blobs()), [b"layer".as_slice(), b"cache"].map(Digest::sha256));
    assert_eq!(contents(manifest.children()), [b"unknown".as_slice(), b"untyped"].map(Digest::sha256));
    assert_eq!(manifest.manifests.len(), 4);
}

#[test]
fn foreign_layers_need_no_bytes() {
    let mut document = image();
    document["layers"] = json!([
        descriptor(LAYER, "plain"),
        descriptor(MediaType::DOCKER_LAYER_FOREIGN_GZIP.as_str(), "docker"),
        descriptor(MediaType::OCI_LAYER_NONDISTRIBUTABLE.as_str(), "oci"),
        descriptor(LAYER, "elsewhere"),
        descriptor(LAYER, "embedded"),
    ]);
    document["layers"][3]["urls"] = json!(["https://example.com/layer"]);
    document["layers"][4]["data"] = json!("ZW1iZWRkZWQ=");
    let manifest = parse(&document, None).unwrap();
    let foreign: Vec<bool> = manifest.layers.iter().map(Descriptor::is_foreign).collect();
    assert_eq!(foreign, [false, true, true, true, false]);
    assert_eq!(manifest.layers.iter().filter(|layer| layer.has_data).count(), 1);
}

#[test]
fn the_withdrawn_artifact_manifest_names_its_blobs() {
    let document = json!({
        "mediaType": MediaType::OCI_ARTIFACT_MANIFEST,
        "artifactType": "application/vnd.example",
        "blobs": [descriptor("text/plain", "blob")],
    });
    let manifest = parse(&document, Some(&MediaType::OCI_ARTIFACT_MANIFEST)).unwrap();
    assert_eq!(manifest.kind, ManifestKind::OciArtifact);
    assert_eq!(contents(manifest.blobs()), [Digest::sha256(b"blob")]);
}

/// An unsigned schema 1 document as Docker wrote them: indented by three spaces, ending in `\n}`.
fn schema1() -> String {
    let blob = Digest::sha256(b"layer");
    format!(
        "{{\n   \"schemaVersion\": 1,\n   \"name\": \"library/hello\",\n   \"tag\": \"latest\",\n   \
         \"fsLayers\": [\n      {{\n         \"blobSum\": \"{blob}\"\n      }}\n   ],\n   \
         \"history\": [\n      {{\n         \"v1Compatibility\": \"{{}}\"\n      }}\n   ]\n}}"
    )
}

fn protected(length: usize, tail: &str) -> String {
    let tail = BASE64_URL_SAFE_NO_PAD.encode(tail);
    let header = json!({"formatLength": length, "formatTail": tail, "time": "2016-01-01T00:00:00Z"});
    BASE64_URL_SAFE_NO_PAD.encode(header.to_string())
}

/// The document with signature blocks spliced in where libtrust's PrettySignature puts them.
fn signed(payload: &str, protected: &[String]) -> String {
    let head = payload.strip_suffix("\n}").expect("a payload ends like Docker's");
    let blocks: Vec<Value> = protected
        .iter()
        .map(|p| json!({"header": {"alg": "ES256"}, "signature": "c2ln", "protected": p}))
        .collect();
    format!(
        "{head},\n   \"signatures\": {}\n}}",
        serde_json::to_string_pretty(&blocks).expect("values are JSON")
    )
}

#[test]
fn a_signed_schema_1_manifest_is_known_by_the_digest_of_its_payload() {
    let payload = schema1();
    let header = protected(payload.len() - 2, "\n}");
    let signed = signed(&payload, &[header.clone(), header]);
    for content_type in [
        None,
        Some(&MediaType::JSON),
        Some(&MediaType::DOCKER_SCHEMA1_SIGNED),
        Some(&MediaType::DOCKER_SCHEMA1),
    ] {
        let manifest = Manifest::parse(signed.as_bytes(), content_type).unwrap();
        assert_eq!(manifest.kind, ManifestKind::DockerSchema1Signed);
        assert_eq!(contents(manifest.blobs()), [Digest::sha256(b"layer")]);
        assert_eq!(manifest.layers[0].stated_size(), None);
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let digest = canonical_digest(signed.as_bytes(), &manifest, algorithm);
            assert_eq!(digest, Digest::of(algorithm, payload.as_bytes()));
        }
    }
    assert_eq!(schema1_payload(signed.as_bytes()).unwrap(), payload.as_bytes());
}

#[test]
fn an_unsigned_schema_1_manifest_is_known_by_the_digest_of_its_bytes() {
    let document = schema1();
    let manifest = Manifest::parse(document.as_bytes(), None).unwrap();
    assert_eq!(
        (manifest.kind, &manifest.media_type),
        (ManifestKind::DockerSchema1, &MediaType::DOCKER_SCHEMA1)
    );
    let digest = canonical_digest(document.as_bytes(), &manifest, Algorithm::Sha256);
    assert_eq!(digest, Digest::sha256(document.as_bytes()));
    let unsigned = Manifest::parse(document.as_bytes(), Some(&MediaType::DOCKER_SCHEMA1_SIGNED));
    assert!(unsigned.is_err(), "the signed type promises signatures");
}

#[test]
fn a2_a_signed_payload_that_differs_from_its_document_is_refused() {
    let payload = schema1();
    let cut = payload.len() - 2;
    let other_tail = format!(",\"fsLayers\":[{{\"blobSum\":\"{}\"}}]}}", Digest::sha256(b"other"));
    for headers in [
        vec![],
        vec!["not base64!".to_owned()],
        vec![BASE64_URL_SAFE_NO_PAD.encode("{}")],
        vec![BASE64_URL_SAFE_NO_PAD.encode("[".repeat(100_000))],
        vec![protected(cut, "")],
        vec![protected(cut, "\n},")],
        vec![protected(cut, &other_tail)],
        vec![protected(cut - 1, "\n}")],
        vec![protected(cut + 3, "\n}")],
        vec![protected(0, "{}")],
        vec![protected(usize::MAX, "\n}")],
        vec![protected(cut, "\n}"), protected(cut, "}")],
    ] {
        let document = signed(&payload, &headers);
        let error = Manifest::parse(document.as_bytes(), None).expect_err(&document);
        assert_eq!(error.code(), ErrorCode::ManifestUnverified, "{error}");
        assert!(schema1_payload(document.as_bytes()).is_err());
    }
    // A field after the signatures is in the document, but not in the payload.
    let header = protected(cut, "\n}");
    let document = signed(&payload, &[header]).replace("\n}", ",\n   \"extra\": 1\n}");
    assert!(Manifest::parse(document.as_bytes(), None).is_err());
    assert!(schema1_payload(schema1().as_bytes()).is_err());
}

#[test]
fn a2_a_document_with_the_fields_of_two_kinds_is_refused() {
    let child = json!([descriptor(MediaType::OCI_IMAGE_MANIFEST.as_str(), "child")]);
    let fs_layers = json!([{"blobSum": Digest::sha256(b"layer")}]);
    let unknown = MediaType::parse("application/vnd.example+json").unwrap();
    for media_type in [
        MediaType::OCI_IMAGE_MANIFEST,
        MediaType::OCI_IMAGE_INDEX,
        MediaType::OCI_ARTIFACT_MANIFEST,
        MediaType::DOCKER_MANIFEST,
        MediaType::DOCKER_MANIFEST_LIST,
        MediaType::DOCKER_SCHEMA1,
        unknown,
    ] {
        for value in [child.clone(), json!([]), Value::Null] {
            let confused = with(with(image(), "manifests", value), "mediaType", json!(media_type));
            let refused = parse(&confused, Some(&media_type));
            assert!(matches!(refused, Err(ManifestError::Confused { .. })), "{media_type}: {refused:?}");
        }
        let three = with(with(index(), "fsLayers", fs_layers.clone()), "mediaType", json!(media_type));
        assert!(
            matches!(parse(&three, Some(&media_type)), Err(ManifestError::Confused { .. })),
            "{media_type}"
        );
    }
    for (field, value) in
        [("layers", json!([])), ("config", json!({})), ("config", Value::Null), ("fsLayers", json!([]))]
    {
        let confused = with(without(index(), "mediaType"), field, value);
        assert!(parse(&confused, None).is_err(), "an index with {field}");
    }
}

#[test]
fn a2_a_media_type_other_than_the_content_type_is_refused() {
    for (document, content_type) in [
        (image(), MediaType::OCI_IMAGE_INDEX),
        (image(), MediaType::DOCKER_MANIFEST),
        (image(), MediaType::parse("application/vnd.example+json").unwrap()),
        (index(), MediaType::OCI_IMAGE_MANIFEST),
        (index(), MediaType::DOCKER_MANIFEST_LIST),
        (with(image(), "mediaType", json!("garbage")), MediaType::OCI_IMAGE_MANIFEST),
        (
            with(image(), "mediaType", json!("APPLICATION/vnd.oci.image.manifest.v1+json")),
            MediaType::OCI_IMAGE_MANIFEST,
        ),
    ] {
        let refused = parse(&document, Some(&content_type));
        assert!(
            matches!(refused, Err(ManifestError::MediaTypeMismatch { .. })),
            "{content_type}: {refused:?}"
        );
    }
    // Without the field, the shape still has to fit the header.
    assert!(parse(&without(image(), "mediaType"), Some(&MediaType::OCI_IMAGE_INDEX)).is_err());
    assert!(parse(&without(index(), "mediaType"), Some(&MediaType::OCI_IMAGE_MANIFEST)).is_err());
    assert!(parse(&image(), Some(&MediaType::DOCKER_SCHEMA1)).is_err());
    let parameters = with(image(), "mediaType", json!("application/vnd.oci.image.manifest.v1+json; a=b"));
    assert!(parse(&parameters, None).is_err());
    for version in [json!(1), json!(3), json!("2"), Value::Null, json!(2.0)] {
        assert!(parse(&with(image(), "schemaVersion", version.clone()), None).is_err(), "{version}");
    }
}

#[test]
fn a2_keys_that_only_some_readers_would_match_are_refused() {
    let layer = descriptor(LAYER, "hidden").to_string();
    for key in ["Layers", "LAYERS", "layer\u{17f}", "Config", "mediatype", "manifest\u{17f}", "blob\u{17f}"] {
        let document = image().to_string().replacen('{', &format!("{{\"{key}\":[{layer}],"), 1);
        let refused = Manifest::parse(document.as_bytes(), None);
        assert!(matches!(refused, Err(ManifestError::Json(_))), "{key}: {refused:?}");
    }
    let folded_digest = image().to_string().replacen("\"digest\"", "\"Digest\":\"sha256:0\",\"digest\"", 1);
    assert!(Manifest::parse(folded_digest.as_bytes(), None).is_err());
}

#[test]
fn a1_duplicate_keys_are_refused() {
    let image = image().to_string();
    let layer = descriptor(LAYER, "second").to_string();
    for (from, to) in [
        ("{\"config\"", format!("{{\"layers\":[{layer}],\"config\"")),
        ("{\"config\"", "{\"x\":1,\"x\":1,\"config\"".to_owned()),
        ("{\"config\"", "{\"x\":1,\"\\u0078\":2,\"config\"".to_owned()),
        ("{\"config\"", "{\"annotations\":{\"a\":\"1\",\"a\":\"2\"},\"config\"".to_owned()),
        ("\"size\":6", "\"size\":6,\"size\":6".to_owned()),
        ("\"size\":6", "\"size\":6,\"annotations\":{\"a\":\"1\",\"a\":\"2\"}".to_owned()),
        ("\"size\":6", "\"size\":6,\"platform\":{\"os\":\"a\",\"os\":\"b\"}".to_owned()),
    ] {
        let document = image.replacen(from, &to, 1);
        assert_ne!(document, image, "the test changes nothing");
        serde_json::from_str::<Value>(&document).expect("the test is of duplicates only");
        let refused = Manifest::parse(document.as_bytes(), None);
        assert!(matches!(refused, Err(ManifestError::Json(_))), "{to}: {refused:?}");
    }
}

#[test]
fn a1_a_manifest_of_4_mib_passes_and_one_byte_more_does_not() {
    let document = image().to_string();
    let mut padded = document.clone();
    padded.push_str(&" ".repeat(MAX_MANIFEST_BYTES - document.len()));
    assert!(Manifest::parse(padded.as_bytes(), None).is_ok());
    padded.push(' ');
    let error = Manifest::parse(padded.as_bytes(), None).expect_err("a manifest over the limit");
    assert_eq!(error, ManifestError::TooLarge { size: MAX_MANIFEST_BYTES + 1, limit: MAX_MANIFEST_BYTES });
    assert_eq!(error.code(), ErrorCode::SizeInvalid);
}

#[test]
fn a1_json_that_nests_too_deep_is_refused_wherever_it_hides() {
    let nested =
        |open: &str, close: &str, depth: usize| format!("{}{}", open.repeat(depth), close.repeat(depth));
    let hidden = |value: &str| image().to_string().replacen('{', &format!("{{\"custom\":{value},"), 1);
    let deepest = hidden(&nested("[", "]", MAX_JSON_DEPTH - 1));
    assert!(Manifest::parse(deepest.as_bytes(), None).is_ok());
    let brackets_in_a_string = hidden(&format!("\"\\\"{}\"", "[".repeat(10_000)));
    assert!(Manifest::parse(brackets_in_a_string.as_bytes(), None).is_ok());
    let deep = [
        hidden(&nested("[", "]", MAX_JSON_DEPTH)),
        hidden(&nested("[", "]", 10_000)),
        hidden(&nested("{\"a\":[", "]}", 10_000)).replace("[]", "[1]"),
        nested("[", "]", 10_000),
        "[".repeat(MAX_MANIFEST_BYTES),
        "{\"subject\":".repeat(100_000),
    ];
    for document in deep {
        let error = Manifest::parse(document.as_bytes(), None).expect_err("a bomb");
        assert_eq!(error, ManifestError::TooDeep { limit: MAX_JSON_DEPTH });
    }
}

#[test]
fn a1_lists_and_objects_are_bounded_in_number() {
    let layer = descriptor(LAYER, "layer");
    let many = |count: usize| vec![layer.clone(); count];
    assert!(parse(&with(image(), "layers", json!(many(MAX_DESCRIPTORS))), None).is_ok());
    for (document, field) in [(image(), "layers"), (index(), "manifests")] {
        let refused = parse(&with(document, field, json!(many(MAX_DESCRIPTORS + 1))), None);
        assert_eq!(refused, Err(ManifestError::TooManyDescriptors { limit: MAX_DESCRIPTORS }));
    }
    let mut fields = image();
    for number in 0..MAX_FIELDS {
        fields[format!("custom{number}")] = json!(1);
    }
    assert!(matches!(parse(&fields, None), Err(ManifestError::Json(_))));
}

#[test]
fn a1_wrong_types_and_impossible_values_are_refused() {
    let digest = Digest::sha256(b"x");
    let broken_descriptors = [
        json!(null),
        json!("text"),
        json!([]),
        json!({}),
        json!({"digest": digest}),
        json!({"size": 1}),
        json!({"digest": "sha256:abc", "size": 1}),
        json!({"digest": "", "size": 1}),
        json!({"digest": 5, "size": 1}),
        json!({"digest": format!("md5:{}", "0".repeat(32)), "size": 1}),
        json!({"digest": digest, "size": -1}),
        json!({"digest": digest, "size": 1.5}),
        json!({"digest": digest, "size": "1"}),
        json!({"digest": digest, "size": 9_223_372_036_854_775_808u64}),
        json!({"digest": digest, "size": 1e30}),
        json!({"digest": digest, "size": 1, "mediaType": 5}),
        json!({"digest": digest, "size": 1, "mediaType": "a\u{0}b"}),
        json!({"digest": digest, "size": 1, "mediaType": "x".repeat(256)}),
        json!({"digest": digest, "size": 1, "urls": "text"}),
        json!({"digest": digest, "size": 1, "urls": [1]}),
        json!({"digest": digest, "size": 1, "annotations": {"a": 1}}),
        json!({"digest": digest, "size": 1, "annotations": {"a": "nul \u{0}"}}),
        json!({"digest": digest, "size": 1, "platform": "linux"}),
        json!({"digest": digest, "size": 1, "data": 1}),
    ];
    for broken in broken_descriptors {
        let lists = [with(image(), "layers", json!([broken])), with(index(), "manifests", json!([broken]))];
        let mut documents = lists.to_vec();
        documents.push(with(image(), "config", broken.clone()));
        if !broken.is_null() {
            documents.push(with(image(), "subject", broken.clone()));
        }
        for document in documents {
            assert!(parse(&document, None).is_err(), "{document}");
        }
    }
    let truncated = image().to_string();
    for end in 0..truncated.len() {
        assert!(Manifest::parse(&truncated.as_bytes()[..end], None).is_err());
    }
    for bytes in [
        b"".as_slice(),
        b"null",
        b"[]",
        b"\"text\"",
        b"5",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"{\"x\":\"\xff\",\"config\":1}",
        b"{\"x\":\"\\ud800\",\"config\":1}",
        b"{} {}",
        b"{\"a\":1,}",
        b"{\"a\":NaN}",
    ] {
        assert!(Manifest::parse(bytes, None).is_err(), "{bytes:?}");
    }
    let unmatched_text = image().to_string().replacen('{', "{\"custom\":\"\u{fffd}\",", 1);
    let invalid: Vec<u8> =
        unmatched_text.into_bytes().iter().map(|b| if *b == 0xef { 0xff } else { *b }).collect();
    assert!(Manifest::parse(&invalid, None).is_err(), "a field that is skipped must be UTF-8 too");
}

#[test]
fn a1_an_error_message_stays_short_however_long_its_input() {
    let long = "x".repeat(1_000_000);
    for document in [
        with(image(), "schemaVersion", json!(long)),
        with(image(), "config", json!(long)),
        with(image(), &long, json!(1)),
        json!({"config": {"digest": long, "size": 1}}),
        with(image(), "mediaType", json!(long)),
    ] {
        if let Err(error) = parse(&document, None) {
            assert!(error.to_string().len() < 1_000, "a message of {} bytes", error.to_string().len());
        }
    }
}
