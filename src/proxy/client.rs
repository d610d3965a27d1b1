//! Who the client is, and what upstreams are told about it.
//!
//! A peer in `trusted_proxies` is believed about the address it speaks for; from anybody else such headers are thrown away, so that
//! nobody can spoof an address that limits, routes or upstreams go by.

use std::net::IpAddr;

use bytes::BytesMut;
use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use super::Refusal;
use crate::config::model::{Forwarded, RequestId};

/// `X-Forwarded-For`.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
/// `X-Request-Id`.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Whether `address` is in one of the networks; IPv4-mapped addresses count as IPv4.
pub fn trusted(networks: &[IpNet], address: IpAddr) -> bool {
    !networks.is_empty() && networks.iter().any(|network| network.contains(&address.to_canonical()))
}

/// The address that a trusted peer speaks for: the rightmost one in its forwarding headers that is not itself trusted.
///
/// **Source**: RFC 7239 §7.4; the walk from the right is NGINX's `real_ip_recursive on`.
/// **Bounds**: stops at the first entry that is not an address; what is left of it could have been written by anybody.
pub fn address(peer: IpAddr, networks: &[IpNet], headers: &HeaderMap, style: Forwarded) -> IpAddr {
    let mut client = peer.to_canonical();
    if !trusted(networks, client) {
        return client;
    }
    let rfc7239 = style == Forwarded::Rfc7239 || !headers.contains_key(X_FORWARDED_FOR);
    let name = if rfc7239 { header::FORWARDED } else { X_FORWARDED_FOR };
    for line in headers.get_all(name).iter().rev() {
        let Ok(line) = line.to_str() else { return client };
        for entry in line.rsplit(',') {
            let hop = if rfc7239 { forwarded_for(entry) } else { hop_address(entry.trim()) };
            let Some(hop) = hop else { return client };
            client = hop.to_canonical();
            if !trusted(networks, client) {
                return client;
            }
        }
    }
    client
}

/// The `for` parameter of one `Forwarded` element.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for").then(|| hop_address(value.trim().trim_matches('"')))?
    })
}

/// `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]`, `[::1]:80`.
fn hop_address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Some(address.ip());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6)
}

/// What is told about one connection's client, rendered once for each connection.
#[derive(Debug)]
pub struct Introduction {
    /// The peer's address.
    pub address: HeaderValue,
    /// `http` or `https`.
    pub scheme: HeaderValue,
    /// Whether the peer may introduce others.
    pub trusted: bool,
}

impl Introduction {
    /// For a peer.
    pub fn new(peer: IpAddr, https: bool, networks: &[IpNet]) -> Self {
        let peer = peer.to_canonical();
        let address = HeaderValue::from_str(&peer.to_string()).unwrap_or(HeaderValue::from_static("unknown"));
        let scheme = HeaderValue::from_static(if https { "https" } else { "http" });
        Introduction { address, scheme, trusted: trusted(networks, peer) }
    }
}

/// Sets the headers by which upstreams know the client.
///
/// From a trusted peer what is there is kept and added to; from anybody else it is replaced.
/// **Cost**: four header insertions without allocation of text in the usual case.
pub fn introduce(headers: &mut HeaderMap, style: Forwarded, who: &Introduction, client: IpAddr, host: &HeaderValue) {
    if !who.trusted {
        for name in [X_FORWARDED_PORT, header::FORWARDED] {
            headers.remove(name);
        }
    }
    if matches!(style, Forwarded::XForwarded | Forwarded::Both) {
        if who.trusted {
            append(headers, X_FORWARDED_FOR, &who.address);
            keep_or_set(headers, X_FORWARDED_PROTO, &who.scheme);
            keep_or_set(headers, X_FORWARDED_HOST, host);
            if let Ok(client) = HeaderValue::from_str(&client.to_string()) {
                headers.insert(X_REAL_IP, client);
            }
        } else {
            headers.insert(X_FORWARDED_FOR, who.address.clone());
            headers.insert(X_FORWARDED_PROTO, who.scheme.clone());
            headers.insert(X_FORWARDED_HOST, host.clone());
            headers.insert(X_REAL_IP, who.address.clone());
        }
    } else if !who.trusted {
        for name in [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST, X_REAL_IP] {
            headers.remove(name);
        }
    }
    if matches!(style, Forwarded::Rfc7239 | Forwarded::Both) {
        let element = element(who, host);
        append(headers, header::FORWARDED, &element);
    }
}

