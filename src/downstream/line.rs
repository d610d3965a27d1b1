//! What a request's lines may hold (RFC 9112 §3, RFC 9110 §5): the head guard asks, so that whatever hyper would refuse by itself is
//! refused by the application's table first, with its page and its `Proxy-Status`.
//!
//! Never here: what a line means. Why not let hyper answer: its 400 is bare, and cannot be told from an upstream's.

use http::Uri;

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
    split_header(line).is_some()
}

/// The name and the value, with the white space around it, of what [`is_header`].
pub(super) fn split_header(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let name = line.iter().position(|byte| !TOKEN[usize::from(*byte)])?;
    let value = line[name..].strip_prefix(b":")?;
    // Without a way out in the middle this becomes a few wide instructions.
    let bad = value.iter().fold(false, |bad, byte| bad | (*byte < b' ' && *byte != b'\t') | (*byte == 0x7f));
    (name > 0 && !bad).then(|| (&line[..name], value))
}

const TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~");
/// Bytes that are in order anywhere in a path or query.
const PLAIN: [bool; 256] = table(b"-._~%!$&'()*+,;=:@/?");

/// Letters, digits and `others`.
const fn table(others: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
}

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

    #[test]
    fn a_header_line_has_a_token_and_a_value_without_control_bytes() {
        for good in [&b"a:"[..], b"X-y_z: a\tb", b"n!#$%&'*+-.^`|~: \"()\"", b"a: \xe4\xff"] {
            assert!(is_header(good));
        }
        for bad in [
            &b""[..],
            b"a",
            b": a",
            b"a b: c",
            b"a : b",
            b"a\t: b",
            b"\xe4: b",
            b"(a): b",
            b"a: \0",
            b"a: b\rc",
            b"a: \x7f",
        ] {
            assert!(!is_header(bad), "{bad:?}");
        }
    }
}
