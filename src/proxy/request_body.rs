//! A request's body on its way to an upstream: passed on piece by piece, bounded, timed, and kept while it may be needed again.
//!
//! The body is read from the client at most once. What has been read is kept up to `retry.body`, so that another attempt can send it
//! again and then go on reading where the last one stopped. Nothing is read ahead of what the upstream takes, but for a little while the
//! request waits for an upstream: otherwise nobody would notice that its client has left.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::Refusal;
use super::normalize::strip_trailers;
use crate::downstream::{ClientBody, ClientBodyError};
use crate::mcp::peek::Follow;
use crate::sweep::Deadline;

/// The client's body, shared by the attempts to send it.
#[derive(Debug)]
pub struct Inbound {
    source: RefCell<ClientBody>,
    /// Read while the request waited for an upstream, and not taken by any yet.
    ahead: RefCell<VecDeque<Frame<Bytes>>>,
    ahead_bytes: Cell<u64>,
    /// So much is read ahead.
    ahead_most: Cell<u64>,
    /// What looks at each piece, where the body is an MCP message that is too long to be looked into whole.
    follow: RefCell<Option<Box<Follow>>>,
    /// The source has said that nothing more comes.
    exhausted: Cell<bool>,
    kept: RefCell<Vec<Bytes>>,
    trailers: RefCell<Option<HeaderMap>>,
    kept_bytes: Cell<u64>,
    keep_at_most: u64,
    lost: Cell<bool>,
    ended: Cell<bool>,
    received: Cell<u64>,
    max_body: u64,
    between: Duration,
    deadline: Deadline,
    attempt: Cell<u32>,
    fault: Cell<Option<Refusal>>,
    /// The upstream has answered: client and upstream may now talk at their own pace.
    patient: Cell<bool>,
}

/// Pieces kept at most: what is kept of a body that comes byte by byte would else be many times its size.
const MOST_PIECES: usize = 1024;

/// So much of a body is read ahead while its request waits.
const AHEAD: u64 = 64 << 10;

/// What a body may be.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes at most.
    pub max_body: u64,
    /// Bytes kept for another attempt, at most.
    pub keep: u64,
    /// Time between two pieces.
    pub between: Duration,
}

impl Inbound {
    /// Takes a client's body.
    ///
    /// **Errors**: [`Refusal::BodyTooLarge`] where its announced length is over the bound already.
    pub fn new(source: ClientBody, bounds: Bounds, deadline: Deadline) -> Result<Rc<Self>, Refusal> {
        if source.size_hint().lower() > bounds.max_body {
            return Err(Refusal::BodyTooLarge);
        }
        Ok(Rc::new(Inbound {
            source: RefCell::new(source),
            ahead: RefCell::default(),
            ahead_bytes: Cell::new(0),
            ahead_most: Cell::new(AHEAD),
            follow: RefCell::default(),
            exhausted: Cell::new(false),
            kept: RefCell::default(),
            trailers: RefCell::default(),
            kept_bytes: Cell::new(0),
            keep_at_most: bounds.keep,
            lost: Cell::new(false),
            ended: Cell::new(false),
            received: Cell::new(0),
            max_body: bounds.max_body,
            between: bounds.between,
            deadline,
            attempt: Cell::new(0),
            fault: Cell::new(None),
            patient: Cell::new(false),
        }))
    }

    /// A body for one more attempt, from the first byte. Earlier attempts' bodies end with an error from now on.
    pub fn attempt(self: &Rc<Self>) -> RequestBody {
        self.attempt.set(self.attempt.get() + 1);
        RequestBody(Source::Client(Pass {
            inbound: self.clone(),
            attempt: self.attempt.get(),
            next: 0,
            trailers_sent: false,
        }))
    }

    /// Whether all that has been read is still there to be sent again.
    pub fn replayable(&self) -> bool {
        !self.lost.get()
    }

    /// What went wrong on the client's side, if anything.
    pub fn fault(&self) -> Option<Refusal> {
        self.fault.get()
    }

    /// Bytes read from the client.
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// Whether the client has sent all of it.
    pub fn ended(&self) -> bool {
        self.ended.get() || self.is_read()
    }

