//! What control and the driver's figures say of the instances.

use super::{Fleet, Input, Seen, Stage};
use crate::health::State;

/// How long control may show an operator's wish that was our own a moment ago.
const ECHO: f64 = 5.0;
/// How many start-up times are remembered.
const LEADS: usize = 20;

impl Fleet {
    /// Reads what control shows of each, and what each uses.
    pub(super) fn look(&mut self, input: &Input<'_>, now: f64) {
        for at in 0..self.saved.members.len() {
            let member = &mut self.saved.members[at];
            if member.stage.is_vacant() {
                continue;
            }
            if let Some(usage) = input.usage.get(&member.id) {
                (member.load.cpus, member.load.memory) = (usage.cpus, usage.memory);
            }
            let Some(seen) = member.address.as_ref().and_then(|address| input.seen.get(address)) else { continue };
            member.shown(seen);
            self.shown(at, seen, now);
        }
    }

    fn shown(&mut self, at: usize, seen: &Seen, now: f64) {
        let member = &mut self.saved.members[at];
        if matches!(member.stage, Stage::Requested | Stage::Starting) || member.stage.is_leaving() {
            return;
        }
        let since = now - member.since;
        member.held = match seen.state {
            State::Maintenance => true,
            // Our own wish of a moment ago is no operator's.
            State::Draining | State::Drained => member.held || since > ECHO,
            _ => false,
        };
        let to = match seen.state {
            State::Ready if seen.warming => Stage::Warming,
            State::Ready => Stage::Ready,
            State::Starting => Stage::Probing,
            State::Down if member.proved.is_none() => Stage::Probing,
            State::Draining | State::Drained if !member.held => return,
            State::Down | State::Maintenance | State::Draining | State::Drained => Stage::Unhealthy,
        };
        if to.is_serving() && member.proved.is_none() {
            self.proved(at, seen, now);
        }
        self.turn(at, to, seen.reason.clone(), now);
    }

    /// It has passed its first check.
    fn proved(&mut self, at: usize, seen: &Seen, now: f64) {
        let member = &mut self.saved.members[at];
        let when = seen.since.unwrap_or(now).clamp(member.ordered, now);
        member.proved = Some(when);
        // Those that were taken over did not start under our eyes.
        if member.ordered == member.awaited {
            let lead = when - member.ordered;
            self.gathered.started.push(lead);
            self.saved.leads.push(lead);
            let old = self.saved.leads.len().saturating_sub(LEADS);
            self.saved.leads.drain(..old);
        }
    }
}
