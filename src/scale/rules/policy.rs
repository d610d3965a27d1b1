use serde::{Deserialize, Serialize};

use super::condition::{holds, short, values};
use crate::scale::{Adjust, Observed, Policy};

/// How far a threshold policy is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Run {
    /// Since when its condition has held without a break.
    since: Option<f64>,
    /// When its condition was known last.
    known: f64,
    /// When it acted last.
    acted: Option<f64>,
    /// What it asked for then.
    asked: u32,
    /// … and whether that was more than there was.
    more: bool,
}

/// What a policy asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ask {
    pub(super) wants: Option<u32>,
    pub(super) why: String,
    /// It asks for fewer, now.
    pub(super) fewer: bool,
}

/// Nobody knows whether a condition that was not seen for so long has held without a break.
const BLIND: f64 = 60.0;

impl Run {
    /// One look: whether it asks for something.
    ///
    /// It acts once its condition has held for the whole time, then rests. While it rests, what it has added stays; what it has removed
    /// may come back. If its condition still holds after that, it acts again.
    pub(super) fn look(&mut self, policy: &Policy, seen: &Observed, capacity: f64, size: u32, now: f64) -> Ask {
        let lasted = self.lasted(policy, seen, capacity, now);
        let told = format!("{} ({})", policy.when, values(&policy.when, seen, capacity));
        let none = |why: String| Ask { wants: None, why, fewer: false };
        let rest = self.acted.map_or(0.0, |acted| acted + policy.cooldown - now);
        if rest > 0.0 {
            let why = format!("{told}: acted, and rests for {} s", short(rest));
            return Ask { wants: self.more.then_some(self.asked), why, fewer: false };
        }
        match lasted {
            None => none(told),
            Some(lasted) if lasted < policy.lasting => {
                none(format!("{told}: for {} s of {} s", short(lasted), short(policy.lasting)))
            }
            Some(lasted) => match wish(policy, size) {
                None => none(format!("{told}: {} would be beyond its own bounds", policy.adjust)),
                Some(wants) => {
                    (self.acted, self.asked, self.more) = (Some(now), wants, wants > size);
                    let why = format!("{told} for {} s: {}", short(lasted), policy.adjust);
                    Ask { wants: Some(wants), why, fewer: wants < size }
                }
            },
        }
    }

    /// For how long the condition has held without a break; none where it does not.
    fn lasted(&mut self, policy: &Policy, seen: &Observed, capacity: f64, now: f64) -> Option<f64> {
        if now - self.known > BLIND {
            self.since = None;
        }
        match holds(&policy.when, seen, capacity) {
            Some(true) => {
                self.known = now;
                Some(now - *self.since.get_or_insert(now))
            }
            Some(false) => {
                self.known = now;
                self.since = None;
                None
            }
            // It neither breaks nor proves anything.
            None => None,
        }
    }
}

