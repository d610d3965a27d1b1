use std::any::Any;
use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt;
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1::{Builder, UpgradeableConnection};
use hyper::service::{HttpService, service_fn};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use super::application::{Application, Event};
use super::connection::Connection;
use super::gate::Gate;
use super::guard::HeadLimits;
use super::objection::Objection;
use super::pulse::Pulse;
use super::roster::Entry;
use super::service;
use super::stock::Stock;
use super::terms::Terms;
use super::watch::{Overdue, State, Watch};
use crate::telemetry::Closed;

/// Serves HTTP/1 until the connection ends, and waits for a tunnel that it has turned into.
pub(super) async fn serve<A: Application>(
    gate: Gate,
    connection: Rc<Connection<A::State>>,
    app: Rc<A>,
    stock: &Rc<Stock<A>>,
    entry: &Entry,
    mut watch: Watch,
) -> Closed {
    let terms = connection.terms().clone();
    let pulse = connection.pulse.clone();
    let answer = |request| service::http1(&app, &connection, stock, request);
    let hyper = builder(&terms).serve_connection(TokioIo::new(gate), service_fn(answer)).with_upgrades();
    let mut drive = Drive { hyper, pulse: pulse.clone(), terms, why: None, refused: false };
    let end = poll_fn(|cx| drive.poll(cx, entry, &mut watch)).await;
    let asked = drive.why.or(entry.roster().until().map(|_| Closed::Drained));
    let why = match end {
        End::Done => asked.unwrap_or(Closed::Client),
        End::Overdue(why) => {
            drive.reset();
            asked.unwrap_or(why)
        }
        End::Failed(error) => {
            if error.is_parse() {
                app.observe(Event::Unparsable(&error));
            }
            // Where the end of the connection is the end of the answer, a broken answer must not look like a whole one.
            if error.is_user() && pulse.old() {
                drive.reset();
            }
            asked.unwrap_or(blame(&error))
        }
        End::Panicked(panic) => {
            service::panicked(&*app, &*panic);
            drive.reset();
            Closed::Error
        }
    };
    if pulse.is_tunnel() {
        return tunnel(&pulse, entry, &mut watch, connection.terms()).await;
    }
    if let Some(upgrade) = connection.untaken.take() {
        close(upgrade, entry, &mut watch, connection.terms()).await;
    }
    match connection.objection.get() {
        Some(Objection::HeaderTimeout) => Closed::Timeout,
        Some(_) => Closed::Error,
        None => why,
    }
}

fn builder(terms: &Terms) -> Builder {
    let mut builder = Builder::new();
    builder.half_close(terms.half_close).header_read_timeout(None);
    // The guard has its eye on both bounds; hyper's own must only not be lower. Its default number of headers needs no allocation.
    const DEFAULT_HEADERS: usize = 100;
    let HeadLimits { headers, .. } = terms.head;
    if headers > DEFAULT_HEADERS {
        builder.max_headers(headers);
    }
    // Trailers are bounded by this too.
    builder.max_header_size(terms.head.size);
    if terms.head.size > MAX_BUFFER {
        builder.max_buf_size(terms.head.size.saturating_add(MIN_BUFFER));
    }
    builder
}

/// hyper's default for its read buffer, which must hold a whole head.
const MAX_BUFFER: usize = 8192 + 4096 * 100;
const MIN_BUFFER: usize = 8192;

/// hyper's connection and what bounds it.
struct Drive<S: HttpService<Incoming>> {
    hyper: UpgradeableConnection<TokioIo<Gate>, S>,
    pulse: Arc<Pulse>,
    terms: Arc<Terms>,
    /// Why we have asked it to end.
    why: Option<Closed>,
    refused: bool,
}

enum End {
    Done,
    Failed(hyper::Error),
    Overdue(Closed),
    Panicked(Box<dyn Any + Send>),
}

impl<S, B> Drive<S>
where
    S: HttpService<Incoming, ResBody = B, Error = Infallible>,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
{
    fn poll(&mut self, cx: &mut Context<'_>, entry: &Entry, watch: &mut Watch) -> Poll<End> {
        loop {
            let hyper = &mut self.hyper;
            let polled = entry.activity().attended(|| {
                // After a panic hyper's connection is only dropped.
                catch_unwind(AssertUnwindSafe(|| Pin::new(hyper).poll(cx)))
            });
            match polled {
                Ok(Poll::Pending) => {}
                Ok(Poll::Ready(Ok(()))) => return Poll::Ready(End::Done),
                Ok(Poll::Ready(Err(error))) => return Poll::Ready(End::Failed(error)),
                Err(panic) => return Poll::Ready(End::Panicked(panic)),
            }
            let state = State::of(entry, &self.pulse).or_closing(self.why.is_some());
            match ready!(watch.poll(cx, state, entry, &self.terms)) {
                Overdue::Close(why) => {
                    self.why = Some(why);
                    Pin::new(&mut self.hyper).graceful_shutdown();
                }
                Overdue::Refuse if !self.refused => {
                    self.refused = true;
                    self.pulse.expire();
                }
                Overdue::Refuse => return Poll::Ready(End::Overdue(Closed::Timeout)),
                Overdue::Cut(why) => return Poll::Ready(End::Overdue(why)),
            }
        }
    }

    /// Drops the connection such that what was answered cannot be taken for complete.
    fn reset(self) {
        if let Some(parts) = self.hyper.into_parts() {
            parts.io.inner().abort();
        }
    }
}

/// Closes a connection on which an upgrade was asked for and not given: hyper then ends without closing, and leaves the socket to
/// whoever asked, who has lost interest.
async fn close(upgrade: OnUpgrade, entry: &Entry, watch: &mut Watch, terms: &Terms) {
    let Some(Ok(upgraded)) = upgrade.now_or_never() else { return };
    let Ok(parts) = upgraded.downcast::<TokioIo<Gate>>() else { return };
    let mut gate = parts.io.into_inner();
    // Who does not close in time is closed by the drop.
    let _ = watch.bound(State::Closing, entry, terms, gate.shutdown()).await;
}

/// Waits for a tunnel's end, and ends it when the drain does.
async fn tunnel(pulse: &Pulse, entry: &Entry, watch: &mut Watch, terms: &Terms) -> Closed {
    let mut why = Closed::Client;
    poll_fn(|cx| {
        if pulse.poll_gone(cx) {
            return Poll::Ready(());
        }
        if why == Closed::Client && watch.poll(cx, State::Busy, entry, terms).is_ready() {
            why = Closed::Drained;
            pulse.cut();
        }
        Poll::Pending
    })
    .await;
    why
}

/// Why a connection ended that hyper gave up.
fn blame(error: &hyper::Error) -> Closed {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    if error.is_incomplete_message() || source.is_some_and(is_gone) { Closed::Client } else { Closed::Error }
}

/// Whether an error of a client's socket only says that the client has left.
pub(super) fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof)
}
