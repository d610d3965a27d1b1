use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use tokio::sync::{Notify, watch};

macro_rules! algorithms {
    ($($word:literal $name:ident $doc:literal;)*) => {
        /// How a token is signed. Only signatures by a key pair: a shared secret would have to be kept here, and `none` is none.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Algorithm { $(#[doc = $doc] $name,)* }

        impl Algorithm {
            /// Their words (RFC 7518 §3.1, RFC 8037 §3.1).
            pub const WORDS: [(&'static str, Algorithm); 9] = [$(($word, Algorithm::$name),)*];
        }
    };
}

algorithms! {
    "RS256" Rs256 "RSASSA-PKCS1-v1_5 with SHA-256.";
    "RS384" Rs384 "RSASSA-PKCS1-v1_5 with SHA-384.";
    "RS512" Rs512 "RSASSA-PKCS1-v1_5 with SHA-512.";
    "PS256" Ps256 "RSASSA-PSS with SHA-256.";
    "PS384" Ps384 "RSASSA-PSS with SHA-384.";
    "PS512" Ps512 "RSASSA-PSS with SHA-512.";
    "ES256" Es256 "ECDSA on P-256 with SHA-256.";
    "ES384" Es384 "ECDSA on P-384 with SHA-384.";
    "EdDSA" EdDsa "Ed25519.";
}

impl Algorithm {
    /// The one of this word.
    pub(super) fn named(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, algorithm)| *algorithm)
    }
}

/// An issuer's public keys that tokens can be verified with.
///
/// **Source**: RFC 7517. Keys of other kinds, for encryption or of curves that nobody asks for, are left out.
#[derive(Debug, PartialEq, Eq)]
pub struct KeySet {
    keys: Vec<Key>,
}

#[derive(Debug, PartialEq, Eq)]
struct Key {
    id: Option<String>,
    /// The only algorithm it is meant for, where it says so.
    only: Option<Algorithm>,
    material: Material,
}

#[derive(Debug, PartialEq, Eq)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// Why an answer or a file is no set of keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// It is something else.
    #[error("it is no JSON Web Key Set ({0}); expected {{\"keys\": […]}}")]
    Form(String),
    /// Nothing of it helps.
    #[error(
        "it holds no public key that tokens can be verified with: expected RSA from 2048 bits, P-256, P-384 or Ed25519"
    )]
    NoKeys,
}

#[derive(Deserialize)]
struct WrittenSet {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Written {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// More keys than any issuer has; a token without `kid` may have to be tried with each.
const MOST_KEYS: usize = 64;

impl KeySet {
    /// Reads a JSON Web Key Set.
    pub fn parse(bytes: &[u8]) -> Result<Self, JwksError> {
        let set: WrittenSet = serde_json::from_slice(bytes).map_err(|error| JwksError::Form(error.to_string()))?;
        let written = set.keys.into_iter().filter_map(|key| serde_json::from_value::<Written>(key).ok());
        let keys: Vec<Key> = written.filter_map(Key::of).take(MOST_KEYS).collect();
        if keys.is_empty() { Err(JwksError::NoKeys) } else { Ok(KeySet { keys }) }
    }

