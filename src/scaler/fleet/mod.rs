//! The life of one pool's instances: Requested → Starting → Probing → Warming → Ready → Draining → Stopping → gone.
//!
//! A [`Fleet`] is told what the driver has found, what control shows and how many instances are wanted, and answers what the driver is to do
//! and which replicas control is to have. It decides nobody's number. What the driver lists is the truth; what the fleet remembers only says
//! what that means: an instance that is there and not remembered is taken over, one that is remembered and not there has crashed.
//!
//! Never here: a clock, a driver, a task, a random source. An instance gets its place in control's set as soon as its address is known, and
//! traffic only once control's checks have passed; it is stopped only when control shows it drained, when its deadline has passed, or when it
//! never took a request.
//!
//! Why not a task for each instance: replacing one at a time, cancelling a start before draining anybody, and taking back one that drains
//! before starting another are questions about all of them at once.

mod balance;
mod counted;
mod failure;
mod leave;
mod look;
mod member;
mod reconcile;
mod settings;
mod show;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod turn;
mod victim;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use member::Stage;
pub use settings::FleetSettings;
pub use turn::{Action, Input, News, Plan, Seen};

use crate::scaler::{DriverError, ErrorKind, InstanceId, Order};
use failure::{Block, Failure};
use member::Member;

/// Longer than this without the driver's list, nothing is started, drained or stopped.
const LIST_GOOD_FOR: f64 = 5.0;
/// An order that was taken may take so long to show up in the list.
const APPEARS_WITHIN: f64 = 10.0;

/// The instances of one pool.
#[derive(Debug, Clone)]
pub struct Fleet {
    pool: String,
    settings: FleetSettings,
    saved: Saved,
    /// When the driver's list was last there; none since the start.
    listed: Option<f64>,
    /// Ids that the last list has, whatever their state.
    taken: BTreeSet<InstanceId>,
    /// Instances in the last list that have not ended.
    alive: u32,
    /// How many there are to be now: as wanted, and one more while somebody is replaced.
    target: u32,
    /// When ended instances were last cleared away.
    buried: BTreeMap<InstanceId, f64>,
    trouble: Trouble,
    /// Since when nothing may be started.
    no_start_since: Option<f64>,
    /// The instances that were last marked as leaving, where that has been done.
    marked: Option<Vec<InstanceId>>,
    dice: u64,
    gathered: Plan,
}

/// What a fleet remembers. Survives a restart; may be lost: what runs is found again.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Saved {
    members: Vec<Member>,
    /// How many were last wanted.
    base: Option<u32>,
    /// The last start-up times.
    leads: Vec<f64>,
    failures: Vec<Failure>,
    blocked: Option<Block>,
    scaled: Option<counted::Scaled>,
}

/// What drivers have refused lately.
#[derive(Debug, Clone, Default)]
struct Trouble {
    /// There is no room for another until then.
    full_until: f64,
    full: String,
    advice: String,
    /// This generation's leader is none any more.
    fenced: Option<u64>,
    /// Somebody else scales the same thing; not touched until then.
    other_until: f64,
    other: String,
    other_advice: String,
}

impl Fleet {
    /// One that knows of nothing yet: what is there already is taken over with the driver's first list.
    pub fn new(pool: &str, settings: FleetSettings) -> Fleet {
        Fleet::restore(pool, Saved::default(), settings)
    }

    /// One that goes on from what an earlier one has [saved](Fleet::save).
    pub fn restore(pool: &str, saved: Saved, settings: FleetSettings) -> Fleet {
        Fleet {
            pool: pool.to_owned(),
            settings,
            saved,
            listed: None,
            taken: BTreeSet::new(),
            alive: 0,
            target: 0,
            buried: BTreeMap::new(),
            trouble: Trouble::default(),
            no_start_since: None,
            marked: None,
            dice: 0,
            gathered: Plan::default(),
        }
    }

    /// What is to be kept for [`Fleet::restore`]. To be written down before the actions of a step are done, and whenever it has changed.
    pub fn save(&self) -> Saved {
        self.saved.clone()
    }

    /// Takes over other settings. With another spec the instances are replaced, one at a time, the replacement first.
    pub fn adopt(&mut self, settings: FleetSettings) {
        if settings.spec != self.settings.spec {
            self.forgive();
        }
        self.settings = settings;
    }

    /// All that are there now are replaced, one at a time, the replacement first.
    pub fn recycle(&mut self) {
        for member in self.saved.members.iter_mut().filter(|member| !member.stage.is_vacant()) {
            member.recycle = true;
        }
    }

    /// Whether there is nobody, not even somebody who leaves.
    pub fn is_empty(&self) -> bool {
        self.saved.members.is_empty()
    }

    /// The usual time from the order to the first good check, in seconds; none before the first one.
    pub fn usual_lead(&self) -> Option<f64> {
        let mut leads = self.saved.leads.clone();
        leads.sort_unstable_by(f64::total_cmp);
        // The ninetieth percentile.
        leads.get(leads.len().saturating_sub(1) * 9 / 10).copied()
    }

    /// One step, about once a second, and sooner when something has happened.
    ///
    /// **Cost**: about linear in the instances; microseconds for a hundred.
    pub fn step(&mut self, input: &Input<'_>, now: f64) -> Plan {
        self.dice = input.random;
        self.reset_clock(now);
        if let Some(found) = input.found {
            self.reconcile(found, now);
        }
        self.look(input, now);
        let mut actions = Vec::new();
        if self.may_act(input, now) {
            let acting = input.may_start > 0 || input.may_stop;
            self.judge(acting, now);
            self.number(input, now, &mut actions);
            self.cordon(input.cordon as usize);
            self.let_go(input, now, &mut actions);
            if self.settings.by_count {
                self.count(input, now, &mut actions);
            }
            if acting {
                self.bury(now, &mut actions);
            }
        }
        let mut plan = std::mem::take(&mut self.gathered);
        plan.actions = actions;
        plan.replicas = self.replicas();
        plan.findings = self.findings(now);
        plan.start_blocked = self.saved.blocked.is_some();
        plan
    }

