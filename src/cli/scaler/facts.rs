//! Everything that is known of a pool over some time: what plans and reports are made from.

use super::ask::Asking;
use super::settings;
use super::traffic;
use crate::admin::scaling::{History, PoolScaler, Record, ScalerStatus, Series};
use crate::cli::Failure;
use crate::scale::plan::{self, Advice, Facts};
use crate::scale::{Profile, Settings, plan::Step};
use crate::types::{Share, Size, parse_duration};

/// A turn within so many seconds is one too many.
const FLAP: f64 = 600.0;

/// A pool over some time.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) pool: PoolScaler,
    pub(super) series: Series,
    pub(super) history: History,
    pub(super) steps: Vec<Step>,
    pub(super) profile: Profile,
    /// Everything that the scaler is told; none where the proxy's configuration cannot be read here.
    pub(super) in_force: Option<Settings>,
    /// Seconds that a request may wait, and the share that must not wait longer.
    pub(super) slo: (f64, f64),
    /// What one instance may use, in bytes.
    memory: Option<f64>,
    /// An instance's price for an hour, and its currency.
    pub(super) price: (f64, String),
}

impl Known {
    pub(super) async fn ask(
        asking: &Asking,
        status: &ScalerStatus,
        pool: &PoolScaler,
        since: f64,
    ) -> Result<Self, Failure> {
        let series = asking.series(&pool.pool, since).await?;
        let history = asking.history(&pool.pool, since, false).await?;
        let config = asking.config().await?;
        Ok(Known::of(status, pool.clone(), series, history, &config))
    }

    pub(super) fn of(status: &ScalerStatus, pool: PoolScaler, series: Series, history: History, config: &str) -> Self {
        let text = |way: &[&str]| Some(settings::value(config, &pool.pool, way)?.as_str()?.to_owned());
        let wait = text(&["slo", "wait"]).and_then(|wait| parse_duration(&wait).ok()).map(|wait| wait.as_secs_f64());
        let target = text(&["slo", "target"]).and_then(|target| target.parse::<Share>().ok()).map(|target| target.0);
        let memory = text(&["process", "memory"]).or_else(|| text(&["docker", "memory"]));
        Known {
            steps: traffic::steps(&series.samples),
            profile: settings::profile(config, &pool.pool),
            in_force: settings::in_force(config, &pool.pool),
            slo: (wait.unwrap_or(0.25), target.unwrap_or(0.99)),
            memory: memory.and_then(|memory| memory.parse::<Size>().ok()).map(|memory| memory.0 as f64),
            price: (status.instance_hour, status.currency.clone()),
            pool,
            series,
            history,
        }
    }

    /// The records that changed something.
    pub(super) fn changes(&self) -> Vec<&Record> {
        self.history.records.iter().filter(|record| record.is_change()).collect()
    }

    /// How often the direction turned within ten minutes.
    pub(super) fn reversals(&self) -> u32 {
        let up = |record: &Record| record.decision.desired > record.decision.current;
        let changes = self.changes();
        let turned = changes
            .windows(2)
            .filter(|pair| up(pair[0]) != up(pair[1]) && pair[1].decision.at - pair[0].decision.at <= FLAP);
        turned.count() as u32
    }

    /// The start-up time gone by, in seconds; 0 where it is not known.
    pub(super) fn lead(&self) -> f64 {
        self.pool.last.as_ref().map_or(0.0, |record| record.decision.terms.lead)
    }

    /// Slots of one instance, as last known.
    pub(super) fn capacity(&self) -> Option<f64> {
        let decided = self.pool.last.as_ref().map(|record| record.decision.terms.capacity);
        let recorded = || self.steps.iter().rev().map(|step| step.capacity).find(|capacity| *capacity > 0.0);
        decided.filter(|capacity| *capacity > 0.0).or_else(recorded)
    }

    /// What is to be recommended.
    pub(super) fn advice(&self) -> Vec<Advice> {
        let rolled_back = |record: &&&Record| record.outcome.as_ref().is_some_and(|outcome| outcome.rolled_back);
        let changes = self.changes();
        let used = self.pool.instances.iter().filter_map(|instance| instance.memory).max().map(|used| used as f64);
        plan::right_size(&Facts {
            pool: &self.pool.pool,
            steps: &self.steps,
            min: self.pool.min,
            max: self.pool.max,
            slo_wait: self.slo.0,
            slo_target: self.slo.1,
            reversals: self.reversals(),
            rollbacks: changes.iter().filter(rolled_back).count() as u32,
            changes: changes.len() as u32,
            lead: self.lead(),
            profile: self.profile.word(),
            learned: self.pool.last.as_ref().map(|record| record.decision.terms.learned),
            arrivals: self.series.samples.iter().map(|sample| sample.arrivals).sum(),
            saturated: self.series.samples.iter().map(|sample| sample.saturated).sum(),
            memory: used.zip(self.memory),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::sample::{day, mcp, record, smaller, status};
    use super::*;

    pub(in crate::cli::scaler) const CONFIG: &str = "[pool.mcp.scaler]\nprofile = \"calm\"\nslo = { wait = \"100ms\", target = \"99.9%\" }\nprocess = { memory = \"70MiB\" }\n";

    pub(in crate::cli::scaler) fn known() -> Known {
        let history = History { pool: "mcp".to_owned(), records: vec![smaller(), record()], more: false };
        Known::of(&status(vec![mcp()]), mcp(), day(), history, CONFIG)
    }

    #[test]
    fn what_is_known_comes_from_all_sources() {
        let known = known();
        assert_eq!((known.slo.0, known.profile), (0.1, Profile::Calm));
        assert!((known.slo.1 - 0.999).abs() < 1e-9);
        assert_eq!((known.lead(), known.capacity()), (2.1, Some(4.0)));
        assert_eq!(known.steps.len(), 276);
        let codes: Vec<&str> = known.advice().iter().map(|advice| advice.code).collect();
        assert_eq!(codes, ["MORE_HEADROOM", "MORE_MEMORY"]);
        let plain = Known::of(&status(vec![]), PoolScaler::default(), Series::default(), History::default(), "");
        assert_eq!((plain.slo, plain.capacity(), plain.advice()), ((0.25, 0.99), None, Vec::new()));
    }

    #[test]
    fn only_turns_within_ten_minutes_are_reversals() {
        let mut known = known();
        assert_eq!(known.reversals(), 0, "an hour apart");
        known.history.records[0].decision.at = record().decision.at - 300.0;
        assert_eq!(known.reversals(), 1);
        known.history.records[0].decision.apply = false;
        assert_eq!(known.reversals(), 0, "it was only told");
    }
}
