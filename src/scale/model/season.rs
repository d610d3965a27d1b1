use serde::{Deserialize, Serialize};

/// What comes at which time of a known period: a floor under the forecast, never a reason for fewer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Season {
    pub(super) period: f64,
    /// When it was first looked at.
    began: f64,
    /// Mean rates, and how many seconds they were made of.
    bins: Vec<(f32, f32)>,
}

impl Season {
    const BINS: usize = 144;
    /// How many periods are remembered, roughly.
    const MEMORY: f64 = 3.0;

    pub(super) fn new(period: f64, now: f64) -> Self {
        Season { period, began: now, bins: vec![(0.0, 0.0); Self::BINS] }
    }

    /// Where in the period `at` is, in bins.
    fn place(&self, at: f64) -> usize {
        (at.rem_euclid(self.period) / self.period * Self::BINS as f64) as usize % Self::BINS
    }

    fn width(&self) -> f64 {
        self.period / Self::BINS as f64
    }

    /// The rate to be ready for within `ahead` seconds; 0 before the period has gone round once. `base` is the rate of the last half minute.
    pub(super) fn floor(&self, now: f64, ahead: f64, base: f64) -> f64 {
        if self.bins.len() != Self::BINS || now - self.began < self.period {
            return 0.0;
        }
        let here = self.place(now);
        let known = |bin: usize| self.bins[bin % Self::BINS];
        let back = ((32.0 / self.width()) as usize).clamp(1, Self::BINS);
        let before: Vec<f64> = (1..=back)
            .map(|step| known(here + Self::BINS - step))
            .filter(|(_, seen)| *seen > 0.0)
            .map(|(mean, _)| f64::from(mean))
            .collect();
        let reference = before.iter().sum::<f64>() / before.len().max(1) as f64;
        let ratio = if reference > 0.0 { (base / reference).clamp(0.6, 1.5) } else { 1.0 };
        let steps = ((ahead / self.width()) as usize + 1).min(Self::BINS - 1);
        let most = (0..=steps).map(|step| known(here + step).0).fold(0.0, f32::max);
        f64::from(most) * ratio
    }

    pub(super) fn note(&mut self, now: f64, rate: f64, span: f64) {
        let (here, memory) = (self.place(now), self.width().max(3.0) * Self::MEMORY);
        if let Some((mean, seen)) = self.bins.get_mut(here) {
            *seen = (*seen + span as f32).min(memory as f32);
            *mean += (rate as f32 - *mean) * (span as f32 / *seen).min(1.0);
        }
    }
}
