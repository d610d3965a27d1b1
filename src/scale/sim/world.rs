/// What instances are like, and what surrounds them.
///
/// **Units**: seconds; counts.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    /// The fewest instances that may be ordered.
    pub min: u32,
    /// The most.
    pub max: u32,
    /// How many are there, ready, when it begins.
    pub first: u32,
    /// How many requests the proxy sends to one instance at once, and what contestants are told of its capacity.
    pub slots: u32,
    /// How many requests an instance really serves at full speed; more of them share it. Slots where there is no reason to think otherwise.
    pub cores: f64,
    /// The mean time from the order to the first good check.
    pub startup: f64,
    /// By which share of it that time varies, up and down.
    pub startup_jitter: f64,
    /// How long a request may wait in the proxy.
    pub queue_timeout: f64,
    /// How many may.
    pub queue_size: usize,
    /// How long an instance may finish what it has; what is left then is cut.
    pub drain: f64,
    /// By how much an answer may be later than the request's own demand before it counts as a violation.
    pub slack: f64,
    /// What chance there is in start-up times.
    pub seed: u64,
}

impl Default for World {
    fn default() -> Self {
        World {
            min: 1,
            max: 40,
            first: 2,
            slots: 4,
            cores: 4.0,
            startup: 10.0,
            startup_jitter: 0.2,
            queue_timeout: 10.0,
            queue_size: 20_000,
            drain: 30.0,
            slack: 0.25,
            seed: 1,
        }
    }
}
