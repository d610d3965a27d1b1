use serde::{Deserialize, Serialize};

use super::condition::short;
use crate::scale::{Observed, Phase, Settings};

/// Watches what becomes of each step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Watch {
    /// What it was like lately; what is older than the window has faded.
    recent: Effect,
    looked: f64,
    trial: Option<Trial>,
    /// Nothing is added until then.
    frozen: Option<f64>,
    /// What was found to be needed, and until when it is kept.
    floor: Option<(u32, f64)>,
}

/// What a pool was like for its users over some time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Effect {
    completions: f64,
    errors: f64,
    /// How many values of the latency, their sum and the sum of their squares.
    latencies: [f64; 3],
    /// The longest wait.
    wait: f64,
}

/// A step that is being watched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Trial {
    at: f64,
    from: u32,
    to: u32,
    /// How many were ready before.
    ready: u32,
    /// When the first new one was.
    came: Option<f64>,
    failures: u32,
    before: Effect,
    after: Effect,
}

/// A step made things worse.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verdict {
    /// How many there were before.
    pub(crate) back_to: u32,
    /// In words.
    pub(crate) why: String,
}

/// A change of so many standard errors is none of chance.
const SIGMAS: f64 = 3.0;

/// The 95th percentile has to rise by so much to be called worse.
const SLOWER: f64 = 0.3;

/// An error or two more are no proof of anything.
const FEW_ERRORS: f64 = 5.0;

/// An instance that has not come up by then has had its time, whatever the start-up time.
const COMES_UP: f64 = 60.0;

impl Effect {
    fn fade(&mut self, by: f64) {
        self.completions *= by;
        self.errors *= by;
        self.latencies = self.latencies.map(|part| part * by);
        self.wait *= by;
    }

    fn add(&mut self, seen: &Observed) {
        self.completions += seen.completions;
        self.errors += seen.errors;
        if let Some(p95) = seen.latency_p95 {
            self.latencies = [self.latencies[0] + 1.0, self.latencies[1] + p95, self.latencies[2] + p95 * p95];
        }
        self.wait = self.wait.max(seen.oldest_wait);
    }

    /// The mean of the latency and its standard error, squared; none of fewer than three values.
    fn latency(&self) -> Option<(f64, f64)> {
        let [count, sum, squares] = self.latencies;
        let mean = sum / count;
        (count >= 3.0).then(|| (mean, (squares / count - mean * mean).max(0.0) / (count - 1.0)))
    }

    fn error_share(&self) -> f64 {
        if self.completions > 0.0 { (self.errors / self.completions).min(1.0) } else { 0.0 }
    }

    /// Whether errors rose by more than chance makes of it: the test of two proportions.
    fn fails_more_than(&self, before: &Effect) -> bool {
        let all = self.completions + before.completions;
        if self.errors < FEW_ERRORS || self.completions <= 0.0 || before.completions <= 0.0 {
            return false;
        }
        let share = ((self.errors + before.errors) / all).min(1.0);
        let deviation = (share * (1.0 - share) * (1.0 / self.completions + 1.0 / before.completions)).sqrt();
        self.error_share() - before.error_share() > SIGMAS * deviation
    }

    fn slower_than(&self, before: &Effect) -> bool {
        let (Some((now, now_error)), Some((then, then_error))) = (self.latency(), before.latency()) else {
            return false;
        };
        now > then * (1.0 + SLOWER) && now - then > SIGMAS * (now_error + then_error).sqrt()
    }
}

impl Watch {
    /// A step is about to be taken.
    pub(super) fn begin(&mut self, seen: &Observed, from: u32, to: u32, now: f64) {
        match &mut self.trial {
            // A ramp is one step; its last good size is where it began.
            Some(trial) if trial.to > trial.from && to > trial.to => trial.to = to,
            trial => {
                let ready = seen.count(Phase::Ready);
                let before = self.recent;
                let new = Trial { at: now, from, to, ready, came: None, failures: 0, before, after: Effect::default() };
                // A pool that fell asleep has nobody to ask.
                *trial = (to > 0 && from > 0).then_some(new);
            }
        }
    }

