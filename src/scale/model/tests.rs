//! Each rule of the load model by a small story, and what must hold whatever is seen.

use proptest::prelude::*;

use super::*;
use crate::scale::{Headroom, Instance, Profile, State, decide};

/// A pool whose requests take 100 ms, four at once on each instance.
struct Pool {
    model: Model,
    settings: Settings,
    now: f64,
    ready: u32,
}

impl Pool {
    fn new() -> Self {
        let settings = Settings { max: 40, capacity: Capacity::Fixed(4.0), ..Settings::of_profile(Profile::Balanced) };
        Pool { model: Model::default(), settings, now: 1e9, ready: 2 }
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut pool = Pool::new();
        change(&mut pool.settings);
        pool
    }

    fn seen(&self, rate: f64) -> Observed {
        let ready = Instance { phase: Phase::Ready, age: 1000.0 };
        Observed {
            span: 1.0,
            arrivals: rate,
            completions: rate,
            held: rate * 0.1,
            in_flight: rate * 0.1,
            instances: vec![ready; self.ready as usize],
            complete: true,
            ..Observed::default()
        }
    }

    fn see(&mut self, seen: &Observed) -> Proposal {
        self.now += 1.0;
        self.model.step(seen, &self.settings, self.now)
    }

    /// So many seconds of so many requests each; whatever is wanted is there at once.
    fn serve(&mut self, rate: f64, seconds: usize) -> Proposal {
        let mut last = Proposal::default();
        for _ in 0..seconds {
            last = self.see(&self.seen(rate));
            self.ready = if last.up > self.ready { last.up } else { last.down.min(self.ready) };
        }
        last
    }
}

#[test]
fn the_load_is_rate_times_service_time_and_room_is_for_noise() {
    let last = Pool::new().serve(200.0, 400);
    assert!((last.terms.level - 20.0).abs() < 0.01 && (last.terms.service_time - 0.1).abs() < 1e-6);
    assert!((5..=7).contains(&last.up), "20 erlangs on instances of 4: {}", last.up);
    assert_eq!(last.reason, "level");
}

#[test]
fn a_jump_is_believed_within_two_seconds_and_noise_is_not() {
    let mut pool = Pool::new();
    pool.serve(100.0, 60);
    let steady = pool.serve(110.0, 2);
    assert_eq!(steady.terms.window, 32.0, "10 % more for two seconds is noise");
    let jump = pool.serve(400.0, 2);
    assert!(jump.terms.window <= 2.0 && jump.terms.surprise > 3.0, "{:?}", jump.terms);
    assert!(jump.terms.level > 35.0);
}

#[test]
fn a_rise_is_carried_on_over_the_start_up_time_and_a_jump_is_not() {
    let mut pool = Pool::with(|settings| settings.first_lead = 30.0);
    pool.serve(100.0, 60);
    let rise = (0..60).fold(Proposal::default(), |_, second| pool.serve(100.0 + 4.0 * f64::from(second), 1));
    assert!(rise.terms.trend > 4.0, "4 more a second for 30 s are 12 erlangs, damped: {:?}", rise.terms);
    assert_eq!(rise.reason, "trend");
    pool.serve(340.0, 60);
    pool.serve(600.0, 15);
    let jumped = pool.serve(600.0, 1).terms.trend;
    assert!(jumped < 8.0, "a jump of 26 erlangs went on as {jumped}");
    let mut blind = Pool::with(|settings| settings.trend = false);
    blind.serve(100.0, 60);
    assert!((0..60).all(|second| blind.serve(100.0 + 4.0 * f64::from(second), 1).terms.trend == 0.0));
}

#[test]
fn what_is_not_needed_is_kept_for_the_hold_and_then_goes_by_halves() {
    let mut pool = Pool::new();
    pool.serve(300.0, 700);
    let many = pool.ready;
    let quiet = pool.serve(10.0, 45);
    assert_eq!((pool.ready, quiet.held_by), (many, Some("hold")));
    assert!(
        quiet.soon < many && quiet.next_down_at.is_some_and(|at| at > pool.now && at < pool.now + 90.0),
        "{quiet:?}"
    );
    let mut least_left: f64 = 1.0;
    for _ in 0..200 {
        let before = pool.ready;
        pool.serve(10.0, 1);
        least_left = least_left.min(f64::from(pool.ready) / f64::from(before));
    }
    assert!(least_left >= 0.5 && pool.ready <= 2, "{least_left} at least were left, {} are", pool.ready);
}

