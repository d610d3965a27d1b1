use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// How wrong forecasts were: what came minus what had been expected one start-up time earlier, in erlangs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Errors {
    /// When it comes true, and what was expected.
    open: VecDeque<(f64, f32)>,
    known: VecDeque<f32>,
}

impl Errors {
    const KEPT: usize = 900;
    const OPEN: usize = 128;
    const ENOUGH: usize = 30;

    /// Takes in that at `clock` there is so much, and what is expected so many seconds later.
    pub(super) fn note(&mut self, clock: f64, real: f64, expected: f64, ahead: f64) {
        while let Some((_, open)) = self.open.pop_front_if(|(due, _)| *due <= clock) {
            self.known.push_back((real - f64::from(open)) as f32);
        }
        let excess = self.known.len().saturating_sub(Self::KEPT);
        self.known.drain(..excess);
        let due = clock + ahead;
        // With long start-up times not every second's forecast is kept.
        if self.open.back().is_none_or(|(last, _)| due - last >= ahead / Self::OPEN as f64) && self.open.len() < 2 * Self::OPEN {
            self.open.push_back((due, expected as f32));
        }
    }

    /// Forgets what is still open: nobody looked in between.
    pub(super) fn interrupt(&mut self) {
        self.open.clear();
    }

    /// The quantile of the errors; 0 where too few are known or it is negative.
    pub(super) fn quantile(&self, share: f64) -> f64 {
        if self.known.len() < Self::ENOUGH {
            return 0.0;
        }
        let mut errors: Vec<f32> = self.known.iter().copied().collect();
        let rank = ((errors.len() - 1) as f64 * share.clamp(0.0, 1.0)).round() as usize;
        let (_, error, _) = errors.select_nth_unstable_by(rank, f32::total_cmp);
        f64::from(*error).max(0.0)
    }
}
