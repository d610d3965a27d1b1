//! The requests, and what must be true of them after each step.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use http::Method;
use tidegate::balance::{Algorithm, Draw, Load, NoPick};
use tidegate::health::{Outcome, Outcomes, Pass, State};
use tidegate::limit::{Admission, ClientKey, ConnectionSeats, Limiter, Permit, Reason, Rule};
use tidegate::retry::{self, Attempt, Body, Budget, Stage};
use tidegate::types::{Moment, Rate};

use crate::fleet::{Conduct, Fleet};

const STEP: Duration = Duration::from_millis(50);
const STEPS: u32 = 100;
/// Longer than circuits stay open, checks take to rise, and slow starts last.
const PEACE: u32 = 100;
/// For a whole attempt.
const PATIENCE: Duration = Duration::from_secs(1);
const ATTEMPTS: u32 = 3;
const RETRIES: f64 = 0.2;
const CLIENTS: usize = 4;

/// How requests have ended, and what has happened on the way.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    answered: u64,
    failed: u64,
    no_upstream: u64,
    full: u64,
    limited: [u64; 3],
    left: u64,
    cut: u64,
    repeated: u64,
    panicked: u64,
    recovered: u64,
}

impl Seen {
    pub(crate) fn add(&mut self, other: &Seen) {
        self.answered += other.answered;
        self.failed += other.failed;
        self.no_upstream += other.no_upstream;
        self.full += other.full;
        (0..3).for_each(|reason| self.limited[reason] += other.limited[reason]);
        self.left += other.left;
        self.cut += other.cut;
        self.repeated += other.repeated;
        self.panicked += other.panicked;
        self.recovered += other.recovered;
    }

    pub(crate) fn has_everything(&self) -> bool {
        let all = [
            self.answered,
            self.failed,
            self.no_upstream,
            self.full,
            self.left,
            self.cut,
            self.repeated,
            self.panicked,
            self.recovered,
        ];
        all.iter().chain(&self.limited).all(|count| *count > 0)
    }

    fn ended(&self) -> u64 {
        let refused = self.no_upstream + self.full + self.limited.iter().sum::<u64>();
        self.answered + self.failed + refused + self.left + self.cut
    }
}

/// A request at an upstream. What it holds goes with it.
struct Request {
    client: usize,
    connection: usize,
    _permit: Permit,
    method: Method,
    begun: Moment,
    at: Option<Place>,
    tried: Vec<u32>,
}

/// What it holds there.
struct Place {
    machine: u32,
    load: Arc<Load>,
    outcomes: Arc<Outcomes>,
    pass: Pass,
    since: Moment,
    ends: Moment,
    will: Will,
}

/// How an attempt will end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Will {
    Answer,
    Refuse,
    Break,
    TimeOut,
}

struct World {
    random: Rng,
    now: Moment,
    fleet: Fleet,
    limiter: Limiter,
    /// Since when the limiter's rule has been what it is, and who was let in since.
    rule_since: usize,
    admitted: Vec<(usize, Moment)>,
    connections: Vec<ConnectionSeats>,
    budget: Budget,
    requests: Vec<Request>,
    begun: u64,
    seen: Seen,
}

/// A life from its seed: some seconds of trouble, then peace.
pub(crate) fn live(seed: u64) -> Seen {
    let mut random = Rng::with_seed(seed);
    let now = Moment::START + Duration::from_secs(10);
    let fleet = Fleet::new(&mut random, now);
    let limiter = Limiter::new(rule(&mut random));
    let mut world = World {
        now,
        fleet,
        limiter,
        rule_since: 0,
        admitted: Vec::new(),
        connections: (0..CLIENTS * 3).map(|_| ConnectionSeats::new()).collect(),
        budget: Budget::new(),
        requests: Vec::new(),
        begun: 0,
        seen: Seen::default(),
        random,
    };
    for step in 0..STEPS {
        world.trouble();
        world.step(step);
    }
    world.fleet.mend(world.now);
    world.recovers();
    world.shares_by_weight();
    world.seen
}

