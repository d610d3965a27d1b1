use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use crossbeam_utils::CachePadded;

use super::breaker::{Breaker, Pass, Phase};
use super::policy::{BreakerPolicy, Policy};
use super::window::Window;
use crate::types::Moment;

/// What requests have shown of one upstream: failures in a row, and its circuit breaker. Survives reloads; shared by
/// all workers.
///
/// **Cost** while all is well: one load before a request, one or two after it, and with a breaker one addition to its
/// window.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// Read for every request, written only where something fails.
    pulse: CachePadded<Pulse>,
    /// Written for every request, where there is a breaker.
    window: CachePadded<Window>,
}

#[derive(Debug, Default)]
struct Pulse {
    /// Failures in a row.
    streak: AtomicU32,
    /// Control has been told that the streak is too long, and has not answered yet.
    told: AtomicBool,
    breaker: Breaker,
}

/// How a request went, as far as its upstream is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It answered.
    Good,
    /// It failed: no connection, reset, timeout, or a bad status where those count.
    Bad,
    /// Nobody can tell: the client left, or the request was never sent.
    Unknown,
}

/// Something that control should look at. Each crossing is told to exactly one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trip {
    /// So many failures in a row: time to eject.
    Failing(u32),
    /// The circuit opened after so many failures in a row.
    OpenedByStreak(u32),
    /// The circuit opened because so many requests of a window failed.
    OpenedByRate {
        /// Requests that failed.
        failed: u64,
        /// All requests.
        total: u64,
    },
    /// The circuit opened again: a trial request failed.
    Reopened,
    /// The circuit closed: all trial requests succeeded.
    Closed,
}

impl Outcomes {
    /// Nothing is known.
    pub fn new() -> Self {
        Outcomes::default()
    }

    /// Permission to send it a request, as far as its circuit is concerned. One relaxed load while that is closed.
    pub fn admit(&self) -> Option<Pass> {
        self.pulse.breaker.admit()
    }

    /// Takes in how a request went. A trip is for control's ears.
    pub fn record(&self, pass: Pass, outcome: Outcome, policy: &Policy, now: Moment) -> Option<Trip> {
        match outcome {
            Outcome::Good => self.record_good(pass, policy, now),
            Outcome::Bad => self.record_bad(pass, policy, now),
            Outcome::Unknown => {
                if pass.trial {
                    self.pulse.breaker.give_back(pass);
                }
                None
            }
        }
    }

    fn record_good(&self, pass: Pass, policy: &Policy, now: Moment) -> Option<Trip> {
        // Looked at before it is written: the line stays shared by all workers while all is well.
        if self.pulse.streak.load(Relaxed) != 0 {
            self.pulse.streak.store(0, Relaxed);
        }
        if pass.trial {
            return self.pulse.breaker.succeed(pass, || self.window.clear()).then_some(Trip::Closed);
        }
        if let Some(breaker) = &policy.breaker
            && self.pulse.breaker.is_closed_since(pass)
        {
            self.window.count(false, breaker.window, now);
        }
        None
    }

    fn record_bad(&self, pass: Pass, policy: &Policy, now: Moment) -> Option<Trip> {
        let streak = self.pulse.streak.fetch_add(1, Relaxed).wrapping_add(1);
        if pass.trial && self.pulse.breaker.reopen(pass) {
            return Some(Trip::Reopened);
        }
        if let Some(breaker) = &policy.breaker
            && let Some(trip) = self.judge(pass, breaker, streak, now)
        {
            return Some(trip);
        }
        let failing = policy.eject.failures > 0 && streak >= policy.eject.failures;
        let first = failing && !self.pulse.told.load(Relaxed) && !self.pulse.told.swap(true, Relaxed);
        first.then_some(Trip::Failing(streak))
    }

    /// Opens the circuit if this failure is one too many.
    fn judge(&self, pass: Pass, policy: &BreakerPolicy, streak: u32, now: Moment) -> Option<Trip> {
        if !self.pulse.breaker.is_closed_since(pass) {
            return None;
        }
        self.window.count(true, policy.window, now);
        let tally = self.window.tally(policy.window, now);
        let too_many = tally.total >= u64::from(policy.min_requests.max(1))
            && tally.failed as f64 >= policy.error_rate * tally.total as f64;
        let trip = if policy.failures.is_some_and(|failures| streak >= failures.max(1)) {
            Trip::OpenedByStreak(streak)
        } else if too_many {
            Trip::OpenedByRate { failed: tally.failed, total: tally.total }
        } else {
            return None;
        };
        self.pulse.breaker.open(pass).then_some(trip)
    }

    /// Failures in a row, until now.
    pub fn streak(&self) -> u32 {
        self.pulse.streak.load(Relaxed)
    }

    /// What the circuit does.
    pub fn phase(&self) -> Phase {
        self.pulse.breaker.phase()
    }

    /// Whether somebody was told of too long a streak, and control has not [heard](Outcomes::heard) it yet.
    pub(super) fn is_failing(&self) -> bool {
        self.pulse.told.load(Relaxed)
    }

    /// Control has acted on a trip: the next failure above the threshold is told again.
    pub(super) fn heard(&self) {
        self.pulse.told.store(false, Relaxed);
    }

    /// What was held against it is forgotten, as it comes back.
    pub(super) fn forgive(&self) {
        self.pulse.streak.store(0, Relaxed);
        self.heard();
    }

