//! A small HTTP backend: what the demo puts behind the proxy, what `tidegate upstream` runs and what the tests talk to.
//!
//! It speaks HTTP/1.1 and HTTP/2 with prior knowledge (with TLS: by ALPN), answers in the ways upstreams answer and fails in
//! the ways they fail, and counts what it saw. The endpoints are listed at [`answer`]. It never takes part in proxying: nothing
//! outside `cli` and the tests knows of it, and it is written for plainness, not for speed.
//!
//! Why not a separate binary or script: `cargo run -- demo` must need nothing but itself, and tests that run their upstreams
//! in-process can ask them what they saw.

mod answer;
mod body;
mod mcp;
mod serve;
mod tunnel;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use self::mcp::Speaks;
use crate::types::{Address, Bind, Share};

/// How a backend behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it listens; port 0 for a free one.
    pub bind: Bind,
    /// The name in its answers; its address where empty.
    pub name: String,
    /// A wait before each answer.
    pub latency: Duration,
    /// The share of requests that get 500.
    pub failure_rate: Share,
    /// Speak TLS; ALPN as configured there.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

impl Settings {
    /// A well-behaved backend at `bind`.
    pub fn at(bind: Bind) -> Self {
        Settings { bind, name: String::new(), latency: Duration::ZERO, failure_rate: Share(0.0), tls: None }
    }

    /// A well-behaved backend on a free loopback port.
    pub fn ephemeral() -> Self {
        Settings::at(Bind::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))))
    }
}

/// A running backend; dropping it kills it.
#[derive(Debug)]
pub struct Backend {
    shared: Arc<Shared>,
    address: Address,
    accepting: JoinHandle<()>,
}

impl Backend {
    /// Starts one on the current runtime.
    ///
    /// **Errors**: the address cannot be listened on.
    pub async fn start(settings: Settings) -> io::Result<Backend> {
        let (listener, address) = serve::Listening::bind(&settings.bind).await?;
        let name = if settings.name.is_empty() { address.to_string() } else { settings.name };
        let shared = Arc::new(Shared {
            name,
            stats: Stats::default(),
            healthy: AtomicBool::new(true),
            latency: AtomicU64::new(0),
            failure_rate: AtomicU64::new(0),
            sessions: AtomicU64::new(0),
            mcp: mcp::State::default(),
            killed: watch::Sender::new(false),
        });
        shared.set_latency(settings.latency);
        shared.set_failure_rate(settings.failure_rate);
        let accepting = tokio::spawn(serve::accept(listener, settings.tls, shared.clone()));
        Ok(Backend { shared, address, accepting })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What it has seen so far.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// What `/health` answers from now on: 200 or 503.
    pub fn set_healthy(&self, healthy: bool) {
        self.shared.healthy.store(healthy, Relaxed);
    }

    /// How long it waits before each further answer.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.set_latency(latency);
    }

    /// Which eras of MCP it speaks from now on.
    pub fn set_speaks(&self, speaks: Speaks) {
        self.shared.mcp.set_speaks(speaks);
    }

    /// How many MCP sessions it has.
    pub fn mcp_sessions(&self) -> usize {
        self.shared.mcp.sessions()
    }

    /// How many `initialize` and `notifications/initialized` have come.
    pub fn mcp_begun(&self) -> [u64; 2] {
        self.shared.mcp.began.each_ref().map(|count| count.load(Relaxed))
    }

    /// Which share of further requests get 500.
    pub fn set_failure_rate(&self, share: Share) {
        self.shared.set_failure_rate(share);
    }

    /// Ends it as a killed process ends: the port is closed and every connection with it, whatever it was doing.
    pub async fn kill(mut self) {
        self.shared.killed.send_replace(true);
        self.accepting.abort();
        // Aborted or done: either way its sockets are closed afterwards.
        let _ = (&mut self.accepting).await;
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.killed.send_replace(true);
        self.accepting.abort();
    }
}

/// What a backend has seen. `/health` and `/stats` are not counted as requests.
#[derive(Debug, Default, Serialize)]
pub struct Stats {
    requests: AtomicU64,
    in_flight: AtomicU64,
    cancelled: AtomicU64,
    health_checks: AtomicU64,
    connections: AtomicU64,
    open_connections: AtomicU64,
}

impl Stats {
    /// Requests whose head has come.
    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Requests that are not answered to the end yet.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }

    /// Requests given up by the other side before the end of their answer.
    pub fn cancelled(&self) -> u64 {
        self.cancelled.load(Relaxed)
    }

    /// Requests for `/health`.
    pub fn health_checks(&self) -> u64 {
        self.health_checks.load(Relaxed)
    }

    /// Connections ever accepted.
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    /// Connections open now.
    pub fn open_connections(&self) -> u64 {
        self.open_connections.load(Relaxed)
    }
}

/// What all connections of one backend share.
#[derive(Debug)]
struct Shared {
    name: String,
    stats: Stats,
    healthy: AtomicBool,
    /// Nanoseconds.
    latency: AtomicU64,
    /// An f64's bits, 0.0 ..= 1.0.
    failure_rate: AtomicU64,
    sessions: AtomicU64,
    mcp: mcp::State,
    killed: watch::Sender<bool>,
}

impl Shared {
    fn set_latency(&self, latency: Duration) {
        self.latency.store(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    fn set_failure_rate(&self, share: Share) {
        self.failure_rate.store(share.0.to_bits(), Relaxed);
    }

    fn latency(&self) -> Duration {
        Duration::from_nanos(self.latency.load(Relaxed))
    }

    fn draws_failure(&self) -> bool {
        fastrand::f64() < f64::from_bits(self.failure_rate.load(Relaxed))
    }

    /// Ready once the backend is killed.
    async fn killed(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.killed.subscribe().wait_for(|killed| *killed).await;
    }
}
