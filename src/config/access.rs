//! Who may ask: a route's part of the model.

use std::path::PathBuf;
use std::time::Duration;

use super::section::section;
use crate::access::Algorithm;
pub use crate::access::{CorsPreset, NamePattern, OriginPattern};

section! {
    /// What browsers are told about pages of other origins. Preflights are answered without an upstream, and what upstreams say about it is replaced.
    pub struct CorsSettings ("route.cors", short preset) {
        /// `"mcp"`: what browser clients of MCP servers need. What else is named here is added to it.
        preset: Option<CorsPreset> = None,
        /// Which pages may read answers; the route's `origins` unless given, and without these any page.
        origins: Vec<OriginPattern> = vec![],
        /// Methods that pages may use; `GET`, `HEAD` and `POST` where neither this nor a preset says.
        methods: Vec<String> = vec![],
        /// Request headers that pages may send: names, and with `*` at their end beginnings of names.
        headers: Vec<NamePattern> = vec![],
        /// Answer headers that pages may read.
        expose: Vec<String> = vec![],
        /// Whether pages may send cookies and client certificates along. Wants `origins` that are named.
        credentials: bool = false,
        /// How long browsers remember what a preflight has told; by the preset, else up to the browser.
        max_age: Option<Duration> = None,
    }
}

section! {
    /// Who may come in: by a key of a file, by a token of an issuer, or by either.
    pub struct AuthSettings ("route.auth") {
        /// A file with a line for each key, `NAME SHA256HEX [scope,scope]`; `tidegate key NAME` makes keys and lines. Changes take effect at once.
        keys: Option<PathBuf> = None,
        /// A header that keys may come in, besides `Authorization: Bearer`.
        header: Option<String> = None,
        /// Tokens (JWT) of an issuer.
        jwt: Option<JwtSettings> = None,
        /// Scopes that keys and tokens must all have.
        scopes: Vec<String> = vec![],
        /// Whether the key or token goes on to upstreams; tokens do and keys do not, unless given.
        forward: Option<bool> = None,
        /// A header that tells upstreams who it is (the key's name, the token's claim); what clients send in it is taken out.
        principal_header: Option<String> = None,
    }
}

section! {
    /// Tokens of an issuer: JWTs, signed with one of its published keys.
    pub struct JwtSettings ("route.auth.jwt") {
        /// The issuer's keys: the URL of its JSON Web Key Set, or a file that holds one.
        jwks: JwksPlace,
        /// What `iss` must be.
        issuer: String,
        /// What `aud` must be, or hold: one of these.
        audience: Vec<String>,
        /// How tokens may be signed.
        algorithms: Vec<Algorithm> = vec![Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa],
        /// How much clocks may differ.
        leeway: Duration [..=Duration::from_secs(3600)] = Duration::from_secs(60),
        /// Scopes that tokens must all have, besides those that `auth` asks of everybody.
        scopes: Vec<String> = vec![],
        /// The claim that says who somebody is.
        claim: String = "sub".to_owned(),
        /// How often the keys are fetched anew; an unknown key fetches them too, at most every 30 s.
        refresh: Duration [Duration::from_secs(1)..] = Duration::from_secs(600),
    }
}

section! {
    /// What clients are told that look for a token: the document at `/.well-known/oauth-protected-resource` (RFC 9728), which is then ours.
    pub struct ResourceSettings ("route.resource") {
        /// The resource as the world knows it, such as `"https://mcp.example.com/mcp"`; made of the request's scheme and host and the route's path unless given.
        url: Option<String> = None,
        /// Who issues tokens for it.
        authorization_servers: Vec<String> = vec![],
        /// The scopes that there are.
        scopes: Vec<String> = vec![],
        /// Where people can read about it.
        documentation: Option<String> = None,
    }
}

/// Where an issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwksPlace {
    /// They are fetched from here.
    Url(String),
    /// They are in this file.
    File(PathBuf),
}
