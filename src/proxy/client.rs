//! Who the client is, and what upstreams are told about it.
//!
//! A peer in `trusted_proxies` is believed about the address it speaks for; from anybody else such headers are thrown away, so that
//! nobody can spoof an address that limits, routes or upstreams go by.

use std::net::IpAddr;
use std::ops::Range;

use bytes::BytesMut;
use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use smallvec::SmallVec;

use super::Refusal;
use crate::config::model::{self, Forwarded, RequestId};
use crate::types::{Line, Lines};

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
    /// The lines that say so, but for the host.
    lines: Vec<u8>,
}

impl Introduction {
    /// For a peer.
    pub fn new(peer: IpAddr, https: bool, networks: &[IpNet]) -> Self {
        let peer = peer.to_canonical();
        let address = HeaderValue::from_str(&peer.to_string()).unwrap_or(HeaderValue::from_static("unknown"));
        let scheme = HeaderValue::from_static(if https { "https" } else { "http" });
        let mut lines = Vec::with_capacity(128);
        for (name, value) in [("x-forwarded-for", &address), ("x-forwarded-proto", &scheme), ("x-real-ip", &address)] {
            write_line(&mut lines, name, value.as_bytes());
        }
        Introduction { address, scheme, trusted: trusted(networks, peer), lines }
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

/// Whether what upstreams are told about a client can be written as lines: nobody is believed, and it is the usual headers.
pub fn is_told_in_lines(listener: &model::Listener, who: &Introduction) -> bool {
    listener.trusted_proxies.is_empty() && !who.trusted && listener.forwarded == Forwarded::XForwarded
}

/// Writes a plain request's lines as upstreams get them, in one pass: what the removal of hop-by-hop headers, [`introduce`], [`via`] and
/// [`request_id`] make of a map of them. Where the request's id is in `out` afterwards, if it has one.
///
/// **Errors**: those of [`via`].
/// **Cost**: some ten nanoseconds for each line; `out` is all that is allocated.
pub fn write_lines(
    out: &mut Vec<u8>,
    lines: &Lines,
    told: &Told<'_>,
    random: u128,
) -> Result<Option<Range<usize>>, Refusal> {
    // Where the host is in its one form, nothing is there to be changed.
    match lines.whole().filter(|_| lines.get("host") == Some(told.host.as_bytes())) {
        Some((text, _)) => {
            out.extend_from_slice(text);
            told.add(out, &[], (None, None), random)
        }
        None => told.edit(out, lines.iter(), random),
    }
}

/// The same of a map of them, for what hyper has read.
pub fn write_map(
    out: &mut Vec<u8>,
    headers: &HeaderMap,
    told: &Told<'_>,
    random: u128,
) -> Result<Option<Range<usize>>, Refusal> {
    let lines = headers.iter().map(|(name, value)| Line { name: name.as_str().as_bytes(), value: value.as_bytes() });
    if !headers.contains_key(header::HOST) {
        write_line(out, "host", told.host.as_bytes());
    }
    told.edit(out, lines, random)
}

/// What upstreams are told of a request besides what it says itself.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// How, and what of the rest.
    pub listener: &'a model::Listener,
    /// Who it is from.
    pub who: &'a Introduction,
    /// Whom it is for.
    pub host: &'a HeaderValue,
    /// The version it came in.
    pub version: http::Version,
}

impl Told<'_> {
    /// Writes `lines` as they go on, and what is told.
    fn edit<'l>(
        &self,
        out: &mut Vec<u8>,
        lines: impl Iterator<Item = Line<'l>>,
        random: u128,
    ) -> Result<Option<Range<usize>>, Refusal> {
        let Told { listener, host, .. } = *self;
        let mut passed: SmallVec<[&[u8]; 4]> = SmallVec::new();
        let (mut id, mut keeps_id) = (None, None);
        for line in lines {
            // By length first: most names are none of these.
            match line.name.len() {
                3 if listener.via && line.is("via") => {
                    passed.push(line.value);
                    continue;
                }
                4 if line.is("host") => {
                    write_line(out, "host", host.as_bytes());
                    continue;
                }
                9 if line.is("forwarded") || line.is("x-real-ip") => continue,
                12 if line.is("x-request-id") => {
                    let kept = || keeps(listener.request_id, Some(line.value));
                    if !*keeps_id.get_or_insert_with(kept) {
                        continue;
                    }
                    let at = out.len() + "x-request-id: ".len();
                    id.get_or_insert(at..at + line.value.len());
                }
                // How the body is framed is said where it is sent.
                14 if line.is("content-length") => {
                    if line.value.iter().all(|digit| *digit == b'0') {
                        write_line(out, "content-length", b"0");
                    }
                    continue;
                }
                6 if line.is("expect") => continue,
                15 if line.is("x-forwarded-for") => continue,
                16 if line.is("x-forwarded-host") || line.is("x-forwarded-port") => continue,
                17 if line.is("x-forwarded-proto") => continue,
                _ if line.is_hop() || !listener.underscores && line.name.contains(&b'_') => continue,
                _ => {}
            }
            line.write(out);
        }
        self.add(out, &passed, (id, keeps_id), random)
    }

    /// Writes what is told, behind lines that have been written, some of which were `Via`, or an id that was kept or not.
    fn add(
        &self,
        out: &mut Vec<u8>,
        passed: &[&[u8]],
        (mut id, keeps_id): (Option<Range<usize>>, Option<bool>),
        random: u128,
    ) -> Result<Option<Range<usize>>, Refusal> {
        let Told { listener, who, host, version } = *self;
        out.extend_from_slice(&who.lines);
        write_line(out, "x-forwarded-host", host.as_bytes());
        if listener.via {
            not_round(passed.iter().copied())?;
            out.extend_from_slice(b"via: ");
            for value in passed {
                out.extend_from_slice(value);
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(own_via(version).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if !keeps_id.unwrap_or_else(|| keeps(listener.request_id, None)) {
            let at = out.len() + "x-request-id: ".len();
            write_line(out, "x-request-id", &new_id(random));
            id = Some(at..at + 32);
        }
        Ok(id)
    }
}

fn write_line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    Line { name: name.as_bytes(), value }.write(out);
}

/// How often a request may pass a Tidegate. A pool that leads back to its own listener would else go round until something breaks.
const MOST_PASSES: usize = 10;

/// Adds ourselves to `Via` (RFC 9110 §7.6.3); `received` is the version of the message as it came.
///
/// **Errors**: [`Refusal::Loop`] for a request that has passed a Tidegate ten times.
pub fn via(headers: &mut HeaderMap, received: http::Version) -> Result<(), Refusal> {
    not_round(headers.get_all(header::VIA).iter().map(HeaderValue::as_bytes))?;
    append(headers, header::VIA, &HeaderValue::from_static(own_via(received)));
    Ok(())
}

fn own_via(received: http::Version) -> &'static str {
    match received {
        http::Version::HTTP_2 => "2 tidegate",
        http::Version::HTTP_10 => "1.0 tidegate",
        _ => "1.1 tidegate",
    }
}

