//! An answer's head, from bytes to `http` types.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode, Version};
use httparse::{ParserConfig, Status};
use smallvec::SmallVec;

use super::decode::Length;
use crate::types::lines::{Lines, Marks, is_field_text, is_in_form, plain_length, split_field};
use crate::upstream::connections::HEAD_SIZE;
use crate::upstream::error::BadResponse;

/// Header lines of an answer.
const MOST_HEADERS: usize = 100;

/// Reads the head at the front of `bytes`; how long it is, or nothing where it is not all there.
///
/// Every value is a slice of one copy of the head: an answer's headers cost one allocation. Where the whole of `bytes` is small the copy
/// takes what is behind the head along, so that a small body needs none of its own; that copy is what comes back with the head.
///
/// **Errors**: what is no HTTP as RFC 9112 has it, with no leniency: obs-fold, bare line feeds, blanks around names, control bytes.
pub(super) fn read_head(bytes: &[u8]) -> Result<Option<(Parts, usize, Bytes)>, BadResponse> {
    let mut space = [const { MaybeUninit::uninit() }; MOST_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let status = ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, bytes, &mut space);
    let length = match status {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) if bytes.len() < HEAD_SIZE => return Ok(None),
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => return Err(BadResponse::HeadTooLarge),
        Err(_) if has_bare_line_feed(bytes) => return Err(BadResponse::BareLineFeed),
        Err(_) => return Err(BadResponse::Malformed),
    };
    if length > HEAD_SIZE {
        return Err(BadResponse::HeadTooLarge);
    }
    if has_bare_line_feed(&bytes[..length]) {
        return Err(BadResponse::BareLineFeed);
    }
    let copied = Bytes::from(copy(bytes, length));
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(BadResponse::Malformed)?;
    head.version = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    head.headers.reserve(parsed.headers.len());
    let start = bytes.as_ptr() as usize;
    for field in parsed.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| BadResponse::Malformed)?;
        let at = field.value.as_ptr() as usize - start;
        let value = copied.slice(at..at + field.value.len());
        head.headers.append(name, HeaderValue::from_maybe_shared(value).map_err(|_| BadResponse::Malformed)?);
    }
    Ok(Some((head, length, copied)))
}

/// The head of an answer whose headers can stay text.
pub(super) struct Plain {
    pub(super) status: StatusCode,
    /// How long it is.
    pub(super) length: usize,
    /// As with [`read_head`].
    pub(super) copied: Bytes,
    pub(super) lines: Lines,
    pub(super) framing: Length,
    /// No other answer follows on this connection.
    pub(super) closes: bool,
}

/// Reads the head at the front of `bytes` where it is plain.
///
/// A whitelist, as the fast lane's for requests: a final answer of HTTP/1.1 whose framing and connection have one reading, and which asks for
/// nothing special. Nothing is refused here: whatever else it is, [`read_head`] says.
///
/// **Cost**: one pass, and the copy that [`read_head`] makes.
pub(super) fn read_plain(bytes: &[u8]) -> Option<Plain> {
    let (status, start) = read_status(bytes)?;
    let mut fields = Fields::default();
    let mut at = start;
    for feed in memchr::memchr_iter(b'\n', &bytes[start..bytes.len().min(HEAD_SIZE)]) {
        let feed = start + feed;
        let (b'\r', line) = bytes[at..feed].split_last()? else { return None };
        if line.is_empty() {
            let framing = fields.framing()?;
            let length = feed + 1;
            let mut copied = copy(bytes, length);
            fields.lower(&mut copied);
            let copied = Bytes::from(copied);
            let lines = Lines::new(copied.slice(start..at), fields.marks());
            return Some(Plain { status, length, copied, lines, framing, closes: fields.connection == Some(true) });
        }
        fields.take(at, line)?;
        at = feed + 1;
    }
    None
}

/// What a plain answer's header lines say.
#[derive(Default)]
struct Fields {
    sized: Option<u64>,
    chunked: bool,
    /// Whether it closes, where that is said.
    connection: Option<bool>,
    /// Some line is for this hop alone, or not in its one form.
    touched: bool,
    dated: bool,
    count: usize,
    /// Where names are that are not in lower case.
    upper: SmallVec<[(u16, u16); 16]>,
}

