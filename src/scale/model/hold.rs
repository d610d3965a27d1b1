use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::scale::Hold as Setting;

/// How long too many are kept: what was wanted within the hold stays, and the hold grows when what was given away is needed back.
///
/// Its time is that which was seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Hold {
    /// What was wanted, each with the last time; only what is not outdone by something later.
    wanted: VecDeque<(f64, u32)>,
    /// How many there were, likewise.
    there: VecDeque<(f64, u32)>,
    /// When something that had been given away was needed back, and after how long.
    regrets: VecDeque<(f64, f32)>,
}

impl Hold {
    const REGRETS: usize = 32;
    const REGRET_MEMORY: f64 = 1800.0;

    fn note(list: &mut VecDeque<(f64, u32)>, clock: f64, count: u32, kept: f64) {
        while list.back().is_some_and(|(_, last)| *last <= count) {
            list.pop_back();
        }
        list.push_back((clock, count));
        while list.front().is_some_and(|(at, _)| *at <= clock - kept) {
            list.pop_front();
        }
    }

    /// Takes in what is wanted and how many there are.
    pub(super) fn look(&mut self, clock: f64, wanted: u32, current: u32, setting: &Setting) {
        Self::note(&mut self.wanted, clock, wanted, setting.max.max(setting.min));
        Self::note(&mut self.there, clock, current, 2.0 * setting.max);
    }

    /// Takes in that more are wanted than there are: if there were so many not long ago, it was wrong to let them go.
    pub(super) fn need_back(&mut self, clock: f64, wanted: u32, current: u32) {
        let missing = wanted.saturating_sub(current);
        if missing < 2 || f64::from(missing) < 0.2 * f64::from(current) {
            return;
        }
        if let Some((at, _)) = self.there.iter().rev().find(|(_, count)| *count >= wanted) {
            self.regrets.push_back((clock, (clock - at) as f32));
        }
        while self.regrets.len() > Self::REGRETS {
            self.regrets.pop_front();
        }
    }

    /// How long it is now.
    pub(super) fn length(&mut self, clock: f64, lead: f64, setting: &Setting) -> f64 {
        self.regrets.retain(|(at, _)| *at > clock - Self::REGRET_MEMORY);
        let least = setting.min.max(setting.leads * lead);
        if !setting.regret || self.regrets.len() < 2 {
            return least;
        }
        let longest = self.regrets.iter().fold(0.0, |longest, (_, gap)| f64::max(longest, f64::from(*gap)));
        (least + 1.25 * longest).min(setting.max.max(least))
    }

    /// The most that was wanted within the last so many seconds.
    pub(super) fn most(&self, clock: f64, seconds: f64) -> u32 {
        self.wanted.iter().find(|(at, _)| *at > clock - seconds).map_or(0, |(_, count)| *count)
    }

    /// How much longer more than so many, or as many, are held.
    pub(super) fn left(&self, clock: f64, count: u32, hold: f64) -> Option<f64> {
        let last = self.wanted.iter().rev().find(|(_, wanted)| *wanted >= count)?;
        Some(last.0 + hold - clock).filter(|left| *left > 0.0)
    }
}
