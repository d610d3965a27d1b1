use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Counter;

/// How long things took, in buckets that double, with eight steps between each and the next.
///
/// **Units**: a unit is 1/1024 ms, so that 1 ms, 2 ms, 4 ms … are exactly bucket borders. **Bounds**: up to 4.6 hours, longer is
/// counted there; an eighth (12.5 %) from one bucket to the next; 2 KiB. **Cost**: about 2 ns. One writer, as [`Counter`].
///
/// Why not buckets at 1, 2.5, 5, 10: finding one is a search (22 ns measured); and what a border in between says would
/// have to be guessed.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    nanos: Counter,
}

/// Steps between doublings, as a power of two.
const FINE: u32 = 3;
/// The largest value is below 2 to this, in units.
const OCTAVES: u32 = 34;
const BUCKETS: usize = ((OCTAVES - FINE + 1) << FINE) as usize;

/// The borders that Prometheus gets, as powers of two of a unit: 0.5 ms, doubling to 65 s, then 262 s and 1049 s.
const BORDERS: [u32; 20] = [9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 28, 30];

impl Default for Histogram {
    fn default() -> Self {
        Histogram { buckets: std::array::from_fn(|_| AtomicU64::new(0)), nanos: Counter::default() }
    }
}

impl Histogram {
    /// Counts one that took so long.
    #[inline]
    pub fn record(&self, span: Duration) {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.add(nanos);
        let bucket = &self.buckets[bucket(nanos)];
        bucket.store(bucket.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}

/// Which bucket a span is counted in. A span that is exactly a border belongs below it: `le` means less or equal.
#[inline]
fn bucket(nanos: u64) -> usize {
    let below = nanos.saturating_sub(1).min(1 << 53);
    let units = (below * 1024 / 1_000_000).min((1 << OCTAVES) - 1);
    if units < 1 << FINE {
        return units as usize;
    }
    let octave = 63 - units.leading_zeros();
    let step = (units >> (octave - FINE)) & ((1 << FINE) - 1);
    (((octave - FINE + 1) as usize) << FINE) + step as usize
}

/// Where a bucket begins, in units.
fn start(bucket: usize) -> u64 {
    let (row, step) = (bucket >> FINE, (bucket & ((1 << FINE) - 1)) as u64);
    if row == 0 { step } else { ((1 << FINE) + step) << (row - 1) }
}

fn seconds(units: f64) -> f64 {
    units / 1_024_000.0
}

/// The histograms of all lanes as one, at a moment.
#[derive(Debug, Clone)]
pub struct Distribution {
    buckets: Box<[u64; BUCKETS]>,
    nanos: u64,
}

impl<'a> FromIterator<&'a Histogram> for Distribution {
    fn from_iter<I: IntoIterator<Item = &'a Histogram>>(histograms: I) -> Self {
        let mut all = Distribution { buckets: Box::new([0; BUCKETS]), nanos: 0 };
        for histogram in histograms {
            all.nanos = all.nanos.wrapping_add(histogram.nanos.value());
            for (sum, bucket) in all.buckets.iter_mut().zip(&histogram.buckets) {
                *sum += bucket.load(Ordering::Relaxed);
            }
        }
        all
    }
}

impl Distribution {
    /// What was counted since `earlier`, which is one of the same histograms taken before.
    pub fn since(&self, earlier: &Distribution) -> Distribution {
        let mut buckets = self.buckets.clone();
        for (now, before) in buckets.iter_mut().zip(earlier.buckets.iter()) {
            *now = now.saturating_sub(*before);
        }
        Distribution { buckets, nanos: self.nanos.saturating_sub(earlier.nanos) }
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// How long all of them took together, in seconds.
    pub fn seconds(&self) -> f64 {
        self.nanos as f64 / 1e9
    }

    /// The time that this share of them stayed below: `quantile(0.99)`. Off by at most an eighth. Zero where none were counted.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = share.clamp(0.0, 1.0) * self.count() as f64;
        let mut below = 0.0;
        for (bucket, count) in self.buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = *count as f64;
            if below + count >= rank {
                let (start, end) = (start(bucket) as f64, start(bucket + 1) as f64);
                return Duration::from_secs_f64(seconds(start + (end - start) * (rank - below) / count));
            }
            below += count;
        }
        Duration::ZERO
    }

