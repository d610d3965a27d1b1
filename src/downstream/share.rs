//! How the connections of an address are spread over the workers.
//!
//! The kernel gives each new connection to a worker by a hash of its addresses. Of many that is even; of few and long ones, such as
//! HTTP/2 connections of another proxy or streams of events, it leaves one worker with most of the work and another with none. So a
//! worker that has clearly more of them than another passes what it has just accepted on to that one, as HAProxy's accept queues do.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;

use super::connection::Peer;
use super::seats::Seat;
use crate::socket::Socket;
use crate::types::{Clock, Moment};

/// So many connections are passed on at most in a [`SPAN`]: where connections come and go, passing on is work for nothing.
const MOST: u32 = 100;
const SPAN: Duration = Duration::from_secs(1);
/// More than anybody has.
const SHUT: u32 = 1 << 31;

/// One worker's share of an address's connections.
///
/// **Cost**: two atomic counts for each connection, and a look at the workers' counts, which lie together for that; the lock of a queue only
/// where one is passed on.
#[derive(Debug)]
pub struct Share {
    places: Arc<Places>,
    worker: usize,
    spent: Cell<Spent>,
}

#[derive(Debug)]
struct Places {
    /// Connections that each worker has, or is about to have; [`SHUT`] more where a worker takes none.
    open: Box<[AtomicU32]>,
    queues: Box<[Queue]>,
}

#[derive(Debug, Default)]
struct Queue {
    passed: Mutex<Passed>,
    waker: AtomicWaker,
}

/// What was passed on to a worker, until it takes it.
#[derive(Debug, Default)]
struct Passed {
    waiting: VecDeque<Sent>,
    /// It takes nothing any more.
    closed: bool,
}

/// A connection on its way from one worker to another.
#[derive(Debug)]
struct Sent {
    socket: Apart,
    seat: Seat,
}

/// A socket outside any runtime.
#[derive(Debug)]
enum Apart {
    Tcp(std::net::TcpStream, SocketAddr),
    Unix(std::os::unix::net::UnixStream),
}

/// How many were passed on in the second that began at this moment.
#[derive(Debug, Clone, Copy)]
struct Spent {
    since: Moment,
    passed: u32,
}

/// A connection that a worker is to serve.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) socket: Socket,
    pub(super) peer: Peer,
    pub(super) seat: Seat,
    pub(super) place: Place,
}

impl Share {
    /// The shares of so many workers in one address.
    pub fn among(workers: usize) -> Vec<Share> {
        let places = Arc::new(Places {
            open: (0..workers).map(|_| AtomicU32::new(0)).collect(),
            queues: (0..workers).map(|_| Queue::default()).collect(),
        });
        let spent = Spent { since: Moment::from_nanos(0), passed: 0 };
        let share = |worker| Share { places: places.clone(), worker, spent: Cell::new(spent) };
        (0..workers).map(share).collect()
    }

    /// What this worker has accepted, to be served here; nothing where another worker has got it.
    ///
    /// **Errors**: the connection could not be moved, and is gone.
    pub(super) fn place(&self, socket: Socket, peer: Peer, seat: Seat) -> io::Result<Option<Accepted>> {
        let Some(other) = self.better() else { return Ok(Some(self.keep(socket, peer, seat))) };
        let sent = Sent { socket: Apart::new(socket, peer)?, seat };
        let Err(Sent { socket, seat }) = self.pass_on(other, sent) else { return Ok(None) };
        let (socket, peer) = socket.here()?;
        Ok(Some(self.keep(socket, peer, seat)))
    }

    /// What this worker has accepted, to be served here whatever the others have.
    pub(super) fn keep(&self, socket: Socket, peer: Peer, seat: Seat) -> Accepted {
        self.places.open[self.worker].fetch_add(1, Ordering::Relaxed);
        Accepted { socket, peer, seat, place: self.counted() }
    }

