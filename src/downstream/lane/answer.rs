//! Writes answers: the head as hyper's HTTP/1.1 server writes it, byte by byte, and the body in its framing.
//!
//! Names and values come from the `http` crate's types, so no value ends its line. Lengths are not believed: a body that is shorter
//! or longer than the head has said is a broken one, and the connection does not go on behind it.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes};
use http::header::{self, HeaderName, HeaderValue};
use http::response::Parts;
use http::{HeaderMap, StatusCode};

use super::channel::Channel;
use crate::downstream::application::Application;
use crate::downstream::stock::Stock;
use crate::types::{Line, Lines as FieldLines, Moment};

/// How long a body says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::downstream) enum Size {
    /// There is none.
    None,
    Known(u64),
    Unknown,
}

impl Size {
    /// Where its length is said.
    fn framing(self) -> Option<Framing> {
        match self {
            Size::Known(length) => Some(Framing::Length(length)),
            _ => None,
        }
    }
}

/// How the client learns where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none to be sent.
    None,
    /// So much is to come.
    Length(u64),
    Chunked,
}

/// What an answer's head depends on besides itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// The request was a `HEAD`.
    pub(super) head: bool,
    /// The connection closes behind the answer.
    pub(super) close: bool,
}

/// An application has answered with what is no answer: a 1xx, or lengths that are none or contradict each other.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoAnswer;

/// Writes a head into `out`, of `parts` and of `fields` where these are still text; the framing it has announced, and whether it has said that the connection closes.
pub(super) fn write_head(
    out: &mut Vec<u8>,
    parts: &Parts,
    fields: Option<&FieldLines>,
    size: Size,
    asked: Asked,
    date: &[u8; Date::LENGTH],
) -> Result<(Framing, bool), NoAnswer> {
    let Parts { status, headers, extensions, .. } = parts;
    if status.is_informational() {
        return Err(NoAnswer);
    }
    out.reserve(64 + headers.len() * 32);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(match extensions.get::<hyper::ext::ReasonPhrase>() {
        Some(reason) => reason.as_bytes(),
        None => status.canonical_reason().unwrap_or("<none>").as_bytes(),
    });
    out.extend_from_slice(b"\r\n");
    let bodiless = matches!(*status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let mut lines = Lines {
        out,
        asked,
        size,
        bodiless,
        framing: None,
        closes: asked.close,
        dated: false,
        connection: false,
        trailer: false,
    };
    match fields.map(|fields| (fields, fields.whole())) {
        None => {}
        // The usual answer, in one piece.
        Some((_, Some((text, marks)))) if marks.sized && !lines.without_body() && matches!(size, Size::Known(_)) => {
            lines.out.extend_from_slice(text);
            lines.dated = marks.dated;
            lines.framing = size.framing();
        }
        Some((fields, _)) => {
            for line in fields.iter() {
                lines.take_line(line)?;
            }
        }
    }
    for (name, value) in headers {
        lines.take(headers, name, value)?;
    }
    Ok((lines.end(date), lines.closes))
}

/// The lines of a head in the writing.
struct Lines<'a> {
    out: &'a mut Vec<u8>,
    asked: Asked,
    size: Size,
    /// The status has no body.
    bodiless: bool,
    framing: Option<Framing>,
    closes: bool,
    dated: bool,
    /// These stand on one line each, which is written with the first of them.
    connection: bool,
    trailer: bool,
}

