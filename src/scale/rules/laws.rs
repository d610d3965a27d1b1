//! What must be true of every decision, whatever is seen, proposed and configured; and the stories of single rules.

use proptest::prelude::*;

use super::Memory;
use super::tests::{pool, settings};
use crate::scale::decide::compose;
use crate::scale::{
    Decision, Instance, Metric, Mode, Observed, Phase, Policy, Proposal, Rules, Schedule, Select, Settings, Signal,
    State, Target,
};

/// A pool whose instances come `lead` seconds after they were wanted.
struct World {
    memory: Memory,
    settings: Settings,
    seen: Observed,
    now: f64,
    lead: f64,
    /// Whether new ones come up.
    healthy: bool,
}

impl World {
    fn new(size: u32, settings: Settings) -> World {
        let seen = pool(size, 0);
        World { memory: Memory::default(), settings, seen, now: 1.8e9, lead: 5.0, healthy: true }
    }

    /// A second in which the load asks for so many, and lets so many go.
    fn second(&mut self, up: u32, down: u32) -> Decision {
        let mut proposal = Proposal { up, down, soon: down, reason: "level", ..Proposal::default() };
        proposal.terms.capacity = 4.0;
        proposal.terms.lead = self.lead;
        proposal.terms.hold = 30.0;
        self.propose(proposal)
    }

    fn propose(&mut self, proposal: Proposal) -> Decision {
        self.now += 1.0;
        for instance in &mut self.seen.instances {
            instance.age += 1.0;
            if instance.phase == Phase::Starting && self.healthy && instance.age >= self.lead {
                instance.phase = Phase::Ready;
            }
        }
        let decision = compose(&self.seen, &mut self.memory, &self.settings, proposal, self.now);
        if decision.apply {
            self.carry_out(decision.desired);
        }
        decision
    }

    fn carry_out(&mut self, desired: u32) {
        self.seen.instances.truncate(desired as usize);
        while self.seen.current() < desired {
            self.seen.instances.push(Instance { phase: Phase::Starting, age: 0.0 });
        }
    }

    /// So many seconds alike.
    fn seconds(&mut self, count: u32, up: u32, down: u32) -> Decision {
        (1..count).for_each(|_| drop(self.second(up, down)));
        self.second(up, down)
    }
}

fn limits(decision: &Decision) -> Vec<(&str, u32, u32)> {
    decision.limits.iter().map(|limit| (limit.name.as_str(), limit.from, limit.to)).collect()
}

fn rules(policies: &[&str], stabilization: Option<f64>) -> Rules {
    let policies = policies.iter().map(|text| text.parse().unwrap()).collect();
    Rules { stabilization, policies, select: Select::Max, tolerance: 0.0 }
}

#[test]
fn the_load_alone_is_followed() {
    let mut world = World::new(4, settings());
    let up = world.second(9, 9);
    assert_eq!((up.current, up.raw, up.wanted, up.desired, up.apply), (4, 9, 9, 9, true));
    assert_eq!((up.reason.as_str(), up.limits.len()), ("level", 0));
    let down = world.second(6, 6);
    assert_eq!((down.current, down.desired, down.cordon), (9, 6, 3));
}

#[test]
fn no_step_down_takes_more_than_its_share() {
    let mut world = World::new(10, settings());
    let down = world.second(2, 2);
    assert_eq!((down.desired, limits(&down)), (5, vec![("step", 2, 5)]));
    assert_eq!(world.second(2, 2).desired, 3);
    assert_eq!(world.second(2, 2).desired, 2);
}

#[test]
fn what_is_held_is_told_and_packed() {
    let mut world = World::new(10, settings());
    let held = Proposal { up: 4, down: 10, soon: 4, reason: "level", held_by: Some("hold"), ..Proposal::default() };
    let decision = world.propose(held.clone());
    assert_eq!((decision.desired, decision.cordon, decision.reason.as_str()), (10, 6, "hold"));
    assert_eq!(limits(&decision), [("hold", 4, 10)]);
    // A window of the operator's own stands for the hold.
    world.settings.down = rules(&[], Some(60.0));
    world.settings.max_step_down = 1.0;
    let decisions: Vec<u32> = (0..61).map(|_| world.propose(held.clone()).desired).collect();
    assert_eq!((decisions[58], decisions[59]), (10, 4));
}

