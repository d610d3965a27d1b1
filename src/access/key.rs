use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use ring::rand::{SecureRandom, SystemRandom};

use super::Identity;

type Hash = [u8; SHA256_OUTPUT_LEN];

/// The keys of a file: who may come in, known by the hashes of their keys.
///
/// **Text**: one key a line, `NAME SHA256HEX [scope,scope…]`; a `#` begins a comment line.
/// **Cost**: one SHA-256 of what was sent and one lookup, below a microsecond.
#[derive(Debug, Default)]
pub struct KeyRing {
    /// By the first half of the hash; the rest is compared in a time that tells nothing.
    keys: HashMap<[u8; 16], (Hash, Arc<Identity>)>,
}

/// Why a key file cannot be used. It never holds what is in the line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct KeyFileError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, and what to do.
    pub why: &'static str,
}

/// A longer one is no key of ours, and not worth hashing.
const LONGEST: usize = 4096;

impl KeyRing {
    /// Reads a key file.
    ///
    /// **Errors**: the first line that cannot be used.
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let mut ring = KeyRing::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why| KeyFileError { line: index + 1, why };
            let mut words = line.split_whitespace();
            let (Some(name), Some(hex), scopes, None) = (words.next(), words.next(), words.next(), words.next()) else {
                return Err(wrong("expected NAME SHA256HEX [scope,scope]; `tidegate key NAME` prints such a line"));
            };
            if name.len() > 256 || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(wrong("expected a name of visible ASCII, at most 256 characters"));
            }
            let hash = unhex(hex).ok_or(wrong(
                "expected the SHA-256 of the key as 64 hexadecimal digits, never the key itself; `tidegate key NAME` makes both",
            ))?;
            let scopes = scopes.unwrap_or_default().split(',').filter(|scope| !scope.is_empty());
            let identity = Arc::new(Identity { principal: name.into(), scopes: scopes.map(Box::from).collect() });
            let mut half = [0; 16];
            half.copy_from_slice(&hash[..16]);
            if ring.keys.insert(half, (hash, identity)).is_some() {
                return Err(wrong("this key is in the file already; each key has one line"));
            }
        }
        Ok(ring)
    }

    /// Whose key this is.
    pub fn find(&self, key: &[u8]) -> Option<&Arc<Identity>> {
        if key.is_empty() || key.len() > LONGEST {
            return None;
        }
        let hash = digest(&SHA256, key);
        let (known, identity) = self.keys.get(hash.as_ref().get(..16)?)?;
        let difference = known.iter().zip(hash.as_ref()).fold(0, |difference, (a, b)| difference | (a ^ b));
        (difference == 0).then_some(identity)
    }

    /// Whether nobody has a key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

fn unhex(text: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    if text.len() != 2 * hash.len() {
        return None;
    }
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(digit(digits[0])? << 4 | digit(digits[1])?).ok()?;
    }
    Some(hash)
}

/// A new key of 256 random bits, and the line for the key file; none where the system has no randomness to give.
pub fn new_key(name: &str, scopes: &[String]) -> Option<(String, String)> {
    let mut random = [0; 32];
    SystemRandom::new().fill(&mut random).ok()?;
    let key = format!("tg_{}", URL_SAFE_NO_PAD.encode(random));
    let hash: String = digest(&SHA256, key.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let line = if scopes.is_empty() { format!("{name} {hash}") } else { format!("{name} {hash} {}", scopes.join(",")) };
    Some((key, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    // printf secret | sha256sum
    const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    #[test]
    fn a_key_is_known_by_its_hash() {
        let ring = KeyRing::parse(&format!("# people\n\n  alice {SECRET}  read,write \n")).unwrap();
        let alice = ring.find(b"secret").unwrap();
        assert_eq!((&*alice.principal, alice.scopes.len()), ("alice", 2));
        for wrong in [&b""[..], b"Secret", b"secret ", SECRET.as_bytes(), &[b'x'; LONGEST + 1]] {
            assert!(ring.find(wrong).is_none());
        }
        assert!(KeyRing::parse("# nobody\n").unwrap().is_empty());
    }

    #[test]
    fn a_made_key_fits_its_line() {
        let (key, line) = new_key("bob", &["a".to_owned(), "b".to_owned()]).unwrap();
        let (other, _) = new_key("bob", &[]).unwrap();
        assert_ne!(key, other);
        assert!(line.starts_with("bob ") && line.ends_with(" a,b") && !line.contains(&key), "{line}");
        assert_eq!(&*KeyRing::parse(&line).unwrap().find(key.as_bytes()).unwrap().principal, "bob");
    }

    #[test]
    fn a_wrong_line_is_told_by_its_number_and_never_shown() {
        let twice = format!("a {SECRET}\nb {SECRET}");
        for (text, line) in [
            ("alice", 1),
            ("# x\nalice my-plain-key", 2),
            (&format!("alice {SECRET} a b"), 1),
            (&format!("alice {}", &SECRET[1..]), 1),
            (&format!("alice {}g", &SECRET[1..]), 1),
            (twice.as_str(), 2),
        ] {
            let error = KeyRing::parse(text).unwrap_err();
            assert_eq!(error.line, line, "{text}");
            assert!(!error.to_string().contains("my-plain-key"));
        }
    }
}
