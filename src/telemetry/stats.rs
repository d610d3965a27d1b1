use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::count::{ByKind, Classes, Counter, Counters, Figure, Gauge, Kind};
use super::histogram::{Distribution, Histogram};
use super::kind::{Closed, Fault, Outcome, Waited};
use super::lane::{Lane, PerWorker};
use super::mcp::{McpLane, McpPool};
use super::process::unix_seconds;
use crate::health::{Phase, State};
use crate::limit::{Decision, Limiter, Reason};

/// Counters of a [`Kind`]'s words.
macro_rules! by {
    ($kind:ty) => { ByKind<$kind, { <$kind as Kind>::WORDS.len() }> };
}

/// A thing that has a name and one set of counts for each lane.
#[derive(Debug)]
pub struct Stats<L, C = ()> {
    labels: Box<[Box<str>]>,
    lanes: PerWorker<L>,
    /// What only control writes.
    pub control: C,
}

impl<L: Default, C: Default> Stats<L, C> {
    pub(super) fn new(workers: usize, labels: &[&str]) -> Self {
        Stats {
            labels: labels.iter().map(|label| Box::from(*label)).collect(),
            lanes: PerWorker::new(workers),
            control: C::default(),
        }
    }

    /// What its series are labelled with, in the order of the metric's labels.
    pub fn labels(&self) -> &[Box<str>] {
        &self.labels
    }

    /// The counts that this lane, and nobody else, writes.
    #[inline]
    pub fn at(&self, lane: Lane) -> &L {
        self.lanes.at(lane)
    }

    /// Sums a count over the lanes.
    pub fn sum<N: std::iter::Sum>(&self, of: impl FnMut(&L) -> N) -> N {
        self.lanes.sum(of)
    }

    pub(super) fn sums<const N: usize>(&self, of: impl Fn(&L) -> [u64; N]) -> [u64; N] {
        self.lanes.each().map(of).fold([0; N], |sum, lane| std::array::from_fn(|index| sum[index] + lane[index]))
    }
}

/// Counts of a listener.
pub type ListenerStats = Stats<ListenerLane>;
/// Counts of a route.
pub type RouteStats = Stats<RouteLane>;
/// Counts of a pool.
pub type PoolStats = Stats<PoolLane, PoolControl>;
/// Counts of an upstream.
pub type UpstreamStats = Stats<UpstreamLane, UpstreamControl>;
/// Counts of one limit of a route.
pub type LimitStats = Stats<LimitLane, LimitControl>;

/// What a worker counts for a listener.
#[derive(Debug, Default)]
pub struct ListenerLane {
    /// Requests answered, by class.
    pub requests: Classes,
    /// Requests in progress.
    pub in_flight: Gauge,
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections open.
    pub open: Gauge,
    /// Connections ended, by [`Closed`].
    pub closed: by!(Closed),
    /// TLS handshakes, by [`Outcome`].
    pub handshakes: by!(Outcome),
    /// Bytes read from clients.
    pub received: Counter,
    /// Bytes written to clients.
    pub sent: Counter,
}

/// What a worker counts for a route.
#[derive(Debug, Default)]
pub struct RouteLane {
    /// Requests answered, by class.
    pub requests: Classes,
    /// Requests in progress.
    pub in_flight: Gauge,
    /// From a request's headers to its answer's last byte.
    pub latency: Histogram,
    /// Bytes of request bodies.
    pub received: Counter,
    /// Bytes of response bodies.
    pub sent: Counter,
}

impl RouteLane {
    /// A request has ended.
    #[inline]
    pub fn finished(&self, status: u16, latency: Duration, received: u64, sent: u64) {
        self.requests.up(status);
        self.latency.record(latency);
        self.received.add(received);
        self.sent.add(sent);
    }
}

impl RouteStats {
    /// The latency of all its requests so far.
    pub fn latency(&self) -> Distribution {
        self.lanes.each().map(|lane| &lane.latency).collect()
    }
}

/// What a worker counts for a pool.
#[derive(Debug, Default)]
pub struct PoolLane {
    /// Attempts beyond a request's first.
    pub retries: Counter,
    /// Retries not made for want of budget.
    pub retries_denied: Counter,
    /// Requests for which no upstream was fit.
    pub unfit: Counter,
    /// Requests for which no upstream had room.
    pub full: Counter,
    /// Requests that stickiness sent to their upstream.
    pub stuck: Counter,
    /// Requests whose upstream was gone, so that they moved.
    pub moved: Counter,
    /// Requests that came, each once. A pool that may sleep does not count those that do not wake it.
    pub arrivals: Counter,
    /// Requests that have given their last slot back.
    pub completions: Counter,
    /// Nanoseconds that slots were held, failed attempts included.
    pub held: Counter,
    /// Requests refused for want of room.
    pub saturated: Counter,
    /// Answers of 500 and above by upstreams.
    pub errors: Counter,
    /// What became of requests that had to wait, by [`Waited`].
    pub waited: by!(Waited),
    /// How long those waited that were served. Made when first used: not every pool has a queue.
    wait: OnceLock<Box<Histogram>>,
    /// How long upstreams took to answer, of pools that are scaled by it.
    latency: OnceLock<Box<Histogram>>,
    /// Requests to MCP servers.
    mcp: OnceLock<Box<McpLane>>,
}

