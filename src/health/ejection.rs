use std::time::Duration;

use super::policy::EjectPolicy;
use crate::types::Moment;

/// Being sent away for a while, for failing real requests.
///
/// Each time in a row is twice as long as the one before, up to a bound. What was served is forgiven in the same
/// measure: after coming back, behaving for as long as the last time lasted takes one doubling back.
///
/// **Source**: Envoy's outlier detection; its multiplier falls by one in each interval without an ejection.
#[derive(Debug, Clone, Default)]
pub struct Ejection {
    /// Doublings of the next time.
    doublings: u32,
    until: Option<Moment>,
    /// When it came back last.
    back: Moment,
}

/// How many of the pool are sent away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Crowd {
    /// Upstreams that are ejected.
    pub ejected: usize,
    /// Upstreams that are meant to be used: neither draining nor in maintenance.
    pub members: usize,
}

impl Crowd {
    /// Whether one more may be ejected. One always stays, so an upstream that is alone is never sent away.
    pub fn has_room(self, max_share: f64) -> bool {
        let ejected = self.ejected + 1;
        // The small addition makes a third of three one, whatever the rounding.
        ejected < self.members && ejected as f64 <= max_share * self.members as f64 + 1e-9
    }
}

impl Ejection {
    /// Sends it away; for how long. Where it is away already, nothing changes.
    pub fn begin(&mut self, policy: &EjectPolicy, now: Moment) -> Duration {
        if let Some(until) = self.until {
            return until.since(now);
        }
        self.forgive(policy, now);
        let span = span(policy, self.doublings);
        self.doublings = self.doublings.saturating_add(1);
        self.until = Some(now + span);
        span
    }

    /// Until when it is away, if it is.
    pub fn until(&self) -> Option<Moment> {
        self.until
    }

    /// Lets it come back. True if it was away.
    pub fn end(&mut self, now: Moment) -> bool {
        let was_away = self.until.take().is_some();
        if was_away {
            self.back = now;
        }
        was_away
    }

    fn forgive(&mut self, policy: &EjectPolicy, now: Moment) {
        let mut behaved = now.since(self.back);
        while self.doublings > 0 {
            let served = span(policy, self.doublings - 1);
            // A time that is at its bound cannot tell how many doublings led there; one stretch of it forgives all of
            // those.
            let before = self.doublings;
            while self.doublings > 0 && span(policy, self.doublings - 1) == served {
                self.doublings -= 1;
            }
            if behaved < served || served.is_zero() {
                self.doublings = before;
                return;
            }
            behaved -= served;
        }
    }
}

fn span(policy: &EjectPolicy, doublings: u32) -> Duration {
    let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
    policy.time.saturating_mul(factor).min(policy.max_time.max(policy.time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: EjectPolicy =
        EjectPolicy { failures: 5, time: Duration::from_secs(10), max_time: Duration::from_secs(60), max_share: 0.5 };

    fn at(secs: u64) -> Moment {
        Moment::START + Duration::from_secs(secs)
    }

    /// Ejected at this second; how long, in seconds.
    fn eject(ejection: &mut Ejection, second: u64) -> u64 {
        let span = ejection.begin(&POLICY, at(second));
        ejection.end(at(second) + span);
        span.as_secs()
    }

    #[test]
    fn each_time_is_longer_up_to_the_bound_and_good_behaviour_is_rewarded() {
        let mut ejection = Ejection::default();
        assert_eq!(eject(&mut ejection, 0), 10);
        assert_eq!(eject(&mut ejection, 10), 20);
        assert_eq!(eject(&mut ejection, 30), 40);
        assert_eq!(eject(&mut ejection, 70), 60);
        assert_eq!(eject(&mut ejection, 130), 60);
        assert_eq!(eject(&mut ejection, 190), 60);
        // Back at 250; 60 s of peace take all the times at the bound back, 40 s more the one before.
        assert_eq!(eject(&mut ejection.clone(), 309), 60);
        assert_eq!(eject(&mut ejection.clone(), 310), 60);
        assert_eq!(eject(&mut ejection.clone(), 350), 40);
        assert_eq!(eject(&mut ejection.clone(), 380), 10);
        assert_eq!(eject(&mut ejection, 10_000), 10);
    }

    #[test]
    fn being_away_already_is_not_made_longer() {
        let mut ejection = Ejection::default();
        assert_eq!(ejection.begin(&POLICY, at(0)), Duration::from_secs(10));
        assert_eq!(ejection.begin(&POLICY, at(4)), Duration::from_secs(6));
        assert_eq!(ejection.until(), Some(at(10)));
    }

    #[test]
    fn the_share_of_the_pool_is_never_exceeded_and_one_always_stays() {
        let most = |members, max_share| {
            (0..members).find(|ejected| !Crowd { ejected: *ejected, members }.has_room(max_share)).unwrap_or(members)
        };
        assert_eq!(most(1, 1.0), 0);
        assert_eq!(most(2, 0.5), 1);
        assert_eq!(most(2, 1.0), 1);
        assert_eq!(most(3, 0.34), 1);
        assert_eq!(most(3, 1.0 / 3.0), 1);
        assert_eq!(most(5, 0.1), 0);
        assert_eq!(most(10, 0.5), 5);
        assert_eq!(most(10, 0.0), 0);
    }

    proptest! {
        #[test]
        fn a_time_is_never_below_the_first_nor_above_the_bound(waits in prop::collection::vec(0u64..500, 1..80), time in 0u64..100, max_time in 0u64..1_000) {
            let policy = EjectPolicy { time: Duration::from_secs(time), max_time: Duration::from_secs(max_time), ..POLICY };
            let mut ejection = Ejection::default();
            let mut now = at(0);
            for wait in waits {
                now = now + Duration::from_secs(wait);
                let span = ejection.begin(&policy, now);
                prop_assert!(span >= policy.time && span <= policy.max_time.max(policy.time));
                now = now + span;
                ejection.end(now);
            }
        }
    }
}
