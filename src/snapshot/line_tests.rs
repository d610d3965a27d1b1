//! The line against a model of upstreams: whatever happens in whatever order, nobody waits for a slot that is free.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use smallvec::SmallVec;

use super::line::{Class, Line, Turn, Woken};
use crate::types::Moment;

const UPSTREAMS: u64 = 3;

#[derive(Debug, Clone, Copy)]
struct Upstream {
    max: u32,
    in_flight: u32,
    /// Who is stuck to it may use it; others may not.
    drains: bool,
}

#[derive(Debug, Clone)]
struct Waiter {
    class: Class,
    tried: SmallVec<[u64; 3]>,
    /// It joined with a turn that it has not had yet.
    first: Option<Turn>,
}

#[derive(Debug, Default)]
struct World {
    line: Line,
    upstreams: Vec<Upstream>,
    waiters: BTreeMap<u64, Waiter>,
    /// Woken, and not run since.
    awake: BTreeSet<u64>,
    /// Woken ever.
    called: BTreeSet<u64>,
    /// Upstreams whose slot has been given back, but the line has not been told.
    untold: Vec<u64>,
}

/// What may happen next; numbers choose among those that there are.
#[derive(Debug, Clone)]
enum Step {
    Comes(u8),
    Runs(usize),
    Leaves(usize),
    GivesBack(usize),
    IsTold(usize),
    Changes(u8),
}

fn step(stickies: bool) -> impl Strategy<Value = Step> {
    let classes = if stickies { 0..8u8 } else { 0..1u8 };
    // Less room can make a call stale, and then the next in line may be the quicker one.
    let changes = if stickies { 0..=255u8 } else { 0..=63u8 };
    prop_oneof![
        4 => classes.prop_map(Step::Comes),
        6 => any::<usize>().prop_map(Step::Runs),
        1 => any::<usize>().prop_map(Step::Leaves),
        4 => any::<usize>().prop_map(Step::GivesBack),
        4 => any::<usize>().prop_map(Step::IsTold),
        1 => changes.prop_map(Step::Changes),
    ]
}

impl World {
    fn new() -> Self {
        let upstreams = (1..=UPSTREAMS).map(|max| Upstream { max: max as u32, in_flight: 0, drains: false });
        World { upstreams: upstreams.collect(), ..World::default() }
    }

    fn wake(&mut self, woken: &Woken) {
        self.awake.extend(woken.iter().copied());
        self.called.extend(woken.iter().copied());
    }

    fn usable(&self, waiter: &Waiter) -> impl Iterator<Item = u64> {
        let one = |identity: &u64| match waiter.class {
            Class::Only(only) => *identity == only,
            Class::Any | Class::Again => !self.upstreams[*identity as usize].drains && !waiter.tried.contains(identity),
        };
        (0..UPSTREAMS).filter(one).collect::<Vec<_>>().into_iter()
    }

    /// As a pick does: enters the first that it may use and that has room.
    fn enter(&mut self, waiter: &Waiter, reserved: &[u64], from: u64) -> Option<u64> {
        let usable: Vec<u64> = self.usable(waiter).filter(|identity| !reserved.contains(identity)).collect();
        let start = usable.iter().position(|identity| *identity >= from).unwrap_or(0);
        let found = usable.iter().cycle().skip(start).take(usable.len()).copied().find(|identity| {
            let upstream = &self.upstreams[*identity as usize];
            upstream.in_flight < upstream.max
        })?;
        self.upstreams[found as usize].in_flight += 1;
        Some(found)
    }

    fn comes(&mut self, kind: u8, clock: u64) {
        let (class, tried) = match kind {
            0..=3 => (Class::Any, SmallVec::new()),
            4 => (Class::Again, SmallVec::from_slice(&[clock % UPSTREAMS])),
            _ => (Class::Only(u64::from(kind) - 5), SmallVec::new()),
        };
        let waiter = Waiter { class, tried, first: None };
        let shared = match class {
            Class::Only(only) => !self.upstreams[only as usize].drains,
            _ => true,
        };
        if let Some(reserved) = self.line.approach(class, shared)
            && self.enter(&waiter, &reserved, clock % UPSTREAMS).is_some()
        {
            return;
        }
        let mut woken = Woken::new();
        let (place, first) = self.line.join(class, shared, Moment::from_nanos(clock), &mut woken);
        self.wake(&woken);
        // Whoever has joined looks once before it sleeps.
        self.awake.insert(place);
        self.waiters.insert(place, Waiter { first, ..waiter });
    }

    /// Somebody who was woken has a turn; whoever is served is given back.
    fn runs(&mut self, place: u64, clock: u64) -> Option<u64> {
        self.awake.remove(&place);
        let mut waiter = self.waiters.get(&place)?.clone();
        // Who tries in vain looks once more whether it has been called meanwhile, before it sleeps.
        let looks_again = waiter.first.is_some();
        let turn = waiter.first.take().or_else(|| self.line.turn(place))?;
        self.waiters.insert(place, waiter.clone());
        let got = if turn.take { self.enter(&waiter, &turn.reserved, clock % UPSTREAMS) } else { None };
        let mut woken = Woken::new();
        match got {
            Some(identity) => {
                self.waiters.remove(&place);
                self.line.leave(place, Some(&turn), Some(identity), &mut woken);
            }
            None => {
                self.line.failed(place, &turn, &mut woken);
                self.awake.extend(looks_again.then_some(place));
            }
        }
        self.wake(&woken);
        got.map(|_| place)
    }

    fn leaves(&mut self, place: u64) {
        let Some(waiter) = self.waiters.remove(&place) else { return };
        self.awake.remove(&place);
        let mut woken = Woken::new();
        self.line.leave(place, waiter.first.as_ref(), None, &mut woken);
        self.wake(&woken);
    }

