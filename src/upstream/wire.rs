//! What is known about one connection while hyper drives it: bytes, the request's progress, and the raw head of the answer.
//!
//! Shared by the socket wrapper, the request body and the sender, all on one thread. hyper tells a sender only that a request
//! failed; these few cells tell when, and whose fault it was.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use memchr::memchr_iter;

use super::error::{BadResponse, SendErrorKind};
use super::io::Stream;
use crate::sweep::Sweep;
use crate::types::Moment;

pub(super) struct Wire {
    sweep: Rc<Sweep>,
    written: Cell<u64>,
    /// Bytes written when the present request began.
    began: Cell<u64>,
    /// Whether the answer to the present request has begun.
    answered: Cell<bool>,
    requests: Cell<u64>,
    flow: Cell<Flow>,
    /// Bytes of the request's body that hyper has taken.
    taken: Cell<u64>,
    scan: Cell<Scan>,
    bad: Cell<Option<BadResponse>>,
    retired: Cell<bool>,
    switch: RefCell<Switch>,
}

/// Where the request's body is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flow {
    /// More is to be sent, and it is the upstream that is waited for.
    Sending,
    /// More is to be sent, and it is the client that is waited for.
    Starved,
    /// All of it has been taken, as of then.
    Sent(Moment),
    /// It broke off.
    Broken,
}

/// A connection that turns into a tunnel.
#[derive(Default)]
struct Switch {
    asked: bool,
    /// The head of a 101 has passed.
    seen: bool,
    ended: bool,
    stream: Option<(Stream, Bytes)>,
    waker: Option<Waker>,
}

impl Wire {
    pub(super) fn new(sweep: Rc<Sweep>) -> Rc<Self> {
        Rc::new(Wire {
            sweep,
            written: Cell::new(0),
            began: Cell::new(0),
            answered: Cell::new(false),
            requests: Cell::new(0),
            flow: Cell::new(Flow::Sending),
            taken: Cell::new(0),
            scan: Cell::new(Scan::default()),
            bad: Cell::new(None),
            retired: Cell::new(false),
            switch: RefCell::default(),
        })
    }

    /// A request is about to be handed to hyper.
    pub(super) fn begin(&self, upgrade: bool) {
        self.began.set(self.written.get());
        self.answered.set(false);
        self.requests.set(self.requests.get() + 1);
        self.scan.set(Scan { on: true, ..Scan::default() });
        if upgrade {
            self.switch.borrow_mut().asked = true;
        }
    }

    /// Whether a request was sent here before the present one.
    pub(super) fn reused(&self) -> bool {
        self.requests.get() > 1
    }

    /// No request will follow the present one.
    pub(super) fn retire(&self) {
        self.retired.set(true);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.get()
    }

    /// Whether any byte of the present request went out.
    pub(super) fn delivered(&self) -> bool {
        self.written.get() > self.began.get()
    }

    /// Whether any byte of the answer to the present request came in.
    pub(super) fn answered(&self) -> bool {
        self.answered.get()
    }

    pub(super) fn wrote(&self, bytes: usize) {
        self.written.set(self.written.get() + bytes as u64);
    }

    pub(super) fn flow(&self) -> Flow {
        self.flow.get()
    }

    pub(super) fn set_flow(&self, flow: Flow) {
        self.flow.set(flow);
    }

    pub(super) fn took(&self, bytes: usize) {
        self.taken.set(self.taken.get() + bytes as u64);
    }

    /// The whole request has been taken.
    pub(super) fn sent(&self) {
        if !matches!(self.flow.get(), Flow::Sent(_)) {
            self.flow.set(Flow::Sent(self.sweep.now()));
        }
    }

    /// Grows with everything the upstream takes.
    pub(super) fn progress(&self) -> u64 {
        self.written.get() + self.taken.get()
    }

    /// What was seen in an answer that the parser above would have accepted.
    pub(super) fn bad_response(&self) -> Option<BadResponse> {
        self.bad.get()
    }

