use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::error;
use super::http1::{Link, Shelf};
use super::http2::Stream;
use super::outflow::RequestBody;
use super::wire::Flow;
use crate::sweep::Deadline;

/// The body of an upstream's answer.
///
/// At its end the connection goes back to be used again, without anybody asking. Dropped before its end, the connection is
/// closed at once (HTTP/2: the stream is reset), which is how a request is cancelled. A body that breaks off is an error and
/// never looks complete.
pub struct UpstreamBody<B: RequestBody> {
    open: Option<Open<B>>,
}

struct Open<B: RequestBody> {
    incoming: Incoming,
    lease: Lease<B>,
    clock: Deadline,
    idle: Option<Duration>,
    /// Whether the clock runs for the present silence.
    waiting: bool,
}

/// What the body's bytes come over.
pub(super) enum Lease<B: RequestBody> {
    Http1(Link<B>, Rc<Shelf<B>>),
    Http2(Stream<B>),
}

/// Why an answer's body broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BodyErrorKind {
    /// The connection ended before the body did.
    #[error("the answer's body was cut")]
    Cut,
    /// Its framing is wrong.
    #[error("the answer's body is malformed")]
    Malformed,
    /// Nothing came for as long as the idle timeout.
    #[error("the answer's body stalled")]
    IdleTimeout,
    /// The request's body failed while the answer was under way: the client's side, not the upstream's.
    #[error("the request's body ended early")]
    RequestBody,
}

/// An answer's body that broke off.
#[derive(Debug)]
pub struct BodyError {
    /// Why.
    pub kind: BodyErrorKind,
    /// What the layers below said.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl Error for BodyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|error| error as _)
    }
}

impl<B: RequestBody> UpstreamBody<B> {
    /// A body without bytes.
    pub fn empty() -> Self {
        UpstreamBody { open: None }
    }

    pub(super) fn new(incoming: Incoming, lease: Lease<B>, clock: Deadline, idle: Option<Duration>) -> Self {
        let mut body = UpstreamBody { open: Some(Open { incoming, lease, clock, idle, waiting: false }) };
        body.finish_if_ended();
        body
    }

    fn finish_if_ended(&mut self) {
        if self.open.as_ref().is_some_and(|open| open.incoming.is_end_stream()) {
            self.finish();
        }
    }

    /// All has come: the connection is free for the next request.
    fn finish(&mut self) {
        if let Some(Open { lease: Lease::Http1(link, shelf), .. }) = self.open.take() {
            shelf.give_back(link);
        }
    }

    /// Nothing more will come: the connection goes.
    fn fail(&mut self, kind: BodyErrorKind, source: Option<hyper::Error>) -> BodyError {
        self.open = None;
        BodyError { kind, source: source.map(Into::into) }
    }
}

impl<B: RequestBody> Open<B> {
    fn explain(&self, error: &hyper::Error) -> BodyErrorKind {
        let flow = match &self.lease {
            Lease::Http1(link, _) => link.wire.flow(),
            Lease::Http2(stream) => stream.wire.flow(),
        };
        if flow == Flow::Broken {
            return BodyErrorKind::RequestBody;
        }
        let invalid =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData);
        let malformed = error::cause::<io::Error>(error).is_some_and(invalid)
            || error::cause::<h2::Error>(error).is_some_and(h2::Error::is_library);
        if malformed { BodyErrorKind::Malformed } else { BodyErrorKind::Cut }
    }

    /// Whether silence has lasted too long. Without a bound the clock is waited for all the same: at the end of a drain it wakes us.
    fn stalled(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.waiting {
            self.waiting = true;
            self.clock.set_after(self.idle);
        }
        self.clock.poll_expired(cx).is_ready()
    }

    /// hyper takes an HTTP/2 stream that was reset with NO_ERROR for one that ended. It has ended only if it said so.
    fn ended(&self) -> bool {
        matches!(self.lease, Lease::Http1(..)) || self.incoming.is_end_stream()
    }
}

impl<B: RequestBody> Body for UpstreamBody<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(open) = &mut self.open else { return Poll::Ready(None) };
        match Pin::new(&mut open.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                open.waiting = false;
                if frame.is_trailers() {
                    self.finish();
                } else {
                    self.finish_if_ended();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) if open.ended() => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Ready(None) => Poll::Ready(Some(Err(self.fail(BodyErrorKind::Cut, None)))),
            Poll::Ready(Some(Err(error))) => {
                let kind = open.explain(&error);
                Poll::Ready(Some(Err(self.fail(kind, Some(error)))))
            }
            Poll::Pending if open.stalled(cx) => Poll::Ready(Some(Err(self.fail(BodyErrorKind::IdleTimeout, None)))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.open.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.open.as_ref().map_or(SizeHint::with_exact(0), |open| open.incoming.size_hint())
    }
}

impl<B: RequestBody> fmt::Debug for UpstreamBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamBody").field("ended", &self.is_end_stream()).finish()
    }
}
