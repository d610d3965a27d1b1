//! The door: one listening socket on one worker, and the loop that accepts from it.
//!
//! The loop never dies: what is wrong with one connection passes, and want of descriptors or memory is waited out while a few idle
//! connections make room. It never waits
//! for a connection either: each is a local task from its first byte on.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use socket2::SockFilter;
use tokio::net::{TcpListener, UnixListener};

use super::application::{Application, Event};
use super::attend::{Arrival, attend};
use super::bind;
use super::connection::Peer;
use super::roster::Roster;
use super::seats::{Seat, Seats};
use super::share::{Accepted, Share};
use super::stock::Stock;
use crate::socket::Socket;
use crate::sweep::Sweep;
use crate::types::Moment;

/// How long a TCP socket that closes still lets handshakes complete: a round trip of most clients.
const LAST_HANDSHAKES: Duration = Duration::from_millis(100);

/// An open listening socket on one worker, with the connections that came through it.
///
/// Dropping it leaves the loop running; [`close`](Self::close) or [`drain`](Self::drain) end it.
pub struct Door<A: Application> {
    app: Rc<A>,
    stock: Rc<Stock<A>>,
    seats: Arc<Seats>,
    sweep: Rc<Sweep>,
    roster: Rc<Roster>,
    closing: Cell<bool>,
    /// Nothing else will listen there: whoever calls is better refused at once.
    last: Cell<bool>,
    closed: Cell<bool>,
    /// Who gets the socket when this one closes.
    heir: RefCell<Option<Rc<Door<A>>>>,
    /// The loop, and whoever waits for its end.
    waiting: RefCell<Vec<Waker>>,
}

impl<A: Application> Door<A> {
    /// Opens it: from now on, connections are accepted. `share` is this worker's in the address; `seats` are the listener's, on all workers.
    ///
    /// **Errors**: where the socket cannot be registered with this thread's runtime.
    /// **Panics**: outside a `LocalRuntime` or `LocalSet`.
    pub fn open(
        socket: bind::Socket,
        share: Share,
        app: Rc<A>,
        seats: Arc<Seats>,
        sweep: Rc<Sweep>,
    ) -> io::Result<Rc<Self>> {
        let listener = Listener::new(socket, share)?;
        let door = Self::new(app, seats, sweep);
        tokio::task::spawn_local(door.clone().run(listener));
        Ok(door)
    }

    fn new(app: Rc<A>, seats: Arc<Seats>, sweep: Rc<Sweep>) -> Rc<Self> {
        Rc::new(Door {
            app,
            stock: Stock::new(),
            seats,
            sweep,
            roster: Rc::default(),
            closing: Cell::new(false),
            last: Cell::new(false),
            closed: Cell::new(false),
            heir: RefCell::default(),
            waiting: RefCell::default(),
        })
    }

    /// Hands the socket over, with whoever waits in its queue: the new door accepts for `app`, this one no longer; its connections go
    /// on as they are.
    pub fn hand_over(&self, app: Rc<A>, seats: Arc<Seats>) -> Rc<Self> {
        let heir = Self::new(app, seats, self.sweep.clone());
        self.heir.replace(Some(heir.clone()));
        self.close();
        heir
    }

    /// Stops accepting. Who has connected by now, or is in the middle of it, is still taken; connections go on as they are.
    ///
    /// The socket itself stays for [`LAST_HANDSHAKES`] more. Who calls meanwhile finds nobody and calls again, one second later (RFC 6298
    /// section 2), and then reaches whatever else listens there, or nothing.
    pub fn close(&self) {
        self.closing.set(true);
        self.wake();
    }

    /// Stops accepting at once, and ends the connections: idle ones now, busy ones behind their answer, streams and tunnels at `until`.
    ///
    /// For the end of the process: who calls from now on is refused, so that it can go elsewhere without delay.
    pub fn drain(&self, until: Moment) {
        self.last.set(true);
        self.close();
        self.roster.drain(until);
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.roster.len()
    }

    /// Waits until nothing is accepted any more and no connection is open.
    pub async fn emptied(&self) {
        poll_fn(|cx| if self.closed.get() { Poll::Ready(()) } else { self.wait(cx) }).await;
        self.roster.emptied().await;
    }

