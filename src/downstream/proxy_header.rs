//! The PROXY protocol header, versions 1 and 2, as a load balancer in front of us sends it before anything else.
//!
//! Reads bytes, never a socket, and keeps nothing: it says what is there, or that more must come. Whether to believe it is not
//! decided here. TLVs of version 2 are skipped; what they tell (SNI, certificates) is for nobody here.
//!
//! Source: <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>.
//!
//! Why a parser of our own: it is a page, it must never read past the header, and it is fuzzed here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What stands at a connection's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// Too little to say.
    Partial,
    /// Something else.
    Absent,
    /// A header of so many bytes.
    Header {
        /// Its length.
        length: usize,
        /// Who is behind the sender, if it says so: the client's address and the one it was made to.
        behind: Option<(SocketAddr, SocketAddr)>,
    },
}

/// Why a header cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyHeaderError {
    /// A line that is not one of version 1.
    #[error("malformed PROXY protocol line")]
    Line,
    /// A version 2 header with an unknown command, or lengths that do not fit.
    #[error("malformed PROXY protocol version 2 header")]
    Binary,
    /// More than anybody sends.
    #[error("PROXY protocol header longer than {MOST} bytes")]
    TooLong,
    /// Nothing of the kind, where it is required.
    #[error("no PROXY protocol header")]
    Missing,
    /// The connection ended first.
    #[error("the connection ended within its PROXY protocol header")]
    Ended,
}

/// The longest header read. The addresses need 52 bytes; the rest is for TLVs, of which certificates are the longest.
const MOST: usize = 4096;
/// The longest line of version 1, with its line end.
const MOST_LINE: usize = 107;

const LINE: &[u8] = b"PROXY ";
const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Reads what stands at the start of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Result<Start, ProxyHeaderError> {
    if begins(bytes, BINARY) {
        binary(bytes)
    } else if begins(bytes, LINE) {
        line(bytes)
    } else {
        Ok(Start::Absent)
    }
}

/// Whether `bytes` begin with `signature`, as far as they go.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(byte, expected)| byte == expected)
}

fn line(bytes: &[u8]) -> Result<Start, ProxyHeaderError> {
    let window = &bytes[..bytes.len().min(MOST_LINE)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() >= MOST_LINE { Err(ProxyHeaderError::Line) } else { Ok(Start::Partial) };
    };
    let text = std::str::from_utf8(&window[LINE.len()..end]).map_err(|_| ProxyHeaderError::Line)?;
    let length = end + 2;
    let mut words = text.split(' ');
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        // Whatever follows is to be ignored.
        return Ok(Start::Header { length, behind: None });
    }
    let mut next = || words.next().ok_or(ProxyHeaderError::Line);
    let (from, to) = (next()?, next()?);
    let (from_port, to_port) = (port(next()?)?, port(next()?)?);
    let read: fn(&str) -> Result<IpAddr, ProxyHeaderError> = match family {
        "TCP4" => |text| text.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| ProxyHeaderError::Line),
        "TCP6" => |text| text.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| ProxyHeaderError::Line),
        _ => return Err(ProxyHeaderError::Line),
    };
    if words.next().is_some() {
        return Err(ProxyHeaderError::Line);
    }
    let behind = (SocketAddr::new(read(from)?, from_port), SocketAddr::new(read(to)?, to_port));
    Ok(Start::Header { length, behind: Some(behind) })
}

fn port(text: &str) -> Result<u16, ProxyHeaderError> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().map_err(|_| ProxyHeaderError::Line) } else { Err(ProxyHeaderError::Line) }
}

