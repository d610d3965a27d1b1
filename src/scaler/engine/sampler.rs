use std::time::Duration;

use crate::admin::scaling::PoolSignals;
use crate::snapshot::{Pool, Readings};
use crate::telemetry::Distribution;
use crate::types::Moment;

/// Turns what the request path counts into what this proxy has seen of a pool over the last second.
///
/// Requests in progress are looked at ten times a second and averaged: the request path pays nothing for that, and for requests shorter
/// than a tenth of a second the arrivals and their service time tell it better anyway.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    in_flight: f64,
    looks: f64,
    oldest_wait: Duration,
    latency: Option<Distribution>,
}

impl Sampler {
    /// A look in between.
    pub(super) fn look(&mut self, pool: &Pool, now: Moment) {
        let in_flight: u32 = pool.members.iter().map(|member| member.upstream.load.in_flight()).sum();
        self.in_flight += f64::from(in_flight);
        self.looks += 1.0;
        self.oldest_wait =
            self.oldest_wait.max(pool.kept.queue.oldest().map_or(Duration::ZERO, |since| now.since(since)));
    }

    /// What was seen since this was last called; counts are since the start.
    pub(super) fn signals(&mut self, readings: &Readings) -> PoolSignals {
        let in_flight = if self.looks > 0.0 { self.in_flight / self.looks } else { f64::from(readings.in_flight) };
        let oldest_wait = self.oldest_wait.max(readings.oldest_wait);
        (self.in_flight, self.looks, self.oldest_wait) = (0.0, 0.0, Duration::ZERO);
        let recent = match self.latency.replace(readings.latency.clone()) {
            Some(before) => readings.latency.since(&before),
            None => readings.latency.clone(),
        };
        PoolSignals {
            arrivals: readings.arrivals,
            completions: readings.completions,
            held: readings.held_seconds,
            saturated: readings.saturated,
            errors: readings.errors,
            in_flight,
            queue: readings.queue as u64,
            oldest_wait: oldest_wait.as_secs_f64(),
            latency_p95: (recent.count() > 0).then(|| recent.quantile(0.95).as_secs_f64()),
            sessions: readings.sessions as u64,
            leaving: Vec::new(),
            upstreams: readings
                .by_member
                .iter()
                .map(|member| (member.address.to_string(), u64::from(member.in_flight)))
                .collect(),
        }
    }
}