#[test]
fn nothing_goes_while_somebody_waits_or_starts_fail_or_something_is_missing() {
    type Trouble = fn(&mut Observed);
    let troubles: [(&str, Trouble); 5] = [
        ("queue", |seen| seen.queue = 1.0),
        ("queue", |seen| seen.oldest_wait = 0.2),
        ("start_failures", |seen| seen.start_failures = 1),
        ("incomplete", |seen| seen.complete = false),
        ("incomplete", |seen| seen.span = 0.0),
    ];
    for (name, trouble) in troubles {
        let mut pool = Pool::new();
        pool.ready = 20;
        for _ in 0..1000 {
            let mut seen = pool.seen(10.0);
            trouble(&mut seen);
            let last = pool.see(&seen);
            assert!(last.down >= 20 && last.soon >= 20 && last.held_by == Some(name), "{name}: {last:?}");
        }
        assert!(pool.serve(10.0, 200).down < 20, "{name} is over");
    }
}

#[test]
fn a_gap_or_a_silent_peer_is_no_drop() {
    let mut pool = Pool::new();
    let before = pool.serve(300.0, 200);
    pool.now += 3600.0;
    let after = pool.serve(300.0, 1);
    assert_eq!((after.up, after.down), (before.up, before.down));
    // Half of the proxies say nothing.
    for _ in 0..120 {
        let partial = Observed { complete: false, ..pool.seen(150.0) };
        let last = pool.see(&partial);
        assert!(last.down >= pool.ready && last.terms.level > 29.0, "{last:?}");
    }
}

#[test]
fn spans_may_be_of_any_length() {
    let mut pool = Pool::new();
    let mut last = Proposal::default();
    for step in 0..300 {
        let span = [0.3, 0.7, 2.0, 1.1][step % 4];
        pool.now += span - 1.0;
        let second = pool.seen(200.0);
        let seen = Observed { span, arrivals: 200.0 * span, completions: 200.0 * span, held: 20.0 * span, ..second };
        last = pool.see(&seen);
    }
    assert!((last.terms.rate - 200.0).abs() < 0.1 && (5..=7).contains(&last.terms.base), "{last:?}");
}

#[test]
fn a_backlog_asks_for_more_and_what_is_starting_counts() {
    let mut pool = Pool::new();
    pool.serve(80.0, 100);
    let calm = pool.model.clone();
    let waiting = Observed { queue: 500.0, oldest_wait: 3.0, ..pool.seen(80.0) };
    let boosted = pool.see(&waiting);
    assert_eq!(boosted.reason, "backlog");
    assert!(boosted.up > boosted.terms.base && boosted.terms.backlog > 0.0, "{boosted:?}");
    pool.model = calm;
    let mut helped = waiting.clone();
    helped.instances.extend(vec![Instance { phase: Phase::Starting, age: 9.0 }; 8]);
    assert!(pool.see(&helped).terms.backlog <= boosted.terms.backlog);
}

#[test]
fn errors_of_the_forecast_make_room_where_they_were_made() {
    let mut pool = Pool::with(|settings| settings.periods = false);
    for second in 0..1500 {
        pool.serve(if second % 60 < 15 { 300.0 } else { 20.0 }, 1);
    }
    let low = pool.serve(20.0, 40).terms;
    assert!(low.error > 15.0, "bursts come when little is expected: {low:?}");
    let high = pool.serve(300.0, 12).terms;
    assert!(high.error < 10.0, "no burst is on top of the burst: {high:?}");
}

#[test]
fn what_is_always_needed_back_is_kept_longer() {
    let mut pool = Pool::with(|settings| settings.headroom = Headroom { quantile: None, beta: 1.0 });
    pool.settings.periods = false;
    let cycle = |pool: &mut Pool| {
        pool.serve(300.0, 60);
        pool.serve(10.0, 110);
        pool.ready
    };
    pool.serve(300.0, 600);
    let first = cycle(&mut pool);
    let later = (0..5).map(|_| cycle(&mut pool)).last().unwrap();
    assert!(first <= 2 && later >= 8, "{first}, then {later}");
}

