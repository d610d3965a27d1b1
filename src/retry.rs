//! Whether an attempt that failed may be repeated on another upstream.
//!
//! Repeating has two dangers. It may do something twice: that is a question of method, stage and body. And it may turn
//! an outage into a flood, each proxy in a chain multiplying the load of all before it: that is what the [`Budget`] is
//! for.
//!
//! Never here: a request, an upstream, a clock. What is asked about comes as an [`Attempt`].
//!
//! **Why not a number of attempts alone**, as NGINX has it: three attempts each triple the load on a pool at the very
//! moment it cannot bear it. **Why not a share of the requests in flight**, as Envoy has it: with few and long requests
//! it allows none at all.
//!
//! RFC 9110 §9.2.2 would have no client repeat what was repeated already; every proxy of the field does, within bounds.
//! `attempts = 2` keeps to it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use http::Method;

use crate::types::Moment;

/// How far a failed attempt had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Provably nothing of it was acted on: no connection, no handshake, a kept connection that had been closed, a
    /// stream refused (RFC 9113 §8.7).
    NeverSent,
    /// The upstream may have acted on it. Also where it answered, with a status that counts as failure.
    Sent,
    /// Something of the answer has gone to the client.
    AnswerStarted,
}

/// What is left of the request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// It has none.
    None,
    /// All of it can be sent again: it was kept, or none of it has been taken yet.
    Replayable,
    /// Some of it was sent and is not kept.
    Gone,
}

/// An attempt that failed.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// How far it had come.
    pub stage: Stage,
    /// What is left of the body.
    pub body: Body,
    /// Attempts made, this one included.
    pub made: u32,
    /// Attempts allowed, the first included.
    pub allowed: u32,
    /// Time left for the whole request; `None` where there is no bound.
    pub left: Option<Duration>,
}

/// Why an attempt is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NoRepeat {
    /// The client has a part of the answer.
    #[error("the answer has begun")]
    AnswerStarted,
    /// The upstream may have acted on it, and doing it twice may be another thing than doing it once.
    #[error("the upstream may have acted on it, and its method is not idempotent")]
    NotIdempotent,
    /// There is nothing to send again.
    #[error("its body is gone")]
    BodyGone,
    /// It has been tried often enough.
    #[error("no attempts are left")]
    Attempts,
    /// There is no time.
    #[error("no time is left")]
    Deadline,
    /// The pool's other retries have used the budget up.
    #[error("the pool's retry budget is used up")]
    Budget,
}

impl NoRepeat {
    /// Its word in metrics.
    pub const fn word(self) -> &'static str {
        match self {
            NoRepeat::AnswerStarted => "answer_started",
            NoRepeat::NotIdempotent => "not_idempotent",
            NoRepeat::BodyGone => "body_gone",
            NoRepeat::Attempts => "attempts",
            NoRepeat::Deadline => "deadline",
            NoRepeat::Budget => "budget",
        }
    }
}

/// Whether doing it twice is the same as doing it once.
///
/// **Source**: RFC 9110 §9.2.2: PUT, DELETE and the safe methods. Of methods it does not know it promises nothing.
pub fn idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}

/// Whether a failed attempt may be repeated. A repetition that is allowed has been taken from the budget, which lets
/// `share` of the pool's requests be repeated.
///
/// **Errors**: the first reason that holds, the most lasting first.
pub fn may_repeat(attempt: &Attempt<'_>, budget: &Budget, share: f64, now: Moment) -> Result<(), NoRepeat> {
    let refusal = match attempt.stage {
        Stage::AnswerStarted => Some(NoRepeat::AnswerStarted),
        Stage::Sent if !idempotent(attempt.method) => Some(NoRepeat::NotIdempotent),
        _ if attempt.body == Body::Gone => Some(NoRepeat::BodyGone),
        _ if attempt.made >= attempt.allowed => Some(NoRepeat::Attempts),
        _ if attempt.left.is_some_and(|left| left.is_zero()) => Some(NoRepeat::Deadline),
        _ => None,
    };
    match refusal {
        Some(refusal) => Err(refusal),
        // Asked last: nothing is taken for what cannot be.
        None if budget.withdraw(share, now) => Ok(()),
        None => Err(NoRepeat::Budget),
    }
}

