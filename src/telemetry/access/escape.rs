use std::net::IpAddr;
use std::time::Duration;

const HEX: &[u8; 16] = b"0123456789ABCDEF";

fn plain(b: u8) -> bool {
    matches!(b, b' '..=b'~') && b != b'"' && b != b'\\'
}

/// Whether nothing is to be escaped. Looks at every byte, where stopping at the first would keep the compiler from looking at many at once.
fn all_plain(text: &[u8]) -> bool {
    text.iter().fold(true, |so_far, b| so_far & plain(*b))
}

/// Text as NGINX writes it: `"`, `\`, and what is not printable ASCII, as `\xXX`.
pub(super) fn nginx(text: &[u8], out: &mut Vec<u8>) {
    if all_plain(text) {
        out.extend_from_slice(text);
        return;
    }
    for b in text {
        if plain(*b) {
            out.push(*b);
        } else {
            out.extend_from_slice(&[b'\\', b'x', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
        }
    }
}

/// Text as the inside of a JSON string. What is not UTF-8 becomes U+FFFD.
pub(super) fn json(text: &[u8], out: &mut Vec<u8>) {
    if all_plain(text) {
        out.extend_from_slice(text);
        return;
    }
    for chunk in text.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                // Also those above ASCII (C1) and the separators that some readers take for line ends.
                char if char.is_control() || matches!(char, '\u{2028}' | '\u{2029}') => {
                    let code = char as usize;
                    out.extend_from_slice(b"\\u");
                    out.extend([12, 8, 4, 0].map(|shift| HEX[code >> shift & 15]));
                }
                char => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{FFFD}".as_bytes());
        }
    }
}

pub(super) fn number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Seconds with six decimals.
pub(super) fn seconds(span: Duration, out: &mut Vec<u8>) {
    number(span.as_secs(), out);
    out.push(b'.');
    let micros = span.subsec_micros();
    let digit = |place: u32| b'0' + (micros / place % 10) as u8;
    out.extend([100_000, 10_000, 1_000, 100, 10, 1].map(digit));
}

pub(super) fn address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => {
            let [first, others @ ..] = address.octets();
            number(u64::from(first), out);
            for octet in others {
                out.push(b'.');
                number(u64::from(octet), out);
            }
        }
        IpAddr::V6(address) => {
            use std::io::Write;
            // Writing to a vector cannot fail.
            let _ = write!(out, "{address}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(by: fn(&[u8], &mut Vec<u8>), text: &[u8]) -> String {
        let mut out = Vec::new();
        by(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn quotes_newlines_and_utf8_are_escaped_as_nginx_does() {
        assert_eq!(written(nginx, b"curl/8.5 (x; y)"), "curl/8.5 (x; y)");
        assert_eq!(written(nginx, b"a\"b\\c\r\n\x1b[31m\x7f"), r"a\x22b\x5Cc\x0D\x0A\x1B[31m\x7F");
        assert_eq!(written(nginx, "é".as_bytes()), r"\xC3\xA9");
    }

    #[test]
    fn json_keeps_utf8_and_replaces_what_is_none() {
        assert_eq!(written(json, "é\"\\\n\r\t\u{1}\u{85}\u{2028}".as_bytes()), r#"é\"\\\n\r\t\u0001\u0085\u2028"#);
        assert_eq!(written(json, b"a\xFFb\xC3"), "a\u{FFFD}b\u{FFFD}");
    }

    #[test]
    fn numbers_are_written_in_full() {
        let mut out = Vec::new();
        seconds(Duration::from_micros(12_000_345), &mut out);
        out.push(b' ');
        address("10.0.255.1".parse().unwrap(), &mut out);
        out.push(b' ');
        address("2001:db8::1".parse().unwrap(), &mut out);
        assert_eq!(out, b"12.000345 10.0.255.1 2001:db8::1");
    }

    proptest! {
        #[test]
        fn nothing_breaks_out_of_its_field(text in prop::collection::vec(any::<u8>(), 0..60)) {
            let escaped = written(nginx, &text);
            prop_assert!(escaped.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'"'));
            let quoted = format!("\"{}\"", written(json, &text));
            prop_assert!(!quoted.contains(['\n', '\r']));
            let back: String = serde_json::from_str(&quoted).unwrap();
            prop_assert_eq!(back, String::from_utf8_lossy(&text));
        }
    }
}
