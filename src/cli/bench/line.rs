use std::cell::{Cell, RefCell};
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::spawn_local;
use tokio_rustls::TlsConnector;

use super::fault::{Fault, Kind};
use super::plan::Plan;
use super::tally::Answer;

type Body = Full<Bytes>;

/// One connection, made anew whenever it is gone: lent to one request at a time, or shared by some with HTTP/2.
pub(super) struct Line {
    plan: Arc<Plan>,
    sender: RefCell<Option<Sender>>,
    /// How many connections it has had.
    opened: Cell<u64>,
    /// Of several who need a connection, one makes it.
    opening: Mutex<()>,
    /// There is no connection: none has been made yet, or since the last one ended.
    unconnected: Cell<bool>,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// The use of a connection.
struct Lent {
    sender: Sender,
    /// Which one of the line's it is.
    number: u64,
    /// Requests have been sent on it before, or may have been.
    used: bool,
}

impl Line {
    pub(super) fn new(plan: Arc<Plan>) -> Line {
        Line {
            plan,
            sender: RefCell::default(),
            opened: Cell::default(),
            opening: Mutex::default(),
            unconnected: Cell::default(),
        }
    }

    /// Connects, so that the first request finds a connection. Where that fails, the request will tell.
    pub(super) async fn prepare(&self) {
        if let Ok(lent) = self.lend().await {
            self.give_back(lent);
        }
    }

    /// Whether it is a connection that those wait for who wait now.
    pub(super) fn is_unconnected(&self) -> bool {
        self.unconnected.get()
    }

    /// Connections made after the first.
    pub(super) fn reconnects(&self) -> u64 {
        self.opened.get().saturating_sub(1)
    }

    /// Sends the request and reads the whole answer. Given up halfway, it takes its connection (or its stream) with it.
    pub(super) async fn ask(&self) -> Result<Answer, Fault> {
        let mut request = self.plan.request.clone();
        loop {
            let mut lent = self.lend().await?;
            match lent.sender.send(request).await {
                Ok(response) => return self.read(lent, response).await,
                Err(mut error) => {
                    self.forget(lent.number);
                    match error.take_message() {
                        // It was closed while it was idle, and nothing of the request has been seen.
                        Some(unsent) if lent.used => request = unsent,
                        _ => return Err(Fault::of(error.error())),
                    }
                }
            }
        }
    }

    async fn read(&self, lent: Lent, response: Response<Incoming>) -> Result<Answer, Fault> {
        let (head, mut body) = response.into_parts();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Fault::of(&error))?;
            bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        self.give_back(lent);
        Ok(Answer { status: head.status, bytes })
    }

    async fn lend(&self) -> Result<Lent, Fault> {
        let _one_at_a_time = self.opening.lock().await;
        let known = match &mut *self.sender.borrow_mut() {
            Some(Sender::Http2(sender)) => Some(Sender::Http2(sender.clone())),
            held => held.take(),
        };
        if let Some(mut sender) = known {
            if sender.is_ready().await {
                return Ok(Lent { sender, number: self.opened.get(), used: true });
            }
            self.forget(self.opened.get());
        }
        self.unconnected.set(true);
        let sender = open(&self.plan).await?;
        self.unconnected.set(false);
        self.opened.set(self.opened.get() + 1);
        if let Sender::Http2(sender) = &sender {
            *self.sender.borrow_mut() = Some(Sender::Http2(sender.clone()));
        }
        Ok(Lent { sender, number: self.opened.get(), used: false })
    }

    fn give_back(&self, lent: Lent) {
        if let Sender::Http1(sender) = lent.sender {
            *self.sender.borrow_mut() = Some(Sender::Http1(sender));
        }
    }

    /// Has the next request make a new connection, unless one has been made already.
    fn forget(&self, number: u64) {
        if self.opened.get() == number {
            *self.sender.borrow_mut() = None;
        }
    }
}

impl Sender {
    /// Waits until it can take a request; `false` where it is closed.
    async fn is_ready(&mut self) -> bool {
        match self {
            Sender::Http1(sender) => sender.ready().await.is_ok(),
            Sender::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        match self {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::Http2(sender) => sender.try_send_request(request).await,
        }
    }
}

async fn open(plan: &Plan) -> Result<Sender, Fault> {
    let stream = TcpStream::connect(&plan.addresses[..]).await.map_err(|error| Fault::new(Kind::Connect, error))?;
    // It works without, only worse.
    let _ = stream.set_nodelay(true);
    let Some((config, name)) = &plan.tls else {
        return speak(plan, stream).await;
    };
    let secured = TlsConnector::from(config.clone()).connect(name.clone(), stream).await;
    let stream = secured.map_err(|error| Fault::new(Kind::Tls, error))?;
    // A server that does not know ALPN speaks HTTP/1.1.
    let agreed = stream.get_ref().1.alpn_protocol();
    if plan.http2 && agreed != Some(b"h2") {
        return Err(Fault::new(Kind::Tls, "it does not speak HTTP/2 (ALPN)"));
    }
    speak(plan, stream).await
}

async fn speak<S>(plan: &Plan, stream: S) -> Result<Sender, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let io = TokioIo::new(stream);
    let failed = |error: hyper::Error| Fault::of(&error);
    // What becomes of a connection is told to the requests on it.
    if plan.http2 {
        let (sender, connection) = http2::handshake(Local, io).await.map_err(failed)?;
        spawn_local(connection);
        Ok(Sender::Http2(sender))
    } else {
        let (sender, connection) = http1::handshake(io).await.map_err(failed)?;
        spawn_local(connection);
        Ok(Sender::Http1(sender))
    }
}

/// Runs hyper's tasks on this thread.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, task: F) {
        spawn_local(task);
    }
}
