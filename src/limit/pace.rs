use std::time::Duration;

use http::{HeaderMap, HeaderName};

use crate::types::{Moment, Rate};

/// A rate with its burst, as GCRA counts it.
///
/// **Units**: nanoseconds. The interval is rounded up, so a rate that does not divide a second is kept from above: `3/s` lets
/// three pass in 1.000000002 s. The error is below `count / (period in ns)`, at `100000/s` none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    /// What one request costs.
    interval: u64,
    /// What a client may owe and still be let through at once.
    tolerance: u64,
    /// How long a request may be held.
    delay: u64,
}

/// What [`Pace::look`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// At once.
    Now,
    /// In so long, with a place booked.
    In(Duration),
    /// Not within the delay; in so long it would be at once.
    NotBefore(Duration),
}

impl Pace {
    pub(super) fn new(rate: Rate, burst: u32, delay: Duration) -> Self {
        let per = nanos(rate.per);
        let interval = per.div_ceil(u64::from(rate.count.max(1))).max(1);
        Pace { interval, tolerance: interval.saturating_mul(u64::from(burst)), delay: nanos(delay) }
    }

    /// The same rate, of which each request uses `cost`. A burst below the cost lets one pass at a time.
    pub(super) fn costing(self, cost: u32) -> Self {
        let further = self.interval.saturating_mul(u64::from(cost.max(1) - 1));
        Pace {
            interval: self.interval.saturating_add(further),
            tolerance: self.tolerance.saturating_sub(further),
            delay: self.delay,
        }
    }

    /// Whose turn it is, for a client who owes nothing from `clear` on. Changes nothing.
    pub(super) fn look(&self, clear: Moment, now: Moment) -> Turn {
        let owed = nanos(clear.since(now));
        match owed.saturating_sub(self.tolerance) {
            0 => Turn::Now,
            wait if wait <= self.delay => Turn::In(Duration::from_nanos(wait)),
            wait => Turn::NotBefore(Duration::from_nanos(wait)),
        }
    }

    /// From when on the client owes nothing, once a request of now is let through or booked.
    pub(super) fn book(&self, clear: Moment, now: Moment) -> Moment {
        clear.max(now) + Duration::from_nanos(self.interval)
    }

    /// What is left to a client who owes nothing from `clear` on.
    pub(super) fn standing(&self, clear: Moment, now: Moment) -> Standing {
        Standing { owed: nanos(clear.since(now)), interval: self.interval, tolerance: self.tolerance }
    }

    /// The same debt in requests as under `old`, in this pace's time; at most a whole burst of them.
    pub(super) fn rescale(&self, old: &Pace, clear: Moment, now: Moment) -> Moment {
        let owed = u128::from(nanos(clear.since(now))) * u128::from(self.interval) / u128::from(old.interval);
        let most = self.tolerance.saturating_add(self.interval);
        let owed = u64::try_from(owed).unwrap_or(u64::MAX).min(most);
        if owed == 0 { clear.min(now) } else { now + Duration::from_nanos(owed) }
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// How a client stands with a rate after a decision: what the `RateLimit-*` headers say.
///
/// The three numbers are the ones that clients of GCRA limiters know (draft-ietf-httpapi-ratelimit-headers-06 names, redis-cell
/// meanings). They are computed when asked for: an admitted request does not pay the division.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    owed: u64,
    interval: u64,
    tolerance: u64,
}

impl Standing {
    /// `RateLimit-Limit`: how many may come at once from a client who was quiet, burst + 1.
    pub fn limit(&self) -> u64 {
        self.tolerance / self.interval + 1
    }

    /// `RateLimit-Remaining`: how many more may come right now.
    pub fn remaining(&self) -> u64 {
        self.tolerance.saturating_add(self.interval).saturating_sub(self.owed) / self.interval
    }

    /// `RateLimit-Reset`: how long until the whole limit is there again. The header has whole seconds, rounded up.
    pub fn reset(&self) -> Duration {
        Duration::from_nanos(self.owed)
    }

