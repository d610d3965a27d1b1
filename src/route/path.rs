//! The path that routes are matched on and that goes upstream: one reading of it, made once for each request.
//!
//! Routes guard things, so two spellings of one path must not match differently, and the upstream must not read another path than
//! the one that was matched. Therefore [`normalize`] makes two forms:
//!
//! - [`Path::forward`], what upstreams get. `.` and `..` segments are resolved (RFC 3986 §5.2.4, also where written `%2e`), escaped
//!   unreserved characters are decoded, the other escapes have upper-case digits, and bytes that a path cannot hold are escaped.
//!   Nothing else changes; above all `//` stays, because to some upstreams it means something.
//! - [`Path::matching`], what routes see. Besides, `//` counts as `/` (as NGINX's `merge_slashes` has it), and escaped characters
//!   that may stand in a path as they are (`!$&'()*+,;=:@`) are decoded. So neither `//admin` nor `/%40me` gets around a route for
//!   `/admin` or `/@me`, whatever the upstream makes of them.
//!
//! `%2F` and `%5C` stay escaped in both: they are not separators. Where an upstream could nevertheless climb out of the matched
//! path (`..%2F`, `..%5C`, `..;x`), the request is refused.
//!
//! Never here: the query, which is passed on as it came, and what a route does with the path.
//!
//! *Why not one form*: merging slashes for the upstream breaks URLs that carry URLs; not merging them for routes is a bypass.

use std::borrow::Cow;

/// Why a request's path is refused; all of these are answered with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not start with a slash.
    #[error("the path does not start with `/`")]
    Relative,
    /// A `%` without two hexadecimal digits.
    #[error("the path holds a `%` that is not followed by two hexadecimal digits")]
    Escape,
    /// `%00`.
    #[error("the path holds an escaped NUL")]
    Nul,
    /// A control byte as it is.
    #[error("the path holds a control byte")]
    Control,
    /// More `..` than segments before them.
    #[error("the path climbs above the root")]
    AboveRoot,
    /// A `..` that shows only to those who decode `%2F` or `%5C`, or cut off `;` parameters.
    #[error("the path hides a `..` segment")]
    Hidden,
}

/// A request's path, normalized; see the module for its two forms.
///
/// **Cost**: borrows, and allocates only where something had to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path<'a> {
    forward: Cow<'a, str>,
    /// `None` where both forms are the same.
    matching: Option<String>,
}

impl<'a> Path<'a> {
    /// What upstreams get. ASCII, starts with `/`.
    pub fn forward(&self) -> &str {
        &self.forward
    }

    /// What routes see; for [`Question::path`](super::Question::path).
    pub fn matching(&self) -> &str {
        self.matching.as_deref().unwrap_or(&self.forward)
    }

    /// What upstreams get, borrowed from the request where it was normal already.
    pub fn into_forward(self) -> Cow<'a, str> {
        self.forward
    }

    /// The part of [`forward`](Path::forward) behind what the first `length` bytes of [`matching`](Path::matching) stand for.
    pub fn tail(&self, length: usize) -> &str {
        if self.matching.is_none() {
            return self.forward.get(length..).unwrap_or_default();
        }
        let bytes = self.forward.as_bytes();
        let (mut at, mut matched) = (0, 0);
        while at < bytes.len() {
            let (step, _) = unit(bytes, at);
            // Slashes that were merged into the last one belong to it.
            if matched >= length && step.yields > 0 {
                break;
            }
            matched += step.yields;
            at += step.takes;
        }
        self.forward.get(at..).unwrap_or_default()
    }
}

/// Normalizes the path of a request target (RFC 9112 §3.2.1), given without its query.
///
/// The asterisk-form `*` is no path: callers that accept it put it into the [`Question`](super::Question) as it is, where only rules
/// for any path match it.
///
/// **Errors**: what cannot be read in one way only.
/// **Cost**: about a nanosecond for each byte, without an allocation, where there is nothing to do.
pub fn normalize(raw: &str) -> Result<Path<'_>, PathError> {
    if raw.is_empty() {
        // The target `http://host` has an empty path (RFC 9110 §4.2.3).
        return Ok(Path { forward: Cow::Borrowed("/"), matching: None });
    }
    if !raw.starts_with('/') {
        return Err(PathError::Relative);
    }
    if is_normal(raw.as_bytes()) {
        return Ok(Path { forward: Cow::Borrowed(raw), matching: None });
    }
    let forward = match escaped(raw)? {
        Cow::Borrowed(path) => resolved(path)?,
        Cow::Owned(path) => Cow::Owned(resolved(&path)?.into_owned()),
    };
    let matching = matching(&forward);
    Ok(Path { forward, matching })
}

