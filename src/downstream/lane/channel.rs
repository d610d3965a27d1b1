//! A client's socket, shared by the connection's driver and by the body of the request in progress.
//!
//! One of them reads at a time, because a socket remembers one reader's waker only: the body, as long as something of it is to come
//! and somebody holds it; the driver otherwise. Whoever ends its turn on another task wakes the driver. The driver alone writes.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::downstream::activity::Activity;
use crate::downstream::socket::Link;

/// A worker's scratch space: all reads go there first, so that who waits for bytes has no buffer.
const SPACE: usize = 64 << 10;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SPACE]);
}

/// The socket, what was read from it and not understood yet, and what is left of the request's body.
#[derive(Debug)]
pub(super) struct Channel {
    /// None once the connection has ended, or has been handed on.
    link: RefCell<Option<Link>>,
    /// Bodies end at their length, so this begins with what is left of one, and goes on with the next request.
    ///
    /// **Bounds**: [`SPACE`].
    kept: RefCell<Bytes>,
    left: Cell<u64>,
    /// Somebody holds the body.
    held: Cell<bool>,
    /// The request, counted from 1, whose body it is.
    request: Cell<u64>,
    /// Who waits for the body on another task.
    reader: RefCell<Option<Waker>>,
    activity: Rc<Activity>,
}

impl Channel {
    pub(super) fn new(link: Link, activity: Rc<Activity>) -> Rc<Self> {
        Rc::new(Channel {
            link: RefCell::new(Some(link)),
            kept: RefCell::default(),
            left: Cell::new(0),
            held: Cell::new(false),
            request: Cell::new(0),
            reader: RefCell::default(),
            activity,
        })
    }

    /// Does something with the socket.
    fn with_link<T>(&self, work: impl FnOnce(Pin<&mut Link>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &mut *self.link.borrow_mut() {
            Some(link) => work(Pin::new(link)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Reads up to `most` bytes, which `take` gets to see behind those that are kept; none at the end of the connection.
    ///
    /// `kept` is empty, or the beginning of a head, while this is called.
    pub(super) fn poll_read<T>(
        &self,
        cx: &mut Context<'_>,
        most: usize,
        take: impl FnOnce(&[u8]) -> T,
    ) -> Poll<io::Result<Option<T>>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let before = {
                let kept = self.kept.borrow();
                scratch[..kept.len()].copy_from_slice(&kept);
                kept.len()
            };
            let end = before.saturating_add(most).min(SPACE);
            let mut buf = ReadBuf::new(&mut scratch[before..end]);
            ready!(self.with_link(|link| link.poll_read(cx, &mut buf)))?;
            let read = buf.filled().len();
            Poll::Ready(Ok((read > 0).then(|| take(&scratch[..before + read]))))
        })
    }

    /// What is kept.
    pub(super) fn kept(&self) -> Bytes {
        self.kept.borrow().clone()
    }

    pub(super) fn keep(&self, bytes: Bytes) {
        // What is empty must not hold on to what it was a part of.
        self.kept.replace(if bytes.is_empty() { Bytes::new() } else { bytes });
    }

    pub(super) fn keeps(&self) -> bool {
        !self.kept.borrow().is_empty()
    }

    /// How much of the request's body is still to come.
    pub(super) fn left(&self) -> u64 {
        self.left.get()
    }

    /// Whether it is the body's holder who reads.
    pub(super) fn is_body_awaited(&self) -> bool {
        self.held.get() && self.left() > 0
    }

    /// A request with a body of this length begins.
    pub(super) fn body(self: &Rc<Self>, length: u64) -> Inflow {
        self.request.set(self.request.get() + 1);
        self.left.set(length);
        self.held.set(true);
        Inflow { channel: self.clone(), request: self.request.get() }
    }

    /// The body is waited for here.
    fn await_by(&self, cx: &Context<'_>) {
        match &mut *self.reader.borrow_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    /// Takes so much of the body that has been read already; none where that is nothing.
    fn take_kept(&self) -> Option<Bytes> {
        let mut kept = self.kept.borrow_mut();
        let here = self.left().min(kept.len() as u64);
        if here == 0 {
            return None;
        }
        let piece = kept.split_to(here as usize);
        if kept.is_empty() {
            *kept = Bytes::new();
        }
        self.left.set(self.left() - here);
        Some(piece)
    }

    /// Reads and forgets what is left of a body that nobody wants, if it is there or small and on its way. Whether that was all.
    pub(super) fn skip_body(&self, cx: &mut Context<'_>) -> bool {
        self.take_kept();
        while self.left() > 0 && self.left() <= SPACE as u64 {
            match self.poll_read(cx, self.left() as usize, <[u8]>::len) {
                Poll::Ready(Ok(Some(read))) => self.left.set(self.left() - read as u64),
                _ => break,
            }
        }
        self.left() == 0
    }

    pub(super) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with_link(|link| link.poll_write(cx, bytes))
    }

    pub(super) fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with_link(|link| link.poll_write_vectored(cx, pieces))
    }

    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with_link(|link| link.poll_flush(cx))
    }

    pub(super) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with_link(|link| link.poll_shutdown(cx))
    }

    /// Closing will reset the connection.
    pub(super) fn abort(&self) {
        if let Some(link) = &*self.link.borrow() {
            link.abort();
        }
    }

    /// Takes the socket and what was read from it. A body that is still held breaks off.
    pub(super) fn end(&self) -> Option<(Link, Bytes)> {
        let link = self.link.take();
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        link.map(|link| (link, self.kept.take()))
    }
}

/// The body of a request, read when it is asked for, a piece at a time.
#[derive(Debug)]
pub struct Inflow {
    channel: Rc<Channel>,
    request: u64,
}

impl Inflow {
    /// How much is still to come.
    pub(in crate::downstream) fn left(&self) -> u64 {
        // Whoever keeps a body that was read must not read the next request's.
        if self.request == self.channel.request.get() { self.channel.left() } else { 0 }
    }

    /// Whether all that is still to come has been read already.
    pub(in crate::downstream) fn is_here(&self) -> bool {
        self.left() <= self.channel.kept.borrow().len() as u64
    }

    /// The next piece, of up to 64 KiB and never more than belongs to the body.
    pub(in crate::downstream) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let channel = &*self.channel;
        let left = self.left();
        if left == 0 {
            return Poll::Ready(None);
        }
        let piece = match channel.take_kept() {
            Some(piece) => piece,
            None => {
                let most = usize::try_from(left).unwrap_or(usize::MAX);
                match channel.poll_read(cx, most, Bytes::copy_from_slice) {
                    Poll::Ready(Ok(Some(piece))) => {
                        channel.left.set(left - piece.len() as u64);
                        piece
                    }
                    Poll::Ready(Ok(None)) => {
                        return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                    Poll::Pending => {
                        channel.await_by(cx);
                        return Poll::Pending;
                    }
                }
            }
        };
        if channel.left() == 0 {
            // Now it is the driver who reads.
            channel.reader.take();
            channel.activity.nudge();
        }
        Poll::Ready(Some(Ok(piece)))
    }
}

impl Drop for Inflow {
    fn drop(&mut self) {
        let channel = &self.channel;
        if self.request == channel.request.get() && channel.held.replace(false) && channel.left() > 0 {
            channel.activity.nudge();
        }
    }
}
