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
use crate::socket::Socket;
use crate::types::{Clock, Moment};

/// So many connections are passed on at most in a [`SPAN`]: where connections come and go, passing on is work for nothing.
const MOST: u32 = 100;
const SPAN: Duration = Duration::from_secs(1);

/// One worker's share of an address's connections.
///
/// **Cost**: two atomic counts for each connection, and a look at the workers' counts; the lock of a queue only where one is passed on.
#[derive(Debug)]
pub struct Share {
    places: Arc<Places>,
    worker: usize,
    spent: Cell<Spent>,
}

#[derive(Debug)]
struct Places {
    /// Connections that each worker has, or is about to have.
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

/// A connection on its way from one worker's runtime to another's.
#[derive(Debug)]
enum Sent {
    Tcp(std::net::TcpStream, SocketAddr),
    Unix(std::os::unix::net::UnixStream),
}

/// How many were passed on in the second that began at this moment.
#[derive(Debug, Clone, Copy)]
struct Spent {
    since: Moment,
    passed: u32,
}

/// An accepted connection, with the place it takes.
pub(super) type Accepted = (Socket, Peer, Place);

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

    /// A place for a connection that this worker has accepted, unless another worker has got it.
    ///
    /// **Errors**: the connection could not be moved, and is gone.
    pub(super) fn place(&self, socket: Socket, peer: Peer) -> io::Result<Option<Accepted>> {
        let Some(other) = self.better() else { return Ok(Some((socket, peer, self.enter()))) };
        let sent = Sent::new(socket, peer)?;
        match self.pass_on(other, sent) {
            Ok(()) => Ok(None),
            Err(sent) => sent.received().map(|(socket, peer)| Some((socket, peer, self.enter()))),
        }
    }

    /// Who had better have the next connection than this worker.
    fn better(&self) -> Option<usize> {
        let open = |count: &AtomicU32| count.load(Ordering::Relaxed);
        let mine = open(self.places.open.get(self.worker)?);
        let (other, least) = self.places.open.iter().map(open).enumerate().min_by_key(|(_, count)| *count)?;
        (is_better_passed_on(mine, least) && self.spend(Clock::now())).then_some(other)
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
        passed.closed = true;
        std::mem::take(&mut passed.waiting)
    }

    /// Whoever passed it on has counted it already.
    fn receive(&self, sent: Sent) -> io::Result<Accepted> {
        let place = Place { places: self.places.clone(), worker: self.worker };
        sent.received().map(|(socket, peer)| (socket, peer, place))
    }

    /// A place for a connection that this worker keeps.
    pub(super) fn enter(&self) -> Place {
        self.places.open[self.worker].fetch_add(1, Ordering::Relaxed);
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

impl Sent {
    /// Takes it out of this thread's runtime.
    fn new(socket: Socket, peer: Peer) -> io::Result<Sent> {
        Ok(match (socket, peer) {
            (Socket::Tcp(stream), Peer::Tcp(peer)) => Sent::Tcp(stream.into_std()?, peer),
            (Socket::Unix(stream), _) => Sent::Unix(stream.into_std()?),
            (Socket::Tcp(_), Peer::Unix) => unreachable!("a TCP connection has a TCP peer"),
        })
    }

    /// Puts it into this thread's runtime.
    fn received(self) -> io::Result<(Socket, Peer)> {
        Ok(match self {
            Sent::Tcp(stream, peer) => (Socket::Tcp(tokio::net::TcpStream::from_std(stream)?), Peer::Tcp(peer)),
            Sent::Unix(stream) => (Socket::Unix(tokio::net::UnixStream::from_std(stream)?), Peer::Unix),
        })
    }
}

/// Whether a worker with `mine` connections passes the next on to the one that has the fewest, `least`. An eighth more is no reason: the
/// hash does no better with many.
fn is_better_passed_on(mine: u32, least: u32) -> bool {
    mine > least + least / 8
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

    /// What happens to connections that come to the workers in this order: how many each has in the end.
    fn spread(workers: usize, arrivals: impl IntoIterator<Item = usize>) -> Vec<u32> {
        let mut open = vec![0; workers];
        for arrival in arrivals {
            let (other, least) = open.iter().copied().enumerate().min_by_key(|(_, count)| *count).unwrap();
            let goes_to = if is_better_passed_on(open[arrival], least) { other } else { arrival };
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
        assert!(!is_better_passed_on(9_000, 8_000) && is_better_passed_on(9_001, 8_000));
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
        let connection = || {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            (Socket::Unix(tokio::net::UnixStream::from_std(ours).unwrap()), theirs)
        };
        let (kept, _one) = connection();
        let kept = first.place(kept, Peer::Unix).unwrap().expect("nobody has fewer");
        let (passed, _two) = connection();
        assert!(first.place(passed, Peer::Unix).unwrap().is_none());
        let received: Vec<_> = second.close().map(Result::unwrap).collect();
        assert_eq!(received.len(), 1);
        drop(received);
        let (third, _three) = connection();
        let third = first.place(third, Peer::Unix).unwrap();
        assert!(third.is_some(), "who would have fewer has closed");
        drop((kept, third));
        let open: Vec<u32> = first.places.open.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        assert_eq!(open, [0, 0]);
    }
}