#[test]
fn nothing_is_cordoned_where_nothing_goes() {
    let held = Proposal { up: 4, down: 10, soon: 4, held_by: Some("hold"), ..Proposal::default() };
    let cordon = |change: fn(&mut World)| {
        let mut world = World::new(10, settings());
        change(&mut world);
        world.propose(held.clone()).cordon
    };
    assert_eq!(cordon(|_| {}), 6);
    assert_eq!(cordon(|world| world.seen.complete = false), 0);
    assert_eq!(cordon(|world| world.settings.mode = Mode::DryRun), 0);
    assert_eq!(cordon(|world| world.settings.mode = Mode::UpOnly), 0);
    assert_eq!(cordon(|world| world.settings.down.select = Select::Disabled), 0);
    assert_eq!(cordon(|world| world.settings.min = 8), 2);
    let schedule = |min| Schedule {
        name: "all day".to_owned(),
        cron: "* * * * *".to_owned(),
        lasting: 3600.0,
        tz: "UTC".to_owned(),
        min,
        max: None,
    };
    let mut world = World::new(10, settings());
    world.settings.schedules = vec![schedule(Some(7))];
    assert_eq!(world.propose(held.clone()).cordon, 3);
}

#[test]
fn what_died_is_made_good_without_a_step() {
    let mut world = World::new(5, Settings { up: rules(&["1/60s"], None), ..settings() });
    assert_eq!(world.second(6, 6).desired, 6);
    world.seen.instances.pop();
    // The load does not need it, but nobody has decided to let it go; and the pace is used up.
    let decision = world.second(4, 4);
    assert_eq!((decision.current, decision.desired), (5, 6));
    assert_eq!(world.memory.steps.in_hour(world.now), 1);
}

#[test]
fn what_others_do_is_taken_as_it_is_after_a_while() {
    let mut world = World::new(4, settings());
    world.second(4, 4);
    world.carry_out(9);
    let mut decisions = (0..40).map(|_| {
        world.now += 1.0;
        let proposal = Proposal { up: 4, down: 9, soon: 4, held_by: Some("hold"), ..Proposal::default() };
        compose(&world.seen, &mut world.memory, &world.settings, proposal, world.now).desired
    });
    assert_eq!(decisions.next(), Some(4));
    assert_eq!(decisions.last(), Some(9));
    // After a time in which nobody looked, at once.
    world.carry_out(6);
    world.now += 60.0;
    assert_eq!(world.second(4, 6).desired, 6);
}

#[test]
fn a_policy_adds_and_keeps_what_it_added_while_it_rests() {
    let policy = Policy {
        name: "pressure".to_owned(),
        when: "queue_depth > 10".parse().unwrap(),
        lasting: 10.0,
        adjust: "+50%".parse().unwrap(),
        cooldown: 60.0,
        min: None,
        max: None,
    };
    let mut world = World::new(4, Settings { policies: vec![policy], verify: off(), ..settings() });
    world.seen.queue = 20.0;
    assert_eq!(world.seconds(10, 4, 4).desired, 4);
    let fired = world.second(4, 4);
    assert_eq!((fired.desired, fired.reason.as_str()), (6, "policy:pressure"));
    assert_eq!(fired.sources[1].why, "queue_depth > 10 (queue_depth 20) for 10 s: +50%");
    world.seen.queue = 0.0;
    assert_eq!(world.seconds(59, 4, 4).desired, 6);
    assert_eq!(world.second(4, 4).desired, 4);
}

fn off() -> crate::scale::Verify {
    crate::scale::Verify { rollback: false, ..settings().verify }
}

