use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::scale::Decision;
use crate::scaler::fleet::News;
use crate::telemetry::{Distribution, Histogram, PoolFigures, Series};

/// What a pool's scaler counts, for the metrics page. Survives a restart but for the histograms.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Tally {
    /// By direction, reason and whether it was done.
    decisions: BTreeMap<String, u64>,
    /// By limit.
    limited: BTreeMap<String, u64>,
    reversals: u64,
    rollbacks: u64,
    ready: u64,
    failed: u64,
    /// By why.
    stops: BTreeMap<String, u64>,
    pub(super) sessions_cut: u64,
    /// By state, in seconds.
    spent: BTreeMap<String, f64>,
    /// By call.
    pub(super) driver_errors: BTreeMap<String, u64>,
    /// The last step that was done: whether up, and when.
    last: Option<(bool, f64)>,
    /// Since when instances drain, by id.
    draining: BTreeMap<String, f64>,
    #[serde(skip)]
    pub(super) histograms: Histograms,
}

/// How long starts and drains took.
#[derive(Debug, Default)]
pub(super) struct Histograms {
    starts: Histogram,
    drains: Histogram,
}

/// Steps in opposite directions within this many seconds are a reversal.
const REVERSAL: f64 = 600.0;

impl Clone for Histograms {
    /// Figures of this process only: a copy starts anew.
    fn clone(&self) -> Self {
        Histograms::default()
    }
}

impl PartialEq for Histograms {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Tally {
    /// A decision, and how many there are really to be.
    pub(super) fn decided(&mut self, decision: &Decision, wanted: Option<u32>) {
        for limit in &decision.limits {
            *self.limited.entry(limit.name.clone()).or_default() += 1;
        }
        self.rollbacks += u64::from(decision.rollback);
        if decision.desired == decision.current {
            return;
        }
        let up = decision.desired > decision.current;
        let applied = wanted == Some(decision.desired);
        let key = format!("{}\n{}\n{applied}", if up { "up" } else { "down" }, decision.reason);
        *self.decisions.entry(key).or_default() += 1;
        if applied {
            let reverses = self.last.is_some_and(|(was_up, at)| was_up != up && decision.at - at <= REVERSAL);
            self.reversals += u64::from(reverses);
            self.last = Some((up, decision.at));
        }
    }

    /// Starts that have ended, one way or the other.
    pub(super) fn started(&mut self, took: &[f64], failures: u32) {
        self.ready += took.len() as u64;
        self.failed += u64::from(failures);
        took.iter().for_each(|seconds| self.histograms.starts.record(span(*seconds)));
    }

    /// Something has become of an instance.
    pub(super) fn heard(&mut self, news: &News, now: f64) {
        if news.to == "draining" {
            self.draining.insert(news.id.clone(), now);
        } else if let Some(since) = self.draining.remove(&news.id)
            && matches!(news.to, "stopping" | "gone")
        {
            self.histograms.drains.record(span(now - since));
        }
        if news.to == "gone" {
            let why = match news.from {
                "stopping" => "stopped",
                "draining" => "drained",
                _ if news.bad => "crashed",
                _ => "gone",
            };
            *self.stops.entry(why.to_owned()).or_default() += 1;
        }
    }

    /// Time has passed, with so many instances in each state.
    pub(super) fn spend(&mut self, counts: &BTreeMap<String, u32>, seconds: f64) {
        for (state, count) in counts.iter().filter(|(_, count)| **count > 0) {
            *self.spent.entry(state.clone()).or_default() += f64::from(*count) * seconds;
        }
    }

    /// All of it, for the page.
    pub(super) fn figures(&self, pool: &str) -> PoolFigures {
        let mut figures = PoolFigures::default();
        for (key, count) in &self.decisions {
            let mut parts = key.splitn(3, '\n');
            let mut part = || parts.next().unwrap_or_default();
            let labels = [pool, part(), part(), part()];
            figures.add(Series::ScalerDecisions, &labels, *count as f64);
        }
        let each = |figures: &mut PoolFigures, series, counts: &BTreeMap<String, u64>| {
            counts.iter().for_each(|(word, count)| figures.add(series, &[pool, word], *count as f64));
        };
        each(&mut figures, Series::ScalerLimited, &self.limited);
        each(&mut figures, Series::ScalerStops, &self.stops);
        each(&mut figures, Series::ScalerDriverErrors, &self.driver_errors);
        figures.add(Series::ScalerReversals, &[pool], self.reversals as f64);
        figures.add(Series::ScalerRollbacks, &[pool], self.rollbacks as f64);
        figures.add(Series::ScalerSessionsCut, &[pool], self.sessions_cut as f64);
        figures.add(Series::ScalerStarts, &[pool, "ready"], self.ready as f64);
        figures.add(Series::ScalerStarts, &[pool, "failed"], self.failed as f64);
        for (state, seconds) in &self.spent {
            figures.add(Series::ScalerInstanceSeconds, &[pool, state], *seconds);
        }
        let spans = |histogram: &Histogram| std::iter::once(histogram).collect::<Distribution>();
        figures.spans(Series::ScalerStartSeconds, &[pool], spans(&self.histograms.starts));
        figures.spans(Series::ScalerDrainSeconds, &[pool], spans(&self.histograms.drains));
        figures
    }
}

fn span(seconds: f64) -> std::time::Duration {
    std::time::Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default()
}
