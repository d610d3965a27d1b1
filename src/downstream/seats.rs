use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam_utils::CachePadded;
use tokio::sync::Notify;

/// How many connections a listener has open, on all workers together. Survives reloads.
#[derive(Debug, Default)]
pub struct Seats {
    taken: CachePadded<AtomicU32>,
    waiting: AtomicU32,
    freed: Notify,
}

impl Seats {
    /// None taken.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// How many are taken.
    pub fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Takes one, if fewer than `max` are taken.
    pub(super) fn take(self: &Arc<Self>, max: u32) -> Option<Seat> {
        let more = |taken: u32| (taken < max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::SeqCst, Ordering::Relaxed, more).ok().map(|_| Seat(self.clone()))
    }

    /// Ready when one may have been given back; spurious at times.
    pub(super) async fn freed(&self, max: u32) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waits = Waits(self);
        // Looked at after it is known that we wait, so that no seat is given back unnoticed in between.
        if self.taken.load(Ordering::SeqCst) >= max {
            self.freed.notified().await;
        }
    }
}

struct Waits<'a>(&'a Seats);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A connection that counts as long as this is held.
#[derive(Debug)]
pub(super) struct Seat(Arc<Seats>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::SeqCst);
        if self.0.waiting.load(Ordering::SeqCst) > 0 {
            self.0.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn who_waits_for_a_seat_hears_of_one_given_back_by_another_thread() {
        let seats = Seats::new();
        let first = seats.take(1).unwrap();
        assert!(seats.take(1).is_none());
        let mut freed = Box::pin(seats.freed(1));
        assert!(freed.as_mut().now_or_never().is_none());
        std::thread::spawn(move || drop(first)).join().unwrap();
        freed.await;
        assert_eq!(seats.taken(), 0);
        assert!(seats.take(1).is_some());
    }
}
