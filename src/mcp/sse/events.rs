use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{BOM, field};

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// All its bytes with the blank line, and whatever comments and blank lines came before it.
    pub raw: Bytes,
    /// `event:`; `None` means `message`.
    pub name: Option<String>,
    /// `data:`, with its lines joined; `None` where there was none: then it says nothing to a client (a comment, an id alone).
    pub data: Option<Bytes>,
    /// `id:`; an empty one takes back the one before.
    pub id: Option<String>,
}

/// A piece of an event stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A whole event.
    Event(Event),
    /// Bytes of an event that is longer than the bound, or of a line end that came late: to be passed on as they are.
    Passed(Bytes),
}

impl Part {
    /// The bytes that came.
    pub fn raw(&self) -> &Bytes {
        match self {
            Part::Event(event) => &event.raw,
            Part::Passed(raw) => raw,
        }
    }
}

/// Cuts an event stream into events, for where one must look inside.
///
/// All [`Part`]s together, and [`Events::rest`], are the stream, byte for byte.
/// **Bounds**: holds at most `max` bytes of an event and the chunk pushed last; longer events are passed on unread.
/// **Cost**: each byte is copied once and searched once; data of one line is not copied again.
#[derive(Debug)]
pub struct Events {
    held: BytesMut,
    max: usize,
    /// How much of `held` has been searched, and the state of the search there.
    searched: usize,
    line_begun: bool,
    after_cr: bool,
    /// Whether the stream's first event is still to come.
    first: bool,
    /// Whether the event's beginning has been passed on already.
    passing: bool,
}

impl Events {
    /// At the start of a stream; events of more than `max` bytes are not looked into.
    pub fn new(max: usize) -> Self {
        Events {
            held: BytesMut::new(),
            max,
            searched: 0,
            line_begun: false,
            after_cr: false,
            first: true,
            passing: false,
        }
    }

    /// Takes in what came; [`Events::pop`] gives out what that completes.
    pub fn push(&mut self, chunk: &[u8]) {
        self.held.extend_from_slice(chunk);
    }

    /// How many bytes are held.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether all that was given out ends between two events, so that a comment may follow or another stream take over.
    pub fn is_between(&self) -> bool {
        !self.passing
    }

    /// What has not been given out: the beginning of an event, which is none where the stream ends here.
    pub fn rest(&mut self) -> Bytes {
        self.searched = 0;
        self.held.split().freeze()
    }

    /// The next event that is complete.
    pub fn pop(&mut self) -> Option<Part> {
        if self.searched == 0 && self.after_cr && self.held.first() == Some(&b'\n') {
            // The rest of a line end whose first half ended an event: nobody shall wait for it.
            self.after_cr = false;
            return Some(Part::Passed(self.held.split_to(1).freeze()));
        }
        let Some(end) = self.find_end() else {
            return self.too_long();
        };
        let raw = self.held.split_to(end).freeze();
        self.searched = 0;
        let first = std::mem::take(&mut self.first);
        if std::mem::take(&mut self.passing) || raw.len() > self.max {
            return Some(Part::Passed(raw));
        }
        Some(Part::Event(interpret(raw, first)))
    }

    /// Where the event ends: after its blank line.
    fn find_end(&mut self) -> Option<usize> {
        while self.searched < self.held.len() {
            let rest = &self.held[self.searched..];
            if std::mem::take(&mut self.after_cr) && rest[0] == b'\n' {
                self.searched += 1;
                continue;
            }
            let Some(length) = memchr::memchr2(b'\n', b'\r', rest) else {
                self.searched = self.held.len();
                self.line_begun = true;
                return None;
            };
            self.after_cr = rest[length] == b'\r';
            let whole_end = self.after_cr && rest.get(length + 1) == Some(&b'\n');
            let blank = length == 0 && !self.line_begun || self.is_bom(length);
            self.line_begun = false;
            self.searched += length + 1;
            if blank {
                if whole_end {
                    self.after_cr = false;
                    self.searched += 1;
                }
                return Some(self.searched);
            }
        }
        None
    }

    /// Whether the line that ends `length` bytes on is the stream's first and has nothing but a byte order mark.
    fn is_bom(&self, length: usize) -> bool {
        self.first && !self.passing && self.searched + length == BOM.len() && self.held.starts_with(BOM)
    }

    /// The bytes of an event that will not fit.
    fn too_long(&mut self) -> Option<Part> {
        if self.held.is_empty() || !self.passing && self.held.len() <= self.max {
            return None;
        }
        self.passing = true;
        Some(Part::Passed(self.rest()))
    }
}

/// Reads one event; `first` says that it is at the start of the stream.
fn interpret(raw: Bytes, first: bool) -> Event {
    let mut event = Event { raw: raw.clone(), name: None, data: None, id: None };
    let mut joined: Option<BytesMut> = None;
    let mut rest = if first && raw.starts_with(BOM) { raw.slice(BOM.len()..) } else { raw };
    while let Some(length) = memchr::memchr2(b'\n', b'\r', &rest) {
        let line = rest.split_to(length);
        let pair = rest.starts_with(b"\r\n");
        rest.advance(if pair { 2 } else { 1 });
        match field(&line) {
            (b"event", value) => event.name = Some(text(value)).filter(|name| !name.is_empty()),
            (b"id", value) if !value.contains(&0) => event.id = Some(text(value)),
            (b"data", value) => {
                let value = line.slice(line.len() - value.len()..);
                match (&mut joined, &event.data) {
                    (Some(joined), _) => {
                        joined.put_u8(b'\n');
                        joined.put(value);
                    }
                    (None, Some(before)) => {
                        let mut both = BytesMut::with_capacity(before.len() + 1 + value.len());
                        both.put_slice(before);
                        both.put_u8(b'\n');
                        both.put(value);
                        joined = Some(both);
                    }
                    (None, None) => event.data = Some(value),
                }
            }
            _ => {}
        }
    }
    if let Some(joined) = joined {
        event.data = Some(joined.freeze());
    }
    event
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}
