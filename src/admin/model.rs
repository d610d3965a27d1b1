//! What the API answers, as plain values: the same types are written by the server and read by the commands.

use serde::{Deserialize, Serialize};

use crate::health::State;

/// How everything is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Tidegate's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: f64,
    /// The configuration's file, where it came from one.
    pub config_file: Option<String>,
    /// The number of the tables that requests are served by; grows with every change.
    pub generation: u64,
    /// Worker threads.
    pub workers: usize,
    /// On the way out: no new connections, what runs finishes.
    pub stopping: bool,
    /// Requests ever taken.
    pub requests: u64,
    /// Requests in progress.
    pub in_flight: u64,
    /// Reloads that came into force, the start included.
    pub reloads_accepted: u64,
    /// Reloads that were refused and changed nothing.
    pub reloads_refused: u64,
    /// What came of the last attempt to read the configuration, the first one included.
    pub last_reload: Verdict,
    /// In the configuration's order.
    pub listeners: Vec<ListenerStatus>,
    /// In the configuration's order.
    pub pools: Vec<PoolStatus>,
}

/// What came of reading the configuration again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether it is in force now.
    pub accepted: bool,
    /// The generation that serves after it.
    pub generation: u64,
    /// Seconds since 1970 (UTC).
    pub at: f64,
    /// What asked for it: `start`, `file`, `signal`, `admin`.
    pub cause: String,
    /// What was wrong, or only worth a warning, rendered for a terminal without colours; empty where nothing was.
    pub problems: String,
    /// What is different now, a line for each thing; empty where nothing is.
    pub changes: Vec<String>,
}

/// How a listener is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// Where it accepts; real ports where port 0 was asked for.
    pub addresses: Vec<String>,
    /// Connections open now.
    pub connections: u64,
    /// Requests ever taken.
    pub requests: u64,
}

/// How a pool is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// How it balances.
    pub balance: String,
    /// Too few upstreams are fit, so all are used.
    pub panic: bool,
    /// Its members, removed ones that still drain included.
    pub upstreams: Vec<UpstreamStatus>,
}

/// How an upstream is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// Its address, which names it within the pool.
    pub address: String,
    /// Starting, ready, draining, drained, maintenance or down.
    #[serde(with = "word")]
    pub state: State,
    /// Why it is in that state.
    pub reason: String,
    /// Seconds in that state.
    pub since_seconds: f64,
    /// Requests in progress.
    pub in_flight: u64,
    /// Event streams of MCP clients that are open; they are no load.
    #[serde(default)]
    pub streams: u64,
    /// MCP sessions that are there, as far as this proxy knows.
    #[serde(default)]
    pub sessions: u64,
    /// The weight it has now: slow start applied, 0 where it takes nothing.
    pub weight: f64,
    /// Its weight as configured, or as set through the API.
    pub configured_weight: u32,
    /// Used only while no other is fit.
    pub backup: bool,
    /// The most requests it may have at once.
    pub max_connections: Option<u32>,
    /// Peak-EWMA of its latency.
    pub ewma_seconds: f64,
    /// Requests ever sent to it.
    pub requests: u64,
    /// Those of them that failed: no answer, a broken one, or a status of 500 and above.
    pub errors: u64,
    /// While it drains: seconds until what still runs is cut.
    pub deadline_seconds: Option<f64>,
    /// No longer in the configuration; gone once it is drained.
    pub removed: bool,
}

/// A state as its word.
mod word {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::health::State;

    pub(super) fn serialize<S: Serializer>(state: &State, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(state.word())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<State, D::Error> {
        let word = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let known = State::ALL.into_iter().find(|state| state.word() == word);
        known.ok_or_else(|| D::Error::custom(format!("unknown state {word}")))
    }
}
