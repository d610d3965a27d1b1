//! The scaler compared with those of others: `cargo bench --bench scale`, or `cargo bench --bench scale -- quick` for one seed only.
//!
//! **Claim**: on the ten traces, at a start-up time of ten seconds, at most 1 % of all requests are late or lost at 2.1 times the
//! instance-hours that fully busy instances would need (real traces: 0.3 % at 2.0), which nobody else reaches at these hours; and what the
//! load model was never shaped on is no different. `tests/scale.rs` fails where a part of this no longer holds.

#[allow(dead_code)]
#[path = "suite/mod.rs"]
mod suite;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use suite::{Case, HELD_OUT, Maker, Means, OURS, REAL, SYNTHETIC, Shape, TUNED_KPA};
use tidegate::scale::sim::{Hpa, Kpa, Outcome, RayServe, StepPolicy, TargetTracking};
use tidegate::scale::{Capacity, Profile, Settings, sim::Ours};

const POLICIES: [Maker; 14] = [
    OURS,
    ("tidegate fast", |case| Box::new(case.ours(Profile::Fast))),
    ("tidegate calm", |case| Box::new(case.ours(Profile::Calm))),
    ("HPA CPU 70 %", |_| Box::new(Hpa::cpu(0.7))),
    ("HPA CPU 50 %", |_| Box::new(Hpa::cpu(0.5))),
    ("HPA concurrency 70 %", |_| Box::new(Hpa::concurrency(0.7))),
    ("HPA concurrency 50 %", |_| Box::new(Hpa::concurrency(0.5))),
    ("KPA 70 % (its defaults)", |_| Box::new(Kpa::new(0.7))),
    ("KPA 50 %", |_| Box::new(Kpa::new(0.5))),
    TUNED_KPA,
    ("AWS target tracking 50 %", |_| Box::new(TargetTracking::new(0.5))),
    ("Ray Serve 70 %", |_| Box::new(RayServe::new(0.7))),
    ("thresholds, minutes, steps", |_| Box::new(StepPolicy::default())),
    ("tidegate, no periods, no trend", |case| {
        Box::new(Ours::new(Settings { periods: false, trend: false, ..case.settings(Profile::Balanced) }))
    }),
];

const TWO: [Maker; 2] = [OURS, TUNED_KPA];

const WRONG_CAPACITY: [Maker; 5] = [
    OURS,
    ("tidegate, believes in 16", |case| {
        Box::new(Ours::new(Settings { capacity: Capacity::Fixed(16.0), ..case.settings(Profile::Balanced) }))
    }),
    ("HPA CPU 60 %", |_| Box::new(Hpa::cpu(0.6))),
    ("KPA 70 %, believes in 16", |_| Box::new(Kpa::new(0.7))),
    ("KPA 70 %, told the real 4", |_| Box::new(Kpa::new(0.175))),
];

/// By policy and trace.
type Table = BTreeMap<(usize, &'static str), Vec<Outcome>>;

struct Round<'a> {
    traces: Vec<&'static str>,
    startup: f64,
    shape: Shape,
    seeds: u64,
    policies: &'a [Maker],
}

impl Round<'_> {
    /// Everybody on every trace, on as many threads as there are cores.
    fn play(&self) -> Table {
        let cases: Vec<(&'static str, u64)> =
            self.traces.iter().flat_map(|trace| (1..=self.seeds).map(move |seed| (*trace, seed))).collect();
        let (next, table) = (AtomicUsize::new(0), Mutex::new(Table::new()));
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    while let Some((trace, seed)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let case = Case::new(trace, self.startup, *seed, self.shape);
                        for (place, (_, make)) in self.policies.iter().enumerate() {
                            let outcome = case.play(&mut *make(&case));
                            table.lock().expect("no thread panicked").entry((place, *trace)).or_default().push(outcome);
                        }
                    }
                });
            }
        });
        table.into_inner().expect("no thread panicked")
    }
}

fn main() {
    let begin = Instant::now();
    let seeds = if std::env::args().any(|argument| argument == "quick") { 1 } else { 3 };
    let tuned: Vec<&'static str> = SYNTHETIC.iter().chain(&REAL).copied().collect();
    let round = |traces: &[&'static str], startup, shape, policies| {
        Round { traces: traces.to_vec(), startup, shape, seeds, policies }.play()
    };
    println!(
        "Late or lost requests in percent, instance-hours over those of fully busy instances, starts and reversals an hour."
    );
    println!("Seeds 1 to {seeds}; each trace counts as much as any other.");

    let all = round(&tuned, 10.0, Shape::Told, &POLICIES);
    summary("Start-up 10 s", &all, &POLICIES, &tuned);
    each("Each trace, start-up 10 s", &all, &[0, 9], &POLICIES, &tuned);
    for startup in [2.0, 30.0] {
        let table = round(&tuned, startup, Shape::Told, &TWO);
        summary(&format!("Start-up {startup} s"), &table, &TWO, &tuned);
        each(&format!("Each trace, start-up {startup} s"), &table, &[0, 1], &TWO, &tuned);
    }
    let wrong = round(&tuned, 10.0, Shape::Shared, &WRONG_CAPACITY);
    summary("Told 16 at once, really 4 that are shared", &wrong, &WRONG_CAPACITY, &tuned);
    let compared: Vec<Maker> = [0, 2, 3, 5, 6, 7, 9].map(|place| POLICIES[place]).to_vec();
    let held_out = round(&HELD_OUT, 10.0, Shape::Told, &compared);
    summary("Held out", &held_out, &compared, &HELD_OUT);
    each("Each trace that was held out", &held_out, &[0, 4, 6], &compared, &HELD_OUT);
    println!("\n{:.0} s", begin.elapsed().as_secs_f64());
}

fn summary(title: &str, table: &Table, policies: &[Maker], traces: &[&'static str]) {
    println!("\n## {title}\n");
    println!("| policy | REAL viol | over | starts/h | rev/h | ALL viol | over | starts/h | rev/h | p99 s |");
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (place, (name, _)) in policies.iter().enumerate() {
        let means = |only: &dyn Fn(&str) -> bool| {
            Means::of(
                traces.iter().filter(|trace| only(trace)).filter_map(|trace| table.get(&(place, *trace))).flatten(),
            )
        };
        let (real, all) = (means(&|trace| REAL.iter().any(|real| trace.starts_with(real))), means(&|_| true));
        println!("| {name} | {} | {} | {:.2} |", cells(&real), cells(&all), all.p99.min(99.0));
    }
}

fn each(title: &str, table: &Table, places: &[usize], policies: &[Maker], traces: &[&'static str]) {
    println!("\n## {title}\n");
    let names: Vec<&str> = places.iter().map(|place| policies[*place].0).collect();
    println!("| trace | {} | over | starts/h | rev/h |", names.join(" | over | starts/h | rev/h | "));
    println!("|---|{}", "---|".repeat(4 * places.len()));
    for trace in traces {
        let means = places.iter().filter_map(|place| table.get(&(*place, *trace))).map(Means::of);
        println!("| {trace} | {} |", means.map(|means| cells(&means)).collect::<Vec<_>>().join(" | "));
    }
}

fn cells(means: &Means) -> String {
    format!("{:.2} | {:.2} | {:.0} | {:.1}", means.violations, means.over, means.starts, means.reversals)
}
