use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidegate::cli::backend::{Backend, Settings, Speaks, Stats};
use tidegate::types::{Address, Bind, Share};

/// An HTTP upstream in this process, on a free port: `upstream().named("a").start().await`.
///
/// Its endpoints are those of `tidegate upstream`.
pub fn upstream() -> UpstreamBuilder {
    UpstreamBuilder { settings: Settings::ephemeral() }
}

#[derive(Clone)]
pub struct UpstreamBuilder {
    settings: Settings,
}

impl UpstreamBuilder {
    pub fn named(mut self, name: &str) -> Self {
        self.settings.name = name.to_owned();
        self
    }

    /// Answers only after so long.
    pub fn slow(mut self, latency: Duration) -> Self {
        self.settings.latency = latency;
        self
    }

    /// Answers this share of the requests with 500.
    pub fn failing(mut self, share: f64) -> Self {
        self.settings.failure_rate = Share(share);
        self
    }

    pub fn tls(mut self, config: Arc<rustls::ServerConfig>) -> Self {
        self.settings.tls = Some(config);
        self
    }

    pub fn on(mut self, address: SocketAddr) -> Self {
        self.settings.bind = Bind::Tcp(address);
        self
    }

    pub fn on_unix(mut self, path: &Path) -> Self {
        self.settings.bind = Bind::Unix(path.to_owned());
        self
    }

    pub async fn start(self) -> Upstream {
        let backend = Backend::start(self.settings.clone()).await.expect("an upstream starts");
        let mut settings = self.settings;
        settings.bind = match backend.address() {
            Address::Ip(address) => Bind::Tcp(*address),
            Address::Unix(path) => Bind::Unix(path.clone()),
            other => unreachable!("{other} is no address to listen on"),
        };
        Upstream { settings, backend: Some(backend) }
    }
}

/// A running upstream; gone when dropped.
pub struct Upstream {
    settings: Settings,
    backend: Option<Backend>,
}

impl Upstream {
    fn running(&self) -> &Backend {
        self.backend.as_ref().expect("the upstream runs")
    }

    /// Its address as a configuration has it.
    pub fn address(&self) -> String {
        self.settings.bind.to_string()
    }

    pub fn socket_address(&self) -> SocketAddr {
        match &self.settings.bind {
            Bind::Tcp(address) => *address,
            Bind::Unix(path) => panic!("{} is no TCP address", path.display()),
        }
    }

    pub fn stats(&self) -> &Stats {
        self.running().stats()
    }

    pub fn requests(&self) -> u64 {
        self.stats().requests()
    }

    /// Which eras of MCP it speaks from now on.
    pub fn speaks(&self, speaks: Speaks) {
        self.running().set_speaks(speaks);
    }

    pub fn mcp_sessions(&self) -> usize {
        self.running().mcp_sessions()
    }

    /// How many `initialize` and `notifications/initialized` have come.
    pub fn mcp_begun(&self) -> [u64; 2] {
        self.running().mcp_begun()
    }

    /// From now on `/health` answers 503.
    pub fn becomes_sick(&self) {
        self.running().set_healthy(false);
    }

    /// From now on `/health` answers 200.
    pub fn becomes_well(&self) {
        self.running().set_healthy(true);
    }

    pub fn becomes_slow(&self, latency: Duration) {
        self.running().set_latency(latency);
    }

    pub fn fails(&self, share: f64) {
        self.running().set_failure_rate(Share(share));
    }

    /// Ends it as `kill -9` does: port and connections closed at once. It can be [started again](Self::restart).
    pub async fn kill(&mut self) {
        if let Some(backend) = self.backend.take() {
            backend.kill().await;
        }
    }

    pub fn is_up(&self) -> bool {
        self.backend.is_some()
    }

    /// Starts it on the address it had; its counts start at zero.
    pub async fn restart(&mut self) {
        self.kill().await;
        self.backend = Some(Backend::start(self.settings.clone()).await.expect("the port is still free"));
    }
}