/// What the policy makes of a size; none where its own bounds leave nothing to do.
fn wish(policy: &Policy, size: u32) -> Option<u32> {
    let change = |more: bool, amount: u32| if more { size.saturating_add(amount) } else { size.saturating_sub(amount) };
    let wish = match policy.adjust {
        Adjust::Count(count) => change(count > 0, count.unsigned_abs()),
        Adjust::Percent(percent) => {
            let share = u64::from(size) * u64::from(percent.unsigned_abs());
            let amount = if percent > 0 { share.div_ceil(100) } else { share / 100 };
            change(percent > 0, u32::try_from(amount).unwrap_or(u32::MAX).max(1))
        }
        Adjust::To(to) => to,
    };
    let bounded = wish.min(policy.max.unwrap_or(u32::MAX)).max(policy.min.unwrap_or(0));
    // A bound does not turn more into fewer.
    (bounded != size && (bounded > size) == (wish > size)).then_some(bounded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(when: &str, adjust: &str) -> Policy {
        Policy {
            name: "p".to_owned(),
            when: when.parse().unwrap(),
            lasting: 30.0,
            adjust: adjust.parse().unwrap(),
            cooldown: 300.0,
            min: None,
            max: None,
        }
    }

    fn queue(queue: f64) -> Observed {
        Observed { queue, ..Observed::default() }
    }

    #[test]
    fn it_acts_after_the_whole_time_and_rests() {
        let policy = policy("queue_depth > 10", "+2");
        let mut run = Run::default();
        let mut wants = |at: f64, depth: f64, size: u32| run.look(&policy, &queue(depth), 1.0, size, at).wants;
        assert_eq!(wants(0.0, 11.0, 4), None);
        assert_eq!(wants(29.0, 11.0, 4), None);
        // A break begins it anew.
        assert_eq!(wants(30.0, 10.0, 4), None);
        assert_eq!(wants(31.0, 11.0, 4), None);
        assert_eq!(wants(60.0, 11.0, 4), None);
        assert_eq!(wants(61.0, 11.0, 4), Some(6));
        // While it rests what it added stays, and it does not act again.
        assert_eq!(wants(62.0, 11.0, 6), Some(6));
        assert_eq!(wants(300.0, 0.0, 6), Some(6));
        assert_eq!(wants(320.0, 11.0, 6), Some(6));
        assert_eq!(wants(361.0, 11.0, 6), Some(8));
        assert_eq!(wants(661.0, 0.0, 8), None);
    }

    #[test]
    fn what_is_not_known_neither_breaks_nor_acts() {
        let policy = policy("latency_p95 > 1s", "+1");
        let mut run = Run::default();
        let mut wants = |at: f64, p95: Option<f64>| {
            run.look(&policy, &Observed { latency_p95: p95, ..Observed::default() }, 1.0, 4, at).wants
        };
        assert_eq!(wants(0.0, Some(2.0)), None);
        assert_eq!(wants(20.0, Some(2.0)), None);
        assert_eq!(wants(31.0, None), None);
        assert_eq!(wants(32.0, Some(2.0)), Some(5));
        let mut run = Run::default();
        let mut wants = |at: f64, p95: Option<f64>| {
            run.look(&policy, &Observed { latency_p95: p95, ..Observed::default() }, 1.0, 4, at).wants
        };
        assert_eq!(wants(0.0, Some(2.0)), None);
        // Nobody knows what was between.
        assert_eq!(wants(100.0, Some(2.0)), None);
        assert_eq!(wants(130.0, Some(2.0)), Some(5));
    }

    #[test]
    fn changes_are_rounded_away_from_nothing() {
        let wishes = |adjust: &str, size| wish(&policy("rps > 0", adjust), size);
        assert_eq!(wishes("+2", 4), Some(6));
        assert_eq!(wishes("-1", 4), Some(3));
        assert_eq!(wishes("-5", 4), Some(0));
        assert_eq!(wishes("+50%", 3), Some(5));
        assert_eq!(wishes("+1%", 3), Some(4));
        assert_eq!(wishes("-50%", 3), Some(2));
        assert_eq!(wishes("-10%", 3), Some(2));
        assert_eq!(wishes("+50%", 0), Some(1));
        assert_eq!(wishes("=10", 3), Some(10));
        assert_eq!(wishes("=10", 10), None);
    }

    #[test]
    fn its_own_bounds_turn_nothing_round() {
        let bounded =
            |adjust: &str, size| wish(&Policy { min: Some(3), max: Some(8), ..policy("rps > 0", adjust) }, size);
        assert_eq!(bounded("+5", 5), Some(8));
        assert_eq!(bounded("+5", 8), None);
        assert_eq!(bounded("+5", 12), None);
        assert_eq!(bounded("-5", 5), Some(3));
        assert_eq!(bounded("-1", 2), None);
        assert_eq!(bounded("=20", 5), Some(8));
    }
}