    /// How many keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Never: a set without keys is not made.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether one of the keys has signed this; none where no key is meant for it.
    pub(super) fn verifies(
        &self,
        algorithm: Algorithm,
        id: Option<&str>,
        text: &[u8],
        signature: &[u8],
    ) -> Option<bool> {
        let mut meant = false;
        for key in &self.keys {
            let named = id.is_none() || key.id.as_deref() == id;
            if !named {
                continue;
            }
            // A key with the token's name is the answer, also where it does not fit.
            meant = meant || id.is_some();
            if key.verifies(algorithm, text, signature) {
                return Some(true);
            }
        }
        meant.then_some(false)
    }
}

impl Key {
    fn of(written: Written) -> Option<Self> {
        let signs = written.purpose.as_deref().is_none_or(|purpose| purpose == "sig");
        let verifies = written.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|one| one == "verify"));
        if !signs || !verifies {
            return None;
        }
        let only = match &written.alg {
            None => None,
            Some(word) => Some(Algorithm::named(word)?),
        };
        let bytes = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_deref()?).ok();
        let material = match (written.kty.as_str(), written.crv.as_deref()) {
            ("RSA", _) => {
                let mut n = bytes(&written.n)?;
                let zeros = n.iter().take_while(|byte| **byte == 0).count();
                n.drain(..zeros);
                if !(256..=1024).contains(&n.len()) {
                    return None;
                }
                Material::Rsa { n, e: bytes(&written.e)? }
            }
            ("EC", Some("P-256")) => Material::P256(point(&bytes(&written.x)?, &bytes(&written.y)?, 32)?),
            ("EC", Some("P-384")) => Material::P384(point(&bytes(&written.x)?, &bytes(&written.y)?, 48)?),
            ("OKP", Some("Ed25519")) => Material::Ed25519(bytes(&written.x).filter(|x| x.len() == 32)?),
            _ => return None,
        };
        Some(Key { id: written.kid, only, material })
    }

    fn verifies(&self, algorithm: Algorithm, text: &[u8], signature: &[u8]) -> bool {
        if self.only.is_some_and(|only| only != algorithm) {
            return false;
        }
        match (&self.material, algorithm) {
            (Material::Rsa { n, e }, algorithm) => rsa(algorithm)
                .is_some_and(|parameters| RsaPublicKeyComponents { n, e }.verify(parameters, text, signature).is_ok()),
            (Material::P256(point), Algorithm::Es256) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(text, signature).is_ok()
            }
            (Material::P384(point), Algorithm::Es384) => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(text, signature).is_ok()
            }
            (Material::Ed25519(key), Algorithm::EdDsa) => {
                UnparsedPublicKey::new(&ED25519, key).verify(text, signature).is_ok()
            }
            _ => false,
        }
    }
}

/// An uncompressed point (SEC 1 §2.3.3).
fn point(x: &[u8], y: &[u8], size: usize) -> Option<Vec<u8>> {
    (x.len() == size && y.len() == size).then(|| [&[4], x, y].concat())
}

fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &RSA_PSS_2048_8192_SHA512,
        Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa => return None,
    })
}

/// The keys of one issuer as they are known now, shared by all who verify with them.
///
/// **Cost**: looking is one `ArcSwap` load.
#[derive(Debug)]
pub struct Jwks {
    current: ArcSwapOption<Keyed>,
    /// Whether somebody fetches them anew.
    remote: bool,
    fetching: AtomicBool,
    /// When a token's unknown key last made us ask, in seconds since the epoch; 0 for never.
    asked: AtomicU64,
    /// How often fetching has ended, well or not.
    done: watch::Sender<u64>,
    wanted: Notify,
}

/// A set of keys, and the number of it.
#[derive(Debug)]
pub(super) struct Keyed {
    pub(super) set: KeySet,
    /// One more with each set that differs from the one before.
    pub(super) version: u64,
}

/// Unknown keys make us ask no more often than this: anybody can invent one.
const ASK_AGAIN: u64 = 30;
/// A request waits no longer than this for keys.
const PATIENCE: Duration = Duration::from_secs(5);

impl Jwks {
    /// Keys that are known and stay.
    pub fn fixed(set: KeySet) -> Arc<Self> {
        let jwks = Self::empty(false);
        jwks.replace(set);
        Arc::new(jwks)
    }

    /// Keys that somebody is going to fetch.
    pub fn remote() -> Arc<Self> {
        Arc::new(Self::empty(true))
    }

    fn empty(remote: bool) -> Self {
        Jwks {
            current: ArcSwapOption::empty(),
            remote,
            fetching: AtomicBool::new(remote),
            asked: AtomicU64::new(0),
            done: watch::Sender::new(0),
            wanted: Notify::new(),
        }
    }

    pub(super) fn current(&self) -> arc_swap::Guard<Option<Arc<Keyed>>> {
        self.current.load()
    }

    /// The number of the keys that are known now; 0 while there are none.
    pub(super) fn version(&self) -> u64 {
        self.current.load().as_ref().map_or(0, |keyed| keyed.version)
    }

    /// Whether there have ever been keys.
    pub fn is_known(&self) -> bool {
        self.current.load().is_some()
    }

    /// These are the keys from now on; says whether that changes anything.
    pub fn replace(&self, set: KeySet) -> bool {
        let before = self.current.load();
        if before.as_ref().is_some_and(|keyed| keyed.set == set) {
            return false;
        }
        let version = before.as_ref().map_or(1, |keyed| keyed.version + 1);
        self.current.store(Some(Arc::new(Keyed { set, version })));
        true
    }

