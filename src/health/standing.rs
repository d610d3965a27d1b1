use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::breaker::Phase;
use super::checks::Checks;
use super::ejection::{Crowd, Ejection};
use super::lineup::Fitness;
use super::outcomes::{Outcomes, Trip};
use super::policy::Policy;
use super::reason::{Change, Reason};
use super::slow_start;
use crate::types::Moment;

/// What an upstream is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It has not passed a check yet.
    Starting,
    /// It takes requests.
    Ready,
    /// It takes no new requests and finishes those it has.
    Draining,
    /// It has finished, and takes none.
    Drained,
    /// Somebody took it out of use.
    Maintenance,
    /// Its checks fail, or it is ejected, or its circuit is not closed.
    Down,
}

impl State {
    /// Every state, in the order of a life.
    pub const ALL: [State; 6] =
        [State::Starting, State::Ready, State::Draining, State::Drained, State::Maintenance, State::Down];

    /// Its word in logs, metrics and the API.
    pub const fn word(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Ready => "ready",
            State::Draining => "draining",
            State::Drained => "drained",
            State::Maintenance => "maintenance",
            State::Down => "down",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// All that control knows of the health of one upstream, and what it makes of it. Survives reloads.
///
/// Whatever happens to an upstream comes in by one of the methods that give back a [`Change`]. After each change the
/// pool's [`Lineup`](super::Lineup) is made anew and published; also when [`Standing::factor`] is another than was
/// published. [`Standing::due`] says when to [tick](Standing::tick) at the latest.
#[derive(Debug)]
pub struct Standing {
    outcomes: Arc<Outcomes>,
    intent: Intent,
    checks: Option<Checks>,
    ejection: Ejection,
    /// An ejection was refused; nothing more is heard of it until then.
    refused_until: Option<Moment>,
    circuit: Circuit,
    against: Against,
    shown: Shown,
    /// When slow start begins.
    warm_from: Moment,
}

/// What people want of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Intent {
    Ready,
    Drain { since: Moment, deadline: Moment },
    Drained,
    Maintenance,
}

/// What control knows of the circuit; the truth is in [`Outcomes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Circuit {
    Closed,
    Open { until: Moment },
    HalfOpen,
}

/// What speaks against it, in words: several things may at once, and the next comes up when the first has gone.
#[derive(Debug, Default)]
struct Against {
    checks: Option<Reason>,
    ejection: Option<Reason>,
    circuit: Option<Reason>,
}

/// What was last told.
#[derive(Debug)]
struct Shown {
    state: State,
    fitness: Fitness,
    reason: Reason,
    since: Moment,
}

impl Standing {
    /// An upstream that has just come.
    pub fn new(policy: &Policy, now: Moment) -> Self {
        let shown = Shown { state: State::Ready, fitness: Fitness::Fit, reason: Reason::Added, since: now };
        let mut standing = Standing {
            outcomes: Arc::new(Outcomes::new()),
            intent: Intent::Ready,
            checks: policy.checks.map(|checks| Checks::new(checks.initially_up)),
            ejection: Ejection::default(),
            refused_until: None,
            circuit: Circuit::Closed,
            against: Against::default(),
            shown,
            warm_from: now,
        };
        standing.settle(Some(Reason::Added), now);
        standing
    }

    /// What it is.
    pub fn state(&self) -> State {
        self.shown.state
    }

    /// Why.
    pub fn reason(&self) -> &Reason {
        &self.shown.reason
    }

    /// Since when.
    pub fn since(&self) -> Moment {
        self.shown.since
    }

    /// What it can be used for.
    pub fn fitness(&self) -> Fitness {
        self.shown.fitness
    }

    /// When what still runs is cut, while it drains.
    pub fn deadline(&self) -> Option<Moment> {
        match self.intent {
            Intent::Drain { deadline, .. } => Some(deadline),
            _ => None,
        }
    }

    /// What the workers write to, and ask before each request.
    pub fn outcomes(&self) -> &Arc<Outcomes> {
        &self.outcomes
    }

