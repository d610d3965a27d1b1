use std::time::Duration;

use crate::types::Moment;

/// How fast slots come free while somebody waits for one.
///
/// Counted in two windows, so that the rate is always one of the last [`Flow::WINDOW`] to twice that, or of all the time that somebody has
/// waited.
#[derive(Debug, Default)]
pub(super) struct Flow {
    began: Moment,
    freed: u64,
    /// The window before: how long, how many.
    before: (Duration, u64),
}

impl Flow {
    const WINDOW: Duration = Duration::from_secs(5);

    /// Somebody waits where nobody did.
    pub(super) fn begins(&mut self, now: Moment) {
        *self = Flow { began: now, ..Flow::default() };
    }

    /// A slot has come free.
    pub(super) fn freed(&mut self) {
        self.freed += 1;
    }

    /// How long it takes until so many more have come free, and one more; none where none did so far.
    pub(super) fn patience(&mut self, waiting: usize, now: Moment) -> Option<Duration> {
        let span = now.since(self.began);
        if span >= Flow::WINDOW {
            *self = Flow { began: now, freed: 0, before: (span, self.freed) };
            return self.patience(waiting, now);
        }
        let (span, freed) = (span + self.before.0, self.freed + self.before.1);
        (freed > 0).then(|| span.div_f64(freed as f64).mul_f64(waiting as f64 + 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::START + Duration::from_secs(seconds)
    }

    #[test]
    fn patience_is_the_waiting_number_by_the_rate() {
        let mut flow = Flow::default();
        flow.begins(at(100));
        assert_eq!(flow.patience(3, at(101)), None, "nothing was seen yet");
        (0..8).for_each(|_| flow.freed());
        // Four a second.
        assert_eq!(flow.patience(39, at(102)), Some(Duration::from_secs(10)));
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let mut flow = Flow::default();
        flow.begins(at(0));
        (0..1000).for_each(|_| flow.freed());
        assert!(flow.patience(0, at(10)) < Some(Duration::from_millis(11)));
        (0..10).for_each(|_| flow.freed());
        assert!(flow.patience(0, at(14)) < Some(Duration::from_millis(15)), "the window before counts");
        assert!(flow.patience(0, at(20)) < Some(Duration::from_millis(1001)));
        (0..5).for_each(|_| flow.freed());
        assert!(flow.patience(0, at(30)) >= Some(Duration::from_secs(1)), "{:?}", flow.patience(0, at(30)));
    }
}
