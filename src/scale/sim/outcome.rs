/// What came of a run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outcome {
    /// Who it was.
    pub name: String,
    /// How long it lasted, in hours.
    pub hours: f64,
    /// Requests that came.
    pub requests: u64,
    /// Requests that were later than their own demand and the slack, or never answered.
    pub violated: u64,
    /// Requests that were never answered: the queue was full, they waited too long in it, or their instance went.
    pub dropped: u64,
    /// Hours of instances: starting, ready and draining ones.
    pub instance_hours: f64,
    /// Hours that so many fully busy instances would have needed.
    pub busy_hours: f64,
    /// Instances that were ordered.
    pub starts: u64,
    /// Instances that were sent away.
    pub stops: u64,
    /// Changes of the wanted number.
    pub changes: u64,
    /// Changes whose direction was another than that of the one before, within ten minutes.
    pub reversals: u64,
    /// The 95th percentile of how much later than its own demand an answer was, in seconds.
    pub p95: f64,
    /// The 99th.
    pub p99: f64,
    /// The most instances that were wanted.
    pub peak: u32,
}

impl Outcome {
    /// The share of requests that were too late or lost, in percent.
    pub fn violations(&self) -> f64 {
        100.0 * self.violated as f64 / (self.requests as f64).max(1.0)
    }

    /// The share of requests that were lost, in percent.
    pub fn drops(&self) -> f64 {
        100.0 * self.dropped as f64 / (self.requests as f64).max(1.0)
    }

    /// How many times the hours that were needed at least were used.
    pub fn over(&self) -> f64 {
        self.instance_hours / self.busy_hours.max(f64::MIN_POSITIVE)
    }

    /// In an hour.
    pub fn starts_per_hour(&self) -> f64 {
        self.starts as f64 / self.hours.max(f64::MIN_POSITIVE)
    }

    /// In an hour.
    pub fn reversals_per_hour(&self) -> f64 {
        self.reversals as f64 / self.hours.max(f64::MIN_POSITIVE)
    }

    /// How many instances there were in the mean.
    pub fn mean_instances(&self) -> f64 {
        self.instance_hours / self.hours.max(f64::MIN_POSITIVE)
    }
}
