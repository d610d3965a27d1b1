use std::collections::VecDeque;

use super::segment::Kind;
use crate::admin::scaling::Sample;

/// The steps: samples as they come for a quarter of an hour, of 10 s for a day, of 5 min for two days (and in the files for as long as the history).
const TEN: f64 = 10.0;
const FIVE: f64 = 300.0;
const SECONDS_KEPT: f64 = 900.0;
const TENS_KEPT: f64 = 86400.0;
const FIVES_KEPT: f64 = 2.0 * 86400.0;

/// One pool's samples in three steps, each made of the finer one.
#[derive(Debug, Default)]
pub(super) struct Ladder {
    seconds: VecDeque<Sample>,
    tens: VecDeque<Sample>,
    fives: VecDeque<Sample>,
    /// Of the 10 s and of the 5 min that are not over yet.
    ten: Option<Sample>,
    five: Option<Sample>,
}

impl Ladder {
    /// As the last process has left it.
    pub(super) fn recall(tens: Vec<Sample>, fives: Vec<Sample>) -> Ladder {
        let mut ladder = Ladder { fives: fives.into(), ..Ladder::default() };
        let done = ladder.fives.back().map_or(f64::NEG_INFINITY, |last| slot(last.at, FIVE));
        for ten in tens {
            // Those of a slot that was closed already are in its sample.
            if slot(ten.at, FIVE) > done {
                ladder.fold_five(&ten);
            }
            ladder.tens.push_back(ten);
        }
        ladder.trim();
        ladder
    }

    /// Takes a sample in; answers the longer steps that it has ended, to be written.
    pub(super) fn add(&mut self, sample: Sample) -> Vec<(Kind, Sample)> {
        let mut done = Vec::new();
        if let Some(ten) = step(&mut self.ten, &sample, TEN) {
            done.extend(self.fold_five(&ten).map(|five| (Kind::Minutes, five)));
            self.tens.push_back(ten.clone());
            done.push((Kind::Seconds, ten));
        }
        self.seconds.push_back(sample);
        self.trim();
        done
    }

    /// Ends the 10 s that are not over: at the end of the process. Those of 5 min are made of them again.
    pub(super) fn close(&mut self) -> Vec<(Kind, Sample)> {
        self.ten.take().map(|ten| (Kind::Seconds, ten)).into_iter().collect()
    }

    /// Those within a span at the finest step that is kept, and the time before which there may be others in the files.
    pub(super) fn within(&self, span: (f64, f64)) -> (Vec<Sample>, f64) {
        let seconds = self.seconds.front().map_or(f64::INFINITY, |first| slot(first.at, TEN) * TEN);
        let tens = self.tens.front().map_or(seconds, |first| slot(first.at, FIVE) * FIVE).min(seconds);
        let fives = self.fives.front().map_or(tens, |first| slot(first.at, FIVE) * FIVE).min(tens);
        let coarse = self.fives.iter().filter(|sample| sample.at <= tens);
        let middle = self.tens.iter().filter(|sample| sample.at <= seconds);
        let all = coarse.chain(middle).chain(&self.seconds);
        (all.filter(|sample| (span.0..=span.1).contains(&sample.at)).cloned().collect(), fives)
    }

    fn fold_five(&mut self, ten: &Sample) -> Option<Sample> {
        let five = step(&mut self.five, ten, FIVE)?;
        self.fives.push_back(five.clone());
        Some(five)
    }

    /// Whole slots of the longer step go at once, so that steps meet without a gap or an overlap.
    fn trim(&mut self) {
        trim(&mut self.seconds, TEN, SECONDS_KEPT);
        trim(&mut self.tens, FIVE, TENS_KEPT);
        trim(&mut self.fives, FIVE, FIVES_KEPT);
    }
}

/// The number of the slot that a step's end is in; an end on the border belongs to the slot that ends there.
fn slot(at: f64, length: f64) -> f64 {
    (at / length).ceil() - 1.0
}

fn trim(samples: &mut VecDeque<Sample>, slots: f64, kept: f64) {
    let Some(last) = samples.back().map(|last| last.at) else { return };
    let oldest = slot(last - kept, slots);
    while samples.front().is_some_and(|first| slot(first.at, slots) < oldest) {
        samples.pop_front();
    }
}

/// Adds a sample to the step that is open; answers that step where the sample belongs to a later one.
fn step(open: &mut Option<Sample>, sample: &Sample, length: f64) -> Option<Sample> {
    match open {
        Some(sum) if slot(sum.at, length) == slot(sample.at, length) => {
            merge(sum, sample);
            None
        }
        _ => open.replace(sample.clone()),
    }
}

