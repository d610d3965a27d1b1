use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// What was seen, step by step: whole for a minute, in pieces of some seconds for five more.
///
/// Its time is that which was seen: gaps have no length, so that nothing looks like a drop because nobody looked. Single precision, since
/// it is written to disk every few seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Past {
    fine: VecDeque<Slice>,
    coarse: VecDeque<Slice>,
}

/// A stretch of time and what happened in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f32; 6]", into = "[f32; 6]")]
pub(super) struct Slice {
    /// Seconds.
    pub(super) span: f64,
    pub(super) arrivals: f64,
    pub(super) completions: f64,
    /// How long those had held their slots.
    pub(super) held: f64,
    /// Requests in progress times seconds.
    pub(super) in_flight: f64,
    /// Requests that waited times seconds.
    pub(super) queue: f64,
}

impl From<[f32; 6]> for Slice {
    fn from(values: [f32; 6]) -> Self {
        let [span, arrivals, completions, held, in_flight, queue] = values.map(f64::from);
        Slice { span, arrivals, completions, held, in_flight, queue }
    }
}

impl From<Slice> for [f32; 6] {
    fn from(slice: Slice) -> Self {
        [slice.span, slice.arrivals, slice.completions, slice.held, slice.in_flight, slice.queue]
            .map(|value| value as f32)
    }
}

impl Slice {
    fn add(&mut self, other: &Slice, share: f64) {
        self.span += other.span * share;
        self.arrivals += other.arrivals * share;
        self.completions += other.completions * share;
        self.held += other.held * share;
        self.in_flight += other.in_flight * share;
        self.queue += other.queue * share;
    }

    /// Arrivals a second.
    pub(super) fn rate(&self) -> f64 {
        if self.span > 0.0 { self.arrivals / self.span } else { 0.0 }
    }

    /// Mean of requests in progress.
    pub(super) fn mean_in_flight(&self) -> f64 {
        if self.span > 0.0 { self.in_flight / self.span } else { 0.0 }
    }
}

impl Past {
    const FINE: f64 = 70.0;
    const COARSE: f64 = 250.0;
    /// Pieces shorter than this are put together.
    const SHORTEST: f64 = 0.5;
    const PIECE: f64 = 4.0;
    /// The longest window there can be.
    pub(super) const LONGEST: f64 = 300.0;

    pub(super) fn push(&mut self, slice: Slice) {
        // What is kept is what will be read from disk.
        let slice = Slice::from(<[f32; 6]>::from(slice));
        match self.fine.back_mut().filter(|last| last.span < Self::SHORTEST) {
            Some(last) => last.add(&slice, 1.0),
            None => self.fine.push_back(slice),
        }
        let mut fine: f64 = self.fine.iter().map(|slice| slice.span).sum();
        while fine > Self::FINE && self.fine.len() > 1 {
            let Some(oldest) = self.fine.pop_front() else { break };
            fine -= oldest.span;
            match self.coarse.back_mut().filter(|last| last.span < Self::PIECE - 0.5) {
                Some(last) => last.add(&oldest, 1.0),
                None => self.coarse.push_back(oldest),
            }
        }
        let mut coarse: f64 = self.coarse.iter().map(|slice| slice.span).sum();
        while let Some(first) = self.coarse.front().filter(|first| coarse - first.span > Self::COARSE) {
            coarse -= first.span;
            self.coarse.pop_front();
        }
    }

    fn backwards(&self) -> impl Iterator<Item = &Slice> {
        self.fine.iter().rev().chain(self.coarse.iter().rev())
    }

    /// The last so many seconds; fewer where there were not so many.
    pub(super) fn last(&self, seconds: f64) -> Slice {
        let mut sum = Slice::default();
        for slice in self.backwards() {
            let missing = seconds - sum.span;
            if missing <= 1e-9 {
                break;
            }
            sum.add(slice, if slice.span <= missing { 1.0 } else { missing / slice.span });
        }
        sum
    }

    /// Rates of `count` stretches of `seconds` each up to now, the oldest first; none where the past is shorter.
    pub(super) fn rates(&self, count: usize, seconds: f64) -> Option<Vec<f64>> {
        let mut rates = vec![0.0; count];
        let (mut place, mut open) = (count, 0.0);
        for slice in self.backwards() {
            let mut left = slice.span;
            while left > 0.0 {
                if open <= 1e-9 {
                    if place == 0 {
                        return Some(rates);
                    }
                    place -= 1;
                    open = seconds;
                }
                let part = left.min(open);
                rates[place] += slice.rate() * part / seconds;
                left -= part;
                open -= part;
            }
        }
        (place == 0 && open <= 1e-6 * seconds).then_some(rates)
    }

    /// By how much arrivals vary more than those of a Poisson stream of this rate: the index of dispersion over the last half minute, at
    /// least 1. Differences of neighbours, so that a trend is no noise.
    pub(super) fn dispersion(&self, rate: f64) -> f64 {
        let (mut covered, mut count, mut sum, mut squares) = (0.0, 0.0, 0.0, 0.0);
        let mut before: Option<f64> = None;
        for slice in self.backwards() {
            if covered + slice.span > 32.5 {
                break;
            }
            covered += slice.span;
            if let Some(before) = before {
                let difference = before - slice.rate();
                count += 1.0;
                sum += difference;
                squares += difference * difference;
            }
            before = Some(slice.rate());
        }
        if count < 4.0 {
            return 1.0;
        }
        let variance = (squares - sum * sum / count) / count;
        (0.5 * variance * covered / (count + 1.0) / rate.max(1e-6)).clamp(1.0, 20.0)
    }
}
