//! The gate between a client's socket and hyper: it lets whole, checked heads pass, holds the rest back, and closes softly.
//!
//! It implements tokio's traits and meets hyper through `TokioIo`, whose reads fill hyper's buffer in place; so the gate can look
//! at what was read, and take back what may not pass, without a copy and without `unsafe`.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::guard::{Guard, HeadLimits, Phase, Seen};
use super::pulse::Pulse;
use super::socket::{Link, give};

/// A client's connection as hyper, and a tunnel behind it, reads and writes it.
#[derive(Debug)]
pub struct Gate {
    link: Link,
    pulse: Arc<Pulse>,
    /// HTTP/1 alone has a guard; a tunnel has none any more.
    guard: Option<Guard>,
    /// Held back: first what has passed and waits to be read, then a part of a head.
    kept: BytesMut,
    /// How much of `kept` has passed.
    passed: usize,
    closed: bool,
}

/// Stands for a refused request in hyper's eyes. The service knows it by its number; nobody could send it as such.
const REFUSED: &[u8] = b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n";

/// What is kept at most behind a request that may become a tunnel.
const MOST_HELD: usize = 64 << 10;

impl Gate {
    /// For HTTP/1, with a guard; for HTTP/2 without.
    pub(super) fn new(link: Link, pulse: Arc<Pulse>, limits: Option<HeadLimits>) -> Self {
        let guard = limits.map(Guard::new);
        Gate { link, pulse, guard, kept: BytesMut::new(), passed: 0, closed: false }
    }

    /// For HTTP/1 behind so many requests that somebody else has served, and with what was read of the next one.
    pub(super) fn resume(link: Link, pulse: Arc<Pulse>, limits: HeadLimits, heads: u64, kept: Bytes) -> Self {
        let guard = Some(Guard::behind(heads, limits));
        let mut gate = Gate { link, pulse, guard, kept: BytesMut::from(kept), passed: 0, closed: false };
        gate.look_at_kept();
        gate
    }

    /// Closing will reset the connection, so that nobody takes for complete what is not.
    pub(super) fn abort(&self) {
        self.link.abort();
    }

    fn poll_guarded(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.passed > 0 {
                self.passed -= give(&mut self.kept, self.passed, buf);
                return Poll::Ready(Ok(()));
            }
            let Some(guard) = &mut self.guard else { return self.poll_raw(cx, buf) };
            match guard.phase() {
                Phase::Refused(_) => return Poll::Pending,
                Phase::Broken => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "broken chunked body")));
                }
                Phase::Head if self.pulse.expired() => {
                    guard.refuse(super::Objection::HeaderTimeout);
                    self.settle();
                    continue;
                }
                Phase::Held if self.leave_hold() => continue,
                Phase::Held if self.kept.len() >= MOST_HELD => return Poll::Pending,
                _ => {}
            }
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.link).poll_read(cx, buf))?;
            if buf.filled().len() == before {
                return Poll::Ready(Ok(()));
            }
            if self.look(buf, before) {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Looks at what was read into `buf`, and takes back what may not pass. Whether anything did pass in place.
    fn look(&mut self, buf: &mut ReadBuf<'_>, before: usize) -> bool {
        let Some(guard) = &mut self.guard else { return true };
        if !self.kept.is_empty() {
            self.kept.extend_from_slice(&buf.filled()[before..]);
            buf.set_filled(before);
            self.look_at_kept();
            return false;
        }
        let fresh = &buf.filled()[before..];
        let Seen { pass, keep } = guard.look(fresh);
        if keep < fresh.len() {
            self.kept.extend_from_slice(&fresh[keep..]);
        }
        buf.set_filled(before + pass);
        self.settle();
        pass > 0
    }

    fn look_at_kept(&mut self) {
        let Some(guard) = &mut self.guard else { return };
        let Seen { pass, keep } = guard.look(&self.kept);
        self.passed = pass;
        if keep > pass {
            let rest = self.kept.split_off(keep);
            self.kept.truncate(pass);
            self.kept.unsplit(rest);
        }
        self.settle();
    }

    /// Tells the driver how things stand, and puts a stand-in where a request was refused.
    fn settle(&mut self) {
        let Some(guard) = &self.guard else { return };
        self.pulse.set_head(guard.phase() == Phase::Head, guard.old());
        match guard.phase() {
            Phase::Refused(objection) => {
                self.kept.truncate(self.passed);
                self.kept.extend_from_slice(REFUSED);
                self.passed = self.kept.len();
                self.pulse.refuse(guard.heads(), objection);
            }
            phase => self.pulse.set_holding(phase == Phase::Held),
        }
    }

    /// Whether the answer to a held request has decided what follows it.
    fn leave_hold(&mut self) -> bool {
        let Some(guard) = &mut self.guard else { return false };
        if self.pulse.answered() < guard.heads() {
            return false;
        }
        if self.pulse.is_tunnel() {
            self.guard = None;
            self.passed = self.kept.len();
        } else {
            guard.resume();
            self.look_at_kept();
        }
        true
    }

    /// Reads without a guard: HTTP/2, or a tunnel, which the driver can end.
    fn poll_raw(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.pulse.is_tunnel() && self.pulse.poll_cut(cx) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the drain has ended")));
        }
        Pin::new(&mut self.link).poll_read(cx, buf)
    }

    /// Whether the client may still be sending what nobody will read.
    fn unread(&self) -> bool {
        match &self.guard {
            Some(guard) => {
                use Phase::{Broken, Chunked, Length, Refused};
                matches!(guard.phase(), Refused(_) | Broken | Length(_) | Chunked(_))
            }
            // An HTTP/2 client may always begin another stream. A tunnel closes in halves: its other one is its own affair.
            None => !self.pulse.is_tunnel(),
        }
    }

    /// Reads and forgets until the client has closed too: closing a socket with unread bytes resets it, and a reset can take away
    /// the answer before the client has read it. The driver bounds the time.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pulse.linger();
        let mut space = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut self.link).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl AsyncRead for Gate {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_guarded(cx, buf)
    }
}

impl AsyncWrite for Gate {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.link).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.link).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        if !gate.closed {
            ready!(Pin::new(&mut gate.link).poll_shutdown(cx))?;
            gate.closed = true;
        }
        if gate.unread() { gate.poll_linger(cx) } else { Poll::Ready(Ok(())) }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.pulse.leave();
    }
}
