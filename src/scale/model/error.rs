use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// How wrong forecasts were: what came minus what had been expected one start-up time earlier, in erlangs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Errors {
    /// When it comes true, and what was expected.
    open: VecDeque<(f64, f32)>,
    /// What was expected, and by how much more came.
    known: VecDeque<(f32, f32)>,
}

impl Errors {
    const KEPT: usize = 900;
    const OPEN: usize = 128;
    const ENOUGH: usize = 20;

    /// Takes in that at `clock` there is so much, and what is expected so many seconds later.
    pub(super) fn note(&mut self, clock: f64, real: f64, expected: f64, ahead: f64) {
        while let Some((_, open)) = self.open.front().copied().filter(|(due, _)| *due <= clock) {
            self.open.pop_front();
            self.known.push_back((open, (real - f64::from(open)) as f32));
        }
        let excess = self.known.len().saturating_sub(Self::KEPT);
        self.known.drain(..excess);
        let due = clock + ahead;
        // With long start-up times not every second's forecast is kept.
        if self.open.back().is_none_or(|(last, _)| due - last >= (ahead / Self::OPEN as f64).max(1.75))
            && self.open.len() < 2 * Self::OPEN
        {
            self.open.push_back((due, expected as f32));
        }
    }

    /// Forgets what is still open: nobody looked in between.
    pub(super) fn interrupt(&mut self) {
        self.open.clear();
    }

    /// The quantile of the errors that were made when about so much was expected; none where too few are known, never negative.
    ///
    /// About so much, since what a burst did to the forecast of a quiet minute says nothing about the burst itself: counted together they
    /// would ask for room above the burst, and for too little before it.
    pub(super) fn quantile(&self, share: f64, expected: f64) -> Option<f64> {
        if self.known.len() < Self::ENOUGH {
            return None;
        }
        let mut wide = 1.5;
        let mut errors: Vec<f32> = Vec::with_capacity(self.known.len());
        while errors.len() < 2 * Self::ENOUGH && errors.len() < self.known.len() {
            let near = (expected / wide - wide) as f32..=(expected * wide + wide) as f32;
            errors.clear();
            errors.extend(self.known.iter().filter(|(open, _)| near.contains(open)).map(|(_, error)| error));
            wide *= 1.5;
        }
        let rank = ((errors.len() - 1) as f64 * share.clamp(0.0, 1.0)).round() as usize;
        let (_, error, _) = errors.select_nth_unstable_by(rank, f32::total_cmp);
        Some(f64::from(*error).max(0.0))
    }
}
