//! What is counted of connections to upstreams.

use std::cell::Cell;
use std::sync::Arc;

use super::target::Target;
use crate::telemetry::{Fault, Lane, UpstreamLane, UpstreamStats};

/// Counts one connection for requests: made now, open as long as this lives, idle or not.
///
/// **Cost**: some nanoseconds for each change.
pub(super) struct Counted {
    stats: Option<Arc<UpstreamStats>>,
    lane: Lane,
    idle: Cell<bool>,
}

impl Counted {
    /// A connection to `target` has been made; nothing is counted where nobody keeps the target's counts.
    pub(super) fn new(target: &Target, lane: Lane) -> Self {
        let counted = Counted { stats: target.stats.clone(), lane, idle: Cell::new(false) };
        if let Some(counts) = counted.counts() {
            counts.connects.up();
            counts.open.up();
        }
        counted
    }

    fn counts(&self) -> Option<&UpstreamLane> {
        self.stats.as_ref().map(|stats| stats.at(self.lane))
    }

    /// It waits for its next request, or does not any more.
    pub(super) fn set_idle(&self, idle: bool) {
        if self.idle.replace(idle) != idle
            && let Some(counts) = self.counts()
        {
            if idle { counts.idle.up() } else { counts.idle.down() }
        }
    }

    /// The upstream has said something on it that nobody had asked for.
    pub(super) fn strayed(&self) {
        if let Some(counts) = self.counts() {
            counts.faults.up(Fault::Unasked);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.set_idle(false);
        if let Some(counts) = self.counts() {
            counts.open.down();
        }
    }
}
