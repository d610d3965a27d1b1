//! What must hold for any bytes of what only this crate sees: our own readers of what comes over the wire. Each law stands in the module
//! that it speaks of; the targets of `tests/fuzz` that see no private module find them here.

use crate::{downstream, upstream};

/// A PROXY header is read in one way, and nothing behind it.
pub fn proxy_header(bytes: &[u8]) {
    downstream::laws::proxy_header(bytes);
}

/// What the fast lane takes hyper reads alike, and of what the head guard lets pass hyper sees the same requests.
pub fn request_head(bytes: &[u8]) {
    downstream::laws::plain(bytes);
    downstream::laws::guard(bytes);
}

/// Chunked bodies, of requests and of answers, end where hyper's do, wherever they are cut.
pub fn chunked(bytes: &[u8]) {
    downstream::laws::chunked(bytes);
    upstream::laws::decode(bytes);
}

/// What our client takes for an answer hyper's reads alike.
pub fn response(bytes: &[u8]) {
    upstream::laws::response(bytes);
}

#[cfg(test)]
#[path = "../tests/fuzz/changes.rs"]
mod changes;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_headers() {
        changes::survives("proxy_header", proxy_header, 4_000);
    }

    #[test]
    fn request_heads() {
        changes::survives("request_head", request_head, 2_000);
    }

    #[test]
    fn chunked_bodies() {
        changes::survives("chunked", chunked, 1_500);
    }

    #[test]
    fn responses() {
        changes::survives("response", response, 2_000);
    }
}