    /// How an action of the last plan went. It may come after further steps.
    pub fn acted(&mut self, action: &Action, result: &Result<(), DriverError>, now: f64) {
        match (action, result) {
            (Action::Start(order), Ok(())) => self.start_taken(order, now),
            (Action::Start(order), Err(error)) => self.start_refused(order, error, now),
            (Action::Scale(request), result) => self.scale_answered(request, result, now),
            (Action::Mark(_), Err(_)) => self.marked = None,
            (Action::Stop { id, .. }, Err(error)) => {
                if let Some(at) = self.place(id) {
                    self.saved.members[at].again = now + 2.0;
                    self.saved.members[at].why = error.to_string();
                }
            }
            (Action::Stop { .. } | Action::Mark(_), Ok(())) => {}
        }
        if let Err(error) = result {
            self.note_trouble(error, action, now);
        }
    }

    fn start_taken(&mut self, order: &Order, now: f64) {
        if let Some(at) = self.place(&order.id).filter(|at| self.saved.members[*at].stage == Stage::Requested) {
            self.turn(at, Stage::Starting, "the driver has taken the order".to_owned(), now);
        }
    }

    fn start_refused(&mut self, order: &Order, error: &DriverError, now: f64) {
        let Some(at) = self.place(&order.id).filter(|at| self.saved.members[*at].stage == Stage::Requested) else {
            return;
        };
        match error.kind {
            ErrorKind::Refused => self.start_failed(at, error.to_string(), false, now),
            ErrorKind::Full => self.wait_for_room(at, error.to_string(), now),
            // It may have been taken all the same: the next list tells.
            ErrorKind::Unreachable => self.saved.members[at].why = error.to_string(),
            ErrorKind::Fenced | ErrorKind::OtherScaler => self.gone(at, error.to_string(), now),
        }
    }

    fn note_trouble(&mut self, error: &DriverError, action: &Action, now: f64) {
        let trouble = &mut self.trouble;
        match error.kind {
            ErrorKind::Full => {
                trouble.full_until = now + 15.0;
                (trouble.full, trouble.advice) = (error.what.clone(), error.advice.clone());
            }
            ErrorKind::OtherScaler => {
                trouble.other_until = now + 60.0;
                (trouble.other, trouble.other_advice) = (error.what.clone(), error.advice.clone());
            }
            ErrorKind::Fenced => {
                trouble.fenced = match action {
                    Action::Start(order) => Some(order.generation),
                    Action::Scale(request) => Some(request.generation),
                    Action::Stop { .. } | Action::Mark(_) => trouble.fenced,
                };
            }
            ErrorKind::Refused | ErrorKind::Unreachable => {}
        }
    }

    /// Whether enough is known to do anything.
    fn may_act(&self, input: &Input<'_>, now: f64) -> bool {
        let listed = self.listed.is_some_and(|listed| now - listed <= LIST_GOOD_FOR);
        let fenced = self.trouble.fenced.is_some_and(|generation| input.generation <= generation);
        listed && !fenced && now >= self.trouble.other_until
    }

    /// Nothing that is remembered lies in the future, also where the machine's clock was set back while nobody ran.
    fn reset_clock(&mut self, now: f64) {
        for member in &mut self.saved.members {
            for time in [&mut member.since, &mut member.ordered, &mut member.awaited] {
                *time = time.min(now);
            }
            let longest = self.settings.max_backoff.max(self.settings.grace.as_secs_f64());
            member.again = member.again.min(now + longest + 2.0 * APPEARS_WITHIN);
        }
        if let Some(block) = &mut self.saved.blocked {
            block.trial = block.trial.min(now + self.settings.max_backoff);
        }
    }

    fn place(&self, id: &str) -> Option<usize> {
        self.saved.members.iter().position(|member| member.id == id)
    }

    /// A member becomes something else, and people are told.
    fn turn(&mut self, at: usize, to: Stage, why: String, now: f64) {
        let member = &mut self.saved.members[at];
        if member.stage == to {
            member.why = why;
            return;
        }
        let news =
            News { id: member.id.clone(), from: member.stage.word(), to: to.word(), why: why.clone(), bad: false };
        (member.stage, member.since, member.why) = (to, now, why);
        if to.is_leaving() || to.is_vacant() {
            member.cordoned = false;
        }
        self.gathered.news.push(news);
    }

    /// A member is no more.
    fn gone(&mut self, at: usize, why: String, _now: f64) {
        let member = self.saved.members.remove(at);
        self.gathered.news.push(News { id: member.id, from: member.stage.word(), to: "gone", why, bad: false });
    }

    fn add(&mut self, member: Member) {
        let (id, to, why) = (member.id.clone(), member.stage.word(), member.why.clone());
        self.gathered.news.push(News { id, from: "new", to, why, bad: false });
        self.saved.members.push(member);
    }

    /// The smallest name that nobody has.
    fn fresh_id(&self) -> InstanceId {
        let mut number = 1;
        loop {
            let id = format!("{}-{number}", self.pool);
            if !self.taken.contains(&id) && self.place(&id).is_none() {
                return id;
            }
            number += 1;
        }
    }

    /// A number from 0 to 1.
    fn roll(&mut self) -> f64 {
        self.dice = crate::balance::stable_hash(&self.dice.wrapping_add(1).to_le_bytes());
        (self.dice >> 11) as f64 / (1u64 << 53) as f64
    }
}