impl PoolLane {
    /// What is counted of requests to MCP servers; made when first asked for.
    pub fn mcp(&self) -> &McpLane {
        self.mcp.get_or_init(Box::default)
    }

    /// A request is served that had to wait so long.
    pub fn served_after(&self, wait: Duration) {
        self.wait.get_or_init(Box::default).record(wait);
    }

    /// An upstream has answered.
    pub fn answered_after(&self, latency: Duration) {
        self.latency.get_or_init(Box::default).record(latency);
    }
}

impl PoolStats {
    /// How long its requests waited that were served after it.
    pub fn wait(&self) -> Distribution {
        self.lanes.each().filter_map(|lane| lane.wait.get()).map(|histogram| &**histogram).collect()
    }

    /// What the workers have counted of requests to MCP servers.
    pub(super) fn mcp(&self) -> Vec<&McpLane> {
        self.lanes.each().filter_map(|lane| lane.mcp.get()).map(|lane| &**lane).collect()
    }

    /// How long its upstreams took to answer, where that is counted.
    pub fn latency(&self) -> Distribution {
        self.lanes.each().filter_map(|lane| lane.latency.get()).map(|histogram| &**histogram).collect()
    }
}

/// What control knows of a pool.
#[derive(Debug, Default)]
pub struct PoolControl {
    /// How many upstreams are in each state; index by [`State`].
    upstreams: [Gauge; <State as Kind>::WORDS.len()],
    /// How many requests wait.
    pub queue: Gauge,
    /// How long the one has waited who has waited longest, in seconds.
    pub oldest_wait: Figure,
    mcp: OnceLock<Box<McpPool>>,
}

impl PoolControl {
    /// How many upstreams are in each state, in the order of [`State`].
    pub fn set_upstreams(&self, counts: [usize; <State as Kind>::WORDS.len()]) {
        for (gauge, count) in self.upstreams.iter().zip(counts) {
            gauge.set(count as i64);
        }
    }

    /// What is known of its MCP servers; made when first asked for.
    pub fn mcp(&self) -> &McpPool {
        self.mcp.get_or_init(Box::default)
    }

    pub(super) fn known_mcp(&self) -> Option<&McpPool> {
        self.mcp.get().map(|known| &**known)
    }

    pub(super) fn upstreams(&self) -> impl Iterator<Item = i64> {
        self.upstreams.iter().map(Gauge::value)
    }
}

/// What a worker counts for an upstream.
#[derive(Debug, Default)]
pub struct UpstreamLane {
    /// Answers, by class.
    pub requests: Classes,
    /// Requests in progress.
    pub in_flight: Gauge,
    /// From a request's first byte sent to its answer's headers.
    pub latency: Histogram,
    /// Attempts that failed, by [`Fault`].
    pub faults: by!(Fault),
    /// Connections made.
    pub connects: Counter,
    /// Connections open, idle ones among them.
    pub open: Gauge,
    /// Connections open and idle.
    pub idle: Gauge,
    /// Bytes of request bodies.
    pub sent: Counter,
    /// Bytes of response bodies.
    pub received: Counter,
}

impl UpstreamStats {
    /// The latency of all its answers so far.
    pub fn latency(&self) -> Distribution {
        self.lanes.each().map(|lane| &lane.latency).collect()
    }
}

/// What control knows of an upstream.
#[derive(Debug, Default)]
pub struct UpstreamControl {
    state: Gauge,
    /// 0 where there is no breaker, otherwise one above the phase's index.
    circuit: Gauge,
    /// Health checks, by [`Outcome`].
    pub checks: by!(Outcome),
    /// Times it was sent away for failing requests.
    pub ejections: Counter,
    /// Times its circuit breaker opened.
    breaker_opened: Counter,
    /// Times its state changed to each, by [`State`].
    pub changes: by!(State),
    /// Its weight, slow start applied.
    pub weight: Figure,
    /// Its peak-EWMA latency in seconds.
    pub ewma: Figure,
    /// MCP sessions and event streams at it, where it is an MCP server.
    mcp: OnceLock<[Gauge; 2]>,
}