    /// Fetching begins; for the one who fetches.
    pub fn begins(&self) {
        self.fetching.store(true, Ordering::Release);
    }

    /// Fetching has ended, well or not; for the one who fetches.
    pub fn ended(&self) {
        self.fetching.store(false, Ordering::Release);
        self.done.send_modify(|done| *done += 1);
    }

    /// Ready when somebody wants the keys fetched before their time; for the one who fetches.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Has the keys fetched anew because there is none that a token names, and waits for that: 5 s at most.
    ///
    /// All who ask while they are fetched wait for the same answer. Says whether it is worth looking again: not where that has
    /// been done within the last 30 s. `version` is that of the keys that were looked at, `now` in seconds since the epoch.
    pub(super) async fn renewed(&self, version: u64, now: u64) -> bool {
        if !self.remote {
            return false;
        }
        // Before anything is looked at, so that no end is missed.
        let mut done = self.done.subscribe();
        if self.version() != version {
            return true;
        }
        if !self.fetching.load(Ordering::Acquire) && !self.claim(now) {
            // Somebody else's answer may have come just now.
            return self.version() != version;
        }
        tokio::time::timeout(PATIENCE, done.changed()).await.is_ok()
    }

    /// Whether the keys may be asked for because of an unknown one; then they are.
    fn claim(&self, now: u64) -> bool {
        let last = self.asked.load(Ordering::Acquire);
        if last != 0 && now < last.saturating_add(ASK_AGAIN) {
            return false;
        }
        if self.asked.compare_exchange(last, now.max(1), Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.fetching.store(true, Ordering::Release);
            self.wanted.notify_one();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Signer;
    use super::*;

    #[test]
    fn keys_that_cannot_verify_are_left_out() {
        let good = Signer::ed25519("a").jwk();
        let mut encryption = good.clone();
        encryption["use"] = "enc".into();
        let mut other = good.clone();
        other["alg"] = "HS256".into();
        let secret = serde_json::json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "s" });
        let short = serde_json::json!({ "kty": "RSA", "n": URL_SAFE_NO_PAD.encode([7; 128]), "e": "AQAB" });
        let all = serde_json::json!({ "keys": [good, encryption, other, secret, short, 7, {}] });
        assert_eq!(KeySet::parse(all.to_string().as_bytes()).unwrap().len(), 1);
        let none = serde_json::json!({ "keys": [secret] });
        assert_eq!(KeySet::parse(none.to_string().as_bytes()), Err(JwksError::NoKeys));
        assert!(matches!(KeySet::parse(b"<html>"), Err(JwksError::Form(_))));
        assert!(matches!(KeySet::parse(b"{}"), Err(JwksError::Form(_))));
    }

    #[tokio::test]
    async fn unknown_keys_ask_once_in_thirty_seconds_and_everybody_waits_for_the_same_answer() {
        let jwks = Jwks::remote();
        jwks.ended();
        let waiting = [1000, 1000, 1029].map(|now| {
            let jwks = jwks.clone();
            tokio::spawn(async move { jwks.renewed(0, now).await })
        });
        jwks.wanted().await;
        jwks.begins();
        while jwks.done.receiver_count() < 3 {
            tokio::task::yield_now().await;
        }
        jwks.ended();
        for one in waiting {
            assert!(one.await.unwrap());
        }
        assert!(!jwks.renewed(0, 1029).await);
        let second = tokio::spawn({
            let jwks = jwks.clone();
            async move { jwks.renewed(0, 1030).await }
        });
        jwks.wanted().await;
        jwks.ended();
        assert!(second.await.unwrap());
        assert!(!Jwks::fixed(Signer::ed25519("a").set()).renewed(1, 5000).await);
        jwks.replace(Signer::ed25519("a").set());
        assert!(jwks.renewed(0, 1031).await);
        assert!(!jwks.renewed(1, 1031).await);
    }

    #[test]
    fn the_same_keys_again_are_no_news() {
        let signer = Signer::ed25519("a");
        let jwks = Jwks::remote();
        assert!(!jwks.is_known());
        assert!(jwks.replace(signer.set()));
        assert!(!jwks.replace(signer.set()));
        assert!(jwks.replace(Signer::ed25519("b").set()));
    }
}