#[test]
fn a_period_is_found_and_capacity_is_there_before() {
    let mut pool = Pool::with(|settings| settings.headroom = Headroom { quantile: None, beta: 1.0 });
    let rate = |second: usize| if second % 300 < 60 { 300.0 } else { 10.0 };
    for second in 0..1500 {
        pool.serve(rate(second), 1);
    }
    let just_before = (1500..1797).fold(Proposal::default(), |_, second| pool.serve(rate(second), 1));
    assert!((just_before.terms.period - 300.0).abs() < 10.0, "{:?}", just_before.terms);
    assert!(just_before.up >= 8 && just_before.reason == "period", "{just_before:?}");
    let mut blind = Pool::with(|settings| settings.periods = false);
    for second in 0..1797 {
        blind.serve(rate(second), 1);
    }
    assert_eq!(blind.serve(10.0, 1).terms.period, 0.0);
}

#[test]
fn a_known_season_is_a_floor() {
    let mut pool = Pool::with(|settings| (settings.seasonal, settings.periods) = (vec![1200.0], false));
    let rate = |now: f64| if now.rem_euclid(1200.0) < 120.0 { 300.0 } else { 20.0 };
    while pool.now < 1e9 + 3600.0 || pool.now.rem_euclid(1200.0) < 1190.0 {
        pool.serve(rate(pool.now), 1);
    }
    let before = pool.serve(20.0, 1);
    assert!(before.terms.season > 15.0 && before.up >= 5 && before.reason == "season", "{before:?}");
}

#[test]
fn capacity_is_where_requests_begin_to_slow_down() {
    let mut pool = Pool::with(|settings| settings.capacity = Capacity::Learned { most: 16.0 });
    pool.ready = 4;
    for second in 0..600 {
        let concurrency = 0.5 + f64::from(second % 60) / 6.0;
        let time = 0.1 * f64::max(1.0, concurrency / 4.0);
        let in_flight = 4.0 * concurrency;
        let done = in_flight / time;
        let seen = Observed { arrivals: done, completions: done, held: in_flight, in_flight, ..pool.seen(0.0) };
        pool.see(&seen);
    }
    let last = pool.see(&pool.seen(100.0)).terms;
    assert!(last.learned && (4.0..=6.0).contains(&last.capacity), "{last:?}");
    assert!((last.service_time - 0.1).abs() < 0.01);
}

#[test]
fn the_start_up_time_is_the_ninetieth_percentile_of_the_last_twenty() {
    let mut pool = Pool::with(|settings| settings.first_lead = 7.0);
    assert_eq!(pool.serve(10.0, 1).terms.lead, 7.0);
    let seen = Observed { started: (0..30).map(f64::from).collect(), ..pool.seen(10.0) };
    assert!((pool.see(&seen).terms.lead - 27.1).abs() < 0.01);
}

#[test]
fn a_pool_sleeps_when_nobody_comes_and_wakes_at_once() {
    let mut pool = Pool::with(|settings| (settings.min, settings.wake_to) = (0, 2));
    pool.serve(20.0, 60);
    let idle = pool.serve(0.0, 299);
    assert!(idle.down >= 1 && pool.ready >= 1, "{idle:?}");
    let asleep = pool.serve(0.0, 3);
    assert_eq!((asleep.up, asleep.reason, pool.ready), (0, "idle", 0));
    assert_eq!(pool.serve(0.0, 1000).up, 0);
    let waking = Observed { arrivals: 1.0, queue: 1.0, ..pool.seen(0.0) };
    let woken = pool.see(&waking);
    assert_eq!((woken.up, woken.reason), (2, "wake"));
    pool.ready = 2;
    let open_stream = Observed { streams: 1.0, ..pool.seen(0.0) };
    assert!((0..1000).all(|_| pool.see(&open_stream).down >= 1), "a stream is something to do");
}

#[test]
fn the_unhealthy_are_made_up_for() {
    let mut pool = Pool::new();
    let well = pool.serve(200.0, 300).up;
    let mut seen = pool.seen(200.0);
    seen.instances[0].phase = Phase::Unhealthy;
    assert_eq!(pool.see(&seen).up, well + 1);
    assert_eq!(pool.serve(200.0, 1).up, well);
}

