//! HTTP/1.1 to upstreams: a client of our own, small and strict.
//!
//! Why not hyper's: it drives each connection in a task of its own, so that every request crosses two channels and is woken twice; it keeps
//! 16 KiB for each connection; and it tells neither whether an upstream may have seen a request nor bare line feeds. hyper's client is the judge of this one in `tests/judge.rs`: both read the same answers, cut anywhere.
//!
//! A request and its answer are driven by whoever waits for the answer. Only where an answer begins before its request is complete, the rest
//! of the request goes out in a task of its own: a client that sends on before it reads must not wait for itself.
//!
//! - `request`, `upload`: the head in one piece, the body as it comes;
//! - `response`, `decode`: the answer's head and body, pure;
//! - `link`, `shelf`: one connection, and those that wait for their next request;
//! - `reading`: an answer's body on its connection.

mod decode;
mod link;
mod reading;
mod request;
mod response;
#[cfg(any(test, feature = "fuzzing"))]
mod same;
mod shelf;
mod upload;

use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::response::Parts;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::decode::law as decode_law;
pub(super) use self::decode::{Length, Piece};
use self::link::Link;
pub(super) use self::reading::Reading;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::same::law as response_law;
#[cfg(test)]
pub(super) use self::same::{Outcome, agree};
pub(super) use self::shelf::Shelf;
use self::upload::Upload;
use super::connect::connect;
use super::connections::Outgoing;
use super::counted::Counted;
use super::error::{BadResponse, SendError, SendErrorKind};
use super::io::Stream;
use super::outflow::RequestBody;
use super::target::Target;
use crate::sweep::Deadline;
use crate::types::Lines;

/// An answer's head and what follows it.
pub(super) enum Reply<B: RequestBody> {
    Answer(Parts, Option<Lines>, Reading<B>),
    Switched(Parts, Upgraded),
}

/// Sends one request and waits for the answer's head.
///
/// A connection that turns out to be closed before anything went out on it is replaced.
pub(super) async fn send<B: RequestBody>(
    shelf: &Rc<Shelf<B>>,
    target: &Target,
    outgoing: &Outgoing<'_>,
    body: B,
    clock: &Deadline,
) -> Result<Reply<B>, SendError> {
    let mut upload = Upload::new(outgoing, body);
    loop {
        let link = match shelf.take(!outgoing.method.is_idempotent()) {
            Some(link) => link,
            // Boxed: rare and large, and a request that finds a connection shall not carry room for it along.
            None => Link::new(Box::pin(connect(target, clock)).await?, Counted::new(target, shelf.lane)),
        };
        link.inner.borrow_mut().begin(upload);
        let failed = match link.exchange(outgoing, clock, &shelf.sweep).await {
            Ok(head) if head.switches => return switch(link, head.parts),
            Ok(head) => return Ok(Reply::Answer(head.parts, head.lines, Reading::new(link, shelf.clone()))),
            Err(error) => error,
        };
        let inner = &mut *link.inner.borrow_mut();
        let stale = matches!(failed.kind, SendErrorKind::Reset | SendErrorKind::ClosedEarly) && inner.is_reused();
        if failed.delivered || !stale {
            return Err(failed);
        }
        upload = std::mem::replace(&mut inner.upload, Upload::none());
    }
}

fn switch<B: RequestBody>(link: Rc<Link<B>>, parts: Parts) -> Result<Reply<B>, SendError> {
    let unasked = || SendError::new(SendErrorKind::BadResponse(BadResponse::UnaskedSwitch), true);
    // Nobody else holds it before its answer's head is there.
    let Link { inner, counted, .. } = Rc::into_inner(link).ok_or_else(unasked)?;
    let inner = inner.into_inner();
    if !inner.upload.is_sent() {
        return Err(unasked());
    }
    let (stream, early) = inner.into_switched();
    Ok(Reply::Switched(parts, Upgraded { stream, early, _counted: counted }))
}

/// A connection to an upstream that no longer carries HTTP: what was read behind the 101 comes first.
pub struct Upgraded {
    stream: Stream,
    early: Bytes,
    _counted: Counted,
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgraded").field("early", &self.early.len()).finish_non_exhaustive()
    }
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