#[test]
fn a_policy_for_fewer_lifts_the_hold_but_not_the_load() {
    let policy = Policy {
        name: "night".to_owned(),
        when: "queue_depth < 1".parse().unwrap(),
        lasting: 0.0,
        adjust: "-5".parse().unwrap(),
        cooldown: 60.0,
        min: None,
        max: None,
    };
    let held = |soon| Proposal { up: soon, down: 10, soon, held_by: Some("hold"), ..Proposal::default() };
    let mut world = World::new(10, Settings { policies: vec![policy], ..settings() });
    let decision = world.propose(held(3));
    assert_eq!((decision.wanted, decision.desired), (5, 5));
    let mut world = World::new(10, world.settings);
    assert_eq!(world.propose(held(8)).desired, 8);
}

#[test]
fn a_signal_that_is_missing_keeps_what_is_there() {
    let signal =
        Signal { metric: Metric::External("lag".to_owned()), target: Target::PerInstance(10.0), up_only: false };
    let mut world = World::new(6, Settings { signals: vec![signal], ..settings() });
    let decision = world.second(3, 3);
    assert_eq!((decision.wanted, decision.desired), (3, 6));
    assert_eq!(limits(&decision), [("incomplete", 3, 6)]);
    assert_eq!(world.second(8, 8).desired, 8);
    world.seen.external.insert("lag".to_owned(), 40.0);
    assert_eq!(world.second(3, 3).desired, 4);
}

#[test]
fn what_signals_ask_for_is_kept_for_the_hold() {
    let signal = Signal { metric: Metric::QueueDepth, target: Target::PerInstance(10.0), up_only: false };
    let mut world = World::new(3, Settings { signals: vec![signal], verify: off(), max_step_down: 1.0, ..settings() });
    world.seen.queue = 80.0;
    assert_eq!(world.second(3, 3).desired, 8);
    world.seen.queue = 0.0;
    let kept = world.seconds(29, 3, 3);
    assert_eq!((kept.desired, limits(&kept)), (8, vec![("stabilization", 3, 8)]));
    assert_eq!(world.second(3, 3).desired, 3);
}

#[test]
fn the_budget_holds_the_larger_size() {
    let mut world = World::new(4, Settings { max_changes_per_hour: Some(3), verify: off(), ..settings() });
    let sizes: Vec<u32> = [6, 4, 7, 4, 9, 4].into_iter().map(|number| world.second(number, number).desired).collect();
    assert_eq!(sizes, [6, 4, 7, 7, 9, 9]);
    assert_eq!(world.memory.steps.reversals(world.now), 2);
    let decision = world.seconds(3600, 5, 5);
    assert_eq!(decision.desired, 5);
}

#[test]
fn no_step_up_is_beyond_its_ratio_of_those_that_are_ready() {
    let mut world = World::new(2, Settings { max_step_up: Some(3.0), ..settings() });
    let decision = world.second(20, 20);
    assert_eq!((decision.desired, limits(&decision)), (6, vec![("step", 20, 6)]));
    assert_eq!(world.seconds(3, 20, 20).desired, 6);
    assert_eq!(world.seconds(3, 20, 20).desired, 18);
}

#[test]
fn a_sleeping_pool_wakes_whatever_the_pace() {
    let settings = Settings { min: 0, up: rules(&["100%/60s"], None), max_step_up: Some(1.5), ..settings() };
    let mut world = World::new(0, settings);
    assert_eq!(world.second(1, 1).desired, 1);
}

#[test]
fn starts_that_fail_stop_growing_and_keep_what_works() {
    let mut world = World::new(4, settings());
    world.seen.start_blocked = true;
    let decision = world.second(9, 9);
    assert_eq!((decision.desired, limits(&decision)), (4, vec![("start_failures", 9, 4)]));
    assert_eq!(world.second(3, 3).desired, 3);
}

#[test]
fn those_that_never_come_up_are_taken_back() {
    let mut world = World::new(4, settings());
    world.healthy = false;
    assert_eq!(world.second(7, 7).desired, 7);
    assert_eq!(world.seconds(59, 7, 7).desired, 7);
    let back = world.second(7, 7);
    assert_eq!((back.desired, back.rollback, back.reason.as_str()), (4, true, "rollback"));
    assert_eq!(back.sources.last().unwrap().why, "none of the 3 new ones was ready after 60 s");
    // Frozen, and then it is tried again.
    let frozen = world.second(7, 7);
    assert_eq!((frozen.desired, frozen.rollback, limits(&frozen)), (4, false, vec![("freeze", 7, 4)]));
    assert_eq!(world.seconds(598, 7, 7).desired, 4);
    assert_eq!(world.second(7, 7).desired, 7);
}

