//! Server-Sent Events as they pass: where one ends and the next begins, what is in them, and how our own are written.
//!
//! **Source**: WHATWG HTML § 9.2.5 and 9.2.6 (parsing and interpreting an event stream).

mod events;

use bytes::{BufMut, Bytes, BytesMut};
pub use events::{Event, Events, Part};

/// The longest event id that is remembered.
pub const MAX_ID: usize = 1024;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// Follows an event stream whose bytes are passed on unchanged, and knows whether one may break in.
///
/// **Bounds**: constant memory but for an id of up to [`MAX_ID`] bytes.
/// **Cost**: a search for line ends; fields that are not of interest are not looked at.
#[derive(Debug, Clone, Default)]
pub struct Scanner {
    line: Line,
    /// The line that is being read, as far as it may be a field of interest.
    field: Vec<u8>,
    /// Whether fields have been read since the last blank line.
    pending: bool,
    after_cr: bool,
    started: bool,
    bom: u8,
    id: LastId,
    next_id: Option<LastId>,
    retry: Option<u64>,
}

/// What the line is that is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Line {
    /// Nothing of it has been read.
    #[default]
    Start,
    /// It may be an id or a retry time: it is gathered.
    Field,
    /// Another field.
    Other,
    /// A comment.
    Comment,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum LastId {
    #[default]
    None,
    TooLong,
    Is(String),
}

impl Scanner {
    /// At the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads on. How much of `chunk` ends between two events; 0 where it does nowhere.
    pub fn feed(&mut self, chunk: &[u8]) -> usize {
        let mut boundary = 0;
        let mut at = self.skip_bom(chunk);
        while at < chunk.len() {
            if std::mem::take(&mut self.after_cr) && chunk[at] == b'\n' {
                at += 1;
            } else if let Some(length) = memchr::memchr2(b'\n', b'\r', &chunk[at..]) {
                self.read(&chunk[at..at + length]);
                at += length + 1;
                self.after_cr = chunk[at - 1] == b'\r';
                self.end_line();
            } else {
                self.read(&chunk[at..]);
                return boundary;
            }
            if self.between() {
                boundary = at;
            }
        }
        boundary
    }

    /// Whether a comment may be put in here, or another stream take over: no event has begun that is not over.
    ///
    /// Comments are nothing to an event: after one the stream is where it was. It is true at the start, where only a byte order mark could
    /// still come, which nobody sends and which would become part of the first field.
    pub fn between(&self) -> bool {
        self.line == Line::Start && !self.pending && (self.bom == 0 || self.started)
    }

    /// The id of the last event that had one, for `Last-Event-ID`; `None` where that is empty or longer than [`MAX_ID`].
    pub fn last_id(&self) -> Option<&str> {
        if let LastId::Is(id) = &self.id { Some(id) } else { None }
    }

    /// The last reconnection time the server has asked for, in milliseconds.
    pub fn retry(&self) -> Option<u64> {
        self.retry
    }

    /// How much of the chunk belongs to a byte order mark at the start of the stream.
    fn skip_bom(&mut self, chunk: &[u8]) -> usize {
        let mut at = 0;
        while !self.started && at < chunk.len() {
            let seen = usize::from(self.bom);
            if seen == BOM.len() {
                self.started = true;
            } else if chunk[at] == BOM[seen] {
                self.bom += 1;
                at += 1;
            } else {
                // It was none: those bytes are the beginning of some unknown field.
                self.started = true;
                if seen > 0 {
                    self.read(&BOM[..seen]);
                }
            }
        }
        self.started |= usize::from(self.bom) == BOM.len();
        at
    }

    /// Reads a piece of a line.
    fn read(&mut self, piece: &[u8]) {
        let Some(&first) = piece.first() else { return };
        if self.line == Line::Start {
            self.field.clear();
            self.line = match first {
                b':' => Line::Comment,
                b'i' | b'r' => Line::Field,
                _ => Line::Other,
            };
        }
        if self.line == Line::Field {
            // "id: " and one byte more than is kept, so that what is too long is seen.
            let room = (MAX_ID + 5).saturating_sub(self.field.len());
            self.field.extend_from_slice(&piece[..piece.len().min(room)]);
        }
    }

    fn end_line(&mut self) {
        match std::mem::take(&mut self.line) {
            Line::Start => {
                self.pending = false;
                if let Some(id) = self.next_id.take() {
                    self.id = id;
                }
            }
            Line::Comment => {}
            Line::Other => self.pending = true,
            Line::Field => {
                self.pending = true;
                self.take_field();
            }
        }
    }

    fn take_field(&mut self) {
        match field(&self.field) {
            (b"id", value) if !value.contains(&0) => {
                self.next_id = Some(match value.len() {
                    0 => LastId::None,
                    1..=MAX_ID => LastId::Is(String::from_utf8_lossy(value).into_owned()),
                    _ => LastId::TooLong,
                });
            }
            (b"retry", value) => self.retry = milliseconds(value).or(self.retry),
            _ => {}
        }
    }
}

fn milliseconds(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    digits.then(|| value.iter().fold(0u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

/// A line's name and value.
fn field(line: &[u8]) -> (&[u8], &[u8]) {
    let Some(colon) = memchr::memchr(b':', line) else { return (line, b"") };
    let value = &line[colon + 1..];
    (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
}

/// Writes an event.
///
/// Each line of `data` gets a `data:` of its own; of `name` and `id` only the first line is taken, for more could not be said.
pub fn event(name: Option<&str>, data: &[u8], id: Option<&str>) -> Bytes {
    let mut out = BytesMut::with_capacity(data.len() + 32);
    for (field, value) in [("event: ", name), ("id: ", id)] {
        if let Some(value) = value {
            out.put_slice(field.as_bytes());
            out.put_slice(lines(value.as_bytes()).next().unwrap_or_default());
            out.put_u8(b'\n');
        }
    }
    for line in lines(data) {
        out.put_slice(b"data: ");
        out.put_slice(line);
        out.put_u8(b'\n');
    }
    out.put_u8(b'\n');
    out.freeze()
}

/// Writes a comment, which clients ignore and idle timers do not.
pub fn comment(text: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(text.len() + 8);
    for line in lines(text.as_bytes()) {
        out.put_slice(b": ");
        out.put_slice(line);
        out.put_u8(b'\n');
    }
    out.put_u8(b'\n');
    out.freeze()
}

/// The lines of a text, by all three ways to end one; an empty text has one.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = memchr::memchr2(b'\n', b'\r', text) else {
            rest = None;
            return Some(text);
        };
        let after = &text[end..];
        rest = Some(after.strip_prefix(b"\r\n").unwrap_or(&after[1..]));
        Some(&text[..end])
    })
}

#[cfg(test)]
#[path = "sse_tests.rs"]
mod tests;
