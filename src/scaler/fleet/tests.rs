//! Tables and laws of a fleet's life.

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

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

#[test]
fn a_life() {
    let mut bench = Bench::new(settings());
    bench.wanted = Some(1);
    bench.step(1.0);
    assert_eq!((bench.starts(), bench.state("app-1").as_str()), (vec!["app-1"], "starting"));
    bench.step(1.0);
    assert_eq!((bench.state("app-1").as_str(), bench.plan.replicas.len()), ("probing", 1));
    assert_eq!(bench.plan.replicas[0].intent, Intent::Serve);
    let address = bench.address("app-1");
    let ready = Seen { warming: true, since: Some(bench.now + 0.5), ..shown(State::Ready) };
    bench.seen.insert(address.clone(), ready);
    bench.step(1.0);
    assert_eq!(bench.state("app-1"), "warming");
    assert_eq!(bench.plan.started, [1.5], "from the order to the first good check, not to the step that saw it");
    bench.seen.insert(address, shown(State::Ready));
    bench.step(1.0);
    assert_eq!(bench.state("app-1"), "ready");
    bench.wanted = Some(0);
    bench.step(1.0);
    assert_eq!((bench.state("app-1").as_str(), bench.stops().len()), ("draining", 0));
    assert!(matches!(bench.plan.replicas[0].intent, Intent::Drain { .. }));
    bench.show("app-1", State::Drained);
    bench.step(1.0);
    assert_eq!(bench.stops(), ["app-1"]);
    bench.step(1.0);
    assert_eq!(bench.plan.news.last().map(|news| (news.from, news.to)), Some(("stopping", "gone")));
    assert!(bench.fleet.is_empty());
}

#[test]
fn a_crash_is_replaced_at_once_and_the_next_one_waits() {
    let mut bench = Bench::with(settings(), 2);
    bench.kill("app-1", "SIGSEGV");
    bench.step(1.0);
    assert_eq!(bench.starts(), ["app-3"], "the name of the dead one is not free yet");
    assert!(bench.plan.news.iter().any(|news| news.bad && news.why.contains("SIGSEGV")));
    assert_eq!((bench.plan.start_failures, bench.stops()), (0, vec!["app-1"]));
    bench.step(1.0);
    bench.all_up();
    bench.step(1.0);
    bench.kill("app-3", "SIGSEGV");
    bench.step(0.1);
    assert_eq!((bench.starts().len(), bench.plan.start_failures, bench.count("backoff")), (0, 1, 1));
    bench.step(1.3);
    assert_eq!(bench.starts().len(), 1);
    assert_eq!(bench.count("ready"), 1, "the other one never noticed");
}

#[test]
fn a_build_that_keeps_failing_is_tried_one_at_a_time() {
    let mut bench = Bench::with(settings(), 2);
    bench.wanted = Some(8);
    bench.answer = refused(ErrorKind::Refused);
    bench.step(1.0);
    assert_eq!(bench.starts().len(), 6);
    bench.step(1.0);
    assert!(bench.plan.start_blocked);
    assert_eq!((bench.codes(), bench.plan.start_failures), (vec!["START_FAILURES"], 6));
    let finding = bench.plan.findings[0].clone();
    assert!(finding.text.contains("no such program; install it"), "{}", finding.text);
    assert_eq!((bench.count("ready"), bench.count("quarantined")), (2, 6));
    let mut tried = Vec::new();
    for second in 0..100 {
        bench.step(1.0);
        tried.extend(bench.starts().iter().map(|_| second));
    }
    assert!((2..=5).contains(&tried.len()), "{tried:?}");
    // The cause is gone: the next trial works, and once it has worked for a while the others follow.
    bench.answer = Ok(());
    let mut before_all = 0;
    for _ in 0..80 {
        bench.step(1.0);
        bench.all_up();
        before_all = before_all.max(if bench.plan.start_blocked { bench.count("ready") } else { 0 });
    }
    assert_eq!((bench.plan.start_blocked, bench.count("ready"), before_all), (false, 8, 3));
}

#[test]
fn another_spec_is_tried_at_once() {
    let mut bench = Bench::new(settings());
    bench.wanted = Some(3);
    bench.answer = refused(ErrorKind::Refused);
    bench.step(1.0);
    bench.step(1.0);
    assert!(bench.plan.start_blocked);
    bench.answer = Ok(());
    bench.fleet.adopt(FleetSettings { spec: "spec1".to_owned(), ..settings() });
    bench.step(1.0);
    assert_eq!((bench.starts().len(), bench.plan.start_blocked), (3, false));
}

