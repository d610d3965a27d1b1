//! Years in the life of a pool, in milliseconds: random failures, checks, drains, reloads and lost messages.
//!
//! A failure prints its seed; `SEED=… cargo test` plays that one again.

use std::collections::VecDeque;
use std::time::Duration;

use super::*;
use crate::balance::stable_hash;
use crate::types::Moment;

const UPSTREAMS: usize = 5;
const STEP: Duration = Duration::from_millis(20);

/// A request on its way.
struct Request {
    upstream: usize,
    pass: Pass,
    ends: Moment,
    outcome: Outcome,
}

struct World {
    seed: u64,
    draws: u64,
    now: Moment,
    policy: Policy,
    upstreams: Vec<Standing>,
    /// Whether each really works.
    works: [bool; UPSTREAMS],
    running: VecDeque<Request>,
    lineup: Lineup,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = World {
            seed,
            draws: 0,
            now: Moment::START,
            policy: Policy::default(),
            upstreams: Vec::new(),
            works: [true; UPSTREAMS],
            running: VecDeque::new(),
            lineup: Lineup { uses: vec![], panicking: false },
        };
        world.policy = world.another_policy();
        world.upstreams = (0..UPSTREAMS).map(|_| Standing::new(&world.policy, world.now)).collect();
        world.publish();
        world
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.draws += 1;
        stable_hash(&[self.seed.to_le_bytes(), self.draws.to_le_bytes()].concat()) % bound
    }

    fn happens_once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn another_policy(&mut self) -> Policy {
        let second = Duration::from_secs(1);
        let thresholds = Thresholds { rise: 2, fall: 3, initially_up: self.happens_once_in(2) };
        let breaker = BreakerPolicy {
            error_rate: 0.5,
            min_requests: 10,
            window: 5 * second,
            failures: Some(8),
            open: 3 * second,
            probes: 1 + self.below(4) as u32,
        };
        let eject = EjectPolicy {
            failures: self.below(6) as u32,
            time: 2 * second,
            max_time: 20 * second,
            max_share: [0.0, 0.2, 0.5, 1.0][self.below(4) as usize],
        };
        Policy {
            checks: self.happens_once_in(2).then_some(thresholds),
            breaker: self.happens_once_in(2).then_some(breaker),
            eject,
            slow_start: second * self.below(5) as u32,
        }
    }

    fn publish(&mut self) {
        let fitness: Vec<(Fitness, bool)> =
            self.upstreams.iter().enumerate().map(|(i, upstream)| (upstream.fitness(), i == 0)).collect();
        self.lineup = fit(&fitness, 0.4);
    }

    /// One thing done to one upstream by control, and what must be true of it.
    fn control(&mut self, index: usize, act: impl FnOnce(&mut Standing, &Policy, Crowd, Moment) -> Option<Change>) {
        let pool = Crowd::of(&self.upstreams);
        let upstream = &mut self.upstreams[index];
        let (state, fitness) = (upstream.state(), upstream.fitness());
        let change = act(upstream, &self.policy, pool, self.now);
        assert!(change.is_some() || upstream.fitness() == fitness, "no change goes untold");
        if let Some(change) = &change {
            assert_eq!((change.from, change.to), (state, upstream.state()), "changes follow on one another: {change}");
            let remark = matches!(change.reason, Reason::NotEjected { .. });
            assert!(remark || upstream.fitness() != fitness || change.from != change.to, "nothing changed: {change}");
        }
        let after = Crowd::of(&self.upstreams);
        if after.ejected > pool.ejected {
            assert!(after.ejected as f64 <= self.policy.eject.max_share * after.members as f64 + 1e-9);
            assert!(after.ejected < after.members, "one always stays");
        }
        self.publish();
    }

    fn send(&mut self) {
        let usable: Vec<usize> = (0..UPSTREAMS).filter(|i| self.lineup.uses[*i] == Use::Any).collect();
        if usable.is_empty() {
            let unusable =
                |upstream: &Standing| upstream.fitness() != Fitness::Fit && upstream.fitness() != Fitness::Ejected;
            assert!(self.upstreams.iter().all(unusable), "somebody could have been used");
            return;
        }
        let upstream = usable[self.below(usable.len() as u64) as usize];
        let Some(pass) = self.upstreams[upstream].outcomes().admit() else { return };
        let outcome = match (self.happens_once_in(10), self.works[upstream]) {
            (true, _) => Outcome::Unknown,
            (false, true) => Outcome::Good,
            (false, false) => Outcome::Bad,
        };
        let ends = self.now + Duration::from_millis(self.below(500));
        self.running.push_back(Request { upstream, pass, ends, outcome });
    }

    fn finish(&mut self) {
        let now = self.now;
        let (ended, running) = self.running.drain(..).partition(|request| request.ends <= now);
        self.running = running;
        for Request { upstream, pass, outcome, .. } in Vec::from(ended) {
            let trip = self.upstreams[upstream].outcomes().record(pass, outcome, &self.policy, now);
            // A third of the trips never reach control.
            if let Some(trip) = trip.filter(|_| !self.happens_once_in(3)) {
                self.control(upstream, |standing, policy, pool, now| standing.tripped(trip, policy, pool, now));
            }
        }
    }

    fn tick(&mut self) {
        for index in 0..UPSTREAMS {
            let busy = self.running.iter().filter(|request| request.upstream == index).count() as u32;
            self.control(index, |standing, policy, pool, now| standing.tick(policy, pool, busy, now));
            let upstream = &self.upstreams[index];
            assert!(upstream.due(&self.policy, self.now) > self.now, "a tick leaves nothing undone");
            assert!((0.1..=1.0).contains(&upstream.factor(&self.policy, self.now)));
        }
    }

    fn check(&mut self) {
        for index in 0..UPSTREAMS {
            let result = if self.works[index] { Ok(()) } else { Err("refused") };
            self.control(index, |standing, policy, _, now| standing.checked(result, policy, now));
        }
    }

    fn people(&mut self) {
        let index = self.below(UPSTREAMS as u64) as usize;
        match self.below(4) {
            0 => self.control(index, |standing, _, _, now| standing.drain(Duration::from_secs(1), now)),
            1 => self.control(index, |standing, _, _, now| standing.maintain(now)),
            _ => self.control(index, |standing, _, _, now| standing.recall(now)),
        }
    }

    fn reload(&mut self) {
        self.policy = self.another_policy();
        for index in 0..UPSTREAMS {
            self.control(index, |standing, policy, pool, now| standing.adopt(policy, pool, now));
        }
    }

    fn step(&mut self, steps: u64) {
        self.now = self.now + STEP;
        (0..3).for_each(|_| self.send());
        self.finish();
        if steps.is_multiple_of(5) {
            self.tick();
        }
        if steps.is_multiple_of(50) {
            self.check();
        }
    }
}

