use std::time::Duration;

/// How long things took, in buckets that double, with 128 steps between each and the next.
///
/// **Units**: nanoseconds. **Bounds**: a quantile is off by at most 0.4 %; the least, the most and the mean are exact; 37 KiB
/// however many are counted; beyond 73 minutes all count as that long. **Cost**: a few nanoseconds.
///
/// Why not the histogram of [`telemetry`](crate::telemetry): it is made to be small and shared, and off by up to an eighth.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    buckets: Box<[u64]>,
    count: u64,
    nanos: u128,
    least: u64,
    most: u64,
}

/// Steps between doublings, as a power of two.
const FINE: u32 = 7;
/// The largest value is below 2 to this, in nanoseconds.
const OCTAVES: u32 = 42;
const BUCKETS: usize = ((OCTAVES - FINE + 1) << FINE) as usize;

impl Default for Histogram {
    fn default() -> Self {
        Histogram { buckets: vec![0; BUCKETS].into(), count: 0, nanos: 0, least: u64::MAX, most: 0 }
    }
}

impl Histogram {
    pub(super) fn record(&mut self, span: Duration) {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX).min((1 << OCTAVES) - 1);
        self.buckets[bucket(nanos)] += 1;
        self.count += 1;
        self.nanos += u128::from(nanos);
        self.least = self.least.min(nanos);
        self.most = self.most.max(nanos);
    }

    /// Counts all that `other` has counted.
    pub(super) fn add(&mut self, other: &Histogram) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.nanos += other.nanos;
        self.least = self.least.min(other.least);
        self.most = self.most.max(other.most);
    }

    /// The time that this share of them did not exceed. Zero where none were counted, as below.
    pub(super) fn quantile(&self, share: f64) -> Duration {
        let rank = ((share * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        if rank == self.count {
            return self.max();
        }
        let mut counted = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            counted += count;
            if counted >= rank {
                let middle = start(at).midpoint(start(at + 1) - 1);
                return Duration::from_nanos(middle.clamp(self.least, self.most));
            }
        }
        Duration::ZERO
    }

    pub(super) fn min(&self) -> Duration {
        Duration::from_nanos(if self.count == 0 { 0 } else { self.least })
    }

    pub(super) fn max(&self) -> Duration {
        Duration::from_nanos(self.most)
    }

    pub(super) fn mean(&self) -> Duration {
        let mean = self.nanos.checked_div(u128::from(self.count)).unwrap_or(0);
        Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX))
    }
}

fn bucket(nanos: u64) -> usize {
    if nanos < 1 << FINE {
        return nanos as usize;
    }
    let octave = nanos.ilog2();
    let step = (nanos >> (octave - FINE)) - (1 << FINE);
    (((octave - FINE + 1) as usize) << FINE) + step as usize
}

/// Where a bucket begins.
fn start(bucket: usize) -> u64 {
    let (row, step) = (bucket >> FINE, (bucket & ((1 << FINE) - 1)) as u64);
    if row == 0 { step } else { ((1 << FINE) + step) << (row - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(nanos: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        nanos.iter().for_each(|nanos| histogram.record(Duration::from_nanos(*nanos)));
        histogram
    }

    #[test]
    fn buckets_join_without_gaps() {
        for at in 0..BUCKETS {
            assert_eq!((bucket(start(at)), bucket(start(at + 1) - 1)), (at, at));
        }
        assert_eq!(start(BUCKETS), 1 << OCTAVES);
    }

    #[test]
    fn nothing_counted_is_zero_and_too_much_is_the_most() {
        let mut none = Histogram::default();
        assert_eq!((none.quantile(0.99), none.min(), none.max(), none.mean()), Default::default());
        none.record(Duration::MAX);
        assert_eq!(none.quantile(0.5).as_nanos(), (1 << OCTAVES) - 1);
    }

    #[test]
    fn the_extremes_are_exact() {
        let seen = all(&[1_000_003, 2_000_005, 9_000_007]);
        assert_eq!(seen.min().as_nanos(), 1_000_003);
        assert_eq!(seen.max().as_nanos(), 9_000_007);
        assert_eq!(seen.mean().as_nanos(), 4_000_005);
        assert_eq!(
            (seen.quantile(0.9), seen.quantile(1.0)),
            (seen.max(), seen.max()),
            "of three, the slowest tenth is the last"
        );
    }

    proptest! {
        #[test]
        fn quantiles_are_within_one_percent(mut nanos in prop::collection::vec(1u64..1 << OCTAVES, 1..300), share in 0.0f64..=1.0) {
            let found = all(&nanos).quantile(share).as_nanos() as f64;
            nanos.sort_unstable();
            let rank = ((share * nanos.len() as f64).ceil() as usize).max(1);
            let truth = nanos[rank - 1] as f64;
            prop_assert!((found / truth - 1.0).abs() < 0.01, "{found} for {truth}");
        }

        #[test]
        fn parts_add_up_to_the_whole(a in prop::collection::vec(0u64..1 << 50, 0..50), b in prop::collection::vec(0u64..1 << 50, 0..50)) {
            let mut sum = all(&a);
            sum.add(&all(&b));
            let whole = all(&[a, b].concat());
            prop_assert_eq!(sum.buckets, whole.buckets);
            prop_assert_eq!((sum.count, sum.nanos, sum.least, sum.most), (whole.count, whole.nanos, whole.least, whole.most));
        }
    }
}