    fn wait<T>(&self, cx: &Context<'_>) -> Poll<T> {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn wake(&self) {
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    async fn run(self: Rc<Self>, listener: Listener) {
        let mut trouble = Trouble::new();
        while !self.closing.get() {
            let max = self.app.terms().max_connections;
            if self.seats.taken() >= max {
                self.until_closing(self.seat_freed(max)).await;
                continue;
            }
            match self.until_closing(listener.accept()).await {
                None => {}
                Some(Ok(accepted)) => {
                    trouble.over();
                    self.take(accepted, listener.local, self.seat().await);
                }
                Some(Err(error)) if is_passing(&error) => {}
                Some(Err(error)) => {
                    let pause = trouble.met(&self.sweep, &error);
                    self.roster.make_room(Trouble::ROOM);
                    self.app.observe(Event::AcceptFailed(&error));
                    self.until_closing(tokio::time::sleep(pause)).await;
                }
            }
        }
        match self.heir.take() {
            // A task of its own: it may be handed on as often as anybody likes.
            Some(heir) => drop(tokio::task::spawn_local(heir.run(listener))),
            None => self.take_rest(listener).await,
        }
        self.closed.set(true);
        self.wake();
    }

    /// Runs `future`, unless the door closes first.
    async fn until_closing<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = std::pin::pin!(future);
        poll_fn(|cx| {
            if self.closing.get() {
                return Poll::Ready(None);
            }
            match future.as_mut().poll(cx) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending => self.wait(cx),
            }
        })
        .await
    }

    /// A seat may have been given back, or the bound may have been raised.
    async fn seat_freed(&self, max: u32) {
        const LOOK_AGAIN: Duration = Duration::from_millis(250);
        let deadline = self.sweep.deadline();
        deadline.set_after(Some(LOOK_AGAIN));
        let _ = deadline.bound(self.seats.freed(max)).await;
    }

    /// A seat for a connection that has been accepted. Another worker may have taken the last one meanwhile; then the connection
    /// waits here as it would have waited in the queue.
    async fn seat(&self) -> Seat {
        loop {
            // Past the bound it is still better served than reset.
            let max = if self.closing.get() { u32::MAX } else { self.app.terms().max_connections };
            match self.seats.take(max) {
                Some(seat) => return seat,
                None => self.until_closing(self.seat_freed(max)).await,
            };
        }
    }

    /// `local`: the address that all of the socket's connections are made to, where there is but one.
    fn take(&self, (socket, peer, place): Accepted, local: Option<SocketAddr>, seat: Seat) {
        let local = local.or_else(|| local_of(&socket));
        let entry = self.roster.enter();
        let arrival = Arrival { socket, peer, local, terms: self.app.terms(), entry, seat, place };
        tokio::task::spawn_local(attend(self.app.clone(), self.stock.clone(), self.sweep.clone(), arrival));
    }

    /// Takes what has connected already or is about to, and closes the socket.
    async fn take_rest(&self, listener: Listener) {
        let local = listener.local;
        let take = |accepted| {
            if let Some(seat) = self.seats.take(u32::MAX) {
                self.take(accepted, local, seat);
            }
        };
        if !self.last.get() && listener.refuse_new() {
            let until = self.sweep.deadline();
            until.set_after(Some(LAST_HANDSHAKES));
            while let Ok(next) = until.bound(listener.accept()).await {
                match next {
                    Ok(accepted) => take(accepted),
                    Err(error) if is_passing(&error) => {}
                    Err(_) => break,
                }
            }
        }
        listener.share.close().filter_map(Result::ok).for_each(take);
        let Listener { kind, share, .. } = listener;
        let mut accept = match kind.into_blocking_free() {
            Ok(accept) => accept,
            Err(error) => {
                tracing::warn!("cannot take the last connections of a socket that closes: {error}");
                return;
            }
        };
        while let Ok(next) = accept() {
            if let Some((socket, peer)) = next {
                take((socket, peer, share.enter()));
            }
        }
    }
}

/// Errors of `accept` that are about the connection that was to be accepted, or pass by themselves (accept(2)).
fn is_passing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let network = [Errno::NETDOWN, Errno::PROTO, Errno::NOPROTOOPT, Errno::HOSTDOWN, Errno::NONET, Errno::HOSTUNREACH];
    let code = error.raw_os_error();
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionReset
    ) || network
        .iter()
        .chain(&[Errno::NETUNREACH, Errno::PERM, Errno::OPNOTSUPP])
        .any(|errno| code == Some(errno.raw_os_error()))
}

/// A time in which nothing can be accepted.
#[derive(Debug)]
struct Trouble {
    pause: Duration,
    logged: Option<Moment>,
}

impl Trouble {
    const FIRST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_secs(1);
    /// Idle connections asked to close each time.
    const ROOM: usize = 8;
    const BETWEEN_LINES: Duration = Duration::from_secs(10);

    fn new() -> Self {
        Trouble { pause: Self::FIRST, logged: None }
    }

    fn over(&mut self) {
        self.pause = Self::FIRST;
    }

