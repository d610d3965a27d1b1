//! How instances leave: drained, then stopped, then gone.

use super::{APPEARS_WITHIN, Action, Fleet, Input, Stage};
use crate::health::State;

/// Control ends a drain by its deadline; this much later it is ended here, whatever control shows.
const MARGIN: f64 = 10.0;
/// Control may take so long to show what it was told.
const ECHO: f64 = 3.0;

impl Fleet {
    /// Stops those that have drained, and asks again for stops that did not come about.
    pub(super) fn let_go(&mut self, input: &Input<'_>, now: f64, actions: &mut Vec<Action>) {
        let acting = input.may_start > 0 || input.may_stop;
        for at in 0..self.saved.members.len() {
            match self.saved.members[at].stage {
                Stage::Draining if input.may_stop => {
                    if let Some(why) = self.drained(at, input, now) {
                        self.stop(at, why, now, actions);
                    }
                }
                Stage::Stopping if acting && now >= self.saved.members[at].again => {
                    let why = self.saved.members[at].why.clone();
                    self.stop(at, why, now, actions);
                }
                _ => {}
            }
        }
    }

    /// Why a draining one can be stopped now, if it can.
    fn drained(&self, at: usize, input: &Input<'_>, now: f64) -> Option<String> {
        let member = &self.saved.members[at];
        let span = now - member.since;
        let longest = self.settings.drain_requests.max(self.settings.drain_sessions).as_secs_f64();
        let Some(address) = &member.address else { return Some("it has no address to drain".to_owned()) };
        match input.seen.get(address) {
            Some(seen) if seen.state == State::Drained => Some(format!("drained: {}", seen.reason)),
            None if span > ECHO => Some("drained: control has nothing of it left".to_owned()),
            _ if span > longest + MARGIN => Some(format!("its drain deadline of {longest:.0} s has passed")),
            _ => None,
        }
    }

    /// Has it stopped. By count somebody else stops it, once the number falls.
    pub(super) fn stop(&mut self, at: usize, why: String, now: f64, actions: &mut Vec<Action>) {
        self.turn(at, Stage::Stopping, why, now);
        let grace = self.settings.grace;
        let member = &mut self.saved.members[at];
        member.again = now + grace.as_secs_f64() + APPEARS_WITHIN;
        if !self.settings.by_count {
            actions.push(Action::Stop { id: member.id.clone(), grace });
        }
    }
}
