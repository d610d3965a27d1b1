use std::sync::OnceLock;

use crossbeam_utils::CachePadded;

/// Who writes: one of the workers, or control. Each has its own copy of every count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lane(u16);

impl Lane {
    /// The control thread.
    pub const CONTROL: Lane = Lane(0);

    /// The worker of this number, from 0.
    pub fn worker(number: usize) -> Lane {
        Lane(u16::try_from(number).unwrap_or(u16::MAX).saturating_add(1))
    }

    /// The worker's number, unless it is control's lane.
    pub fn number(self) -> Option<usize> {
        self.0.checked_sub(1).map(usize::from)
    }
}

/// A `T` for each lane, made when the lane first uses it, on cache lines of its own.
///
/// **Cost**: 16 bytes for each lane until used: ten thousand routes do not cost ten thousand histograms. Then one check and one
/// indirection.
#[derive(Debug)]
pub struct PerWorker<T> {
    lanes: Box<[OnceLock<Box<CachePadded<T>>>]>,
}

impl<T: Default> PerWorker<T> {
    /// For so many workers, and control.
    pub fn new(workers: usize) -> Self {
        PerWorker { lanes: (0..=workers).map(|_| OnceLock::new()).collect() }
    }

    /// This lane's own. A lane beyond those foreseen writes as control.
    #[inline]
    pub fn at(&self, lane: Lane) -> &T {
        let lane = self.lanes.get(usize::from(lane.0)).unwrap_or(&self.lanes[0]);
        lane.get_or_init(Box::default)
    }

    /// Those in use.
    pub fn each(&self) -> impl Iterator<Item = &T> {
        self.lanes.iter().filter_map(|lane| lane.get().map(|padded| &***padded))
    }

    /// Those of workers that are in use, with the workers' numbers.
    pub fn workers(&self) -> impl Iterator<Item = (usize, &T)> {
        let workers = self.lanes.iter().skip(1).enumerate();
        workers.filter_map(|(number, lane)| lane.get().map(|padded| (number, &***padded)))
    }

    /// Sums what `of` says over the lanes.
    pub fn sum<N: std::iter::Sum>(&self, of: impl FnMut(&T) -> N) -> N {
        self.each().map(of).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Counter;

    #[test]
    fn each_lane_has_its_own_and_a_scrape_sums_them() {
        let counts: PerWorker<Counter> = PerWorker::new(3);
        assert_eq!(counts.each().count(), 0);
        std::thread::scope(|scope| {
            for number in 0..3 {
                let counter = counts.at(Lane::worker(number));
                scope.spawn(move || (0..1000).for_each(|_| counter.up()));
            }
            (0..10).for_each(|_| counts.at(Lane::CONTROL).up());
        });
        assert_eq!(counts.each().count(), 4);
        assert_eq!(counts.sum(Counter::value), 3010);
        assert_eq!((Lane::worker(2).number(), Lane::CONTROL.number()), (Some(2), None));
    }

    #[test]
    fn a_lane_nobody_foresaw_is_no_panic() {
        let counts: PerWorker<Counter> = PerWorker::new(1);
        counts.at(Lane::worker(70_000)).up();
        assert_eq!(counts.sum(Counter::value), 1);
    }
}