    /// How long to wait before the next attempt.
    fn met(&mut self, sweep: &Sweep, error: &io::Error) -> Duration {
        let now = sweep.now();
        if self.logged.is_none_or(|logged| now.since(logged) >= Self::BETWEEN_LINES) {
            self.logged = Some(now);
            tracing::error!("cannot accept connections: {error}; trying again");
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(Self::LONGEST);
        pause
    }
}

/// Drops the segments that ask for a connection (socket(7), SO_ATTACH_FILTER). A filter of a TCP socket sees the segment from its
/// header on; SYN is bit 1 of byte 13 (RFC 9293 section 3.1).
const NO_SYN: [SockFilter; 4] = [
    SockFilter::new(0x30, 0, 0, 13),       // ldb [13]
    SockFilter::new(0x45, 0, 1, 0b10),     // jset #2, next, over
    SockFilter::new(0x06, 0, 0, 0),        // ret #0: drop
    SockFilter::new(0x06, 0, 0, u32::MAX), // ret: all of it
];

/// A listening socket in this thread's runtime, and what other workers pass on from theirs.
struct Listener {
    kind: Kind,
    share: Share,
    /// The address that all its connections are made to, where there is but one.
    local: Option<SocketAddr>,
}

enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Accepts what is there; an error where nothing is, `None` for a connection that has gone again.
type Accept = Box<dyn FnMut() -> io::Result<Option<(Socket, Peer)>>>;

impl Listener {
    fn new(socket: bind::Socket, share: Share) -> io::Result<Self> {
        Ok(match socket {
            bind::Socket::Tcp(listener) => {
                let listener = TcpListener::from_std(listener)?;
                let local = listener.local_addr().ok().filter(|address| !address.ip().is_unspecified());
                Listener { kind: Kind::Tcp(listener), share, local }
            }
            bind::Socket::Unix(listener) => {
                Listener { kind: Kind::Unix(UnixListener::from_std(listener)?), share, local: None }
            }
        })
    }

    /// The next connection that this worker is to serve.
    async fn accept(&self) -> io::Result<Accepted> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        loop {
            if let Poll::Ready(passed) = self.share.poll_passed(cx) {
                return Poll::Ready(passed);
            }
            let (socket, peer) = ready!(self.kind.poll_accept(cx))?;
            if let Some(ours) = self.share.place(socket, peer)? {
                return Poll::Ready(Ok(ours));
            }
        }
    }

    /// Lets no new handshake begin; those that have begun complete. Closing a listening socket resets whoever is in its queue or
    /// half connected, so this goes before.
    ///
    /// False where that cannot be, or need not: the path of a Unix socket leads elsewhere by now, and a socket that was handed to the
    /// process stays open behind us.
    fn refuse_new(&self) -> bool {
        let Kind::Tcp(listener) = &self.kind else { return false };
        let socket = socket2::SockRef::from(listener);
        // Ours all share their port ([`bind`]).
        socket.reuse_port().unwrap_or(false) && socket.attach_filter(&NO_SYN).is_ok()
    }
}

impl Kind {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, Peer)>> {
        Poll::Ready(Ok(match self {
            Kind::Tcp(listener) => {
                let (stream, peer) = ready!(listener.poll_accept(cx))?;
                (Socket::Tcp(stream), Peer::Tcp(peer))
            }
            Kind::Unix(listener) => {
                let (stream, _) = ready!(listener.poll_accept(cx))?;
                (Socket::Unix(stream), Peer::Unix)
            }
        }))
    }

    /// The same without the runtime, whose idea of whether something is there may be a moment old.
    fn into_blocking_free(self) -> io::Result<Accept> {
        Ok(match self {
            Kind::Tcp(listener) => {
                let listener = listener.into_std()?;
                Box::new(move || match listener.accept() {
                    Ok((stream, peer)) => {
                        stream.set_nonblocking(true)?;
                        let stream = tokio::net::TcpStream::from_std(stream)?;
                        Ok(Some((Socket::Tcp(stream), Peer::Tcp(peer))))
                    }
                    Err(error) if is_passing(&error) => Ok(None),
                    Err(error) => Err(error),
                })
            }
            Kind::Unix(listener) => {
                let listener = listener.into_std()?;
                Box::new(move || match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(true)?;
                        Ok(Some((Socket::Unix(tokio::net::UnixStream::from_std(stream)?), Peer::Unix)))
                    }
                    Err(error) if is_passing(&error) => Ok(None),
                    Err(error) => Err(error),
                })
            }
        })
    }
}

fn local_of(socket: &Socket) -> Option<SocketAddr> {
    match socket {
        Socket::Tcp(stream) => stream.local_addr().ok(),
        Socket::Unix(_) => None,
    }
}
