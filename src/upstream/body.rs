use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::error;
use super::http1::{Piece, Reading};
use super::http2::Stream;
use super::outflow::RequestBody;
use super::wire::Flow;
use crate::sweep::Deadline;
use crate::types::Lines;

/// The body of an upstream's answer.
///
/// At its end the connection goes back to be used again, without anybody asking. Dropped before its end, the connection is
/// closed at once (HTTP/2: the stream is reset), which is how a request is cancelled. A body that breaks off is an error and
/// never looks complete.
pub struct UpstreamBody<B: RequestBody> {
    open: Option<Open<B>>,
    lines: Option<Lines>,
}

struct Open<B: RequestBody> {
    source: Source<B>,
    clock: Deadline,
    idle: Option<Duration>,
    /// Whether the clock runs for the present silence.
    waiting: bool,
    /// It has broken off, and nobody has been told yet.
    broken: Option<BodyError>,
}

/// What the body's bytes come over.
pub(super) enum Source<B: RequestBody> {
    Http1(Reading<B>),
    Http2(Incoming, Stream<B>),
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
        UpstreamBody { open: None, lines: None }
    }

    /// With the headers of its answer, where they have stayed text.
    pub(super) fn behind(mut self, lines: Option<Lines>) -> Self {
        self.lines = lines;
        self
    }

    /// Whether the answer's headers have stayed text.
    pub fn has_lines(&self) -> bool {
        self.lines.is_some()
    }

    /// The answer's headers, where they have stayed text: then the answer itself has none. Hop-by-hop ones are among them.
    pub fn take_lines(&mut self) -> Option<Lines> {
        self.lines.take()
    }

    pub(super) fn new(source: Source<B>, clock: Deadline, idle: Option<Duration>) -> Self {
        let over = source.is_over();
        UpstreamBody {
            open: (!over).then_some(Open { source, clock, idle, waiting: false, broken: None }),
            lines: None,
        }
    }
}

impl<B: RequestBody> Source<B> {
    fn is_over(&self) -> bool {
        match self {
            Source::Http1(reading) => reading.is_over(),
            Source::Http2(incoming, _) => incoming.is_end_stream(),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let (incoming, stream) = match self {
            Source::Http1(reading) => {
                return reading.poll(cx).map_ok(|piece| match piece {
                    Piece::Data(bytes) => Frame::data(bytes),
                    Piece::Trailers(trailers) => Frame::trailers(trailers),
                });
            }
            Source::Http2(incoming, stream) => (incoming, stream),
        };
        match ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
            Some(Ok(frame)) => Poll::Ready(Some(Ok(frame))),
            Some(Err(error)) => {
                let kind = explain(&error, stream.wire.flow());
                Poll::Ready(Some(Err(BodyError { kind, source: Some(error.into()) })))
            }
            // hyper takes a stream that was reset with NO_ERROR for one that ended. It has ended only if it said so.
            None if incoming.is_end_stream() => Poll::Ready(None),
            None => Poll::Ready(Some(Err(BodyError { kind: BodyErrorKind::Cut, source: None }))),
        }
    }
}

/// What hyper's error in an HTTP/2 body means.
fn explain(error: &hyper::Error, flow: Flow) -> BodyErrorKind {
    if flow == Flow::Broken {
        return BodyErrorKind::RequestBody;
    }
    let invalid = |error: &io::Error| matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData);
    let malformed = error::cause::<io::Error>(error).is_some_and(invalid)
        || error::cause::<h2::Error>(error).is_some_and(h2::Error::is_library);
    if malformed { BodyErrorKind::Malformed } else { BodyErrorKind::Cut }
}

impl<B: RequestBody> Open<B> {
    /// Whether silence has lasted too long. Without a bound the clock is waited for all the same: at the end of a drain it wakes us.
    fn stalled(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.waiting {
            self.waiting = true;
            self.clock.set_after(self.idle);
        }
        self.clock.poll_expired(cx).is_ready()
    }
}

impl<B: RequestBody> Body for UpstreamBody<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(open) = &mut self.open else { return Poll::Ready(None) };
        if let Some(error) = open.broken.take() {
            self.open = None;
            return Poll::Ready(Some(Err(error)));
        }
        match open.source.poll(cx) {
            // In one breath with what came before it, which shall go out first: a server that hears of an error forgets what it has not sent.
            Poll::Ready(Some(Err(error))) if !open.waiting => {
                open.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(Some(Ok(frame))) => {
                open.waiting = false;
                // At its end the connection goes back by itself.
                if frame.is_trailers() || open.source.is_over() {
                    self.open = None;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                self.open = None;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                self.open = None;
                Poll::Ready(Some(Err(error)))
            }
            Poll::Pending if open.stalled(cx) => {
                self.open = None;
                Poll::Ready(Some(Err(BodyError { kind: BodyErrorKind::IdleTimeout, source: None })))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.open.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.open.as_ref().map(|open| &open.source) {
            None => SizeHint::with_exact(0),
            Some(Source::Http1(reading)) => reading.left().map_or(SizeHint::new(), SizeHint::with_exact),
            Some(Source::Http2(incoming, _)) => incoming.size_hint(),
        }
    }
}

impl<B: RequestBody> fmt::Debug for UpstreamBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamBody").field("ended", &self.is_end_stream()).finish()
    }
}
