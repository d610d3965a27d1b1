//! What must hold for any bytes. The fuzzer's targets and the seeded loops of `fuzz_seeds.rs` are these same functions.
//!
//! Never here: what reads the wire (PROXY headers, heads, chunked bodies), which only the crate itself sees. Those laws stand in their own
//! modules, and `src/fuzzing.rs` runs them likewise.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use http::header::{FORWARDED, HeaderName, HeaderValue};
use http::{HeaderMap, Version};
use tidegate::config::model::Forwarded;
use tidegate::config::{Memory, Secrets, read_text, render, show};
use tidegate::limit::{Admission, ClientKey, ConnectionSeats, Limiter, Permit, Reason, Rule};
use tidegate::mcp::peek::{self, Malformed, peek};
use tidegate::mcp::sse::Scanner;
use tidegate::proxy::client::{self, Introduction, X_FORWARDED_FOR};
use tidegate::route::{host, path};
use tidegate::types::{Moment, Rate};

pub(crate) type Target = fn(&[u8]);

/// Every target by its name.
pub(crate) const TARGETS: &[(&str, Target)] = &[
    ("config", config),
    ("path", path),
    ("host", host),
    ("forwarded", forwarded),
    ("peek", peek_message),
    ("events", events),
    ("limiter", limiter),
];

/// Reading a configuration ends, with problems that can be shown or with one that reads the same once it is written down.
pub(crate) fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let outcome = read_text("/etc/tidegate.toml", text, &Memory::default());
    let problems = render(&outcome.problems, false);
    assert_eq!(outcome.config.is_none(), outcome.errors().next().is_some(), "{problems}");
    if let Some(config) = outcome.config {
        let shown = show(&config, Secrets::Shown);
        let again = read_text("/etc/tidegate.toml", &shown, &Memory::default());
        assert_eq!(again.config, Some(config), "{shown}\n{}", render(&again.problems, false));
    }
}

/// A path in normal form stays as it is, climbs nowhere, and holds no byte that ends a request line.
pub(crate) fn path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(normal) = path::normalize(text) else { return };
    let forward = normal.forward();
    assert!(forward.starts_with('/'), "{text:?}: {forward:?}");
    let again = path::normalize(forward).unwrap_or_else(|error| panic!("{text:?}: {forward:?}: {error}"));
    assert_eq!(again.forward(), forward, "{text:?}");
    assert_eq!(again.matching(), normal.matching(), "{text:?}");
    for seen in [forward, normal.matching()] {
        let segments = seen.split('/').map(|segment| segment.replace("%2e", ".").replace("%2E", "."));
        for segment in segments {
            assert!(segment != "." && segment != "..", "{text:?}: {seen:?}");
        }
    }
    assert!(!forward.bytes().any(|byte| byte <= b' ' || byte == 0x7f), "{text:?}: {forward:?}");
    assert!(!normal.matching().contains("//"), "{text:?}: {:?}", normal.matching());
}

/// A host in normal form stays as it is, and is nothing that could be taken for more than a name.
pub(crate) fn host(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(parsed) = host::parse(text) else { return };
    assert!(parsed.name.len() <= 253 && !parsed.name.bytes().any(|byte| byte.is_ascii_uppercase()), "{text:?}");
    assert!(
        !parsed.name.contains([',', '/', '@', '?', '#', '\\', ' ', '%', '\r', '\n']),
        "{text:?}: {:?}",
        parsed.name
    );
    let again = host::parse(&parsed.name).unwrap_or_else(|_| panic!("{text:?}: {:?}", parsed.name));
    assert_eq!(again.name, parsed.name, "{text:?}");
    assert_eq!(again.port, None, "{text:?}");
    if matches!(parsed.name, Cow::Borrowed(_)) {
        assert!(text.starts_with(&*parsed.name), "{text:?}: {:?}", parsed.name);
    }
}

/// What forwarding headers say is believed from trusted peers alone, and leaves us in one form.
pub(crate) fn forwarded(bytes: &[u8]) {
    let networks = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
    let mut sent = HeaderMap::new();
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let name = if number % 2 == 0 { X_FORWARDED_FOR } else { FORWARDED };
        if let Ok(value) = HeaderValue::from_bytes(line) {
            sent.append(name, value);
        }
    }
    let host = HeaderValue::from_static("a.example");
    for style in [Forwarded::XForwarded, Forwarded::Rfc7239, Forwarded::Both, Forwarded::Off] {
        for peer in ["192.0.2.1", "10.0.0.1", "::ffff:10.0.0.2", "fd00::1"] {
            let peer: IpAddr = peer.parse().unwrap();
            let trusted = client::trusted(&networks, peer);
            let found = client::address(peer, &networks, &sent, style);
            assert!(trusted || found == peer, "{peer} was believed");
            assert_eq!(found, found.to_canonical());
            let mut headers = sent.clone();
            client::introduce(&mut headers, style, &Introduction::new(peer, true, &networks), found, &host);
            let _ = client::via(&mut headers, Version::HTTP_11);
            if !trusted {
                let lines: Vec<_> = headers.get_all(X_FORWARDED_FOR).iter().collect();
                let told = matches!(style, Forwarded::XForwarded | Forwarded::Both);
                assert_eq!(lines.len(), usize::from(told), "{style:?}: {lines:?}");
                assert!(lines.iter().all(|line| line.as_bytes() == peer.to_string().as_bytes()), "{lines:?}");
                assert!(headers.get_all(FORWARDED).iter().count() <= 1);
            }
            // What we have told the next of our kind understands, and finds the same client.
            if trusted && found != peer.to_canonical() && style == Forwarded::XForwarded {
                let real = headers.get(HeaderName::from_static("x-real-ip"));
                assert_eq!(real.and_then(|value| value.to_str().ok()), Some(found.to_string().as_str()));
            }
        }
    }
}