#[test]
fn what_is_remembered_is_small_and_reads_back() {
    let mut pool = Pool::with(|settings| settings.seasonal = vec![86400.0, 604800.0]);
    for second in 0..4000 {
        pool.serve(100.0 + f64::from(second % 77), 1);
    }
    let text = serde_json::to_string(&pool.model).unwrap();
    assert!(text.len() < 60_000, "{} bytes", text.len());
    let mut read: Model = serde_json::from_str(&text).unwrap();
    for second in 0..300 {
        let seen = pool.seen(f64::from(second));
        let now = pool.now + f64::from(second) + 1.0;
        assert_eq!(read.step(&seen, &pool.settings, now).up, pool.model.step(&seen, &pool.settings, now).up);
    }
}

/// Anything that a driver, a peer or a clock could come up with.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        8 => 0.0..500.0,
        1 => Just(0.0),
        1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(-1.0), Just(1e300)],
    ]
}

prop_compose! {
    fn observed()(
        numbers in prop::array::uniform8(number()),
        span in prop_oneof![4 => Just(1.0), 1 => number()],
        phases in prop::collection::vec((0..4_usize, number()), 0..12),
        started in prop::collection::vec(number(), 0..3),
        (complete, blocked) in (prop::bool::weighted(0.9), prop::bool::weighted(0.05)),
    ) -> Observed {
        let [arrivals, completions, held, in_flight, queue, oldest_wait, saturated, streams] = numbers;
        let phase = |index| [Phase::Starting, Phase::Ready, Phase::Unhealthy, Phase::Draining][index];
        let instances = phases.into_iter().map(|(index, age)| Instance { phase: phase(index), age }).collect();
        let queue = if queue > 100.0 { 0.0 } else { queue };
        Observed {
            span, arrivals, completions, held, in_flight, queue, oldest_wait, saturated, streams, instances, started,
            start_blocked: blocked, complete, ..Observed::default()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_is_seen_the_bounds_hold_and_numbers_are_numbers(
        steps in prop::collection::vec((observed(), number()), 1..120),
        (min, more) in (0..5_u32, 0..30_u32),
        learned in any::<bool>(),
    ) {
        let capacity = if learned { Capacity::Learned { most: 16.0 } } else { Capacity::Fixed(4.0) };
        let settings = Settings { min, max: (min + more).max(1), capacity, ..Settings::of_profile(Profile::Balanced) };
        let (mut model, mut now) = (Model::default(), 1e9);
        for (seen, pause) in steps {
            now += if pause > 490.0 { pause } else { 1.0 };
            let last = model.step(&seen, &settings, now);
            let bounds = settings.min..=settings.max;
            prop_assert!(bounds.contains(&last.up) && bounds.contains(&last.down) && last.soon <= settings.max.max(seen.current()));
            let terms = serde_json::to_value(&last.terms).unwrap();
            prop_assert!(terms.as_object().unwrap().values().all(|value| !value.is_null()), "{terms}");
            let held = seen.queue > 0.0 || !seen.complete || seen.start_blocked;
            prop_assert!(!held || last.down >= seen.current().min(settings.max), "{last:?}");
            let text = serde_json::to_string(&model).unwrap();
            prop_assert!(serde_json::from_str::<Model>(&text).is_ok(), "{text}");
        }
    }

    #[test]
    fn more_load_never_asks_for_fewer(rates in prop::collection::vec(0.0..300.0, 40..200), factor in 1.3..3.0) {
        let (mut one, mut more) = (Pool::new(), Pool::new());
        let last = rates.iter().map(|rate| (one.serve(*rate, 1), more.serve(*rate * factor, 1))).last().unwrap();
        prop_assert!(last.1.terms.base + 1 >= last.0.terms.base, "{:?} and {:?}", last.0.terms, last.1.terms);
    }

    #[test]
    fn who_reads_its_state_back_decides_the_same(rates in prop::collection::vec(0.0..300.0, 2..150), at in 1..100_usize) {
        let pool = Pool::new();
        let (mut kept, mut read) = (State::default(), State::default());
        for (second, rate) in rates.iter().enumerate() {
            let (seen, now) = (pool.seen(*rate), 1e9 + second as f64);
            if second == at {
                read = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
            }
            let (a, b) = (decide(&seen, &mut kept, &pool.settings, now), decide(&seen, &mut read, &pool.settings, now));
            prop_assert_eq!((a.desired, a.raw, a.reason), (b.desired, b.raw, b.reason));
        }
    }
}
