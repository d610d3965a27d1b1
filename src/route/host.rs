//! The host that routes are matched on, from a `Host` header or an `:authority`.
//!
//! Never here: choosing between the two, or telling whether there is exactly one.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// The text is not `host` or `host:port`; answered with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the host is not a name or address with an optional port")]
pub struct HostError;

/// A request's host, as routes see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host<'a> {
    /// In lower case, without port and final dot; an IPv6 address in brackets, as RFC 5952 writes it. Empty where none is given.
    pub name: Cow<'a, str>,
    /// The port, where one is given.
    pub port: Option<u16>,
}

/// Reads `host [":" port]`.
///
/// **Bounds**: 253 bytes of name, of letters, digits, `-`, `_` and `.`. That is less than RFC 3986's `reg-name` and all that names
/// are made of; everything else (`,`, `/`, `@`, spaces, escapes) has been used to make two parties see two hosts.
/// **Cost**: allocates only for upper-case letters and for unusual IPv6 spellings.
pub fn parse(authority: &str) -> Result<Host<'_>, HostError> {
    if authority.starts_with('[') {
        return ipv6(authority);
    }
    let (name, port) = match authority.split_once(':') {
        Some((name, digits)) => (name, port(digits)?),
        None => (authority, None),
    };
    if name.is_empty() {
        // `Host:` says that the target has no authority (RFC 9112 §3.2); a port alone says nothing.
        return if authority.is_empty() { Ok(Host { name: Cow::Borrowed(""), port }) } else { Err(HostError) };
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut upper = false;
    let mut previous = b'.';
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {}
            b'A'..=b'Z' => upper = true,
            b'.' if previous != b'.' => {}
            _ => return Err(HostError),
        }
        previous = byte;
    }
    if name.len() > 253 || previous == b'.' {
        return Err(HostError);
    }
    let name = if upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) };
    Ok(Host { name, port })
}

fn ipv6(authority: &str) -> Result<Host<'_>, HostError> {
    let end = authority.find(']').ok_or(HostError)?;
    let (literal, rest) = authority.split_at(end + 1);
    let port = match rest.strip_prefix(':') {
        Some(digits) => port(digits)?,
        None if rest.is_empty() => None,
        None => return Err(HostError),
    };
    let address: Ipv6Addr = literal[1..end].parse().map_err(|_| HostError)?;
    let canonical = format!("[{address}]");
    let name = if canonical == literal { Cow::Borrowed(literal) } else { Cow::Owned(canonical) };
    Ok(Host { name, port })
}

/// RFC 3986 allows `host:` without digits.
fn port(digits: &str) -> Result<Option<u16>, HostError> {
    if digits.is_empty() {
        return Ok(None);
    }
    // `parse` takes a sign, the grammar does not.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HostError);
    }
    digits.parse().map(Some).map_err(|_| HostError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_in_one_way() {
        for (text, name, port) in [
            ("a.example.com", "a.example.com", None),
            ("A.Example.com.:8080", "a.example.com", Some(8080)),
            ("localhost:", "localhost", None),
            ("127.0.0.1:1", "127.0.0.1", Some(1)),
            ("[::1]", "[::1]", None),
            ("[0:0::1]:443", "[::1]", Some(443)),
            ("my_host", "my_host", None),
            ("", "", None),
        ] {
            let host = parse(text).unwrap();
            assert_eq!((&*host.name, host.port), (name, port), "{text}");
        }
        assert!(matches!(parse("a.example.com:80").unwrap().name, Cow::Borrowed(_)));
    }

    #[test]
    fn what_two_parties_could_read_in_two_ways_is_refused() {
        for text in [
            "a,b",
            "a/b",
            "u@a",
            "a b",
            "a:b",
            "a:+1",
            "a:99999",
            "a:1:2",
            ":80",
            ".",
            "a..b",
            ".a",
            "[::1",
            "::1",
            "[::1]x",
            "[a]",
            "a%2eb",
            "bücher.de",
            "[fe80::1%25eth0]",
            "a\0",
        ] {
            assert_eq!(parse(text), Err(HostError), "{text}");
        }
        assert_eq!(parse(&"a".repeat(254)), Err(HostError));
    }
}
