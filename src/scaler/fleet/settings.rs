use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::model;
use crate::scale::VictimOrder;
use crate::scaler::{process, spec_hash};

/// What the operator wants of one pool's instances, apart from their number.
///
/// **Units**: seconds, bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FleetSettings {
    /// The hash of the driver's settings; instances of another one are replaced.
    pub spec: String,
    /// Whether somebody else names and starts the instances, and is only told how many.
    pub by_count: bool,
    /// Whether the driver always takes away the highest number first (a StatefulSet).
    pub ordinal: bool,
    /// More than so many are not taken over when they are found without being known.
    pub max: u32,
    /// How long requests may finish while an instance drains.
    pub drain_requests: Duration,
    /// How long clients that are stuck to it may come back.
    pub drain_sessions: Duration,
    /// How long an instance may take to stop.
    pub grace: Duration,
    /// Who leaves first.
    pub victim: VictimOrder,
    /// Replaced after so long.
    pub max_age: Option<f64>,
    /// Replaced after so many requests.
    pub max_requests: Option<u64>,
    /// Replaced when it uses more bytes of memory.
    pub max_memory: Option<u64>,
    /// The first wait after a failed start.
    pub backoff: f64,
    /// The longest wait.
    pub max_backoff: f64,
    /// So many failures of one spec within five minutes stop the starting.
    pub quarantine_after: u32,
    /// Without a good check by then a start has failed; by the usual start-up time unless given.
    pub start_deadline: Option<f64>,
    /// An instance that is unhealthy for so long is replaced.
    pub unhealthy_for: f64,
    /// By count: what has not come about by then is told.
    pub converge: f64,
}

impl FleetSettings {
    /// Those of a pool's scaler; none where it has no scaler, or one without a driver.
    pub fn of(pool: &model::Pool) -> Option<FleetSettings> {
        let scaler = pool.scaler.as_ref()?;
        let how = How::of(scaler)?;
        let (drain, recycle, restart) = (&scaler.drain, &scaler.recycle, &scaler.restart);
        Some(FleetSettings {
            spec: how.spec,
            by_count: how.by_count,
            ordinal: how.ordinal,
            max: scaler.max,
            drain_requests: drain.requests,
            drain_sessions: drain.sessions,
            grace: how.grace,
            victim: drain.victim,
            max_age: recycle.max_age.map(|age| age.as_secs_f64()),
            max_requests: recycle.max_requests.map(u64::from),
            max_memory: recycle.max_memory.map(|size| size.0),
            backoff: restart.backoff.as_secs_f64(),
            max_backoff: restart.max_backoff.as_secs_f64().max(restart.backoff.as_secs_f64()),
            quarantine_after: restart.quarantine_after,
            start_deadline: restart.start_deadline.map(|deadline| deadline.as_secs_f64()),
            unhealthy_for: restart.unhealthy_for.as_secs_f64(),
            converge: how.converge,
        })
    }
}

/// What the driver's own section says.
struct How {
    spec: String,
    by_count: bool,
    ordinal: bool,
    grace: Duration,
    converge: f64,
}

impl How {
    fn of(scaler: &model::Scaler) -> Option<How> {
        let one_by_one = |spec, grace| How { spec, by_count: false, ordinal: false, grace, converge: 300.0 };
        let counted = |ordinal, converge: Duration| How {
            spec: String::new(),
            by_count: true,
            ordinal,
            grace: Duration::ZERO,
            converge: converge.as_secs_f64(),
        };
        if let Some(process) = &scaler.process {
            return Some(one_by_one(process::spec(process), process.grace));
        }
        if let Some(docker) = &scaler.docker {
            return Some(one_by_one(spec_hash(docker), docker.grace));
        }
        if let Some(systemd) = &scaler.systemd {
            return Some(one_by_one(spec_hash(systemd), systemd.grace));
        }
        if let Some(kubernetes) = &scaler.kubernetes {
            return Some(counted(kubernetes.target.starts_with("statefulset/"), Duration::from_secs(300)));
        }
        if let Some(webhook) = &scaler.webhook {
            return Some(counted(false, webhook.converge));
        }
        scaler.exec.as_ref().map(|exec| counted(false, exec.converge))
    }
}
