use std::sync::Arc;

use dashmap::DashMap;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::jwks::Keyed;
use super::token::{TokenFault, TokenRules, verify};
use super::{Jwks, KeyRing};

/// Who somebody is, as a key or a token has shown.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    /// The key's name, or the token's claim: not empty, at most 256 bytes, without control characters.
    pub principal: Arc<str>,
    /// What the key or token is good for.
    pub scopes: Vec<Box<str>>,
}

/// What a route asks of those who come.
#[derive(Debug, Default)]
pub struct Auth {
    /// Who may come by key.
    pub keys: Option<Keys>,
    /// Who may come by token.
    pub tokens: Option<Tokens>,
    /// What keys and tokens must be good for.
    pub scopes: Vec<String>,
}

/// Keys of a file.
#[derive(Debug)]
pub struct Keys {
    /// Whose they are.
    pub ring: KeyRing,
    /// The header that they may come in, besides `Authorization: Bearer`.
    pub header: Option<HeaderName>,
}

/// An issuer's tokens.
///
/// **Bounds**: 10,000 verified tokens are remembered until they end, or until the issuer's keys change.
/// **Cost**: a remembered token costs a SHA-256 and a lookup, about 1 µs; any other one its signature.
#[derive(Debug)]
pub struct Tokens {
    jwks: Arc<Jwks>,
    rules: TokenRules,
    scopes: Vec<String>,
    seen: DashMap<[u8; SHA256_OUTPUT_LEN], Seen>,
}

#[derive(Debug)]
struct Seen {
    identity: Arc<Identity>,
    until: u64,
    /// The set of keys that it was verified with.
    version: u64,
}

/// Verified tokens remembered at once.
const MOST_SEEN: usize = 10_000;

/// Somebody who may come in.
#[derive(Debug, Clone)]
pub struct Known {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// The header that showed it.
    pub by: HeaderName,
    /// Whether it was a key, which is between its owner and us.
    pub is_key: bool,
}

/// Why somebody may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Neither a key nor a token came.
    Missing,
    /// A key that nobody has.
    WrongKey,
    /// A token that is not good.
    BadToken(TokenFault),
    /// Good, but not for this.
    Scope {
        /// Whether it was a key.
        is_key: bool,
    },
    /// The issuer's keys have never been there, so that nobody can say.
    NoKeys,
}

impl Tokens {
    /// Tokens that one of `jwks` has signed, good for all of `scopes`.
    pub fn new(jwks: Arc<Jwks>, rules: TokenRules, scopes: Vec<String>) -> Self {
        Tokens { jwks, rules, scopes, seen: DashMap::new() }
    }

    fn identity(&self, token: &str, now: u64) -> Result<Arc<Identity>, Refused> {
        let current = self.jwks.current();
        let keyed = current.as_ref().ok_or(Refused::NoKeys)?;
        let mut hash = [0; SHA256_OUTPUT_LEN];
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        if let Some(seen) = self.seen.get(&hash)
            && seen.version == keyed.version
            && now < seen.until
        {
            return Ok(seen.identity.clone());
        }
        let verified = verify(token, &keyed.set, &self.rules, now).map_err(Refused::BadToken)?;
        let identity = Arc::new(verified.identity);
        self.remember(
            hash,
            Seen { identity: identity.clone(), until: verified.until, version: keyed.version },
            keyed,
            now,
        );
        Ok(identity)
    }

    fn remember(&self, hash: [u8; SHA256_OUTPUT_LEN], seen: Seen, keyed: &Keyed, now: u64) {
        if self.seen.len() >= MOST_SEEN {
            self.seen.retain(|_, seen| now < seen.until && seen.version == keyed.version);
            if self.seen.len() >= MOST_SEEN {
                self.seen.clear();
            }
        }
        self.seen.insert(hash, seen);
    }
}

impl Auth {
    /// Who this is. Where a token's key is not known the issuer is asked, so this may take up to 5 s.
    ///
    /// `now` in seconds since the epoch.
    pub async fn identify(&self, headers: &HeaderMap, now: u64) -> Result<Known, Refused> {
        let version = self.tokens.as_ref().map_or(0, |tokens| tokens.jwks.version());
        let found = self.look(headers, now);
        let Err(Refused::NoKeys | Refused::BadToken(TokenFault::UnknownKey)) = found else { return found };
        match &self.tokens {
            Some(tokens) if tokens.jwks.renewed(version, now).await => self.look(headers, now),
            _ => found,
        }
    }