    /// The part of its weight that slow start allows it now.
    pub fn factor(&self, policy: &Policy, now: Moment) -> f64 {
        match self.shown.state {
            State::Ready => slow_start::factor(self.warm_from, policy.slow_start, now),
            // Used in spite of being unfit: as much as anybody.
            _ => 1.0,
        }
    }

    /// When to tick at the latest; [`Moment::NEVER`] where nothing is to come.
    pub fn due(&self, policy: &Policy, now: Moment) -> Moment {
        let drain = self.deadline();
        let circuit = match self.circuit {
            Circuit::Open { until } => Some(until),
            _ => None,
        };
        let warmer = slow_start::next_change(self.warm_from, policy.slow_start, now)
            .filter(|_| self.shown.state == State::Ready);
        let all = [drain, circuit, warmer, self.ejection.until(), self.refused_until];
        all.into_iter().flatten().min().unwrap_or(Moment::NEVER)
    }

    /// An active check passed, or failed because of `detail`.
    pub fn checked(&mut self, result: Result<(), &str>, policy: &Policy, now: Moment) -> Option<Change> {
        let thresholds = policy.checks?;
        let checks = self.checks.get_or_insert(Checks::new(thresholds.initially_up));
        let was_up = checks.is_up();
        checks.record(result.is_ok(), thresholds);
        let streak = checks.streak();
        let event = match result {
            Ok(()) => {
                if !was_up && checks.is_up() {
                    // Failures from before it was down say nothing about it now, nor does an ejection for them.
                    self.return_to_service(now);
                }
                Reason::ChecksPassed(streak)
            }
            Err(detail) => {
                let reason = Reason::ChecksFailed { streak, detail: detail.to_owned() };
                self.against.checks = Some(reason.clone());
                if self.shown.fitness == Fitness::Sick {
                    self.shown.reason = reason.clone();
                }
                reason
            }
        };
        self.settle(Some(event), now)
    }

    /// A worker told of a [`Trip`]. `pool` is how things are in its pool, itself included.
    pub fn tripped(&mut self, trip: Trip, policy: &Policy, pool: Crowd, now: Moment) -> Option<Change> {
        self.look(Some(trip), policy, pool, now)
    }

    /// Time has passed. `busy` is what still goes on at the upstream: requests, and whatever else a drain should wait
    /// for.
    pub fn tick(&mut self, policy: &Policy, pool: Crowd, busy: u32, now: Moment) -> Option<Change> {
        let drained = match self.intent {
            Intent::Drain { since, .. } if busy == 0 => Some(Reason::Empty(now.since(since))),
            Intent::Drain { deadline, .. } if now >= deadline => Some(Reason::DeadlinePassed(busy)),
            _ => None,
        };
        if let Some(reason) = drained {
            self.intent = Intent::Drained;
            return self.settle(Some(reason), now);
        }
        self.look(None, policy, pool, now)
    }

    /// The pool has another policy since a reload. What is known stays; what is no longer asked for is forgotten.
    pub fn adopt(&mut self, policy: &Policy, pool: Crowd, now: Moment) -> Option<Change> {
        match (policy.checks, self.checks) {
            (None, Some(_)) => {
                (self.checks, self.against.checks) = (None, None);
                let change = self.settle(Some(Reason::ChecksRemoved), now);
                if change.is_some() {
                    return change;
                }
            }
            // It has been working without checks: it goes on until the first of them says otherwise.
            (Some(_), None) => self.checks = Some(Checks::new(true)),
            _ => {}
        }
        self.look(None, policy, pool, now)
    }

    /// It is to take no new requests, and may finish what it has until the deadline.
    pub fn drain(&mut self, deadline: Duration, now: Moment) -> Option<Change> {
        let since = match self.intent {
            Intent::Drain { since, .. } => since,
            Intent::Drained => return None,
            Intent::Ready | Intent::Maintenance => now,
        };
        self.intent = Intent::Drain { since, deadline: now + deadline };
        if self.shown.state == State::Draining {
            self.shown.reason = Reason::Draining(deadline);
        }
        self.settle(Some(Reason::Draining(deadline)), now)
    }

