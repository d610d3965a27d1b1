use std::borrow::Cow;

use super::Stop;

/// No key that is looked for is longer than this when each of its letters is written as an escape.
pub(in crate::mcp) const LONGEST_KEY: usize = 256;

/// A string as it is written: what is between its quotes.
#[derive(Debug, Clone, Copy)]
pub(in crate::mcp) struct Text<'a> {
    pub(super) raw: &'a str,
    pub(super) escaped: bool,
}

impl<'a> Text<'a> {
    /// What the string means; borrowed where nothing is escaped.
    ///
    /// **Errors**: half a surrogate pair, which is right by the grammar but no text.
    pub(in crate::mcp) fn decode(self) -> Result<Cow<'a, str>, Stop> {
        if self.escaped { unescape(self.raw).map(Cow::Owned) } else { Ok(Cow::Borrowed(self.raw)) }
    }

    /// The string as a key to compare with. Keys that cannot be one of ours stay as they are written.
    pub(in crate::mcp) fn key(self) -> Cow<'a, str> {
        let mine = self.raw.len() <= LONGEST_KEY;
        if mine { self.decode().unwrap_or(Cow::Borrowed(self.raw)) } else { Cow::Borrowed(self.raw) }
    }
}

/// What a key means of which the text between the quotes was gathered; `None` where it cannot be one of ours.
pub(in crate::mcp) fn unescaped(raw: &[u8]) -> Option<Cow<'_, str>> {
    let raw = std::str::from_utf8(raw).ok().filter(|raw| raw.len() <= LONGEST_KEY)?;
    Text { raw, escaped: raw.contains('\\') }.decode().ok()
}

/// How many bytes there are before the first quote, backslash or control character; `high` gathers the high bits of the others.
///
/// *Why not memchr*: control characters have to be refused, and a second pass for them would cost more than this one.
#[inline]
pub(super) fn plain(bytes: &[u8], high: &mut u64) -> usize {
    let mut at = 0;
    loop {
        // Most strings are short, and escapes are rarely alone: some words first, then as wide as the compiler can.
        let near = (at + WIDE).min(bytes.len());
        while at + 8 <= near {
            if let Some(length) = word(&bytes[at..], high) {
                return at + length;
            }
            at += 8;
        }
        if near == bytes.len() {
            break;
        }
        while let Some(step) = bytes[at..].first_chunk::<WIDE>() {
            let (mut ends, mut all) = (0, 0);
            for &byte in step {
                ends |= u8::from(byte ^ 2 < 0x21) | u8::from(byte == b'\\');
                all |= byte;
            }
            if ends != 0 {
                break;
            }
            *high |= u64::from(all & 0x80);
            at += WIDE;
        }
    }
    while let Some(&byte) = bytes.get(at) {
        if byte < b' ' || byte == b'"' || byte == b'\\' {
            break;
        }
        *high |= u64::from(byte & 0x80);
        at += 1;
    }
    at
}

const WIDE: usize = 32;
const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Where in the first eight bytes the run ends, if it does.
#[inline]
fn word(bytes: &[u8], high: &mut u64) -> Option<usize> {
    let word = u64::from_le_bytes(*bytes.first_chunk()?);
    // With bit 1 turned over the quote comes next after the control characters, and the blank leaves that place.
    let quote = word ^ (ONES * 2);
    let slash = word ^ (ONES * u64::from(b'\\'));
    // A borrow can only make later bytes look like ends, never an earlier one: the first is right.
    let ends = (quote.wrapping_sub(ONES * 0x21) & !quote | slash.wrapping_sub(ONES) & !slash) & HIGH;
    if ends == 0 {
        *high |= word & HIGH;
        return None;
    }
    let before = ends.trailing_zeros() & !7;
    *high |= word & HIGH & ((1u64 << before) - 1);
    Some(before as usize / 8)
}

/// What an escaped string means; `raw` has been walked over before.
fn unescape(raw: &str) -> Result<String, Stop> {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        let (letter, length) = match rest.as_bytes().get(at + 1).ok_or(Stop::Bad)? {
            b'b' => ('\u{8}', 2),
            b'f' => ('\u{c}', 2),
            b'n' => ('\n', 2),
            b'r' => ('\r', 2),
            b't' => ('\t', 2),
            b'u' => pair(&rest[at..]).ok_or(Stop::Bad)?,
            &same => (char::from(same), 2),
        };
        out.push(letter);
        rest = rest.get(at + length..).ok_or(Stop::Bad)?;
    }
    out.push_str(rest);
    Ok(out)
}

/// The character that a `\uXXXX`, or two of them, at the start of `text` stand for, and how long they are.
fn pair(text: &str) -> Option<(char, usize)> {
    let unit = |text: &str| u32::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok();
    let first = unit(text)?;
    if let Some(letter) = char::from_u32(first) {
        return Some((letter, 6));
    }
    let second = unit(text.get(6..)?)?;
    if !(0xD800..0xDC00).contains(&first) || !(0xDC00..0xE000).contains(&second) {
        return None;
    }
    let letter = char::from_u32(0x10000 + ((first - 0xD800) << 10 | (second - 0xDC00)))?;
    Some((letter, 12))
}
