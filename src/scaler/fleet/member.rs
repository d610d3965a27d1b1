use serde::{Deserialize, Serialize};

use super::turn::Seen;
use crate::scaler::{Found, InstanceId};
use crate::types::Address;

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// To be started; the driver has not answered yet.
    Requested,
    /// The driver is making it.
    Starting,
    /// It is up; its first good check is awaited.
    Probing,
    /// It takes requests, as many as slow start lets it.
    Warming,
    /// It takes requests.
    Ready,
    /// It cannot be used now.
    Unhealthy,
    /// It finishes what it has.
    Draining,
    /// It is being stopped.
    Stopping,
    /// It failed, and is tried again after a while.
    Backoff,
    /// It failed as others of its build did, and is tried again when that one of them works.
    Quarantined,
    /// It is ours, but nobody wants it.
    Orphan,
}

impl Stage {
    /// Each of them, in the order of a life.
    pub const ALL: [Stage; 11] = [
        Stage::Requested,
        Stage::Starting,
        Stage::Probing,
        Stage::Warming,
        Stage::Ready,
        Stage::Unhealthy,
        Stage::Draining,
        Stage::Stopping,
        Stage::Backoff,
        Stage::Quarantined,
        Stage::Orphan,
    ];

    /// Its word in logs, metrics and the API.
    pub const fn word(self) -> &'static str {
        match self {
            Stage::Requested => "requested",
            Stage::Starting => "starting",
            Stage::Probing => "probing",
            Stage::Warming => "warming",
            Stage::Ready => "ready",
            Stage::Unhealthy => "unhealthy",
            Stage::Draining => "draining",
            Stage::Stopping => "stopping",
            Stage::Backoff => "backoff",
            Stage::Quarantined => "quarantined",
            Stage::Orphan => "orphan",
        }
    }

    /// Whether it no longer counts towards the wanted number.
    pub(super) fn is_leaving(self) -> bool {
        matches!(self, Stage::Draining | Stage::Stopping | Stage::Orphan)
    }

    /// Whether there is nothing behind it: it failed and waits to be tried again.
    pub(super) fn is_vacant(self) -> bool {
        matches!(self, Stage::Backoff | Stage::Quarantined)
    }

    /// Whether it takes requests.
    pub(super) fn is_serving(self) -> bool {
        matches!(self, Stage::Warming | Stage::Ready)
    }
}

/// An instance, or the place of one that failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) id: InstanceId,
    pub(super) stage: Stage,
    /// Since when it is in that stage.
    pub(super) since: f64,
    /// When it was ordered, or started as its driver has it.
    pub(super) ordered: f64,
    /// From when on its start deadline counts.
    pub(super) awaited: f64,
    /// Why it is what it is.
    pub(super) why: String,
    /// What its driver says of it.
    pub(super) detail: String,
    pub(super) address: Option<Address>,
    pub(super) zone: Option<String>,
    /// None where its driver cannot tell.
    pub(super) spec: Option<String>,
    /// When it passed its first check.
    pub(super) proved: Option<f64>,
    /// Failures in a row, its predecessors' included.
    pub(super) attempts: u32,
    /// When to try again: the start of a vacant one, the stop of a stopping one.
    pub(super) again: f64,
    pub(super) cordoned: bool,
    /// Somebody asked for its replacement.
    pub(super) recycle: bool,
    /// It leaves because another has taken its place.
    pub(super) replaced: bool,
    /// An operator has taken it out of use: it is left alone.
    pub(super) held: bool,
    pub(super) requests: Count,
    #[serde(skip)]
    pub(super) load: Load,
}

/// What is going on at an instance.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Load {
    pub(super) in_flight: u64,
    pub(super) sessions: u64,
    pub(super) cpus: Option<f64>,
    pub(super) memory: Option<u64>,
}

/// A count that goes on when the counter it is read from begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Count {
    pub(super) total: u64,
    last: Option<u64>,
}

impl Count {
    fn read(&mut self, value: u64) {
        // The first value is a start and not a growth: an address may have counted for somebody else before.
        let last = self.last.replace(value).unwrap_or(value);
        self.total += if value >= last { value - last } else { value };
    }
}

impl Member {
    /// One that is to be started.
    pub(super) fn ordered(id: InstanceId, spec: &str, why: String, now: f64) -> Member {
        Member {
            id,
            stage: Stage::Requested,
            since: now,
            ordered: now,
            awaited: now,
            why,
            detail: String::new(),
            address: None,
            zone: None,
            spec: Some(spec.to_owned()),
            proved: None,
            attempts: 0,
            again: 0.0,
            cordoned: false,
            recycle: false,
            replaced: false,
            held: false,
            requests: Count::default(),
            load: Load::default(),
        }
    }

    /// One that was there already.
    pub(super) fn found(found: &Found, stage: Stage, why: String, now: f64) -> Member {
        let mut member = Member::ordered(found.id.clone(), "", why, now);
        member.stage = stage;
        member.ordered = found.started.unwrap_or(now).min(now);
        member.spec = None;
        member.told(found);
        member
    }

    /// What the driver says of it.
    pub(super) fn told(&mut self, found: &Found) {
        if self.address != found.address {
            self.address = found.address.clone();
            self.requests.last = None;
        }
        self.zone.clone_from(&found.zone);
        self.detail.clone_from(&found.detail);
        if found.spec.is_some() {
            self.spec.clone_from(&found.spec);
        }
    }

    /// What control says of it.
    pub(super) fn shown(&mut self, seen: &Seen) {
        self.load.in_flight = seen.in_flight;
        self.load.sessions = seen.sessions;
        self.requests.read(seen.requests);
    }

    /// Whether it has never passed a check.
    pub(super) fn is_unproved(&self) -> bool {
        self.proved.is_none() && matches!(self.stage, Stage::Requested | Stage::Starting | Stage::Probing)
    }

    /// Its number: `tools-3` is 3.
    pub(super) fn number(&self) -> u64 {
        self.id.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0)
    }
}
