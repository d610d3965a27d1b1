//! What a request's lines may hold (RFC 9112 §3, RFC 9110 §5): the head guard asks, so that whatever hyper would refuse by itself is
//! refused by the application's table first, with its page and its `Proxy-Status`.
//!
//! Never here: what a line means. Why not let hyper answer: its 400 is bare, and cannot be told from an upstream's.

use http::Uri;

use crate::types::lines::{TOKEN, split_field, table};

/// Whether it is `method SP target SP version`, each as hyper takes it.
///
/// **Cost**: one look at each byte; a target of unusual bytes is parsed.
pub(super) fn is_request(line: &[u8]) -> bool {
    let Some(method) = line.iter().position(|byte| !TOKEN[usize::from(*byte)]) else { return false };
    let Some(rest) = line[method..].strip_prefix(b" ") else { return false };
    let Some(target) = rest.strip_suffix(b" HTTP/1.1").or_else(|| rest.strip_suffix(b" HTTP/1.0")) else {
        return false;
    };
    method > 0 && is_target(target)
}

fn is_target(target: &[u8]) -> bool {
    // What is unusual is put to hyper's own judge: a second opinion that differs would help nobody.
    is_plain_target(target) || target.iter().all(|byte| *byte > b' ' && *byte != 0x7f) && Uri::try_from(target).is_ok()
}

/// Whether it is a path with or without a query (origin-form), of bytes that nobody reads in two ways.
pub(super) fn is_plain_target(target: &[u8]) -> bool {
    target.first() == Some(&b'/') && target.iter().all(|byte| PLAIN[usize::from(*byte)])
}

/// Whether it is `name:value`: a token, and no control bytes but tabs.
///
/// **Cost**: about a nanosecond for each byte of the name, a quarter of that for the value's.
pub(super) fn is_header(line: &[u8]) -> bool {
    split_field(line).is_some()
}

/// Bytes that are in order anywhere in a path or query.
const PLAIN: [bool; 256] = table(b"-._~%!$&'()*+,;=:@/?");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_line_has_three_parts() {
        for good in [
            "GET / HTTP/1.1",
            "M-SEARCH * HTTP/1.0",
            "GET http://a/x?y HTTP/1.1",
            "CONNECT a:443 HTTP/1.1",
            "GET /a{b}\"?<c> HTTP/1.1",
            "GET /?q=[1]|2 HTTP/1.1",
        ] {
            let target = good.split(' ').nth(1).unwrap();
            assert_eq!(is_request(good.as_bytes()), Uri::try_from(target).is_ok(), "{good}");
        }
        assert!(is_request(b"GET /plain?a=b&c=%20 HTTP/1.1"));
        for bad in [
            "",
            "GET",
            "GET /",
            "GET  / HTTP/1.1",
            "GET / x HTTP/1.1",
            "GET / HTTP/1.1 ",
            "GET\t/ HTTP/1.1",
            "GET / HTTP/2.0",
            "GET / http/1.1",
            "G(T / HTTP/1.1",
            " GET / HTTP/1.1",
            "GET /\0 HTTP/1.1",
            "GET /\x7f HTTP/1.1",
            "GET  HTTP/1.1",
        ] {
            assert!(!is_request(bad.as_bytes()), "{bad:?}");
        }
    }
}