    /// One look; the verdict, where there is one against the last step.
    pub(crate) fn look(&mut self, seen: &Observed, settings: &Settings, lead: f64, now: f64) -> Option<Verdict> {
        let window = settings.verify.window.max(2.0 * lead);
        let gone = (now - self.looked).max(0.0);
        self.looked = now;
        self.recent.fade((-gone / window).exp());
        self.recent.add(seen);
        let trial = self.trial.as_mut()?;
        trial.failures += seen.start_failures;
        trial.after.add(seen);
        // Half of what there is to see is no ground for a verdict.
        if !seen.complete {
            return None;
        }
        let outcome = if trial.to > trial.from {
            let patience = window.max(COMES_UP).max(4.0 * lead).max(settings.verify.ready_within);
            trial.grown(seen, window, patience, now)
        } else {
            trial.shrunk(seen, window, settings.slo.wait, now)
        };
        let back_to = trial.from;
        let why = match outcome {
            Outcome::Pending => return None,
            Outcome::Good => None,
            Outcome::Worse(why) => Some(why),
        };
        self.trial = None;
        why.map(|why| Verdict { back_to, why })
    }

    /// Nothing is added for a while, because what was added did not do.
    pub(crate) fn freeze(&mut self, until: f64) {
        self.frozen = Some(until);
    }

    /// Whether nothing may be added.
    pub(crate) fn is_frozen(&self, now: f64) -> bool {
        self.frozen.is_some_and(|until| now < until)
    }

    /// So many are needed, as has been found out.
    pub(crate) fn keep(&mut self, floor: u32, until: f64) {
        self.floor = Some((floor, until));
    }

    /// What has been found to be needed.
    pub(crate) fn floor(&self, now: f64) -> Option<u32> {
        self.floor.filter(|(_, until)| now < *until).map(|(floor, _)| floor)
    }
}

enum Outcome {
    Pending,
    Good,
    Worse(String),
}

impl Trial {
    fn grown(&mut self, seen: &Observed, window: f64, patience: f64, now: f64) -> Outcome {
        let ready = seen.count(Phase::Ready);
        if self.came.is_none() && ready > self.ready {
            self.came = Some(now);
            // What the new ones do shows from here on.
            self.after = Effect::default();
        }
        let Some(came) = self.came else {
            let missing = seen.current().saturating_sub(ready);
            return match now - self.at >= patience {
                false => Outcome::Pending,
                true if self.failures > 0 || missing >= self.to - self.from => Outcome::Worse(format!(
                    "none of the {} new ones was ready after {} s",
                    self.to - self.from,
                    short(now - self.at)
                )),
                true => Outcome::Good,
            };
        };
        if now - came < window {
            return Outcome::Pending;
        }
        if !self.after.fails_more_than(&self.before) {
            return Outcome::Good;
        }
        let share = |effect: &Effect| short(effect.error_share() * 100.0);
        Outcome::Worse(format!(
            "errors rose from {} % to {} % with the new ones",
            share(&self.before),
            share(&self.after)
        ))
    }

    fn shrunk(&self, seen: &Observed, window: f64, slack: f64, now: f64) -> Outcome {
        if seen.oldest_wait > slack && self.before.wait <= slack {
            return Outcome::Worse(format!(
                "a request has waited {} s since {} went, more than {} s",
                short(seen.oldest_wait),
                self.from - self.to,
                short(slack)
            ));
        }
        if now - self.at < window {
            return Outcome::Pending;
        }
        if !self.after.slower_than(&self.before) {
            return Outcome::Good;
        }
        let latency = |effect: &Effect| short(effect.latency().map_or(0.0, |(mean, _)| mean * 1e3));
        Outcome::Worse(format!(
            "the 95th percentile rose from {} to {} ms since {} went",
            latency(&self.before),
            latency(&self.after),
            self.from - self.to
        ))
    }
}