/// The form of a path in a pattern that equals [`Path::matching`] of the requests meant by it. Dots stay: patterns may end in the
/// middle of a segment.
pub(super) fn canonical(pattern: &str) -> Result<String, PathError> {
    let path = escaped(pattern)?;
    Ok(matching(&path).unwrap_or_else(|| path.into_owned()))
}

/// Whether a segment is `..` to somebody who decodes `%2F` and `%5C` or cuts off what follows a `;`.
pub(super) fn hides_dots(segment: &str) -> bool {
    let parameter = segment.strip_prefix("..").is_some_and(|rest| rest.starts_with(';') || rest.starts_with("%3B"));
    // An escape is never split by this: both start with `%`, and no other `%` stands before `2F` or `5C` than their own.
    let mut parts = segment.split("%2F").flat_map(|part| part.split("%5C"));
    parameter || (segment != ".." && parts.any(|part| part == ".."))
}

const PLAIN: u8 = 0;
const SLASH: u8 = 1;
const DOT: u8 = 2;
const OTHER: u8 = 3;

/// For each byte: does it end the fast path at once, perhaps, or not?
static CLASS: [u8; 256] = {
    let mut table = [OTHER; 256];
    let mut byte = 0;
    while byte < 256 {
        if is_path_char(byte as u8) {
            table[byte] = PLAIN;
        }
        byte += 1;
    }
    table[b'/' as usize] = SLASH;
    table[b'.' as usize] = DOT;
    table
};

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

const fn is_kept(byte: u8) -> bool {
    matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@')
}

/// `pchar` of RFC 3986 without the escapes.
const fn is_path_char(byte: u8) -> bool {
    is_unreserved(byte) || is_kept(byte)
}

/// Whether there is nothing to do, in either form.
fn is_normal(path: &[u8]) -> bool {
    let mut previous = 0;
    for (at, &byte) in path.iter().enumerate() {
        match CLASS[byte as usize] {
            PLAIN => {}
            SLASH if previous != b'/' => {}
            // A dot may start a segment of dots; `/.well-known` does not, `/..` may be one, and is rare enough for the slow path.
            DOT if previous != b'/' || !matches!(path.get(at + 1), None | Some(b'/' | b'.')) => {}
            _ => return false,
        }
        previous = byte;
    }
    true
}

/// Decodes what needs no escape, escapes what does, and writes the other escapes in one way.
fn escaped(raw: &str) -> Result<Cow<'_, str>, PathError> {
    if raw.bytes().all(|byte| CLASS[byte as usize] != OTHER) {
        return Ok(Cow::Borrowed(raw));
    }
    let mut out = String::with_capacity(raw.len() + 16);
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        let value = match byte {
            b'%' => {
                let digit =
                    |byte: Option<u8>| byte.and_then(|byte| (byte as char).to_digit(16)).ok_or(PathError::Escape);
                let value = (digit(bytes.next())? << 4 | digit(bytes.next())?) as u8;
                match value {
                    0 => return Err(PathError::Nul),
                    value if is_unreserved(value) => {
                        out.push(value as char);
                        continue;
                    }
                    value => value,
                }
            }
            b'/' => {
                out.push('/');
                continue;
            }
            byte if is_path_char(byte) => {
                out.push(byte as char);
                continue;
            }
            byte if byte.is_ascii_control() => return Err(PathError::Control),
            byte => byte,
        };
        push_escape(&mut out, value);
    }
    Ok(Cow::Owned(out))
}

pub(super) fn push_escape(out: &mut String, byte: u8) {
    const DIGITS: [u8; 16] = *b"0123456789ABCDEF";
    out.push('%');
    out.push(DIGITS[(byte >> 4) as usize] as char);
    out.push(DIGITS[(byte & 15) as usize] as char);
}

