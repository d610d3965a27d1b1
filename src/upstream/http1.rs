//! HTTP/1.1 to upstreams, over hyper's client connections.
//!
//! What hyper 1.12 needs care with, each held by a test in `tests`:
//! - a connection must be polled once more behind a body before it takes the next request;
//! - a request that it hands back was not begun;
//! - a `GET` with a body of unknown length goes out without its body unless `Transfer-Encoding` is set;
//! - to an upstream that once answered in HTTP/1.0 it speaks 1.0 from then on, and drops bodies of unknown length: such
//!   connections are not used again;
//! - trailers go out only if `Trailer` names them;
//! - bare line feeds and doubled framings in answers are accepted;
//! - 1xx answers are swallowed, and its server side has no way to send one: 103 does not get through.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{HeaderMap, Request, Response, Uri};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;

use super::connect::connect;
use super::connections::{HEAD_SIZE, Outgoing};
use super::error::{self, BadResponse, Failure, SendError, SendErrorKind};
use super::io::{Stream, Watched};
use super::outflow::{Outflow, RequestBody};
use super::target::Target;
use super::wire::{Flow, Wire};
use crate::sweep::{Deadline, Expired, Sweep};
use crate::types::Moment;

/// How long a connection may take to get ready for the next request before another one is used.
const SETTLE: Duration = Duration::from_secs(1);
/// How long an upstream that has answered may take nothing of the rest of its request.
const LINGER: Duration = Duration::from_secs(30);

/// A connection that can carry one request at a time.
pub(super) struct Link<B> {
    sender: SendRequest<Outflow<B>>,
    pub(super) wire: Rc<Wire>,
    driver: AbortHandle,
}

/// The idle connections of one worker to one target, the latest used last: what is used often stays warm, the rest ages out.
pub(super) struct Shelf<B> {
    idle: RefCell<Vec<(Link<B>, Moment)>>,
    room: Cell<usize>,
    sweep: Rc<Sweep>,
}

impl<B: RequestBody> Shelf<B> {
    pub(super) fn new(sweep: Rc<Sweep>) -> Self {
        Shelf { idle: RefCell::default(), room: Cell::new(0), sweep }
    }

    pub(super) fn len(&self) -> usize {
        self.idle.borrow().len()
    }

    /// Keeps at most so many from now on.
    pub(super) fn set_room(&self, room: usize) {
        if self.room.replace(room) <= room {
            return;
        }
        let excess = self.len().saturating_sub(room);
        let old: Vec<_> = self.idle.borrow_mut().drain(..excess).collect();
        drop(old);
    }

    /// Closes what has been idle since `until` and what the upstream has closed.
    pub(super) fn expire(&self, until: Moment) {
        self.idle.borrow_mut().retain(|(link, since)| *since > until && !link.sender.is_closed());
    }

    /// Takes the connection back for the next request, or closes it once it is done.
    pub(super) fn give_back(self: &Rc<Self>, link: Link<B>) {
        match link.wire.flow() {
            Flow::Sent(_) => self.keep(link),
            Flow::Broken => {}
            // The answer is complete and the request is not: it may go on to its end, but not stall for ever.
            Flow::Sending | Flow::Starved => drop(tokio::task::spawn_local(linger(link, self.clone()))),
        }
    }

    fn keep(&self, link: Link<B>) {
        let mut idle = self.idle.borrow_mut();
        let usable = !link.sender.is_closed() && !link.wire.is_retired();
        if usable && idle.len() < self.room.get() {
            idle.push((link, self.sweep.now()));
        }
    }

    /// An idle connection that can be used now.
    async fn take(&self, clock: &Deadline) -> Option<Link<B>> {
        loop {
            // Not in the `match`: the borrow must not last over the await.
            let taken = self.idle.borrow_mut().pop();
            let (mut link, _) = taken?;
            if link.sender.is_ready() {
                return Some(link);
            }
            clock.set_after(Some(SETTLE));
            if let Ok(Ok(())) = clock.bound(link.sender.ready()).await {
                return Some(link);
            }
        }
    }
}

