//! One connection to an upstream: a request goes out on it, an answer comes in, one after the other.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONNECTION;
use http::response::Parts;
use http::{Method, StatusCode, Version};
use tokio::io::AsyncReadExt;
use tokio::task::AbortHandle;

use super::decode::{Decoder, Length, Piece};
use super::response::{Plain, read_head, read_plain};
use super::upload::{Broke, Upload};
use crate::socket::Peek;
use crate::sweep::{Deadline, Sweep};
use crate::types::Lines;
use crate::upstream::answer::{self, Kind};
use crate::upstream::connections::{HEAD_SIZE, Outgoing};
use crate::upstream::counted::Counted;
use crate::upstream::error::{self, BadResponse, SendError, SendErrorKind};
use crate::upstream::io::Stream;
use crate::upstream::outflow::RequestBody;
use crate::upstream::wire::overdue;

/// A connection, shared by whoever reads the answer and whoever still sends the request.
pub(in crate::upstream) struct Link<B> {
    pub(super) inner: RefCell<Inner<B>>,
    /// The task that sends the rest of a request whose answer has begun.
    pub(super) sender: RefCell<Option<AbortHandle>>,
    /// All of the answer has come.
    pub(super) answered: Cell<bool>,
    pub(super) counted: Counted,
}

pub(super) struct Inner<B> {
    pub(super) stream: Stream,
    pub(super) upload: Upload<B>,
    decoder: Decoder,
    /// Read and not yet used.
    input: Bytes,
    /// Requests so far.
    requests: u64,
    /// Whether another request may follow.
    reusable: bool,
    /// Interim answers to the present request.
    interim: u32,
    /// Whoever waits for more of the answer.
    reader: Option<Waker>,
}

/// What an upstream does where nobody waits for anything of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noise {
    Closed,
    Bytes,
}

/// Interim answers to one request; more are no answer.
pub(super) const MOST_INTERIM: u32 = 64;

thread_local! {
    /// Where this thread reads: a connection that waits holds no buffer.
    static BLOCK: RefCell<BytesMut> = RefCell::default();
}

/// Read at once.
const BLOCK_SIZE: usize = 128 << 10;
/// Read at once through TLS, whose reader clears the whole space beforehand.
const TLS_BLOCK: usize = 32 << 10;
/// What is copied out of the block; more is split off, so that the block is used up.
const COPIED: usize = 16 << 10;

/// Reads once; how much came is in the block.
fn poll_read(stream: &mut Stream, cx: &mut Context<'_>, block: &mut BytesMut) -> Poll<io::Result<usize>> {
    let most = if matches!(stream, Stream::Plain(_)) { BLOCK_SIZE } else { TLS_BLOCK };
    block.reserve(most);
    let mut space = block.limit(most);
    pin!(stream.read_buf(&mut space)).poll(cx)
}

/// Takes what is in the block.
fn take(block: &mut BytesMut) -> Bytes {
    if block.len() > COPIED {
        return block.split().freeze();
    }
    let bytes = Bytes::copy_from_slice(block);
    block.clear();
    bytes
}

/// What is behind a head of this length, of which `copied` may be a copy with all that is in the block.
fn behind(block: &mut BytesMut, copied: &Bytes, length: usize) -> Bytes {
    if copied.len() == block.len() {
        block.clear();
        return copied.slice(length..);
    }
    let _ = block.split_to(length);
    take(block)
}

/// An answer's head, and what kind of answer it is.
pub(super) struct Head {
    pub(super) parts: Parts,
    /// Its headers, where they have stayed text.
    pub(super) lines: Option<Lines>,
    /// It is a 101 that was asked for.
    pub(super) switches: bool,
}

impl<B: RequestBody> Link<B> {
    pub(super) fn new(stream: Stream, counted: Counted) -> Rc<Self> {
        Rc::new(Link {
            inner: RefCell::new(Inner {
                stream,
                upload: Upload::none(),
                decoder: Decoder::Known(0),
                input: Bytes::new(),
                requests: 0,
                reusable: true,
                interim: 0,
                reader: None,
            }),
            sender: RefCell::default(),
            answered: Cell::new(false),
            counted,
        })
    }