impl Lines<'_> {
    fn take(&mut self, headers: &HeaderMap, name: &HeaderName, value: &HeaderValue) -> Result<(), NoAnswer> {
        match *name {
            header::CONTENT_LENGTH => self.take_length(value.as_bytes()),
            // How the message is framed is ours to say.
            header::TRANSFER_ENCODING => Ok(()),
            header::CONNECTION => {
                if !std::mem::replace(&mut self.connection, true) {
                    self.write_connection(headers);
                }
                Ok(())
            }
            header::TRAILER => {
                if !self.without_body() && !std::mem::replace(&mut self.trailer, true) {
                    self.write_joined(headers, name);
                    self.out.extend_from_slice(b"\r\n");
                }
                Ok(())
            }
            _ => {
                self.dated |= *name == header::DATE;
                self.write(name.as_str(), value.as_bytes());
                Ok(())
            }
        }
    }

    /// Takes a line that has stayed text. What it says of the upstream's connection is for us alone.
    fn take_line(&mut self, line: Line<'_>) -> Result<(), NoAnswer> {
        match line.name.len() {
            14 if line.is("content-length") => return self.take_length(line.value),
            _ if line.is_hop() => return Ok(()),
            4 => self.dated |= line.is("date"),
            _ => {}
        }
        line.write(self.out);
        Ok(())
    }

    fn take_length(&mut self, value: &[u8]) -> Result<(), NoAnswer> {
        if self.size == Size::None {
            // What a HEAD would have got; of anything else that has no body the length is known to be none.
            if self.asked.head {
                self.write("content-length", value);
                return if self.framing.replace(Framing::None).is_none() { Ok(()) } else { Err(NoAnswer) };
            }
            return Ok(());
        }
        let length = number(value).ok_or(NoAnswer)?;
        match self.framing {
            None => {
                self.write("content-length", value);
                self.framing = Some(Framing::Length(length));
                Ok(())
            }
            Some(before) if before == Framing::Length(length) => Ok(()),
            Some(_) => Err(NoAnswer),
        }
    }

    fn write_connection(&mut self, headers: &HeaderMap) {
        let says_close = headers.get_all(header::CONNECTION).iter().any(closes);
        self.write_joined(headers, &header::CONNECTION);
        self.out.extend_from_slice(if self.asked.close && !says_close { b", close\r\n" } else { b"\r\n" });
        self.closes |= says_close;
    }

    fn write_joined(&mut self, headers: &HeaderMap, name: &HeaderName) {
        self.out.extend_from_slice(name.as_str().as_bytes());
        let mut between: &[u8] = b": ";
        for value in headers.get_all(name) {
            self.out.extend_from_slice(between);
            self.out.extend_from_slice(value.as_bytes());
            between = b", ";
        }
    }

    fn write(&mut self, name: &str, value: &[u8]) {
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": ");
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
    }

    /// Whether there can be no body (RFC 9110 §6.4.1).
    fn without_body(&self) -> bool {
        self.asked.head || self.bodiless
    }

    fn end(&mut self, date: &[u8; Date::LENGTH]) -> Framing {
        if self.asked.close && !self.connection {
            self.write("connection", b"close");
        }
        let framing = match (self.framing, self.size) {
            (Some(framing), _) => framing,
            (None, Size::Unknown) if self.without_body() => Framing::None,
            (None, Size::Unknown) => {
                self.write("transfer-encoding", b"chunked");
                Framing::Chunked
            }
            (None, Size::None | Size::Known(0)) => {
                if !self.without_body() {
                    self.write("content-length", b"0");
                }
                Framing::None
            }
            (None, Size::Known(_)) if self.bodiless => Framing::None,
            (None, Size::Known(length)) => {
                self.write("content-length", itoa::Buffer::new().format(length).as_bytes());
                Framing::Length(length)
            }
        };
        if !self.dated {
            self.write("date", date);
        }
        self.out.extend_from_slice(b"\r\n");
        if self.without_body() { Framing::None } else { framing }
    }
}

/// Whether a `Connection` line has the word.
fn closes(value: &HeaderValue) -> bool {
    value.as_bytes().split(|byte| *byte == b',').any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"))
}