/// Resolves dot segments (RFC 3986 §5.2.4), and refuses hidden ones.
fn resolved(path: &str) -> Result<Cow<'_, str>, PathError> {
    let segments = || path.split('/').skip(1);
    if path.contains("..") && segments().any(hides_dots) {
        return Err(PathError::Hidden);
    }
    if !segments().any(|segment| matches!(segment, "." | "..")) {
        return Ok(Cow::Borrowed(path));
    }
    let mut out = String::with_capacity(path.len());
    let mut open = false;
    for segment in segments() {
        open = true;
        match segment {
            "." => {}
            ".." => out.truncate(out.rfind('/').ok_or(PathError::AboveRoot)?),
            _ => {
                open = false;
                out.push('/');
                out.push_str(segment);
            }
        }
    }
    if open {
        // A dot segment at the end leaves its slash behind: `/a/..` is `/`.
        out.push('/');
    }
    Ok(Cow::Owned(out))
}

/// What stands at one place of a forwarded path: how long it is there, and how long in the matching form.
struct Unit {
    takes: usize,
    yields: usize,
}

/// The unit at `at`, and the byte it stands for where that is one byte.
fn unit(bytes: &[u8], at: usize) -> (Unit, u8) {
    match bytes[at] {
        b'/' if at > 0 && bytes[at - 1] == b'/' => (Unit { takes: 1, yields: 0 }, b'/'),
        b'%' => {
            let digit = |at: usize| bytes.get(at).and_then(|&byte| (byte as char).to_digit(16)).unwrap_or(0);
            let value = (digit(at + 1) << 4 | digit(at + 2)) as u8;
            let yields = if is_kept(value) { 1 } else { 3 };
            (Unit { takes: 3, yields }, value)
        }
        byte => (Unit { takes: 1, yields: 1 }, byte),
    }
}