impl Fields {
    /// Takes the line at `at`; nothing where it is not plain.
    fn take(&mut self, at: usize, line: &[u8]) -> Option<()> {
        let (name, padded) = split_field(line)?;
        let value = padded.trim_ascii();
        // By length first: most names are none of these.
        let is = |special: &str| name.eq_ignore_ascii_case(special.as_bytes());
        let mut touched = !is_in_form(padded);
        match name.len() {
            2 if is("te") => return None,
            4 => self.dated |= is("date"),
            7 if is("trailer") || is("upgrade") => return None,
            10 if is("connection") => {
                let close = value.eq_ignore_ascii_case(b"close");
                let known = close || value.eq_ignore_ascii_case(b"keep-alive");
                if !known || self.connection.replace(close).is_some() {
                    return None;
                }
                touched = true;
            }
            10 => touched |= is("keep-alive"),
            14 if is("content-length") && self.sized.replace(plain_length(value)?).is_some() => return None,
            16 => touched |= is("proxy-connection"),
            17 if is("transfer-encoding") => {
                if !value.eq_ignore_ascii_case(b"chunked") || std::mem::replace(&mut self.chunked, true) {
                    return None;
                }
                touched = true;
            }
            18 => touched |= is("proxy-authenticate"),
            19 => touched |= is("proxy-authorization"),
            _ => {}
        }
        self.touched |= touched;
        if name.iter().any(u8::is_ascii_uppercase) {
            self.upper.push((u16::try_from(at).ok()?, u16::try_from(at + name.len()).ok()?));
        }
        self.count += 1;
        (self.count <= MOST_HEADERS).then_some(())
    }

    fn framing(&self) -> Option<Length> {
        match (self.sized, self.chunked) {
            (Some(_), true) => None,
            (Some(length), false) => Some(Length::Known(length)),
            (None, true) => Some(Length::Chunked),
            (None, false) => Some(Length::UntilClose),
        }
    }

    /// Puts the names in a copy of the head into lower case.
    fn lower(&self, head: &mut [u8]) {
        for (from, to) in &self.upper {
            head[usize::from(*from)..usize::from(*to)].make_ascii_lowercase();
        }
    }

    fn marks(&self) -> Marks {
        Marks { whole: !self.touched, dated: self.dated, sized: self.sized.is_some() }
    }
}

/// The status of a final answer, and where its header lines begin.
fn read_status(bytes: &[u8]) -> Option<(StatusCode, usize)> {
    let rest = bytes.strip_prefix(b"HTTP/1.1 ")?;
    let status = StatusCode::from_bytes(rest.get(..3)?).ok().filter(|status| !status.is_informational())?;
    // RFC 9110 §8.6: a 204 has no length, whatever it says.
    if status == StatusCode::NO_CONTENT {
        return None;
    }
    let reason = rest[3..].strip_prefix(b" ")?;
    let feed = memchr::memchr(b'\n', reason)?;
    let (b'\r', reason) = reason[..feed].split_last()? else { return None };
    is_field_text(reason).then_some((status, b"HTTP/1.1 200 ".len() + feed + 1))
}

/// A copy of a head, and of all that was read with it where that is small.
fn copy(bytes: &[u8], length: usize) -> Vec<u8> {
    /// What is copied along with a head.
    const SMALL: usize = 16 << 10;
    if bytes.len() <= SMALL { bytes } else { &bytes[..length] }.to_vec()
}

/// httparse takes a bare line feed for a line's end; others do not (RFC 9112 §2.2 lets both).
fn has_bare_line_feed(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).any(|feed| feed == 0 || head[feed - 1] != b'\r')
}

