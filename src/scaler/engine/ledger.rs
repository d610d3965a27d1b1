use crate::admin::scaling::{Outcome, Record, Sample};

/// Steps whose effect is still being watched.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    id: String,
    at: f64,
    from: u32,
    to: u32,
    /// When as many as wanted were ready.
    ready_at: Option<f64>,
    /// How long it is watched.
    window: f64,
    rolled_back: bool,
}

/// Steps watched at once; an older one is closed early.
const MOST: usize = 64;

impl Ledger {
    /// A step has been taken.
    pub(super) fn begin(&mut self, record: &Record, window: f64) {
        if self.open.len() >= MOST {
            self.open.remove(0);
        }
        let decision = &record.decision;
        if decision.rollback {
            // The step that is taken back is the last one before.
            if let Some(last) = self.open.last_mut() {
                last.rolled_back = true;
            }
        }
        self.open.push(Open {
            id: record.id.clone(),
            at: decision.at,
            from: decision.current,
            to: decision.desired,
            ready_at: None,
            window,
            rolled_back: false,
        });
    }

    /// So many are ready now; `lead` is how long a start usually takes. Gives the ids of steps whose window is over, with what came of them;
    /// `between` tells what was seen from one moment to another.
    pub(super) fn step(
        &mut self,
        ready: u32,
        lead: f64,
        now: f64,
        between: impl Fn(f64, f64) -> Vec<Sample>,
    ) -> Vec<(String, Outcome)> {
        for open in self.open.iter_mut().filter(|open| open.to > open.from && ready >= open.to) {
            open.ready_at.get_or_insert(now);
        }
        let is_over = |open: &Open| now >= open.at + open.window.max(2.0 * lead);
        let over: Vec<Open> = self.open.extract_if(.., |open| is_over(open)).collect();
        over.into_iter()
            .map(|open| {
                let before = between(open.at - open.window, open.at);
                // What new instances have done to it shows once they are there.
                let from = open.ready_at.unwrap_or(open.at);
                let after = between(from.min(now - open.window / 2.0), now);
                let outcome = outcome(&open, &before, &after);
                (open.id, outcome)
            })
            .collect()
    }
}

fn outcome(open: &Open, before: &[Sample], after: &[Sample]) -> Outcome {
    let ready_after = open.ready_at.map(|at| at - open.at);
    let p95 = (p95(before), p95(after));
    let wait = (wait(before), wait(after));
    let errors = (errors(before), errors(after));
    let is_up = open.to > open.from;
    let verdict = if open.rolled_back {
        "taken back".to_owned()
    } else if is_up && ready_after.is_none() {
        format!("not all of its {} instances became ready", open.to - open.from)
    } else if errors.1 > errors.0 + 0.01 {
        format!("errors rose from {:.1} % to {:.1} %", errors.0 * 100.0, errors.1 * 100.0)
    } else if !is_up && wait.1 > wait.0 + 0.05 {
        format!("requests waited up to {:.0} ms afterwards", wait.1 * 1e3)
    } else {
        "good".to_owned()
    };
    Outcome { ready_after, p95, wait, errors, verdict, rolled_back: open.rolled_back }
}

fn p95(samples: &[Sample]) -> Option<f64> {
    let known: Vec<f64> = samples.iter().filter_map(|sample| sample.p95).collect();
    (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
}

fn wait(samples: &[Sample]) -> f64 {
    samples.iter().map(|sample| sample.wait).fold(0.0, f64::max)
}

fn errors(samples: &[Sample]) -> f64 {
    let (errors, all) =
        samples.iter().fold((0.0, 0.0), |(errors, all), sample| (errors + sample.errors, all + sample.completions));
    if all > 0.0 { (errors / all).min(1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scale::Decision;

    fn step(at: f64, from: u32, to: u32) -> Record {
        let decision = Decision { at, current: from, desired: to, apply: true, ..Decision::default() };
        Record { id: format!("{at}"), decision, ..Record::default() }
    }

    fn sample(at: f64, wait: f64, errors: f64) -> Sample {
        Sample { at, span: 1.0, wait, errors, completions: 100.0, p95: Some(wait + 0.1), ..Sample::default() }
    }

    #[test]
    fn a_step_up_tells_how_long_it_took_and_what_it_did_to_the_queue() {
        let mut ledger = Ledger::default();
        ledger.begin(&step(100.0, 1, 2), 30.0);
        let seen = |from: f64, to: f64| {
            let all = (60..140).map(|second| sample(f64::from(second), if second < 102 { 0.4 } else { 0.0 }, 0.0));
            all.filter(|sample| sample.at > from && sample.at <= to).collect::<Vec<_>>()
        };
        assert!(ledger.step(1, 2.0, 101.0, seen).is_empty());
        assert!(ledger.step(2, 2.0, 102.5, seen).is_empty());
        let over = ledger.step(2, 2.0, 130.0, seen);
        let [(id, outcome)] = over.as_slice() else { panic!("{over:?}") };
        assert_eq!((id.as_str(), outcome.ready_after, outcome.verdict.as_str()), ("100", Some(2.5), "good"));
        assert_eq!(outcome.wait, (0.4, 0.0));
        assert!(ledger.step(2, 2.0, 131.0, seen).is_empty(), "told once");
    }

    #[test]
    fn a_step_that_never_came_about_or_brought_errors_says_so() {
        let mut ledger = Ledger::default();
        ledger.begin(&step(100.0, 1, 3), 30.0);
        let over = ledger.step(1, 2.0, 131.0, |_, _| Vec::new());
        assert_eq!(over[0].1.verdict, "not all of its 2 instances became ready");
        ledger.begin(&step(200.0, 3, 2), 30.0);
        let seen =
            |from: f64, _| if from < 200.0 { vec![sample(190.0, 0.0, 0.0)] } else { vec![sample(220.0, 0.0, 7.0)] };
        assert_eq!(ledger.step(2, 2.0, 231.0, seen)[0].1.verdict, "errors rose from 0.0 % to 7.0 %");
    }
}
