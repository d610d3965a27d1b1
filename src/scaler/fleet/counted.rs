//! Where somebody else makes the instances: one number, and who should go.

use serde::{Deserialize, Serialize};

use super::{Action, Fleet, Input, Stage};
use crate::scaler::{DriverError, InstanceId, ScaleRequest};

/// A number that has not come about is asked for again after so long.
const AGAIN: f64 = 30.0;
/// One that was to go and is still there after so long, while somebody else went, is wanted again.
const SPARED: f64 = 60.0;

/// What was last asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Scaled {
    pub(super) desired: u32,
    victims: Vec<InstanceId>,
    /// When it was asked for.
    pub(super) at: f64,
    /// Since when that number is wanted.
    pub(super) since: f64,
    taken: bool,
}

impl Fleet {
    /// Tells the number, and who leaves.
    pub(super) fn count(&mut self, input: &Input<'_>, now: f64, actions: &mut Vec<Action>) {
        self.mark(actions);
        if input.may_start == 0 && !input.may_stop {
            return;
        }
        let current = self.alive;
        let staying = self.saved.members.iter().filter(|member| member.stage != Stage::Stopping).count() as u32;
        let draining = staying - self.present();
        let mut desired = (self.target + draining).min(current.saturating_add(input.may_start));
        if !input.may_stop {
            desired = desired.max(current);
        }
        self.spare(desired, now);
        let stopping = |stage| stage == Stage::Stopping;
        let mut victims: Vec<InstanceId> =
            self.saved.members.iter().filter(|member| stopping(member.stage)).map(|member| member.id.clone()).collect();
        victims.sort_unstable();
        let settled = self.saved.scaled.as_ref().is_some_and(|scaled| {
            let same = scaled.desired == desired && scaled.victims == victims;
            let fresh = now - scaled.at < if scaled.taken { AGAIN } else { 5.0 };
            same && (fresh || (scaled.taken && current == desired))
        });
        // Nobody has ever asked, and it is as it should be.
        let untouched = self.saved.scaled.is_none() && current == desired && victims.is_empty();
        if settled || untouched {
            return;
        }
        let before = self.saved.scaled.as_ref().filter(|scaled| scaled.desired == desired);
        let since = before.map_or(now, |scaled| scaled.since);
        self.saved.scaled = Some(Scaled { desired, victims: victims.clone(), at: now, since, taken: false });
        actions.push(Action::Scale(ScaleRequest {
            desired,
            current,
            decision: input.decision.to_owned(),
            generation: input.generation,
            reason: input.reason.to_owned(),
            victims,
        }));
    }

    /// How a request for a number went.
    pub(super) fn scale_answered(&mut self, request: &ScaleRequest, result: &Result<(), DriverError>, now: f64) {
        if let Some(scaled) = self.saved.scaled.as_mut().filter(|scaled| scaled.desired == request.desired) {
            scaled.taken = result.is_ok();
            if result.is_ok() {
                scaled.at = now;
            }
        }
    }

    /// Everybody who is going to be removed, told as soon as that changes.
    fn mark(&mut self, actions: &mut Vec<Action>) {
        let leaving = self.saved.members.iter().filter(|member| member.stage.is_leaving() || member.cordoned);
        let mut leaving: Vec<InstanceId> = leaving.map(|member| member.id.clone()).collect();
        leaving.sort_unstable();
        let known = self.marked.as_ref();
        // Nothing to mark and nothing marked before: nothing to tell. After a restart marks of the one before are taken away.
        if known != Some(&leaving) {
            actions.push(Action::Mark(leaving.clone()));
            self.marked = Some(leaving);
        }
    }

    /// The number is as wanted, but somebody else went than was meant to: whoever was meant to stays.
    fn spare(&mut self, desired: u32, now: f64) {
        if self.alive > desired {
            return;
        }
        for at in 0..self.saved.members.len() {
            let member = &self.saved.members[at];
            if member.stage == Stage::Stopping && now - member.since > SPARED {
                self.turn(at, Stage::Probing, "another one was removed in its place".to_owned(), now);
            }
        }
    }

    /// Those that were asked for and do not show yet, with the time since.
    pub(super) fn announced(&self, now: f64) -> Option<(u32, f64)> {
        let scaled = self.saved.scaled.as_ref().filter(|_| self.settings.by_count)?;
        let missing = scaled.desired.saturating_sub(self.alive);
        (missing > 0).then_some((missing, now - scaled.since))
    }
}