/// What must hold for any bytes: a plain head is read as any head is, and of no beginning anything else is believed than of the whole.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn law(bytes: &[u8]) {
    use crate::judge;
    use crate::upstream::answer::{self, Kind};
    let whole = read_head(bytes);
    let length = whole.as_ref().ok().and_then(|head| head.as_ref()).map(|(_, length, _)| *length);
    for cut in judge::cuts(bytes) {
        match read_head(&bytes[..cut]) {
            Ok(None) => assert!(length.is_none_or(|length| cut < length), "{cut}"),
            Ok(Some((_, found, _))) => assert!(length == Some(found) && found <= cut, "{cut}"),
            Err(_) => assert!(whole.is_err(), "{cut}"),
        }
        let plain = read_plain(&bytes[..cut]);
        assert!(plain.is_none_or(|plain| length == Some(plain.length) && plain.length <= cut), "{cut}");
    }
    let Some(plain) = read_plain(bytes) else { return };
    let Ok(Some((mut parts, length, copied))) = whole else { panic!("{whole:?}") };
    assert_eq!((plain.status, plain.length), (parts.status, length));
    assert_eq!(plain.copied[length..], copied[length..]);
    assert_eq!(parts.version, Version::HTTP_11);
    let mut headers = http::HeaderMap::new();
    plain.lines.read(&mut headers);
    assert_eq!(headers, parts.headers);
    let says = |word: &str| {
        let value = headers.get("connection");
        value.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(word.as_bytes()))
    };
    assert_eq!(plain.closes, says("close"));
    assert!(!headers.contains_key("connection") || says("close") || says("keep-alive"));
    if let Some((all, marks)) = plain.lines.whole() {
        assert!(plain.lines.iter().all(|line| !line.is_hop()));
        assert_eq!(marks.dated, headers.contains_key("date"));
        assert_eq!(marks.sized, headers.contains_key("content-length"));
        let mut written = Vec::new();
        plain.lines.iter().for_each(|line| line.write(&mut written));
        assert_eq!(written, all);
    }
    assert_eq!(answer::check(&mut parts, None), Ok(Kind::Final(plain.framing)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Heads of answers that are plain, or nearly, with a byte or two changed.
    fn heads() -> impl Strategy<Value = Vec<u8>> {
        let first = proptest::sample::select(
            &[
                "HTTP/1.1 200 OK",
                "HTTP/1.1 304 ",
                "HTTP/1.1 404",
                "HTTP/1.0 200 OK",
                "HTTP/1.1 100 Continue",
                "HTTP/1.1 204 No",
            ][..],
        );
        let line = proptest::sample::select(
            &[
                "X-A: b",
                "set-cookie:\ta=b ",
                "Content-Length: 5",
                "content-length:05",
                "Content-Length: 5, 5",
                "Transfer-Encoding: Chunked",
                "transfer-encoding: gzip",
                "Connection: close",
                "connection: keep-alive",
                "Connection: X-A",
                "Trailer: x",
                "TE: x",
                "Upgrade: x",
                "Keep-Alive: 5",
                "empty:",
                "Date: now",
            ][..],
        );
        let byte = proptest::sample::select(&b"\r\n \t:,;\0/HTP1.0x\x7f\xe4"[..]);
        let changes = proptest::collection::vec((any::<usize>(), byte, 0..3u8), 0..3);
        (first, proptest::collection::vec(line, 0..5), changes).prop_map(|(first, lines, changes)| {
            let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let mut bytes = format!("{first}\r\n{lines}\r\nhello").into_bytes();
            for (at, byte, how) in changes {
                let at = at % bytes.len();
                match how {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ => drop(bytes.remove(at)),
                }
            }
            bytes
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn a_plain_head_is_read_as_any_head_and_no_beginning_is_taken_for_one(bytes in heads()) {
            law(&bytes);
        }
    }

    #[test]
    fn usual_heads_are_plain() {
        for (head, framing) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\n", Length::Known(5)),
            ("HTTP/1.1 500 \r\ntransfer-encoding: chunked\r\nConnection: keep-alive\r\n\r\n", Length::Chunked),
            ("HTTP/1.1 200 Fine\r\nConnection: close\r\n\r\n", Length::UntilClose),
        ] {
            assert_eq!(read_plain(head.as_bytes()).map(|plain| plain.framing), Some(framing), "{head}");
            // Any shorter it is not all there.
            assert!((0..head.len()).all(|end| read_plain(&head.as_bytes()[..end]).is_none()));
        }
    }
}
