//! An issuer of tokens: keys, what they sign, and where they are published.
#![allow(unreachable_pub)] // As in `support`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A key that signs.
pub struct Signer {
    id: String,
    pair: Ed25519KeyPair,
}

impl Signer {
    pub fn new(id: &str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pair.serialized_der()).unwrap();
        Signer { id: id.to_owned(), pair }
    }

    pub fn sign(&self, claims: &Value) -> String {
        let text = format!("{}.{}", encoded(&json!({ "alg": "EdDSA", "kid": self.id })), encoded(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(text.as_bytes()));
        format!("{text}.{signature}")
    }

    fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key());
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": self.id, "use": "sig", "x": x })
    }
}

pub fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A JSON Web Key Set.
pub fn set(signers: &[&Signer]) -> String {
    json!({ "keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>() }).to_string()
}

/// So many seconds from now, in seconds since the epoch.
pub fn in_seconds(seconds: i64) -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 + seconds
}

/// Publishes keys.
pub struct Issuer {
    address: SocketAddr,
    keys: Arc<Mutex<String>>,
    instead: Arc<Mutex<Option<String>>>,
    asked: Arc<AtomicU64>,
}

impl Issuer {
    pub async fn start(signers: &[&Signer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let keys = Arc::new(Mutex::new(set(signers)));
        let issuer = Issuer { address, keys, instead: Arc::default(), asked: Arc::default() };
        let (keys, instead, asked) = (issuer.keys.clone(), issuer.instead.clone(), issuer.asked.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.is_ok_and(|read| read > 0)
                {
                }
                assert!(request.starts_with(b"GET /jwks.json HTTP/1.1\r\n"));
                let keys = keys.lock().unwrap().clone();
                let whole = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{keys}", keys.len());
                let answer = instead.lock().unwrap().clone().unwrap_or(whole);
                asked.fetch_add(1, Ordering::Relaxed);
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        issuer
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it publishes these.
    pub fn has(&self, signers: &[&Signer]) {
        *self.keys.lock().unwrap() = set(signers);
    }

    /// From now on it answers this instead of its keys.
    pub fn answers(&self, instead: Option<&str>) {
        *self.instead.lock().unwrap() = instead.map(str::to_owned);
    }

    /// How often its keys were asked for.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}