#[test]
fn a_slow_start_is_waited_for() {
    let mut world = World::new(4, settings());
    world.lead = 100.0;
    assert_eq!(world.seconds(120, 7, 7).desired, 7);
    assert_eq!(world.seconds(400, 7, 7).desired, 7);
    world.healthy = false;
    world.settings.verify.ready_within = 900.0;
    world.second(9, 9);
    assert_eq!(world.seconds(800, 9, 9).desired, 9);
}

#[test]
fn those_that_bring_errors_are_taken_back() {
    let mut world = World::new(4, settings());
    let answers = |world: &mut World, errors| (world.seen.completions, world.seen.errors) = (100.0, errors);
    answers(&mut world, 1.0);
    world.seconds(60, 4, 4);
    assert_eq!(world.second(6, 6).desired, 6);
    assert_eq!(world.seconds(10, 6, 6).desired, 6);
    answers(&mut world, 20.0);
    let decisions: Vec<Decision> = (0..60).map(|_| world.second(6, 6)).collect();
    let back = decisions.iter().find(|decision| decision.rollback).unwrap();
    assert_eq!(back.desired, 4);
    assert!(decisions.last().unwrap().desired == 4);
    // Errors that were there before are nobody's fault.
    let mut world = World::new(4, settings());
    answers(&mut world, 20.0);
    world.seconds(60, 4, 4);
    assert!((0..120).all(|_| !world.second(6, 6).rollback));
}

#[test]
fn those_that_are_missed_are_added_back_and_kept() {
    let mut world = World::new(8, settings());
    world.seconds(60, 8, 8);
    assert_eq!(world.second(6, 6).desired, 6);
    assert_eq!(world.seconds(5, 6, 6).desired, 6);
    world.seen.oldest_wait = 0.9;
    let back = world.second(6, 6);
    assert_eq!((back.desired, back.rollback), (8, true));
    assert_eq!(back.sources.last().unwrap().why, "a request has waited 0.9 s since 2 went, more than 0.25 s");
    world.seen.oldest_wait = 0.0;
    let kept = world.seconds(29, 6, 6);
    assert_eq!((kept.desired, kept.reason.as_str()), (8, "verify"));
    assert_eq!(world.second(6, 6).desired, 6);
}

#[test]
fn a_slower_pool_gets_its_instances_back() {
    let told = |before: f64, after: f64, noise: f64| {
        let mut world = World::new(8, settings());
        let second = |world: &mut World, number: u32, p95: f64| {
            let turn = if (world.now as u64).is_multiple_of(2) { 1.0 } else { -1.0 };
            world.seen.latency_p95 = Some(p95 * (1.0 + noise * turn));
            world.second(number, number)
        };
        (0..60).for_each(|_| drop(second(&mut world, 8, before)));
        let decisions: Vec<Decision> = (0..60).map(|_| second(&mut world, 6, after)).collect();
        decisions.iter().any(|decision| decision.rollback)
    };
    assert!(told(0.1, 0.2, 0.1));
    assert!(!told(0.1, 0.12, 0.1));
    assert!(!told(0.1, 0.14, 0.9));
}

#[test]
fn a_ceiling_and_a_floor_by_the_clock() {
    let schedule = |cron: &str, min, max| Schedule {
        name: cron.to_owned(),
        cron: cron.to_owned(),
        lasting: 600.0,
        tz: "UTC".to_owned(),
        min,
        max,
    };
    // 1.8e9 is 2027-01-15 08:00:00 UTC.
    let mut world = World::new(4, Settings { schedules: vec![schedule("0 8 * * *", Some(9), None)], ..settings() });
    let decision = world.second(4, 4);
    assert_eq!((decision.desired, decision.reason.as_str()), (9, "schedule:0 8 * * *"));
    let mut world = World::new(4, Settings { schedules: vec![schedule("0 8 * * *", None, Some(5))], ..settings() });
    let decision = world.second(9, 9);
    assert_eq!((decision.desired, limits(&decision)), (5, vec![("schedule", 9, 5)]));
    let mut world = World::new(8, world.settings);
    let decision = world.second(9, 9);
    assert_eq!((decision.desired, decision.reason.as_str()), (5, "schedule"));
}

