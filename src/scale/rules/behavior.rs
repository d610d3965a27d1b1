use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::window::HORIZON;
use crate::scale::{Amount, Rules, Select};

/// Changes of the last hour.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Steps(VecDeque<Step>);

/// A change of the number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    at: f64,
    from: u32,
    to: u32,
}

/// No more steps are remembered: one each second for an hour.
const MOST: usize = 3600;

impl Steps {
    pub(crate) fn note(&mut self, at: f64, from: u32, to: u32) {
        self.0.push_back(Step { at, from, to });
        while self.0.len() > MOST || self.0.front().is_some_and(|step| step.at <= at - HORIZON) {
            self.0.pop_front();
        }
    }

    fn since(&self, begin: f64) -> impl Iterator<Item = &Step> {
        self.0.iter().filter(move |step| step.at > begin)
    }

    /// How many there were within the last hour.
    pub(crate) fn in_hour(&self, now: f64) -> u32 {
        self.since(now - HORIZON).count() as u32
    }

    /// How often the direction changed within the last ten minutes.
    pub(crate) fn reversals(&self, now: f64) -> u32 {
        let ups: Vec<bool> = self.since(now - 600.0).map(|step| step.to > step.from).collect();
        ups.windows(2).filter(|pair| pair[0] != pair[1]).count() as u32
    }

    /// How far a direction's policies let the number go; none where they say nothing.
    ///
    /// **Source**: `calculateScaleUpLimitWithScalingRules` and its counterpart of Kubernetes' `horizontal.go`: a period's limit counts from
    /// what there was when it began; up rounds up, down cuts off. In whole numbers, where Kubernetes' floats make 111 of 100 + 10 %.
    pub(crate) fn limit(&self, rules: &Rules, up: bool, size: u32, now: f64) -> Option<u32> {
        if rules.select == Select::Disabled {
            return Some(size);
        }
        let limits = rules.policies.iter().map(|pace| {
            let change: i64 = self.since(now - pace.period).map(|step| i64::from(step.to) - i64::from(step.from)).sum();
            let start = (i64::from(size) - change).max(0);
            let limit = match (pace.amount, up) {
                (Amount::Count(count), true) => start + i64::from(count),
                (Amount::Count(count), false) => start - i64::from(count),
                (Amount::Percent(percent), true) => (start * (100 + i64::from(percent)) + 99) / 100,
                (Amount::Percent(percent), false) => start * (100 - i64::from(percent)) / 100,
            };
            u32::try_from(limit.max(0)).unwrap_or(u32::MAX)
        });
        // The policy that allows the greatest change is the one with the largest limit upwards, the smallest downwards.
        let limit = if up == (rules.select == Select::Max) { limits.max() } else { limits.min() }?;
        // What was changed already is not taken back by a limit.
        Some(if up { limit.max(size) } else { limit.min(size) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scale::Pace;

    fn rules(policies: &[&str], select: Select) -> Rules {
        let policies = policies.iter().map(|text| text.parse::<Pace>().unwrap()).collect();
        Rules { stabilization: None, policies, select, tolerance: 0.0 }
    }

    /// Reference vectors by the semantics of `behavior`: (policies, select, up, steps with their age, size, limit).
    #[test]
    fn the_paces_of_hpa() {
        type Case = (&'static [&'static str], Select, bool, &'static [(f64, u32, u32)], u32, Option<u32>);
        let cases: [Case; 26] = [
            (&[], Select::Max, true, &[], 5, None),
            (&[], Select::Disabled, true, &[], 5, Some(5)),
            (&["4/15s"], Select::Disabled, false, &[], 5, Some(5)),
            (&["4/15s"], Select::Max, true, &[], 5, Some(9)),
            (&["100%/15s"], Select::Max, true, &[], 5, Some(10)),
            (&["4/15s", "100%/15s"], Select::Max, true, &[], 5, Some(10)),
            (&["4/15s", "100%/15s"], Select::Max, true, &[], 3, Some(7)),
            (&["4/15s", "100%/15s"], Select::Min, true, &[], 3, Some(6)),
            // Up rounds up, so that a few percent of few are one.
            (&["10%/60s"], Select::Max, true, &[], 3, Some(4)),
            (&["10%/60s"], Select::Max, true, &[], 100, Some(110)),
            // Down cuts off: 90 % of 3 are 2.
            (&["10%/60s"], Select::Max, false, &[], 3, Some(2)),
            (&["10%/60s"], Select::Max, false, &[], 100, Some(90)),
            (&["100%/15s"], Select::Max, false, &[], 7, Some(0)),
            (&["4/60s", "10%/60s"], Select::Max, false, &[], 80, Some(72)),
            (&["4/60s", "10%/60s"], Select::Min, false, &[], 80, Some(76)),
            (&["4/60s", "10%/60s"], Select::Max, false, &[], 20, Some(16)),
            // What was added within the period counts: it began with 5.
            (&["4/60s"], Select::Max, true, &[(30.0, 5, 8)], 8, Some(9)),
            (&["4/60s"], Select::Max, true, &[(30.0, 5, 9)], 9, Some(9)),
            (&["4/60s"], Select::Max, true, &[(60.0, 5, 9)], 9, Some(13)),
            (&["100%/60s"], Select::Max, true, &[(30.0, 5, 8)], 8, Some(10)),
            // A tighter limit takes nothing back.
            (&["1/60s"], Select::Max, true, &[(30.0, 5, 9)], 9, Some(9)),
            (&["1/60s"], Select::Max, false, &[(30.0, 9, 5)], 5, Some(5)),
            (&["50%/60s"], Select::Max, false, &[(30.0, 10, 7)], 7, Some(5)),
            // Both directions count to what the period began with: 10 - 4 + 2 = 8 now.
            (&["4/60s"], Select::Max, true, &[(40.0, 10, 6), (20.0, 6, 8)], 8, Some(14)),
            (&["4/60s"], Select::Max, false, &[(40.0, 10, 6), (20.0, 6, 8)], 8, Some(6)),
            // Different periods, each with its own beginning.
            (&["2/10s", "5/60s"], Select::Min, true, &[(30.0, 4, 8)], 8, Some(9)),
        ];
        let now = 10_000.0;
        for (policies, select, up, earlier, size, expected) in cases {
            let mut steps = Steps::default();
            earlier.iter().for_each(|(age, from, to)| steps.note(now - age, *from, *to));
            let found = steps.limit(&rules(policies, select), up, size, now);
            assert_eq!(found, expected, "{policies:?} {select:?} up {up} of {size} after {earlier:?}");
        }
    }

    #[test]
    fn reversals_count_within_ten_minutes() {
        let mut steps = Steps::default();
        for (at, from, to) in [(0.0, 5, 7), (100.0, 7, 5), (500.0, 5, 8), (550.0, 8, 9), (590.0, 9, 4)] {
            steps.note(at, from, to);
        }
        assert_eq!(steps.reversals(599.0), 3);
        assert_eq!(steps.reversals(650.0), 2);
        assert_eq!(steps.reversals(1195.0), 0);
        assert_eq!(steps.in_hour(3599.0), 5);
        assert_eq!(steps.in_hour(3600.0), 4);
    }

    #[test]
    fn no_more_than_an_hour_is_kept() {
        let mut steps = Steps::default();
        (0..20_000).for_each(|at| steps.note(f64::from(at) / 2.0, at % 7, at % 5));
        assert_eq!(steps.0.len(), MOST);
    }
}
