use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use tokio::sync::Notify;

use super::PoolKept;
use super::flow::Flow;
use super::line::{Class, Line, Reserved, Turn, Woken};
use crate::types::Moment;

/// Where the requests of a pool wait while every upstream has as many as it may have: one line for all workers, first come, first served.
///
/// **Cost**: nothing while nobody waits but one atomic load where a request picks and one where a slot is given back. A lock, held for some
/// hundred nanoseconds, for whatever concerns somebody who waits.
/// **Bounds**: as configured, by whoever joins; some hundred bytes for each that waits. What the requests themselves hold says `proxy::wait`.
/// **Laws**: who was never served does not overtake (but for the moment between room coming free and calling for it, when one that was called already may
/// find it first); each slot that comes free wakes one who can use it, or there is none; who goes passes on
/// what it was woken for. A new snapshot has all of them look again, in order.
///
/// Why not a semaphore: the slots are those of many upstreams, each with a bound of its own, and some may only use a certain one. Why not a
/// queue for each worker: a slot that comes free on one would not be found by the other, and nobody could tell who came first.
pub struct Queue {
    waiting: CachePadded<AtomicUsize>,
    inner: Mutex<Inner>,
    wanted: AtomicBool,
    wake: Notify,
    /// When the next instance is expected, in nanoseconds.
    eta: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    line: Line,
    wakers: HashMap<u64, Waker>,
    flow: Flow,
}

/// As many wait as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("as many requests wait as may")]
pub struct QueueFull;

impl Default for Queue {
    fn default() -> Self {
        Queue {
            waiting: CachePadded::default(),
            inner: Mutex::default(),
            wanted: AtomicBool::new(false),
            wake: Notify::new(),
            eta: AtomicU64::new(Moment::NEVER.nanos()),
        }
    }
}

impl Queue {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether nobody waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The upstream `identity` has a slot that was given back just now. To be called after [`Load::leave`](crate::balance::Load::leave).
    #[inline]
    pub fn freed(&self, identity: u64) {
        // Pairs with `join`: either it is seen here, or its look at the upstreams sees the slot.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.change(|inner, woken| {
                inner.flow.freed();
                inner.line.call(identity, woken);
            });
        }
    }

    /// Has everybody look again, one after the other: a new snapshot has been published, in which the pool is another.
    pub fn look_again(&self) {
        if !self.is_empty() {
            self.change(|inner, woken| inner.line.look(woken));
        }
    }

    /// Whether somebody who has not joined may try at once; then, what it must leave to those who wait. `shared` says whether the upstream
    /// that it is stuck to is open to everybody.
    pub fn approach(&self, class: Class, shared: bool) -> Option<Reserved> {
        self.lock().line.approach(class, shared)
    }

    /// When the one came who has waited longest.
    pub fn oldest(&self) -> Option<Moment> {
        if self.is_empty() { None } else { self.lock().line.oldest() }
    }

    /// How long it takes until all who wait now will have been served, by the rate at which slots came free of late; none where none did.
    pub fn patience(&self, now: Moment) -> Option<Duration> {
        let mut inner = self.lock();
        let waiting = inner.line.len();
        inner.flow.patience(waiting, now)
    }

    /// An instance is wanted: wakes the scaler, once until nobody waits any more.
    pub fn want(&self) {
        if !self.wanted.swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }

    /// Ready when requests have come that nobody is fit for. For the scaler, which is the only one to wait for it.
    pub async fn wanted(&self) {
        self.wake.notified().await;
    }

    /// When the next instance is expected to be ready, as the scaler says; for the `Retry-After` of those who are refused meanwhile.
    pub fn set_eta(&self, eta: Option<Moment>) {
        self.eta.store(eta.unwrap_or(Moment::NEVER).nanos(), Ordering::Relaxed);
    }

    /// When the next instance is expected to be ready.
    pub fn eta(&self) -> Option<Moment> {
        Some(Moment::from_nanos(self.eta.load(Ordering::Relaxed))).filter(|eta| *eta != Moment::NEVER)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change of the line is one call that cannot panic half way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the line and wakes whom that concerns, after the lock.
    fn change<T>(&self, change: impl FnOnce(&mut Inner, &mut Woken) -> T) -> T {
        let mut inner = self.lock();
        let mut woken = Woken::new();
        let result = change(&mut inner, &mut woken);
        let wakers: smallvec::SmallVec<[Waker; 2]> =
            woken.iter().filter_map(|place| inner.wakers.get(place).cloned()).collect();
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
        result
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("waiting", &self.len()).finish_non_exhaustive()
    }
}

/// A place in the line; left when dropped, and whatever it was called for is passed on.
#[derive(Debug)]
pub struct Ticket {
    kept: Arc<PoolKept>,
    place: u64,
    class: Class,
    /// The turn that it is having.
    turn: Option<Turn>,
    served: Option<u64>,
}

impl Ticket {
    /// Joins the line, unless `size` wait already. It may have a turn at once; see [`Ticket::turn`].
    ///
    /// **Errors**: [`QueueFull`].
    pub fn join(
        kept: &Arc<PoolKept>,
        class: Class,
        shared: bool,
        size: usize,
        now: Moment,
    ) -> Result<Ticket, QueueFull> {
        let queue = &kept.queue;
        let joined = queue.change(|inner, woken| {
            let waiting = inner.line.len();
            if waiting == 0 {
                inner.flow.begins(now);
            }
            (waiting < size).then(|| {
                queue.waiting.fetch_add(1, Ordering::SeqCst);
                inner.line.join(class, shared, now, woken)
            })
        });
        let (place, turn) = joined.ok_or(QueueFull)?;
        // Pairs with `freed`: what is looked at from here on is as new as the count that was just changed.
        fence(Ordering::SeqCst);
        Ok(Ticket { kept: kept.clone(), place, class, turn, served: None })
    }

    /// The turn that it has now.
    pub fn turn(&self) -> Option<&Turn> {
        self.turn.as_ref()
    }

    /// Ready when it has a turn; otherwise the task is woken when it has.
    pub fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.turn.is_some() {
            return Poll::Ready(());
        }
        let mut inner = self.kept.queue.lock();
        self.turn = inner.line.turn(self.place);
        if self.turn.is_some() {
            return Poll::Ready(());
        }
        match inner.wakers.get_mut(&self.place) {
            Some(waker) => waker.clone_from(cx.waker()),
            None => drop(inner.wakers.insert(self.place, cx.waker().clone())),
        }
        Poll::Pending
    }

    /// It is in another class since a new snapshot.
    pub fn set_class(&mut self, class: Class) {
        if class != self.class {
            self.class = class;
            self.kept.queue.lock().line.change(self.place, class);
        }
    }

    /// Has tried in vain and waits on.
    pub fn failed(&mut self) {
        if let Some(turn) = self.turn.take() {
            self.kept.queue.change(|inner, woken| inner.line.failed(self.place, &turn, woken));
        }
    }

    /// Has a slot at the upstream `identity` and goes.
    pub fn served(mut self, identity: u64) {
        self.served = Some(identity);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let queue = &self.kept.queue;
        queue.change(|inner, woken| {
            inner.wakers.remove(&self.place);
            inner.line.leave(self.place, self.turn.as_ref(), self.served, woken);
            queue.waiting.fetch_sub(1, Ordering::SeqCst);
            if inner.line.len() == 0 {
                // Under the lock: whoever joins after this wants anew.
                queue.wanted.store(false, Ordering::Release);
            }
        });
    }
}