async fn linger<B: RequestBody>(mut link: Link<B>, shelf: Rc<Shelf<B>>) {
    let clock = shelf.sweep.deadline();
    loop {
        let progress = link.wire.progress();
        clock.set_after(Some(LINGER));
        match clock.bound(link.sender.ready()).await {
            Ok(Ok(())) => return shelf.keep(link),
            Ok(Err(_)) => return,
            Err(Expired) if link.wire.progress() == progress => return link.driver.abort(),
            Err(Expired) => {}
        }
    }
}

/// Sends one request and waits for the answer's head.
pub(super) async fn send<B: RequestBody>(
    shelf: &Rc<Shelf<B>>,
    target: &Target,
    outgoing: &Outgoing<'_>,
    body: B,
    clock: &Deadline,
) -> Result<(Response<Incoming>, Link<B>), Failure<B>> {
    let mut link = match link(shelf, target, clock).await {
        Ok(link) => link,
        Err(error) => return Err(Failure::new(error, Some(body))),
    };
    let mut request = request(outgoing, Outflow::new(body, link.wire.clone()));
    loop {
        link.wire.begin(outgoing.upgrade);
        let answer = link.sender.try_send_request(request);
        let mut error = match first_byte(answer, clock, &link.wire, outgoing.first_byte).await {
            Ok(Ok(response)) => return Ok((response, link)),
            Ok(Err(error)) => error,
            Err(late) => {
                let error = SendError::new(late, link.wire.delivered()).on_reused(link.wire.reused());
                return Err(Failure::new(error, None));
            }
        };
        // Handed back: the connection was stale and nothing of the request went out. Another one will do.
        let Some(unsent) = error.take_message() else {
            return Err(Failure::new(explain(error.into_error(), &link.wire), None));
        };
        if !link.wire.reused() {
            let error = SendError::new(SendErrorKind::ClosedEarly, false).because(error.into_error());
            return Err(Failure::new(error, Some(unsent.into_body().into_body())));
        }
        request = unsent;
        link = match self::link(shelf, target, clock).await {
            Ok(link) => link,
            Err(error) => return Err(Failure::new(error, Some(request.into_body().into_body()))),
        };
        request.body_mut().attach(link.wire.clone());
    }
}

/// An idle connection, or a new one.
async fn link<B: RequestBody>(shelf: &Shelf<B>, target: &Target, clock: &Deadline) -> Result<Link<B>, SendError> {
    match shelf.take(clock).await {
        Some(link) => Ok(link),
        // Boxed: rare and large, and a request that finds a connection shall not carry room for it along.
        None => Box::pin(open(shelf, target, clock)).await,
    }
}

fn request<B: RequestBody>(outgoing: &Outgoing<'_>, body: Outflow<B>) -> Request<Outflow<B>> {
    let mut request = Request::new(body);
    *request.method_mut() = outgoing.method.clone();
    *request.uri_mut() = Uri::from(outgoing.target.clone());
    *request.headers_mut() = outgoing.headers.clone();
    let (headers, body) = {
        let ended = request.body().is_end_stream();
        let length = request.body().size_hint().exact();
        (request.headers_mut(), if ended { Some(0) } else { length })
    };
    frame(headers, body);
    request
}