    /// Adds the three headers to an answer.
    ///
    /// **Cost**: three values to write, some 200 ns: the proxy does it for refusals, not for what is let through.
    pub fn tell(&self, headers: &mut HeaderMap) {
        headers.insert(HeaderName::from_static("ratelimit-limit"), self.limit().into());
        headers.insert(HeaderName::from_static("ratelimit-remaining"), self.remaining().into());
        headers.insert(HeaderName::from_static("ratelimit-reset"), self.owed.div_ceil(1_000_000_000).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pace(rate: &str, burst: u32, delay: Duration) -> Pace {
        Pace::new(rate.parse().unwrap(), burst, delay)
    }

    /// The moments at which requests that came at `arrivals` were let through.
    fn passes(pace: &Pace, arrivals: &[u64]) -> Vec<u64> {
        let mut clear = Moment::START;
        let mut passes = Vec::new();
        for now in arrivals.iter().map(|at| Moment::from_nanos(*at)) {
            match pace.look(clear, now) {
                Turn::Now => passes.push(now.nanos()),
                Turn::In(wait) => passes.push((now + wait).nanos()),
                Turn::NotBefore(_) => continue,
            }
            clear = pace.book(clear, now);
        }
        passes
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let pace = pace("10/s", 4, Duration::ZERO);
        assert_eq!(passes(&pace, &[1; 20]).len(), 5);
        let ms: Vec<u64> = (0..1000).map(|ms| 1 + ms * 1_000_000).collect();
        assert_eq!(passes(&pace, &ms).len(), 5 + 9);
    }

    #[test]
    fn a_costly_request_uses_as_much_of_burst_and_rate_as_it_costs() {
        let pace = pace("10/s", 9, Duration::ZERO).costing(4);
        assert_eq!(passes(&pace, &[1; 20]).len(), 2, "ten at once are two of four");
        let ms: Vec<u64> = (0..4000).map(|ms| 1 + ms * 1_000_000).collect();
        assert_eq!(
            passes(&pace, &ms).len(),
            2 + 10,
            "ten a second are ten of four in four seconds, and two hundred ms of them are left"
        );
        assert_eq!(pace.standing(Moment::START, Moment::START).limit(), 2);
    }

    #[test]
    fn delayed_requests_queue_behind_one_another() {
        let pace = pace("10/s", 0, Duration::from_millis(250));
        let at = |ms: u64| 1 + ms * 1_000_000;
        assert_eq!(passes(&pace, &[at(0), at(0), at(0), at(0), at(50), at(100)]), [at(0), at(100), at(200), at(300)]);
    }

    #[test]
    fn rates_beyond_the_clock_and_endless_bursts_do_not_overflow() {
        let fast = pace("4000000000/s", u32::MAX, Duration::MAX);
        assert_eq!(
            fast.look(Moment::NEVER, Moment::START),
            Turn::In(Duration::from_nanos(u64::MAX - u64::from(u32::MAX)))
        );
        let slow = pace("1/36500d", u32::MAX, Duration::ZERO);
        assert_eq!(slow.look(Moment::NEVER, Moment::START), Turn::Now);
        assert_eq!(slow.book(Moment::NEVER, Moment::NEVER), Moment::NEVER);
        assert!(slow.standing(Moment::NEVER, Moment::START).limit() > 1);
    }

    #[test]
    fn a_changed_rate_keeps_the_debt_in_requests() {
        let now = Moment::from_nanos(1_000_000_000);
        let (slow, fast) = (pace("1/min", 9, Duration::ZERO), pace("1/s", 9, Duration::ZERO));
        let clear = now + Duration::from_secs(180);
        assert_eq!(fast.rescale(&slow, clear, now), now + Duration::from_secs(3));
        assert_eq!(slow.rescale(&fast, now + Duration::from_secs(3), now), clear);
        assert_eq!(fast.rescale(&slow, Moment::START, now), Moment::START);
        let deep = fast.rescale(&slow, now + Duration::from_secs(6000), now);
        assert_eq!(deep, now + Duration::from_secs(10), "no more than a whole burst");
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_burst_and_rate_allow(
            count in 1u32..2000,
            per_ms in 1u64..5000,
            burst in 0u32..12,
            delay_ms in 0u64..300,
            gaps in prop::collection::vec(0u64..40_000_000, 1..120),
        ) {
            let rate = Rate { count, per: Duration::from_millis(per_ms) };
            let pace = Pace::new(rate, burst, Duration::from_millis(delay_ms));
            let arrivals: Vec<u64> = gaps.iter().scan(1u64, |at, gap| { *at += gap; Some(*at) }).collect();
            let passes = passes(&pace, &arrivals);
            prop_assert!(!passes.is_empty());
            for first in 0..passes.len() {
                for last in first..passes.len() {
                    let window = u128::from(passes[last] - passes[first]);
                    let allowed = u128::from(burst) + 1 + window * u128::from(count) / (u128::from(per_ms) * 1_000_000);
                    prop_assert!((last - first + 1) as u128 <= allowed, "{} in {window} ns", last - first + 1);
                }
            }
        }

        #[test]
        fn as_many_pass_as_remain_and_the_wait_is_the_shortest(
            rate in (1u32..5000, 1u64..10_000).prop_map(|(count, ms)| Rate { count, per: Duration::from_millis(ms) }),
            burst in 0u32..20,
            owed in 0u64..20_000_000_000,
        ) {
            let pace = Pace::new(rate, burst, Duration::ZERO);
            let now = Moment::from_nanos(1 << 40);
            let mut clear = now + Duration::from_nanos(owed);
            let standing = pace.standing(clear, now);
            prop_assert!(standing.remaining() <= standing.limit());
            for _ in 0..standing.remaining() {
                prop_assert_eq!(pace.look(clear, now), Turn::Now);
                clear = pace.book(clear, now);
            }
            let Turn::NotBefore(wait) = pace.look(clear, now) else { panic!("more than remain") };
            prop_assert_eq!(pace.look(clear, now + wait), Turn::Now);
            prop_assert!(pace.look(clear, now + (wait - Duration::from_nanos(1))) != Turn::Now);
        }
    }
}