fn not_round<'a>(via: impl Iterator<Item = &'a [u8]>) -> Result<(), Refusal> {
    let hops = via.flat_map(|line| line.split(|byte| *byte == b','));
    let passes = hops.filter(|hop| hop.trim_ascii().ends_with(b" tidegate")).count();
    if passes < MOST_PASSES { Ok(()) } else { Err(Refusal::Loop) }
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
    if !keeps(policy, headers.get(X_REQUEST_ID).map(HeaderValue::as_bytes)) {
        scratch.reserve(if scratch.capacity() < 32 { 4096 } else { 32 });
        // Not `extend` from an iterator: it goes byte by byte, at 2,700 instructions for an id (measured).
        scratch.extend_from_slice(&new_id(random));
        headers.insert(X_REQUEST_ID, HeaderValue::from_maybe_shared(scratch.split().freeze()).ok()?);
    }
    headers.get(X_REQUEST_ID)
}

/// Whether the id that was given stays, be it none.
fn keeps(policy: RequestId, given: Option<&[u8]>) -> bool {
    let clean = |given: &[u8]| (1..=128).contains(&given.len()) && given.iter().all(u8::is_ascii_graphic);
    match policy {
        RequestId::Off => true,
        RequestId::Pass => given.is_some_and(clean),
        RequestId::Always => false,
    }
}

fn new_id(random: u128) -> [u8; 32] {
    std::array::from_fn(|place| b"0123456789abcdef"[(random >> (4 * place)) as usize & 15])
}

