use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Learned, Pool};
use crate::health::State;
use crate::telemetry::Distribution;
use crate::types::Moment;

/// What a pool's counters say at a moment; what the scaler goes by.
///
/// Counts are those since the pool was first configured, and only grow; whoever wants the last second's takes the difference of two readings.
#[derive(Debug, Clone)]
pub struct Readings {
    /// Requests that came to the pool, each once, whatever became of it. Of a pool that may sleep without those of
    /// `sleep.ignore_agents` and `sleep.ignore_paths`.
    pub arrivals: u64,
    /// Requests that have given their last slot back.
    pub completions: u64,
    /// How long all slots that have been given back were held, those of failed attempts included.
    pub held_seconds: f64,
    /// Requests refused for want of room: queue full, waited too long, no upstream fit, every upstream full, connections refused.
    pub saturated: u64,
    /// Answers of 500 and above by upstreams.
    pub errors: u64,
    /// Requests at upstreams now.
    pub in_flight: u32,
    /// Requests that wait now.
    pub queue: usize,
    /// How long the one has waited who has waited longest.
    pub oldest_wait: Duration,
    /// From sending requests to the heads of their answers, all so far. Empty without a `scaler`.
    pub latency: Distribution,
    /// Keys that are known to belong to some upstream; 0 where stickiness is by our own cookie, of which nobody knows who holds one.
    pub sessions: usize,
    /// The members one by one.
    pub by_member: Vec<MemberReading>,
}

/// What is known of one member.
#[derive(Debug, Clone)]
pub struct MemberReading {
    /// Its address as text: with its pool its identity.
    pub address: Arc<str>,
    /// The scaler's name for it, where it is one of the scaler's.
    pub replica: Option<Arc<str>>,
    /// What it may take now.
    pub state: State,
    /// Requests in progress.
    pub in_flight: u32,
    /// Attempts ever made at this address, whoever was there.
    pub requests: u64,
    /// Keys that belong to it.
    pub sessions: usize,
}

impl Pool {
    /// What the counters say now.
    ///
    /// **Cost**: some microseconds and one for each member; the sessions are counted as [`Sessions`] says. Not for the request path.
    pub fn readings(&self, now: Moment) -> Readings {
        let kept = &self.kept;
        let stats = &kept.stats;
        let idle = self.settings.sticky.as_ref().filter(|sticky| sticky.learn.is_some()).map(|s| s.idle_timeout);
        let sessions = match kept.mcp.get() {
            Some(mcp) => Arc::new(mcp.sessions.count()),
            None => idle.map(|idle| kept.sessions.count(&kept.learned, idle, now)).unwrap_or_default(),
        };
        let members = self.members.iter().map(|member| {
            let upstream = &member.upstream;
            let answers: u64 = upstream.stats.sum(|lane| lane.requests.values().iter().sum::<u64>());
            let faults: u64 = upstream.stats.sum(|lane| lane.faults.values().iter().sum::<u64>());
            MemberReading {
                address: upstream.address.clone(),
                replica: member.replica.clone(),
                state: member.state,
                in_flight: upstream.load.in_flight(),
                requests: answers + faults,
                sessions: sessions.get(&upstream.identity).copied().unwrap_or(0),
            }
        });
        let by_member: Vec<MemberReading> = members.collect();
        Readings {
            arrivals: stats.sum(|lane| lane.arrivals.value()),
            completions: stats.sum(|lane| lane.completions.value()),
            held_seconds: stats.sum(|lane| lane.held.value()) as f64 / 1e9,
            saturated: stats.sum(|lane| lane.saturated.value()),
            errors: stats.sum(|lane| lane.errors.value()),
            in_flight: by_member.iter().map(|member| member.in_flight).sum(),
            queue: kept.queue.len(),
            oldest_wait: kept.queue.oldest().map_or(Duration::ZERO, |since| now.since(since)),
            latency: stats.latency(),
            sessions: sessions.values().sum(),
            by_member,
        }
    }
}

/// The last count of what each upstream has in the table of stickiness.
///
/// **Cost**: one pass over the table, about 20 ns for each key, at most once a second for each ten thousand keys: a hundred thousand are
/// counted every ten seconds. In between the last count is given.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<Option<(Moment, Counts)>>);

type Counts = Arc<HashMap<u64, usize>>;

impl Sessions {
    const KEYS_A_SECOND: f64 = 10_000.0;

    /// Keys for each upstream's identity, counted now or not long ago.
    fn count(&self, learned: &Learned, idle: Duration, now: Moment) -> Counts {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A little less than the second, so that whoever asks once a second has it fresh each time.
        let fresh_for = Duration::from_secs_f64((learned.len() as f64 / Sessions::KEYS_A_SECOND).floor() * 0.9);
        match &*last {
            Some((at, counts)) if now.since(*at) < fresh_for => counts.clone(),
            _ => {
                let counts = Arc::new(learned.by_upstream(idle, now));
                *last = Some((now, counts.clone()));
                counts
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_counted_for_each_upstream_and_a_large_table_less_often() {
        let (learned, sessions) = (Learned::default(), Sessions::default());
        let idle = Duration::from_secs(60);
        let start = Moment::START + Duration::from_secs(100);
        for key in 0..10u64 {
            learned.learn(&key.to_be_bytes(), key % 2, 1_000_000, start);
        }
        let counts = sessions.count(&learned, idle, start);
        assert_eq!((counts.get(&0), counts.get(&1), counts.get(&2)), (Some(&5), Some(&5), None));
        learned.learn(b"one more", 2, 1_000_000, start);
        assert_eq!(sessions.count(&learned, idle, start).get(&2), Some(&1), "a small table is counted each time");
        for key in 0..30_000u64 {
            learned.learn(&key.to_be_bytes(), 7, 1_000_000, start);
        }
        let second = Duration::from_secs(1);
        assert!(sessions.count(&learned, idle, start + second).len() == 3, "the last count is not three seconds old");
        let counts = sessions.count(&learned, idle, start + 3 * second);
        assert_eq!((counts.get(&7), counts.get(&0)), (Some(&30_000), None));
        assert!(sessions.count(&learned, idle, start + idle * 2).is_empty(), "what is idle for too long is no session");
    }
}
