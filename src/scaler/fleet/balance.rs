//! As many as are wanted: who is taken back, started, cancelled, replaced or sent away.

use super::member::Member;
use super::{Action, Fleet, Input, Stage};
use crate::scaler::Order;

/// Without room for a replacement for so long, one goes first and its replacement comes afterwards.
const NO_ROOM_FOR: f64 = 60.0;

impl Fleet {
    /// How many there are to be, and what that takes.
    pub(super) fn number(&mut self, input: &Input<'_>, now: f64, actions: &mut Vec<Action>) {
        let count = self.present();
        let idle = input.may_start == 0 && !input.may_stop;
        let base = match (input.wanted, self.saved.base) {
            (Some(wanted), _) => wanted,
            // Somebody else decides, or nobody has yet: what there is is right.
            (None, _) if idle => count,
            (None, None) => count,
            (None, Some(base)) => base,
        };
        self.saved.base = Some(base);
        self.target = base;
        if idle {
            return;
        }
        self.no_start_since = if input.may_start > 0 { None } else { Some(self.no_start_since.unwrap_or(now)) };
        let surge = self.replace(base, input, now, actions);
        let target = base + surge;
        self.target = target;
        let mut budget = input.may_start;
        if input.may_stop {
            self.shrink(target, input, now, actions);
        }
        self.take_back(target, now);
        if !self.settings.by_count {
            self.retry(&mut budget, input, now, actions);
            self.grow(target, &mut budget, input, now, actions);
        }
    }

    /// Those that count towards the wanted number.
    pub(super) fn present(&self) -> u32 {
        self.saved.members.iter().filter(|member| !member.stage.is_leaving()).count() as u32
    }

    /// Replaces one that is due, once its replacement works. Answers how many more than wanted there are to be meanwhile: 0 or 1.
    fn replace(&mut self, base: u32, input: &Input<'_>, now: f64, actions: &mut Vec<Action>) -> u32 {
        let leaving = self.saved.members.iter().any(|member| member.replaced && member.stage.is_leaving());
        let due: Vec<usize> = self.victims(usize::MAX, now).into_iter().filter(|at| self.due(*at, now)).collect();
        if due.is_empty() || leaving || !input.may_stop || base == 0 {
            return 0;
        }
        // A start of the old build is no use, and nobody waits for it. By count nobody can be stopped without the number falling.
        let one_by_one = !self.settings.by_count;
        if let Some(at) = due.iter().copied().find(|at| one_by_one && self.saved.members[*at].is_unproved()) {
            let why = self.is_due(&self.saved.members[at], now).unwrap_or_default();
            self.release(at, why, now, actions);
            return 0;
        }
        // Places of failed ones hold up a replacement, but not one that makes room.
        let others = |member: &&Member| !member.stage.is_leaving() && self.is_due(member, now).is_none();
        let vacant = self.saved.members.iter().filter(|member| member.stage.is_vacant()).count() as u32;
        let works = |member: &Member| member.stage.is_serving() || member.held;
        let all_serve =
            self.saved.members.iter().filter(others).all(|member| member.stage.is_vacant() || works(member));
        let serving = self.saved.members.iter().filter(|member| member.stage.is_serving()).count();
        let first = due[0];
        let carried = serving >= 2 || !self.saved.members[first].stage.is_serving();
        let no_room =
            now < self.trouble.full_until || self.no_start_since.is_some_and(|since| now - since > NO_ROOM_FOR);
        let ready = self.present() > base && all_serve && vacant == 0;
        let cramped =
            self.present() - vacant <= base && no_room && carried && all_serve && self.saved.blocked.is_none();
        if !ready && !cramped {
            return u32::from(!no_room || self.present() > base);
        }
        let why = self.is_due(&self.saved.members[first], now).unwrap_or_default();
        self.saved.members[first].replaced = true;
        self.release(first, format!("replaced: {why}"), now, actions);
        0
    }

    fn due(&self, at: usize, now: f64) -> bool {
        self.is_due(&self.saved.members[at], now).is_some()
    }