    /// Who had better have the next connection than this worker.
    fn better(&self) -> Option<usize> {
        let open = self.places.open.iter().map(|count| count.load(Ordering::Relaxed));
        better(open, self.worker).filter(|_| self.spend(Clock::now()))
    }

    /// Whether one more may be passed on now.
    fn spend(&self, now: Moment) -> bool {
        let Spent { since, passed } = self.spent.get();
        let spent = if now.since(since) < SPAN { Spent { since, passed } } else { Spent { since: now, passed: 0 } };
        let may = spent.passed < MOST;
        self.spent.set(Spent { passed: spent.passed + u32::from(may), ..spent });
        may
    }

    /// Puts it into another worker's queue; gives it back where that takes nothing any more.
    fn pass_on(&self, other: usize, sent: Sent) -> Result<(), Sent> {
        let queue = &self.places.queues[other];
        let mut passed = queue.lock();
        if passed.closed {
            return Err(sent);
        }
        // From now on, so that the next one goes elsewhere.
        self.places.open[other].fetch_add(1, Ordering::Relaxed);
        passed.waiting.push_back(sent);
        drop(passed);
        queue.waker.wake();
        Ok(())
    }

    /// What another worker has passed on to this one.
    ///
    /// **Errors**: one that could not be moved, and is gone.
    pub(super) fn poll_passed(&self, cx: &Context<'_>) -> Poll<io::Result<Accepted>> {
        let queue = &self.places.queues[self.worker];
        // Before the look, so that nothing comes unnoticed in between.
        queue.waker.register(cx.waker());
        let Some(sent) = queue.lock().waiting.pop_front() else { return Poll::Pending };
        Poll::Ready(self.receive(sent))
    }

    /// Takes nothing more from others, and what they have passed on already.
    pub(super) fn close(&self) -> impl Iterator<Item = io::Result<Accepted>> {
        self.shut().into_iter().map(|sent| self.receive(sent))
    }

    fn shut(&self) -> VecDeque<Sent> {
        let mut passed = self.places.queues[self.worker].lock();
        if !std::mem::replace(&mut passed.closed, true) {
            self.places.open[self.worker].fetch_add(SHUT, Ordering::Relaxed);
        }
        std::mem::take(&mut passed.waiting)
    }

    fn receive(&self, Sent { socket, seat }: Sent) -> io::Result<Accepted> {
        let place = self.counted();
        let (socket, peer) = socket.here()?;
        Ok(Accepted { socket, peer, seat, place })
    }

    /// For a connection that has been counted as this worker's.
    fn counted(&self) -> Place {
        Place { places: self.places.clone(), worker: self.worker }
    }
}

/// A worker that has gone takes nothing any more, however it went.
impl Drop for Share {
    fn drop(&mut self) {
        self.shut();
    }
}

impl Queue {
    /// Nothing is ever left half done under it.
    fn lock(&self) -> MutexGuard<'_, Passed> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Apart {
    /// Takes it out of this thread's runtime.
    fn new(socket: Socket, peer: Peer) -> io::Result<Apart> {
        Ok(match (socket, peer) {
            (Socket::Tcp(stream), Peer::Tcp(peer)) => Apart::Tcp(stream.into_std()?, peer),
            (Socket::Unix(stream), _) => Apart::Unix(stream.into_std()?),
            (Socket::Tcp(_), Peer::Unix) => unreachable!("a TCP connection has a TCP peer"),
        })
    }

    /// Puts it into this thread's runtime.
    fn here(self) -> io::Result<(Socket, Peer)> {
        Ok(match self {
            Apart::Tcp(stream, peer) => (Socket::Tcp(tokio::net::TcpStream::from_std(stream)?), Peer::Tcp(peer)),
            Apart::Unix(stream) => (Socket::Unix(tokio::net::UnixStream::from_std(stream)?), Peer::Unix),
        })
    }
}

