use serde::{Deserialize, Serialize};

use super::model::Model;
use super::rules::{self, Memory, Wishes};
use super::{Decision, Limit, Mode, Observed, Phase, Proposal, Settings, Source};

/// What a pool's scaler remembers from one decision to the next. Survives restarts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    model: Model,
    rules: Memory,
}

impl State {
    /// How often the number went up after it had gone down, or down after up, within the last ten minutes. Only what was carried out counts.
    pub fn reversals(&self, now: f64) -> u32 {
        self.rules.steps.reversals(now)
    }

    /// How many steps were carried out within the last hour.
    pub fn steps_in_hour(&self, now: f64) -> u32 {
        self.rules.steps.in_hour(now)
    }

    /// Somebody else has decided: what there is counts as wanted, and is no step. For an operator's `set`, and for followers.
    pub fn follow(&mut self, size: u32) {
        self.rules.follow(size);
    }
}

/// How many instances there should be.
///
/// Everybody asks, the largest wish counts, and then comes what keeps it from being done: HPA's `behavior`, the budget, what was learned of
/// the last step, the bounds, the mode. Each of them that changes something leaves a [`Limit`].
pub fn decide(seen: &Observed, state: &mut State, settings: &Settings, now: f64) -> Decision {
    let current = seen.current();
    if settings.mode == Mode::Off {
        state.rules.follow(current);
        return off(current, now);
    }
    let proposal = state.model.step(seen, settings, now);
    compose(seen, &mut state.rules, settings, proposal, now)
}

/// What becomes of the load's proposal.
pub(super) fn compose(
    seen: &Observed,
    rules: &mut Memory,
    settings: &Settings,
    proposal: Proposal,
    now: f64,
) -> Decision {
    let current = seen.current();
    let acts = matches!(settings.mode, Mode::On | Mode::UpOnly);
    if !acts {
        rules.follow(current);
    }
    let lead = proposal.terms.lead;
    let size = rules.size(seen, proposal.up, lead, now);
    let verdict = rules.watch.look(seen, settings, lead, now).filter(|_| settings.verify.rollback && acts);
    let wishes = rules::wishes(rules, seen, settings, &proposal, size, now);

    let mut way = Way::new(size, &wishes, &proposal);
    way.hold(rules, seen, settings, &wishes, now);
    way.pace(rules, seen, settings, now);
    let rollback = way.judge(rules, settings, &proposal, verdict, now);
    way.bound(rules, seen, settings, now);
    let Way { desired, limits, reason, sources, next_down_at, .. } = way;
    if acts {
        rules.carry_out(seen, size, desired, !rollback, now);
    }
    let cordon = cordon(current, &wishes, settings, seen, &limits);
    Decision {
        at: now,
        current,
        raw: proposal.up,
        wanted: wishes.wanted,
        desired,
        apply: acts,
        cordon,
        reason,
        terms: proposal.terms,
        sources: wishes.sources.into_iter().chain(sources).collect(),
        limits,
        next_down_at,
        rollback,
    }
}

/// The way from a wish to a decision.
struct Way {
    /// How many were wanted last.
    size: u32,
    desired: u32,
    limits: Vec<Limit>,
    reason: String,
    /// Who has spoken on the way.
    sources: Vec<Source>,
    next_down_at: Option<f64>,
}

impl Way {
    fn new(size: u32, wishes: &Wishes, proposal: &Proposal) -> Way {
        let mut limits = Vec::new();
        let load = wishes.sources[0].wants.unwrap_or(size);
        if let Some(name) = proposal.held_by.filter(|_| load > wishes.unheld) {
            limits.push(Limit { name: name.to_owned(), from: wishes.unheld, to: load });
        }
        let next_down_at = proposal.next_down_at;
        Way { size, desired: wishes.wanted, limits, reason: wishes.reason.clone(), sources: Vec::new(), next_down_at }
    }

    /// Goes on with another number, and says because of what.
    fn turn(&mut self, name: &str, to: u32) {
        if to != self.desired {
            self.limits.push(Limit { name: name.to_owned(), from: self.desired, to });
            self.desired = to;
        }
    }

    /// Not fewer than this, as long as that adds nothing.
    fn keep(&mut self, name: &str, floor: u32) {
        self.turn(name, self.desired.max(floor.min(self.size)));
    }

    /// Not more than this, as long as that removes nothing.
    fn stop(&mut self, name: &str, ceiling: u32) {
        self.turn(name, self.desired.min(ceiling.max(self.size)));
    }

    fn not_before(&mut self, at: Option<f64>) {
        self.next_down_at = match (self.next_down_at, at) {
            (Some(known), Some(at)) => Some(known.max(at)),
            (known, at) => known.or(at),
        };
    }

