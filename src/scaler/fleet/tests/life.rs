//! One instance, and a few: how they come, fail and go.

use super::*;

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