    fn look(&self, headers: &HeaderMap, now: u64) -> Result<Known, Refused> {
        if let Some(keys) = &self.keys
            && let Some(name) = &keys.header
            && let Some(key) = headers.get(name)
        {
            let identity = keys.ring.find(key.as_bytes()).ok_or(Refused::WrongKey)?;
            return self.scoped(Known { identity: identity.clone(), by: name.clone(), is_key: true });
        }
        let credential = bearer(headers)?;
        let key = self.keys.as_ref().and_then(|keys| keys.ring.find(credential.as_bytes()));
        if let Some(identity) = key {
            return self.scoped(Known { identity: identity.clone(), by: AUTHORIZATION, is_key: true });
        }
        match &self.tokens {
            // No key of ours has a dot, and every token has two.
            Some(tokens) if self.keys.is_none() || credential.contains('.') => {
                let identity = tokens.identity(credential, now)?;
                self.scoped(Known { identity, by: AUTHORIZATION, is_key: false })
            }
            _ => Err(Refused::WrongKey),
        }
    }

    fn scoped(&self, known: Known) -> Result<Known, Refused> {
        let has = |scope: &&str| known.identity.scopes.iter().any(|held| **held == **scope);
        let lacks = self.wanted(known.is_key).any(|scope| !has(&scope));
        if lacks { Err(Refused::Scope { is_key: known.is_key }) } else { Ok(known) }
    }

    /// The scopes that a key or a token must have.
    fn wanted(&self, is_key: bool) -> impl Iterator<Item = &str> {
        let of_tokens = self.tokens.iter().filter(move |_| !is_key).flat_map(|tokens| &tokens.scopes);
        self.scopes.iter().chain(of_tokens).map(String::as_str)
    }

    /// What `WWW-Authenticate` says to somebody who may not come in; `metadata` is where the resource is described.
    ///
    /// **Source**: RFC 6750 §3, RFC 9728 §5.1.
    pub fn challenge(&self, refused: Refused, metadata: Option<&str>) -> String {
        let mut parts = Vec::new();
        let mut say = |name: &str, value: &str| parts.push(format!("{name}=\"{value}\""));
        match refused {
            Refused::BadToken(fault) => {
                say("error", "invalid_token");
                say("error_description", &fault.to_string());
            }
            Refused::WrongKey => {
                say("error", "invalid_token");
                say("error_description", "the key is not known");
            }
            Refused::Scope { .. } => say("error", "insufficient_scope"),
            Refused::Missing | Refused::NoKeys => {}
        }
        let is_key = matches!(refused, Refused::Scope { is_key: true });
        let scopes: Vec<&str> = self.wanted(is_key).collect();
        if !scopes.is_empty() {
            say("scope", &scopes.join(" "));
        }
        if let Some(metadata) = metadata {
            say("resource_metadata", metadata);
        }
        if parts.is_empty() { "Bearer".to_owned() } else { format!("Bearer {}", parts.join(", ")) }
    }
}