fn rule(random: &mut Rng) -> Rule {
    Rule {
        rate: random.bool().then(|| Rate { count: random.u32(1..40), per: Duration::from_secs(1) }),
        burst: random.u32(..10),
        requests: random.bool().then(|| random.u32(1..6)),
        connections: random.bool().then(|| random.u32(1..3)),
        ..Rule::default()
    }
}

impl World {
    fn once_in(&mut self, times: u32) -> bool {
        self.random.u32(..times) == 0
    }

    fn trouble(&mut self) {
        if self.once_in(12) {
            let conducts = [Conduct::Works, Conduct::Dead, Conduct::Hangs, Conduct::Slow, Conduct::Flaps];
            let machine = self.random.usize(..self.fleet.machines.len());
            self.fleet.machines[machine].conduct = conducts[self.random.usize(..conducts.len())];
        }
        if self.once_in(30) {
            self.fleet.people(&mut self.random, self.now);
        }
        if self.once_in(60) {
            self.fleet.reload(&mut self.random, self.now);
        }
        if self.once_in(80) {
            self.limiter = self.limiter.with_rule(rule(&mut self.random), self.now);
            self.rule_since = self.admitted.len();
        }
    }

    fn step(&mut self, step: u32) {
        self.now = self.now + STEP;
        (0..self.random.u32(..5)).for_each(|_| self.begin());
        self.end_some();
        if step.is_multiple_of(4) {
            self.fleet.tick(self.now);
            self.cut_the_drained();
        }
        if step.is_multiple_of(20) {
            self.fleet.check(self.now);
            self.limiter.sweep(self.now);
        }
        self.assert_invariants();
    }

    /// A request comes in, is limited, and is given to a machine.
    fn begin(&mut self) {
        self.begun += 1;
        self.budget.deposit(1, self.now);
        let (client, connection) = (self.random.usize(..CLIENTS), self.random.usize(..3));
        let connection = client * 3 + connection;
        let permit = match self.limiter.admit(key(client), &self.connections[connection], self.now) {
            Admission::Proceed(permit, _) => permit,
            Admission::Wait(..) => panic!("there is no delay to wait in"),
            Admission::Refuse(refusal) => {
                self.seen.limited[match refusal.reason {
                    Reason::Rate => 0,
                    Reason::Requests => 1,
                    Reason::Connections => 2,
                }] += 1;
                return;
            }
        };
        self.admitted.push((client, self.now));
        let method = if self.random.bool() { Method::GET } else { Method::POST };
        let mut request =
            Request { client, connection, _permit: permit, method, begun: self.now, at: None, tried: Vec::new() };
        match self.place(&mut request) {
            Ok(()) => self.requests.push(request),
            Err(NoPick::Empty) => self.seen.no_upstream += 1,
            Err(NoPick::Full) => self.seen.full += 1,
        }
        self.assert_limits();
    }

    /// Gives a request its machine, as `proxy::pick` does.
    fn place(&mut self, request: &mut Request) -> Result<(), NoPick> {
        loop {
            let (random, hash) = (self.random.u64(..), Some(self.random.u64(..)));
            let draw = Draw { now: self.now, random, hash, tried: &request.tried };
            let id = self.fleet.table.pick(&self.fleet.cursor, &draw)?;
            assert!(!request.tried.contains(&id), "{id} is picked again");
            self.seen.panicked += u64::from(self.fleet.assert_may_take(id));
            let machine = self.fleet.machine(id).expect("asserted");
            let busy = machine.load.in_flight();
            assert!(
                machine.max.is_none_or(|max| busy <= max),
                "{busy} requests at once, and {:?} at most",
                machine.max
            );
            let Some(pass) = machine.standing.outcomes().admit() else {
                machine.load.leave();
                request.tried.push(id);
                continue;
            };
            let millis = |from: u64, to: u64| Duration::from_millis(from + self.now.nanos() / 7 % (to - from));
            let (span, will) = match machine.conduct {
                Conduct::Works => (millis(10, 200), Will::Answer),
                Conduct::Dead => (Duration::ZERO, Will::Refuse),
                Conduct::Hangs => (PATIENCE, Will::TimeOut),
                Conduct::Slow => (millis(500, 950), Will::Answer),
                Conduct::Flaps => (millis(10, 100), if random & 1 == 0 { Will::Answer } else { Will::Break }),
            };
            let (load, outcomes) = (machine.load.clone(), machine.standing.outcomes().clone());
            request.at =
                Some(Place { machine: id, load, outcomes, pass, since: self.now, ends: self.now + span, will });
            return Ok(());
        }
    }

