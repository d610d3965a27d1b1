//! Issuers for tests: keys of every kind, and what they sign.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};

use super::{Algorithm, KeySet, TokenRules};

/// When tests take place.
pub(super) const NOW: u64 = 1_780_000_000;

/// An issuer's key.
pub(super) struct Signer {
    id: String,
    key: Private,
}

enum Private {
    Rsa(RsaKeyPair, &'static str),
    Ec(EcdsaKeyPair, &'static str, &'static str),
    Ed(Ed25519KeyPair),
}

impl Signer {
    pub(super) fn ed25519(id: &str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pair.serialized_der()).unwrap();
        Signer { id: id.to_owned(), key: Private::Ed(key) }
    }

    fn ec(
        id: &str,
        made: &'static rcgen::SignatureAlgorithm,
        signs: &'static EcdsaSigningAlgorithm,
        words: [&'static str; 2],
    ) -> Self {
        let pair = KeyPair::generate_for(made).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(signs, pair.serialized_der(), &SystemRandom::new()).unwrap();
        Signer { id: id.to_owned(), key: Private::Ec(key, words[0], words[1]) }
    }

    fn rsa(id: &str, algorithm: &'static str) -> Self {
        let key = RsaKeyPair::from_pkcs8(include_bytes!("testing/rsa.pk8")).unwrap();
        Signer { id: id.to_owned(), key: Private::Rsa(key, algorithm) }
    }

    pub(super) fn all(id: &str) -> Vec<Self> {
        vec![
            Self::rsa(id, "RS256"),
            Self::rsa(id, "PS256"),
            Self::ec(id, &PKCS_ECDSA_P256_SHA256, &ECDSA_P256_SHA256_FIXED_SIGNING, ["ES256", "P-256"]),
            Self::ec(id, &PKCS_ECDSA_P384_SHA384, &ECDSA_P384_SHA384_FIXED_SIGNING, ["ES384", "P-384"]),
            Self::ed25519(id),
        ]
    }

    pub(super) fn algorithm(&self) -> &'static str {
        match &self.key {
            Private::Rsa(_, algorithm) | Private::Ec(_, algorithm, _) => algorithm,
            Private::Ed(_) => "EdDSA",
        }
    }

    /// The public key.
    pub(super) fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match &self.key {
            Private::Rsa(key, algorithm) => {
                let public = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(key.public_key());
                json!({ "kty": "RSA", "kid": self.id, "use": "sig", "alg": algorithm, "n": text(&public.n), "e": text(&public.e) })
            }
            Private::Ec(key, _, curve) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(key.public_key().as_ref().len() / 2);
                json!({ "kty": "EC", "kid": self.id, "crv": curve, "x": text(x), "y": text(y) })
            }
            Private::Ed(key) => {
                json!({ "kty": "OKP", "kid": self.id, "crv": "Ed25519", "x": text(key.public_key().as_ref()) })
            }
        }
    }

    pub(super) fn set(&self) -> KeySet {
        KeySet::parse(json!({ "keys": [self.jwk()] }).to_string().as_bytes()).unwrap()
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        self.sign_with(json!({ "alg": self.algorithm(), "kid": self.id, "typ": "JWT" }), claims)
    }

    pub(super) fn sign_with(&self, header: Value, claims: &Value) -> String {
        let text = unsigned(header, claims);
        let text = text.trim_end_matches('.');
        let signature = match &self.key {
            Private::Rsa(key, algorithm) => {
                let mut signature = vec![0; key.public().modulus_len()];
                let random = SystemRandom::new();
                match *algorithm {
                    "RS256" => key.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature).unwrap(),
                    _ => key.sign(&RSA_PSS_SHA256, &random, text.as_bytes(), &mut signature).unwrap(),
                }
                signature
            }
            Private::Ec(key, ..) => key.sign(&SystemRandom::new(), text.as_bytes()).unwrap().as_ref().to_vec(),
            Private::Ed(key) => key.sign(text.as_bytes()).as_ref().to_vec(),
        };
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A token without a signature.
pub(super) fn unsigned(header: Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(&header), part(claims))
}

/// What a good token says.
pub(super) fn claims() -> Value {
    json!({ "iss": "https://login.test", "aud": "https://mcp.test/mcp", "sub": "alice", "exp": NOW + 300, "scope": "read write" })
}

/// What takes it.
pub(super) fn rules() -> TokenRules {
    TokenRules {
        issuer: "https://login.test".to_owned(),
        audience: vec!["https://mcp.test/mcp".to_owned()],
        algorithms: Algorithm::WORDS.iter().map(|(_, algorithm)| *algorithm).collect(),
        leeway: 60,
        claim: "sub".to_owned(),
    }
}