/// What is accepted is JSON, says what a full parser says it does, and is not refused for coming in parts.
pub(crate) fn peek_message(bytes: &[u8]) {
    let whole = peek(bytes, true);
    if let Ok(found) = &whole {
        assert!(std::str::from_utf8(bytes).is_ok());
        // A full parser refuses halves of surrogate pairs also where nobody reads them.
        if let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) {
            if value.is_object() {
                assert_eq!(found.method.as_deref(), value["method"].as_str(), "{value}");
                let has_id = value.get("id").is_some_and(|id| !id.is_null());
                assert_eq!(found.id.is_some(), has_id, "{value}");
            }
            let counted = value.as_array().map_or(1, Vec::len);
            assert_eq!(found.members as usize, counted, "{value}");
            let members: Vec<_> = peek::members(bytes).collect();
            assert!(members.iter().any(Result::is_err) || members.len() == counted, "{value}");
        }
    }
    for cut in [0, bytes.len() / 3, bytes.len() / 2, bytes.len().saturating_sub(1)] {
        let part = peek(&bytes[..cut], false);
        if whole.is_ok() && cut > 0 {
            // A part of a batch, of white space or of a character may be too little to say anything.
            let fine = part.is_ok() || part == Err(Malformed::Empty);
            assert!(fine, "{part:?} for {cut} of {:?}", String::from_utf8_lossy(bytes));
        }
    }
}

/// Where an event stream is cut into pieces makes no difference.
pub(crate) fn events(bytes: &[u8]) {
    let mut whole = Scanner::new();
    whole.feed(bytes);
    for size in [1, 2, 7] {
        let mut pieces = Scanner::new();
        for piece in bytes.chunks(size) {
            pieces.feed(piece);
        }
        let said = |scanner: &Scanner| (scanner.between(), scanner.last_id().map(str::to_owned), scanner.retry());
        assert_eq!(said(&pieces), said(&whole), "in pieces of {size}: {:?}", String::from_utf8_lossy(bytes));
    }
}

/// Over no span more is let through than rate and burst allow, nor more at once than the limits; and what has ended counts no more.
pub(crate) fn limiter(bytes: &[u8]) {
    const CLIENTS: usize = 3;
    let [count, burst, requests, connections, steps @ ..] = bytes else { return };
    let (count, burst) = (u32::from(count % 20) + 1, u32::from(burst % 10));
    let most = [u32::from(requests % 4) + 1, u32::from(connections % 3) + 1];
    let rate = Rate { count, per: Duration::from_secs(1) };
    let rule = Rule { rate: Some(rate), burst, requests: Some(most[0]), connections: Some(most[1]), ..Rule::default() };
    let limiter = Limiter::new(rule);
    let key = |client: usize| ClientKey::address(IpAddr::from([192, 0, 2, client as u8]));
    let seats: Vec<ConnectionSeats> = (0..4).map(|_| ConnectionSeats::new()).collect();
    let mut held: Vec<(usize, usize, Permit)> = Vec::new();
    let mut admitted: Vec<Vec<Moment>> = vec![Vec::new(); CLIENTS];
    let mut now = Moment::default() + Duration::from_secs(1);
    for step in steps {
        let client = usize::from(*step) % CLIENTS;
        match step >> 6 {
            0 => now = now + Duration::from_millis(u64::from(*step) * 7),
            1 if !held.is_empty() => drop(held.remove(usize::from(*step) % held.len())),
            2 if *step % 8 == 0 => limiter.sweep(now),
            _ => {
                let connection = usize::from(*step >> 2) % seats.len();
                let at_once = held.iter().filter(|(owner, ..)| *owner == client).count();
                match limiter.admit(key(client), &seats[connection], now) {
                    Admission::Proceed(permit, _) => {
                        held.push((client, connection, permit));
                        admitted[client].push(now);
                    }
                    Admission::Wait(..) => panic!("there is no delay to wait in"),
                    Admission::Refuse(refusal) if refusal.reason == Reason::Requests => {
                        assert_eq!(at_once, most[0] as usize);
                    }
                    Admission::Refuse(refusal) => assert!(refusal.retry_after_seconds() >= 1),
                }
            }
        }
        for client in 0..CLIENTS {
            let of_client: Vec<_> = held.iter().filter(|(owner, ..)| *owner == client).collect();
            let mut used: Vec<usize> = of_client.iter().map(|(_, connection, _)| *connection).collect();
            used.sort_unstable();
            used.dedup();
            assert!(of_client.len() <= most[0] as usize && used.len() <= most[1] as usize);
        }
    }
    for times in &admitted {
        for (first, begin) in times.iter().enumerate() {
            for (last, end) in times.iter().enumerate().skip(first) {
                let span = end.since(*begin).as_secs_f64();
                let allowed = f64::from(burst) + 1.0 + span * f64::from(count) + 1e-6;
                assert!(
                    (last - first + 1) as f64 <= allowed,
                    "{} in {span} s of {count}/s and {burst}",
                    last - first + 1
                );
            }
        }
    }
    held.clear();
    now = now + Duration::from_secs(3600);
    for client in 0..CLIENTS {
        let admission = limiter.admit(key(client), &seats[0], now);
        assert!(matches!(admission, Admission::Proceed(..)), "who has rested is let in: {admission:?}");
    }
}