/// Makes the framing agree with the body: hyper believes the headers more than the body.
fn frame(headers: &mut HeaderMap, length: Option<u64>) {
    use http::header::{CONTENT_LENGTH, Entry, HeaderValue, TRANSFER_ENCODING};
    headers.remove(TRANSFER_ENCODING);
    match (headers.entry(CONTENT_LENGTH), length) {
        // hyper writes the length itself, and none where there is no body.
        (Entry::Vacant(_), Some(_)) => {}
        (Entry::Vacant(_), None) => {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        (Entry::Occupied(mut given), Some(length)) => {
            if given.get().to_str().ok().and_then(|text| text.parse().ok()) != Some(length) || given.iter().count() > 1
            {
                given.insert(HeaderValue::from(length));
            }
        }
        (Entry::Occupied(_), None) => {}
    }
}

/// Waits for an answer while the clock of [`Wire::overdue`] runs.
pub(super) async fn first_byte<F: Future>(
    answer: F,
    clock: &Deadline,
    wire: &Wire,
    limit: Option<Duration>,
) -> Result<F::Output, SendErrorKind> {
    let mut answer = std::pin::pin!(answer);
    let mut progress = wire.progress();
    clock.set_after(limit);
    poll_fn(|cx| {
        if let Poll::Ready(output) = answer.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        // Without a bound the clock, which is not set, is waited for all the same: at the end of a drain it wakes us.
        let Some(limit) = limit else { return clock.poll_expired(cx).map(|()| Err(SendErrorKind::FirstByteTimeout)) };
        while clock.poll_expired(cx).is_ready() {
            match wire.overdue(limit, &mut progress) {
                Ok(until) => clock.set(until),
                Err(late) => return Poll::Ready(Err(late)),
            }
        }
        Poll::Pending
    })
    .await
}

/// Connects and leaves the connection to a task of its own.
async fn open<B: RequestBody>(shelf: &Shelf<B>, target: &Target, clock: &Deadline) -> Result<Link<B>, SendError> {
    let stream = connect(target, clock).await?;
    let wire = Wire::new(shelf.sweep.clone());
    let io = TokioIo::new(Watched::new(stream, wire.clone()));
    let handshake = Builder::new().max_header_size(HEAD_SIZE).handshake(io).await;
    let (sender, connection) = handshake.map_err(|error| SendError::new(SendErrorKind::Reset, false).because(error))?;
    let driver = tokio::task::spawn_local(Driver { connection: Some(connection), wire: wire.clone() });
    Ok(Link { sender, wire, driver: driver.abort_handle() })
}

/// Drives one connection to its end; a switched one it hands over.
struct Driver<B: RequestBody> {
    connection: Option<Connection<TokioIo<Watched>, Outflow<B>>>,
    wire: Rc<Wire>,
}

impl<B: RequestBody> Future for Driver<B> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(()) };
        let Poll::Ready(ended) = connection.poll_without_shutdown(cx) else { return Poll::Pending };
        let Some(connection) = self.connection.take() else { return Poll::Ready(()) };
        let parts = connection.into_parts();
        let mut stream = parts.io.into_inner().into_stream();
        if ended.is_ok() && self.wire.switched() {
            self.wire.end(Some((stream, parts.read_buf)));
        } else {
            // Says goodbye where that is possible at once (TLS); dropping the socket is enough.
            let _ = Pin::new(&mut stream).poll_shutdown(cx);
        }
        Poll::Ready(())
    }
}

impl<B: RequestBody> Drop for Driver<B> {
    fn drop(&mut self) {
        // Whoever waits for a tunnel must learn that there will be none.
        if !self.wire.ended() {
            self.wire.end(None);
        }
    }
}

/// What hyper's error means.
fn explain(error: hyper::Error, wire: &Wire) -> SendError {
    let kind = if wire.flow() == Flow::Broken {
        SendErrorKind::RequestBody
    } else if let Some(bad) = wire.bad_response() {
        SendErrorKind::BadResponse(bad)
    } else if error.is_parse_too_large() {
        SendErrorKind::BadResponse(BadResponse::HeadTooLarge)
    } else if error.is_parse() {
        SendErrorKind::BadResponse(BadResponse::Malformed)
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        SendErrorKind::ClosedEarly
    } else {
        error::cause::<io::Error>(&error).map_or(SendErrorKind::Reset, error::open)
    };
    SendError::new(kind, wire.delivered()).on_reused(wire.reused() && !wire.answered()).because(error)
}

impl<B> Link<B> {
    /// Waits for the tunnel that this connection turns into behind the 101 that has come.
    pub(super) async fn upgraded(self, clock: &Deadline, limit: Option<Duration>) -> Result<Upgraded, SendError> {
        clock.set_after(limit);
        match clock.bound(poll_fn(|cx| self.wire.poll_switched(cx))).await {
            Ok(Some((stream, early))) => Ok(Upgraded { stream, early }),
            Ok(None) => Err(SendError::new(SendErrorKind::ClosedEarly, true)),
            Err(Expired) => Err(SendError::new(SendErrorKind::FirstByteTimeout, true)),
        }
    }
}

/// A connection to an upstream that no longer carries HTTP: what was read behind the 101 comes first.
#[derive(Debug)]
pub struct Upgraded {
    stream: Stream,
    early: Bytes,
}

impl AsyncRead for Upgraded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let bytes = self.early.len().min(buf.remaining());
        buf.put_slice(&self.early[..bytes]);
        self.early.advance(bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