/// Who had better have the next connection than `worker`: who has the fewest, where that are clearly fewer. An eighth more is no reason: the
/// hash does no better with many.
fn better(open: impl Iterator<Item = u32> + Clone, worker: usize) -> Option<usize> {
    let mine = open.clone().nth(worker)?;
    let (other, least) = open.enumerate().min_by_key(|(_, count)| *count)?;
    (mine > least + least / 8).then_some(other)
}

/// A connection that counts among a worker's as long as this is held.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    worker: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.open[self.worker].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::downstream::Seats;

    /// What happens to connections that come to the workers in this order: how many each has in the end.
    fn spread(workers: usize, arrivals: impl IntoIterator<Item = usize>) -> Vec<u32> {
        let mut open = vec![0; workers];
        for arrival in arrivals {
            let goes_to = better(open.iter().copied(), arrival).unwrap_or(arrival);
            open[goes_to] += 1;
        }
        open
    }

    #[test]
    fn few_connections_are_spread_evenly_wherever_they_come() {
        assert_eq!(spread(4, [2; 4]), [1; 4]);
        assert_eq!(spread(4, [2; 9]), [2, 2, 3, 2]);
        assert_eq!(spread(2, [0, 0, 1, 1, 1, 1]), [3, 3]);
        assert_eq!(spread(1, [0; 5]), [5]);
    }

    #[test]
    fn many_stay_where_they_have_come_while_nobody_has_an_eighth_more() {
        let among = |mine, other| better([mine, other].into_iter(), 0);
        assert_eq!((among(9_000, 8_000), among(9_001, 8_000)), (None, Some(1)));
        assert_eq!(among(9_000, SHUT + 5), None, "one that takes none is nobody's better");
        let open = spread(2, (0..10_000).map(|number| usize::from(number % 9 >= 5)));
        assert_eq!(open.iter().sum::<u32>(), 10_000);
        assert!(open[0] * 8 <= open[1] * 9 + 8, "{open:?}");
    }

    #[test]
    fn passing_on_is_bounded_in_time() {
        let share = Share::among(2).remove(0);
        let at = |millis: u64| Moment::from_nanos(5_000_000_000 + millis * 1_000_000);
        let passed = |millis| (0..1000).filter(|_| share.spend(at(millis))).count();
        assert_eq!((passed(0), passed(999), passed(1000), passed(1500)), (100, 0, 100, 0));
    }

    #[tokio::test(flavor = "local")]
    async fn what_a_closing_worker_has_been_given_is_not_lost_and_nothing_more_comes() {
        let mut shares = Share::among(2);
        let (second, first) = (shares.pop().unwrap(), shares.pop().unwrap());
        let seats = Seats::new();
        let mut others = Vec::new();
        let mut arrive = || {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            others.push(theirs);
            let socket = Socket::Unix(tokio::net::UnixStream::from_std(ours).unwrap());
            first.place(socket, Peer::Unix, seats.take(10).unwrap()).unwrap()
        };
        let kept = arrive().expect("nobody has fewer");
        assert!(arrive().is_none());
        assert_eq!(seats.taken(), 2, "who is passed on has a seat");
        let received: Vec<_> = second.close().map(Result::unwrap).collect();
        assert_eq!(received.len(), 1);
        drop(received);
        let third = arrive().expect("who would have fewer takes none");
        drop((kept, third, second));
        let open: Vec<u32> = first.places.open.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        assert_eq!((open, seats.taken()), (vec![0, SHUT], 0));
    }

    #[tokio::test(flavor = "local")]
    async fn one_that_has_closed_meanwhile_gives_the_connection_back() {
        let mut shares = Share::among(2);
        let (second, first) = (shares.pop().unwrap(), shares.pop().unwrap());
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let seat = Seats::new().take(1).unwrap();
        drop(second);
        let sent = Sent { socket: Apart::Unix(ours), seat };
        assert!(first.pass_on(1, sent).is_err());
    }
}
