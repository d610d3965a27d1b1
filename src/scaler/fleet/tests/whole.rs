//! All of them at once: replacing, taking over, leading and following, counting.

use proptest::prelude::*;

use super::*;

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
