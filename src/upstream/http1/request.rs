//! A request's head as it goes out: one piece, and one framing, that of its body.

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};

use crate::upstream::connections::Outgoing;

/// How a request's body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes are still to come.
    Sized(u64),
    /// In chunks.
    Chunked,
}

impl Framing {
    /// What is to be said of a body of `length` bytes, or of unknown length: the body counts, not what a header says of it. A length
    /// that somebody else has announced is the length of a body that does not know its own.
    pub(super) fn of(headers: &HeaderMap, length: Option<u64>) -> Framing {
        match length.or_else(|| announced(headers)) {
            Some(length) => Framing::Sized(length),
            None => Framing::Chunked,
        }
    }
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let only = values.next().filter(|_| values.next().is_none())?;
    only.to_str().ok()?.parse().ok()
}

/// Writes the head.
///
/// Names and values cannot hold a line's end by their types (http 1.x), so what is written here is one head.
pub(super) fn write_head(out: &mut Vec<u8>, outgoing: &Outgoing<'_>, framing: Framing) {
    let method = outgoing.method.as_str();
    let target = outgoing.target.as_str();
    out.reserve(method.len() + target.len() + 512);
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    // `PathAndQuery` leaves an empty path out.
    if target.starts_with('?') {
        out.push(b'/');
    }
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    out.extend_from_slice(outgoing.lines.unwrap_or_default());
    let mut announced = false;
    for (name, value) in outgoing.headers {
        if *name == CONTENT_LENGTH {
            announced = true;
            continue;
        }
        if *name != TRANSFER_ENCODING {
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
    match framing {
        // Of a request without a body nothing is said, unless its sender did.
        Framing::Sized(0) if !announced => {}
        Framing::Sized(length) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}