#[test]
fn a_start_that_never_gets_healthy_is_stopped_and_counts() {
    let mut bench = Bench::new(settings());
    bench.wanted = Some(1);
    bench.step(1.0);
    bench.step(1.0);
    bench.show("app-1", State::Down);
    for _ in 0..29 {
        bench.step(1.0);
        assert_eq!(bench.state("app-1"), "probing");
    }
    bench.step(2.0);
    assert_eq!((bench.stops(), bench.plan.start_failures), (vec!["app-1"], 1));
    assert_eq!(bench.count("backoff"), 1);
    assert!(bench.plan.news.iter().any(|news| news.why.contains("no good health check within 30 s (last: down)")));
}

#[test]
fn no_room_is_nobodys_failure() {
    let mut bench = Bench::with(settings(), 1);
    bench.wanted = Some(3);
    bench.answer = refused(ErrorKind::Full);
    bench.step(1.0);
    bench.step(1.0);
    assert_eq!((bench.codes(), bench.plan.start_failures, bench.plan.start_blocked), (vec!["QUOTA"], 0, false));
}

#[test]
fn starts_are_cancelled_before_anybody_drains() {
    let mut bench = Bench::with(settings(), 2);
    bench.wanted = Some(4);
    bench.step(1.0);
    bench.wanted = Some(2);
    bench.step(1.0);
    let mut stops = bench.stops();
    stops.sort_unstable();
    assert_eq!((stops, bench.count("ready"), bench.count("draining")), (vec!["app-3", "app-4"], 2, 0));
}

#[test]
fn whoever_has_the_fewest_sessions_leaves_and_is_cordoned_before() {
    let mut bench = Bench::with(settings(), 3);
    for (id, sessions) in [("app-1", 5), ("app-2", 1), ("app-3", 9)] {
        bench.stuck(id, sessions);
    }
    bench.step(1.0);
    bench.cordon = 1;
    bench.step(1.0);
    let cordoned: Vec<&str> = bench
        .plan
        .replicas
        .iter()
        .filter(|replica| replica.intent == Intent::Cordon)
        .map(|replica| &*replica.id)
        .collect();
    assert_eq!(cordoned, ["app-2"]);
    // A little more or less work does not change the choice.
    bench.stuck("app-2", 6);
    (bench.wanted, bench.cordon) = (Some(2), 0);
    bench.step(1.0);
    assert_eq!(bench.state("app-2"), "draining");
}

#[test]
fn load_that_returns_takes_back_who_drains() {
    let mut bench = Bench::with(settings(), 3);
    bench.wanted = Some(1);
    bench.step(1.0);
    assert_eq!(bench.count("draining"), 2);
    bench.wanted = Some(4);
    bench.step(1.0);
    assert_eq!((bench.starts().len(), bench.count("draining"), bench.stops().len()), (1, 0, 0));
    assert!(bench.plan.replicas.iter().all(|replica| replica.intent == Intent::Serve));
}

#[test]
fn a_drain_ends_by_its_deadline() {
    let mut bench = Bench::with(settings(), 1);
    bench.wanted = Some(0);
    bench.step(1.0);
    for _ in 0..29 {
        bench.step(1.0);
        assert_eq!(bench.state("app-1"), "draining");
    }
    bench.step(2.0);
    assert_eq!(bench.stops(), ["app-1"]);
}

#[test]
fn another_spec_rolls_one_at_a_time_with_the_replacement_first() {
    let mut bench = Bench::with(settings(), 3);
    bench.fleet.adopt(FleetSettings { spec: "spec1".to_owned(), ..settings() });
    let mut replaced = 0;
    for _ in 0..60 {
        bench.step(1.0);
        assert!(bench.count("ready") + bench.count("draining") >= 3, "{:?}", bench.fleet.status(bench.now));
        assert!(bench.fleet.present() <= 4 && bench.count("draining") <= 1);
        let shown = bench.fleet.instances(bench.now);
        let counted = shown.iter().filter(|instance| instance.phase != Phase::Draining).count();
        assert_eq!(counted, 3, "the replacement is never taken for a larger size");
        replaced += bench.stops().len();
        bench.all_up();
        let draining: Vec<_> =
            bench.fleet.status(bench.now).into_iter().filter(|one| one.state == "draining").collect();
        draining.iter().for_each(|one| bench.show(&one.id, State::Drained));
    }
    assert_eq!((bench.count("ready"), replaced), (3, 3));
    assert!(bench.fleet.status(bench.now).iter().all(|one| !one.outdated));
}