/// Adds a later sample to a sum: counts are added, means weighed by their time, the most and the last kept.
fn merge(sum: &mut Sample, next: &Sample) {
    let span = sum.span + next.span;
    let share = if span > 0.0 { next.span / span } else { 1.0 };
    let mean = |sum: &mut f64, next: f64| *sum += (next - *sum) * share;
    for (sum, next) in [
        (&mut sum.in_flight, next.in_flight),
        (&mut sum.queue, next.queue),
        (&mut sum.ready, next.ready),
        (&mut sum.starting, next.starting),
        (&mut sum.draining, next.draining),
        (&mut sum.sessions, next.sessions),
    ] {
        mean(sum, next);
    }
    for (sum, next) in [(&mut sum.cpu, next.cpu), (&mut sum.memory, next.memory)] {
        match (sum.as_mut(), next) {
            (Some(sum), Some(next)) => mean(sum, next),
            (None, Some(_)) => *sum = next,
            (_, None) => {}
        }
    }
    sum.at = next.at;
    sum.span = span;
    sum.arrivals += next.arrivals;
    sum.completions += next.completions;
    sum.held += next.held;
    sum.saturated += next.saturated;
    sum.errors += next.errors;
    sum.wait = sum.wait.max(next.wait);
    // `None` is less than any number.
    sum.p95 = sum.p95.max_known(next.p95);
    sum.desired = next.desired;
    sum.capacity = next.capacity;
}

trait MaxKnown {
    fn max_known(self, other: Self) -> Self;
}

impl MaxKnown for Option<f64> {
    fn max_known(self, other: Self) -> Self {
        match (self, other) {
            (Some(one), Some(other)) => Some(one.max(other)),
            (one, other) => one.or(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(at: f64) -> Sample {
        Sample {
            at,
            span: 1.0,
            arrivals: 2.0,
            in_flight: at % 10.0,
            wait: at % 7.0,
            desired: at as u32,
            ..Sample::default()
        }
    }

    fn run(ladder: &mut Ladder, from: u32, to: u32) -> Vec<(Kind, Sample)> {
        (from..=to).flat_map(|at| ladder.add(second(f64::from(at)))).collect()
    }

    #[test]
    fn seconds_become_tens_and_tens_become_five_minutes() {
        let mut ladder = Ladder::default();
        let done = run(&mut ladder, 1, 601);
        let tens: Vec<_> = done.iter().filter(|(kind, _)| *kind == Kind::Seconds).map(|(_, sample)| sample).collect();
        let fives: Vec<_> = done.iter().filter(|(kind, _)| *kind == Kind::Minutes).map(|(_, sample)| sample).collect();
        assert_eq!((tens.len(), fives.len()), (60, 1));
        let first = tens[0];
        assert_eq!((first.at, first.span, first.arrivals, first.wait, first.desired), (10.0, 10.0, 20.0, 6.0, 10));
        assert!((first.in_flight - 4.5).abs() < 1e-9, "{}", first.in_flight);
        assert_eq!((fives[0].at, fives[0].span, fives[0].arrivals, fives[0].desired), (300.0, 300.0, 600.0, 300));
    }

    #[test]
    fn steps_meet_without_gap_or_overlap_and_are_bounded() {
        let mut ladder = Ladder::default();
        run(&mut ladder, 1, 300_000);
        let (all, border) = ladder.within((f64::NEG_INFINITY, f64::INFINITY));
        assert!(all.len() < 900 + 8700 + 600, "{}", all.len());
        for pair in all.windows(2) {
            assert_eq!(pair[1].at - pair[1].span, pair[0].at, "{pair:?}");
        }
        assert_eq!(all.last().unwrap().at, 300_000.0);
        assert_eq!(all[0].at - all[0].span, border);
        assert!(border <= 300_000.0 - 2.0 * 86400.0);
        let arrivals: f64 = all.iter().map(|sample| sample.arrivals).sum();
        assert_eq!(arrivals, 2.0 * (300_000.0 - border));
    }

    #[test]
    fn what_was_cut_off_in_the_middle_of_five_minutes_is_folded_again() {
        let mut before = Ladder::default();
        let written = run(&mut before, 1, 745);
        let of = |kind| written.iter().filter(move |(of, _)| *of == kind).map(|(_, sample)| sample.clone()).collect();
        let mut after = Ladder::recall(of(Kind::Seconds), of(Kind::Minutes));
        let fives =
            run(&mut after, 751, 911).into_iter().filter(|(kind, _)| *kind == Kind::Minutes).collect::<Vec<_>>();
        // The seconds after the last ten, 741 to 750, are all that is missing.
        assert_eq!(fives.len(), 1);
        assert_eq!((fives[0].1.at, fives[0].1.span, fives[0].1.arrivals), (900.0, 290.0, 580.0));
    }

    #[test]
    fn a_second_without_an_answer_does_not_hide_the_others() {
        let mut sum = Sample { at: 1.0, span: 1.0, p95: Some(0.5), cpu: None, ..Sample::default() };
        merge(&mut sum, &Sample { at: 2.0, span: 1.0, p95: None, cpu: Some(0.4), ..Sample::default() });
        assert_eq!((sum.p95, sum.cpu), (Some(0.5), Some(0.4)));
    }
}