    /// It is to take nothing at all. What runs may finish.
    pub fn maintain(&mut self, now: Moment) -> Option<Change> {
        self.intent = Intent::Maintenance;
        self.settle(Some(Reason::Maintenance), now)
    }

    /// It is to be used again, as far as it is fit. An ejection ends: somebody who knows better wants it back.
    pub fn recall(&mut self, now: Moment) -> Option<Change> {
        self.intent = Intent::Ready;
        self.return_to_service(now);
        self.settle(Some(Reason::Recalled), now)
    }

    /// Its ejection, where there is one, is over, and what it was for is forgotten.
    fn return_to_service(&mut self, now: Moment) {
        if self.ejection.end(now) {
            self.against.ejection = None;
        }
        self.forgive();
    }

    /// Failures until now are no longer held against it.
    fn forgive(&mut self) {
        self.refused_until = None;
        self.outcomes.forgive();
    }

    /// Compares what control knows with what the workers have seen.
    fn look(&mut self, trip: Option<Trip>, policy: &Policy, pool: Crowd, now: Moment) -> Option<Change> {
        let ended = self.end_ejection(policy, now);
        let begun = self.begin_ejection(trip, policy, pool, now);
        let circuit = self.look_at_circuit(trip, policy, now);
        self.settle(circuit.or(begun).or(ended), now)
    }

    fn end_ejection(&mut self, policy: &Policy, now: Moment) -> Option<Reason> {
        let until = self.ejection.until()?;
        if until > now && policy.eject.failures > 0 {
            return None;
        }
        self.return_to_service(now);
        Some(Reason::Returned)
    }

    fn begin_ejection(&mut self, trip: Option<Trip>, policy: &Policy, pool: Crowd, now: Moment) -> Option<Reason> {
        if self.refused_until.is_some_and(|until| until <= now) {
            self.refused_until = None;
            self.outcomes.heard();
        }
        if !self.outcomes.is_failing() || self.refused_until.is_some() || self.ejection.until().is_some() {
            return None;
        }
        // Deaf for a while where it cannot be sent away: it goes on failing, and once is enough to say so.
        let deaf_until = Some(now + policy.eject.time.max(Duration::from_secs(1)));
        let is_wanted =
            !matches!(self.shown.fitness, Fitness::Sick | Fitness::Starting | Fitness::Draining | Fitness::Away);
        if policy.eject.failures == 0 || !is_wanted {
            self.refused_until = deaf_until;
            return None;
        }
        let failures = match trip {
            Some(Trip::Failing(failures)) => failures,
            _ => self.outcomes.streak().max(policy.eject.failures),
        };
        let max_share = policy.eject.max_share;
        if !pool.has_room(max_share) {
            self.refused_until = deaf_until;
            let Crowd { ejected, members } = pool;
            return Some(Reason::NotEjected { failures, ejected, members, max_share });
        }
        let span = self.ejection.begin(&policy.eject, now);
        let reason = Reason::Ejected { failures, span };
        self.against.ejection = Some(reason.clone());
        Some(reason)
    }

    fn look_at_circuit(&mut self, trip: Option<Trip>, policy: &Policy, now: Moment) -> Option<Reason> {
        let Some(breaker) = &policy.breaker else {
            if self.circuit == Circuit::Closed && self.outcomes.phase() == Phase::Closed {
                return None;
            }
            self.outcomes.close();
            return self.circuit_is(Circuit::Closed, Reason::BreakerRemoved);
        };
        match (self.circuit, self.outcomes.phase()) {
            (Circuit::Open { until }, Phase::Open) if until <= now => {
                self.outcomes.half_open(breaker.probes);
                self.circuit_is(Circuit::HalfOpen, Reason::HalfOpen(breaker.probes.max(1)))
            }
            (Circuit::Closed | Circuit::HalfOpen, Phase::Open) => {
                let opened = Reason::Opened { cause: trip, span: breaker.open };
                self.circuit_is(Circuit::Open { until: now + breaker.open }, opened)
            }
            (Circuit::Open { .. } | Circuit::HalfOpen, Phase::Closed) => {
                self.circuit_is(Circuit::Closed, Reason::CircuitClosed)
            }
            _ => None,
        }
    }