#[test]
fn bounds_alone_are_a_reason() {
    let mut world = World::new(4, Settings { min: 6, ..settings() });
    let decision = world.second(4, 4);
    assert_eq!((decision.desired, decision.reason.as_str()), (6, "min"));
    let mut world = World::new(9, Settings { max: 6, ..settings() });
    let decision = world.second(9, 9);
    assert_eq!((decision.desired, decision.reason.as_str()), (6, "max"));
    // Reason remains who asked, where the bound only cut it.
    let mut world = World::new(4, Settings { max: 6, ..settings() });
    let decision = world.second(9, 9);
    assert_eq!((decision.desired, decision.reason.as_str(), limits(&decision)), (6, "level", vec![("max", 9, 6)]));
}

#[test]
fn modes() {
    let decide = |mode| {
        let mut world = World::new(4, Settings { mode, ..settings() });
        let up = world.second(6, 6);
        let down = world.second(2, 2);
        (up.desired, up.apply, down.desired)
    };
    assert_eq!(decide(Mode::On), (6, true, 3));
    assert_eq!(decide(Mode::UpOnly), (6, true, 6));
    assert_eq!(decide(Mode::DryRun), (6, false, 2));
    assert_eq!(decide(Mode::Observe), (6, false, 2));
    let mut state = State::default();
    let off = crate::scale::decide(&pool(4, 0), &mut state, &Settings { mode: Mode::Off, min: 9, ..settings() }, 1.0);
    assert_eq!((off.desired, off.apply, off.reason.as_str()), (4, false, "off"));
}

#[test]
fn what_is_remembered_survives_a_restart() {
    let mut world = World::new(4, Settings { up: rules(&["2/60s"], Some(5.0)), ..settings() });
    (0..40).for_each(|second| drop(world.second(4 + second % 9, 4)));
    let text = serde_json::to_string(&world.memory).unwrap();
    assert_eq!(serde_json::from_str::<Memory>(&text).unwrap(), world.memory);
    assert_eq!(serde_json::from_str::<Memory>("{}").unwrap(), Memory::default());
}

/// Everything that can be configured and seen, at random.
#[derive(Debug, Clone)]
struct Story {
    settings: Settings,
    seconds: Vec<Second>,
}

#[derive(Debug, Clone)]
struct Second {
    up: u32,
    down: u32,
    complete: bool,
    blocked: bool,
    errors: f64,
    wait: f64,
    cpu: Option<f64>,
    died: bool,
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let policy = prop_oneof!["[1-9]/[1-9]0s", "[1-9]0%/[1-9]0s", "100%/15s"];
    let policies = prop::collection::vec(policy.prop_map(|text| text.parse().unwrap()), 0..3);
    let select = prop_oneof![4 => Just(Select::Max), 2 => Just(Select::Min), 1 => Just(Select::Disabled)];
    let stabilization = prop::option::of(prop_oneof![Just(0.0), 1.0f64..90.0]);
    let tolerance = prop_oneof![Just(0.0), Just(0.1)];
    (policies, select, stabilization, tolerance).prop_map(|(policies, select, stabilization, tolerance)| Rules {
        stabilization,
        policies,
        select,
        tolerance,
    })
}