    /// Windows: what was wished for lately still counts.
    fn hold(&mut self, rules: &mut Memory, seen: &Observed, settings: &Settings, wishes: &Wishes, now: f64) {
        self.know(seen, wishes);
        rules.wished.push(now, self.desired);
        let windows = [&settings.up, &settings.down].map(|rules| rules.stabilization.unwrap_or(0.0));
        let (stable, until) = rules.wished.stabilize(self.size, self.desired, windows, now);
        self.turn("stabilization", stable);
        self.not_before(until);
        if let Some((lately, until)) = wishes.lately.filter(|(lately, _)| lately.min(&self.size) > &self.desired) {
            self.keep("stabilization", lately);
            self.not_before(Some(until));
        }
    }

    /// Nobody is sent away for want of data.
    fn know(&mut self, seen: &Observed, wishes: &Wishes) {
        if wishes.unknown || !seen.complete {
            self.keep("incomplete", self.size);
        }
    }

    /// How fast: tolerance, policies, the largest step, the budget, and what stops growing altogether.
    fn pace(&mut self, rules: &Memory, seen: &Observed, settings: &Settings, now: f64) {
        let size = self.size;
        let within = f64::from(size) * (1.0 + settings.up.tolerance);
        // Downwards it is in the load's own wish, where it is not rounded; signals have had theirs, and a policy or schedule means what it says.
        if self.desired > size && f64::from(self.desired) <= within && !self.reason.contains(':') {
            self.turn("tolerance", size);
        }
        if self.desired > size {
            // The first one of a sleeping pool waits for no period.
            let awake = if size == 0 { settings.wake_to.max(1) } else { 0 };
            if let Some(limit) = rules.steps.limit(&settings.up, true, size, now) {
                self.stop("behavior", limit.max(awake));
            }
            if let Some(ratio) = settings.max_step_up {
                let there = f64::from(seen.count(Phase::Ready).max(1));
                self.stop("step", ((there * ratio).ceil() as u32).max(awake));
            }
        } else if self.desired < size {
            if let Some(limit) = rules.steps.limit(&settings.down, false, size, now) {
                self.keep("behavior", limit);
            }
            let step = ((f64::from(size) * settings.max_step_down).floor() as u32).max(1);
            self.keep("step", size - step.min(size));
            if settings.max_changes_per_hour.is_some_and(|most| rules.steps.in_hour(now) >= most) {
                self.keep("budget", size);
            }
        }
        if rules.watch.is_frozen(now) {
            self.stop("freeze", size);
        }
        if seen.start_blocked {
            self.stop("start_failures", size);
        }
    }

    /// Takes back a step that made things worse.
    fn judge(
        &mut self,
        rules: &mut Memory,
        settings: &Settings,
        proposal: &Proposal,
        verdict: Option<rules::Verdict>,
        now: f64,
    ) -> bool {
        let Some(verdict) = verdict.filter(|verdict| verdict.back_to != self.size) else { return false };
        let back_to = verdict.back_to;
        if back_to < self.size {
            rules.watch.freeze(now + settings.verify.freeze);
        } else {
            rules.watch.keep(back_to, now + proposal.terms.hold.max(settings.hold.min));
        }
        self.turn("rollback", if back_to < self.size { back_to } else { self.desired.max(back_to) });
        self.sources.push(Source { name: "verify".to_owned(), wants: None, why: verdict.why });
        self.reason = "rollback".to_owned();
        true
    }

    /// What is never exceeded, whoever asks.
    fn bound(&mut self, rules: &mut Memory, seen: &Observed, settings: &Settings, now: f64) {
        let before = self.desired;
        if let Some(ceiling) = rules::ceiling(rules, &settings.schedules, now) {
            self.turn("schedule", self.desired.min(ceiling));
        }
        self.turn("max", self.desired.min(settings.max));
        self.turn("min", self.desired.max(settings.min.min(settings.max)));
        // A bound is the reason where it alone makes a change, or another one.
        let sign = |number: u32| number.cmp(&self.size);
        if let Some(bound) =
            self.limits.last().filter(|_| sign(self.desired) != sign(before) && self.desired != self.size)
        {
            self.reason.clone_from(&bound.name);
        }
        if settings.mode == Mode::UpOnly {
            self.turn("mode", self.desired.max(seen.current()));
        }
    }
}

/// How many are to get no new work already: those that go as soon as the windows allow it.
fn cordon(current: u32, wishes: &Wishes, settings: &Settings, seen: &Observed, limits: &[Limit]) -> u32 {
    let stays = |limit: &Limit| {
        !matches!(limit.name.as_str(), "hold" | "stabilization" | "behavior" | "step" | "schedule" | "min" | "max")
    };
    if settings.mode != Mode::On
        || !seen.complete
        || settings.down.select == super::Select::Disabled
        || limits.iter().any(|limit| limit.to > limit.from && stays(limit))
    {
        return 0;
    }
    current.saturating_sub(wishes.unheld.max(wishes.beside).max(settings.min))
}

fn off(current: u32, now: f64) -> Decision {
    Decision {
        at: now,
        current,
        raw: current,
        wanted: current,
        desired: current,
        reason: "off".to_owned(),
        ..Decision::default()
    }
}
