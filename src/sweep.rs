//! Deadlines without timers: a deadline is a field, and one sweep per worker looks at all of them ten times a second.
//!
//! Why not `tokio::time::timeout`: it costs 150–310 ns for each request (measured) to arm and disarm a timer that almost never
//! fires. Setting a field costs one. The price is precision: a deadline is noticed up to [`Sweep::TICK`] late, never early.
//!
//! Single-threaded by design: a worker's deadlines never leave it.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;

use crate::types::{Clock, Moment};

/// All deadlines of one worker.
#[derive(Debug)]
pub struct Sweep {
    entries: RefCell<Slab<Entry>>,
    now: Cell<Moment>,
}

#[derive(Debug)]
struct Entry {
    at: Moment,
    waker: Option<Waker>,
}

/// The deadline has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub struct Expired;

impl Sweep {
    /// How often deadlines are looked at, so the most by which one is noticed late.
    pub const TICK: Duration = Duration::from_millis(100);

    /// A sweep without deadlines.
    pub fn new() -> Rc<Self> {
        Rc::new(Sweep { entries: RefCell::default(), now: Cell::new(Clock::now()) })
    }

    /// The time of the last tick: up to [`Sweep::TICK`] behind, and free.
    pub fn now(&self) -> Moment {
        self.now.get()
    }

    /// A new deadline, not set.
    pub fn deadline(self: &Rc<Self>) -> Deadline {
        let key = self.entries.borrow_mut().insert(Entry { at: Moment::NEVER, waker: None });
        Deadline { sweep: self.clone(), key }
    }

    /// Wakes whoever waits for a deadline that `now` has reached.
    ///
    /// **Cost**: about a nanosecond for each deadline that exists.
    pub fn tick(&self, now: Moment) {
        self.now.set(now);
        // Wakers only queue tasks, they never run them here; still, none is called while the slab is borrowed.
        let mut due: Vec<Waker> = Vec::new();
        for (_, entry) in self.entries.borrow_mut().iter_mut() {
            if entry.at <= now {
                due.extend(entry.waker.take());
            }
        }
        due.into_iter().for_each(Waker::wake);
    }

    /// Wakes everybody who waits for any deadline, so that they look again at what else may have ended their wait.
    pub fn wake_all(&self) {
        let waiting: Vec<Waker> =
            self.entries.borrow_mut().iter_mut().filter_map(|(_, entry)| entry.waker.take()).collect();
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Ticks for ever; each worker runs this once as a local task.
    pub async fn run(self: Rc<Self>) {
        let mut interval = tokio::time::interval(Self::TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.tick(Clock::now());
        }
    }

    /// How many deadlines exist; for tests and the metrics page.
    pub fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    /// Whether no deadline exists.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One deadline, set and cleared as often as needed; gone when dropped.
#[derive(Debug)]
pub struct Deadline {
    sweep: Rc<Sweep>,
    key: usize,
}

impl Deadline {
    /// Sets it to `span` after the last tick, or clears it where there is no bound.
    pub fn set_after(&self, span: Option<Duration>) {
        // One tick is added because the coarse clock may be that far behind: never early.
        self.set(span.map_or(Moment::NEVER, |span| self.sweep.now() + span + Sweep::TICK));
    }

    /// Sets it; [`Moment::NEVER`] clears it.
    pub fn set(&self, at: Moment) {
        self.sweep.entries.borrow_mut()[self.key].at = at;
    }

    /// When it is.
    pub fn at(&self) -> Moment {
        self.sweep.entries.borrow()[self.key].at
    }

    /// Whether it has passed, as of the last tick.
    pub fn expired(&self) -> bool {
        self.at() <= self.sweep.now()
    }

    /// Ready once it has passed; otherwise the task is woken by the sweep that sees it pass.
    pub fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()> {
        let entry = &mut self.sweep.entries.borrow_mut()[self.key];
        if entry.at <= self.sweep.now.get() {
            return Poll::Ready(());
        }
        match &entry.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => entry.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Runs `future` until it is done or this deadline, as set, passes.
    ///
    /// **Errors**: [`Expired`]; the future is dropped then.
    pub async fn bound<F: Future>(&self, future: F) -> Result<F::Output, Expired> {
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll_expired(cx).map(|()| Err(Expired)),
        })
        .await
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.sweep.entries.borrow_mut().remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use futures_util::future::pending;

    #[test]
    fn a_deadline_passes_at_the_first_tick_that_reaches_it_and_not_before() {
        let sweep = Sweep::new();
        let start = sweep.now();
        let deadline = sweep.deadline();
        deadline.set(start + Duration::from_secs(1));
        assert!(deadline.bound(pending::<()>()).now_or_never().is_none());
        sweep.tick(start + Duration::from_millis(999));
        assert!(!deadline.expired());
        sweep.tick(start + Duration::from_secs(1));
        assert_eq!(deadline.bound(pending::<()>()).now_or_never(), Some(Err(Expired)));
    }

    #[test]
    fn an_unset_deadline_never_passes_and_a_dropped_one_leaves_nothing() {
        let sweep = Sweep::new();
        let deadline = sweep.deadline();
        sweep.tick(sweep.now() + Duration::from_secs(1 << 30));
        assert!(!deadline.expired());
        drop(deadline);
        assert!(sweep.is_empty());
    }

    #[tokio::test(flavor = "local")]
    async fn a_waiting_task_is_woken() {
        let sweep = Sweep::new();
        let ticking = tokio::task::spawn_local(sweep.clone().run());
        let deadline = sweep.deadline();
        deadline.set_after(Some(Duration::from_millis(1)));
        assert_eq!(deadline.bound(pending::<()>()).await, Err(Expired));
        ticking.abort();
    }
}
