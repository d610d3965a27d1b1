use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::types::Moment;

/// Requests and failures of the last while, counted by all workers.
///
/// **Shape**: ten buckets of a tenth of the window each; the oldest falls out as a whole, so what is counted is between
/// 0.9 and 1.0 windows old at most. **Bounds**: 16 million requests for each bucket, then its numbers stand still.
#[derive(Debug, Default)]
pub(super) struct Window {
    buckets: [AtomicU64; BUCKETS],
}

const BUCKETS: usize = 10;
const FULL: u64 = (1 << 24) - 1;

/// A bucket: which tenth it is for (16 bits), requests (24), failures (24).
struct Bucket {
    stamp: u16,
    total: u64,
    failed: u64,
}

impl Bucket {
    fn unpack(bits: u64) -> Self {
        Bucket { stamp: (bits >> 48) as u16, total: bits >> 24 & FULL, failed: bits & FULL }
    }

    fn pack(&self) -> u64 {
        u64::from(self.stamp) << 48 | self.total.min(FULL) << 24 | self.failed.min(FULL)
    }
}

/// What a window holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) total: u64,
    pub(super) failed: u64,
}

impl Window {
    pub(super) fn count(&self, failed: bool, window: Duration, now: Moment) {
        let tenth = tenth(window, now);
        let bucket = &self.buckets[(tenth % BUCKETS as u64) as usize];
        let add = |bits| {
            let seen = Bucket::unpack(bits);
            let stamp = tenth as u16;
            let (total, sum) = if seen.stamp == stamp { (seen.total, seen.failed) } else { (0, 0) };
            Some(Bucket { stamp, total: total + 1, failed: sum + u64::from(failed) }.pack())
        };
        // The closure always gives a value, so this loops until it has won; it never fails.
        let _ = bucket.fetch_update(Relaxed, Relaxed, add);
    }

    pub(super) fn tally(&self, window: Duration, now: Moment) -> Tally {
        let newest = tenth(window, now);
        let recent = (0..BUCKETS as u64).filter_map(|age| newest.checked_sub(age)).filter_map(|tenth| {
            let bucket = Bucket::unpack(self.buckets[(tenth % BUCKETS as u64) as usize].load(Relaxed));
            (bucket.stamp == tenth as u16).then_some(bucket)
        });
        recent.fold(Tally { total: 0, failed: 0 }, |sum, bucket| Tally {
            total: sum.total + bucket.total,
            failed: sum.failed + bucket.failed,
        })
    }

    pub(super) fn clear(&self) {
        self.buckets.iter().for_each(|bucket| bucket.store(0, Relaxed));
    }
}

fn tenth(window: Duration, now: Moment) -> u64 {
    let length = (window.as_nanos() / BUCKETS as u128).clamp(1, u128::from(u64::MAX)) as u64;
    now.nanos() / length
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    fn at(millis: u64) -> Moment {
        Moment::START + Duration::from_millis(millis)
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let window = Window::default();
        for second in 0..10 {
            window.count(second < 5, WINDOW, at(second * 1_000));
        }
        assert_eq!(window.tally(WINDOW, at(9_999)), Tally { total: 10, failed: 5 });
        assert_eq!(window.tally(WINDOW, at(12_500)), Tally { total: 7, failed: 2 });
        assert_eq!(window.tally(WINDOW, at(60_000)), Tally { total: 0, failed: 0 });
        window.clear();
        assert_eq!(window.tally(WINDOW, at(9_999)), Tally { total: 0, failed: 0 });
    }

    #[test]
    fn workers_lose_no_request() {
        let window = Window::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..2_500).for_each(|n| window.count(n % 2 == 0, WINDOW, at(1_000 + n / 2))));
            }
        });
        assert_eq!(window.tally(WINDOW, at(3_000)), Tally { total: 10_000, failed: 5_000 });
    }

    #[test]
    fn a_full_bucket_stands_still() {
        let full = Bucket { stamp: 3, total: FULL + 1, failed: FULL + 9 };
        let read = Bucket::unpack(full.pack());
        assert_eq!((read.stamp, read.total, read.failed), (3, FULL, FULL));
    }
}