impl UpstreamControl {
    /// So many MCP sessions and event streams are at it.
    pub fn set_mcp(&self, sessions: usize, streams: u32) {
        let [of_sessions, of_streams] = self.mcp.get_or_init(Default::default);
        of_sessions.set(sessions as i64);
        of_streams.set(i64::from(streams));
    }

    pub(super) fn mcp(&self) -> Option<[i64; 2]> {
        self.mcp.get().map(|gauges| [gauges[0].value(), gauges[1].value()])
    }

    /// It is in this state now; counted as a change if it was in another.
    pub fn set_state(&self, state: State) {
        if self.state.value() != state.index() as i64 {
            self.state.set(state.index() as i64);
            self.changes.up(state);
        }
    }

    /// Its circuit breaker is in this phase now; counted if it has opened. `None` where it has no breaker.
    pub fn set_circuit(&self, phase: Option<Phase>) {
        let code = phase.map_or(0, |phase| 1 + phase.index() as i64);
        if phase == Some(Phase::Open) && self.circuit.value() != code {
            self.breaker_opened.up();
        }
        self.circuit.set(code);
    }

    pub(super) fn circuit(&self) -> Option<usize> {
        usize::try_from(self.circuit.value() - 1).ok()
    }

    pub(super) fn breaker_opened(&self) -> u64 {
        self.breaker_opened.value()
    }

    /// Which of [`State`]'s words it is in.
    pub(super) fn state(&self) -> usize {
        self.state.value() as usize
    }
}

/// What a worker counts for a limit.
#[derive(Debug, Default)]
pub struct LimitLane {
    /// Requests let through at once.
    pub admitted: Counter,
    /// Requests let through after a delay.
    pub delayed: Counter,
    /// Requests refused, by [`Reason`].
    pub refused: by!(Reason),
}

impl LimitLane {
    /// Counts what a limiter decided.
    #[inline]
    pub fn decided(&self, decision: Decision) {
        match decision {
            Decision::Admitted => self.admitted.up(),
            Decision::Delayed => self.delayed.up(),
            Decision::Refused(reason) => self.refused.up(reason),
        }
    }
}

/// What control knows of a limit.
#[derive(Debug, Default)]
pub struct LimitControl {
    /// Clients remembered.
    pub clients: Gauge,
    /// Clients forgotten for want of room.
    pub evicted: Counter,
}

impl LimitControl {
    /// Takes over a limiter's table size and evictions; control calls it after each sweep.
    pub fn observe(&self, limiter: &Limiter) {
        self.clients.set(limiter.size() as i64);
        self.evicted.set(limiter.evicted());
    }
}

/// The most kinds of refusals that are counted apart.
pub const MAX_REFUSALS: usize = 64;

/// What a worker counts for the whole process.
#[derive(Debug, Default)]
pub struct WorkerLane {
    /// Connections of clients open.
    pub open: Gauge,
    /// Answers of our own; index into the words given to [`super::Registry::new`].
    pub refusals: Counters<MAX_REFUSALS>,
}

/// What control counts for the whole process.
#[derive(Debug, Default)]
pub struct ControlStats {
    /// Edits taken over and edits refused.
    pub reloads: by!(Outcome),
    /// Whether the last one was taken over: 1 or 0.
    pub reload_ok: Gauge,
    /// When the last one was taken over, in seconds since 1970.
    pub reload_time: Figure,
    /// The number of the snapshot in use.
    pub generation: Gauge,
    /// Names resolved.
    pub resolves: by!(Outcome),
    /// Times that a listener's certificates became others.
    pub certificates: Counter,
}

impl ControlStats {
    /// An edit was taken over, or refused; `generation` is in use now.
    pub fn reloaded(&self, outcome: Outcome, generation: u64) {
        self.reloads.up(outcome);
        self.reload_ok.set(i64::from(outcome == Outcome::Ok));
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        if outcome == Outcome::Ok {
            self.reload_time.set(unix_seconds());
        }
    }
}

/// What became of access log lines. Written by the writer thread and, where lines are lost, by any worker.
#[derive(Debug, Default)]
pub struct LogStats {
    written: AtomicU64,
    lost: AtomicU64,
}

impl LogStats {
    /// Lines that reached their target.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Lines that were dropped: the target was full, broken or too slow.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    // These come once for some hundred lines and from several threads: here a read-modify-write is right.
    pub(super) fn wrote(&self, lines: u64) {
        self.written.fetch_add(lines, Ordering::Relaxed);
    }

    pub(super) fn lose(&self, lines: u64) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
    }
}