    fn circuit_is(&mut self, circuit: Circuit, reason: Reason) -> Option<Reason> {
        self.circuit = circuit;
        self.against.circuit = (circuit != Circuit::Closed).then(|| reason.clone());
        Some(reason)
    }

    /// What all of it comes to.
    fn judge(&self) -> (State, Fitness) {
        match self.intent {
            Intent::Maintenance => return (State::Maintenance, Fitness::Away),
            Intent::Drained => return (State::Drained, Fitness::Away),
            Intent::Drain { .. } => return (State::Draining, Fitness::Draining),
            Intent::Ready => {}
        }
        match (self.checks, self.circuit) {
            (Some(checks), _) if !checks.is_checked() && !checks.is_up() => (State::Starting, Fitness::Starting),
            (Some(checks), _) if !checks.is_up() => (State::Down, Fitness::Sick),
            (_, Circuit::Open { .. }) => (State::Down, Fitness::Open),
            _ if self.ejection.until().is_some() => (State::Down, Fitness::Ejected),
            (_, Circuit::HalfOpen) => (State::Down, Fitness::Trial),
            (_, Circuit::Closed) => (State::Ready, Fitness::Fit),
        }
    }

    /// Shows what it comes to, if that is something new.
    fn settle(&mut self, event: Option<Reason>, now: Moment) -> Option<Change> {
        let (state, fitness) = self.judge();
        let from = self.shown.state;
        if (state, fitness) == (from, self.shown.fitness) {
            let remark = event.filter(|reason| matches!(reason, Reason::NotEjected { .. }))?;
            return Some(Change { from, to: state, reason: remark });
        }
        let reason = match fitness {
            Fitness::Starting => Some(Reason::AwaitingCheck),
            Fitness::Sick => self.against.checks.clone(),
            Fitness::Ejected => self.against.ejection.clone(),
            Fitness::Open | Fitness::Trial => self.against.circuit.clone(),
            Fitness::Fit | Fitness::Draining | Fitness::Away => event,
        };
        let reason = reason.unwrap_or(Reason::Recalled);
        if state == State::Ready && from != State::Ready {
            self.warm_from = now;
        }
        let since = if state == from { self.shown.since } else { now };
        self.shown = Shown { state, fitness, reason: reason.clone(), since };
        Some(Change { from, to: state, reason })
    }
}