    /// Whether the client has sent all of it, as far as its connection knows without reading on.
    pub fn is_here(&self) -> bool {
        self.source.borrow().is_here()
    }

    /// Whether nothing is left of it that was not taken.
    fn is_read(&self) -> bool {
        self.ahead.borrow().is_empty() && self.is_exhausted()
    }

    /// Whether nothing more comes from the client.
    fn is_exhausted(&self) -> bool {
        self.exhausted.get() || self.source.borrow().is_end_stream()
    }

    /// From now on [`Inbound::gather`] reads until all of it is there, or as much as it may be, 64 MiB where that has no bound.
    pub fn gather_all(&self) {
        self.ahead_most.set(self.max_body.saturating_add(1).min(64 << 20));
    }

    /// Its pieces are looked at, from the first one on, as [`Follow`] does: one that it refuses is [`Refusal::BadMessage`].
    pub fn follow(&self) {
        *self.follow.borrow_mut() = Some(Box::default());
    }

    /// Reads ahead until all of it is there, or [`AHEAD`]; what is there, and whether it is all.
    ///
    /// **Errors**: what is wrong on the client's side, its slowness included.
    pub async fn gather(&self) -> Result<(Bytes, bool), Refusal> {
        std::future::poll_fn(|cx| {
            self.poll_ahead(cx)?;
            if self.is_exhausted() || self.ahead_bytes.get() >= self.ahead_most.get() {
                self.deadline.set(crate::types::Moment::NEVER);
                return Poll::Ready(Ok(()));
            }
            if self.deadline.at() == crate::types::Moment::NEVER {
                self.deadline.set_after(Some(self.between));
            }
            self.deadline.poll_expired(cx).map(|()| Err(self.fail(Refusal::BodyTimeout).0))
        })
        .await?;
        let ahead = self.ahead.borrow();
        let mut pieces = ahead.iter().filter_map(Frame::data_ref);
        let bytes = match (pieces.next(), pieces.next()) {
            (None, _) => Bytes::new(),
            (Some(only), None) => only.clone(),
            _ => ahead.iter().filter_map(Frame::data_ref).flatten().copied().collect(),
        };
        Ok((bytes, self.is_exhausted()))
    }

    /// Reads ahead a little while the request waits for an upstream, because only who is read from can be seen to leave.
    ///
    /// **Bounds**: [`AHEAD`] and one piece. **Errors**: what is wrong on the client's side.
    pub fn poll_ahead(&self, cx: &mut Context<'_>) -> Result<(), Refusal> {
        while !self.is_exhausted() && self.ahead_bytes.get() < self.ahead_most.get() {
            match Pin::new(&mut *self.source.borrow_mut()).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                    self.ahead_bytes.set(self.ahead_bytes.get() + bytes);
                    self.ahead.borrow_mut().push_back(frame);
                }
                Poll::Ready(Some(Err(_))) => return Err(self.fail(Refusal::BodyBroken).0),
                Poll::Ready(None) => self.exhausted.set(true),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    fn poll_raw(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientBodyError>>> {
        if let Some(frame) = self.ahead.borrow_mut().pop_front() {
            let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
            self.ahead_bytes.set(self.ahead_bytes.get() - bytes);
            return Poll::Ready(Some(Ok(frame)));
        }
        Pin::new(&mut *self.source.borrow_mut()).poll_frame(cx)
    }

    /// The answer has begun. A client that is silent meanwhile is no slow one any more: the idle timeout is for both ways then.
    pub fn be_patient(&self) {
        self.patient.set(true);
    }

    fn poll_source(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        match self.poll_raw(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.deadline.set(crate::types::Moment::NEVER);
                Poll::Ready(self.took(frame).transpose())
            }
            Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(self.fail(Refusal::BodyBroken)))),
            Poll::Ready(None) => {
                self.ended.set(true);
                Poll::Ready(None)
            }
            Poll::Pending if self.patient.get() => Poll::Pending,
            Poll::Pending => {
                if self.deadline.at() == crate::types::Moment::NEVER {
                    self.deadline.set_after(Some(self.between));
                }
                self.deadline.poll_expired(cx).map(|()| Some(Err(self.fail(Refusal::BodyTimeout))))
            }
        }
    }

    /// Counts and keeps a piece that came from the client.
    fn took(&self, frame: Frame<Bytes>) -> Result<Option<Frame<Bytes>>, RequestBodyError> {
        let frame = match frame.into_data() {
            Ok(data) => {
                self.received.set(self.received.get() + data.len() as u64);
                if self.received.get() > self.max_body {
                    return Err(self.fail(Refusal::BodyTooLarge));
                }
                if let Some(follow) = &mut *self.follow.borrow_mut()
                    && follow.feed(&data).is_err()
                {
                    return Err(self.fail(Refusal::BadMessage));
                }
                self.keep(&data);
                Frame::data(data)
            }
            Err(frame) => match frame.into_trailers() {
                Ok(mut trailers) => {
                    strip_trailers(&mut trailers);
                    self.ended.set(true);
                    *self.trailers.borrow_mut() = Some(trailers.clone());
                    Frame::trailers(trailers)
                }
                Err(_) => return Ok(None),
            },
        };
        Ok(Some(frame))
    }

    fn keep(&self, data: &Bytes) {
        if self.lost.get() {
            return;
        }
        self.kept_bytes.set(self.kept_bytes.get() + data.len() as u64);
        let mut kept = self.kept.borrow_mut();
        if self.kept_bytes.get() > self.keep_at_most || kept.len() == MOST_PIECES {
            self.lost.set(true);
            *kept = Vec::new();
        } else {
            kept.push(data.clone());
        }
    }

    fn fail(&self, fault: Refusal) -> RequestBodyError {
        self.fault.set(Some(fault));
        RequestBodyError(fault)
    }
}

