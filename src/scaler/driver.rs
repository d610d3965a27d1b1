use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use serde::{Deserialize, Serialize};

use crate::admin::scaling::Finding;
use crate::types::Address;

/// Makes and removes the instances of one pool. Each call is one conversation with whatever really makes them.
///
/// A driver remembers nothing that it could not find out again: [`Driver::list`] is the truth, also right after a start (re-adoption). It
/// never retries by itself and never waits longer than its own bounds; the fleet decides what comes next.
///
/// **Errors**: a [`DriverError`] says what went wrong, what the operator can do, and whether the driver itself is out of reach.
pub trait Driver {
    /// `process`, `docker` …
    fn kind(&self) -> &'static str;

    /// Whether instances are started and stopped one by one.
    fn by_count(&self) -> bool {
        false
    }

    /// Everything there is that is this pool's, whatever its state, also what an earlier Tidegate has made.
    ///
    /// **Cost**: called about once a second.
    fn list(&self) -> LocalBoxFuture<'_, Result<Vec<Found>, DriverError>>;

    /// Starts an instance; answers when the order has been taken, not when it is up. Starting what is there already (same id) is no error.
    /// Never called where [`Driver::by_count`].
    fn start<'a>(&'a self, order: &'a Order) -> LocalBoxFuture<'a, Result<(), DriverError>>;

    /// Asks an instance to stop and, after `grace`, ends it. Answers when the order has been taken. Stopping what is gone is no error.
    /// Never called where [`Driver::by_count`].
    fn stop<'a>(&'a self, id: &'a InstanceId, grace: Duration) -> LocalBoxFuture<'a, Result<(), DriverError>>;

    /// Sets how many there are to be. Only called where [`Driver::by_count`].
    fn scale<'a>(&'a self, request: &'a ScaleRequest) -> LocalBoxFuture<'a, Result<(), DriverError>> {
        let _ = request;
        Box::pin(async { Ok(()) })
    }

    /// Tells who is going to be removed, as soon as that is known (Kubernetes' pod-deletion-cost); `marked` is everybody to whom that applies now.
    fn mark<'a>(&'a self, marked: &'a [InstanceId]) -> LocalBoxFuture<'a, Result<(), DriverError>> {
        let _ = marked;
        Box::pin(async { Ok(()) })
    }

    /// Who goes in any case, first to go first, where the number falls by `count`: whoever really makes the instances has a say in that. May be fewer
    /// than `count`: the others are the caller's choice, told by [`Driver::mark`]. None where all of them are. Only asked where [`Driver::by_count`].
    fn forced_victims(&self, found: &[Found], count: usize) -> Option<Vec<InstanceId>> {
        let _ = (found, count);
        None
    }

    /// What would keep [`Driver::scale`], [`Driver::start`] or [`Driver::stop`] from working now, as far as that is known without asking anybody.
    fn hindrance(&self) -> Option<DriverError> {
        None
    }

    /// What instances use now; those that it cannot tell of are not there.
    fn usage(&self) -> LocalBoxFuture<'_, Result<Vec<(InstanceId, Usage)>, DriverError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Where the pool's other members are, as configured or found by name: what somebody else has made is known by that.
    fn discovered(&self, addresses: Vec<Address>) {
        let _ = addresses;
    }

    /// What the last process has asked for, right after a start: whoever has to be asked what there is is asked under the same decision.
    fn resume(&self, request: ScaleRequest) {
        let _ = request;
    }

    /// Tells what would be asked for, where somebody wants to hear of that (`mode = "dry_run"`).
    fn propose<'a>(&'a self, request: &'a ScaleRequest) -> LocalBoxFuture<'a, Result<(), DriverError>> {
        let _ = request;
        Box::pin(async { Ok(()) })
    }

    /// What was asked for and has not come about in time; `now` in seconds since 1970.
    fn diverging(&self, now: f64) -> Option<Finding> {
        let _ = now;
        None
    }

    /// Ready when something may have changed, so that [`Driver::list`] is worth calling before its time. May never be.
    fn changed(&self) -> LocalBoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

/// An instance's name: `POOL-N`, unique among all that the pool ever had at the same time; where somebody else names them, theirs.
pub type InstanceId = String;

/// What is to be started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Its id.
    pub id: InstanceId,
    /// The decision that wanted it.
    pub decision: String,
    /// The leader's generation: drivers that can, refuse an older one than they have seen.
    pub generation: u64,
}

/// How many there are to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScaleRequest {
    /// So many.
    pub desired: u32,
    /// So many are there as far as is known.
    pub current: u32,
    /// The decision that wants it; the same one again is the same request again.
    pub decision: String,
    /// The leader's generation.
    pub generation: u64,
    /// Why.
    pub reason: String,
    /// Who should go, where the number falls.
    pub victims: Vec<InstanceId>,
}

/// An instance that a driver has found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Its id.
    pub id: InstanceId,
    /// Where it is reached; none while that is not known.
    pub address: Option<Address>,
    /// What it is doing.
    pub life: Life,
    /// The hash of the driver's settings that it was started with; none where the driver cannot tell.
    pub spec: Option<String>,
    /// When it was started, in seconds since 1970.
    pub started: Option<f64>,
    /// The leader's generation that started it.
    pub generation: u64,
    /// Whatever else people want to see: `pid 4711`, a container's id, a pod's node.
    pub detail: String,
    /// The zone it is in, where there are such.
    pub zone: Option<String>,
}

/// What an instance is doing, by its driver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Life {
    /// Being made: pending, pulling, unschedulable.
    Pending,
    /// It runs.
    Running,
    /// It has been asked to stop and still runs.
    Stopping,
    /// It has ended; the words say how (`exit code 3`, `SIGKILL`, `out of memory`).
    Ended {
        /// For people.
        how: String,
        /// Whether it ended because it was asked to.
        asked: bool,
    },
}

/// What an instance uses.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// CPUs in use (1.0 is one of them), over the time since the last look.
    pub cpus: Option<f64>,
    /// … as a share of what it may use.
    pub cpu_share: Option<f64>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// … as a share of what it may use.
    pub memory_share: Option<f64>,
}

/// Why a driver could not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {advice}")]
pub struct DriverError {
    /// What went wrong, in a sentence without a full stop.
    pub what: String,
    /// What the operator can do about it.
    pub advice: String,
    /// What it means for what comes next.
    pub kind: ErrorKind,
}

/// What a driver's error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The engine is out of reach or too slow: nothing is known now, everything is to be held as it is.
    Unreachable,
    /// This start or stop cannot be done: counts as a failed start.
    Refused,
    /// Asked by a leader that is none any more.
    Fenced,
    /// A quota or the machine is full: no use asking for more now.
    Full,
    /// Somebody else scales the same thing: we do not fight.
    OtherScaler,
}

/// A hash of a driver's settings: instances of another one are replaced. The same in every process.
pub fn spec_hash(settings: &impl std::fmt::Debug) -> String {
    let text = format!("{settings:?}");
    format!("{:016x}", crate::balance::stable_hash(text.as_bytes()))
}
