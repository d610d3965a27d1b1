use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};

use super::Shared;

/// An answer's body. Boxed: this is a test backend, and its answers come in many shapes.
pub(super) type Reply = UnsyncBoxBody<Bytes, io::Error>;

pub(super) fn full(bytes: impl Into<Bytes>) -> Reply {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

pub(super) fn stream(frames: impl Stream<Item = io::Result<Frame<Bytes>>> + Send + 'static) -> Reply {
    StreamBody::new(frames).boxed_unsync()
}

/// So many bytes of a repeating pattern, with a known length.
pub(super) struct Pattern {
    left: u64,
    offset: usize,
}

/// Prime, so that no proxy's buffer size hides a lost or repeated piece.
const PERIOD: usize = 251;
const CHUNK: usize = 64 * 1024;

impl Pattern {
    pub(super) fn of(length: u64) -> Self {
        Pattern { left: length, offset: 0 }
    }
}

impl Body for Pattern {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        static PIECES: std::sync::LazyLock<Bytes> =
            std::sync::LazyLock::new(|| (0..CHUNK + PERIOD).map(|at| (at % PERIOD) as u8).collect());
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let length = CHUNK.min(usize::try_from(self.left).unwrap_or(CHUNK));
        let piece = PIECES.slice(self.offset..self.offset + length);
        self.offset = (self.offset + length) % PERIOD;
        self.left -= length as u64;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// One request in progress. It leaves with the answer's body; dropped before [`Running::finish`], the other side gave up.
pub(super) struct Running {
    shared: Arc<Shared>,
    finished: bool,
}

impl Running {
    pub(super) fn start(shared: &Arc<Shared>) -> Self {
        shared.stats.requests.fetch_add(1, Relaxed);
        shared.stats.in_flight.fetch_add(1, Relaxed);
        Running { shared: shared.clone(), finished: false }
    }

    pub(super) fn finish(&mut self) {
        self.finished = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stats.in_flight.fetch_sub(1, Relaxed);
        if !self.finished {
            self.shared.stats.cancelled.fetch_add(1, Relaxed);
        }
    }
}

/// A body that carries its request's [`Running`].
pub(super) struct Held {
    pub(super) body: Reply,
    pub(super) running: Option<Running>,
}

impl Held {
    fn finish_at_end(&mut self, ended: bool) {
        if ended && let Some(running) = &mut self.running {
            running.finish();
        }
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        // An error is our own doing here, so it is an end as well; nobody asks for more after trailers.
        let ended = !matches!(&frame, Some(Ok(frame)) if frame.is_data()) || self.body.is_end_stream();
        self.finish_at_end(ended);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