/// A request's body as an upstream connection takes it; [`RequestBody::EMPTY`] for none.
#[derive(Debug)]
pub struct RequestBody(Source);

#[derive(Debug)]
enum Source {
    /// One piece of our own.
    Own(Bytes),
    /// The client's.
    Client(Pass),
}

#[derive(Debug)]
struct Pass {
    inbound: Rc<Inbound>,
    attempt: u32,
    next: usize,
    trailers_sent: bool,
}

impl RequestBody {
    /// No body.
    pub const EMPTY: RequestBody = RequestBody(Source::Own(Bytes::new()));

    /// A body of our own.
    pub fn own(bytes: Bytes) -> Self {
        RequestBody(Source::Own(bytes))
    }
}

/// The client's side of the body failed; the refusal says how.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the client's request body: {}", .0.row().label)]
pub struct RequestBodyError(pub Refusal);

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let pass = match &mut self.0 {
            Source::Own(bytes) if bytes.is_empty() => return Poll::Ready(None),
            Source::Own(bytes) => return Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Source::Client(pass) => pass,
        };
        let inbound = &pass.inbound;
        if pass.attempt != inbound.attempt.get() {
            // Another attempt has taken over: this one's connection is being given up.
            return Poll::Ready(Some(Err(RequestBodyError(Refusal::UpstreamClosed))));
        }
        if let Some(fault) = inbound.fault.get() {
            return Poll::Ready(Some(Err(RequestBodyError(fault))));
        }
        if let Some(piece) = inbound.kept.borrow().get(pass.next) {
            pass.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        if inbound.ended.get() {
            let trailers =
                inbound.trailers.borrow().clone().filter(|_| !std::mem::replace(&mut pass.trailers_sent, true));
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let polled = inbound.poll_source(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            pass.next += usize::from(frame.is_data());
            pass.trailers_sent |= frame.is_trailers();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Own(bytes) => bytes.is_empty(),
            Source::Client(pass) => {
                let inbound = &pass.inbound;
                let all_replayed = pass.next >= inbound.kept.borrow().len() || inbound.lost.get();
                all_replayed && inbound.trailers.borrow().is_none() && inbound.ended()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        let pass = match &self.0 {
            Source::Own(bytes) => return SizeHint::with_exact(bytes.len() as u64),
            Source::Client(pass) => pass,
        };
        let left = pass.inbound.source.borrow().size_hint();
        let replay: u64 = pass.inbound.kept.borrow().iter().skip(pass.next).map(|piece| piece.len() as u64).sum();
        match left.exact() {
            Some(left) => SizeHint::with_exact(left + pass.inbound.ahead_bytes.get() + replay),
            None => SizeHint::default(),
        }
    }
}