/// How many repetitions a pool can bear: a share of its requests of the last ten seconds, and always ten a second.
///
/// **Shape**: one for each pool; it survives reloads and is shared by all workers. Ten slots of a second, each one
/// word.
///
/// **Bounds**: all that changes within a second is one word, so workers together never take more than there is. Where
/// their clocks differ around the turn of a second one may still take from the second before, which allows it as many
/// as that second would have. Requests are counted up to 16 million a second, after that less.
///
/// **Cost**: one compare-and-swap for each deposit, which need not come with each request: one in sixteen, drawn by chance, may count for
/// sixteen. Ten loads and one compare-and-swap for a withdrawal.
///
/// **Source**: Finagle's `RetryBudget` (share, reserve each second, ten seconds' memory).
#[derive(Debug, Default)]
pub struct Budget {
    slots: CachePadded<[AtomicU64; SLOTS]>,
}

const SLOTS: usize = 10;
const FULL: u64 = (1 << 24) - 1;

/// One second: which it is (16 bits), requests (24), repetitions (24).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    stamp: u16,
    requests: u64,
    repeats: u64,
}

impl Slot {
    fn unpack(word: u64) -> Self {
        Slot { stamp: (word >> 48) as u16, requests: word >> 24 & FULL, repeats: word & FULL }
    }

    fn pack(self) -> u64 {
        u64::from(self.stamp) << 48 | self.requests.min(FULL) << 24 | self.repeats.min(FULL)
    }

    /// What the slot holds for this second: nothing, if it is still another second's.
    fn of(word: u64, second: u64) -> Self {
        let slot = Slot::unpack(word);
        let stamp = second as u16;
        if slot.stamp == stamp { slot } else { Slot { stamp, requests: 0, repeats: 0 } }
    }
}

impl Budget {
    /// Repetitions that are allowed in each second, whatever the share.
    pub const ALWAYS: u64 = 10;

    /// Nothing has been asked for yet.
    pub fn new() -> Self {
        Budget::default()
    }

    /// Counts requests (first attempts).
    pub fn deposit(&self, requests: u32, now: Moment) {
        let second = second(now);
        let add = |word| {
            let slot = Slot::of(word, second);
            Some(Slot { requests: slot.requests + u64::from(requests), ..slot }.pack())
        };
        // The closure always gives a value, so this never fails.
        let _ = self.slot(second).fetch_update(Relaxed, Relaxed, add);
    }

    /// Takes one repetition, if there is one.
    pub fn withdraw(&self, share: f64, now: Moment) -> bool {
        let second = second(now);
        let (requests, repeats) = self.before(second);
        let take = |word| {
            let slot = Slot::of(word, second);
            let earned = share * (requests + slot.requests) as f64;
            let allowed = slot.repeats < Self::ALWAYS || ((repeats + slot.repeats) as f64) < earned;
            allowed.then(|| Slot { repeats: slot.repeats + 1, ..slot }.pack())
        };
        self.slot(second).fetch_update(Relaxed, Relaxed, take).is_ok()
    }

    /// Requests and repetitions of the nine seconds before this one.
    fn before(&self, second: u64) -> (u64, u64) {
        let seconds = (1..SLOTS as u64).filter_map(|age| second.checked_sub(age));
        let slots = seconds.map(|second| Slot::of(self.slot(second).load(Relaxed), second));
        slots.fold((0, 0), |(requests, repeats), slot| (requests + slot.requests, repeats + slot.repeats))
    }

    fn slot(&self, second: u64) -> &AtomicU64 {
        &self.slots[(second % SLOTS as u64) as usize]
    }
}

