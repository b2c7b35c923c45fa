//! Signed schema 1 manifests: a JSON document with its own JWS spliced in before the last brace.
//! Invariant: the payload, which the digest covers, is the document minus `signatures` and nothing else.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::document::{Document, SignatureBlock};
use crate::error::ManifestError;

/// As lenient as libtrust, which wrote these: with or without padding, any trailing bits.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

#[derive(serde::Deserialize)]
struct ProtectedHeader {
    /// How many bytes of the signed document belong to the payload.
    #[serde(rename = "formatLength")]
    format_length: u64,
    /// What follows them in the payload, in base64url.
    #[serde(rename = "formatTail")]
    format_tail: String,
}

/// The bytes that were signed: what the digest of a signed schema 1 manifest is computed over, and what its readers
/// believe (libtrust's `ParsePrettySignature`). The signatures themselves are not verified.
///
/// # Errors
/// When the document is no JSON object, has no signatures, has signatures that disagree on the payload, or when the
/// payload is not the document without its signatures.
pub fn schema1_payload(bytes: &[u8]) -> Result<Vec<u8>, ManifestError> {
    let document = Document::read(bytes)?;
    let signatures = document.signatures.unwrap_or_default();
    payload(bytes, &signatures)
}

pub(super) fn payload(bytes: &[u8], signatures: &[SignatureBlock]) -> Result<Vec<u8>, ManifestError> {
    let (first, others) = signatures.split_first().ok_or(ManifestError::Signature("it has no signatures"))?;
    let (length, tail) = format(first)?;
    for other in others {
        if format(other)? != (length, tail.clone()) {
            return Err(ManifestError::Signature("its signatures disagree on the payload"));
        }
    }
    let split = usize::try_from(length).ok().and_then(|length| bytes.split_at_checked(length));
    let (head, spliced) =
        split.ok_or(ManifestError::Signature("formatLength is beyond the document's end"))?;
    if tail.trim_ascii() != b"}" || !is_splice(spliced) {
        return Err(ManifestError::Signature("its payload is not the document without `signatures`"));
    }
    Ok([head, &tail].concat())
}

fn format(signature: &SignatureBlock) -> Result<(u64, Vec<u8>), ManifestError> {
    let header = decode(&signature.protected).and_then(|json| serde_json::from_slice(&json).ok());
    let Some(ProtectedHeader { format_length, format_tail }) = header else {
        return Err(ManifestError::Signature(
            "a protected header is not base64url of formatLength and formatTail",
        ));
    };
    let tail = decode(&format_tail).ok_or(ManifestError::Signature("formatTail is not base64url"))?;
    Ok((format_length, tail))
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let compact: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b'\n' | b' ')).collect();
    BASE64.decode(compact).ok()
}

/// Whether this end of a document is `,"signatures":[…]}` with any space between.
fn is_splice(spliced: &[u8]) -> bool {
    let value = [b",".as_slice(), b"\"signatures\"", b":"]
        .iter()
        .try_fold(spliced, |rest, token| rest.trim_ascii_start().strip_prefix(*token));
    let Some(value) = value else { return false };
    let mut values = serde_json::Deserializer::from_slice(value).into_iter::<serde::de::IgnoredAny>();
    let well_formed = matches!(values.next(), Some(Ok(_)));
    well_formed && value[values.byte_offset()..].trim_ascii() == b"}"
}
