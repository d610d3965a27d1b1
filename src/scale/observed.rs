use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Metric;

/// What a pool looked like over the second (or so) that has just ended.
///
/// **Units**: seconds; counts are of the span. Of several proxies in front of one pool it is the sum.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Observed {
    /// How long it was looked at; 0 where nothing was seen at all.
    pub span: f64,
    /// Requests admitted to the pool: after limits, before its queue. Refused for want of room included.
    pub arrivals: f64,
    /// Requests that gave their slot back.
    pub completions: f64,
    /// How long those had held their slots, all together.
    pub held: f64,
    /// Requests in progress at upstreams: the mean over the span.
    pub in_flight: f64,
    /// Requests that wait, now.
    pub queue: f64,
    /// How long the first of them has waited; the most within the span.
    pub oldest_wait: f64,
    /// Requests refused for want of room: queue full, queue timeout, no upstream ready, connections refused.
    pub saturated: f64,
    /// Answers of 500 and above that are the application's own doing.
    pub errors: f64,
    /// The 95th percentile of the time to an answer; none where nothing was answered.
    pub latency_p95: Option<f64>,
    /// Sessions that are stuck to an upstream.
    pub sessions: f64,
    /// Long-lived streams and tunnels.
    pub streams: f64,
    /// Mean over the instances of CPU used, as a share of what one may use; none where the driver cannot tell.
    pub cpu: Option<f64>,
    /// … of memory.
    pub memory: Option<f64>,
    /// Values from elsewhere by their name; missing or stale ones are not here.
    pub external: BTreeMap<String, f64>,
    /// Who is there, in whatever state.
    pub instances: Vec<Instance>,
    /// Start-up times measured since the last look, in seconds: from the order to the first good check.
    pub started: Vec<f64>,
    /// Starts that failed since the last look.
    pub start_failures: u32,
    /// Starts keep failing: nothing is to be added.
    pub start_blocked: bool,
    /// Whether all of it is there. A silent peer, a gap in time or a driver that does not answer makes it false, and then nothing is removed.
    pub complete: bool,
}

/// An instance as the scaler sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// What it is doing.
    pub phase: Phase,
    /// Seconds since it was ordered.
    pub age: f64,
}

/// What an instance is doing, as far as decisions are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Ordered, or up and not yet through its health check.
    Starting,
    /// It takes requests (perhaps not all it could yet).
    Ready,
    /// It is there and cannot be used now. Not capacity.
    Unhealthy,
    /// It finishes what it has, and goes.
    Draining,
}

impl Observed {
    /// Those in a phase.
    pub fn count(&self, phase: Phase) -> u32 {
        self.instances.iter().filter(|instance| instance.phase == phase).count() as u32
    }

    /// Those that count towards the wanted number: starting, ready and unhealthy ones.
    pub fn current(&self) -> u32 {
        self.instances.iter().filter(|instance| instance.phase != Phase::Draining).count() as u32
    }

    /// The value of a metric, if it is known. `capacity` is what one instance takes at once.
    pub fn value(&self, metric: &Metric, capacity: f64) -> Option<f64> {
        let rate = |count: f64| (self.span > 0.0).then(|| count / self.span);
        match metric {
            Metric::Load => rate(self.held).map(|load| load.max(self.in_flight)),
            Metric::Rps => rate(self.arrivals),
            Metric::InFlight => Some(self.in_flight),
            Metric::Connections => Some(if self.streams > 0.0 { self.streams } else { self.in_flight }),
            Metric::QueueDepth => Some(self.queue),
            Metric::QueueWait => Some(self.oldest_wait),
            Metric::LatencyP95 => self.latency_p95,
            Metric::Saturation => rate(self.saturated),
            Metric::Errors => (self.completions > 0.0).then(|| (self.errors / self.completions).min(1.0)),
            Metric::Sessions => Some(self.sessions),
            Metric::Cpu => self.cpu,
            Metric::Memory => self.memory,
            Metric::PoolUtilisation => {
                let slots = f64::from(self.count(Phase::Ready)) * capacity;
                (slots > 0.0).then(|| self.in_flight / slots)
            }
            Metric::Ready => Some(f64::from(self.count(Phase::Ready))),
            Metric::External(name) => self.external.get(name).copied(),
        }
    }
}
