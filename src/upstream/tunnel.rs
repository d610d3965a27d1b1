use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::sweep::Sweep;

/// Bytes that went through a tunnel so far; can be looked at while it runs.
#[derive(Debug, Default)]
pub struct Traffic {
    /// From the client to the upstream.
    pub up: Cell<u64>,
    /// From the upstream to the client.
    pub down: Cell<u64>,
}

/// How a tunnel ended.
#[derive(Debug)]
pub enum TunnelEnd {
    /// Both sides had said all they wanted.
    Closed,
    /// Neither side said anything for as long as the idle timeout.
    Idle,
    /// The client's connection broke.
    ClientBroke(io::Error),
    /// The upstream's connection broke.
    UpstreamBroke(io::Error),
}

/// Copies bytes both ways until both sides have ended, one breaks, or all is silent for `idle`.
///
/// A side that ends its sending has the other side's sending ended behind its last byte, and still hears the rest of what that
/// one says. Dropping the future closes both.
///
/// **Cost**: reads go to one buffer of the thread, so a tunnel holds memory only while a side takes less than the other says,
/// at most 64 KiB for each direction; then reading stops.
pub async fn tunnel<C, U>(
    mut client: C,
    mut upstream: U,
    sweep: &Rc<Sweep>,
    idle: Option<Duration>,
    traffic: &Traffic,
) -> TunnelEnd
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Lane::default(), Lane::default());
    let clock = sweep.deadline();
    clock.set_after(idle);
    let mut heard = sweep.now();
    poll_fn(|cx| {
        let before = (up.moved, down.moved);
        let ups = up.poll(cx, &mut client, &mut upstream);
        let downs = down.poll(cx, &mut upstream, &mut client);
        traffic.up.set(up.moved);
        traffic.down.set(down.moved);
        match (ups, downs) {
            (Poll::Ready(Err(broke)), _) => {
                return Poll::Ready(broke.of(TunnelEnd::ClientBroke, TunnelEnd::UpstreamBroke));
            }
            (_, Poll::Ready(Err(broke))) => {
                return Poll::Ready(broke.of(TunnelEnd::UpstreamBroke, TunnelEnd::ClientBroke));
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(TunnelEnd::Closed),
            _ => {}
        }
        if before != (up.moved, down.moved) {
            heard = sweep.now();
        }
        // Without a bound the clock, which is not set, is waited for all the same: at the end of a drain it wakes us.
        let Some(idle) = idle else { return clock.poll_expired(cx).map(|()| TunnelEnd::Idle) };
        while clock.poll_expired(cx).is_ready() {
            let until = heard + idle + Sweep::TICK;
            if until <= sweep.now() {
                return Poll::Ready(TunnelEnd::Idle);
            }
            clock.set(until);
        }
        Poll::Pending
    })
    .await
}

/// One direction of a tunnel.
#[derive(Default)]
struct Lane {
    /// What was read and not yet taken: from `start` on.
    left: Vec<u8>,
    start: usize,
    moved: u64,
    /// Whether something was written that may not be flushed.
    unflushed: bool,
    state: State,
}

#[derive(Default, PartialEq)]
enum State {
    #[default]
    Copying,
    Ending,
    Ended,
}

/// Which end of a direction broke.
enum Broke {
    Reading(io::Error),
    Writing(io::Error),
}

impl Broke {
    fn of(self, reading: fn(io::Error) -> TunnelEnd, writing: fn(io::Error) -> TunnelEnd) -> TunnelEnd {
        match self {
            Broke::Reading(error) => reading(error),
            Broke::Writing(error) => writing(error),
        }
    }
}

const BUFFER: usize = 64 << 10;
/// Reads in a row until other tasks get their turn.
const ROUNDS: usize = 16;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into());
}

impl Lane {
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<Result<(), Broke>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        for _ in 0..ROUNDS {
            ready!(self.poll_left(cx, to)).map_err(Broke::Writing)?;
            match self.state {
                State::Ended => return Poll::Ready(Ok(())),
                State::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(Broke::Writing)?;
                    self.state = State::Ended;
                    return Poll::Ready(Ok(()));
                }
                State::Copying => {}
            }
            let copied = SCRATCH.with_borrow_mut(|scratch| self.poll_copy(cx, from, to, scratch));
            if copied?.is_pending() {
                self.left = Vec::new();
                if self.unflushed {
                    ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(Broke::Writing)?;
                    self.unflushed = false;
                }
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what is left over.
    fn poll_left<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Poll<io::Result<()>> {
        while self.start < self.left.len() {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.left[self.start..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.wrote(written);
            self.start += written;
        }
        self.left.clear();
        self.start = 0;
        Poll::Ready(Ok(()))
    }

    /// Reads once and writes as much of it as is taken at once; pending only where there was nothing to read.
    fn poll_copy<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        scratch: &mut [u8],
    ) -> Result<Poll<()>, Broke>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut buffer = ReadBuf::new(scratch);
        match Pin::new(from).poll_read(cx, &mut buffer) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(read) => read.map_err(Broke::Reading)?,
        }
        let read = buffer.filled();
        if read.is_empty() {
            self.state = State::Ending;
            return Ok(Poll::Ready(()));
        }
        let written = match Pin::new(to).poll_write(cx, read) {
            Poll::Ready(written) => written.map_err(Broke::Writing)?,
            Poll::Pending => 0,
        };
        self.wrote(written);
        self.left.extend_from_slice(&read[written..]);
        Ok(Poll::Ready(()))
    }

    fn wrote(&mut self, bytes: usize) {
        self.moved += bytes as u64;
        self.unflushed |= bytes > 0;
    }
}
