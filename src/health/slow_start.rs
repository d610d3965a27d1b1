use std::time::Duration;

use crate::types::Moment;

/// Steps from the first tenth to the whole.
const STEPS: u128 = 9;

/// The part of its weight that an upstream has `span` of slow start after `since`: a tenth at first, then another each
/// ninth of the span.
///
/// In tenths, not smoothly: upstreams that came about together stay equal, so turns stay short, and control publishes
/// nine times and no more.
pub(super) fn factor(since: Moment, span: Duration, now: Moment) -> f64 {
    (step(since, span, now) + 1) as f64 / (STEPS + 1) as f64
}

/// When the factor changes next.
pub(super) fn next_change(since: Moment, span: Duration, now: Moment) -> Option<Moment> {
    let next = step(since, span, now) + 1;
    // Rounded up, so that the step has been reached then.
    let nanos = (span.as_nanos() * next).div_ceil(STEPS);
    (next <= STEPS).then(|| since + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
}

fn step(since: Moment, span: Duration, now: Moment) -> u128 {
    if span.is_zero() {
        return STEPS;
    }
    (now.since(since).as_nanos() * STEPS / span.as_nanos()).min(STEPS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_begins_with_a_tenth_and_ends_with_all() {
        let at = |millis| Moment::START + Duration::from_millis(millis);
        let span = Duration::from_secs(9);
        assert_eq!(factor(at(0), span, at(0)), 0.1);
        assert_eq!(factor(at(0), span, at(999)), 0.1);
        assert_eq!(factor(at(0), span, at(1_000)), 0.2);
        assert_eq!(factor(at(0), span, at(8_999)), 0.9);
        assert_eq!(factor(at(0), span, at(9_000)), 1.0);
        assert_eq!(factor(at(0), Duration::ZERO, at(0)), 1.0);
        assert_eq!(next_change(at(0), span, at(1_500)), Some(at(2_000)));
        assert_eq!(next_change(at(0), span, at(9_000)), None);
    }

    proptest! {
        #[test]
        fn each_change_is_announced(span in 1u64..1 << 50, since in 0u64..1 << 50) {
            let (span, since) = (Duration::from_nanos(span), Moment::from_nanos(since));
            let mut now = since;
            let mut before = 0.0;
            let mut changes = 0;
            loop {
                let current = factor(since, span, now);
                prop_assert!(current > before && current <= 1.0);
                before = current;
                let Some(next) = next_change(since, span, now) else { break };
                prop_assert!(next > now);
                if next.since(now) > Duration::from_nanos(1) {
                    prop_assert_eq!(factor(since, span, next - Duration::from_nanos(1)), current);
                }
                now = next;
                changes += 1;
            }
            prop_assert_eq!(before, 1.0);
            prop_assert!(changes <= 9);
        }
    }
}
