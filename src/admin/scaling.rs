//! What the API tells about scalers; the same types are written by the server and read by the commands.
//!
//! | method and path | answers |
//! |---|---|
//! | `GET /scaler` | [`ScalerStatus`]: every pool's scaler and the fleet |
//! | `GET /scaler/{pool}/explain?at=SECONDS` | the [`Record`] of the last decision, or of the last one at or before that time |
//! | `GET /scaler/{pool}/history?since=SECONDS&until=SECONDS&limit=N&all=true` | [`History`]: the decisions that changed something, or all that are kept |
//! | `GET /scaler/{pool}/series?since=SECONDS&until=SECONDS` | [`Series`]: what was seen, at the finest step that is kept |
//! | `GET /scaler/doctor` | `Vec<`[`Finding`]`>` |
//! | `GET /scaler/signals` | [`Signals`], for the other proxies of the same pools |
//! | `POST /scaler/{pool}/pause?for=30m` (30 minutes unless given), `POST /scaler/{pool}/resume` | [`PoolScaler`] |
//! | `POST /scaler/{pool}/set?to=N&for=1h` (an hour unless given), `POST /scaler/{pool}/set` (ends it) | [`PoolScaler`] |
//! | `POST /scaler/{pool}/recycle` | [`PoolScaler`]: all instances are replaced, one at a time |
//!
//! Nothing here can change what is run: commands, images and units come from the configuration's file alone.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::scale::{Decision, Observed};

/// What is asked of the scaler.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// How all of them are: [`Answer::Status`].
    Status,
    /// A decision: [`Answer::Record`].
    Explain {
        /// The pool.
        pool: String,
        /// The last one at or before this time, in seconds since 1970; the last of all unless given.
        at: Option<f64>,
    },
    /// Decisions: [`Answer::History`].
    History {
        /// The pool.
        pool: String,
        /// From when on, in seconds since 1970.
        since: Option<f64>,
        /// Until when.
        until: Option<f64>,
        /// The latest so many.
        limit: Option<usize>,
        /// Those that changed nothing too.
        all: bool,
    },
    /// What was seen: [`Answer::Series`].
    Series {
        /// The pool.
        pool: String,
        /// From when on, in seconds since 1970.
        since: Option<f64>,
        /// Until when.
        until: Option<f64>,
    },
    /// What needs attention: [`Answer::Findings`].
    Doctor,
    /// What this proxy has seen itself: [`Answer::Signals`].
    Signals,
    /// Leave the number as it is: [`Answer::Pool`].
    Pause {
        /// The pool.
        pool: String,
        /// For so long.
        r#for: Duration,
    },
    /// End a pause: [`Answer::Pool`].
    Resume {
        /// The pool.
        pool: String,
    },
    /// Have so many: [`Answer::Pool`].
    Set {
        /// The pool.
        pool: String,
        /// How many; none ends it.
        to: Option<u32>,
        /// For so long; always given together with a number.
        r#for: Option<Duration>,
    },
    /// Replace all instances, one at a time: [`Answer::Pool`].
    Recycle {
        /// The pool.
        pool: String,
    },
}

/// What the scaler answers; as JSON, what is inside.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// How all are.
    Status(ScalerStatus),
    /// A decision.
    Record(Box<Record>),
    /// Decisions.
    History(History),
    /// What was seen.
    Series(Series),
    /// What needs attention.
    Findings(Vec<Finding>),
    /// What one proxy has seen.
    Signals(Signals),
    /// How one pool's scaler is now.
    Pool(Box<PoolScaler>),
}

/// Why the scaler could not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// No pool has this name.
    #[error("there is no pool `{0}`")]
    NoPool(String),
    /// There is such a pool, but nothing scales it; or nothing scales any pool.
    #[error("there is no scaler: a pool gets one by a section [pool.NAME.scaler] in the configuration")]
    NoScaler,
    /// It cannot be done now; the words say why.
    #[error("{0}")]
    Impossible(String),
    /// Tidegate is on its way out.
    #[error("Tidegate is shutting down")]
    Ended,
}

/// How all scalers are.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ScalerStatus {
    /// Seconds since 1970.
    pub now: f64,
    /// Whether this proxy decides: `none` (it is alone), `leader`, `follower` or `no leader`.
    pub leadership: String,
    /// Who leads, as far as is known.
    pub leader: Option<String>,
    /// The leader's generation.
    pub generation: u64,
    /// The other proxies, and how many seconds ago each was heard of.
    pub peers: BTreeMap<String, Option<f64>>,
    /// Where state and history are kept.
    pub state_folder: String,
    /// What an instance costs in an hour, and in what.
    pub instance_hour: f64,
    /// The currency.
    pub currency: String,
    /// In the configuration's order.
    pub pools: Vec<PoolScaler>,
}

