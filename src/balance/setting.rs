use std::fmt;
use std::str::FromStr;

/// How the next upstream is chosen.
///
/// **Text**: the words of [`Algorithm::WORDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// In turn, by weight where weights differ.
    RoundRobin,
    /// Smooth weighted round robin.
    Weighted,
    /// The fewest requests in flight per weight.
    LeastConnections,
    /// The lowest peak-EWMA latency × requests in flight, per weight.
    Ewma,
    /// The better of two drawn at random.
    Random,
    /// A consistent-hash ring with bounded load.
    Hash,
    /// The first in order that has room.
    First,
}

/// What a consistent hash is computed over.
///
/// **Text**: `client`, `uri`, `path`, `header:NAME`, `cookie:NAME`, `query:NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HashKey {
    /// The client's address.
    Client,
    /// Path and query.
    Uri,
    /// The path.
    Path,
    /// A request header.
    Header(http::HeaderName),
    /// A cookie.
    Cookie(String),
    /// A query parameter.
    Query(String),
}

/// Why a setting could not be read; its text says what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub struct SettingError {
    /// What a right value looks like.
    pub expected: &'static str,
}

const ALGORITHM: SettingError = SettingError {
    expected: "\"round_robin\", \"weighted\", \"least_connections\", \"ewma\", \"random\", \"hash\" or \"first\"",
};
const HASH_KEY: SettingError =
    SettingError { expected: "\"client\", \"uri\", \"path\", \"header:NAME\", \"cookie:NAME\" or \"query:NAME\"" };
const HEADER: SettingError = SettingError { expected: "a header name after \"header:\", such as \"header:x-api-key\"" };
const COOKIE: SettingError = SettingError { expected: "a cookie name after \"cookie:\", such as \"cookie:session\"" };
const QUERY: SettingError =
    SettingError { expected: "a query parameter's name after \"query:\", such as \"query:user\"" };

impl Algorithm {
    /// Every algorithm with its word, in the order people are told of them.
    pub const WORDS: [(&'static str, Algorithm); 7] = [
        ("round_robin", Algorithm::RoundRobin),
        ("weighted", Algorithm::Weighted),
        ("least_connections", Algorithm::LeastConnections),
        ("ewma", Algorithm::Ewma),
        ("random", Algorithm::Random),
        ("hash", Algorithm::Hash),
        ("first", Algorithm::First),
    ];

    /// Its word in the configuration.
    pub const fn word(self) -> &'static str {
        // In the order of declaration, which the tests hold to.
        Self::WORDS[self as usize].0
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Algorithm {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        Self::WORDS.iter().find(|(word, _)| *word == text).map(|(_, algorithm)| *algorithm).ok_or(ALGORITHM)
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HashKey::Client => f.write_str("client"),
            HashKey::Uri => f.write_str("uri"),
            HashKey::Path => f.write_str("path"),
            HashKey::Header(name) => write!(f, "header:{name}"),
            HashKey::Cookie(name) => write!(f, "cookie:{name}"),
            HashKey::Query(name) => write!(f, "query:{name}"),
        }
    }
}

impl FromStr for HashKey {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let (kind, name) = match text.split_once(':') {
            Some((kind, name)) => (kind, Some(name)),
            None => (text, None),
        };
        match (kind, name) {
            ("client", None) => Ok(HashKey::Client),
            ("uri", None) => Ok(HashKey::Uri),
            ("path", None) => Ok(HashKey::Path),
            ("header", name) => name.and_then(|name| name.parse().ok()).map(HashKey::Header).ok_or(HEADER),
            ("cookie", name) => {
                name.filter(|name| is_token(name)).map(|name| HashKey::Cookie(name.into())).ok_or(COOKIE)
            }
            ("query", name) => {
                name.filter(|name| !name.is_empty()).map(|name| HashKey::Query(name.into())).ok_or(QUERY)
            }
            _ => Err(HASH_KEY),
        }
    }
}

/// A token of RFC 9110 §5.6.2, which is what RFC 6265 §4.1.1 lets a cookie be called.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_reads_back_from_its_word() {
        for (word, algorithm) in Algorithm::WORDS {
            assert_eq!(algorithm.to_string(), word);
            assert_eq!(word.parse(), Ok(algorithm));
            assert!(ALGORITHM.expected.contains(word));
        }
        assert_eq!("ROUND_ROBIN".parse::<Algorithm>(), Err(ALGORITHM));
    }

    #[test]
    fn every_hash_key_reads_back_from_its_text() {
        for text in ["client", "uri", "path", "header:x-api-key", "cookie:JSESSIONID", "query:user id"] {
            assert_eq!(text.parse::<HashKey>().unwrap().to_string(), text);
        }
        assert_eq!("header:X-Api-Key".parse::<HashKey>().unwrap().to_string(), "header:x-api-key");
    }

    #[test]
    fn a_wrong_hash_key_says_which_part_is_missing() {
        for (text, error) in [
            ("", HASH_KEY),
            ("url", HASH_KEY),
            ("client:x", HASH_KEY),
            ("header", HEADER),
            ("header:", HEADER),
            ("header:a b", HEADER),
            ("cookie:", COOKIE),
            ("cookie:a=b", COOKIE),
            ("query", QUERY),
            ("query:", QUERY),
        ] {
            assert_eq!(text.parse::<HashKey>(), Err(error), "{text}");
        }
    }
}
