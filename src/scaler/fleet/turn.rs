//! What goes into a step of a fleet, and what comes out of it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::admin::scaling::Finding;
use crate::health::State;
use crate::scaler::{Found, InstanceId, Order, ScaleRequest, Usage};
use crate::snapshot::Replica;
use crate::types::Address;

/// What is known at the time of a step.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The driver's list; none where it was not asked or did not answer: then nothing is forgotten, and soon nothing is done.
    pub found: Option<&'a [Found]>,
    /// What control shows of the pool's members.
    pub seen: &'a BTreeMap<Address, Seen>,
    /// What the instances use, as far as is known.
    pub usage: &'a BTreeMap<InstanceId, Usage>,
    /// How many there are to be; none leaves the number as it is (what crashed is still replaced).
    pub wanted: Option<u32>,
    /// So many of them are to get no new work already.
    pub cordon: u32,
    /// The decision that wants it.
    pub decision: &'a str,
    /// The leader's generation.
    pub generation: u64,
    /// Why, in a word.
    pub reason: &'a str,
    /// How many may be started now, replacements included.
    pub may_start: u32,
    /// Whether any may be drained and stopped now.
    pub may_stop: bool,
    /// A random draw.
    pub random: u64,
}

/// What control shows of a member.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// How it is.
    pub state: State,
    /// Since when, in seconds since 1970, where that is known: makes measured start-up times finer than the steps.
    pub since: Option<f64>,
    /// Requests in progress.
    pub in_flight: u64,
    /// Requests ever, as counted since this process began.
    pub requests: u64,
    /// Sessions stuck to it.
    pub sessions: u64,
    /// Whether slow start still holds it back.
    pub warming: bool,
    /// Why it is so.
    pub reason: String,
}

/// What a step wants done and told.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// For the driver, in this order. Each of them is answered by [`Fleet::acted`](super::Fleet::acted).
    pub actions: Vec<Action>,
    /// The whole set for control, also where it is the same as before.
    pub replicas: Vec<Replica>,
    /// What became of whom, for the log and the history.
    pub news: Vec<News>,
    /// What needs attention now.
    pub findings: Vec<Finding>,
    /// Start-up times measured since the last step, in seconds: from the order to the first good check.
    pub started: Vec<f64>,
    /// Starts that failed since the last step.
    pub start_failures: u32,
    /// Starts keep failing: nothing is to be added.
    pub start_blocked: bool,
}

/// What a driver is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// [`Driver::start`](crate::scaler::Driver::start).
    Start(Order),
    /// [`Driver::stop`](crate::scaler::Driver::stop).
    Stop {
        /// Which.
        id: InstanceId,
        /// How long it may take.
        grace: Duration,
    },
    /// [`Driver::scale`](crate::scaler::Driver::scale).
    Scale(ScaleRequest),
    /// [`Driver::mark`](crate::scaler::Driver::mark): everybody who is going to be removed.
    Mark(Vec<InstanceId>),
}

/// An instance has become something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Which.
    pub id: InstanceId,
    /// What it was; `new` for one that was not known before.
    pub from: &'static str,
    /// What it is now; `gone` at the end.
    pub to: &'static str,
    /// Why, for people.
    pub why: String,
    /// Whether people should look at it: a crash, a failed start.
    pub bad: bool,
}
