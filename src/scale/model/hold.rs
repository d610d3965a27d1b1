use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::scale::Hold as Setting;

/// How long too many are kept.
///
/// It is the skier's question, to rent or to buy: an instance that is not needed costs for as long as it is kept, one that was let go costs a
/// start when it is needed back. Who knows nothing keeps it as long as a start is worth (`least`), and pays at most twice of what was best.
/// Who has seen how long instances were not needed keeps them as long as would have cost least: long enough where they are always needed
/// back soon, and not a second longer where they are not. Its time is that which was seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Hold {
    /// What was wanted, each with the last time; only what is not outdone by something later.
    wanted: VecDeque<(f64, u32)>,
    breaks: VecDeque<Break>,
}

/// Instances that were not needed for a while.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Break {
    /// When they were needed again.
    at: f64,
    /// For how long they were not.
    gap: f32,
    count: f32,
    /// Whether so many were missing at once that requests had to wait for them.
    sudden: bool,
}

impl Break {
    /// The gap of those that were not needed again for as long as anybody remembers; a number, since JSON knows no infinity.
    const NEVER: f32 = 1e9;
}

impl Hold {
    const KEPT: usize = 64;
    const MEMORY: f64 = 1800.0;
    /// What a start is worth where requests wait for it, compared with one that only costs.
    const SUDDEN: f64 = 8.0;

    /// Takes in what is wanted and how many there are.
    pub(super) fn look(&mut self, clock: f64, wanted: u32, current: u32, least: f64, setting: &Setting) {
        if self.wanted.is_empty() {
            // Nobody knows what those that are there were needed for before anybody looked.
            self.wanted.push_back((clock, current.max(wanted)));
        }
        let before = self.wanted.back().map_or(wanted, |(_, count)| *count);
        if wanted > before {
            self.needed_again(clock, before, wanted, current, least);
        }
        while self.wanted.back().is_some_and(|(_, last)| *last <= wanted) {
            self.wanted.pop_back();
        }
        self.wanted.push_back((clock, wanted));
        let forgotten = |at: f64| at <= clock - 2.0 * setting.max.max(least);
        while let Some((_, count)) = self.wanted.front().copied().filter(|(at, _)| forgotten(*at)) {
            self.wanted.pop_front();
            let gone = count - self.wanted.front().map_or(0, |(_, next)| *next).min(count);
            self.remember(Break { at: clock, gap: Break::NEVER, count: gone as f32, sudden: false });
        }
    }

    fn remember(&mut self, each: Break) {
        self.breaks.push_back(each);
        let excess = self.breaks.len().saturating_sub(Self::KEPT);
        self.breaks.drain(..excess);
    }

    fn needed_again(&mut self, clock: f64, before: u32, wanted: u32, current: u32, least: f64) {
        let missing = wanted.saturating_sub(current);
        let sudden = missing >= 2 && f64::from(missing) >= 0.2 * f64::from(current);
        let mut reached = before;
        let higher: Vec<(f64, u32)> = self.wanted.iter().rev().filter(|(_, count)| *count > before).copied().collect();
        for (at, count) in higher {
            let (gap, upto) = (clock - at, wanted.min(count));
            // Shorter ones are within the shortest hold, whatever it is made.
            if gap > least && upto > reached {
                self.remember(Break { at: clock, gap: gap as f32, count: (upto - reached) as f32, sudden });
            }
            reached = reached.max(upto);
        }
    }

    /// How long it is now: at least `least` seconds.
    pub(super) fn length(&mut self, clock: f64, least: f64, setting: &Setting) -> f64 {
        self.breaks.retain(|each| each.at > clock - Self::MEMORY);
        let back = |each: &&Break| each.gap < Break::NEVER;
        let (first, last) = (self.breaks.iter().find(back), self.breaks.iter().rfind(back));
        // Once is no habit.
        if !setting.regret || !first.zip(last).is_some_and(|(first, last)| last.at - first.at > least) {
            return least;
        }
        let cost = |hold: f64| {
            let of = |each: &Break| {
                let (gap, price) = (f64::from(each.gap), least * if each.sudden { Self::SUDDEN } else { 1.0 });
                f64::from(each.count) * if gap <= hold { gap } else { hold + price }
            };
            self.breaks.iter().map(of).sum::<f64>()
        };
        let longer = self.breaks.iter().map(|each| (f64::from(each.gap) * 1.1 + 5.0).min(setting.max));
        let cheapest = longer.fold((least, cost(least)), |best, hold| {
            let cost = cost(hold);
            if cost < best.1 { (hold, cost) } else { best }
        });
        cheapest.0.max(least)
    }

    /// The most that was wanted within the last so many seconds.
    pub(super) fn most(&self, clock: f64, seconds: f64) -> u32 {
        self.wanted.iter().find(|(at, _)| *at > clock - seconds).map_or(0, |(_, count)| *count)
    }

    /// How much longer so many are held.
    pub(super) fn left(&self, clock: f64, count: u32, hold: f64) -> Option<f64> {
        let last = self.wanted.iter().rev().find(|(_, wanted)| *wanted >= count)?;
        Some(last.0 + hold - clock).filter(|left| *left > 0.0)
    }
}
