//! Tables and laws of a fleet's life.

mod life;
mod whole;

use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::health::State;
use crate::scale::{Phase, VictimOrder};
use crate::scaler::{Found, Life, Usage};
use crate::snapshot::Intent;
use crate::types::Address;

/// Short spans, so that lives are short.
pub(super) fn settings() -> FleetSettings {
    FleetSettings {
        spec: "spec0".to_owned(),
        by_count: false,
        ordinal: false,
        max: 10,
        drain_requests: Duration::from_secs(10),
        drain_sessions: Duration::from_secs(20),
        grace: Duration::from_secs(5),
        victim: VictimOrder::FewestSessions,
        max_age: None,
        max_requests: None,
        max_memory: None,
        backoff: 1.0,
        max_backoff: 30.0,
        quarantine_after: 3,
        start_deadline: Some(30.0),
        unhealthy_for: 20.0,
        converge: 300.0,
    }
}

/// A fleet with a driver and a control that do what they are told, unless a test has it otherwise.
struct Bench {
    fleet: Fleet,
    now: f64,
    found: Option<Vec<Found>>,
    seen: BTreeMap<Address, Seen>,
    usage: BTreeMap<InstanceId, Usage>,
    wanted: Option<u32>,
    cordon: u32,
    may_start: u32,
    may_stop: bool,
    /// How the next starts are answered.
    answer: Result<(), DriverError>,
    ports: u16,
    plan: Plan,
}

impl Bench {
    fn new(settings: FleetSettings) -> Bench {
        Bench {
            fleet: Fleet::new("app", settings),
            now: 1000.0,
            found: Some(Vec::new()),
            seen: BTreeMap::new(),
            usage: BTreeMap::new(),
            wanted: Some(0),
            cordon: 0,
            may_start: 100,
            may_stop: true,
            answer: Ok(()),
            ports: 5000,
            plan: Plan::default(),
        }
    }

    /// With so many that work.
    fn with(settings: FleetSettings, count: u32) -> Bench {
        let mut bench = Bench::new(settings);
        bench.wanted = Some(count);
        bench.step(1.0);
        bench.step(1.0);
        bench.all_up();
        bench.step(1.0);
        assert_eq!(bench.count("ready"), count as usize);
        bench
    }

    fn step(&mut self, seconds: f64) -> &Plan {
        self.now += seconds;
        let input = Input {
            found: self.found.as_deref(),
            seen: &self.seen,
            usage: &self.usage,
            wanted: self.wanted,
            cordon: self.cordon,
            decision: "d1",
            generation: 7,
            reason: "level",
            may_start: self.may_start,
            may_stop: self.may_stop,
            random: self.now.to_bits(),
        };
        self.plan = self.fleet.step(&input, self.now);
        for action in self.plan.actions.clone() {
            let result = self.act(&action);
            self.fleet.acted(&action, &result, self.now);
        }
        let replicas = self.plan.replicas.clone();
        self.seen.retain(|address, _| replicas.iter().any(|replica| replica.address == *address));
        for replica in replicas {
            let seen = self.seen.entry(replica.address).or_insert_with(|| shown(State::Starting));
            if matches!(replica.intent, Intent::Drain { .. }) && seen.state != State::Drained {
                seen.state = State::Draining;
            } else if replica.intent == Intent::Serve && matches!(seen.state, State::Draining | State::Drained) {
                seen.state = State::Ready;
            }
        }
        &self.plan
    }

    fn act(&mut self, action: &Action) -> Result<(), DriverError> {
        let Some(found) = &mut self.found else { return Ok(()) };
        match action {
            Action::Start(order) => {
                self.answer.clone()?;
                self.ports += 1;
                found.retain(|found| found.id != order.id);
                found.push(running(&order.id, self.ports, "spec0", self.now));
                found.last_mut().expect("just pushed").spec = Some(self.fleet.settings.spec.clone());
            }
            Action::Stop { id, .. } => found.retain(|found| found.id != *id),
            Action::Scale(_) | Action::Mark(_) => {}
        }
        Ok(())
    }

    fn address(&self, id: &str) -> Address {
        let found = self.found.iter().flatten().find(|found| found.id == id).expect("it is there");
        found.address.clone().expect("it has an address")
    }

    fn show(&mut self, id: &str, state: State) {
        let address = self.address(id);
        let seen = self.seen.entry(address).or_insert_with(|| shown(state));
        (seen.state, seen.reason) = (state, state.to_string());
    }

    fn all_up(&mut self) {
        for seen in self.seen.values_mut().filter(|seen| seen.state == State::Starting) {
            seen.state = State::Ready;
        }
    }

    fn stuck(&mut self, id: &str, sessions: u64) {
        let address = self.address(id);
        self.seen.get_mut(&address).expect("control has it").sessions = sessions;
    }

    fn kill(&mut self, id: &str, how: &str) {
        let found = self.found.iter_mut().flatten().find(|found| found.id == id).expect("it is there");
        found.life = Life::Ended { how: how.to_owned(), asked: false };
    }

    fn state(&self, id: &str) -> String {
        let status = self.fleet.status(self.now);
        status.into_iter().find(|status| status.id == id).map_or("gone".to_owned(), |status| status.state)
    }

    fn count(&self, state: &str) -> usize {
        self.fleet.status(self.now).iter().filter(|status| status.state == state).count()
    }

    fn starts(&self) -> Vec<&str> {
        let ids = self.plan.actions.iter().filter_map(|action| match action {
            Action::Start(order) => Some(order.id.as_str()),
            _ => None,
        });
        ids.collect()
    }

    fn stops(&self) -> Vec<&str> {
        let ids = self.plan.actions.iter().filter_map(|action| match action {
            Action::Stop { id, .. } => Some(id.as_str()),
            _ => None,
        });
        ids.collect()
    }

    fn codes(&self) -> Vec<&str> {
        self.plan.findings.iter().map(|finding| finding.code.as_str()).collect()
    }
}

fn shown(state: State) -> Seen {
    Seen { state, since: None, in_flight: 0, requests: 0, sessions: 0, warming: false, reason: state.to_string() }
}

fn running(id: &str, port: u16, spec: &str, now: f64) -> Found {
    Found {
        id: id.to_owned(),
        address: Some(Address::Ip(SocketAddr::from(([127, 0, 0, 1], port)))),
        life: Life::Running,
        spec: Some(spec.to_owned()),
        started: Some(now),
        generation: 7,
        detail: format!("pid {port}"),
        zone: None,
    }
}

fn refused(kind: ErrorKind) -> Result<(), DriverError> {
    Err(DriverError { what: "there is no such program".to_owned(), advice: "install it".to_owned(), kind })
}