fn any_settings() -> impl Strategy<Value = Settings> {
    let mode = prop_oneof![4 => Just(Mode::On), 1 => Just(Mode::UpOnly), 1 => Just(Mode::DryRun)];
    let policy = (prop_oneof!["[+-][1-3]", "[+-][1-9]0%", "=[1-9]"], 0.0f64..20.0, 1.0f64..60.0);
    let policies = prop::collection::vec(policy, 0..3).prop_map(|policies| {
        let policy = |(index, (adjust, lasting, cooldown)): (usize, (String, f64, f64))| Policy {
            name: format!("p{index}"),
            when: "queue_wait > 100ms or cpu < 20%".parse().unwrap(),
            lasting,
            adjust: adjust.parse().unwrap(),
            cooldown,
            min: None,
            max: (index == 1).then_some(9),
        };
        policies.into_iter().enumerate().map(policy).collect::<Vec<Policy>>()
    });
    let signals = prop::collection::vec(
        any::<bool>().prop_map(|up_only| Signal { metric: Metric::Cpu, target: Target::Utilization(0.5), up_only }),
        0..2,
    );
    let rest = (0u32..6, 6u32..15, prop::option::of(1.0f64..3.0), prop::option::of(1u32..20), 0.2f64..1.0);
    (mode, policies, signals, any_rules(), any_rules(), rest).prop_map(|(mode, policies, signals, up, down, rest)| {
        let (min, max, max_step_up, max_changes_per_hour, max_step_down) = rest;
        let mut settings = settings();
        settings.verify.freeze = 60.0;
        Settings {
            mode,
            min,
            max,
            policies,
            signals,
            up,
            down,
            max_step_up,
            max_changes_per_hour,
            max_step_down,
            ..settings
        }
    })
}

fn any_story() -> impl Strategy<Value = Story> {
    let flags = (prop::bool::weighted(0.9), prop::bool::weighted(0.05), prop::bool::weighted(0.03));
    let numbers = (0u32..16, 0u32..16, 0.0f64..30.0, prop_oneof![4 => Just(0.0), 1 => 0.0f64..1.0]);
    let second = (numbers, flags, prop::option::of(0.0f64..1.0)).prop_map(|(numbers, flags, cpu)| {
        let ((up, down, errors, wait), (complete, blocked, died)) = (numbers, flags);
        Second { up, down, complete, blocked, errors, wait, cpu, died }
    });
    let seconds = prop::collection::vec(second, 1..150);
    (any_settings(), seconds).prop_map(|(settings, seconds)| Story { settings, seconds })
}