    /// Looks at bytes that came in.
    ///
    /// **Errors**: a bare line feed in the answer's head, or interim answers without end, which the parser above would accept.
    pub(super) fn read(&self, bytes: &[u8]) -> Result<(), BadResponse> {
        if !self.scan.get().on || bytes.is_empty() {
            return Ok(());
        }
        self.answered.set(true);
        let mut scan = self.scan.get();
        let seen = scan.see(bytes);
        self.scan.set(scan);
        match seen {
            Ok(Seen::Switch) => self.switch.borrow_mut().seen = true,
            Ok(Seen::Nothing) => {}
            Err(error) => {
                self.bad.set(Some(error));
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whether the connection has turned into a tunnel that was asked for.
    pub(super) fn switched(&self) -> bool {
        let switch = self.switch.borrow();
        switch.asked && switch.seen
    }

    /// hyper is done with the connection; it may go on as a tunnel.
    pub(super) fn end(&self, stream: Option<(Stream, Bytes)>) {
        let mut switch = self.switch.borrow_mut();
        switch.stream = stream;
        switch.ended = true;
        if let Some(waker) = switch.waker.take() {
            waker.wake();
        }
    }

    pub(super) fn ended(&self) -> bool {
        self.switch.borrow().ended
    }

    /// Waits for the tunnel that a connection has turned into; nothing where it broke instead.
    pub(super) fn poll_switched(&self, cx: &mut Context<'_>) -> Poll<Option<(Stream, Bytes)>> {
        let mut switch = self.switch.borrow_mut();
        if switch.ended {
            return Poll::Ready(switch.stream.take());
        }
        switch.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// What a first byte clock that ran out means: until when to go on waiting, or that it is over.
    ///
    /// The clock runs from the moment in which the whole request was taken. Before that, only an upstream that takes nothing
    /// for so long is late; a client that sends nothing is not the upstream's business.
    pub(super) fn overdue(&self, limit: Duration, progress: &mut u64) -> Result<Moment, SendErrorKind> {
        let now = self.sweep.now();
        let patience = limit + Sweep::TICK;
        match self.flow.get() {
            Flow::Sent(at) if at + patience <= now => Err(SendErrorKind::FirstByteTimeout),
            Flow::Sent(at) => Ok(at + patience),
            Flow::Sending if self.progress() == *progress => Err(SendErrorKind::SendTimeout),
            Flow::Sending | Flow::Starved | Flow::Broken => {
                *progress = self.progress();
                Ok(now + patience)
            }
        }
    }
}

/// Reads along with the parser as far as the end of the head, for what it does not tell: bare line feeds (httparse takes them
/// for line ends), interim answers without end (hyper reads on while there are any, and nothing else on the thread has its turn), and that
/// this is a 101, in time for the connection's driver.
#[derive(Clone, Copy, Default)]
struct Scan {
    on: bool,
    /// Bytes of the line so far.
    line: usize,
    last: u8,
    /// Past the status line.
    headers: bool,
    status: [u8; 3],
    /// Interim answers before this head.
    interim: u8,
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    Switch,
}

impl Scan {
    /// Where a status line has its status: behind `HTTP/1.1 `.
    const STATUS: usize = 9;
    /// As many interim answers as nobody sends before an answer.
    const MOST_INTERIM: u8 = 64;

    fn see(&mut self, bytes: &[u8]) -> Result<Seen, BadResponse> {
        let mut start = 0;
        for feed in memchr_iter(b'\n', bytes) {
            let line = &bytes[start..feed];
            self.pick_status(line);
            let length = self.line + line.len();
            let before = line.last().copied().unwrap_or(if self.line > 0 { self.last } else { 0 });
            if before != b'\r' {
                return Err(BadResponse::BareLineFeed);
            }
            start = feed + 1;
            self.line = 0;
            if length > 1 {
                self.headers = true;
            } else if self.headers {
                let status = self.status;
                let on = status[0] == b'1' && status != *b"101";
                if on && self.interim == Self::MOST_INTERIM {
                    return Err(BadResponse::InterimWithoutEnd);
                }
                *self = Scan { on, interim: self.interim + 1, ..Scan::default() };
                if !self.on {
                    return Ok(if status == *b"101" { Seen::Switch } else { Seen::Nothing });
                }
            }
        }
        let rest = &bytes[start..];
        self.pick_status(rest);
        self.line += rest.len();
        self.last = rest.last().copied().unwrap_or(self.last);
        Ok(Seen::Nothing)
    }

    fn pick_status(&mut self, line: &[u8]) {
        if self.headers || self.line > Self::STATUS + 2 {
            return;
        }
        for (at, digit) in self.status.iter_mut().enumerate() {
            let place = (Self::STATUS + at).checked_sub(self.line);
            if let Some(byte) = place.and_then(|place| line.get(place)) {
                *digit = *byte;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a scan says of bytes that come in pieces of `size`, and whether it is still looking.
    fn scan(text: &str, size: usize) -> (Result<bool, BadResponse>, bool) {
        let mut scan = Scan { on: true, ..Scan::default() };
        for piece in text.as_bytes().chunks(size) {
            match scan.see(piece) {
                Ok(Seen::Switch) => return (Ok(true), scan.on),
                Err(error) => return (Err(error), scan.on),
                Ok(Seen::Nothing) if !scan.on => break,
                Ok(Seen::Nothing) => {}
            }
        }
        (Ok(false), scan.on)
    }

    #[test]
    fn only_heads_are_looked_at_and_every_line_of_them() {
        let cases = [
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody\nwith\nlines", Ok(false), false),
            ("HTTP/1.1 200 OK\nA: b\r\n\r\n", Err(BadResponse::BareLineFeed), true),
            ("HTTP/1.1 200 OK\r\nA: b\n\r\n", Err(BadResponse::BareLineFeed), true),
            ("HTTP/1.1 200 OK\r\nA: b\r\n\n", Err(BadResponse::BareLineFeed), true),
            ("\r\nHTTP/1.1 200 OK\r\nA: b\r\n\r\n\n", Ok(false), false),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\n\r\n", Err(BadResponse::BareLineFeed), true),
            ("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", Ok(false), true),
            ("HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n\n\n", Ok(true), false),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching\r\n\r\n", Ok(true), false),
            ("HTTP/1.1 200 OK\r\n", Ok(false), true),
        ];
        for (text, said, on) in cases {
            for size in 1..=text.len() {
                assert_eq!(scan(text, size), (said, on), "{text:?} in pieces of {size}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_one_verdict(text in "[\r\nHTP/1.0 :a]{0,60}", size in 1usize..60) {
            prop_assert_eq!(scan(&text, size), scan(&text, text.len().max(1)));
        }
    }
}