/// Who the client says it is: the name in `Authorization: Basic` (RFC 7617), as it says and unverified.
pub fn user(authorization: &[u8]) -> Option<String> {
    let (scheme, token) = str::from_utf8(authorization).ok()?.split_once(' ')?;
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
    use proptest::prelude::*;

    use super::*;
    use crate::types::Marks;

    #[test]
    fn a_user_is_who_basic_authorization_names() {
        let user = |value: &str| user(value.as_bytes());
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

    /// Lines of plain requests: names that mean something to us, and others.
    fn plain_lines() -> impl Strategy<Value = String> {
        let name = proptest::sample::select(
            &[
                "accept",
                "x-a",
                "x_a",
                "connection",
                "keep-alive",
                "via",
                "x-request-id",
                "forwarded",
                "x-forwarded-for",
                "x-forwarded-proto",
                "x-forwarded-host",
                "x-forwarded-port",
                "x-real-ip",
                "proxy-authorization",
                "proxy-authenticate",
                "cookie",
                "content-length",
            ][..],
        );
        let value = proptest::sample::select(
            &["", "a", " \tb, c ", "1.1 tidegate", "1.0 x, 1.1 tidegate", "with space", "0"][..],
        );
        let odd = prop_oneof![9 => Just(false), 1 => Just(true)];
        proptest::collection::vec((name, value, odd), 0..6).prop_map(|lines| {
            let (mut sized, mut connected) = (false, false);
            let mut text = format!("host: {}.example:80\r\n", if lines.len() % 2 == 0 { "a" } else { "A" });
            for (name, value, odd) in lines {
                // What a plain head has at most once, and what it may say.
                let value = match name {
                    "content-length" if !std::mem::replace(&mut sized, true) => "0",
                    "connection" if !std::mem::replace(&mut connected, true) => "keep-alive",
                    "content-length" | "connection" => continue,
                    _ => value,
                };
                let blank = if odd { "" } else { " " };
                text += &format!("{name}:{blank}{value}\r\n");
            }
            text
        })
    }

    fn listener() -> model::Listener {
        let text = "[listener.web]\nbind = \"127.0.0.1:0\"\n[[route]]\nrespond = 200\n";
        let outcome = crate::config::read_text("t.toml", text, &crate::config::Memory::default());
        outcome.config.unwrap().listener["web"].clone()
    }

    proptest! {
        #[test]
        fn what_upstreams_get_is_the_same_whether_headers_are_read_or_not(
            text in plain_lines(), underscores: bool, with_via: bool, random: u128, policy in 0..3usize,
        ) {
            let policy = [RequestId::Pass, RequestId::Always, RequestId::Off][policy];
            let text = bytes::Bytes::from(text);
            let lines = Lines::new(text.clone(), Default::default());
            let passes = |line: Line<'_>| ["host", "accept", "x-a", "cookie"].iter().any(|name| line.is(name));
            let mut in_form = Vec::new();
            lines.iter().for_each(|line| line.write(&mut in_form));
            let usual = in_form == text && !text.windows(4).any(|end| end == b": \r\n");
            let marks = Marks { whole: usual && lines.iter().all(passes), ..Marks::default() };
            let (lines, host) = (Lines::new(text, marks), HeaderValue::from_static("a.example:80"));
            let listener = model::Listener { underscores, via: with_via, request_id: policy, ..listener() };
            let peer: IpAddr = "203.0.113.9".parse().unwrap();
            let who = Introduction::new(peer, false, &[]);
            prop_assert!(is_told_in_lines(&listener, &who));
            let mut written = Vec::new();
            let told = Told { listener: &listener, who: &who, host: &host, version: http::Version::HTTP_11 };
            let id = write_lines(&mut written, &lines, &told, random);

            let mut map = HeaderMap::new();
            lines.read(&mut map);
            super::super::normalize::strip(&mut map, underscores).unwrap();
            map.insert(header::HOST, host.clone());
            let mut of_headers = Vec::new();
            let id_of_headers = write_map(&mut of_headers, &map, &told, random);
            introduce(&mut map, listener.forwarded, &who, peer, &host);
            let read = if with_via { via(&mut map, http::Version::HTTP_11) } else { Ok(()) };
            let read = read.map(|()| request_id(&mut map, policy, random, &mut BytesMut::new()).cloned());
            let Ok(id) = id else {
                prop_assert_eq!((read.unwrap_err(), id_of_headers.unwrap_err()), (Refusal::Loop, Refusal::Loop));
                return Ok(());
            };
            prop_assert_eq!(id_of_headers.unwrap().map(|id| &of_headers[id]), id.clone().map(|id| &written[id]));
            prop_assert_eq!(id.map(|id| written[id].to_vec()), read.unwrap().map(|id| id.as_bytes().to_vec()));
            let mut of_map = Vec::new();
            map.iter().for_each(|(name, value)| write_line(&mut of_map, name.as_str(), value.as_bytes()));
            let sorted = |text: &[u8]| {
                let mut lines: Vec<_> = String::from_utf8_lossy(text).lines().map(str::to_owned).collect();
                // Lines of one name stay in their order.
                lines.sort_by_key(|line| line.split(':').next().map(str::to_owned));
                lines
            };
            prop_assert_eq!(sorted(&written), sorted(&of_map));
            prop_assert_eq!(sorted(&of_headers), sorted(&of_map));
        }
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
