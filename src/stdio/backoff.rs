//! When a server that has failed may be started again.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);
/// So many failures in a row are waited out by those who ask; with more they are answered at once.
const PATIENT: u32 = 5;
/// Whoever has lived so long has not failed to start.
const LIVED: Duration = Duration::from_secs(10);

/// The failures in a row of one command or one server.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    until: Option<Instant>,
    why: String,
}

/// What whoever wants a start has to do.
#[derive(Debug, PartialEq)]
pub(super) enum Permit {
    Start,
    Wait(Duration),
    /// Not now; why the last ones have failed.
    Refused(String),
}

impl Backoff {
    /// A start has failed, or what was started has ended by itself after so long. `draw` in 0..1.
    pub(super) fn failed(&mut self, now: Instant, lived: Duration, why: &str, draw: f64) {
        self.failures = if lived >= LIVED { 1 } else { self.failures.saturating_add(1) };
        let delay = FIRST.saturating_mul(1 << (self.failures - 1).min(16)).min(LONGEST);
        self.until = Some(now + delay.mul_f64(0.5 + draw / 2.0));
        self.why = why.to_owned();
    }

    pub(super) fn succeeded(&mut self) {
        *self = Backoff::default();
    }

    pub(super) fn permit(&self, now: Instant) -> Permit {
        let left = self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        match left {
            Duration::ZERO => Permit::Start,
            left if self.failures < PATIENT => Permit::Wait(left),
            left => {
                let (failures, seconds) = (self.failures, left.as_secs_f64().ceil());
                Permit::Refused(format!(
                    "{}; it failed {failures} times in a row and is tried again in {seconds} s",
                    self.why
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_end() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        assert_eq!(backoff.permit(now), Permit::Start);
        let mut delays = Vec::new();
        for _ in 0..12 {
            backoff.failed(now, Duration::ZERO, "no", 1.0);
            let until = backoff.until.expect("there is a delay");
            delays.push((until - now).as_millis());
            assert_ne!(backoff.permit(now), Permit::Start);
            now = until;
            assert_eq!(backoff.permit(now), Permit::Start);
        }
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000, 30000]);
        backoff.succeeded();
        assert_eq!(backoff.permit(now - LONGEST), Permit::Start);
    }

    #[test]
    fn the_fifth_failure_in_a_row_is_told_at_once() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        for _ in 0..4 {
            backoff.failed(now, Duration::ZERO, "no module", 0.0);
            assert!(matches!(backoff.permit(now), Permit::Wait(_)));
        }
        backoff.failed(now, Duration::ZERO, "no module", 0.0);
        let Permit::Refused(why) = backoff.permit(now) else { panic!("it has to be refused") };
        assert!(why.starts_with("no module; it failed 5 times"), "{why}");
        backoff.failed(now, LIVED, "crash", 0.0);
        assert_eq!(backoff.permit(now), Permit::Wait(FIRST / 2));
    }
}