    pub(super) fn half_open(&self, trials: u32) {
        self.pulse.breaker.half_open(trials);
    }

    pub(super) fn close(&self) {
        self.window.clear();
        self.pulse.breaker.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::EjectPolicy;
    use std::time::Duration;

    fn at(millis: u64) -> Moment {
        Moment::START + Duration::from_millis(millis)
    }

    fn ejecting(failures: u32) -> Policy {
        let policy = Policy::default();
        Policy { eject: EjectPolicy { failures, ..policy.eject.clone() }, ..policy }
    }

    fn breaking(error_rate: f64, min_requests: u32, failures: Option<u32>) -> Policy {
        let second = Duration::from_secs(1);
        let breaker =
            BreakerPolicy { error_rate, min_requests, window: 10 * second, failures, open: 5 * second, probes: 2 };
        Policy { breaker: Some(breaker), ..Policy::default() }
    }

    fn send(outcomes: &Outcomes, outcome: Outcome, policy: &Policy, millis: u64) -> Option<Trip> {
        let pass = outcomes.admit().unwrap();
        outcomes.record(pass, outcome, policy, at(millis))
    }

    #[test]
    fn failures_in_a_row_are_told_once_and_a_good_answer_begins_anew() {
        use Outcome::*;
        let outcomes = Outcomes::new();
        let policy = ejecting(3);
        let trips: Vec<Option<Trip>> =
            [Bad, Bad, Good, Bad, Unknown, Bad, Bad, Bad].map(|outcome| send(&outcomes, outcome, &policy, 0)).into();
        assert_eq!(trips, [None, None, None, None, None, None, Some(Trip::Failing(3)), None]);
        outcomes.heard();
        assert_eq!(send(&outcomes, Bad, &policy, 0), Some(Trip::Failing(5)), "still failing");
        outcomes.forgive();
        assert_eq!(send(&outcomes, Bad, &policy, 0), None);
    }

    #[test]
    fn nobody_is_told_where_nothing_is_asked_for() {
        let outcomes = Outcomes::new();
        let policy = Policy::default();
        assert!((0..100).all(|n| send(&outcomes, Outcome::Bad, &policy, n).is_none()));
    }

    #[test]
    fn a_circuit_opens_on_the_rate_of_errors_of_enough_requests() {
        let outcomes = Outcomes::new();
        let policy = breaking(0.5, 10, None);
        for n in 0..9 {
            assert_eq!(send(&outcomes, if n % 2 == 0 { Outcome::Bad } else { Outcome::Good }, &policy, n), None);
        }
        let trip = send(&outcomes, Outcome::Bad, &policy, 9);
        assert_eq!(trip, Some(Trip::OpenedByRate { failed: 6, total: 10 }));
        assert_eq!(outcomes.admit(), None);
    }

    #[test]
    fn failures_that_are_spread_out_do_not_open_it() {
        let outcomes = Outcomes::new();
        let policy = breaking(0.5, 10, None);
        assert!((0..100).all(|n| send(&outcomes, Outcome::Bad, &policy, n * 2_000).is_none()));
    }

    #[test]
    fn a_circuit_that_closes_remembers_nothing() {
        let outcomes = Outcomes::new();
        let policy = breaking(0.5, 4, Some(3));
        let late = outcomes.admit().unwrap();
        assert_eq!(send(&outcomes, Outcome::Bad, &policy, 0), None);
        assert_eq!(send(&outcomes, Outcome::Bad, &policy, 0), None);
        assert_eq!(send(&outcomes, Outcome::Bad, &policy, 0), Some(Trip::OpenedByStreak(3)));
        outcomes.half_open(2);
        assert_eq!(outcomes.record(late, Outcome::Bad, &policy, at(1)), None, "sent before it opened");
        assert_eq!(send(&outcomes, Outcome::Good, &policy, 1), None);
        assert_eq!(send(&outcomes, Outcome::Good, &policy, 1), Some(Trip::Closed));
        assert_eq!(outcomes.phase(), Phase::Closed);
        for _ in 0..2 {
            assert_eq!(send(&outcomes, Outcome::Bad, &policy, 2), None, "counted from zero");
        }
    }

    #[test]
    fn a_failed_trial_opens_it_again() {
        let outcomes = Outcomes::new();
        let policy = breaking(1.0, 1, None);
        assert!(send(&outcomes, Outcome::Bad, &policy, 0).is_some());
        outcomes.half_open(2);
        assert_eq!(send(&outcomes, Outcome::Bad, &policy, 1), Some(Trip::Reopened));
        assert_eq!(outcomes.admit(), None);
    }

    #[test]
    fn one_worker_is_told_however_many_see_it() {
        for policy in [ejecting(100), breaking(0.5, 100, None)] {
            let outcomes = Outcomes::new();
            let passes: Vec<Pass> = (0..4_000).map(|_| outcomes.admit().unwrap()).collect();
            let trips: usize = std::thread::scope(|scope| {
                let tell = |passes: &[Pass]| {
                    passes.iter().filter(|pass| outcomes.record(**pass, Outcome::Bad, &policy, at(5)).is_some()).count()
                };
                let workers: Vec<_> = passes.chunks(1_000).map(|part| scope.spawn(move || tell(part))).collect();
                workers.into_iter().map(|worker| worker.join().unwrap()).sum()
            });
            assert_eq!(trips, 1);
        }
    }
}
