//! The queue under threads: nobody waits for ever, nothing is held that was given back.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;

use super::{Class, PoolKept, Ticket};
use crate::balance::Load;
use crate::telemetry::Registry;
use crate::types::{Clock, Moment};

fn kept() -> Arc<PoolKept> {
    Arc::new(PoolKept::new(Registry::new(1, 10, &[]).pool("pool")))
}

const UPSTREAMS: u64 = 3;
const MAX: u32 = 2;

/// Upstreams with their loads, as a table would have them.
struct Site {
    kept: Arc<PoolKept>,
    loads: [Load; UPSTREAMS as usize],
    served: AtomicU64,
    left: AtomicU64,
}

impl Site {
    fn enter(&self, class: Class, reserved: &[u64], random: u64) -> Option<u64> {
        let open = |identity: &u64| match class {
            Class::Only(only) => *identity == only,
            Class::Any => !reserved.contains(identity),
            Class::Again => *identity != random % UPSTREAMS,
        };
        let mut all = (0..UPSTREAMS).map(|n| (n + random) % UPSTREAMS).filter(open);
        all.find(|identity| self.loads[*identity as usize].enter(Some(MAX)))
    }

    fn leave(&self, identity: u64) {
        self.loads[identity as usize].leave();
        self.kept.queue.freed(identity);
    }

    async fn place(&self, class: Class, random: u64) -> Option<u64> {
        let queue = &self.kept.queue;
        let reserved = if queue.is_empty() { Some(Default::default()) } else { queue.approach(class, true) };
        if let Some(place) = reserved.and_then(|reserved| self.enter(class, &reserved, random)) {
            return Some(place);
        }
        let mut ticket = Ticket::join(&self.kept, class, true, usize::MAX, Clock::now()).expect("there is room");
        let mut turns = 0;
        loop {
            poll_fn(|cx| ticket.poll_turn(cx)).await;
            let turn = ticket.turn().cloned().expect("it has a turn");
            turns += 1;
            if random.is_multiple_of(13) && turns == 1 {
                // Its client leaves at the very moment that it is called.
                return None;
            }
            match turn.take.then(|| self.enter(class, &turn.reserved, random)).flatten() {
                Some(identity) => {
                    ticket.served(identity);
                    return Some(identity);
                }
                None => ticket.failed(),
            }
        }
    }

    async fn request(&self, mut random: u64) {
        random = random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 20;
        let class = match random % 10 {
            0 | 1 => Class::Only(random / 10 % UPSTREAMS),
            2 => Class::Again,
            _ => Class::Any,
        };
        let Some(identity) = self.place(class, random / 64).await else {
            self.left.fetch_add(1, Ordering::Relaxed);
            return;
        };
        for _ in 0..random % 4 {
            tokio::task::yield_now().await;
        }
        self.leave(identity);
        self.served.fetch_add(1, Ordering::Relaxed);
    }
}

/// Many more requests than slots, on several threads, some of which leave when they are called. If any call were lost, somebody would wait
/// for ever, and this would not end.
#[test]
fn no_call_is_lost_between_threads() {
    const THREADS: u64 = 4;
    const TASKS: u64 = 40;
    const ROUNDS: u64 = 150;
    let site = Arc::new(Site { kept: kept(), loads: Default::default(), served: 0.into(), left: 0.into() });
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let site = site.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
                let tasks = (0..TASKS).map(|task| {
                    let site = site.clone();
                    async move {
                        for round in 0..ROUNDS {
                            site.request(1 + thread + THREADS * (task + TASKS * round)).await;
                        }
                    }
                });
                runtime.block_on(futures_util::future::join_all(tasks));
            })
        })
        .collect();
    let deadline = Instant::now() + Duration::from_secs(60);
    while threads.iter().any(|thread| !thread.is_finished()) {
        let queue = &site.kept.queue;
        assert!(Instant::now() < deadline, "stuck: {queue:?} {:?}", site.loads);
        if fastrand::bool() {
            queue.look_again();
        }
        std::thread::yield_now();
    }
    threads.into_iter().for_each(|thread| thread.join().expect("no thread has panicked"));
    let (served, left) = (site.served.load(Ordering::Relaxed), site.left.load(Ordering::Relaxed));
    assert_eq!(served + left, THREADS * TASKS * ROUNDS);
    assert!(left > 0, "some have left");
    assert!(site.kept.queue.is_empty() && site.kept.queue.oldest().is_none());
    assert!(site.loads.iter().all(|load| load.in_flight() == 0));
}

#[test]
fn a_place_is_free_as_soon_as_its_holder_goes() {
    let kept = kept();
    let now = Moment::from_nanos(5);
    let ticket = |size| Ticket::join(&kept, Class::Any, true, size, now);
    let first = ticket(2).expect("there is room");
    let second = ticket(2).expect("there is room");
    assert!(ticket(2).is_err());
    assert_eq!((kept.queue.len(), kept.queue.oldest()), (2, Some(now)));
    drop(first);
    let third = ticket(2).expect("there is room again");
    drop((second, third));
    assert!(kept.queue.is_empty());
}

#[test]
fn who_is_called_and_goes_passes_the_call_on() {
    let kept = kept();
    let join = || Ticket::join(&kept, Class::Any, true, 9, Moment::START).expect("there is room");
    let (mut first, mut second) = (join(), join());
    first.failed();
    let turn_of = |ticket: &mut Ticket| poll_fn(|cx| ticket.poll_turn(cx)).now_or_never().is_some();
    assert!(!turn_of(&mut first) && !turn_of(&mut second));
    kept.queue.freed(1);
    assert!(turn_of(&mut first) && !turn_of(&mut second));
    drop(first);
    assert!(turn_of(&mut second));
}

#[tokio::test(flavor = "current_thread")]
async fn the_scaler_is_woken_once_for_each_need() {
    let kept = kept();
    let join = || Ticket::join(&kept, Class::Any, true, 9, Moment::START).expect("there is room");
    let tickets = [join(), join()];
    kept.queue.want();
    kept.queue.want();
    kept.wanted().await;
    kept.queue.want();
    assert!(kept.wanted().now_or_never().is_none(), "it knows");
    drop(tickets);
    let _another = join();
    kept.queue.want();
    assert!(kept.wanted().now_or_never().is_some(), "a new need");
    assert_eq!(kept.queue.eta(), None);
    kept.set_eta(Some(Moment::from_nanos(7)));
    assert_eq!(kept.queue.eta(), Some(Moment::from_nanos(7)));
}