fn number(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

/// The time of the day for `date`, as text that is made once a second.
#[derive(Debug)]
pub(in crate::downstream) struct Date {
    looked: Moment,
    second: u64,
    text: [u8; Date::LENGTH],
}

impl Default for Date {
    fn default() -> Self {
        let mut date = Date { looked: Moment::NEVER, second: 0, text: [b' '; Date::LENGTH] };
        date.render(SystemTime::now());
        date
    }
}

impl Date {
    /// `Sun, 06 Nov 1994 08:49:37 GMT`.
    pub(super) const LENGTH: usize = 29;

    /// The text as of `now`, the worker's coarse clock: the wall's clock is looked at when that has moved.
    pub(super) fn at(&mut self, now: Moment) -> &[u8; Date::LENGTH] {
        if self.looked != now {
            self.looked = now;
            let wall = SystemTime::now();
            let second = wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            if second != self.second {
                self.second = second;
                self.render(wall);
            }
        }
        &self.text
    }

    fn render(&mut self, wall: SystemTime) {
        use std::io::Write;
        // A year of five digits would be too long, and is cut.
        let _ = write!(&mut self.text[..], "{}", httpdate::HttpDate::from(wall));
    }
}

/// What is to be written: text, then a piece of a body that is too large to be copied, then what ends it.
#[derive(Debug, Default)]
pub(super) struct Out {
    text: Vec<u8>,
    /// Something was put in that may not have left us yet, even if it was written.
    dirty: bool,
    /// So much of the text is written.
    written: usize,
    piece: Bytes,
    tail: &'static [u8],
}

impl Out {
    /// Larger pieces are not copied.
    const COPIED: usize = 16 << 10;

    /// Whether more can be put in before it is written.
    pub(super) fn has_room(&self) -> bool {
        self.piece.is_empty() && self.tail.is_empty() && self.text.len() < Self::COPIED
    }

    fn is_empty(&self) -> bool {
        self.text.len() == self.written && self.piece.is_empty() && self.tail.is_empty()
    }

    /// The text, to be written to.
    pub(super) fn text<A: Application>(&mut self, stock: &Stock<A>) -> &mut Vec<u8> {
        self.dirty = true;
        if self.text.capacity() == 0 {
            self.text = stock.text();
        }
        &mut self.text
    }

    /// Gives the text back, all of which is written.
    pub(super) fn give_text<A: Application>(&mut self, stock: &Stock<A>) {
        self.written = 0;
        stock.put_text(std::mem::take(&mut self.text));
    }

    /// Puts a piece of a body in, in its framing. Whether it fits what was announced.
    pub(super) fn put(&mut self, framing: &mut Framing, mut data: Bytes) -> bool {
        let announced = match framing {
            _ if data.is_empty() => return true,
            Framing::None => return false,
            Framing::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
                *left -= here as u64;
                let whole = here == data.len();
                data.truncate(here);
                whole
            }
            Framing::Chunked => {
                write_hex(&mut self.text, data.len());
                self.tail = b"\r\n";
                true
            }
        };
        if data.len() <= Self::COPIED {
            self.text.extend_from_slice(&data);
            self.text.extend_from_slice(std::mem::take(&mut self.tail));
        } else {
            self.piece = data;
        }
        announced
    }

    /// Ends a body. Whether all that was announced has come.
    pub(super) fn end(&mut self, framing: Framing) -> bool {
        if framing == Framing::Chunked {
            match self.tail {
                [] => self.text.extend_from_slice(b"0\r\n\r\n"),
                _ => self.tail = b"\r\n0\r\n\r\n",
            }
        }
        matches!(framing, Framing::None | Framing::Length(0) | Framing::Chunked)
    }

    /// Writes all of it.
    pub(super) fn poll_write(&mut self, channel: &Channel, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.dirty {
            return Poll::Ready(Ok(()));
        }
        while !self.is_empty() {
            let text = &self.text[self.written..];
            let written = if self.piece.is_empty() && self.tail.is_empty() {
                ready!(channel.poll_write(cx, text))?
            } else {
                let pieces = [IoSlice::new(text), IoSlice::new(&self.piece), IoSlice::new(self.tail)];
                let first = usize::from(text.is_empty());
                ready!(channel.poll_write_vectored(cx, &pieces[first..]))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        ready!(channel.poll_flush(cx))?;
        self.dirty = false;
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut written: usize) {
        let of_text = written.min(self.text.len() - self.written);
        self.written += of_text;
        written -= of_text;
        let of_piece = written.min(self.piece.len());
        self.piece.advance(of_piece);
        if self.piece.is_empty() {
            self.piece = Bytes::new();
        }
        self.tail = &self.tail[written - of_piece..];
    }
}

/// A chunk's size and the end of its line.
fn write_hex(out: &mut Vec<u8>, mut number: usize) {
    let mut digits = [b'0'; 2 * size_of::<usize>()];
    let mut at = digits.len();
    while number > 0 {
        at -= 1;
        digits[at] = b"0123456789ABCDEF"[number & 15];
        number >>= 4;
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}
