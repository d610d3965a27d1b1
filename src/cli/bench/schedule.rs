use std::time::Duration;

/// When requests are due in an open loop: the n-th of all at n / rate, every so many of them on this thread.
///
/// Knows no clock. Times are since the load began.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Schedule {
    /// Requests a second on all threads together.
    rate: f64,
    /// The number among all of this thread's first request.
    first: u64,
    /// From one of this thread's requests to its next.
    step: u64,
    /// This thread's requests.
    count: u64,
}

impl Schedule {
    /// The schedule of the `thread`-th of so many threads, for `total` requests on all of them.
    pub(super) fn new(rate: f64, total: u64, thread: u64, threads: u64) -> Schedule {
        let count = total.saturating_sub(thread).div_ceil(threads);
        Schedule { rate, first: thread, step: threads, count }
    }

    /// How many requests are due before `end` at this rate.
    pub(super) fn total(rate: f64, end: Duration) -> u64 {
        (rate * end.as_secs_f64()).ceil() as u64
    }

    /// When this thread's `n`-th request is due, counted from zero; `None` after its last.
    pub(super) fn due(&self, n: u64) -> Option<Duration> {
        let number = self.first + n.checked_mul(self.step)?;
        (n < self.count).then(|| Duration::from_secs_f64(number as f64 / self.rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dues(schedule: Schedule) -> Vec<f64> {
        (0..).map_while(|n| schedule.due(n)).map(|due| due.as_secs_f64()).collect()
    }

    #[test]
    fn requests_are_due_evenly_and_the_threads_take_turns() {
        assert_eq!(dues(Schedule::new(4.0, 5, 0, 1)), [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(dues(Schedule::new(4.0, 5, 0, 2)), [0.0, 0.5, 1.0]);
        assert_eq!(dues(Schedule::new(4.0, 5, 1, 2)), [0.25, 0.75]);
        assert_eq!(dues(Schedule::new(4.0, 1, 1, 2)), [0.0; 0]);
    }

    #[test]
    fn together_the_threads_send_exactly_what_was_asked_for() {
        for (total, threads) in [(1, 1), (1, 4), (7, 3), (100, 7), (1000, 2)] {
            let mut all: Vec<f64> = (0..threads).flat_map(|t| dues(Schedule::new(50.0, total, t, threads))).collect();
            all.sort_by(f64::total_cmp);
            assert_eq!(all, dues(Schedule::new(50.0, total, 0, 1)), "{total} on {threads}");
        }
    }

    #[test]
    fn an_hour_drifts_by_less_than_a_microsecond() {
        let hour = Duration::from_secs(3600);
        let total = Schedule::total(999_999.0, hour);
        assert_eq!(total, 3_599_996_400);
        let last = Schedule::new(999_999.0, total, 0, 1).due(total - 1).unwrap();
        assert!((3600.0 - 1.0 / 999_999.0 - last.as_secs_f64()).abs() < 1e-6 && last < hour);
        assert_eq!(Schedule::total(10.0, Duration::from_millis(250)), 3, "due at 0, 100 and 200 ms");
    }
}