fn binary(bytes: &[u8]) -> Result<Start, ProxyHeaderError> {
    let Some((fixed, rest)) = bytes.split_at_checked(16) else { return Ok(Start::Partial) };
    let (command, family) = (fixed[12], fixed[13]);
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if 16 + length > MOST {
        return Err(ProxyHeaderError::TooLong);
    }
    let told = match command {
        // LOCAL: the sender's own connection, such as a health check.
        0x20 => false,
        0x21 => true,
        _ => return Err(ProxyHeaderError::Binary),
    };
    let Some(body) = rest.get(..length) else { return Ok(Start::Partial) };
    let behind = match family {
        _ if !told => None,
        0x11 => {
            let [a, b, c, d, e, f, g, h, p, q, r, s] = *first(body)?;
            Some(([a, b, c, d].into(), [e, f, g, h].into(), [p, q, r, s]))
        }
        0x21 => {
            let all: &[u8; 36] = first(body)?;
            let (from, to) = (<[u8; 16]>::try_from(&all[..16]), <[u8; 16]>::try_from(&all[16..32]));
            let (Ok(from), Ok(to)) = (from, to) else { return Err(ProxyHeaderError::Binary) };
            Some((IpAddr::from(from), IpAddr::from(to), [all[32], all[33], all[34], all[35]]))
        }
        // Unspecified, datagrams or Unix sockets: nothing that is an address here.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => None,
        _ => return Err(ProxyHeaderError::Binary),
    };
    let behind = behind.map(|(from, to, ports): (IpAddr, IpAddr, [u8; 4])| {
        let [a, b, c, d] = ports;
        (SocketAddr::new(from, u16::from_be_bytes([a, b])), SocketAddr::new(to, u16::from_be_bytes([c, d])))
    });
    Ok(Start::Header { length: 16 + length, behind })
}

fn first<const N: usize>(body: &[u8]) -> Result<&[u8; N], ProxyHeaderError> {
    body.first_chunk().ok_or(ProxyHeaderError::Binary)
}

/// What must hold for any bytes: what is said of them is said of all that begins with them, in time, and of nothing behind a header.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn law(bytes: &[u8]) {
    let whole = read(bytes);
    let mut said = Ok(Start::Partial);
    for cut in 0..=bytes.len() {
        let now = read(&bytes[..cut]);
        assert!(said == Ok(Start::Partial) || now == said, "{said:?}, and {now:?} of {cut}");
        said = now;
        if let Ok(Start::Header { length, .. }) = said {
            assert!(length <= cut, "{said:?} of {cut}");
        }
        // Nobody is waited for without end.
        assert!(said != Ok(Start::Partial) || cut < if bytes.starts_with(LINE) { MOST_LINE } else { MOST });
    }
    let Ok(Start::Header { length, behind }) = whole else { return };
    assert_eq!(read(&bytes[..length]), whole, "nothing behind it");
    assert_eq!(read(&bytes[..length - 1]), Ok(Start::Partial), "all of it");
    // Who is told is told alike in both versions.
    if let Some((from, to)) = behind {
        for again in [written(from, to), written_binary(from, to)] {
            assert_eq!(read(&again), Ok(Start::Header { length: again.len(), behind }), "{again:?}");
        }
    }
}

/// A line of version 1.
#[cfg(any(test, feature = "fuzzing"))]
fn written(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port()).into_bytes()
}

/// A header of version 2.
#[cfg(any(test, feature = "fuzzing"))]
fn written_binary(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut body = Vec::new();
    for ip in [from.ip(), to.ip()] {
        match ip {
            IpAddr::V4(ip) => body.extend(ip.octets()),
            IpAddr::V6(ip) => body.extend(ip.octets()),
        }
    }
    body.extend([from.port(), to.port()].map(u16::to_be_bytes).concat());
    v2(0x21, if from.is_ipv4() { 0x11 } else { 0x21 }, &body)
}