/// One element of `Forwarded`, RFC 7239 §4.
fn element(who: &Introduction, host: &HeaderValue) -> HeaderValue {
    let address = who.address.to_str().unwrap_or("unknown");
    let node = if address.contains(':') { format!("\"[{address}]\"") } else { address.to_owned() };
    let scheme = who.scheme.to_str().unwrap_or("http");
    let text = match host.to_str() {
        Ok(host) if !host.is_empty() => format!("for={node};host=\"{host}\";proto={scheme}"),
        _ => format!("for={node};proto={scheme}"),
    };
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("for=unknown"))
}

fn keep_or_set(headers: &mut HeaderMap, name: HeaderName, value: &HeaderValue) {
    if let Entry::Vacant(vacant) = headers.entry(name) {
        vacant.insert(value.clone());
    }
}

/// Adds an element to a list header, in one line.
fn append(headers: &mut HeaderMap, name: HeaderName, value: &HeaderValue) {
    let before: Vec<&[u8]> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
    if before.is_empty() {
        headers.insert(name, value.clone());
        return;
    }
    let mut joined = before.join(&b", "[..]);
    joined.extend_from_slice(b", ");
    joined.extend_from_slice(value.as_bytes());
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(name, joined);
    }
}

/// How often a request may pass a Tidegate. A pool that leads back to its own listener would else go round until something breaks.
const MOST_PASSES: usize = 10;

/// Adds ourselves to `Via` (RFC 9110 §7.6.3); `received` is the version of the message as it came.
///
/// **Errors**: [`Refusal::Loop`] for a request that has passed a Tidegate ten times.
pub fn via(headers: &mut HeaderMap, received: http::Version) -> Result<(), Refusal> {
    let lines = headers.get_all(header::VIA).iter();
    let hops = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    if hops.filter(|hop| hop.trim_ascii().ends_with(b" tidegate")).count() >= MOST_PASSES {
        return Err(Refusal::Loop);
    }
    let own = match received {
        http::Version::HTTP_2 => HeaderValue::from_static("2 tidegate"),
        http::Version::HTTP_10 => HeaderValue::from_static("1.0 tidegate"),
        _ => HeaderValue::from_static("1.1 tidegate"),
    };
    append(headers, header::VIA, &own);
    Ok(())
}

/// Keeps or makes the request's id, and returns it.
///
/// **Shape**: 32 hexadecimal digits from `random`, or what the client sent: up to 128 visible characters, else it is replaced.
/// **Cost**: `scratch` is split, so that an allocation serves a hundred ids.
pub fn request_id<'h>(
    headers: &'h mut HeaderMap,
    policy: RequestId,
    random: u128,
    scratch: &mut BytesMut,
) -> Option<&'h HeaderValue> {
    let clean =
        |given: &HeaderValue| (1..=128).contains(&given.len()) && given.as_bytes().iter().all(u8::is_ascii_graphic);
    let keep = match policy {
        RequestId::Off => true,
        RequestId::Pass => headers.get(X_REQUEST_ID).is_some_and(clean),
        RequestId::Always => false,
    };
    if !keep {
        scratch.reserve(if scratch.capacity() < 32 { 4096 } else { 32 });
        // Not `extend` from an iterator: it goes byte by byte, at 2,700 instructions for an id (measured).
        let digits: [u8; 32] = std::array::from_fn(|place| b"0123456789abcdef"[(random >> (4 * place)) as usize & 15]);
        scratch.extend_from_slice(&digits);
        headers.insert(X_REQUEST_ID, HeaderValue::from_maybe_shared(scratch.split().freeze()).ok()?);
    }
    headers.get(X_REQUEST_ID)
}

/// Who the client says it is: the name in `Authorization: Basic` (RFC 7617), as it says and unverified.
pub fn user(headers: &HeaderMap) -> Option<String> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = base64(token.trim().trim_end_matches('=').as_bytes())?;
    let name = decoded.split(|byte| *byte == b':').next()?;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// RFC 4648 §4, without its padding.
