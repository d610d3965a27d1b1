//! The machines, and what control thinks of them.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tidegate::balance::{Algorithm, Cursor, Load, Member, Table, stable_hash};
use tidegate::health::{
    BreakerPolicy, Change, Crowd, EjectPolicy, Fitness, Policy, Standing, State, Thresholds, Trip, Use, fit,
};
use tidegate::types::Moment;

const SECOND: Duration = Duration::from_secs(1);
/// Less than some requests take.
const DRAIN: Duration = Duration::from_millis(300);

/// What a machine does with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conduct {
    Works,
    /// Refuses connections.
    Dead,
    /// Takes requests and answers none.
    Hangs,
    Slow,
    /// Fails every other request.
    Flaps,
}

/// A machine; what outlives reloads of it, and what a reload can change.
pub(crate) struct Machine {
    pub(crate) id: u32,
    pub(crate) load: Arc<Load>,
    pub(crate) standing: Standing,
    pub(crate) conduct: Conduct,
    pub(crate) max: Option<u32>,
    pub(crate) weight: u32,
    backup: bool,
    /// The configuration no longer has it: it goes once it is drained.
    leaving: bool,
}

/// A pool, as control has it and as it was published last.
pub(crate) struct Fleet {
    pub(crate) machines: Vec<Machine>,
    pub(crate) policy: Policy,
    pub(crate) cursor: Cursor,
    pub(crate) table: Table,
    pub(crate) algorithm: Algorithm,
    panic_threshold: f64,
    panicking: bool,
    next_id: u32,
}

impl Fleet {
    pub(crate) fn new(random: &mut Rng, now: Moment) -> Fleet {
        let mut fleet = Fleet {
            machines: Vec::new(),
            policy: policy(random),
            cursor: Cursor::new(),
            table: Table::new(Algorithm::RoundRobin, None, Vec::new()),
            algorithm: algorithm(random),
            panic_threshold: [0.0, 0.3, 0.5, 1.0][random.usize(..4)],
            panicking: false,
            next_id: 0,
        };
        (0..random.u32(1..6)).for_each(|_| fleet.add(random, now));
        fleet.publish(now);
        fleet
    }

    fn add(&mut self, random: &mut Rng, now: Moment) {
        self.machines.push(Machine {
            id: self.next_id,
            load: Arc::default(),
            standing: Standing::new(&self.policy, now),
            conduct: Conduct::Works,
            max: (random.u8(..3) == 0).then(|| random.u32(1..5)),
            weight: random.u32(1..5),
            backup: random.u8(..5) == 0,
            leaving: false,
        });
        self.next_id += 1;
    }

    pub(crate) fn machine(&self, id: u32) -> Option<&Machine> {
        self.machines.iter().find(|machine| machine.id == id)
    }

    fn publish(&mut self, now: Moment) {
        let fitness: Vec<_> = self.machines.iter().map(|one| (one.standing.fitness(), one.backup)).collect();
        let lineup = fit(&fitness, self.panic_threshold);
        self.panicking = lineup.panicking;
        let used = self.machines.iter().zip(&lineup.uses).filter(|(_, used)| **used != Use::No);
        let members = used.map(|(machine, used)| Member {
            id: machine.id,
            load: machine.load.clone(),
            weight: match used {
                Use::Any => f64::from(machine.weight) * machine.standing.factor(&self.policy, now),
                _ => 0.0,
            },
            max: machine.max,
            backup: machine.backup,
            identity: stable_hash(&machine.id.to_le_bytes()),
        });
        self.table = Table::new(self.algorithm, Some(0.25), members.collect());
    }

    /// Something is done to one machine, and told to all.
    fn control(
        &mut self,
        index: usize,
        now: Moment,
        act: impl FnOnce(&mut Standing, &Policy, Crowd, Moment) -> Option<Change>,
    ) {
        let crowd = Crowd::of(self.machines.iter().map(|machine| &machine.standing));
        if act(&mut self.machines[index].standing, &self.policy, crowd, now).is_some() {
            self.publish(now);
        }
    }

    pub(crate) fn tripped(&mut self, id: u32, trip: Trip, now: Moment) {
        if let Some(index) = self.machines.iter().position(|machine| machine.id == id) {
            self.control(index, now, |standing, policy, crowd, now| standing.tripped(trip, policy, crowd, now));
        }
    }

    /// Once in a while: what is due by the clock. Machines that have been drained and that nobody wants go.
    pub(crate) fn tick(&mut self, now: Moment) {
        for index in 0..self.machines.len() {
            let busy = self.machines[index].load.in_flight();
            self.control(index, now, |standing, policy, crowd, now| standing.tick(policy, crowd, busy, now));
        }
        let before = self.machines.len();
        self.machines.retain(|machine| !(machine.leaving && machine.standing.state() == State::Drained));
        // Slow start changes weights without a word.
        if self.machines.len() != before || !self.policy.slow_start.is_zero() {
            self.publish(now);
        }
    }