/// Runs a story and holds each decision against the laws: what was wanted before it, what was seen, what was decided.
fn run(
    story: &Story,
    mut law: impl FnMut(&World, u32, &Decision) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let mut world = World::new(story.settings.min.max(3), story.settings.clone());
    let mut size = world.seen.current();
    for (index, second) in story.seconds.iter().enumerate() {
        if second.died && index > 0 {
            world.seen.instances.pop();
        }
        world.seen.complete = second.complete;
        world.seen.start_blocked = second.blocked;
        (world.seen.completions, world.seen.errors) = (100.0, second.errors);
        world.seen.oldest_wait = second.wait;
        world.seen.cpu = second.cpu;
        let (up, there) = (second.up, world.seen.current());
        let acts = world.settings.mode != Mode::DryRun;
        if !acts {
            size = there;
        }
        let decision = world.second(up, second.down.max(up).min(there.max(up)));
        law(&world, size, &decision)?;
        if acts {
            size = decision.desired;
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn bounds_hold(story in any_story()) {
        run(&story, |world, _, decision| {
            let Settings { min, max, mode, .. } = world.settings;
            prop_assert!(decision.desired >= min);
            let most = if mode == Mode::UpOnly { max.max(decision.current) } else { max };
            prop_assert!(decision.desired <= most);
            prop_assert!(decision.cordon <= decision.current.saturating_sub(min));
            Ok(())
        })?;
    }

    #[test]
    fn nothing_goes_for_want_of_data(story in any_story()) {
        run(&story, |world, size, decision| {
            let unknown = !world.seen.complete
                || world.seen.cpu.is_none() && world.settings.signals.iter().any(|signal| !signal.up_only);
            if unknown && !decision.rollback {
                prop_assert!(decision.desired >= size.min(world.settings.max), "{size} {decision:?}");
            }
            if !world.seen.complete {
                prop_assert!(!decision.rollback && decision.cordon == 0);
            }
            Ok(())
        })?;
    }

    #[test]
    fn the_largest_wish_counts(story in any_story()) {
        run(&story, |_, _, decision| {
            let largest = decision.sources.iter().filter_map(|source| source.wants).max();
            prop_assert_eq!(Some(decision.wanted), largest);
            prop_assert!(decision.sources.iter().all(|source| !source.why.is_empty()));
            Ok(())
        })?;
    }

    #[test]
    fn every_difference_has_its_limit(story in any_story()) {
        run(&story, |_, _, decision| {
            let turns = decision.limits.iter().filter(|limit| limit.name != "hold");
            let mut at = decision.wanted;
            for limit in turns {
                prop_assert_eq!(limit.from, at);
                prop_assert!(limit.to != limit.from);
                at = limit.to;
            }
            prop_assert_eq!(at, decision.desired);
            Ok(())
        })?;
    }

    #[test]
    fn no_period_sees_more_than_its_pace(story in any_story(), amount in 1u32..4) {
        let mut story = story;
        let pace = |amount| format!("{amount}/30s").parse().unwrap();
        (story.settings.up.policies, story.settings.down.policies) = (vec![pace(amount)], vec![pace(amount)]);
        (story.settings.up.select, story.settings.down.select) = (Select::Max, Select::Max);
        let mut sizes: Vec<(f64, u32, bool)> = Vec::new();
        run(&story, |world, size, decision| {
            if sizes.is_empty() {
                sizes.push((0.0, size, false));
            }
            let begin = sizes.iter().rev().find(|(at, ..)| *at <= world.now - 30.0).map_or(size, |(_, size, _)| *size);
            let young = sizes.iter().filter(|(at, ..)| *at > world.now - 30.0);
            // Bounds, rollbacks and the first one of a sleeping pool are above the pace.
            let free = decision.rollback || young.clone().any(|(.., rollback)| *rollback);
            let free = free || decision.limits.iter().any(|limit| limit.name == "min" || limit.name == "max") || size == 0;
            if !free && world.settings.mode != Mode::DryRun {
                prop_assert!(decision.desired <= size.max(begin + amount), "{begin} {size} {decision:?}");
                prop_assert!(decision.desired >= size.min(begin.saturating_sub(amount)), "{begin} {size} {decision:?}");
            }
            sizes.push((world.now, decision.desired, free));
            Ok(())
        })?;
    }

    #[test]
    fn a_rollback_ends(story in any_story()) {
        let mut back = 0;
        run(&story, |_, _, decision| {
            // One decision takes it back; it is not taken back again and again.
            back = if decision.rollback { back + 1 } else { 0 };
            prop_assert!(back <= 1);
            Ok(())
        })?;
    }

    #[test]
    fn up_only_removes_nothing(story in any_story()) {
        let mut story = story;
        story.settings.mode = Mode::UpOnly;
        run(&story, |_, _, decision| {
            prop_assert!(decision.desired >= decision.current);
            Ok(())
        })?;
    }

    #[test]
    fn a_policy_rests_between_two_asks(story in any_story()) {
        let mut fired: Option<f64> = None;
        let Some(policy) = story.settings.policies.first().cloned() else { return Ok(()) };
        run(&story, |world, _, decision| {
            let source = decision.sources.iter().find(|source| source.name == "policy:p0").unwrap();
            if source.why.ends_with(&format!(": {}", policy.adjust)) {
                prop_assert!(fired.is_none_or(|at| world.now - at >= policy.cooldown - 1e-6), "{}", source.why);
                fired = Some(world.now);
            }
            Ok(())
        })?;
    }

    #[test]
    fn memory_stays_small(story in any_story()) {
        let mut world = World::new(4, story.settings.clone());
        for turn in 0..4u32 {
            for second in &story.seconds {
                world.second(second.up + turn % 2, second.down);
            }
        }
        let text = serde_json::to_string(&world.memory).unwrap();
        prop_assert!(text.len() < 100_000, "{}", text.len());
    }
}