    /// What is over now is answered or tried again; some clients leave before.
    fn end_some(&mut self) {
        for mut request in std::mem::take(&mut self.requests) {
            let place = request.at.take().expect("it is somewhere");
            if self.once_in(80) {
                self.went(place, Outcome::Unknown);
                self.seen.left += 1;
            } else if place.ends > self.now {
                request.at = Some(place);
                self.requests.push(request);
            } else if place.will == Will::Answer {
                place.load.sample(self.now.since(place.since), self.now);
                self.went(place, Outcome::Good);
                self.seen.answered += 1;
            } else {
                self.fail(request, place);
            }
        }
    }

    fn fail(&mut self, mut request: Request, place: Place) {
        let stage = if place.will == Will::Refuse { Stage::NeverSent } else { Stage::Sent };
        request.tried.push(place.machine);
        self.went(place, Outcome::Bad);
        let made = request.tried.len() as u32;
        let (method, body) = (&request.method, Body::Replayable);
        let attempt = Attempt { method, stage, body, made, allowed: ATTEMPTS, left: None };
        let repeats = retry::may_repeat(&attempt, &self.budget, RETRIES, self.now).is_ok();
        if repeats {
            assert!(stage == Stage::NeverSent || request.method == Method::GET, "it may have been done already");
            self.seen.repeated += 1;
        }
        if repeats && self.place(&mut request).is_ok() {
            self.requests.push(request);
        } else {
            self.seen.failed += 1;
        }
    }

    /// A machine is left; a quarter of what workers notice never reaches control.
    fn went(&mut self, place: Place, outcome: Outcome) {
        let trip = place.outcomes.record(place.pass, outcome, &self.fleet.policy, self.now);
        place.load.leave();
        if let Some(trip) = trip.filter(|_| !self.once_in(4)) {
            self.fleet.tripped(place.machine, trip, self.now);
        }
    }

    /// Drains have a deadline: what runs on then is cut.
    fn cut_the_drained(&mut self) {
        let drained =
            |machine: u32| self.fleet.machine(machine).is_none_or(|machine| machine.standing.state() == State::Drained);
        let (cut, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut self.requests)
            .into_iter()
            .partition(|request| request.at.as_ref().is_some_and(|place| drained(place.machine)));
        self.requests = stay;
        for mut request in cut {
            let place = request.at.take().expect("it is somewhere");
            self.went(place, Outcome::Unknown);
            self.seen.cut += 1;
        }
    }

    fn assert_invariants(&self) {
        assert_eq!(self.seen.ended() + self.requests.len() as u64, self.begun, "each request has one answer, or waits");
        let at = |id: u32| {
            let places = self.requests.iter().filter_map(|request| request.at.as_ref());
            places.filter(|place| place.machine == id).count()
        };
        for machine in &self.fleet.machines {
            assert_eq!(machine.load.in_flight() as usize, at(machine.id), "what is counted at {} is there", machine.id);
        }
        let longest = PATIENCE * ATTEMPTS + STEP * (ATTEMPTS + 1);
        assert!(self.requests.iter().all(|request| self.now.since(request.begun) <= longest), "nobody waits for ever");
        let seconds = self.now.since(Moment::START).as_secs() - 9;
        let most = (RETRIES * self.begun as f64) as u64 + Budget::ALWAYS * (seconds + 1);
        assert!(self.seen.repeated <= most, "{} repetitions of {} requests", self.seen.repeated, self.begun);
    }