    /// For each of Prometheus's borders in seconds, how many took no longer; without `+Inf`, which is [`Distribution::count`].
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut counted = 0;
        let mut sum = 0u64;
        BORDERS.into_iter().map(move |octave| {
            let end = ((octave - FINE + 1) as usize) << FINE;
            sum += self.buckets[counted..end].iter().sum::<u64>();
            counted = end;
            (seconds((1u64 << octave) as f64), sum)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(spans: impl IntoIterator<Item = Duration>) -> Distribution {
        let histogram = Histogram::default();
        spans.into_iter().for_each(|span| histogram.record(span));
        [&histogram].into_iter().collect()
    }

    #[test]
    fn buckets_join_without_gaps() {
        assert_eq!(BUCKETS, 256);
        for bucket_at in 0..BUCKETS {
            assert!(start(bucket_at) < start(bucket_at + 1));
            let first_nano_above = (start(bucket_at) * 1_000_000).div_ceil(1024) + 1;
            assert_eq!(bucket(first_nano_above), bucket_at);
        }
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn a_border_is_less_or_equal_to_the_nanosecond() {
        let millisecond = Duration::from_millis(1);
        let seen = all([millisecond, millisecond + Duration::from_nanos(1), Duration::from_secs(86_400)]);
        let cumulative: Vec<_> = seen.cumulative().collect();
        assert_eq!(cumulative[..3], [(0.0005, 0), (0.001, 1), (0.002, 2)]);
        assert_eq!(*cumulative.last().unwrap(), (1048.576, 2));
        assert_eq!(seen.count(), 3);
        assert!((seen.seconds() - 86_400.002).abs() < 1e-6);
    }

    #[test]
    fn quantiles_are_near_the_truth() {
        let seen = all((1..=1000).map(Duration::from_millis));
        for (share, truth) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0), (1.0, 1000.0)] {
            let estimate = seen.quantile(share).as_secs_f64() * 1e3;
            assert!((estimate / truth - 1.0).abs() < 0.07, "{share}: {estimate}");
        }
        assert_eq!(all([]).quantile(0.99), Duration::ZERO);
    }

    #[test]
    fn a_difference_is_what_came_in_between() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_secs(10));
        let before: Distribution = [&histogram].into_iter().collect();
        (1..=100).for_each(|millis| histogram.record(Duration::from_millis(millis)));
        let after: Distribution = [&histogram].into_iter().collect();
        let between = after.since(&before);
        assert_eq!(between.count(), 100);
        assert!((between.seconds() - 5.05).abs() < 1e-6);
        assert!(between.quantile(1.0) < Duration::from_millis(113), "the slow one before is not among them");
        assert_eq!(after.since(&after).quantile(0.95), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn every_span_is_in_the_bucket_that_holds_it(nanos in 1u64..16_000_000_000_000) {
            let units = (nanos - 1) as f64 * 1024.0 / 1e6;
            let at = bucket(nanos);
            prop_assert!(start(at) as f64 <= units + 1e-3 && units < start(at + 1) as f64 + 1e-3);
        }

        #[test]
        fn lanes_add_up(a in prop::collection::vec(0u64..1 << 40, 0..50), b in prop::collection::vec(0u64..1 << 40, 0..50)) {
            let (one, two) = (Histogram::default(), Histogram::default());
            a.iter().for_each(|nanos| one.record(Duration::from_nanos(*nanos)));
            b.iter().for_each(|nanos| two.record(Duration::from_nanos(*nanos)));
            let sum: Distribution = [&one, &two].into_iter().collect();
            prop_assert_eq!(sum.count(), (a.len() + b.len()) as u64);
            for (le, count) in sum.cumulative() {
                let truth = a.iter().chain(&b).filter(|nanos| **nanos as f64 <= le * 1e9).count();
                prop_assert_eq!(count, truth as u64);
            }
        }
    }
}
