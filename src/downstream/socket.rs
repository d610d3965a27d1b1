//! Sockets from clients: TCP or Unix, plain or TLS, one type without boxes.
//!
//! Nothing here knows HTTP; the [`Gate`](super::gate::Gate) between this and hyper does.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::pulse::Pulse;
use crate::socket::Socket;

/// A socket and what has been read ahead of it, counted.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Socket,
    ahead: BytesMut,
    pulse: Arc<Pulse>,
}

/// A connection ready to carry HTTP.
#[derive(Debug)]
pub(super) enum Link {
    Plain(Wire),
    Tls(Box<TlsStream<Wire>>),
}

/// Calls a poll function of whichever it is.
macro_rules! each {
    ($self:expr, $one:path | $other:path => $call:ident($($argument:expr),*)) => {
        match $self {
            $one(stream) => Pin::new(stream).$call($($argument),*),
            $other(stream) => Pin::new(stream).$call($($argument),*),
        }
    };
}

impl Wire {
    pub(super) fn new(socket: Socket, pulse: Arc<Pulse>) -> Self {
        Wire { socket, ahead: BytesMut::new(), pulse }
    }

    /// What has been read ahead.
    pub(super) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Takes off what has been understood of what was read ahead.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.ahead.advance(bytes);
    }

    /// Reads some more ahead; 0 at the end.
    pub(super) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut buf = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buf))?;
        let fresh = buf.filled();
        self.pulse.read(fresh.len());
        self.ahead.extend_from_slice(fresh);
        Poll::Ready(Ok(fresh.len()))
    }

    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(bytes)) => self.pulse.wrote(*bytes),
            Poll::Pending => self.pulse.block(),
            Poll::Ready(Err(_)) => {}
        }
        written
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = &mut *self;
        if !wire.ahead.is_empty() {
            give(&mut wire.ahead, usize::MAX, buf);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut wire.socket).poll_read(cx, buf))?;
        wire.pulse.read(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

/// Moves up to `most` bytes from the front of `from` into `buf`; an emptied `from` gives its memory back.
pub(super) fn give(from: &mut BytesMut, most: usize, buf: &mut ReadBuf<'_>) -> usize {
    let here = from.len().min(most).min(buf.remaining());
    buf.put_slice(&from[..here]);
    from.advance(here);
    if from.is_empty() {
        *from = BytesMut::new();
    }
    here
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, pieces);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl Link {
    /// Closing will reset the connection, so that nobody takes for complete what is not.
    pub(super) fn abort(&self) {
        match self {
            Link::Plain(wire) => wire.socket.abort(),
            Link::Tls(stream) => stream.get_ref().0.socket.abort(),
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), Link::Plain | Link::Tls => poll_read(cx, buf))
    }
}

impl AsyncWrite for Link {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), Link::Plain | Link::Tls => poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), Link::Plain | Link::Tls => poll_write_vectored(cx, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), Link::Plain | Link::Tls => poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), Link::Plain | Link::Tls => poll_shutdown(cx))
    }
}
