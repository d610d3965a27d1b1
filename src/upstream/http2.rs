//! HTTP/2 to upstreams, over hyper's client connections: few connections, each shared by many requests.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, Parts, Scheme};
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;

use super::connect::connect;
use super::connections::{HEAD_SIZE, Outgoing};
use super::counted::Counted;
use super::error::{self, BadResponse, SendError, SendErrorKind};
use super::io::Watched;
use super::outflow::{Outflow, RequestBody};
use super::target::Target;
use super::wire::{Flow, Wire};
use crate::sweep::{Deadline, Sweep};
use crate::telemetry::Lane;
use crate::types::Moment;

/// Requests at once on one connection, if the upstream allows so many; then another one is opened. More would wait for each
/// other on the one TCP stream.
const STREAMS: usize = 100;
/// Connections tried for one request that comes back unsent.
const TRIES: usize = 4;

type Driven<B> = Connection<TokioIo<Watched>, Outflow<B>, Local>;

/// Runs hyper's tasks on this thread.
#[derive(Clone, Copy)]
pub(super) struct Local;

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// A shared connection.
struct Shared<B: RequestBody> {
    sender: SendRequest<Outflow<B>>,
    /// Gone once it is closed: only then hyper's sender knows that it is.
    connection: Rc<RefCell<Option<Driven<B>>>>,
    streams: Cell<usize>,
    idle_since: Cell<Moment>,
    /// Takes no further requests.
    retired: Cell<bool>,
    counted: Counted,
}

impl<B: RequestBody> Shared<B> {
    fn is_usable(&self) -> bool {
        !self.retired.get() && !self.sender.is_closed()
    }

    fn limit(&self) -> usize {
        self.connection.borrow().as_ref().map_or(0, |driven| driven.current_max_send_streams().min(STREAMS))
    }
}

/// One request's place on a shared connection.
pub(super) struct Stream<B: RequestBody> {
    shared: Rc<Shared<B>>,
    sweep: Rc<Sweep>,
    pub(super) wire: Rc<Wire>,
}

impl<B: RequestBody> Drop for Stream<B> {
    fn drop(&mut self) {
        let left = self.shared.streams.get() - 1;
        self.shared.streams.set(left);
        self.shared.idle_since.set(self.sweep.now());
        self.shared.counted.set_idle(left == 0);
    }
}

/// The connections of one worker to one target.
pub(super) struct Bundle<B: RequestBody> {
    connections: RefCell<Vec<Rc<Shared<B>>>>,
    opening: RefCell<Option<Rc<Opening>>>,
    /// How many streams the upstream's latest connection allowed: what to expect of the next one until it says so itself.
    limit: Cell<usize>,
    sweep: Rc<Sweep>,
    lane: Lane,
}

/// A connection that is being made; those who need one wait for it instead of each making their own.
#[derive(Default)]
struct Opening {
    failed: OnceCell<SendErrorKind>,
    done: Cell<bool>,
    notify: Notify,
}

impl<B: RequestBody> Bundle<B> {
    pub(super) fn new(sweep: Rc<Sweep>, lane: Lane) -> Self {
        Bundle { connections: RefCell::default(), opening: RefCell::default(), limit: Cell::new(STREAMS), sweep, lane }
    }

    pub(super) fn len(&self) -> usize {
        self.connections.borrow().len()
    }

    /// Closes what has been idle since `until`, and forgets what is closed or retired; its last requests keep it alive.
    pub(super) fn expire(&self, until: Moment) {
        self.connections.borrow_mut().retain(|shared| {
            let idle = shared.streams.get() == 0 && shared.idle_since.get() <= until;
            !idle && shared.is_usable()
        });
    }

    /// Lets all connections go; requests under way finish.
    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *self.connections.borrow_mut());
        drop(all);
    }

    /// A place on the connection with the most room.
    fn place(&self) -> Option<Stream<B>> {
        let connections = self.connections.borrow();
        let usable = connections.iter().filter(|shared| shared.is_usable());
        let shared = usable.min_by_key(|shared| shared.streams.get())?;
        self.limit.set(shared.limit());
        if shared.streams.get() >= shared.limit() {
            return None;
        }
        shared.streams.set(shared.streams.get() + 1);
        shared.counted.set_idle(false);
        Some(Stream { shared: shared.clone(), sweep: self.sweep.clone(), wire: Wire::new(self.sweep.clone()) })
    }

    async fn stream(&self, target: &Target, clock: &Deadline) -> Result<Stream<B>, SendError> {
        loop {
            if let Some(stream) = self.place() {
                return Ok(stream);
            }
            let waiting = self.opening.borrow().clone();
            match waiting {
                Some(opening) => {
                    while !opening.done.get() {
                        opening.notify.notified().await;
                    }
                    if let Some(kind) = opening.failed.get() {
                        return Err(SendError::new(*kind, false));
                    }
                }
                // Boxed: rare and large.
                None => Box::pin(self.open(target, clock)).await?,
            }
        }
    }

    async fn open(&self, target: &Target, clock: &Deadline) -> Result<(), SendError> {
        let opening = Rc::new(Opening::default());
        *self.opening.borrow_mut() = Some(opening.clone());
        // However this ends, also by being dropped, those who wait go on.
        let _guard = Opened { slot: &self.opening, opening: &opening };
        let opened = self.establish(target, clock).await;
        if let Err(error) = &opened {
            let _ = opening.failed.set(error.kind);
        }
        opened
    }

    async fn establish(&self, target: &Target, clock: &Deadline) -> Result<(), SendError> {
        let stream = connect(target, clock).await?;
        let io = TokioIo::new(Watched::new(stream, Wire::new(self.sweep.clone())));
        let handshake = Builder::new(Local)
            .max_header_list_size(HEAD_SIZE as u32)
            .initial_max_send_streams(self.limit.get())
            .handshake(io)
            .await;
        let (sender, connection) =
            handshake.map_err(|error| SendError::new(SendErrorKind::Reset, false).because(error))?;
        let connection = Rc::new(RefCell::new(Some(connection)));
        tokio::task::spawn_local(drive(connection.clone()));
        self.connections.borrow_mut().push(Rc::new(Shared {
            sender,
            connection,
            streams: Cell::new(0),
            idle_since: Cell::new(self.sweep.now()),
            retired: Cell::new(false),
            counted: Counted::new(target, self.lane),
        }));
        Ok(())
    }
}

