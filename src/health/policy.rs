use std::time::Duration;

/// How the health of a pool's upstreams is judged. Given with every call, so that a reload needs no conversion of what
/// is known.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Active checks; `None` where there are none.
    pub checks: Option<Thresholds>,
    /// Passive ejection.
    pub eject: EjectPolicy,
    /// The circuit breaker; `None` where there is none.
    pub breaker: Option<BreakerPolicy>,
    /// How long an upstream that comes or comes back takes to its full weight.
    pub slow_start: Duration,
}

/// How many checks in a row decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Good ones until a sick upstream is fit; 0 counts as 1.
    pub rise: u32,
    /// Bad ones until a fit upstream is sick; 0 counts as 1.
    pub fall: u32,
    /// Whether an upstream takes traffic before its first check.
    pub initially_up: bool,
}

/// When failing upstreams are sent away, and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct EjectPolicy {
    /// Failures in a row that eject; 0 never ejects.
    pub failures: u32,
    /// How long the first time; doubled each further time.
    pub time: Duration,
    /// At most so long.
    pub max_time: Duration,
    /// Never more than this share of the pool at once, `0.0 ..= 1.0`.
    pub max_share: f64,
}

/// When a circuit opens, and how it closes.
#[derive(Debug, Clone, PartialEq)]
pub struct BreakerPolicy {
    /// Opens where this share of the requests in a window failed, `0.0 ..= 1.0`.
    pub error_rate: f64,
    /// … of at least so many requests.
    pub min_requests: u32,
    /// The window.
    pub window: Duration,
    /// Opens after so many failures in a row.
    pub failures: Option<u32>,
    /// How long it stays open.
    pub open: Duration,
    /// Trial requests while half open; all must succeed. 0 counts as 1, and 32,767 is the most.
    pub probes: u32,
}

impl Default for Policy {
    /// No checks, no breaker, nobody is ejected.
    fn default() -> Self {
        let second = Duration::from_secs(1);
        let eject = EjectPolicy { failures: 0, time: 10 * second, max_time: 300 * second, max_share: 0.5 };
        Policy { checks: None, eject, breaker: None, slow_start: Duration::ZERO }
    }
}