    /// Asserted for each request that has been let in. Those that were let in under another rule keep what they have.
    fn assert_limits(&self) {
        let rule = self.limiter.rule();
        let Some((client, now)) = self.admitted.last() else { return };
        let of_client: Vec<_> = self.requests.iter().filter(|request| request.client == *client).collect();
        if self.rule_since == 0 {
            let mut used: Vec<usize> = of_client.iter().map(|request| request.connection).collect();
            used.sort_unstable();
            used.dedup();
            assert!(rule.requests.is_none_or(|most| of_client.len() <= most as usize), "{} at once", of_client.len());
            assert!(rule.connections.is_none_or(|most| used.len() <= most as usize), "on {} connections", used.len());
        }
        let Some(rate) = rule.rate else { return };
        let times = self.admitted[self.rule_since..].iter().rev().filter(|(other, _)| other == client);
        for (count, (_, since)) in (1..).zip(times) {
            let allowed = f64::from(rule.burst) + 1.0 + now.since(*since).as_secs_f64() * f64::from(rate.count) + 1e-6;
            assert!(f64::from(count) <= allowed, "{count} since {since}, at {}/s and {}", rate.count, rule.burst);
        }
    }

    /// Once all is well, everything that is wanted takes requests again, and nothing is left of what was.
    fn recovers(&mut self) {
        self.limiter = Limiter::new(Rule::default());
        self.rule_since = self.admitted.len();
        (0..PEACE).for_each(|step| self.step(step));
        let (begun, failed, unfit) = (self.begun, self.seen.failed, self.seen.no_upstream);
        (PEACE..PEACE + 20).for_each(|step| self.step(step));
        assert!(
            self.begun > begun && self.seen.failed == failed && self.seen.no_upstream == unfit,
            "all is well again"
        );
        while !self.requests.is_empty() {
            self.now = self.now + STEP;
            self.end_some();
        }
        self.fleet.tick(self.now);
        self.assert_invariants();
        assert!(self.fleet.machines.iter().all(|machine| machine.load.in_flight() == 0));
        assert!(self.fleet.machines.iter().all(|machine| machine.standing.state() != State::Draining));
        self.seen.recovered += 1;
    }

    /// Requests that come one by one are shared by weight, whatever has happened before.
    fn shares_by_weight(&mut self) {
        use Algorithm::{LeastConnections, RoundRobin, Weighted};
        if ![RoundRobin, Weighted, LeastConnections].contains(&self.fleet.algorithm) {
            return;
        }
        let table = &self.fleet.table;
        let members: Vec<_> = table.members().iter().filter(|member| member.weight > 0.0 && !member.backup).collect();
        let weights: f64 = members.iter().map(|member| member.weight).sum();
        if members.is_empty() {
            return;
        }
        let mut counts = vec![0u32; members.len()];
        let rounds = 20.0 * weights;
        for _ in 0..rounds as u32 {
            let draw = Draw { now: self.now, random: self.random.u64(..), hash: None, tried: &[] };
            let id = table.pick(&self.fleet.cursor, &draw).expect("somebody has room");
            let index = members.iter().position(|member| member.id == id).expect("no backup while others have room");
            counts[index] += 1;
            members[index].load.leave();
        }
        for (member, count) in members.iter().zip(counts) {
            let share = 20.0 * member.weight;
            assert!((f64::from(count) - share).abs() <= 2.0 + share * 0.05, "{count} for a share of {share}");
        }
    }
}

fn key(client: usize) -> ClientKey {
    ClientKey::address(IpAddr::from([192, 0, 2, client as u8]))
}