fn base64(digits: &[u8]) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut held) = (Vec::with_capacity(digits.len()), 0u32, 0);
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_who_basic_authorization_names() {
        let user = |value: &str| user(&headers(&[("authorization", value)]));
        assert_eq!(user("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==").as_deref(), Some("Aladdin"));
        assert_eq!(user("basic Og").as_deref(), Some(""));
        for none in ["Bearer QWxhZGRpbg", "Basic", "Basic ***", ""] {
            assert_eq!(user(none), None, "{none}");
        }
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    fn client(peer: &str, trusted: &[&str], lines: &[(&'static str, &str)]) -> String {
        let networks: Vec<IpNet> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        address(peer.parse().unwrap(), &networks, &headers(lines), Forwarded::XForwarded).to_string()
    }

    #[test]
    fn nobody_untrusted_can_claim_an_address() {
        assert_eq!(client("203.0.113.9", &[], &[("x-forwarded-for", "1.2.3.4")]), "203.0.113.9");
        assert_eq!(client("203.0.113.9", &["10.0.0.0/8"], &[("x-forwarded-for", "1.2.3.4")]), "203.0.113.9");
    }

    #[test]
    fn a_trusted_peer_is_believed_up_to_the_first_untrusted_hop() {
        let trusted = ["10.0.0.0/8"];
        assert_eq!(client("10.0.0.1", &trusted, &[("x-forwarded-for", "6.6.6.6, 1.2.3.4, 10.0.0.2")]), "1.2.3.4");
        assert_eq!(
            client("10.0.0.1", &trusted, &[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "1.2.3.4")]),
            "1.2.3.4"
        );
        assert_eq!(client("10.0.0.1", &trusted, &[("x-forwarded-for", "1.2.3.4, junk, 10.0.0.2")]), "10.0.0.2");
        assert_eq!(
            client("::ffff:10.0.0.1", &trusted, &[("forwarded", "for=\"[2001:db8::1]:4711\";proto=https")]),
            "2001:db8::1"
        );
        assert_eq!(client("10.0.0.1", &trusted, &[]), "10.0.0.1");
    }

    #[test]
    fn an_untrusted_clients_forwarding_headers_are_replaced_and_a_trusted_ones_are_kept() {
        let host = HeaderValue::from_static("a.example");
        let spoofed = [
            ("x-forwarded-for", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
            ("x-real-ip", "6.6.6.6"),
            ("x-forwarded-proto", "https"),
        ];
        let mut map = headers(&spoofed);
        let peer: IpAddr = "203.0.113.9".parse().unwrap();
        introduce(&mut map, Forwarded::XForwarded, &Introduction::new(peer, false, &[]), peer, &host);
        assert_eq!(map["x-forwarded-for"], "203.0.113.9");
        assert_eq!(map["x-real-ip"], "203.0.113.9");
        assert_eq!(map["x-forwarded-proto"], "http");
        assert!(!map.contains_key("forwarded"));

        let mut map = headers(&[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https")]);
        let networks = ["10.0.0.0/8".parse().unwrap()];
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        introduce(
            &mut map,
            Forwarded::Both,
            &Introduction::new(peer, false, &networks),
            "1.2.3.4".parse().unwrap(),
            &host,
        );
        assert_eq!(map["x-forwarded-for"], "1.2.3.4, 10.0.0.1");
        assert_eq!(map["x-forwarded-proto"], "https");
        assert_eq!(map["x-real-ip"], "1.2.3.4");
        assert_eq!(map["forwarded"], "for=10.0.0.1;host=\"a.example\";proto=http");

        let mut map = headers(&spoofed);
        let peer: IpAddr = "203.0.113.9".parse().unwrap();
        introduce(&mut map, Forwarded::Off, &Introduction::new(peer, false, &[]), peer, &host);
        assert!(map.is_empty());
    }

    #[test]
    fn a_request_that_goes_round_is_stopped() {
        let mut map = headers(&[("via", "1.0 fred, 1.1 p.example")]);
        let passes = (0..20).take_while(|_| via(&mut map, http::Version::HTTP_11).is_ok()).count();
        assert_eq!(passes, MOST_PASSES);
    }

    #[test]
    fn request_ids_are_kept_only_if_they_are_clean() {
        let mut scratch = BytesMut::new();
        let mut map = headers(&[("x-request-id", "abc-1")]);
        assert_eq!(request_id(&mut map, RequestId::Pass, 7, &mut scratch).unwrap(), "abc-1");
        assert_eq!(
            request_id(&mut map, RequestId::Always, 7, &mut scratch).unwrap(),
            "70000000000000000000000000000000"
        );
        let mut map = headers(&[("x-request-id", "with space")]);
        assert_eq!(request_id(&mut map, RequestId::Pass, 0, &mut scratch).unwrap().len(), 32);
    }
}
