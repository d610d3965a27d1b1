//! What operators have said beside the load: signals, threshold policies, schedules, how fast the number may change, and what
//! happens to a step that made things worse.
//!
//! All of it counts from the *size*: the number that was wanted last. What is there can differ from it for a while (something died, a
//! start takes its time), and making that good again is no step: it uses up no pace, no budget, and is not judged.

mod behavior;
mod condition;
#[cfg(test)]
mod laws;
mod policy;
mod schedule;
mod signal;
#[cfg(test)]
mod tests;
mod verify;
mod window;
mod wish;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Observed, Settings};
pub(super) use behavior::Steps;
pub(super) use schedule::ceiling;
pub use schedule::{ScheduleError, check as check_schedule};
pub(super) use verify::Verdict;
pub(super) use wish::{Wishes, wishes};

/// What the rules remember.
///
/// **Bounds**: an hour of wishes and steps, and one entry for each policy and schedule there is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Memory {
    /// How many were wanted last.
    size: Option<u32>,
    /// When that was.
    looked: f64,
    /// Since when there are others than that.
    adrift: Option<f64>,
    /// What was changed.
    pub(super) steps: Steps,
    /// What all of them together wished for.
    pub(super) wished: window::Wished,
    /// What the signals wished for.
    signals: window::Greatest,
    policies: BTreeMap<String, policy::Run>,
    schedules: BTreeMap<String, schedule::Course>,
    pub(super) watch: verify::Watch,
}

/// What is not as wanted for so long was done by somebody else.
const FOREIGN: f64 = 30.0;

/// What is fewer than wanted for so long, without being needed, is not made good any more.
const GIVEN_UP: f64 = 120.0;

impl Memory {
    /// How many were wanted last, or are there because somebody else has seen to it.
    pub(super) fn size(&mut self, seen: &Observed, needed: u32, lead: f64, now: f64) -> u32 {
        let current = seen.current();
        let slept = now - std::mem::replace(&mut self.looked, now) > FOREIGN;
        let Some(size) = self.size.filter(|size| *size != current) else {
            self.adrift = None;
            self.size = Some(current);
            return current;
        };
        let since = now - *self.adrift.get_or_insert(now);
        let foreign = slept || current > size && since >= FOREIGN;
        let given_up = current < size && needed <= current && since >= GIVEN_UP.max(4.0 * lead);
        if foreign || given_up {
            self.adrift = None;
            self.size = Some(current);
            return current;
        }
        size
    }

    /// What there is counts as wanted, because nothing that is decided here is done.
    pub(super) fn follow(&mut self, size: u32) {
        self.size = Some(size);
        self.adrift = None;
    }

    /// A decision that will be carried out; whether its effect is to be watched.
    pub(super) fn carry_out(&mut self, seen: &Observed, size: u32, desired: u32, watched: bool, now: f64) {
        if desired != size {
            self.steps.note(now, size, desired);
            self.adrift = None;
            if watched {
                self.watch.begin(seen, size, desired, now);
            }
        }
        self.size = Some(desired);
    }

    /// Forgets policies and schedules that are not there any more.
    fn keep(&mut self, settings: &Settings) {
        self.policies.retain(|name, _| settings.policies.iter().any(|policy| policy.name == *name));
        let known = |key: &String| settings.schedules.iter().any(|schedule| schedule::key(schedule) == *key);
        self.schedules.retain(|key, _| known(key));
    }
}
