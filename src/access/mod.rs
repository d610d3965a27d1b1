//! Who may ask: origins, CORS, keys and tokens. Pure: headers, times and files' contents come from the caller.
//!
//! [`Origins`] says which web pages may ask at all, [`Cors`] what browsers are told about it, [`Auth`] who somebody is by the key or
//! token that comes with the request, [`Resource`] where tokens are to be had (RFC 9728). What is remembered here, verified tokens
//! and the keys of an issuer, is memory and no decision: forgetting all of it changes no answer.
//!
//! Nothing here opens a file, asks an issuer, or makes an answer: `control` fetches keys, `proxy` answers.
//!
//! Why not the `jsonwebtoken` crate: its `rust_crypto` backend brings the `rsa` crate, which is slower than `ring` by far and has an open
//! timing advisory, the other one is aws-lc; what is left of a token's verification beside the signature is what the rules are about.

mod auth;
mod cors;
mod jwks;
mod key;
mod origin;
mod resource;
#[cfg(test)]
mod testing;
mod token;

pub use auth::{Auth, Identity, Keys, Known, Refused, Tokens};
pub use cors::{Cors, CorsPreset, NamePattern};
pub use jwks::{Algorithm, Jwks, JwksError, KeySet};
pub use key::{KeyFileError, KeyRing, new_key};
pub use origin::{OriginError, OriginPattern, Origins};
pub use resource::{Resource, WELL_KNOWN};
pub use token::{TokenFault, TokenRules};
