use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Finds out by itself what period the load has, and says what is to come by what came then.
///
/// Two rings: one of half an hour in pieces of 5 s for periods of half a minute to a quarter of an hour, one of three hours in pieces of half
/// a minute for those up to an hour and a half.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Periods {
    fine: Ring,
    coarse: Ring,
}

impl Default for Periods {
    fn default() -> Self {
        Periods { fine: Ring::new(5.0), coarse: Ring::new(30.0) }
    }
}

impl Periods {
    pub(super) fn note(&mut self, now: f64, arrivals: f64, span: f64) {
        self.fine.note(now, arrivals, span);
        self.coarse.note(now, arrivals, span);
    }

    /// The rate to be ready for within `ahead` seconds and the period that says so; none where no period is known.
    pub(super) fn floor(&self, ahead: f64) -> Option<(f64, f64)> {
        let each = [&self.fine, &self.coarse].into_iter().filter_map(|ring| ring.floor(ahead));
        each.max_by(|(a, _), (b, _)| a.total_cmp(b))
    }
}

/// Mean rates of equal pieces of time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Ring {
    width: f64,
    /// Which piece is under way, counted from 1970, and what has come in it.
    piece: f64,
    arrivals: f64,
    span: f64,
    /// Whole pieces, the last one last; negative where nobody looked.
    rates: VecDeque<f32>,
    /// The period in pieces; 0 where none was found.
    lag: usize,
}

impl Ring {
    const KEPT: usize = 360;
    const SHORTEST: usize = 6;
    const UNSEEN: f32 = -1.0;
    /// A period is looked for after so many new pieces.
    const LOOK: f64 = 6.0;
    /// How much alike the load and itself one period ago must be, and how little in between.
    const ALIKE: f64 = 0.6;
    const UNLIKE: f64 = 0.3;

    fn new(width: f64) -> Self {
        Ring { width, ..Ring::default() }
    }

    fn note(&mut self, now: f64, arrivals: f64, span: f64) {
        let piece = (now / self.width).floor();
        let steps = piece - self.piece;
        if steps >= 1.0 {
            let seen = self.span >= self.width / 2.0;
            self.rates.push_back(if seen { (self.arrivals / self.span) as f32 } else { Self::UNSEEN });
            let missed = (steps - 1.0).min(Self::KEPT as f64) as usize;
            self.rates.extend(std::iter::repeat_n(Self::UNSEEN, missed));
            let excess = self.rates.len().saturating_sub(Self::KEPT);
            self.rates.drain(..excess);
            (self.piece, self.arrivals, self.span) = (piece, 0.0, 0.0);
            if piece % Self::LOOK == 0.0 {
                self.lag = self.find();
            }
        }
        self.arrivals += arrivals;
        self.span += span;
    }

    /// The shortest lag at which the load is like itself, after one at which it is not.
    fn find(&self) -> usize {
        let known = || self.rates.iter().filter(|rate| **rate >= 0.0);
        let count = known().count();
        if count < 2 * Self::SHORTEST {
            return 0;
        }
        let mean = known().sum::<f32>() / count as f32;
        let differences: Vec<f32> = self.rates.iter().map(|rate| if *rate < 0.0 { 0.0 } else { rate - mean }).collect();
        let longest = self.rates.len() * 2 / 5;
        let alike: Vec<f64> = (0..=longest).map(|lag| correlation(&differences, lag)).collect();
        let Some(dip) = alike.iter().position(|value| *value < Self::UNLIKE) else { return 0 };
        let from = dip.max(Self::SHORTEST);
        let best = alike.iter().skip(from).copied().fold(0.0, f64::max);
        if best < Self::ALIKE {
            return 0;
        }
        let peak = |lag: &usize| {
            let here = alike[*lag];
            here >= 0.93 * best && here >= alike[lag - 1] && alike.get(lag + 1).is_none_or(|next| here >= *next)
        };
        (from..=longest).find(peak).unwrap_or(0)
    }

    /// The least of what the last two periods had in the pieces that are to come, one more on either side.
    fn floor(&self, ahead: f64) -> Option<(f64, f64)> {
        let pieces = (ahead.max(0.0) / self.width).ceil() as usize + 1;
        if self.lag == 0 || pieces >= self.lag {
            return None;
        }
        let most = |ago: usize| {
            // What is under way now would be at the place after the last.
            let first = (self.rates.len() + 1).checked_sub(ago * self.lag + 2)?;
            let rates = self.rates.iter().skip(first).take(pieces + 2);
            Some(rates.fold(0.0, |most: f32, rate| most.max(*rate)))
        };
        let rate = most(1)?.min(most(2)?);
        Some((f64::from(rate), self.lag as f64 * self.width))
    }
}

/// How much alike a row of numbers with mean 0 and itself some places earlier are: from −1 to 1.
fn correlation(values: &[f32], lag: usize) -> f64 {
    let (later, earlier) = (&values[lag..], &values[..values.len() - lag]);
    let (mut both, mut squares_later, mut squares_earlier) = (0.0_f32, 0.0_f32, 0.0_f32);
    for (a, b) in later.iter().zip(earlier) {
        both += a * b;
        squares_later += a * a;
        squares_earlier += b * b;
    }
    let scale = (f64::from(squares_later) * f64::from(squares_earlier)).sqrt();
    if scale > 0.0 { f64::from(both) / scale } else { 0.0 }
}