    pub(crate) fn check(&mut self, now: Moment) {
        for index in 0..self.machines.len() {
            let sick = matches!(self.machines[index].conduct, Conduct::Dead | Conduct::Hangs);
            let result = if sick { Err("no answer") } else { Ok(()) };
            self.control(index, now, |standing, policy, _, now| standing.checked(result, policy, now));
        }
    }

    pub(crate) fn people(&mut self, random: &mut Rng, now: Moment) {
        let index = random.usize(..self.machines.len());
        if self.machines[index].leaving {
            return;
        }
        match random.u8(..4) {
            0 => self.control(index, now, |standing, _, _, now| standing.drain(DRAIN, now)),
            1 => self.control(index, now, |standing, _, _, now| standing.maintain(now)),
            _ => self.recall(index, now),
        }
    }

    fn recall(&mut self, index: usize, now: Moment) {
        self.control(index, now, |standing, _, _, now| standing.recall(now));
    }

    /// Another configuration: policy, balancer, weights, bounds; one machine more, or one less.
    pub(crate) fn reload(&mut self, random: &mut Rng, now: Moment) {
        (self.policy, self.algorithm) = (policy(random), algorithm(random));
        for index in 0..self.machines.len() {
            self.machines[index].weight = random.u32(1..5);
            self.machines[index].max = (random.u8(..3) == 0).then(|| random.u32(1..5));
            self.control(index, now, |standing, policy, crowd, now| standing.adopt(policy, crowd, now));
        }
        let staying = self.machines.iter().filter(|machine| !machine.leaving).count();
        if random.bool() && staying < 8 {
            self.add(random, now);
        } else if staying > 1 {
            let staying: Vec<_> = (0..self.machines.len()).filter(|index| !self.machines[*index].leaving).collect();
            let gone = staying[random.usize(..staying.len())];
            self.machines[gone].leaving = true;
            self.control(gone, now, |standing, _, _, now| standing.drain(DRAIN, now));
        }
        self.publish(now);
    }

    /// Everything works and is wanted.
    pub(crate) fn mend(&mut self, now: Moment) {
        for index in 0..self.machines.len() {
            self.machines[index].conduct = Conduct::Works;
            if !self.machines[index].leaving {
                self.recall(index, now);
            }
        }
    }

    /// Asserts that this one may be given a request that belongs to nobody: it is fit, or too few are and all are used (the panic rule).
    /// Whether it was by that rule.
    pub(crate) fn assert_may_take(&self, id: u32) -> bool {
        let machine = self.machine(id).expect("only those that are there are picked");
        let standing = |machine: &Machine| machine.standing.fitness();
        let is_fit = |machine: &&Machine| matches!(standing(machine), Fitness::Fit | Fitness::Trial);
        let may = matches!(standing(machine), Fitness::Fit | Fitness::Trial | Fitness::Ejected | Fitness::Sick);
        assert!(may, "{id} is {}: {}", machine.standing.state(), machine.standing.reason());
        if is_fit(&machine) {
            return false;
        }
        let tier = || self.machines.iter().filter(|one| one.backup == machine.backup);
        let fit = tier().filter(is_fit).count();
        let unfit =
            tier().filter(|one| matches!(standing(one), Fitness::Ejected | Fitness::Sick | Fitness::Open)).count();
        let few = (fit as f64) < self.panic_threshold * (fit + unfit) as f64;
        let nobody = !self.machines.iter().any(|one| is_fit(&one));
        assert!(self.panicking && (few || nobody), "{id} is {} and {fit} others are fit", machine.standing.reason());
        true
    }
}

fn algorithm(random: &mut Rng) -> Algorithm {
    Algorithm::WORDS[random.usize(..Algorithm::WORDS.len())].1
}

fn policy(random: &mut Rng) -> Policy {
    let thresholds = Thresholds { rise: 2, fall: 2, initially_up: random.bool() };
    let breaker = BreakerPolicy {
        error_rate: 0.5,
        min_requests: 10,
        window: 5 * SECOND,
        failures: random.bool().then_some(5),
        open: SECOND,
        probes: random.u32(1..4),
    };
    let max_share = [0.0, 0.5, 1.0][random.usize(..3)];
    Policy {
        checks: random.bool().then_some(thresholds),
        breaker: random.bool().then_some(breaker),
        eject: EjectPolicy { failures: random.u32(..5), time: SECOND, max_time: 8 * SECOND, max_share },
        slow_start: SECOND * random.u32(..3),
    }
}