/// How a pool's scaler is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolScaler {
    /// The pool.
    pub pool: String,
    /// `off`, `observe`, `dry_run`, `up_only`, `on`.
    pub mode: String,
    /// Paused by an operator: seconds until it goes on.
    pub paused: Option<f64>,
    /// Set by an operator: to how many, and for how many more seconds.
    pub set: Option<(u32, f64)>,
    /// `process`, `docker` …
    pub driver: String,
    /// The fewest.
    pub min: u32,
    /// The most.
    pub max: u32,
    /// How many there are to be.
    pub desired: u32,
    /// Instances by what they are doing (`ready`, `starting`, `probing`, `warming`, `draining`, `stopping`, `backoff`, …).
    pub counts: BTreeMap<String, u32>,
    /// Each instance.
    pub instances: Vec<InstanceStatus>,
    /// What needs attention; empty where nothing does.
    pub conditions: Vec<Finding>,
    /// What was last seen.
    pub seen: Observed,
    /// The last decision.
    pub last: Option<Record>,
    /// The last one that changed something.
    pub last_change: Option<Record>,
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceStatus {
    /// Its id.
    pub id: String,
    /// Where it is reached.
    pub address: Option<String>,
    /// What it is doing.
    pub state: String,
    /// Seconds in that state.
    pub since_seconds: f64,
    /// Seconds since it was ordered.
    pub age_seconds: f64,
    /// Why, and what its driver says of it.
    pub detail: String,
    /// Requests in progress.
    pub in_flight: u64,
    /// Requests ever.
    pub requests: u64,
    /// Sessions stuck to it, as far as they are known.
    pub sessions: u64,
    /// CPUs in use.
    pub cpus: Option<f64>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Whether it will leave soon: it gets new work only where nobody else has room.
    pub cordoned: bool,
    /// Whether it runs another build (spec) than is configured now.
    pub outdated: bool,
    /// Failed starts in a row.
    pub attempts: u32,
}

/// A decision, with what became of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Its id: sorts by time.
    pub id: String,
    /// The pool.
    pub pool: String,
    /// The leader's generation.
    pub generation: u64,
    /// The decision with all its terms.
    pub decision: Decision,
    /// What it was made from.
    pub seen: Observed,
    /// Known once its verify window has passed.
    pub outcome: Option<Outcome>,
}

impl Record {
    /// Whether it changed the number of instances.
    pub fn is_change(&self) -> bool {
        self.decision.apply && self.decision.desired != self.decision.current
    }
}

/// What became of a decision: before and after.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// Seconds until all of its instances were ready; none for steps down, or where that did not happen.
    pub ready_after: Option<f64>,
    /// The 95th percentile of the time to an answer, in seconds.
    pub p95: (Option<f64>, Option<f64>),
    /// The longest wait in the queue, in seconds.
    pub wait: (f64, f64),
    /// The share of answers that are errors.
    pub errors: (f64, f64),
    /// Whether it was good, and if not why.
    pub verdict: String,
    /// Whether it was taken back.
    pub rolled_back: bool,
}

/// Decisions, the oldest first.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// The pool.
    pub pool: String,
    /// The records.
    pub records: Vec<Record>,
    /// Whether there were more than asked for.
    pub more: bool,
}

/// What was seen, the oldest first.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Series {
    /// The pool.
    pub pool: String,
    /// The samples. Their steps may differ: 1 s for the last quarter of an hour, 10 s for a day, 5 min for the rest.
    pub samples: Vec<Sample>,
}

/// What was seen in one step of time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// The step's end, in seconds since 1970.
    pub at: f64,
    /// Its length in seconds.
    pub span: f64,
    /// Requests that came.
    pub arrivals: f64,
    /// Requests that were done.
    pub completions: f64,
    /// How long those had held their slots, together, in seconds.
    pub held: f64,
    /// Mean of requests in progress.
    pub in_flight: f64,
    /// Mean of requests that waited.
    pub queue: f64,
    /// The longest wait.
    pub wait: f64,
    /// Requests refused for want of room.
    pub saturated: f64,
    /// Errors of the application.
    pub errors: f64,
    /// The 95th percentile of the time to an answer (the largest of the steps within).
    pub p95: Option<f64>,
    /// Mean of instances that were ready.
    pub ready: f64,
    /// Mean of instances that were starting.
    pub starting: f64,
    /// Mean of instances that were draining.
    pub draining: f64,
    /// How many were wanted, at the end.
    pub desired: u32,
    /// Slots of one instance.
    pub capacity: f64,
    /// Sessions.
    pub sessions: f64,
    /// Mean CPU share.
    pub cpu: Option<f64>,
    /// Mean memory share.
    pub memory: Option<f64>,
}

/// Something that needs attention.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Finding {
    /// `START_FAILURES`, `AT_MAX`, `NO_SIGNAL`, `DRIVER_UNREACHABLE`, `NOT_LEADER`, `DRY_RUN`, `QUOTA`, `EXTERNAL_STALE`, `OTHER_SCALER`, `LIMITED_BY_RATE`, `FLAPPING`, `HISTORY_NOT_WRITTEN`, `NOT_CONVERGING`, `HOST_MEMORY`, `ORPHAN`, `ROLLED_BACK` …
    pub code: String,
    /// `critical`, `warning` or `info`.
    pub severity: String,
    /// The pool, where it is about one.
    pub pool: Option<String>,
    /// What is so, with numbers.
    pub text: String,
    /// What to do about it.
    pub advice: String,
}

/// What one proxy has seen of its pools, for the leader to sum. Counts are since the process's start.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Signals {
    /// The proxy.
    pub proxy: String,
    /// When, in seconds since 1970.
    pub at: f64,
    /// By pool.
    pub pools: BTreeMap<String, PoolSignals>,
}

/// What one proxy has seen of one pool.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolSignals {
    /// Requests that came, ever.
    pub arrivals: u64,
    /// Requests that were done, ever.
    pub completions: u64,
    /// How long they held slots, together, in seconds.
    pub held: f64,
    /// Requests refused for want of room, ever.
    pub saturated: u64,
    /// Errors of the application, ever.
    pub errors: u64,
    /// Requests in progress: the mean over the last second.
    pub in_flight: f64,
    /// Requests that wait.
    pub queue: u64,
    /// How long the first has waited.
    pub oldest_wait: f64,
    /// The 95th percentile of the last second.
    pub latency_p95: Option<f64>,
    /// Sessions.
    pub sessions: u64,
    /// Requests in progress by upstream address.
    pub upstreams: BTreeMap<String, u64>,
    /// Addresses of instances that are about to go, where this proxy decides: the others send them nothing new either.
    pub leaving: Vec<String>,
}