    fn told(&mut self, identity: u64) {
        let mut woken = Woken::new();
        self.line.call(identity, &mut woken);
        self.wake(&woken);
    }

    fn changes(&mut self, how: u8) {
        let upstream = &mut self.upstreams[usize::from(how % UPSTREAMS as u8)];
        match how {
            0..64 => upstream.max = (upstream.max + 1).min(4),
            64..128 => upstream.max = upstream.max % 3 + 1,
            _ => upstream.drains = !upstream.drains,
        }
        let mut woken = Woken::new();
        self.line.look(&mut woken);
        self.wake(&woken);
    }

    fn takes(&mut self, step: &Step, clock: u64) -> Option<u64> {
        match step {
            Step::Comes(kind) => self.comes(*kind, clock),
            Step::Runs(n) if !self.awake.is_empty() => {
                let place = *self.awake.iter().nth(n % self.awake.len())?;
                return self.runs(place, clock);
            }
            Step::Leaves(n) if !self.waiters.is_empty() => {
                let place = *self.waiters.keys().nth(n % self.waiters.len())?;
                self.leaves(place);
            }
            Step::GivesBack(n) => {
                let identity = n % UPSTREAMS as usize;
                if self.upstreams[identity].in_flight > 0 {
                    self.upstreams[identity].in_flight -= 1;
                    self.untold.push(identity as u64);
                }
            }
            Step::IsTold(n) if !self.untold.is_empty() => {
                let identity = self.untold.swap_remove(n % self.untold.len());
                self.told(identity);
            }
            Step::Changes(how) => self.changes(*how),
            _ => {}
        }
        None
    }

    /// Lets everything that is under way come to its end.
    fn settles(&mut self, mut clock: u64) {
        while let Some(identity) = self.untold.pop() {
            self.told(identity);
        }
        let mut turns = 0;
        while let Some(place) = self.awake.first().copied() {
            self.runs(place, clock);
            clock += 1;
            turns += 1;
            assert!(turns < 10_000, "they wake each other for ever");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn nobody_waits_for_a_slot_that_is_free(steps in prop::collection::vec(step(true), 1..120)) {
        let mut world = World::new();
        for (clock, step) in steps.iter().enumerate() {
            world.takes(step, clock as u64);
            if clock % 16 == 15 {
                world.settles(clock as u64);
                for (place, waiter) in &world.waiters {
                    for identity in world.usable(waiter) {
                        let upstream = world.upstreams[identity as usize];
                        prop_assert!(upstream.in_flight >= upstream.max, "{place} {waiter:?} waits, {identity} has room: {world:?}");
                    }
                }
            }
        }
        prop_assert_eq!(world.line.len(), world.waiters.len());
    }

    /// Where nobody is stuck to anything: who is served had nobody in front who was never called. But for two moments: a slot that is being given
    /// back, and room that has come with a new snapshot and has not been shown to all, go to whoever of those that were called looks first. Who was
    /// called and found the slot gone keeps its place, and is called before all behind it; those who are called already may still be quicker.
    #[test]
    fn first_come_first_served(steps in prop::collection::vec(step(false), 1..120)) {
        let mut world = World::new();
        for (clock, step) in steps.iter().enumerate() {
            let before = world.waiters.clone();
            let called = world.called.clone();
            let is_told = world.untold.is_empty() && !world.line.is_looking();
            if let Some(served) = world.takes(step, clock as u64) {
                let overtaken = before.keys().find(|place| **place < served && !called.contains(place));
                prop_assert!(overtaken.is_none() || !is_told, "{served} was served before {overtaken:?}");
            }
            if clock % 16 == 15 {
                world.settles(clock as u64);
            }
        }
    }
}

#[test]
fn a_newcomer_waits_behind_those_who_can_use_what_it_can_and_passes_those_who_cannot() {
    let mut line = Line::default();
    let start = Moment::from_nanos(1);
    assert!(line.approach(Class::Any, true).is_some(), "nobody waits");
    line.join(Class::Only(7), true, start, &mut Woken::new());
    assert_eq!(line.approach(Class::Any, true).as_deref(), Some(&[7][..]), "but not to the one that is waited for");
    assert!(line.approach(Class::Only(7), true).is_none());
    assert!(line.approach(Class::Only(8), true).is_some());
    line.join(Class::Any, true, start, &mut Woken::new());
    assert!(line.approach(Class::Any, true).is_none());
    assert!(line.approach(Class::Only(8), true).is_none(), "what comes free there is for the one in front");
    assert!(line.approach(Class::Only(8), false).is_some(), "only those who are stuck to it can use it");
    assert!(line.approach(Class::Again, true).is_some(), "it was here before all of them");
    assert_eq!((line.len(), line.oldest()), (2, Some(start)));
}

#[test]
fn a_call_goes_to_the_first_who_can_use_it() {
    let mut line = Line::default();
    let start = Moment::from_nanos(1);
    let (stuck, _) = line.join(Class::Only(7), true, start, &mut Woken::new());
    let (first, _) = line.join(Class::Any, true, start, &mut Woken::new());
    let (second, _) = line.join(Class::Any, true, start, &mut Woken::new());
    let (again, _) = line.join(Class::Again, true, start, &mut Woken::new());
    let mut called = |identity| {
        let mut woken = Woken::new();
        line.call(identity, &mut woken);
        woken.to_vec()
    };
    assert_eq!(called(8), [again], "it came before all of them");
    assert_eq!(called(8), [first]);
    assert_eq!(called(7), [stuck]);
    assert_eq!(called(7), [second]);
    assert!(called(7).is_empty(), "everybody has been called");
}