fn second(now: Moment) -> u64 {
    now.nanos() / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> Moment {
        Moment::START + Duration::from_millis(millis)
    }

    fn attempt(method: &Method) -> Attempt<'_> {
        Attempt { method, stage: Stage::Sent, body: Body::None, made: 1, allowed: 3, left: None }
    }

    fn ask(attempt: Attempt<'_>) -> Result<(), NoRepeat> {
        may_repeat(&attempt, &Budget::new(), 0.2, at(0))
    }

    /// How many of so many withdrawals are allowed.
    fn allowed(budget: &Budget, share: f64, asked: u64, millis: u64) -> u64 {
        (0..asked).filter(|_| budget.withdraw(share, at(millis))).count() as u64
    }

    #[test]
    fn what_was_never_sent_may_always_be_sent_again_and_else_only_what_is_idempotent() {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE] {
            assert_eq!(ask(attempt(&method)), Ok(()), "{method}");
        }
        for method in [Method::POST, Method::PATCH, Method::CONNECT, Method::from_bytes(b"MERGE").unwrap()] {
            assert_eq!(ask(attempt(&method)), Err(NoRepeat::NotIdempotent), "{method}");
            assert_eq!(ask(Attempt { stage: Stage::NeverSent, ..attempt(&method) }), Ok(()), "{method}");
        }
    }

    #[test]
    fn each_no_has_its_reason() {
        let get = attempt(&Method::GET);
        for (attempt, refusal) in [
            (Attempt { stage: Stage::AnswerStarted, ..get }, NoRepeat::AnswerStarted),
            (Attempt { body: Body::Gone, ..get }, NoRepeat::BodyGone),
            (Attempt { body: Body::Gone, stage: Stage::NeverSent, ..get }, NoRepeat::BodyGone),
            (Attempt { made: 3, ..get }, NoRepeat::Attempts),
            (Attempt { allowed: 0, ..get }, NoRepeat::Attempts),
            (Attempt { left: Some(Duration::ZERO), ..get }, NoRepeat::Deadline),
        ] {
            assert_eq!(ask(attempt), Err(refusal));
        }
        assert_eq!(
            ask(Attempt { body: Body::Replayable, made: 2, left: Some(Duration::from_millis(1)), ..get }),
            Ok(())
        );
    }

    #[test]
    fn a_refusal_for_another_reason_costs_the_budget_nothing() {
        let budget = Budget::new();
        let post = attempt(&Method::POST);
        (0..100).for_each(|_| assert!(may_repeat(&post, &budget, 0.0, at(0)).is_err()));
        let get = attempt(&Method::GET);
        (0..Budget::ALWAYS).for_each(|_| assert_eq!(may_repeat(&get, &budget, 0.0, at(0)), Ok(())));
        assert_eq!(may_repeat(&get, &budget, 0.0, at(0)), Err(NoRepeat::Budget));
    }

    #[test]
    fn ten_a_second_are_always_allowed() {
        let budget = Budget::new();
        assert_eq!(allowed(&budget, 0.0, 50, 0), 10);
        assert_eq!(allowed(&budget, 0.2, 50, 999), 0);
        assert_eq!(allowed(&budget, 0.2, 50, 1_000), 10);
    }

    #[test]
    fn a_share_of_the_last_ten_seconds_is_allowed_and_older_requests_are_forgotten() {
        let budget = Budget::new();
        (0..10).for_each(|second| budget.deposit(1_000, at(second * 1_000)));
        assert_eq!(allowed(&budget, 0.2, 5_000, 9_500), 2_000);
        assert_eq!(allowed(&budget, 0.2, 5_000, 12_000), 10, "7,000 requests earn 1,400, and 2,000 are spent");
        assert_eq!(allowed(&budget, 0.2, 5_000, 60_000), 10);
    }

    #[test]
    fn workers_together_take_no_more_than_there_is() {
        let budget = Budget::new();
        budget.deposit(10_000, at(0));
        let taken: u64 = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| allowed(&budget, 0.2, 2_000, 500))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(taken, 2_000);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Over any history: repetitions of the last ten seconds stay within the share and the reserve.
        #[test]
        fn the_budget_holds_at_every_moment(events in prop::collection::vec((0u64..800, 0u32..60, 0u64..40), 1..60), share in 0.0f64..1.0) {
            let budget = Budget::new();
            let mut now = 0;
            let mut history: Vec<(u64, u64, u64)> = Vec::new();
            for (wait, requests, asked) in events {
                now += wait;
                budget.deposit(requests, at(now));
                let taken = allowed(&budget, share, asked, now);
                history.push((now / 1_000, u64::from(requests), taken));
                let recent = history.iter().filter(|(second, ..)| second + 10 > now / 1_000);
                let (requests, repeats) = recent.fold((0, 0), |(r, t), (_, requests, taken)| (r + requests, t + taken));
                let this_second: u64 = history.iter().filter(|(second, ..)| *second == now / 1_000).map(|(_, _, taken)| taken).sum();
                let within_share = repeats as f64 <= share * requests as f64 + 1.0;
                prop_assert!(taken == 0 || this_second <= Budget::ALWAYS || within_share, "{} of {}", repeats, requests);
                prop_assert!(taken == asked || this_second >= Budget::ALWAYS, "ten are always allowed");
            }
        }
    }
}
