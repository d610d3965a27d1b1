//! Header fields that stay text.
//!
//! Most requests and answers pass through without anybody needing to know their headers: to make a map of them, and text of the map
//! again, costs more than all else together. So a head whose form has been checked can stay what it was: lines.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memchr_iter;

/// The field lines of a head: `name: value`, each ended by CR LF, without the line above them and the empty one below.
///
/// **Shape**: each name is a token in lower case with its colon right behind it, no value holds control bytes but tabs; nothing is folded.
/// **Cost**: a clone shares the bytes; to look for a name is one pass over the lines.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    text: Bytes,
    marks: Marks,
}

/// What was noticed of a head's lines while they were read. For speed alone: nothing noticed is always right.
#[derive(Debug, Clone, Copy, Default)]
pub struct Marks {
    /// All lines are in their one form, and none of them is about the connection, or one that a proxy has a say in: they can be passed on in
    /// one piece.
    pub whole: bool,
    /// With [`Marks::whole`]: whether one of them is `date`.
    pub dated: bool,
    /// With [`Marks::whole`]: whether one of them is `content-length`.
    pub sized: bool,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// The name, in lower case.
    pub name: &'a [u8],
    /// The value without the white space around it.
    pub value: &'a [u8],
}

impl Lines {
    /// `text` must have the form that is promised here, and what `marks` say must be so; whoever makes lines has checked it.
    pub(crate) fn new(text: Bytes, marks: Marks) -> Self {
        Lines { text, marks }
    }

    /// All of it, where it can be passed on as it is; with whether it holds a date and a length.
    #[inline]
    pub fn whole(&self) -> Option<(&[u8], Marks)> {
        self.marks.whole.then_some((&self.text, self.marks))
    }

    /// All of them, in order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = Line<'_>> {
        let mut from = 0;
        memchr_iter(b'\n', &self.text).filter_map(move |feed| {
            let line = &self.text[from..feed];
            from = feed + 1;
            let (name, value) = line.split_at(memchr::memchr(b':', line)?);
            Some(Line { name, value: value[1..].trim_ascii() })
        })
    }

    /// The first line of this name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|line| line.is(name)).map(|line| line.value)
    }

    /// The same as a header's value, without copying it.
    pub fn value(&self, name: &str) -> Option<HeaderValue> {
        let value = self.get(name)?;
        HeaderValue::from_maybe_shared(self.text.slice_ref(value)).ok()
    }

    /// Makes headers of them, for somebody who needs to know.
    pub fn read(&self, headers: &mut HeaderMap) {
        headers.reserve(self.iter().count());
        for line in self.iter() {
            // What is here is fit to be either: see the promise.
            let value = HeaderValue::from_maybe_shared(self.text.slice_ref(line.value));
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(line.name), value) {
                headers.append(name, value);
            }
        }
    }
}

impl Line<'_> {
    /// Whether this is its name.
    #[inline]
    pub fn is(&self, name: &str) -> bool {
        self.name == name.as_bytes()
    }

    /// Whether it is meant for one hop only (RFC 9110 §7.6.1).
    #[inline]
    pub fn is_hop(&self) -> bool {
        // By length first: most names are none of these.
        match self.name.len() {
            2 => self.is("te"),
            7 => self.is("upgrade"),
            10 => self.is("connection") || self.is("keep-alive"),
            16 => self.is("proxy-connection"),
            17 => self.is("transfer-encoding"),
            18 => self.is("proxy-authenticate"),
            19 => self.is("proxy-authorization"),
            _ => false,
        }
    }

    /// Writes it in its one form.
    #[inline]
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(self.value);
        out.extend_from_slice(b"\r\n");
    }
}

/// Whether a value, with the white space around it, stands in its line as it would be written: behind one blank, and with none behind it.
#[inline]
pub(crate) fn is_in_form(padded: &[u8]) -> bool {
    let blank = |byte: Option<&u8>| byte.is_none_or(|byte| matches!(byte, b' ' | b'\t'));
    padded.first() == Some(&b' ') && !blank(padded.get(1)) && !blank(padded.last())
}

/// The number of a plain `Content-Length`: 1 to 18 digits, which cannot overflow, and nothing else.
pub(crate) fn plain_length(digits: &[u8]) -> Option<u64> {
    let plain = matches!(digits.len(), 1..=18) && digits.iter().all(u8::is_ascii_digit);
    plain.then(|| digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// The name and the value, with the white space around it, of `name:value`: a token, and no control bytes but tabs (RFC 9110 §5.5, §5.6.2).
///
/// **Cost**: about a nanosecond for each byte of the name, a quarter of that for the value's.
pub(crate) fn split_field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let name = line.iter().position(|byte| !TOKEN[usize::from(*byte)])?;
    let value = line[name..].strip_prefix(b":")?;
    (name > 0 && is_field_text(value)).then(|| (&line[..name], value))
}

/// Whether these bytes may stand in a value.
#[inline]
pub(crate) fn is_field_text(value: &[u8]) -> bool {
    // Without a way out in the middle this becomes a few wide instructions.
    !value.iter().fold(false, |bad, byte| bad | (*byte < b' ' && *byte != b'\t') | (*byte == 0x7f))
}

/// Whether a byte may stand in a name or a method.
pub(crate) const TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~");

/// Letters, digits and `others`.
pub(crate) const fn table(others: &[u8]) -> [bool; 256] {
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

    fn lines(text: &'static str) -> Lines {
        Lines::new(Bytes::from_static(text.as_bytes()), Marks::default())
    }

    #[test]
    fn lines_are_read_written_and_made_headers_of_alike() {
        let lines = lines("host: a.example\r\nx-one:1\r\nx-one: \t2 \r\nempty:\r\ncolons: a:b\r\n");
        let all: Vec<(&[u8], &[u8])> = lines.iter().map(|line| (line.name, line.value)).collect();
        let expected: [(&[u8], &[u8]); 5] =
            [(b"host", b"a.example"), (b"x-one", b"1"), (b"x-one", b"2"), (b"empty", b""), (b"colons", b"a:b")];
        assert_eq!(all, expected);
        let mut out = Vec::new();
        lines.iter().for_each(|line| line.write(&mut out));
        assert_eq!(out, b"host: a.example\r\nx-one: 1\r\nx-one: 2\r\nempty: \r\ncolons: a:b\r\n");
        let mut headers = HeaderMap::new();
        lines.read(&mut headers);
        let mut of_map = Vec::new();
        for (name, value) in &headers {
            Line { name: name.as_str().as_bytes(), value: value.as_bytes() }.write(&mut of_map);
        }
        assert_eq!(of_map, out);
        assert_eq!((lines.get("x-one"), lines.get("none")), (Some(&b"1"[..]), None));
        assert_eq!(lines.value("colons").unwrap(), "a:b");
        assert_eq!(Lines::default().iter().count(), 0);
    }

    #[test]
    fn a_field_line_has_a_token_and_a_value_without_control_bytes() {
        for good in [&b"a:"[..], b"X-y_z: a\tb", b"n!#$%&'*+-.^`|~: \"()\"", b"a: \xe4\xff"] {
            assert!(split_field(good).is_some());
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
            assert!(split_field(bad).is_none(), "{bad:?}");
        }
    }
}