/// The matching form, where it is another one.
fn matching(forward: &str) -> Option<String> {
    let bytes = forward.as_bytes();
    if !forward.contains('%') && !forward.contains("//") {
        return None;
    }
    let mut out = String::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let (step, value) = unit(bytes, at);
        match step {
            Unit { yields: 0, .. } => {}
            Unit { yields: 1, .. } => out.push(value as char),
            _ => out.push_str(forward.get(at..at + 3).unwrap_or_default()),
        }
        at += step.takes;
    }
    (out.len() != forward.len()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn forms(raw: &str) -> (String, String) {
        let path = normalize(raw).unwrap();
        (path.forward().to_owned(), path.matching().to_owned())
    }

    #[test]
    fn a_normal_path_is_borrowed_as_it_is() {
        for raw in ["/", "/api/v1/users", "/.well-known/x", "/a.b/c..d/...", "/@me/a:b;c=d,e!$&'()*+", "/~x/-_"] {
            let path = normalize(raw).unwrap();
            assert!(matches!(path.forward, Cow::Borrowed(_)), "{raw}");
            assert_eq!((path.forward(), path.matching()), (raw, raw));
        }
        assert_eq!(forms("").0, "/");
    }

    #[test]
    fn dot_segments_are_resolved() {
        for (raw, forward) in [
            ("/.", "/"),
            ("/./", "/"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/../", "/"),
            ("/a/b/../c", "/a/c"),
            ("/a/b/../../c", "/c"),
            ("/a/./b", "/a/b"),
            ("/a/%2e/b", "/a/b"),
            ("/a/%2E%2e/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a//../b", "/a/b"),
            ("/a/b/c/./../../g", "/a/g"),
            ("/mid/content=5/../6", "/mid/6"),
            ("/a/...", "/a/..."),
            ("/a/..b/.c", "/a/..b/.c"),
        ] {
            assert_eq!(forms(raw).0, forward, "{raw}");
        }
    }

    #[test]
    fn what_cannot_be_read_in_one_way_is_refused() {
        for (raw, error) in [
            ("a", PathError::Relative),
            ("*", PathError::Relative),
            ("/%", PathError::Escape),
            ("/%4", PathError::Escape),
            ("/%zz", PathError::Escape),
            ("/%+1", PathError::Escape),
            ("/%é", PathError::Escape),
            ("/a%00", PathError::Nul),
            ("/a\0", PathError::Control),
            ("/a\x7f", PathError::Control),
            ("/a\n", PathError::Control),
            ("/..", PathError::AboveRoot),
            ("/../a", PathError::AboveRoot),
            ("/a/../../b", PathError::AboveRoot),
            ("/%2e%2E/a", PathError::AboveRoot),
            ("/public/..%2Fadmin", PathError::Hidden),
            ("/public/%2e%2e%2fadmin", PathError::Hidden),
            ("/public/x%2F..%2Fadmin", PathError::Hidden),
            ("/public/..%5cadmin", PathError::Hidden),
            ("/public/..\\admin", PathError::Hidden),
            ("/public/..;/admin", PathError::Hidden),
            ("/public/..%3bx/admin", PathError::Hidden),
        ] {
            assert_eq!(normalize(raw), Err(error), "{raw}");
        }
    }

    #[test]
    fn escapes_are_written_in_one_way() {
        for (raw, forward) in [
            ("/%61%7e%2D", "/a~-"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%5cb", "/a%5Cb"),
            ("/a\\b", "/a%5Cb"),
            ("/café", "/caf%C3%A9"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a b\"<>^`{|}[]", "/a%20b%22%3C%3E%5E%60%7B%7C%7D%5B%5D"),
            ("/%25%32%65", "/%252e"),
            ("/%252e%252e/x", "/%252e%252e/x"),
            ("/%40me", "/%40me"),
            ("/@scope%2fname", "/@scope%2Fname"),
        ] {
            assert_eq!(forms(raw).0, forward, "{raw}");
        }
    }

    #[test]
    fn slashes_are_merged_for_matching_only() {
        for (raw, forward, matching) in [
            ("//admin", "//admin", "/admin"),
            ("/a///b//", "/a///b//", "/a/b/"),
            ("/%40me", "/%40me", "/@me"),
            ("/a%3Bb%2Fc", "/a%3Bb%2Fc", "/a;b%2Fc"),
            ("/proxy/https://x/", "/proxy/https://x/", "/proxy/https:/x/"),
        ] {
            assert_eq!(forms(raw), (forward.to_owned(), matching.to_owned()));
        }
    }

    #[test]
    fn the_tail_behind_a_matched_prefix_is_that_of_the_forwarded_path() {
        for (raw, length, tail) in [
            ("/api/x", 4, "/x"),
            ("//api//x", 4, "//x"),
            ("/%40me/%2Fx%40", 4, "/%2Fx%40"),
            ("/api", 4, ""),
            ("//", 1, ""),
            ("/api//x", 5, "x"),
            ("/a%20//b", 5, "//b"),
            ("/a", 9, ""),
        ] {
            assert_eq!(normalize(raw).unwrap().tail(length), tail, "{raw}");
        }
    }

    fn path() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("/"),
            Just("."),
            Just("a"),
            Just("%2e"),
            Just("%2E"),
            Just("%2f"),
            Just("%5C"),
            Just("%41"),
            Just("%40"),
            Just("%25"),
            Just(";"),
            Just("\\"),
            Just("é"),
            Just("%c3"),
            Just(" "),
            Just("["),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    proptest! {
        #[test]
        fn normalizing_twice_is_normalizing_once(raw in path()) {
            if let Ok(once) = normalize(&raw) {
                let again = normalize(once.forward()).unwrap();
                prop_assert_eq!(again.forward(), once.forward());
                prop_assert_eq!(again.matching(), once.matching());
                let matched = normalize(once.matching()).unwrap();
                prop_assert_eq!(matched.matching(), once.matching());
            }
        }

        #[test]
        fn no_dot_segment_is_left(raw in path()) {
            if let Ok(path) = normalize(&raw) {
                for form in [path.forward(), path.matching()] {
                    prop_assert!(form.starts_with('/') && form.is_ascii());
                    prop_assert!(!form.split('/').any(|segment| matches!(segment, "." | "..")), "{}", form);
                }
                prop_assert!(!path.matching().contains("//"));
            }
        }

        #[test]
        fn head_and_tail_make_the_whole(raw in path(), at in 0usize..20) {
            if let Ok(path) = normalize(&raw) {
                let tail = path.tail(at);
                prop_assert!(path.forward().ends_with(tail));
                let head = &path.forward()[..path.forward().len() - tail.len()];
                // Where nothing was changed, `at` may lie within an escape.
                if let (Ok(head), Ok(tail)) = (canonical(head), canonical(tail)) {
                    prop_assert_eq!(head + &tail, path.matching());
                }
            }
        }

        #[test]
        fn no_text_makes_it_panic(raw in "\\PC{0,20}") {
            let _ = normalize(&raw);
        }
    }
}
