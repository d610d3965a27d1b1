//! Session ids that say where their session is: sealed, self-contained, the same for every proxy that has the key.
//!
//! A table of sessions would be lost with the proxy, or would have to be shared. What the id holds is encrypted and authenticated
//! (ChaCha20-Poly1305, RFC 8439; keys derived by HKDF-SHA256, RFC 5869), so that nobody can read, forge or move it: it is bound to its pool
//! and, where there is one, to the principal that began the session.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};

/// What a session is and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The upstream's identity: a hash of its address, never the address.
    pub upstream: u64,
    /// Its id at the upstream; empty where the upstream gave none.
    pub id: Box<str>,
    /// The revision that was agreed on.
    pub version: Box<str>,
    /// The `params` of its `initialize`, as JSON text; empty where they were too long to be kept.
    pub params: Box<str>,
    /// When it began, in seconds since 1970.
    pub born: u64,
}

/// The keys: the first seals, all of them open.
pub struct Keys(Vec<LessSafeKey>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

/// How sealed ids begin, so that a log tells them from others.
const BEGINNING: &str = "tg1.";
/// Longer `params` are not kept: header values end somewhere.
const LONGEST_PARAMS: usize = 2048;
/// A sealed id is at most so long.
const LONGEST: usize = 6000;

impl Keys {
    /// Derives the keys from secrets of any length.
    ///
    /// **Panics**: never; ring takes keys of this length.
    pub fn derive<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let salt = Salt::new(HKDF_SHA256, b"tidegate mcp session id v1");
        let keys = secrets.into_iter().filter_map(|secret| {
            let mut key = [0; 32];
            salt.extract(secret).expand(&[b"seal"], HKDF_SHA256).and_then(|okm| okm.fill(&mut key)).ok()?;
            UnboundKey::new(&CHACHA20_POLY1305, &key).ok().map(LessSafeKey::new)
        });
        Keys(keys.collect())
    }

    /// The id that clients get. `bound` is what it is bound to, and `nonce` must be drawn at random for each.
    pub fn seal(&self, session: &Session, bound: &str, nonce: [u8; NONCE_LEN]) -> Option<String> {
        let key = self.0.first()?;
        let mut sealed = write(session);
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound.as_bytes()), &mut sealed)
            .ok()?;
        let mut id = String::with_capacity(BEGINNING.len() + (sealed.len() + NONCE_LEN) * 4 / 3 + 4);
        id.push_str(BEGINNING);
        URL_SAFE_NO_PAD.encode_string([&nonce[..], &sealed].concat(), &mut id);
        Some(id)
    }

    /// What an id holds; none if it was not sealed by one of these keys for `bound`.
    pub fn open(&self, id: &[u8], bound: &str) -> Option<Session> {
        let text = id.strip_prefix(BEGINNING.as_bytes()).filter(|text| text.len() <= LONGEST)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>()?;
        self.0.iter().find_map(|key| {
            let mut sealed = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let plain = key.open_in_place(nonce, Aad::from(bound.as_bytes()), &mut sealed).ok()?;
            read(plain)
        })
    }
}

fn write(session: &Session) -> Vec<u8> {
    let params = if session.params.len() > LONGEST_PARAMS { "" } else { &*session.params };
    let mut out = Vec::with_capacity(24 + session.id.len() + session.version.len() + params.len() + 16);
    out.extend(session.upstream.to_le_bytes());
    out.extend(session.born.to_le_bytes());
    for text in [&*session.id, &*session.version, params] {
        out.extend((text.len() as u16).to_le_bytes());
        out.extend(text.as_bytes());
    }
    out
}

fn read(plain: &[u8]) -> Option<Session> {
    let (upstream, rest) = plain.split_first_chunk::<8>()?;
    let (born, mut rest) = rest.split_first_chunk::<8>()?;
    let mut text = || {
        let (length, behind) = rest.split_first_chunk::<2>()?;
        let (text, behind) = behind.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        rest = behind;
        std::str::from_utf8(text).ok().map(Box::from)
    };
    let (id, version, params) = (text()?, text()?, text()?);
    Some(Session { upstream: u64::from_le_bytes(*upstream), born: u64::from_le_bytes(*born), id, version, params })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session {
            upstream: 0x1234_5678_9abc_def0,
            id: "8f14e45fceea167a5a36dedd4bea2543".into(),
            version: "2025-11-25".into(),
            params:
                r#"{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"claude","version":"1"}}"#
                    .into(),
            born: 1_795_000_000,
        }
    }

    fn keys(secrets: &[&str]) -> Keys {
        Keys::derive(secrets.iter().map(|secret| secret.as_bytes()))
    }

    #[test]
    fn what_is_sealed_opens_again_and_nothing_else_does() {
        let (one, both) = (keys(&["first"]), keys(&["second", "first"]));
        let id = one.seal(&session(), "tools", [7; 12]).unwrap();
        assert!(id.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) && id.len() < 400, "{} {id}", id.len());
        assert!(!id.contains("8f14e45f"));
        assert_eq!(one.open(id.as_bytes(), "tools"), Some(session()));
        assert_eq!(both.open(id.as_bytes(), "tools"), Some(session()), "a key that was the first still opens");
        assert_eq!(keys(&["second"]).open(id.as_bytes(), "tools"), None);
        assert_eq!(one.open(id.as_bytes(), "other"), None, "it is bound to its pool");
        for at in 0..id.len() {
            let mut forged = id.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(one.open(&forged, "tools"), None, "byte {at}");
            assert_eq!(one.open(&id.as_bytes()[..at], "tools"), None, "cut at {at}");
        }
        assert_eq!(one.open(b"8f14e45fceea167a5a36dedd4bea2543", "tools"), None);
    }

    #[test]
    fn params_that_are_too_long_are_left_out() {
        let long = Session { params: "x".repeat(LONGEST_PARAMS + 1).into(), ..session() };
        let keys = keys(&["first"]);
        let id = keys.seal(&long, "tools", [1; 12]).unwrap();
        assert_eq!(keys.open(id.as_bytes(), "tools"), Some(Session { params: "".into(), ..session() }));
    }

    #[test]
    fn without_a_key_nothing_is_sealed() {
        assert_eq!(keys(&[]).seal(&session(), "tools", [1; 12]), None);
    }
}