fn live(seed: u64) {
    let mut world = World::new(seed);
    for steps in 0..1_500 {
        world.step(steps);
        if world.happens_once_in(60) {
            let index = world.below(UPSTREAMS as u64) as usize;
            world.works[index] = !world.works[index];
        }
        if world.happens_once_in(150) {
            world.people();
        }
        if world.happens_once_in(400) {
            world.reload();
        }
    }
    peace(&mut world);
}

/// When everything works again and is wanted, everything is used again.
fn peace(world: &mut World) {
    world.works = [true; UPSTREAMS];
    for index in 0..UPSTREAMS {
        world.control(index, |standing, _, _, now| standing.recall(now));
    }
    (0..2_500).for_each(|steps| world.step(steps));
    for upstream in &world.upstreams {
        // A backup has no requests to try itself on while the others are fit: its circuit stays half open.
        let tried = upstream.fitness() == Fitness::Fit || upstream.fitness() == Fitness::Trial;
        assert!(tried, "{}: {}", upstream.state(), upstream.reason());
        assert_eq!(upstream.factor(&world.policy, world.now), 1.0);
    }
    let ready = world.upstreams.iter().filter(|upstream| upstream.state() == State::Ready).count();
    assert!(ready >= UPSTREAMS - 1);
    assert!(!world.lineup.panicking);
}

#[test]
fn a_pool_survives_everything_and_recovers() {
    let seeds = match std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..40,
    };
    for seed in seeds {
        if std::panic::catch_unwind(|| live(seed)).is_err() {
            panic!("SEED={seed}");
        }
    }
}