#[cfg(any(test, feature = "fuzzing"))]
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = BINARY.to_vec();
    bytes.extend([command, family]);
    bytes.extend((body.len() as u16).to_be_bytes());
    bytes.extend(body);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(length: usize, from: &str, to: &str) -> Result<Start, ProxyHeaderError> {
        Ok(Start::Header { length, behind: Some((from.parse().unwrap(), to.parse().unwrap())) })
    }

    #[test]
    fn lines_tell_who_is_behind() {
        let text = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\nGET / HTTP/1.1\r\n";
        assert_eq!(read(text), header(45, "192.0.2.7:56324", "198.51.100.1:443"));
        let text = b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n";
        assert_eq!(read(text), header(32, "[2001:db8::7]:1", "[::1]:2"));
        assert_eq!(read(b"PROXY UNKNOWN\r\nx"), Ok(Start::Header { length: 15, behind: None }));
        assert_eq!(read(b"PROXY UNKNOWN ff a b c d\r\n"), Ok(Start::Header { length: 26, behind: None }));
    }

    #[test]
    fn binary_headers_tell_it_too_and_their_extras_are_skipped() {
        let mut body = vec![192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb];
        assert_eq!(read(&v2(0x21, 0x11, &body)), header(28, "192.0.2.7:56324", "198.51.100.1:443"));
        body.extend([0x03, 0, 4, 1, 2, 3, 4]);
        let mut bytes = v2(0x21, 0x11, &body);
        bytes.extend(b"GET");
        assert_eq!(read(&bytes), header(35, "192.0.2.7:56324", "198.51.100.1:443"));
        let mut body = vec![0; 36];
        (body[15], body[31], body[33], body[35]) = (1, 2, 80, 81);
        assert_eq!(read(&v2(0x21, 0x21, &body)), header(52, "[::1]:80", "[::2]:81"));
        assert_eq!(read(&v2(0x20, 0x00, &[])), Ok(Start::Header { length: 16, behind: None }));
        assert_eq!(read(&v2(0x20, 0x11, &[1; 12])), Ok(Start::Header { length: 28, behind: None }));
        assert_eq!(read(&v2(0x21, 0x31, &[0; 216])), Ok(Start::Header { length: 232, behind: None }));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for text in [
            "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
            "PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY \r\n",
            "PROXY \u{e9}\r\n",
        ] {
            assert_eq!(read(text.as_bytes()), Err(ProxyHeaderError::Line), "{text:?}");
        }
        assert_eq!(read(&[b"PROXY TCP4 ", [b'1'; 100].as_slice()].concat()), Err(ProxyHeaderError::Line));
        for bytes in [v2(0x11, 0x11, &[0; 12]), v2(0x22, 0x11, &[0; 12]), v2(0x21, 0x11, &[0; 11]), v2(0x21, 0x41, &[])]
        {
            assert_eq!(read(&bytes), Err(ProxyHeaderError::Binary));
        }
        assert_eq!(read(&v2(0x21, 0x11, &[0; 5000])), Err(ProxyHeaderError::TooLong));
    }

    #[test]
    fn other_protocols_are_seen_as_such_at_once() {
        for text in ["G", "POST / HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n", "\r\nGET /", "PROXYX", "\x16\x03\x01"] {
            assert_eq!(read(text.as_bytes()), Ok(Start::Absent), "{text:?}");
        }
        for text in ["", "P", "PROXY", "PROXY TCP4 1", "\r\n\r\n", "\r\n\r\n\0\r\nQUIT\n\x21"] {
            assert_eq!(read(text.as_bytes()), Ok(Start::Partial), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fall(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0..3) {
            let start: &[u8] = [b"", LINE, BINARY][kind as usize];
            law(&[start, &bytes].concat());
        }

        #[test]
        fn a_part_of_a_header_is_never_taken_for_something_else(a: [u8; 4], b: [u8; 4], p: u16, q: u16, cut in 0usize..40, tail: [u8; 3]) {
            let (a, b) = (Ipv4Addr::from(a), Ipv4Addr::from(b));
            let (from, to) = (SocketAddr::new(a.into(), p), SocketAddr::new(b.into(), q));
            for mut whole in [written(from, to), written_binary(from, to)] {
                let length = whole.len();
                prop_assert_eq!(read(&whole[..cut.min(length - 1)]), Ok(Start::Partial));
                whole.extend(tail);
                prop_assert_eq!(read(&whole), Ok(Start::Header { length, behind: Some((from, to)) }));
                law(&whole);
            }
        }
    }
}
