use serde::{Deserialize, Serialize};

use super::{Adjust, Condition, Metric, Mode, Pace, Select, Target};

/// What the operator wants of one pool's scaler, every default and profile filled in.
///
/// **Units**: seconds, shares from 0 to 1. A change of them takes effect with the next decision; no window is reset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// What may be done.
    pub mode: Mode,
    /// The fewest.
    pub min: u32,
    /// The most.
    pub max: u32,
    /// How many requests one instance takes at once.
    pub capacity: Capacity,
    /// What is good enough.
    pub slo: Slo,
    /// Room above the expected load.
    pub headroom: Headroom,
    /// How long too many are kept.
    pub hold: Hold,
    /// Follow the trend over the start-up time.
    pub trend: bool,
    /// Find periods in the load.
    pub periods: bool,
    /// Known periods.
    pub seasonal: Vec<f64>,
    /// The start-up time to go by until starts were measured.
    pub first_lead: f64,
    /// No step down takes more than this share.
    pub max_step_down: f64,
    /// No step up is to more than so many times what is there.
    pub max_step_up: Option<f64>,
    /// Without a request for so long the last one goes (`min = 0`).
    pub idle_for: f64,
    /// How many are started at the first request of a sleeping pool.
    pub wake_to: u32,
    /// Further signals.
    pub signals: Vec<Signal>,
    /// Threshold policies.
    pub policies: Vec<Policy>,
    /// By the clock.
    pub schedules: Vec<Schedule>,
    /// How fast it may grow.
    pub up: Rules,
    /// How fast it may shrink.
    pub down: Rules,
    /// The most changes in an hour.
    pub max_changes_per_hour: Option<u32>,
    /// Watching steps.
    pub verify: Verify,
}

/// How many requests one instance takes at once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capacity {
    /// So many.
    Fixed(f64),
    /// Found out from how the service time grows with concurrency; at most `most`.
    Learned {
        /// The most that is believed.
        most: f64,
    },
}

/// What is good enough.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Slo {
    /// Seconds a request may wait for a slot.
    pub wait: f64,
    /// The share of requests that must not wait longer.
    pub target: f64,
}

/// Room above the expected load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Headroom {
    /// The quantile of the forecast's own errors that is added; none for square-root staffing alone.
    pub quantile: Option<f64>,
    /// β of square-root staffing.
    pub beta: f64,
}

/// How long too many instances are kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Hold {
    /// At least so many start-up times.
    pub leads: f64,
    /// At least so many seconds.
    pub min: f64,
    /// At most so many seconds, however much is regretted.
    pub max: f64,
    /// Whether it grows when what was given away is needed back.
    pub regret: bool,
}

/// A further signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// What.
    pub metric: Metric,
    /// What it should be.
    pub target: SignalTarget,
    /// It may only add.
    pub up_only: bool,
}

/// What a signal should be; the word's meaning in numbers.
pub type SignalTarget = Target;

/// A threshold policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// When it acts.
    pub when: Condition,
    /// … and has done so for so long.
    pub lasting: f64,
    /// What it does.
    pub adjust: Adjust,
    /// How long it rests afterwards.
    pub cooldown: f64,
    /// It never asks for fewer.
    pub min: Option<u32>,
    /// It never asks for more.
    pub max: Option<u32>,
}

/// A floor or ceiling by the clock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Its name.
    pub name: String,
    /// When it begins, as cron has it.
    pub cron: String,
    /// How long it holds.
    pub lasting: f64,
    /// The time zone.
    pub tz: String,
    /// At least so many.
    pub min: Option<u32>,
    /// At most so many.
    pub max: Option<u32>,
}

/// How fast the number may change in one direction: HPA's scaling rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// The window over which the least (up) or greatest (down) wish counts; none where the load model's own hold does.
    pub stabilization: Option<f64>,
    /// Unbounded where there are none.
    pub policies: Vec<Pace>,
    /// Which of them counts.
    pub select: Select,
    /// A wish within this share of what there is is no change.
    pub tolerance: f64,
}

/// Watching steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Verify {
    /// How long.
    pub window: f64,
    /// So long at least a new instance may take to come up before the step that made it is called a failure.
    pub ready_within: f64,
    /// Whether a step that made things worse is taken back.
    pub rollback: bool,
    /// How long nothing is added then.
    pub freeze: f64,
}
