//! What happens when instances do not come up, or die.

use serde::{Deserialize, Serialize};

use super::{Fleet, Stage};
use crate::scaler::fleet::member::Member;

/// Failures older than this no longer speak against a build.
const MEMORY: f64 = 300.0;
/// An instance that has worked for so long starts from scratch when it fails.
const SETTLED: f64 = 60.0;
/// A trial that has worked for so long ends a block.
const CONVINCING: f64 = 10.0;

/// A start that failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Failure {
    at: f64,
    spec: String,
    id: String,
    how: String,
}

/// Starts keep failing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Block {
    /// Since when.
    pub(super) since: f64,
    /// When one is tried again.
    pub(super) trial: f64,
    /// How many had failed, and how the last one did.
    pub(super) failures: u32,
    pub(super) last: String,
}

impl Fleet {
    /// A start has failed. Where `lives`, there may still be something behind it, which is stopped.
    pub(super) fn start_failed(&mut self, at: usize, how: String, lives: bool, now: f64) {
        let attempts = self.saved.members[at].attempts + 1;
        let delay = self.delay(attempts);
        self.count_failure(at, &how, now);
        self.vacate(at, attempts, how, lives, now + delay, now);
    }

    /// One that had worked has ended by itself. The first time it is replaced at once.
    pub(super) fn crashed(&mut self, at: usize, how: String, now: f64) {
        let member = &self.saved.members[at];
        let attempts = member.attempts + 1;
        let mut delay = 0.0;
        if attempts > 1 {
            delay = self.delay(attempts - 1);
            self.count_failure(at, &how, now);
        }
        self.vacate(at, attempts, format!("it crashed: {how}"), false, now + delay, now);
    }

    /// The driver has no room for it now: nobody's fault, and tried again later.
    pub(super) fn wait_for_room(&mut self, at: usize, how: String, now: f64) {
        let attempts = self.saved.members[at].attempts;
        let delay = self.delay(attempts + 1).max(15.0);
        self.vacate(at, attempts, how, false, now + delay, now);
    }

    /// Leaves a vacant place where a member was.
    fn vacate(&mut self, at: usize, attempts: u32, how: String, lives: bool, again: f64, now: f64) {
        let stage = if self.saved.blocked.is_some() && again > now { Stage::Quarantined } else { Stage::Backoff };
        let at = if lives {
            let vacancy = Member::ordered(self.fresh_id(), &self.settings.spec, how.clone(), now);
            self.turn(at, Stage::Stopping, how.clone(), now);
            self.saved.members[at].again = now;
            self.saved.members.push(vacancy);
            self.saved.members.len() - 1
        } else {
            at
        };
        self.turn(at, stage, how, now);
        if let Some(news) = self.gathered.news.last_mut() {
            news.bad = true;
        }
        let spec = self.settings.spec.clone();
        let member = &mut self.saved.members[at];
        let kept = Member::ordered(member.id.clone(), &spec, member.why.clone(), now);
        *member = Member { stage, attempts, again, ..kept };
    }

    /// The wait after so many failures in a row, with some chance in it so that many do not come back at once.
    pub(super) fn delay(&mut self, attempts: u32) -> f64 {
        let doubled = self.settings.backoff * 2f64.powi(attempts.saturating_sub(1).min(30) as i32);
        let jitter = 0.75 + 0.5 * self.roll();
        (doubled * jitter).min(self.settings.max_backoff)
    }

    fn count_failure(&mut self, at: usize, how: &str, now: f64) {
        let member = &self.saved.members[at];
        let spec = member.spec.clone().unwrap_or_else(|| self.settings.spec.clone());
        let failure = Failure { at: now, spec, id: member.id.clone(), how: how.to_owned() };
        let last = format!("{}: {how}", failure.id);
        self.gathered.start_failures += 1;
        self.saved.failures.push(failure);
        let keep = self.saved.failures.len().saturating_sub(100);
        self.saved.failures.drain(..keep);
        let failures = self.failures_of_this_spec(now);
        if failures >= self.settings.quarantine_after || self.saved.blocked.is_some() {
            let trial = now + self.settings.max_backoff * (0.75 + 0.5 * self.roll()).min(1.0);
            let since = self.saved.blocked.as_ref().map_or(now, |block| block.since);
            self.saved.blocked = Some(Block { since, trial, failures, last });
            self.quarantine(now);
        }
    }

    fn failures_of_this_spec(&self, now: f64) -> u32 {
        let spec = &self.settings.spec;
        let recent = |failure: &&Failure| failure.spec == *spec && now - failure.at <= MEMORY;
        self.saved.failures.iter().filter(recent).count() as u32
    }

    fn quarantine(&mut self, now: f64) {
        for at in 0..self.saved.members.len() {
            if self.saved.members[at].stage == Stage::Backoff && self.saved.members[at].again > now {
                self.turn(at, Stage::Quarantined, "starts of this build keep failing".to_owned(), now);
            }
        }
    }

    /// There is something new to try: what failed before says nothing about it.
    pub(super) fn forgive(&mut self) {
        self.saved.failures.clear();
        self.saved.blocked = None;
        for member in self.saved.members.iter_mut().filter(|member| member.stage.is_vacant()) {
            (member.stage, member.attempts, member.again) = (Stage::Backoff, 0, 0.0);
        }
    }

    /// Deadlines, and what time heals. Who may not act leaves the deadlines to whoever may.
    pub(super) fn judge(&mut self, acting: bool, now: f64) {
        self.saved.failures.retain(|failure| now - failure.at <= MEMORY);
        let spec = self.settings.spec.clone();
        let mut convinced = false;
        for member in self.saved.members.iter_mut().filter(|member| member.stage.is_serving()) {
            let worked = now - member.proved.unwrap_or(now).max(member.awaited);
            if worked >= SETTLED {
                member.attempts = 0;
            }
            let current = member.spec.as_ref().is_none_or(|theirs| *theirs == spec);
            // Only one that was started since proves anything: those that were there before are not in doubt.
            let since = self.saved.blocked.as_ref().map_or(f64::INFINITY, |block| block.since);
            convinced |= current && member.ordered >= since && worked >= CONVINCING;
        }
        if convinced {
            self.forgive();
        }
        if self.settings.by_count || !acting {
            return;
        }
        let deadline = self.start_deadline();
        for at in (0..self.saved.members.len()).rev() {
            let member = &self.saved.members[at];
            if member.is_unproved() && now - member.awaited > deadline {
                let last = if member.why.is_empty() { String::new() } else { format!(" (last: {})", member.why) };
                let how = format!("no good health check within {deadline:.0} s{last}");
                self.start_failed(at, how, true, now);
            }
        }
    }

    /// By when an instance has to have passed its first check.
    pub(super) fn start_deadline(&self) -> f64 {
        let usual = || self.usual_lead().map_or(60.0, |lead| (4.0 * lead).max(60.0));
        self.settings.start_deadline.unwrap_or_else(usual)
    }
}
