//! The decisions of a request's path take no memory: picking an upstream, asking its circuit, telling how it went,
//! repeating.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tidegate::balance::{Algorithm, Cursor, Draw, Load, Member, Table, stable_hash};
use tidegate::health::{BreakerPolicy, EjectPolicy, Outcome, Outcomes, Policy};
use tidegate::retry::{Attempt, Body, Budget, Deposits, Stage, may_repeat};
use tidegate::types::Moment;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes on to the system's allocator as it came; counting touches nothing but a thread local without
// a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often this thread takes memory while it does something.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

fn draw(n: u64, tried: &[u32]) -> Draw<'_> {
    let random = stable_hash(&n.to_le_bytes());
    Draw { now: Moment::from_nanos(1 + n), random, hash: Some(!random), tried }
}

#[test]
fn the_count_sees_an_allocation() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

#[test]
fn no_algorithm_allocates_in_a_pool_of_any_size_whether_there_is_room_or_not() {
    for (_, algorithm) in Algorithm::WORDS {
        for count in [1u32, 5, 40, 600] {
            let member = |id: u32| Member {
                id,
                load: Arc::new(Load::new()),
                weight: 1.0 + f64::from(id % 3),
                max: Some(2),
                backup: id % 7 == 6,
                identity: stable_hash(&id.to_le_bytes()),
            };
            let table = Table::new(algorithm, Some(0.25), (0..count).map(member).collect());
            let cursor = Cursor::new();
            let work = || {
                // Twice as many as there is room for.
                for n in 0..u64::from(count) * 4 {
                    if let Ok(id) = table.pick(&cursor, &draw(n, &[1, 2])) {
                        table.member(id).unwrap().load.sample(Duration::from_millis(n), Moment::from_nanos(n));
                    }
                }
            };
            assert_eq!(allocations(work), 0, "{algorithm} with {count} members");
        }
    }
}

#[test]
fn health_and_retry_allocate_nothing_whatever_happens() {
    let second = Duration::from_secs(1);
    let breaker =
        BreakerPolicy { error_rate: 0.9, min_requests: 100, window: second, failures: None, open: second, probes: 3 };
    let eject = EjectPolicy { failures: 3, time: second, max_time: second, max_share: 0.5 };
    let policy = Policy { breaker: Some(breaker), eject, ..Policy::default() };
    let outcomes = Outcomes::new();
    let (budget, deposits) = (Budget::new(), Deposits::new());
    let work = || {
        for n in 0..1_000 {
            let now = Moment::from_nanos(n * 1_000_000);
            deposits.count(&budget, now);
            let Some(pass) = outcomes.admit() else { continue };
            let outcome = if n % 5 == 0 { Outcome::Good } else { Outcome::Bad };
            outcomes.record(pass, outcome, &policy, now);
            let attempt =
                Attempt { method: &Method::GET, stage: Stage::Sent, body: Body::None, made: 1, allowed: 3, left: None };
            let _ = may_repeat(&attempt, &budget, 0.2, now);
        }
    };
    assert_eq!(allocations(work), 0);
}
