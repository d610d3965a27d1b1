//! How everything is, for people.

use std::sync::atomic::Ordering;

use super::state::Control;
use crate::admin::model::{ListenerStatus, PoolStatus, Status, UpstreamStatus};
use crate::snapshot::{Listener, Member, Pool};
use crate::types::{Bind, Moment};

impl Control {
    /// How everything is.
    pub(super) fn status(&mut self, now: Moment) -> Status {
        // Pools that are no longer in the configuration are shown as long as they have something to finish.
        let leaving: Vec<_> = self.leaving.iter_mut().map(|pool| pool_status(&pool.derive_now(now), now)).collect();
        let control = &self.keep.registry.control;
        let [accepted, refused] = control.reloads.values();
        let open = self.listeners.open();
        let listeners =
            open.map(|(number, _, binds)| listener_status(&self.current.listeners[number], binds)).collect();
        let in_flight =
            |listener: &std::sync::Arc<Listener>| listener.stats.sum(|lane| lane.in_flight.value()).max(0) as u64;
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: now.since(self.started).as_secs_f64(),
            config_file: Some(self.options.file.display().to_string()),
            generation: self.current.generation,
            workers: self.keep.registry.workers(),
            stopping: self.stopping.load(Ordering::Relaxed),
            requests: self.current.listeners.iter().map(requests).sum(),
            in_flight: self.current.listeners.iter().map(in_flight).sum(),
            reloads_accepted: accepted,
            reloads_refused: refused,
            last_reload: self.last_verdict.clone(),
            listeners,
            pools: self.current.pools.iter().map(|pool| pool_status(pool, now)).chain(leaving).collect(),
        }
    }
}

fn requests(listener: &std::sync::Arc<Listener>) -> u64 {
    listener.stats.sum(|lane| lane.requests.values().iter().sum::<u64>())
}

fn listener_status(listener: &std::sync::Arc<Listener>, binds: Vec<&Bind>) -> ListenerStatus {
    ListenerStatus {
        name: listener.name.to_string(),
        addresses: binds.iter().map(ToString::to_string).collect(),
        connections: listener.stats.sum(|lane| lane.open.value()).max(0) as u64,
        requests: requests(listener),
    }
}

fn pool_status(pool: &Pool, now: Moment) -> PoolStatus {
    PoolStatus {
        name: pool.name.to_string(),
        balance: pool.settings.balance.to_string(),
        panic: pool.panicking,
        upstreams: pool.members.iter().map(|member| upstream(pool, member, now)).collect(),
    }
}

/// How one upstream is.
pub(super) fn upstream(pool: &Pool, member: &Member, now: Moment) -> UpstreamStatus {
    let known = &member.upstream;
    let requests: u64 = known.stats.sum(|lane| lane.requests.values().iter().sum::<u64>());
    let answered_badly: u64 = known.stats.sum(|lane| lane.requests.values().last().copied().unwrap_or(0));
    let faults: u64 = known.stats.sum(|lane| lane.faults.values().iter().sum::<u64>());
    UpstreamStatus {
        address: known.address.to_string(),
        state: member.state,
        reason: member.reason.clone(),
        since_seconds: now.since(member.since).as_secs_f64(),
        in_flight: u64::from(known.load.in_flight()),
        streams: u64::from(known.streams.load(std::sync::atomic::Ordering::Relaxed)),
        sessions: pool.kept.mcp.get().map_or(0, |mcp| mcp.sessions.at(known.identity)) as u64,
        weight: member.effective_weight,
        configured_weight: member.weight,
        backup: member.backup,
        max_connections: member.max_connections,
        ewma_seconds: known.load.ewma(now).as_secs_f64(),
        requests: requests + faults,
        errors: answered_badly + faults,
        deadline_seconds: member.deadline.map(|deadline| deadline.since(now).as_secs_f64()),
        removed: member.leaving,
    }
}
