//! What a simulator must get right before anybody believes it: Erlang's formula, Little's law, and that everybody gets the same load.

use super::random::Random;
use super::*;

/// The chance that a request has to wait where `servers` take a load of so many erlangs.
fn erlang_c(servers: u32, load: f64) -> f64 {
    let blocked = (1..=servers).fold(1.0, |blocked, count| load * blocked / (f64::from(count) + load * blocked));
    blocked / (1.0 - load / f64::from(servers) * (1.0 - blocked))
}

/// A Poisson stream of requests whose demand is exponential with mean 100 ms.
fn markov(rate: f64, seconds: f64, seed: u64) -> Workload {
    let mut random = Random::new(seed);
    let mut at = 0.0;
    let next = || {
        at += random.exponential() / rate;
        Some(Request { at, demand: 0.1 * random.exponential() })
    };
    Workload::of_requests(std::iter::from_fn(next).take_while(|request| request.at < seconds).collect())
}

#[test]
fn waiting_is_as_erlang_has_it() {
    let world = World { first: 10, slack: 0.1, queue_timeout: 1e9, ..World::default() };
    for (rate, tolerance) in [(340.0, 0.25), (370.0, 0.12)] {
        let load = markov(rate, 2000.0, 5);
        let outcome = run(&load, &world, &mut Fixed(10));
        let waits = erlang_c(40, rate * 0.1);
        let late = 100.0 * waits * (-(40.0 - rate * 0.1)).exp();
        let measured = outcome.violations();
        let near = (measured - late).abs() <= (late * 2.0 * tolerance).max(0.05);
        assert!(near, "at {rate} a second {measured:.4} % waited longer than 100 ms, and should have been {late:.4} %");
        assert_eq!(outcome.dropped, 0);
    }
}

#[test]
fn requests_in_progress_are_rate_times_service_time() {
    struct Littles(f64, f64);
    impl Contestant for Littles {
        fn name(&self) -> String {
            "counts".to_owned()
        }
        fn wants(&mut self, view: &View<'_>) -> Option<u32> {
            self.0 += view.seen.in_flight;
            self.1 += view.seen.held;
            None
        }
    }
    let load = markov(200.0, 500.0, 3);
    for world in [World { first: 10, ..World::default() }, World { first: 8, slots: 16, ..World::default() }] {
        let mut counts = Littles(0.0, 0.0);
        run(&load, &world, &mut counts);
        assert!((counts.0 / counts.1 - 1.0).abs() < 0.002, "{} in progress, {} held", counts.0, counts.1);
        if world.slots == 4 {
            let offered: f64 = load.requests.iter().map(|request| request.demand).sum();
            assert!((counts.0 / offered - 1.0).abs() < 0.002, "{} in progress, {offered} asked for", counts.0);
        }
    }
}

#[test]
fn nothing_is_lost_or_made_of_nothing() {
    let load = Workload::of_rates(&[100.0; 60], Service::default(), 1);
    let outcome = run(&load, &World { first: 10, ..World::default() }, &mut Fixed(10));
    assert_eq!(outcome.requests, load.requests.len() as u64);
    assert!((outcome.instance_hours - 10.0 / 60.0).abs() < 1e-9);
    let demand: f64 = load.requests.iter().map(|request| request.demand).sum();
    // What is still in progress at the end is not done.
    assert!((outcome.busy_hours * 3600.0 * 4.0 - demand).abs() < 5.0);
    assert_eq!(outcome, run(&load, &World { first: 10, ..World::default() }, &mut Fixed(10)));
}

#[test]
fn requests_wait_for_an_instance_and_give_up() {
    let load = Workload::of_requests(vec![Request { at: 0.5, demand: 0.1 }, Request { at: 14.0, demand: 0.1 }]);
    let world = World { min: 0, first: 0, startup: 14.5, startup_jitter: 0.0, ..World::default() };
    let outcome = run(&load, &world, &mut Fixed(1));
    assert_eq!((outcome.requests, outcome.dropped, outcome.starts), (2, 1, 1));
}

#[test]
fn recordings_play_again() {
    let step = |at: f64, arrivals| Step { at, span: 10.0, arrivals, service_time: Some(0.05) };
    let load = Workload::of_steps(&[step(1010.0, 100.0), step(1020.0, 0.0), step(1030.0, 300.0)], 0.0, 1);
    assert_eq!((load.requests.len(), load.seconds), (400, 30));
    assert_eq!(load.requests.iter().filter(|request| request.at < 10.0).count(), 100);
    assert!(load.requests.iter().all(|request| request.demand == 0.05 && request.at < 30.0));
}
