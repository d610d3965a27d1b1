//! An answer's head, from bytes to `http` types.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode, Version};
use httparse::{ParserConfig, Status};

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
    /// What is copied along with a head.
    const SMALL: usize = 16 << 10;
    let copied = Bytes::copy_from_slice(if bytes.len() <= SMALL { bytes } else { &bytes[..length] });
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

/// httparse takes a bare line feed for a line's end; others do not (RFC 9112 §2.2 lets both).
fn has_bare_line_feed(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).any(|feed| feed == 0 || head[feed - 1] != b'\r')
}
