use serde::{Deserialize, Serialize};

/// How many instances there should be, and everything that led to it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Decision {
    /// When, in seconds since 1970.
    pub at: f64,
    /// How many there were: starting, ready and unhealthy ones.
    pub current: u32,
    /// What the load alone asks for.
    pub raw: u32,
    /// What the largest of all sources asks for, before limits.
    pub wanted: u32,
    /// How many there are to be.
    pub desired: u32,
    /// Whether that is to be done; otherwise it is only told (`observe`, `dry_run`).
    pub apply: bool,
    /// How many of the instances are to get no new work already, because they will be removed soon unless load returns.
    pub cordon: u32,
    /// Why, in one word or two: `level`, `trend`, `season`, `backlog`, `period`, `policy:NAME`, `signal:NAME`, `schedule:NAME`, `verify` (kept because fewer were too few), `hold`, `wake`, `idle`, `rollback`; `min`, `max` or `schedule` where such a bound alone makes a change; `off`.
    pub reason: String,
    /// The terms of the load model.
    pub terms: Terms,
    /// Everybody who asked for something.
    pub sources: Vec<Source>,
    /// What kept it from being as wanted.
    pub limits: Vec<Limit>,
    /// When it could shrink at the earliest, while something is held.
    pub next_down_at: Option<f64>,
    /// A step was found to have made things worse and is taken back.
    pub rollback: bool,
}

/// The terms of the load model.
///
/// **Units**: erlangs (requests in service at once) unless said otherwise.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Terms {
    /// Requests a second, over `window`.
    pub rate: f64,
    /// The window that was believed, in seconds: the longest that no shorter one contradicts.
    pub window: f64,
    /// By how many standard deviations a longer window was contradicted; 0 where none was.
    pub surprise: f64,
    /// How long a request holds a slot, in seconds.
    pub service_time: f64,
    /// Offered load now.
    pub level: f64,
    /// What the trend adds by the time new capacity lands.
    pub trend: f64,
    /// What a season or period asks for at least.
    pub season: f64,
    /// The period that was found, in seconds.
    pub period: f64,
    /// The forecast: offered load when new capacity lands.
    pub forecast: f64,
    /// Room for the forecast's own errors.
    pub error: f64,
    /// Room by square-root staffing.
    pub staffing: f64,
    /// Slots wanted: forecast + error + staffing.
    pub slots: f64,
    /// Work waiting by the time new capacity lands, in seconds of service.
    pub backlog: f64,
    /// How many requests one instance takes at once.
    pub capacity: f64,
    /// Whether that was learned.
    pub learned: bool,
    /// The start-up time gone by, in seconds.
    pub lead: f64,
    /// How long too many are kept, in seconds.
    pub hold: f64,
    /// Instances without the short boost for the backlog.
    pub base: u32,
}

/// Somebody who asked for a number of instances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// `load`, `signal:cpu`, `policy:NAME`, `schedule:NAME`, `verify`.
    pub name: String,
    /// How many; none where it does not know.
    pub wants: Option<u32>,
    /// In words, with numbers.
    pub why: String,
}

/// What kept a decision from being as wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// `min`, `max`, `behavior`, `stabilization`, `tolerance`, `step`, `budget`, `hold`, `queue`, `incomplete`, `start_failures`, `freeze`, `rollback`, `mode`, `schedule`. `hold` and `queue` are the load's own: from what it needs to what it keeps.
    pub name: String,
    /// What would have been.
    pub from: u32,
    /// What became of it.
    pub to: u32,
}