impl Crowd {
    /// How things are among the upstreams of a pool.
    pub fn of<'a>(upstreams: impl IntoIterator<Item = &'a Standing>) -> Self {
        let wanted = upstreams.into_iter().filter(|standing| standing.intent == Intent::Ready);
        wanted.fold(Crowd::default(), |crowd, standing| Crowd {
            ejected: crowd.ejected + usize::from(standing.ejection.until().is_some()),
            members: crowd.members + 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{BreakerPolicy, EjectPolicy, Outcome, Thresholds};

    const SECOND: Duration = Duration::from_secs(1);
    const POOL: Crowd = Crowd { ejected: 0, members: 3 };

    fn at(secs: u64) -> Moment {
        Moment::START + SECOND * secs as u32
    }

    fn policy() -> Policy {
        Policy {
            checks: Some(Thresholds { rise: 2, fall: 3, initially_up: false }),
            eject: EjectPolicy { failures: 2, time: 10 * SECOND, max_time: 60 * SECOND, max_share: 0.5 },
            breaker: Some(BreakerPolicy {
                error_rate: 0.5,
                min_requests: 4,
                window: 10 * SECOND,
                failures: None,
                open: 5 * SECOND,
                probes: 2,
            }),
            slow_start: Duration::ZERO,
        }
    }

    fn unchecked() -> Policy {
        Policy { checks: None, breaker: None, ..policy() }
    }

    /// So many requests with this outcome; what control makes of the trips.
    fn requests(standing: &mut Standing, count: u32, outcome: Outcome, policy: &Policy, now: Moment) -> Vec<String> {
        let mut told = Vec::new();
        for _ in 0..count {
            let Some(pass) = standing.outcomes.admit() else { break };
            let trip = standing.outcomes.record(pass, outcome, policy, now);
            told.extend(trip.and_then(|trip| standing.tripped(trip, policy, POOL, now)));
        }
        told.iter().map(Change::to_string).collect()
    }

    fn said(change: Option<Change>) -> String {
        change.map(|change| change.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_life_with_checks() {
        let policy = policy();
        let mut standing = Standing::new(&policy, at(0));
        assert_eq!((standing.state(), standing.fitness()), (State::Starting, Fitness::Starting));
        assert_eq!(standing.reason().to_string(), "waiting for its first good check");
        assert_eq!(
            said(standing.checked(Err("connection refused"), &policy, at(1))),
            "starting → down: 1 check failed: connection refused"
        );
        assert_eq!(said(standing.checked(Ok(()), &policy, at(2))), "down → ready: 1 check passed");
        assert_eq!(said(standing.checked(Err("timed out"), &policy, at(3))), "");
        assert_eq!(said(standing.checked(Err("timed out"), &policy, at(4))), "");
        assert_eq!(
            said(standing.checked(Err("status 500"), &policy, at(5))),
            "ready → down: 3 checks in a row failed: status 500"
        );
        assert_eq!(said(standing.checked(Err("status 503"), &policy, at(6))), "");
        assert_eq!(
            standing.reason().to_string(),
            "4 checks in a row failed: status 503",
            "what is shown is kept up to date"
        );
        assert_eq!(standing.since(), at(5));
        assert_eq!(said(standing.checked(Ok(()), &policy, at(7))), "");
        assert_eq!(said(standing.checked(Ok(()), &policy, at(8))), "down → ready: 2 checks in a row passed");
    }

    #[test]
    fn failing_requests_eject_for_a_time_that_grows() {
        let policy = unchecked();
        let mut standing = Standing::new(&policy, at(0));
        assert_eq!(
            requests(&mut standing, 3, Outcome::Bad, &policy, at(0)),
            ["ready → down: ejected for 10s after 2 failures in a row"]
        );
        assert_eq!(standing.fitness(), Fitness::Ejected);
        assert_eq!(standing.due(&policy, at(0)), at(10));
        assert_eq!(standing.tick(&policy, POOL, 0, at(9)), None);
        assert_eq!(said(standing.tick(&policy, POOL, 0, at(10))), "down → ready: its ejection is over");
        assert_eq!(
            requests(&mut standing, 2, Outcome::Bad, &policy, at(11)),
            ["ready → down: ejected for 20s after 2 failures in a row"]
        );
    }

    #[test]
    fn who_was_down_and_is_up_again_is_not_held_away_for_what_was_before() {
        let policy = Policy { breaker: None, ..policy() };
        let mut standing = Standing::new(&policy, at(0));
        standing.checked(Ok(()), &policy, at(0));
        requests(&mut standing, 2, Outcome::Bad, &policy, at(0));
        assert_eq!(standing.fitness(), Fitness::Ejected);
        // Its checks alone excuse nothing: requests fail all the same.
        assert_eq!(said(standing.checked(Ok(()), &policy, at(1))), "");
        assert_eq!(standing.fitness(), Fitness::Ejected);
        for second in 2..5 {
            standing.checked(Err("connection refused"), &policy, at(second));
        }
        assert_eq!(said(standing.checked(Ok(()), &policy, at(5))), "");
        assert_eq!(said(standing.checked(Ok(()), &policy, at(6))), "down → ready: 2 checks in a row passed");
        assert_eq!((standing.fitness(), standing.due(&policy, at(6))), (Fitness::Fit, Moment::NEVER));
    }

    #[test]
    fn nobody_is_ejected_from_a_pool_that_has_lost_too_many_and_that_is_said_once_in_a_while() {
        let policy = unchecked();
        let mut standing = Standing::new(&policy, at(0));
        let mut fail = |pool, now| {
            let pass = standing.outcomes.admit().unwrap();
            let trip = standing.outcomes.record(pass, Outcome::Bad, &policy, now);
            said(
                trip.and_then(|trip| standing.tripped(trip, &policy, pool, now))
                    .or(standing.tick(&policy, pool, 0, now)),
            )
        };
        let crowded = Crowd { ejected: 1, members: 3 };
        assert_eq!(fail(crowded, at(0)), "");
        assert_eq!(
            fail(crowded, at(0)),
            "ready: not ejected after 2 failures in a row: 1 of 3 are ejected already, at most 50% may be and one stays"
        );
        assert!((0..10).all(|second| fail(crowded, at(second)).is_empty()));
        assert_eq!(fail(POOL, at(10)), "", "it listens again from here on");
        assert_eq!(fail(POOL, at(10)), "ready → down: ejected for 10s after 14 failures in a row");
    }

    #[test]
    fn a_circuit_opens_tries_and_closes() {
        let policy = Policy { eject: EjectPolicy { failures: 0, ..policy().eject }, checks: None, ..policy() };
        let mut standing = Standing::new(&policy, at(0));
        assert_eq!(
            requests(&mut standing, 9, Outcome::Bad, &policy, at(0)),
            ["ready → down: circuit open for 5s: 4 of 4 requests failed"]
        );
        assert_eq!(standing.fitness(), Fitness::Open);
        assert_eq!(
            said(standing.tick(&policy, POOL, 0, at(5))),
            "down: circuit half open: 2 trial requests must succeed"
        );
        assert_eq!(standing.fitness(), Fitness::Trial);
        assert_eq!(
            requests(&mut standing, 1, Outcome::Bad, &policy, at(6)),
            ["down: circuit open for 5s: a trial request failed"]
        );
        standing.tick(&policy, POOL, 0, at(11));
        assert_eq!(
            requests(&mut standing, 2, Outcome::Good, &policy, at(11)),
            ["down → ready: circuit closed: the trial requests succeeded"]
        );
    }

    #[test]
    fn what_a_lost_trip_would_have_said_is_seen_at_the_next_tick() {
        for policy in [unchecked(), Policy { checks: None, ..policy() }] {
            let mut standing = Standing::new(&policy, at(0));
            for _ in 0..4 {
                let Some(pass) = standing.outcomes.admit() else { break };
                standing.outcomes.record(pass, Outcome::Bad, &policy, at(0));
            }
            let change = standing.tick(&policy, POOL, 0, at(1)).unwrap();
            assert_eq!((change.from, change.to), (State::Ready, State::Down));
        }
    }

    #[test]
    fn draining_ends_when_nothing_is_left_or_at_the_deadline() {
        let policy = unchecked();
        let mut standing = Standing::new(&policy, at(0));
        assert_eq!(said(standing.drain(30 * SECOND, at(1))), "ready → draining: draining, for 30s at most");
        assert_eq!(standing.fitness(), Fitness::Draining);
        assert_eq!(standing.tick(&policy, POOL, 2, at(2)), None);
        assert_eq!(said(standing.tick(&policy, POOL, 0, at(4))), "draining → drained: nothing left to do, after 3s");
        assert_eq!(standing.drain(SECOND, at(5)), None, "it is drained already");
        assert_eq!(said(standing.recall(at(5))), "drained → ready: taken back into use");
        standing.drain(30 * SECOND, at(6));
        assert_eq!(standing.drain(10 * SECOND, at(7)), None);
        assert_eq!(standing.reason().to_string(), "draining, for 10s at most");
        assert_eq!(standing.due(&policy, at(7)), at(17));
        assert_eq!(
            said(standing.tick(&policy, POOL, 7, at(17))),
            "draining → drained: its drain deadline passed with 7 requests left"
        );
        assert_eq!(said(standing.maintain(at(18))), "drained → maintenance: in maintenance");
    }

    #[test]
    fn several_things_can_speak_against_it_and_the_next_comes_up_when_the_first_has_gone() {
        let policy = Policy { breaker: None, ..policy() };
        let mut standing = Standing::new(&policy, at(0));
        standing.checked(Ok(()), &policy, at(0));
        requests(&mut standing, 2, Outcome::Bad, &policy, at(0));
        standing.checked(Err("reset"), &policy, at(1));
        standing.checked(Err("reset"), &policy, at(2));
        assert_eq!(said(standing.checked(Err("reset"), &policy, at(3))), "down: 3 checks in a row failed: reset");
        assert_eq!(standing.tick(&policy, POOL, 0, at(10)), None, "its ejection is over, its checks fail");
        standing.checked(Ok(()), &policy, at(11));
        assert_eq!(said(standing.checked(Ok(()), &policy, at(12))), "down → ready: 2 checks in a row passed");
    }

    #[test]
    fn who_is_called_back_is_forgiven_its_failures_but_not_its_checks() {
        let policy = Policy { breaker: None, ..policy() };
        let mut standing = Standing::new(&policy, at(0));
        standing.checked(Ok(()), &policy, at(0));
        requests(&mut standing, 2, Outcome::Bad, &policy, at(0));
        assert_eq!(said(standing.recall(at(1))), "down → ready: taken back into use");
        (0..3).for_each(|n| drop(standing.checked(Err("reset"), &policy, at(2 + n))));
        standing.maintain(at(6));
        assert_eq!(said(standing.recall(at(7))), "maintenance → down: 3 checks in a row failed: reset");
    }

    #[test]
    fn a_reload_forgets_what_is_no_longer_asked_for_and_interrupts_nobody() {
        let with = policy();
        let without = Policy::default();
        let mut standing = Standing::new(&with, at(0));
        assert_eq!(said(standing.adopt(&without, POOL, at(1))), "starting → ready: it is no longer checked");
        assert_eq!(standing.adopt(&with, POOL, at(2)), None, "it works on until a check says otherwise");
        assert_eq!(said(standing.checked(Err("reset"), &with, at(3))), "ready → down: 1 check failed: reset");

        let mut ejected = Standing::new(&unchecked(), at(0));
        requests(&mut ejected, 2, Outcome::Bad, &unchecked(), at(0));
        assert_eq!(said(ejected.adopt(&without, POOL, at(1))), "down → ready: its ejection is over");

        let breaking = Policy { checks: None, eject: without.eject.clone(), ..policy() };
        let mut open = Standing::new(&breaking, at(0));
        requests(&mut open, 4, Outcome::Bad, &breaking, at(0));
        assert_eq!(open.outcomes.admit(), None);
        assert_eq!(said(open.adopt(&without, POOL, at(1))), "down → ready: it no longer has a circuit breaker");
        assert!(open.outcomes.admit().is_some());
    }

    #[test]
    fn slow_start_begins_whenever_it_comes_back() {
        let policy = Policy { slow_start: 9 * SECOND, ..unchecked() };
        let mut standing = Standing::new(&policy, at(0));
        assert_eq!(standing.factor(&policy, at(0)), 0.1);
        assert_eq!(standing.due(&policy, at(0)), at(1));
        assert_eq!(standing.factor(&policy, at(9)), 1.0);
        assert_eq!(standing.due(&policy, at(9)), Moment::NEVER);
        requests(&mut standing, 2, Outcome::Bad, &policy, at(20));
        assert_eq!(
            standing.factor(&policy, at(25)),
            1.0,
            "where it is used in a panic, it is used as much as the others"
        );
        standing.tick(&policy, POOL, 0, at(30));
        assert_eq!(standing.factor(&policy, at(31)), 0.2);
    }
}