/// What comes as `Authorization: Bearer …`; once, because of two nobody knows which is meant.
fn bearer(headers: &HeaderMap) -> Result<&str, Refused> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let line = lines.next().ok_or(Refused::Missing)?;
    if lines.next().is_some() {
        return Err(Refused::BadToken(TokenFault::Malformed));
    }
    let line = line.to_str().map_err(|_| Refused::BadToken(TokenFault::Malformed))?;
    let (scheme, credential) = line.split_once(' ').unwrap_or((line, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refused::Missing);
    }
    let credential = credential.trim();
    if credential.is_empty() { Err(Refused::Missing) } else { Ok(credential) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{NOW, Signer, claims, rules};
    use super::super::{KeySet, new_key};
    use super::*;

    fn with(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    fn keys(lines: &str) -> Keys {
        Keys { ring: KeyRing::parse(lines).unwrap(), header: Some("x-api-key".parse().unwrap()) }
    }

    #[test]
    fn a_key_may_come_in_either_header() {
        let (key, line) = new_key("alice", &["read".to_owned()]).unwrap();
        let auth = Auth { keys: Some(keys(&line)), ..Auth::default() };
        let known = auth.look(&with("x-api-key", &key), NOW).unwrap();
        assert_eq!((&*known.identity.principal, known.by.as_str(), known.is_key), ("alice", "x-api-key", true));
        let known = auth.look(&with("authorization", &format!("bearer  {key}")), NOW).unwrap();
        assert_eq!(known.by, AUTHORIZATION);
        for (headers, why) in [
            (HeaderMap::new(), Refused::Missing),
            (with("authorization", "Basic YTpi"), Refused::Missing),
            (with("authorization", "Bearer"), Refused::Missing),
            (with("authorization", "Bearer wrong"), Refused::WrongKey),
            (with("authorization", &format!("Bearer {line}")), Refused::WrongKey),
            (with("x-api-key", ""), Refused::WrongKey),
        ] {
            assert_eq!(auth.look(&headers, NOW).unwrap_err(), why, "{headers:?}");
        }
        let mut twice = with("authorization", &format!("Bearer {key}"));
        twice.append(AUTHORIZATION, "Bearer other".parse().unwrap());
        assert_eq!(auth.look(&twice, NOW).unwrap_err(), Refused::BadToken(TokenFault::Malformed));
    }

    #[test]
    fn keys_and_tokens_go_together_and_scopes_are_asked_of_both() {
        let signer = Signer::ed25519("k1");
        let (key, line) = new_key("bob", &["read".to_owned()]).unwrap();
        let tokens = Tokens::new(Jwks::fixed(signer.set()), rules(), vec!["write".to_owned()]);
        let auth = Auth { keys: Some(keys(&line)), tokens: Some(tokens), scopes: vec!["read".to_owned()] };
        let bearer = |text: &str| with("authorization", &format!("Bearer {text}"));
        assert_eq!(&*auth.look(&bearer(&key), NOW).unwrap().identity.principal, "bob");
        let alice = auth.look(&bearer(&signer.sign(&claims())), NOW).unwrap();
        assert!(&*alice.identity.principal == "alice" && !alice.is_key);
        let mut less = claims();
        less["scope"] = json!("read writer");
        let refused = auth.look(&bearer(&signer.sign(&less)), NOW).unwrap_err();
        assert_eq!(refused, Refused::Scope { is_key: false });
        assert_eq!(
            auth.challenge(refused, Some("https://mcp.test/.well-known/oauth-protected-resource/mcp")),
            "Bearer error=\"insufficient_scope\", scope=\"read write\", resource_metadata=\"https://mcp.test/.well-known/oauth-protected-resource/mcp\""
        );
        assert_eq!(auth.look(&bearer("nonsense"), NOW).unwrap_err(), Refused::WrongKey);
        assert_eq!(auth.challenge(Refused::Missing, None), "Bearer scope=\"read write\"");
    }

    #[test]
    fn a_remembered_token_ends_and_goes_with_its_key() {
        let signer = Signer::ed25519("k1");
        let jwks = Jwks::fixed(signer.set());
        let tokens = Tokens::new(jwks.clone(), rules(), Vec::new());
        let token = signer.sign(&claims());
        let first = tokens.identity(&token, NOW).unwrap();
        assert!(Arc::ptr_eq(&first, &tokens.identity(&token, NOW + 359).unwrap()));
        assert_eq!(tokens.identity(&token, NOW + 360), Err(Refused::BadToken(TokenFault::Expired)));
        jwks.replace(Signer::ed25519("k2").set());
        assert_eq!(tokens.identity(&token, NOW), Err(Refused::BadToken(TokenFault::UnknownKey)));
    }

    #[test]
    fn no_more_tokens_are_remembered_than_there_is_room_for() {
        let signer = Signer::ed25519("k1");
        let tokens = Tokens::new(Jwks::fixed(signer.set()), rules(), Vec::new());
        let current = tokens.jwks.current();
        let keyed = current.as_ref().unwrap();
        let identity = Arc::new(Identity { principal: "a".into(), scopes: Vec::new() });
        for number in 0..2 * MOST_SEEN as u64 + 5 {
            let mut hash = [0; SHA256_OUTPUT_LEN];
            hash[..8].copy_from_slice(&number.to_le_bytes());
            let until = if number.is_multiple_of(2) { NOW } else { NOW + 1 };
            tokens.remember(hash, Seen { identity: identity.clone(), until, version: 1 }, keyed, NOW);
            assert!(tokens.seen.len() <= MOST_SEEN);
        }
        assert!(!tokens.seen.is_empty());
    }

    #[tokio::test]
    async fn without_the_issuer_s_keys_nobody_is_let_in() {
        let jwks = Jwks::remote();
        jwks.ended();
        let signer = Signer::ed25519("k1");
        let auth = Auth { tokens: Some(Tokens::new(jwks.clone(), rules(), Vec::new())), ..Auth::default() };
        let headers = with("authorization", &format!("Bearer {}", signer.sign(&claims())));
        let issuer = async {
            jwks.wanted().await;
            jwks.ended();
        };
        let (found, ()) = tokio::join!(auth.identify(&headers, NOW), issuer);
        assert_eq!(found.unwrap_err(), Refused::NoKeys);
        // Asked for a moment ago: refused at once.
        assert_eq!(auth.identify(&headers, NOW + 1).await.unwrap_err(), Refused::NoKeys);
        let issuer = async {
            jwks.wanted().await;
            jwks.replace(KeySet::parse(json!({ "keys": [signer.jwk()] }).to_string().as_bytes()).unwrap());
            jwks.ended();
        };
        let (found, ()) = tokio::join!(auth.identify(&headers, NOW + 30), issuer);
        assert_eq!(&*found.unwrap().identity.principal, "alice");
    }
}