/// Drives a connection to its end.
async fn drive<B: RequestBody>(connection: Rc<RefCell<Option<Driven<B>>>>) {
    poll_fn(|cx| match connection.borrow_mut().as_mut() {
        Some(driven) => Pin::new(driven).poll(cx).map(drop),
        None => Poll::Ready(()),
    })
    .await;
    let ended = connection.borrow_mut().take();
    drop(ended);
}

struct Opened<'a> {
    slot: &'a RefCell<Option<Rc<Opening>>>,
    opening: &'a Opening,
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.slot.borrow_mut().take();
        self.opening.done.set(true);
        self.opening.notify.notify_waiters();
    }
}

/// Sends one request and waits for the answer's head.
pub(super) async fn send<B: RequestBody>(
    bundle: &Bundle<B>,
    target: &Target,
    outgoing: &Outgoing<'_>,
    body: B,
    clock: &Deadline,
) -> Result<(Response<Incoming>, Stream<B>), SendError> {
    let mut stream = bundle.stream(target, clock).await?;
    let mut request = request(target, outgoing, Outflow::new(body, stream.wire.clone()));
    for tried in 1.. {
        let answer = stream.shared.sender.clone().try_send_request(request);
        let mut error = match first_byte(answer, clock, &stream.wire, outgoing.first_byte).await {
            Ok(Ok(response)) => return Ok((response, stream)),
            Ok(Err(error)) => error,
            Err(late) => {
                // The connection itself may be dead: whoever comes next gets another one.
                stream.shared.retired.set(true);
                return Err(SendError::new(late, true));
            }
        };
        let Some(unsent) = error.take_message() else {
            return Err(explain(error.into_error(), &stream.wire));
        };
        stream.shared.retired.set(true);
        if tried == TRIES {
            return Err(SendError::new(SendErrorKind::ClosedEarly, false).because(error.into_error()));
        }
        request = unsent;
        stream = bundle.stream(target, clock).await?;
        request.body_mut().attach(stream.wire.clone());
    }
    unreachable!("the last try returns")
}

/// Waits for an answer while the clock of [`Wire::overdue`] runs.
async fn first_byte<F: Future>(
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

fn request<B: RequestBody>(target: &Target, outgoing: &Outgoing<'_>, body: Outflow<B>) -> Request<Outflow<B>> {
    let mut request = Request::new(body);
    *request.method_mut() = outgoing.method.clone();
    *request.headers_mut() = outgoing.headers.clone();
    let authority = authority(request.headers_mut(), target);
    let mut parts = Parts::default();
    parts.scheme = Some(if target.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(authority);
    parts.path_and_query = Some(outgoing.target.clone());
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_else(|_| Uri::from(outgoing.target.clone()));
    let length = if request.body().is_end_stream() { Some(0) } else { request.body().size_hint().exact() };
    frame(request.headers_mut(), length);
    request
}

/// `Host` becomes the request's authority (RFC 9113 §8.3.1).
fn authority(headers: &mut HeaderMap, target: &Target) -> Authority {
    let read = |host: &HeaderValue| Authority::try_from(host.as_bytes()).ok();
    let host = headers.remove(HOST).as_ref().and_then(read);
    host.or_else(|| read(&target.authority)).unwrap_or_else(|| Authority::from_static("localhost"))
}

/// A length that contradicts the body would make the message malformed.
fn frame(headers: &mut HeaderMap, length: Option<u64>) {
    headers.remove(TRANSFER_ENCODING);
    if let (Some(given), Some(length)) = (headers.get(CONTENT_LENGTH), length)
        && given.to_str().ok().and_then(|text| text.parse().ok()) != Some(length)
    {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// What hyper's error means.
fn explain(error: hyper::Error, wire: &Wire) -> SendError {
    let mut delivered = true;
    let kind = if wire.flow() == Flow::Broken {
        SendErrorKind::RequestBody
    } else if let Some(h2) = error::cause::<h2::Error>(&error) {
        // Streams above a GOAWAY's last one and refused ones were not worked on (RFC 9113 §6.8, §8.7).
        let refused = h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM);
        delivered = !(h2.is_remote() && (h2.is_go_away() || refused));
        if h2.is_remote() { SendErrorKind::Reset } else { SendErrorKind::BadResponse(BadResponse::Malformed) }
    } else if error.is_canceled() || error.is_closed() {
        SendErrorKind::ClosedEarly
    } else {
        error::cause::<io::Error>(&error).map_or(SendErrorKind::Reset, error::open)
    };
    SendError::new(kind, delivered).because(error)
}
