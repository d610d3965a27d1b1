//! What the scaler is measured by, held on traces that are short enough for every change: `cargo bench --bench scale` has all of them.

#[allow(dead_code)]
#[path = "../benches/suite/mod.rs"]
mod suite;

use suite::{Case, Means, Shape};
use tidegate::scale::sim::{Contestant, Hpa, Kpa, Outcome};
use tidegate::scale::{Profile, Settings};

fn ours(case: &Case) -> Outcome {
    case.play(&mut case.ours(Profile::Balanced))
}

fn check(trace: &str, outcome: &Outcome, violations: f64, over: f64) {
    let (measured, used) = (outcome.violations(), outcome.over());
    assert!(measured <= violations, "{trace}: {measured:.2} % late or lost, {violations} % allowed; {outcome:?}");
    assert!(used <= over, "{trace}: {used:.2} times the hours, {over} allowed; {outcome:?}");
}

#[test]
fn conversations_with_a_language_model() {
    let case = Case::new("azllm", 10.0, 1, Shape::Told);
    check("azllm", &ours(&case), 1.0, 2.25);
    // Told 16 at once, really 4: found out by itself.
    let case = Case::new("azllm", 10.0, 1, Shape::Shared);
    check("azllm, shared", &ours(&case), 2.0, 2.6);
}

#[test]
fn traffic_that_goes_on_and_off() {
    let case = Case::new("onoff", 10.0, 1, Shape::Told);
    let outcome = ours(&case);
    check("onoff", &outcome, 0.3, 3.05);
    assert!(outcome.reversals_per_hour() < 15.0, "{outcome:?}");
}

#[test]
fn a_saw_whose_teeth_last_two_minutes() {
    let outcome = ours(&Case::new("saw", 10.0, 1, Shape::Told));
    check("saw", &outcome, 0.3, 2.35);
    assert!(outcome.reversals_per_hour() < 15.0, "{outcome:?}");
}

#[test]
fn flash_crowds_are_no_worse_than_with_knative_at_half_the_hours() {
    let case = Case::new("flash", 10.0, 1, Shape::Told);
    let (outcome, tuned) = (ours(&case), case.play(&mut Kpa::tuned()));
    check("flash", &outcome, tuned.violations() + 1.0, tuned.over() / 1.8);
}

#[test]
fn a_day_of_a_load_balancer_that_nothing_was_tuned_on() {
    let mut case = Case::new("elb-later", 10.0, 1, Shape::Told);
    shorten(&mut case, 2400);
    check("elb-later", &ours(&case), 0.4, 2.6);
}

#[test]
fn capacity_that_nobody_told_rightly() {
    let mut case = Case::new("step", 10.0, 1, Shape::Shared);
    shorten(&mut case, 1400);
    check("step, shared", &ours(&case), 2.2, 2.6);
}

#[test]
fn the_profiles_differ_as_their_names_say() {
    let case = Case::new("azllm", 5.0, 1, Shape::Told);
    let [fast, balanced, calm] =
        [Profile::Fast, Profile::Balanced, Profile::Calm].map(|profile| case.play(&mut case.ours(profile)));
    assert!(fast.over() < balanced.over() && balanced.over() < calm.over(), "{fast:?} {balanced:?} {calm:?}");
    assert!(calm.reversals <= balanced.reversals && balanced.reversals <= fast.reversals);
}

#[test]
fn ours_costs_less_than_others_where_as_much_is_answered_in_time() {
    let case = Case::new("azllm", 10.0, 2, Shape::Told);
    let others: [Box<dyn Contestant>; 3] =
        [Box::new(Hpa::concurrency(0.7)), Box::new(Hpa::cpu(0.7)), Box::new(Kpa::new(0.7))];
    let mine = ours(&case);
    for mut other in others {
        let theirs = case.play(&mut *other);
        assert!(mine.violations() < theirs.violations() || mine.over() < theirs.over(), "{mine:?} and {theirs:?}");
    }
    assert!(Means::of([&mine]).violations < 1.0);
}

#[test]
fn settings_of_profiles_are_sane() {
    for profile in [Profile::Fast, Profile::Balanced, Profile::Calm] {
        let settings = Settings::of_profile(profile);
        let text = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<Settings>(&text).unwrap(), settings);
        assert!(settings.hold.min <= settings.hold.max && settings.min <= settings.max);
    }
}

/// Only its first seconds.
fn shorten(case: &mut Case, seconds: u32) {
    case.load.requests.retain(|request| request.at < f64::from(seconds));
    case.load.seconds = seconds;
}
