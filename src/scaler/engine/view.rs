use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;
use crate::admin::scaling::PoolSignals;
use crate::health::State;
use crate::scale::Observed;
use crate::scaler::fleet::Seen;
use crate::scaler::{Found, InstanceId, Life, PoolHeard, Usage};
use crate::snapshot::{Intent, MemberReading, Pool, Replica};
use crate::types::Address;

/// A pool's members as the fleet sees them: what this proxy's control shows, and what the other proxies still have in progress there.
///
/// `dissolved` says that the pool is in no table any more: then only what is still in progress is known. `known` are the last readings, for
/// what is not to be counted at each look.
pub(super) fn members(
    pool: Option<&Pool>,
    dissolved: bool,
    known: &[MemberReading],
    shared: &Shared,
    name: &str,
) -> BTreeMap<Address, Seen> {
    let Some(pool) = pool else { return BTreeMap::new() };
    let elsewhere = shared.elsewhere(name);
    let seen = pool.members.iter().filter_map(|member| {
        let upstream = &member.upstream;
        let address: Address = upstream.address.parse().ok()?;
        let reading = known.iter().find(|reading| reading.address == upstream.address);
        let others = elsewhere.get(&*upstream.address).copied().unwrap_or(0);
        let in_flight = u64::from(upstream.load.in_flight()) + others;
        // Drained here is not drained where another proxy still has requests at it.
        let state = match member.state {
            _ if dissolved && in_flight == 0 => State::Drained,
            _ if dissolved => State::Draining,
            State::Drained if others > 0 => State::Draining,
            state => state,
        };
        let seen = Seen {
            state,
            since: Some(shared.wall.borrow().at(member.since)),
            in_flight,
            requests: reading.map_or(0, |reading| reading.requests),
            sessions: reading.map_or(0, |reading| reading.sessions as u64),
            warming: state == State::Ready
                && member.effective_weight > 0.0
                && member.effective_weight < f64::from(member.weight),
            reason: member.reason.clone(),
        };
        Some((address, seen))
    });
    seen.collect()
}

/// The replicas of a pool about which another proxy decides: whoever runs, and those that drain there drain here too.
pub(super) fn followed(found: &[Found], draining: &[String], drain: (Duration, Duration)) -> Vec<Replica> {
    let running = found.iter().filter(|found| matches!(found.life, Life::Running | Life::Stopping));
    let replica = |found: &Found| {
        let address = found.address.clone()?;
        let leaves = found.life == Life::Stopping || draining.contains(&address.to_string());
        let intent = if leaves { Intent::Drain { requests: drain.0, sessions: drain.1 } } else { Intent::Serve };
        Some(Replica { id: Arc::from(&*found.id), address, intent })
    };
    running.filter_map(replica).collect()
}

/// What was seen between two counts of the same counters, `span` seconds apart.
pub(super) fn between(before: &PoolSignals, after: &PoolSignals, span: f64) -> Observed {
    let count = |before: u64, after: u64| after.saturating_sub(before) as f64;
    Observed {
        span,
        arrivals: count(before.arrivals, after.arrivals),
        completions: count(before.completions, after.completions),
        held: (after.held - before.held).max(0.0),
        in_flight: after.in_flight,
        queue: after.queue as f64,
        oldest_wait: after.oldest_wait,
        saturated: count(before.saturated, after.saturated),
        errors: count(before.errors, after.errors),
        latency_p95: after.latency_p95,
        sessions: after.sessions as f64,
        complete: true,
        ..Observed::default()
    }
}

/// Adds what other proxies have seen of the same pool.
pub(super) fn add(seen: &mut Observed, heard: PoolHeard) {
    seen.arrivals += heard.arrivals;
    seen.completions += heard.completions;
    seen.held += heard.held;
    seen.in_flight += heard.in_flight;
    seen.queue += heard.queue;
    seen.oldest_wait = seen.oldest_wait.max(heard.oldest_wait);
    seen.saturated += heard.saturated;
    seen.errors += heard.errors;
    seen.sessions += heard.sessions;
    seen.latency_p95 = match (seen.latency_p95, heard.latency_p95) {
        (Some(one), Some(other)) => Some(one.max(other)),
        (one, other) => one.or(other),
    };
}

/// Means of what instances use, as shares of what they may; none where nobody can tell.
pub(super) fn usage_shares(usage: &BTreeMap<InstanceId, Usage>) -> (Option<f64>, Option<f64>) {
    let mean = |of: fn(&Usage) -> Option<f64>| {
        let known: Vec<f64> = usage.values().filter_map(of).collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    };
    (mean(|usage| usage.cpu_share), mean(|usage| usage.memory_share))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(id: &str, life: Life, address: Option<&str>) -> Found {
        Found {
            id: id.to_owned(),
            address: address.map(|address| address.parse().unwrap()),
            life,
            spec: None,
            started: None,
            generation: 1,
            detail: String::new(),
            zone: None,
        }
    }

    #[test]
    fn a_follower_uses_what_runs_and_drains_what_the_leader_drains() {
        let all = [
            found("a-1", Life::Running, Some("127.0.0.1:1")),
            found("a-2", Life::Running, Some("127.0.0.1:2")),
            found("a-3", Life::Stopping, Some("127.0.0.1:3")),
            found("a-4", Life::Pending, None),
            found("a-5", Life::Ended { how: "exit code 1".to_owned(), asked: false }, Some("127.0.0.1:5")),
        ];
        let span = (Duration::from_secs(1), Duration::from_secs(2));
        let replicas = followed(&all, &["127.0.0.1:2".to_owned()], span);
        let shown: Vec<_> = replicas.iter().map(|replica| (&*replica.id, replica.intent == Intent::Serve)).collect();
        assert_eq!(shown, [("a-1", true), ("a-2", false), ("a-3", false)]);
    }

    #[test]
    fn shares_are_means_of_those_that_are_known() {
        let usage = |cpu| Usage { cpu_share: cpu, ..Usage::default() };
        let all =
            [("a".to_owned(), usage(Some(0.5))), ("b".to_owned(), usage(Some(1.0))), ("c".to_owned(), usage(None))];
        assert_eq!(usage_shares(&BTreeMap::from(all)), (Some(0.75), None));
    }
}
