//! Tests only: token services with keys of their own, genuine and forged, and tokens that say anything at all.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};

use super::keys::KeySet;
use super::refusal::Refusal;
use super::verifier::{TokenVerifier, VerifiedToken};
use super::verifying_key::libtrust_id;

pub(super) const NOW_S: i64 = 1_800_000_000;
pub(super) const NOW_US: i64 = NOW_S * 1_000_000;
pub(super) const ISSUER: &str = "omnibus-gitlab-issuer";
pub(super) const SERVICE: &str = "container_registry";

/// A key pair that signs tokens.
pub(super) struct Signer {
    pub(super) pair: KeyPair,
    pub(super) algorithm: Algorithm,
    key: EncodingKey,
}

impl Signer {
    pub(super) fn rsa() -> Self {
        let pair = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
        let key = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap();
        Self { pair, algorithm: Algorithm::RS256, key }
    }

    pub(super) fn p256() -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let key = EncodingKey::from_ec_der(pair.serialized_der());
        Self { pair, algorithm: Algorithm::ES256, key }
    }

    pub(super) fn p384() -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let key = EncodingKey::from_ec_der(pair.serialized_der());
        Self { pair, algorithm: Algorithm::ES384, key }
    }

    pub(super) fn ed25519() -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let key = EncodingKey::from_ed_der(pair.serialized_der());
        Self { pair, algorithm: Algorithm::EdDSA, key }
    }

    /// The libtrust id.
    pub(super) fn kid(&self) -> String {
        use rcgen::PublicKeyData as _;
        libtrust_id(&self.pair.subject_public_key_info())
    }

    /// Header and claims as they are given, signed.
    pub(super) fn sign(&self, header: &str, claims: &[u8]) -> String {
        self.sign_parts(&URL_SAFE_NO_PAD.encode(header), &URL_SAFE_NO_PAD.encode(claims))
    }

    /// Two parts as they are given, signed.
    pub(super) fn sign_parts(&self, header: &str, claims: &str) -> String {
        let message = format!("{header}.{claims}");
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }

    pub(super) fn token(&self, header: &Value, claims: &Value) -> String {
        self.sign(&header.to_string(), claims.to_string().as_bytes())
    }

    /// A certificate of this key by itself.
    pub(super) fn certificate(&self, is_authority: bool) -> rcgen::Certificate {
        let mut params = CertificateParams::default();
        if is_authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        }
        params.self_signed(&self.pair).unwrap()
    }

    /// A certificate of this key by an authority with the key `by`.
    pub(super) fn certificate_by(&self, by: &Signer, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut of_authority = CertificateParams::default();
        of_authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = rcgen::Issuer::new(of_authority, &by.pair);
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "token service");
        change(&mut params);
        params.signed_by(&self.pair, &issuer).unwrap().der().to_vec()
    }
}

/// Keys take a while to make, and every test may have the same.
pub(super) static GITLAB: LazyLock<Signer> = LazyLock::new(Signer::rsa);
pub(super) static MALLORY: LazyLock<Signer> = LazyLock::new(Signer::rsa);
/// An authority in the bundle.
pub(super) static AUTHORITY: LazyLock<Signer> = LazyLock::new(Signer::p256);
/// A plain certificate in the bundle.
pub(super) static PLAIN: LazyLock<Signer> = LazyLock::new(Signer::p256);

/// What GitLab's bundle is, an authority and a plain certificate beside it.
pub(super) fn bundle() -> String {
    [GITLAB.certificate(true), AUTHORITY.certificate(true), PLAIN.certificate(false)]
        .map(|certificate| certificate.pem())
        .concat()
}

pub(super) fn verifier() -> TokenVerifier {
    let keys = KeySet::default().with_bundle(bundle().as_bytes()).unwrap();
    TokenVerifier::new(keys, vec![ISSUER.to_owned()], vec![SERVICE.to_owned()], None)
}

pub(super) fn verify(token: &str) -> Result<VerifiedToken, Refusal> {
    verifier().verify(token, NOW_US).map(|token| (*token).clone())
}

pub(super) fn header() -> Value {
    json!({"typ": "JWT", "alg": "RS256", "kid": GITLAB.kid()})
}

pub(super) fn claims() -> Value {
    json!({
        "iss": ISSUER,
        "sub": "alice",
        "aud": SERVICE,
        "exp": NOW_S + 300,
        "nbf": NOW_S - 5,
        "iat": NOW_S - 5,
        "jti": "f0b1c2d3",
        "auth_type": "personal_access_token",
        "access": [{
            "type": "repository",
            "name": "group/project",
            "actions": ["pull", "push"],
            "meta": {
                "project_path": "group/project",
                "project_id": 7,
                "root_namespace_id": 3,
                "tag_deny_access_patterns": {"push": ["^v\\d+$"], "delete": []},
                "tag_immutable_patterns": ["^release-"],
            },
        }],
    })
}

/// The object with one field set, or taken away where there is no value.
pub(super) fn with(mut object: Value, field: &str, value: Option<Value>) -> Value {
    let fields = object.as_object_mut().unwrap();
    match value {
        Some(value) => fields.insert(field.to_owned(), value),
        None => fields.remove(field),
    };
    object
}

pub(super) fn x5c(chain: &[Vec<u8>], algorithm: &str) -> Value {
    let texts: Vec<String> = chain.iter().map(|der| STANDARD.encode(der)).collect();
    json!({"typ": "JWT", "alg": algorithm, "x5c": texts})
}

pub(super) fn signed(header: &Value, claims: &Value) -> String {
    GITLAB.token(header, claims)
}

pub(super) fn claim(field: &str, value: Value) -> String {
    signed(&header(), &with(claims(), field, Some(value)))
}

pub(super) fn no_claim(field: &str) -> String {
    signed(&header(), &with(claims(), field, None))
}
