//! The workloads that scalers are compared on, and the comparison.
//!
//! [`TUNED`] are the ten that the load model was shaped on, [`HELD_OUT`] those that it was only tried on.

use tidegate::scale::sim::{Contestant, Hpa, Kpa, Ours, Outcome, Request, Service, Workload, World, run, traces};
use tidegate::scale::{Capacity, Profile, Settings};

const WORLD_CUP: &str = include_str!("../traces/wc98.csv");
const LOAD_BALANCER: &str = include_str!("../traces/elb.csv");
const LANGUAGE_MODEL: &str = include_str!("../traces/azllm_conv.csv");

pub(crate) const SYNTHETIC: [&str; 7] = ["step", "ramp", "diurnal", "flash", "saw", "noisy", "onoff"];
pub(crate) const REAL: [&str; 3] = ["wc98", "elb", "azllm"];
pub(crate) const HELD_OUT: [&str; 9] =
    ["wc98-night", "wc98-evening", "elb-later", "walk", "weekly", "crowds", "noisy-other", "onoff-5min", "bursts"];

/// A workload, and the world that it is played in.
pub(crate) struct Case {
    pub load: Workload,
    pub world: World,
}

/// How instances are.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Shape {
    /// They serve as many requests at once as everybody was told.
    Told,
    /// Everybody was told 16, and they serve four; more of them share these.
    Shared,
}

impl Case {
    pub(crate) fn new(trace: &str, startup: f64, seed: u64, shape: Shape) -> Case {
        let mut world = World { startup, seed, ..World::default() };
        let load = match trace {
            "azllm" => {
                world = World { startup: 2.0 * startup, slack: 1.0, queue_timeout: 60.0, ..world };
                conversations()
            }
            web => Workload::of_rates(&rates(web), Service::default(), seed),
        };
        if shape == Shape::Shared {
            world.slots = 16;
        }
        world.first = load.first_size(4.0);
        Case { load, world }
    }

    pub(crate) fn play(&self, contestant: &mut dyn Contestant) -> Outcome {
        run(&self.load, &self.world, contestant)
    }

    /// The settings that a pool in this world would have.
    pub(crate) fn settings(&self, profile: Profile) -> Settings {
        let slots = f64::from(self.world.slots);
        let capacity =
            if slots > self.world.cores { Capacity::Learned { most: slots } } else { Capacity::Fixed(slots) };
        let (min, max, first_lead) = (self.world.min, self.world.max, self.world.startup);
        Settings { min, max, capacity, first_lead, ..Settings::of_profile(profile) }
    }

    pub(crate) fn ours(&self, profile: Profile) -> Ours {
        Ours::new(self.settings(profile))
    }
}

fn rates(trace: &str) -> Vec<f64> {
    match trace {
        "step" => traces::step(),
        "ramp" => traces::ramp(),
        "diurnal" => traces::diurnal(4, 3),
        "flash" => traces::flash(3600),
        "saw" => traces::saw(),
        "noisy" => traces::noisy(9),
        "onoff" => traces::on_off(2400, 90, 90),
        "wc98" => world_cup(13, 4),
        "elb" => load_balancer(0, 288),
        "wc98-night" => world_cup(1, 4),
        "wc98-evening" => world_cup(17, 4),
        "elb-later" => load_balancer(2016, 288),
        "walk" => traces::walk(7200, 11),
        "weekly" => traces::weekly(9, 12),
        "crowds" => traces::crowded_sine(7200, 13),
        "noisy-other" => traces::noisy(21),
        "onoff-5min" => traces::on_off(3600, 60, 240),
        "bursts" => traces::bursts(7200, 14),
        other => panic!("there is no trace {other}"),
    }
}

/// Fields of a CSV file without quotes, its header left out.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().skip(1).map(|line| line.split(',').collect())
}

/// Hours of a day of the 1998 World Cup's site, so that its busiest second has 500 requests.
fn world_cup(hour: usize, hours: usize) -> Vec<f64> {
    let minutes: Vec<f64> = rows(WORLD_CUP).map(|row| row[1].parse().expect("a number")).collect();
    scaled(between(&minutes[hour * 60..(hour + hours) * 60], 60), 500.0, 0.0)
}

/// So many points of a load balancer's, five minutes each, played five times as fast.
fn load_balancer(first: usize, count: usize) -> Vec<f64> {
    let points: Vec<f64> = rows(LOAD_BALANCER).map(|row| row[1].parse().expect("a number")).collect();
    let slow = scaled(between(&points[first..first + count], 300), 400.0, 2.0);
    slow.into_iter().step_by(5).collect()
}

/// Seconds between points that are means over so many seconds.
fn between(points: &[f64], span: usize) -> Vec<f64> {
    let at = |second: usize| {
        let place = (second as f64 / span as f64 - 0.5).clamp(0.0, (points.len() - 1) as f64);
        let (left, share) = (place as usize, place.fract());
        points[left] + share * (points[(left + 1).min(points.len() - 1)] - points[left])
    };
    (0..points.len() * span).map(at).collect()
}

fn scaled(values: Vec<f64>, peak: f64, least: f64) -> Vec<f64> {
    let most = values.iter().copied().fold(0.0, f64::max);
    values.into_iter().map(|value| (value * peak / most).max(least)).collect()
}

/// Conversations with a language model: real arrivals; 0.2 ms for each token read and 20 ms for each written are assumed.
fn conversations() -> Workload {
    let seconds = |time: &str| {
        let part = |from: usize, to: usize| time[from..to].parse::<f64>().expect("digits");
        part(8, 10) * 86400.0
            + part(11, 13) * 3600.0
            + part(14, 16) * 60.0
            + time[17..].parse::<f64>().expect("seconds")
    };
    let tokens = |field: &str| field.trim().parse::<f64>().expect("a number");
    let request =
        |row: Vec<&str>| Request { at: seconds(row[0]), demand: 0.0002 * tokens(row[1]) + 0.02 * tokens(row[2]) };
    Workload::of_requests(rows(LANGUAGE_MODEL).map(request).collect())
}

/// Means over several runs, each trace counting as much as any other.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Means {
    pub violations: f64,
    pub over: f64,
    pub starts: f64,
    pub reversals: f64,
    pub p99: f64,
    pub drops: f64,
}

impl Means {
    pub(crate) fn of<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Means {
        let all: Vec<&Outcome> = outcomes.into_iter().collect();
        let mean =
            |value: fn(&Outcome) -> f64| all.iter().map(|each| value(each)).sum::<f64>() / all.len().max(1) as f64;
        Means {
            violations: mean(Outcome::violations),
            over: mean(Outcome::over),
            starts: mean(Outcome::starts_per_hour),
            reversals: mean(Outcome::reversals_per_hour),
            p99: mean(|outcome| outcome.p99),
            drops: mean(Outcome::drops),
        }
    }
}

/// Who is compared, and how each is made for a case.
pub(crate) type Maker = (&'static str, fn(&Case) -> Box<dyn Contestant>);

pub(crate) const OURS: Maker = ("tidegate balanced", |case| Box::new(case.ours(Profile::Balanced)));
pub(crate) const TUNED_KPA: Maker = ("KPA 60 % + 120 s (tuned)", |_| Box::new(Kpa::tuned()));
pub(crate) const HPA_CPU: Maker = ("HPA CPU 70 %", |_| Box::new(Hpa::cpu(0.7)));
