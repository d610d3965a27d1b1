use super::policy::Thresholds;

/// What an upstream's active checks have said so far.
///
/// The first check decides at once, either way, as in HAProxy and Envoy: there is nothing yet that it could contradict.
/// Until an upstream has been up for the first time one good check is enough; from then on it takes `fall` bad ones in
/// a row, and `rise` good ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checks {
    up: bool,
    checked: bool,
    passed_once: bool,
    /// Checks in a row that said the same, and what.
    streak: u32,
    last: bool,
}

impl Checks {
    /// Before the first check.
    pub fn new(initially_up: bool) -> Self {
        Checks { up: initially_up, checked: false, passed_once: false, streak: 0, last: initially_up }
    }

    /// Takes in a check. Whether the upstream is up may have changed after it.
    pub fn record(&mut self, passed: bool, thresholds: Thresholds) {
        self.streak = if self.checked && passed == self.last { self.streak.saturating_add(1) } else { 1 };
        self.last = passed;
        let needed = match (self.checked, passed) {
            (false, _) => 1,
            (true, true) if !self.passed_once => 1,
            (true, true) => thresholds.rise,
            (true, false) => thresholds.fall,
        };
        self.checked = true;
        self.passed_once |= passed;
        if passed != self.up && self.streak >= needed {
            self.up = passed;
        }
    }

    /// Whether the checks find it fit.
    pub fn is_up(self) -> bool {
        self.up
    }

    /// Whether there has been a check.
    pub fn is_checked(self) -> bool {
        self.checked
    }

    /// How many checks in a row said the same as the last.
    pub fn streak(self) -> u32 {
        self.streak
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const THRESHOLDS: Thresholds = Thresholds { rise: 2, fall: 3, initially_up: false };

    /// `+` is a good check, `-` a bad one; the answer says `U` or `D` after each.
    fn history(initially_up: bool, checks: &str) -> String {
        let mut record = Checks::new(initially_up);
        let after = |check| {
            record.record(check == '+', THRESHOLDS);
            if record.is_up() { 'U' } else { 'D' }
        };
        checks.chars().map(after).collect()
    }

    #[test]
    fn checks_in_a_row_decide_and_the_first_decides_at_once() {
        for (initially_up, checks, expected) in [
            (false, "+", "U"),
            (true, "-", "D"),
            (false, "--+", "DDU"),
            (true, "+--+---+-++", "UUUUUUDDDDU"),
            (true, "-+--", "DUUU"),
            (true, "-+---", "DUUUD"),
        ] {
            assert_eq!(history(initially_up, checks), expected, "{initially_up} {checks}");
        }
    }

    proptest! {
        /// After the first good check: up ⇔ the last run that was long enough for its side was a good one.
        #[test]
        fn it_is_what_the_last_long_enough_run_says(checks in prop::collection::vec(any::<bool>(), 1..60), rise in 1u32..5, fall in 1u32..5) {
            let thresholds = Thresholds { rise, fall, initially_up: false };
            let mut record = Checks::new(false);
            record.record(true, thresholds);
            let (mut up, mut run, mut last) = (true, 1, true);
            for passed in checks {
                record.record(passed, thresholds);
                run = if passed == last { run + 1 } else { 1 };
                last = passed;
                if run >= if passed { rise } else { fall } {
                    up = passed;
                }
                prop_assert_eq!(record.is_up(), up);
                prop_assert_eq!(record.streak(), run);
            }
        }
    }
}
