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
use std::task::{Context, Poll, Waker};
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
        let listener = Listener::new(socket, Rc::new(share))?;
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
        tokio::task::spawn_local(self.clone().receive(listener.share.clone(), listener.local));
        let mut trouble = Trouble::new();
        while !self.closing.get() {
            let max = self.app.terms().max_connections;
            if self.seats.taken() >= max {
                self.until_closing(self.seat_freed(max)).await;
                continue;
            }
            match self.until_closing(listener.accept()).await {
                None => {}
                Some(Ok((socket, peer))) => {
                    trouble.over();
                    // One that cannot be moved is gone, as if it had never come.
                    if let Ok(Some(ours)) = listener.share.place(socket, peer, self.seat().await) {
                        self.take(ours, listener.local);
                    }
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

    /// Serves what other workers pass on, whatever keeps this one from accepting.
    async fn receive(self: Rc<Self>, share: Rc<Share>, local: Option<SocketAddr>) {
        while let Some(passed) = self.until_closing(poll_fn(|cx| share.poll_passed(cx))).await {
            if let Ok(ours) = passed {
                self.take(ours, local);
            }
        }
    }

    /// `local`: the address that all of the socket's connections are made to, where there is but one.
    fn take(&self, accepted: Accepted, local: Option<SocketAddr>) {
        let local = local.or_else(|| local_of(&accepted.socket));
        let arrival = Arrival { accepted, local, terms: self.app.terms(), entry: self.roster.enter() };
        tokio::task::spawn_local(attend(self.app.clone(), self.stock.clone(), self.sweep.clone(), arrival));
    }

    /// Takes what has connected already or is about to, and closes the socket.
    async fn take_rest(&self, listener: Listener) {
        let local = listener.local;
        listener.share.close().filter_map(Result::ok).for_each(|passed| self.take(passed, local));
        let keep = |(socket, peer)| {
            if let Some(seat) = self.seats.take(u32::MAX) {
                self.take(listener.share.keep(socket, peer, seat), local);
            }
        };
        if !self.last.get() && listener.refuse_new() {
            let until = self.sweep.deadline();
            until.set_after(Some(LAST_HANDSHAKES));
            while let Ok(next) = until.bound(listener.accept()).await {
                match next {
                    Ok(accepted) => keep(accepted),
                    Err(error) if is_passing(&error) => {}
                    Err(_) => break,
                }
            }
        }
        let mut accept = match listener.kind.into_blocking_free() {
            Ok(accept) => accept,
            Err(error) => {
                tracing::warn!("cannot take the last connections of a socket that closes: {error}");
                return;
            }
        };
        while let Ok(next) = accept() {
            next.into_iter().for_each(&keep);
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
    share: Rc<Share>,
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
    fn new(socket: bind::Socket, share: Rc<Share>) -> io::Result<Self> {
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

    async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match &self.kind {
            Kind::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Socket::Tcp(stream), Peer::Tcp(peer)))
            }
            Kind::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::Unix(stream), Peer::Unix))
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
    /// Accepts without the runtime, whose idea of whether something is there may be a moment old.
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
