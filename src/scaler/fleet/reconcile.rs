//! What the driver's list says of those that are remembered, and of those that are not.

use std::collections::BTreeMap;

use super::member::Member;
use super::{APPEARS_WITHIN, Action, Fleet, LIST_GOOD_FOR, Stage};
use crate::scaler::{Found, Life};

/// An ended instance that is still listed is cleared away again after so long.
const BURY_AGAIN: f64 = 30.0;

impl Fleet {
    /// Takes over what is there. Where the list was missing for a while, deadlines begin anew: nobody could come up in the meantime.
    pub(super) fn reconcile(&mut self, found: &[Found], now: f64) {
        let first = self.listed.is_none();
        if self.listed.replace(now).is_none_or(|before| now - before > LIST_GOOD_FOR) {
            self.saved.members.iter_mut().for_each(|member| member.awaited = now);
        }
        self.taken = found.iter().map(|found| found.id.clone()).collect();
        let mut by_id: BTreeMap<&str, &Found> = BTreeMap::new();
        for found in found {
            by_id.entry(&found.id).or_insert(found);
        }
        self.alive = by_id.values().filter(|found| !matches!(found.life, Life::Ended { .. })).count() as u32;
        self.buried.retain(|id, _| by_id.contains_key(id.as_str()));
        for (id, found) in &by_id {
            if matches!(found.life, Life::Ended { .. }) {
                self.buried.entry((*id).to_owned()).or_insert(f64::NEG_INFINITY);
            } else {
                self.buried.remove(*id);
            }
        }
        for at in (0..self.saved.members.len()).rev() {
            match by_id.remove(self.saved.members[at].id.as_str()) {
                Some(found) => self.known(at, found, now),
                None => self.missing(at, first, now),
            }
        }
        let mut strangers: Vec<&Found> = by_id.into_values().collect();
        strangers.sort_by(|a, b| a.started.unwrap_or(now).total_cmp(&b.started.unwrap_or(now)));
        for found in strangers {
            self.stranger(found, now);
        }
    }

    /// One that is remembered and listed.
    fn known(&mut self, at: usize, found: &Found, now: f64) {
        if let Life::Ended { how, asked } = &found.life {
            self.ended(at, found, how, *asked, now);
            return;
        }
        let member = &mut self.saved.members[at];
        if member.stage.is_vacant() {
            // It was believed to have failed, and is there: it is itself again, and has to prove it.
            *member = Member {
                stage: member.stage,
                attempts: member.attempts,
                ..Member::found(found, member.stage, String::new(), now)
            };
            self.turn(at, Stage::Starting, "it is there after all".to_owned(), now);
        }
        let member = &mut self.saved.members[at];
        member.told(found);
        let (stage, has_address) = (member.stage, member.address.is_some());
        match (&found.life, stage) {
            (Life::Pending, Stage::Requested) => self.turn(at, Stage::Starting, "being made".to_owned(), now),
            (Life::Pending, Stage::Probing | Stage::Warming | Stage::Ready | Stage::Unhealthy) => {
                self.turn(at, Stage::Starting, "its driver makes it anew".to_owned(), now);
            }
            (Life::Running, Stage::Requested | Stage::Starting) if has_address => {
                self.turn(at, Stage::Probing, "waiting for its first good check".to_owned(), now);
            }
            (Life::Stopping, stage) if !matches!(stage, Stage::Stopping) => {
                let why = if stage == Stage::Draining { "it stops" } else { "somebody else stops it" };
                self.turn(at, Stage::Stopping, why.to_owned(), now);
                self.saved.members[at].again = now + self.settings.grace.as_secs_f64() + APPEARS_WITHIN;
            }
            _ => {}
        }
    }

    /// One that is remembered, and listed as ended.
    fn ended(&mut self, at: usize, found: &Found, how: &str, asked: bool, now: f64) {
        let member = &self.saved.members[at];
        match member.stage {
            Stage::Backoff | Stage::Quarantined => {}
            // What is listed can be older than the order: an earlier bearer of the name.
            Stage::Requested if found.started.is_none_or(|started| started < member.ordered - 1.0) => {}
            Stage::Draining | Stage::Stopping | Stage::Orphan => self.gone(at, how.to_owned(), now),
            _ if asked || self.settings.by_count => self.gone(at, format!("somebody else ended it: {how}"), now),
            _ if member.is_unproved() => self.start_failed(at, format!("it ended at once: {how}"), false, now),
            _ => self.crashed(at, how.to_owned(), now),
        }
    }

    /// One that is remembered and not listed. `first`: nothing is known of what happened since it was remembered.
    fn missing(&mut self, at: usize, first: bool, now: f64) {
        let member = &self.saved.members[at];
        match member.stage {
            Stage::Backoff | Stage::Quarantined => {}
            Stage::Requested | Stage::Starting if first && !self.settings.by_count => {
                // Perhaps the order never went out. Nobody's failure.
                self.turn(at, Stage::Backoff, "it was ordered before the restart and is not there".to_owned(), now);
                self.saved.members[at].again = now;
            }
            Stage::Requested | Stage::Starting if now - member.since <= APPEARS_WITHIN => {}
            Stage::Draining | Stage::Stopping | Stage::Orphan => self.gone(at, "it has ended".to_owned(), now),
            _ if self.settings.by_count => self.gone(at, "it is no longer there".to_owned(), now),
            _ if member.is_unproved() => {
                self.start_failed(at, "it is nowhere to be found after its start".to_owned(), false, now);
            }
            _ => self.crashed(at, "it is gone".to_owned(), now),
        }
    }

    /// One that is listed and not remembered: taken over, whatever it runs; one with another spec is replaced later.
    fn stranger(&mut self, found: &Found, now: f64) {
        let stage = match found.life {
            Life::Ended { .. } => return,
            Life::Stopping => Stage::Stopping,
            Life::Pending => Stage::Starting,
            Life::Running if found.address.is_none() => Stage::Starting,
            Life::Running => Stage::Probing,
        };
        if stage == Stage::Stopping {
            let mut member = Member::found(found, stage, "found stopping".to_owned(), now);
            member.again = now + self.settings.grace.as_secs_f64() + APPEARS_WITHIN;
            self.add(member);
            return;
        }
        // It is what a vacant place was waiting for.
        let vacant = self.saved.members.iter().rposition(|member| member.stage.is_vacant());
        if let Some(at) = vacant {
            self.gone(at, format!("{} has taken its place", found.id), now);
        }
        let counted = self.saved.members.iter().filter(|member| !member.stage.is_leaving()).count();
        let room = self.settings.by_count || counted < self.settings.max as usize;
        let member = if room {
            Member::found(found, stage, "found running and taken over".to_owned(), now)
        } else {
            let why = format!("found running, and there are {counted} already");
            Member::found(found, Stage::Orphan, why, now)
        };
        self.add(member);
    }

    /// Ended instances are cleared away, so that their names are free again.
    pub(super) fn bury(&mut self, now: f64, actions: &mut Vec<Action>) {
        if self.settings.by_count {
            return;
        }
        let alive = |id: &str| self.saved.members.iter().any(|member| member.id == id && !member.stage.is_vacant());
        let due: Vec<String> = self
            .buried
            .iter()
            .filter(|(id, last)| now - **last >= BURY_AGAIN && !alive(id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            self.buried.insert(id.clone(), now);
            // Before any start: the name may be used again.
            actions.insert(0, Action::Stop { id, grace: std::time::Duration::ZERO });
        }
    }
}