    /// Sends the request and waits for its answer's head.
    pub(super) async fn exchange(
        &self,
        outgoing: &Outgoing<'_>,
        clock: &Deadline,
        sweep: &Sweep,
    ) -> Result<Head, SendError> {
        let mut progress = 0;
        clock.set_after(outgoing.first_byte);
        poll_fn(|cx| {
            let inner = &mut *self.inner.borrow_mut();
            if let Poll::Ready(head) = inner.poll_head(cx, outgoing, sweep) {
                return Poll::Ready(head);
            }
            // Without a bound the clock, which is not set, is waited for all the same: at the end of a drain it wakes us.
            while clock.poll_expired(cx).is_ready() {
                let late = outgoing.first_byte.map_or(Err(SendErrorKind::FirstByteTimeout), |limit| {
                    overdue(sweep.now(), limit, inner.upload.flow, inner.upload.progress(), &mut progress)
                });
                match late {
                    Ok(until) => clock.set(until),
                    Err(late) => return Poll::Ready(Err(inner.failed(late))),
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl<B: RequestBody> Inner<B> {
    /// The next request begins.
    pub(super) fn begin(&mut self, upload: Upload<B>) {
        self.upload = upload;
        self.requests += 1;
        self.interim = 0;
    }

    /// Whether a request was sent here before the present one.
    pub(super) fn is_reused(&self) -> bool {
        self.requests > 1
    }

    /// An error of the present request.
    pub(super) fn failed(&self, kind: SendErrorKind) -> SendError {
        let answered = !self.input.is_empty() || self.interim > 0;
        SendError::new(kind, self.upload.written > 0).on_reused(self.is_reused() && !answered)
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        outgoing: &Outgoing<'_>,
        sweep: &Sweep,
    ) -> Poll<Result<Head, SendError>> {
        let mut broken = None;
        if !self.upload.is_sent() {
            match self.upload.poll(cx, &mut self.stream, || sweep.now()) {
                Poll::Ready(Err(Broke::Body(error))) => {
                    return Poll::Ready(Err(self.failed(SendErrorKind::RequestBody).because(error)));
                }
                // It may have answered before it closed.
                Poll::Ready(Err(Broke::Connection(error))) => broken = Some(error),
                _ => {}
            }
        }
        BLOCK.with_borrow_mut(|block| {
            loop {
                block.clear();
                block.extend_from_slice(&self.input);
                let read = match (poll_read(&mut self.stream, cx, block), broken.take()) {
                    (Poll::Ready(Ok(read)), _) if read > 0 => read,
                    (Poll::Ready(Err(error)), _) | (_, Some(error)) => {
                        let kind = error::open(&error);
                        return Poll::Ready(Err(self.failed(kind).because(error)));
                    }
                    (Poll::Ready(Ok(_)), None) => return Poll::Ready(Err(self.failed(SendErrorKind::ClosedEarly))),
                    (Poll::Pending, None) => return Poll::Pending,
                };
                // Only a line's end can make a head complete.
                let new = &block[block.len() - read..];
                if memchr::memchr(b'\n', new).is_none() && block.len() < HEAD_SIZE {
                    self.input = take(block);
                    continue;
                }
                if let Some(head) = self.read_heads(block, outgoing).map_err(|bad| {
                    let kind = SendErrorKind::BadResponse(bad);
                    SendError::new(kind, true)
                })? {
                    return Poll::Ready(Ok(head));
                }
            }
        })
    }

    /// Reads heads from the block until one is the answer's; what is behind it is kept, or all of it where there is none.
    fn read_heads(&mut self, block: &mut BytesMut, outgoing: &Outgoing<'_>) -> Result<Option<Head>, BadResponse> {
        if outgoing.answer_in_lines
            && let Some(plain) = read_plain(block)
        {
            return Ok(Some(self.take_plain(plain, block, outgoing.method)));
        }
        loop {
            let Some((mut parts, length, copied)) = read_head(block)? else {
                self.input = take(block);
                return Ok(None);
            };
            let asked = outgoing.upgrade.then_some(outgoing.headers);
            let kind = answer::check(&mut parts, asked)?;
            let behind = behind(block, &copied, length);
            match kind {
                Kind::Interim => {
                    self.interim += 1;
                    if self.interim > MOST_INTERIM {
                        return Err(BadResponse::InterimWithoutEnd);
                    }
                    block.clear();
                    block.extend_from_slice(&behind);
                    if block.is_empty() {
                        self.input = Bytes::new();
                        return Ok(None);
                    }
                }
                Kind::Switch => {
                    self.input = behind;
                    return Ok(Some(Head { parts, lines: None, switches: true }));
                }
                Kind::Final(length) => {
                    self.input = behind;
                    let closes =
                        parts.version != Version::HTTP_11 || parts.headers.get_all(CONNECTION).iter().any(says_close);
                    self.settle(parts.status, closes, outgoing.method, length);
                    return Ok(Some(Head { parts, lines: None, switches: false }));
                }
            }
        }
    }

    /// Takes an answer's head whose headers stay text.
    fn take_plain(&mut self, plain: Plain, block: &mut BytesMut, method: &Method) -> Head {
        let Plain { status, length, copied, lines, framing, closes } = plain;
        self.input = behind(block, &copied, length);
        self.settle(status, closes, method, framing);
        let (mut parts, ()) = http::Response::new(()).into_parts();
        parts.status = status;
        Head { parts, lines: Some(lines), switches: false }
    }

    /// What the answer's head says of its body and of the connection.
    fn settle(&mut self, status: StatusCode, closes: bool, method: &Method, length: Length) {
        self.decoder = Decoder::answering(method, status, length);
        self.reusable = !closes && !self.decoder.may_end();
    }

    /// Whether all of the answer has been given out.
    pub(super) fn is_over(&self) -> bool {
        self.decoder.is_done()
    }

    pub(super) fn left(&self) -> Option<u64> {
        self.decoder.left()
    }

    /// The next piece of the answer's body; nothing at its end.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, PieceError>>> {
        loop {
            match self.decoder.next(&mut self.input) {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(piece))),
                Ok(None) if self.decoder.is_done() => return Poll::Ready(None),
                Ok(None) => {}
                Err(_) => return Poll::Ready(Some(Err(PieceError::Malformed))),
            }
            let read = BLOCK.with_borrow_mut(|block| {
                block.clear();
                let read = ready!(poll_read(&mut self.stream, cx, block))?;
                self.input = take(block);
                Poll::Ready(Ok(read))
            });
            match read {
                Poll::Ready(Ok(0)) if self.decoder.may_end() => {
                    self.decoder = Decoder::Known(0);
                    return Poll::Ready(None);
                }
                Poll::Ready(Ok(0)) => return Poll::Ready(Some(Err(PieceError::Cut(None)))),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(PieceError::Cut(Some(error))))),
                Poll::Pending => {
                    // Nobody else has any news where all has been sent.
                    if !self.upload.is_sent() {
                        self.reader = Some(cx.waker().clone());
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Wakes whoever waits for more of the answer.
    pub(super) fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    /// Whether the next request may go out here, if the upstream is [quiet](Inner::noise) then: all was sent, all has come, and nothing
    /// [more](Inner::has_more) is there.
    pub(super) fn is_reusable(&self) -> bool {
        self.reusable && self.upload.is_sent() && !self.has_more()
    }

    /// Whether something has come that belongs to no answer.
    pub(super) fn has_more(&self) -> bool {
        !self.input.is_empty()
    }

    /// What the upstream has let us know unasked, as far as is known without asking the system.
    pub(super) fn noise(&mut self) -> Option<Noise> {
        match self.poll_noise(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(noise) => Some(noise),
            Poll::Pending => None,
        }
    }

    /// The same, and the system is asked: for what cannot be sent a second time.
    pub(super) fn sure_noise(&mut self) -> Option<Noise> {
        match self.stream.peek() {
            Peek::Nothing => self.noise(),
            Peek::Bytes => Some(Noise::Bytes),
            Peek::Closed => Some(Noise::Closed),
        }
    }

    /// Ready once the upstream has closed, or says something where nobody expects it.
    pub(super) fn poll_noise(&mut self, cx: &mut Context<'_>) -> Poll<Noise> {
        BLOCK.with_borrow_mut(|block| {
            block.clear();
            poll_read(&mut self.stream, cx, block).map(|read| match read {
                Ok(1..) => Noise::Bytes,
                Ok(0) | Err(_) => Noise::Closed,
            })
        })
    }

    /// The connection behind a 101, and what came with it.
    pub(super) fn into_switched(self) -> (Stream, Bytes) {
        (self.stream, self.input)
    }
}

/// Why there is no next piece.
pub(super) enum PieceError {
    Cut(Option<io::Error>),
    Malformed,
}

fn says_close(value: &http::HeaderValue) -> bool {
    value.as_bytes().split(|byte| *byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
}