#[test]
fn a_spec_that_does_not_start_leaves_the_old_ones_alone() {
    let mut bench = Bench::with(settings(), 3);
    bench.fleet.adopt(FleetSettings { spec: "spec1".to_owned(), ..settings() });
    bench.answer = refused(ErrorKind::Refused);
    for _ in 0..200 {
        bench.step(1.0);
        assert_eq!((bench.count("ready"), bench.stops().len()), (3, 0));
    }
    assert!(bench.plan.start_blocked);
    // Taken back: everything is as it was.
    bench.fleet.adopt(settings());
    bench.step(1.0);
    assert_eq!((bench.fleet.status(bench.now).len(), bench.starts().len()), (3, 0));
}

#[test]
fn without_room_for_a_replacement_one_goes_first() {
    let mut bench = Bench::with(settings(), 3);
    bench.may_start = 0;
    bench.fleet.recycle();
    for _ in 0..60 {
        bench.step(1.0);
        assert_eq!(bench.count("ready"), 3);
    }
    bench.step(2.0);
    assert_eq!((bench.count("ready"), bench.count("draining")), (2, 1));
}

#[test]
fn a_full_machine_makes_room_first() {
    let mut bench = Bench::with(settings(), 3);
    bench.answer = refused(ErrorKind::Full);
    bench.fleet.recycle();
    bench.step(1.0);
    assert_eq!((bench.starts().len(), bench.count("ready")), (1, 3), "the replacement first, where there is room");
    bench.step(1.0);
    bench.step(1.0);
    assert_eq!((bench.count("ready"), bench.count("draining"), bench.count("backoff")), (2, 1, 1));
}

#[test]
fn a_follower_leaves_deadlines_to_the_leader() {
    let mut bench = Bench::new(settings());
    bench.wanted = Some(1);
    bench.step(1.0);
    bench.step(1.0);
    (bench.wanted, bench.may_start, bench.may_stop) = (None, 0, false);
    for _ in 0..100 {
        bench.step(1.0);
        assert!(bench.plan.actions.is_empty() && bench.state("app-1") == "probing");
    }
}

#[test]
fn the_old_the_busy_and_the_fat_are_replaced() {
    let worn = |change: fn(&mut FleetSettings), wear: fn(&mut Bench)| {
        let mut settings = settings();
        change(&mut settings);
        let mut bench = Bench::with(settings, 2);
        bench.step(1.0);
        assert_eq!(bench.starts().len(), 0);
        wear(&mut bench);
        bench.step(1.0);
        assert_eq!(bench.starts().len(), 1);
    };
    worn(|settings| settings.max_age = Some(3600.0), |bench| bench.now += 3600.0);
    worn(
        |settings| settings.max_requests = Some(100),
        |bench| bench.seen.values_mut().for_each(|seen| seen.requests = 100),
    );
    worn(
        |settings| settings.max_memory = Some(1 << 20),
        |bench| {
            let fat = Usage { memory: Some(2 << 20), ..Usage::default() };
            bench.usage.insert("app-2".to_owned(), fat);
        },
    );
}

#[test]
fn an_unhealthy_one_is_replaced_after_a_while_unless_an_operator_holds_it() {
    let mut bench = Bench::with(settings(), 2);
    bench.show("app-1", State::Maintenance);
    bench.show("app-2", State::Down);
    for _ in 0..20 {
        bench.step(1.0);
        assert_eq!((bench.count("unhealthy"), bench.starts().len()), (2, 0));
    }
    bench.step(2.0);
    assert_eq!(bench.starts().len(), 1);
    bench.step(1.0);
    bench.all_up();
    bench.step(1.0);
    bench.step(1.0);
    assert_eq!((bench.state("app-1").as_str(), bench.state("app-2").as_str()), ("unhealthy", "draining"));
}

