use std::cell::RefCell;
use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::rt::Executor;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::activity::Flow;
use super::application::Application;
use super::connection::Connection;
use super::gate::Gate;
use super::pulse::Pulse;
use super::roster::Entry;
use super::service;
use super::stock::Stock;
use super::terms::Terms;
use super::watch::{Overdue, State, Watch};
use crate::sweep::{Deadline, Sweep};
use crate::telemetry::Closed;

/// What one stream of a request body may have on the way. A connection may have several times as much, so that a stream whose
/// upstream does not read leaves room for the others.
///
/// Measured with uploads of 1 MiB: 64 KiB cost half as much CPU again on one stream, twice as much as this gains nothing, nor do frames larger
/// than the usual 16 KiB, behind which the other streams would wait longer.
const STREAM_WINDOW: u32 = 512 << 10;
const CONNECTION_WINDOW: u32 = 2 << 20;
/// What may wait in one stream for a client that does not take it. Measured from 32 to 512 KiB, with answers of 200 bytes, 10 KiB and 1 MiB, many
/// at once: no difference beyond the noise.
const SEND_BUFFER: usize = 128 << 10;

/// Serves HTTP/2 until the connection ends.
pub(super) async fn serve<A: Application>(
    gate: Gate,
    connection: Rc<Connection<A::State>>,
    app: Rc<A>,
    stock: &Rc<Stock<A>>,
    entry: &Entry,
    mut watch: Watch,
) -> Closed {
    let terms = connection.terms().clone();
    let streams = Streams {
        app: app.clone(),
        next: Rc::default(),
        sweep: watch.sweep().clone(),
        pulse: connection.pulse.clone(),
        terms: terms.clone(),
    };
    let next = streams.next.clone();
    let answer = |request| {
        let flow = Rc::new(Flow::default());
        // hyper hands the stream's future to the executor before it takes another request.
        *next.borrow_mut() = Some(flow.clone());
        service::http2(&app, &connection, stock, flow, request)
    };
    let mut hyper = pin!(builder(&terms, streams).serve_connection(TokioIo::new(gate), service_fn(answer)));
    let mut asked = None;
    poll_fn(|cx| {
        loop {
            let polled = entry.activity().attended(|| {
                // After a panic hyper's connection is only dropped.
                catch_unwind(AssertUnwindSafe(|| hyper.as_mut().poll(cx)))
            });
            match polled {
                Ok(Poll::Pending) => {}
                Ok(Poll::Ready(Ok(()))) => return Poll::Ready(asked.unwrap_or(Closed::Client)),
                Ok(Poll::Ready(Err(error))) => return Poll::Ready(asked.unwrap_or(blame(&error))),
                Err(panic) => {
                    service::panicked(&*app, &*panic);
                    return Poll::Ready(Closed::Error);
                }
            }
            if asked.is_none() && entry.roster().until().is_some() {
                // GOAWAY: what runs goes on, and streams that the client has begun meanwhile are still served.
                asked = Some(Closed::Drained);
                hyper.as_mut().graceful_shutdown();
                continue;
            }
            let state = match State::of(entry, &connection.pulse) {
                State::Idle(_) | State::Fresh if asked.is_some() => State::Closing,
                state => state,
            };
            match ready!(watch.poll(cx, state, entry, &terms)) {
                // Who has asked for nothing will not miss a farewell.
                Overdue::Close(why) if connection.requests() == 0 => return Poll::Ready(asked.unwrap_or(why)),
                Overdue::Close(why) => {
                    asked = Some(why);
                    hyper.as_mut().graceful_shutdown();
                }
                Overdue::Refuse => return Poll::Ready(Closed::Timeout),
                Overdue::Cut(why) => return Poll::Ready(asked.unwrap_or(why)),
            }
        }
    })
    .await
}

fn builder<A: Application>(terms: &Terms, streams: Streams<A>) -> Builder<Streams<A>> {
    let mut builder = Builder::new(streams);
    builder
        .max_concurrent_streams(terms.max_streams)
        .max_header_list_size(u32::try_from(terms.head.size).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .enable_connect_protocol();
    builder
}

/// Runs the streams of one connection, each as a task of its own on this thread.
struct Streams<A> {
    app: Rc<A>,
    /// The flow of the stream that hyper is about to hand over.
    next: Rc<RefCell<Option<Rc<Flow>>>>,
    sweep: Rc<Sweep>,
    pulse: Arc<Pulse>,
    terms: Arc<Terms>,
}

impl<A> Clone for Streams<A> {
    fn clone(&self) -> Self {
        Streams {
            app: self.app.clone(),
            next: self.next.clone(),
            sweep: self.sweep.clone(),
            pulse: self.pulse.clone(),
            terms: self.terms.clone(),
        }
    }
}

impl<A: Application, F: Future<Output = ()> + 'static> Executor<F> for Streams<A> {
    fn execute(&self, future: F) {
        let app = self.app.clone();
        let Some(flow) = self.next.borrow_mut().take() else {
            // A tunnel's sending side; it has no answer to wait for.
            tokio::task::spawn_local(future);
            return;
        };
        let patience = Patience {
            flow,
            pulse: self.pulse.clone(),
            terms: self.terms.clone(),
            sweep: self.sweep.clone(),
            deadline: None,
            at: (0, 0),
        };
        tokio::task::spawn_local(run(app, future, patience));
    }
}

/// Runs a stream. One that panics, or whose client takes nothing for too long, is dropped, which resets it and no other.
async fn run<A: Application>(app: Rc<A>, future: impl Future<Output = ()>, mut patience: Patience) {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Pending) => patience.poll(cx),
        Ok(Poll::Ready(())) => Poll::Ready(()),
        Err(panic) => {
            service::panicked(&*app, &*panic);
            Poll::Ready(())
        }
    })
    .await;
}

/// How long a stream waits for a client that takes nothing, on this stream or any other of its connection.
struct Patience {
    flow: Rc<Flow>,
    pulse: Arc<Pulse>,
    terms: Arc<Terms>,
    sweep: Rc<Sweep>,
    /// Made when it is first needed, which for most streams is never.
    deadline: Option<Deadline>,
    /// How far things were when the wait began.
    at: (u64, u64),
}

impl Patience {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.flow.awaits_client() {
            self.deadline = None;
            return Poll::Pending;
        }
        let at = (self.flow.frames(), self.pulse.bytes_written());
        let begins = self.deadline.is_none() || self.at != at;
        let deadline = self.deadline.get_or_insert_with(|| self.sweep.deadline());
        if begins {
            self.at = at;
            deadline.set_after(Some(self.terms.send_timeout));
        }
        deadline.poll_expired(cx)
    }
}

/// Why a connection ended that hyper gave up.
fn blame(error: &hyper::Error) -> Closed {
    let Some(error) = error.source().and_then(|source| source.downcast_ref::<h2::Error>()) else {
        return Closed::Error;
    };
    match error.reason() {
        // The client's own GOAWAY, or a socket that broke.
        _ if error.is_io() || error.is_remote() => Closed::Client,
        Some(h2::Reason::ENHANCE_YOUR_CALM) => Closed::Flood,
        Some(_) => Closed::Protocol,
        None => Closed::Error,
    }
}