    /// Sends away whoever is too many.
    fn shrink(&mut self, target: u32, input: &Input<'_>, now: f64, actions: &mut Vec<Action>) {
        let over = self.present().saturating_sub(target) as usize;
        let mut victims = if over > 0 { self.victims(over, now) } else { Vec::new() };
        // From the back, so that the places of those to come stay right where one is removed.
        victims.sort_unstable_by(|a, b| b.cmp(a));
        let why = format!("{target} are wanted ({})", input.reason);
        for at in victims {
            self.release(at, why.clone(), now, actions);
        }
        for at in 0..self.saved.members.len() {
            if self.saved.members[at].stage == Stage::Orphan {
                self.turn(at, Stage::Draining, "nobody wants it".to_owned(), now);
            }
        }
    }

    /// One leaves: at once where it has never taken a request, by draining where it may have.
    pub(super) fn release(&mut self, at: usize, why: String, now: f64, actions: &mut Vec<Action>) {
        let member = &self.saved.members[at];
        if member.stage.is_vacant() {
            self.gone(at, why, now);
        } else if member.is_unproved() {
            self.stop(at, why, now, actions);
        } else {
            self.turn(at, Stage::Draining, why, now);
        }
    }

    /// Load is back: those that drain are taken back before anybody is started.
    fn take_back(&mut self, target: u32, now: f64) {
        let mut missing = target.saturating_sub(self.present());
        let mut draining: Vec<usize> = (0..self.saved.members.len())
            .filter(|at| {
                let member = &self.saved.members[*at];
                member.stage == Stage::Draining && !member.replaced && !self.is_outdated(member)
            })
            .collect();
        // Whoever has most to lose first.
        draining.sort_by_key(|at| std::cmp::Reverse(self.saved.members[*at].load.sessions));
        for at in draining {
            if missing == 0 {
                break;
            }
            missing -= 1;
            self.turn(at, Stage::Probing, "taken back: it is needed again".to_owned(), now);
        }
    }

    /// Tries those again that have waited long enough; of a build that keeps failing only one at a time.
    fn retry(&mut self, budget: &mut u32, input: &Input<'_>, now: f64, actions: &mut Vec<Action>) {
        let mut trial = self.trial_due(now);
        for at in 0..self.saved.members.len() {
            let member = &self.saved.members[at];
            let waited = now >= member.again;
            let chosen = match member.stage {
                Stage::Backoff if self.saved.blocked.is_some() => waited && (member.attempts <= 1 || trial),
                Stage::Backoff => waited,
                Stage::Quarantined => trial,
                _ => false,
            };
            if !chosen || *budget == 0 {
                continue;
            }
            *budget -= 1;
            trial = false;
            self.defer_trial(now);
            let member = &self.saved.members[at];
            let id = if self.taken.contains(&member.id) { self.fresh_id() } else { member.id.clone() };
            let attempts = self.saved.members[at].attempts;
            let why = format!("tried again after: {}", self.saved.members[at].why);
            let from = self.saved.members[at].stage;
            self.saved.members[at] =
                Member { stage: from, attempts, ..Member::ordered(id, &self.settings.spec, String::new(), now) };
            self.turn(at, Stage::Requested, why, now);
            self.order(at, input, actions);
        }
    }

    /// Starts those that are missing.
    fn grow(&mut self, target: u32, budget: &mut u32, input: &Input<'_>, now: f64, actions: &mut Vec<Action>) {
        let mut missing = target.saturating_sub(self.present()).min(*budget);
        if now < self.trouble.full_until {
            missing = 0;
        }
        if self.saved.blocked.is_some() {
            missing = missing.min(u32::from(self.trial_due(now)));
            if missing > 0 {
                self.defer_trial(now);
            }
        }
        for _ in 0..missing {
            let id = self.fresh_id();
            let why = format!("{target} are wanted ({})", input.reason);
            self.add(Member::ordered(id, &self.settings.spec, why, now));
            self.order(self.saved.members.len() - 1, input, actions);
        }
    }

    fn order(&self, at: usize, input: &Input<'_>, actions: &mut Vec<Action>) {
        let id = self.saved.members[at].id.clone();
        actions.push(Action::Start(Order { id, decision: input.decision.to_owned(), generation: input.generation }));
    }

    /// Whether it is time to try one of a build that keeps failing.
    fn trial_due(&self, now: f64) -> bool {
        let trying = self.saved.members.iter().any(|member| member.is_unproved() && !self.is_outdated(member));
        self.saved.blocked.as_ref().is_some_and(|block| now >= block.trial) && !trying
    }

    fn defer_trial(&mut self, now: f64) {
        if let Some(block) = &mut self.saved.blocked {
            block.trial = block.trial.max(now + self.settings.max_backoff);
        }
    }
}