#[test]
fn nobody_is_the_last_of_its_zone() {
    let mut bench = Bench::with(settings(), 4);
    for (found, zone) in bench.found.iter_mut().flatten().zip(["a", "b", "b", "b"]) {
        found.zone = Some(zone.to_owned());
    }
    for (id, sessions) in [("app-1", 0), ("app-2", 5), ("app-3", 6), ("app-4", 7)] {
        bench.stuck(id, sessions);
    }
    bench.step(1.0);
    bench.wanted = Some(2);
    bench.step(1.0);
    assert_eq!((bench.state("app-1").as_str(), bench.state("app-4").as_str()), ("ready", "ready"));
}

#[test]
fn what_runs_is_taken_over_without_any_state() {
    let mut bench = Bench::with(settings(), 3);
    bench.fleet = Fleet::new("app", settings());
    bench.step(1.0);
    assert_eq!((bench.starts().len(), bench.stops().len(), bench.plan.replicas.len()), (0, 0, 3));
    bench.step(1.0);
    assert_eq!((bench.count("ready"), bench.plan.started.len()), (3, 0), "no start-up time was measured");
}

#[test]
fn more_than_there_may_be_are_orphans() {
    let few = FleetSettings { max: 2, ..settings() };
    let mut bench = Bench::new(few);
    bench.wanted = None;
    bench.may_stop = false;
    for port in 1..=4 {
        let found = running(&format!("app-{port}"), port, "spec0", 10.0 + f64::from(port));
        bench.found.as_mut().expect("a list").push(found);
    }
    bench.step(1.0);
    assert_eq!((bench.state("app-3").as_str(), bench.codes()), ("orphan", vec!["ORPHAN"]));
    bench.may_stop = true;
    bench.step(1.0);
    assert_eq!((bench.count("draining"), bench.count("probing"), bench.starts().len()), (2, 2, 0));
}

#[test]
fn without_the_drivers_list_nothing_is_done_and_nothing_forgotten() {
    let mut bench = Bench::with(settings(), 2);
    let list = bench.found.take();
    bench.step(6.0);
    bench.wanted = Some(5);
    for _ in 0..100 {
        bench.step(1.0);
        assert_eq!((bench.plan.actions.len(), bench.plan.replicas.len(), bench.count("ready")), (0, 2, 2));
    }
    bench.found = list;
    bench.step(1.0);
    assert_eq!(bench.starts().len(), 3);
}

#[test]
fn a_follower_starts_and_stops_nobody() {
    let mut bench = Bench::with(settings(), 3);
    (bench.wanted, bench.may_start, bench.may_stop) = (None, 0, false);
    bench.kill("app-1", "SIGKILL");
    for _ in 0..50 {
        bench.step(1.0);
        assert!(bench.plan.actions.is_empty());
    }
    // The leader has replaced it.
    bench.found.as_mut().expect("a list").push(running("app-9", 9, "spec0", bench.now));
    bench.step(1.0);
    assert_eq!((bench.state("app-9").as_str(), bench.count("backoff"), bench.plan.replicas.len()), ("probing", 0, 3));
}

#[test]
fn what_crashed_while_nobody_looked_is_replaced() {
    let mut bench = Bench::with(settings(), 3);
    let text = serde_json::to_string(&bench.fleet.save()).expect("it can be written");
    bench.fleet = Fleet::restore("app", serde_json::from_str(&text).expect("it can be read"), settings());
    assert_eq!(serde_json::to_string(&bench.fleet.save()).expect("it can be written"), text);
    bench.found.as_mut().expect("a list").remove(1);
    bench.wanted = None;
    bench.step(100.0);
    assert_eq!((bench.starts(), bench.plan.replicas.len()), (vec!["app-2"], 2));
}

#[test]
fn an_unreachable_driver_may_have_taken_the_order() {
    let mut bench = Bench::new(settings());
    bench.wanted = Some(1);
    bench.answer = refused(ErrorKind::Unreachable);
    bench.step(1.0);
    bench.step(1.0);
    assert_eq!((bench.state("app-1").as_str(), bench.starts().len()), ("requested", 0));
    bench.found.as_mut().expect("a list").push(running("app-1", 1, "spec0", bench.now));
    bench.step(1.0);
    assert_eq!(bench.state("app-1"), "probing");
}

#[test]
fn a_leader_that_is_none_any_more_stops_acting() {
    let mut bench = Bench::new(settings());
    bench.wanted = Some(2);
    bench.answer = refused(ErrorKind::Fenced);
    bench.step(1.0);
    for _ in 0..20 {
        bench.step(1.0);
        assert!(bench.plan.actions.is_empty());
    }
}

#[test]
fn by_count_one_number_is_told_and_who_should_go() {
    let counted = FleetSettings { by_count: true, ..settings() };
    let mut bench = Bench::new(counted);
    bench.wanted = Some(3);
    bench.step(1.0);
    let scales = |bench: &Bench| -> Vec<(u32, u32, usize)> {
        let scales = bench.plan.actions.iter().filter_map(|action| match action {
            Action::Scale(request) => Some((request.desired, request.current, request.victims.len())),
            _ => None,
        });
        scales.collect()
    };
    assert_eq!((scales(&bench), bench.starts().len()), (vec![(3, 0, 0)], 0));
    assert_eq!(bench.fleet.instances(bench.now).len(), 3, "those that are announced count as starting");
    bench.step(1.0);
    assert_eq!(scales(&bench), [], "once");
    for (id, port) in [("pod-a", 1), ("pod-b", 2), ("pod-c", 3)] {
        bench.found.as_mut().expect("a list").push(Found { spec: None, ..running(id, port, "", bench.now) });
    }
    bench.step(1.0);
    bench.all_up();
    bench.step(1.0);
    assert_eq!(bench.count("ready"), 3);
    bench.wanted = Some(2);
    bench.step(1.0);
    let victim = bench.fleet.status(bench.now).into_iter().find(|one| one.state == "draining").expect("one drains").id;
    assert_eq!(scales(&bench), [], "not before it has drained");
    assert!(bench.plan.actions.contains(&Action::Mark(vec![victim.clone()])), "as soon as it drains: {:?}", bench.plan);
    bench.show(&victim, State::Drained);
    bench.step(1.0);
    assert_eq!(scales(&bench), [(2, 3, 1)]);
    bench.found.as_mut().expect("a list").retain(|found| found.id != victim);
    bench.step(1.0);
    assert_eq!((bench.fleet.status(bench.now).len(), scales(&bench).len()), (2, 1));
}

#[test]
fn where_the_highest_number_goes_first_it_drains_first() {
    let mut bench = Bench::with(FleetSettings { ordinal: true, ..settings() }, 3);
    bench.stuck("app-3", 100);
    bench.step(1.0);
    bench.wanted = Some(2);
    bench.step(1.0);
    assert_eq!(bench.state("app-3"), "draining");
}

#[test]
fn what_does_not_come_about_is_told() {
    let mut bench = Bench::new(FleetSettings { by_count: true, ..settings() });
    bench.wanted = Some(2);
    for _ in 0..310 {
        bench.step(1.0);
    }
    assert_eq!(bench.codes(), ["NOT_CONVERGING"]);
}

proptest! {
    #[test]
    fn waits_grow_and_are_bounded(attempts in 1u32..100, random in any::<u64>()) {
        let mut fleet = Fleet::new("app", settings());
        fleet.dice = random;
        let wait = fleet.delay(attempts);
        let least = (0.75 * 2f64.powi(attempts.min(40) as i32 - 1)).min(30.0);
        prop_assert!((least..=30.0).contains(&wait), "{wait}");
    }

    #[test]
    fn victims_are_different_and_as_many_as_asked_for(
        loads in proptest::collection::vec((0u64..9, 0u64..9, 0usize..3), 1..20),
        count in 0usize..25,
    ) {
        let mut bench = Bench::with(FleetSettings { max: 50, ..settings() }, loads.len() as u32);
        for (member, (sessions, in_flight, zone)) in bench.fleet.saved.members.iter_mut().zip(&loads) {
            (member.load.sessions, member.load.in_flight) = (*sessions, *in_flight);
            member.zone = ["a", "b", "c"].get(*zone).map(|zone| (*zone).to_owned());
        }
        let victims = bench.fleet.victims(count, bench.now);
        let distinct: BTreeSet<usize> = victims.iter().copied().collect();
        prop_assert_eq!(distinct.len(), count.min(loads.len()));
        prop_assert_eq!(distinct.len(), victims.len());
        let zones: BTreeSet<usize> = loads.iter().map(|load| load.2).collect();
        let left: BTreeSet<usize> = (0..loads.len()).filter(|at| !distinct.contains(at)).map(|at| loads[at].2).collect();
        prop_assert_eq!(left.len(), zones.len().min(loads.len() - distinct.len()), "as many zones stay as can");
    }
}
