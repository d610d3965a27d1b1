//! What a pool's scaler writes down, answers and shows.

use std::collections::BTreeMap;
use std::time::Duration;

use super::pool::{PoolEngine, Wish};

use crate::admin::scaling::{AskError, Finding, PoolScaler, Record, Sample};
use crate::scale::{Decision, Mode, Phase};
use crate::scaler::ErrorKind;
use crate::telemetry::Series;
use crate::types::Clock;

/// A decision that changes nothing is recorded so often.
const RECORD_EVERY: f64 = 60.0;
/// Wanting more than the most for so long is told.
const AT_MAX_AFTER: f64 = 30.0;

impl PoolEngine {
    /// Does what an operator wants.
    ///
    /// **Errors**: it cannot be done now.
    pub(super) fn wish(&mut self, wish: Wish) -> Result<(), AskError> {
        let now = self.shared.now();
        if !self.leads() {
            let leader = self.shared.role.borrow().standing.leader.clone().unwrap_or("another proxy".to_owned());
            return Err(AskError::Impossible(format!("{leader} decides about this pool: ask there")));
        }
        match wish {
            Wish::Pause(span) => self.paused_until = Some(now + span.as_secs_f64()),
            Wish::Resume => self.paused_until = None,
            Wish::Set(None) => self.set = None,
            Wish::Set(Some((to, span))) => {
                if !self.acts() {
                    let mode = self.settings.mode.word();
                    let text = format!("the scaler only looks on (mode = \"{mode}\"): nothing can be set");
                    return Err(AskError::Impossible(text));
                }
                let (min, max) = (self.settings.min, self.settings.max);
                if !(min..=max).contains(&to) {
                    return Err(AskError::Impossible(format!("{to} is not within min {min} and max {max}")));
                }
                self.set = Some((to, now + span.as_secs_f64()));
            }
            Wish::Recycle => self.fleet.recycle(),
        }
        Ok(())
    }

    /// Gives a decision its id and keeps it, where there is something to tell.
    pub(super) fn write_down(&mut self, decision: Decision, now: f64) {
        self.decisions = self.decisions.wrapping_add(1);
        let id = format!("{:013}-{:03}", (now * 1e3) as u64, self.decisions % 1000);
        let generation = self.shared.role.borrow().standing.generation;
        let pool = self.name.to_string();
        let record = Record { id, pool, generation, decision, seen: self.seen.clone(), outcome: None };
        let decision = &record.decision;
        let is_step = self.wanted.is_some_and(|wanted| wanted != decision.current);
        let said_before = self.last.as_ref().is_some_and(|last| last.decision.desired == decision.desired);
        let is_new = is_step || (decision.desired != decision.current && !said_before);
        if is_step {
            let (from, to, reason) = (decision.current, self.wanted.unwrap_or_default(), &decision.reason);
            tracing::info!(pool = %self.name, decision = %record.id, "scaling {from} → {to}: {reason}");
            self.ledger.begin(&record, self.settings.verify.window);
            self.shared.stepped(&record);
            self.last_change = Some(record.clone());
        }
        if is_new || now - self.recorded >= RECORD_EVERY {
            self.recorded = now;
            if let Some(store) = &*self.shared.store.borrow() {
                store.record(record.clone());
            }
        }
        self.last = Some(record);
    }

    /// Keeps what was seen in the last second, and what has come of earlier steps.
    pub(super) fn sample(&mut self, now: f64) {
        let seen = &self.seen;
        let count = |phase| f64::from(seen.count(phase));
        let last = self.last.as_ref().map(|record| &record.decision);
        let sample = Sample {
            at: now,
            span: seen.span,
            arrivals: seen.arrivals,
            completions: seen.completions,
            held: seen.held,
            in_flight: seen.in_flight,
            queue: seen.queue,
            wait: seen.oldest_wait,
            saturated: seen.saturated,
            errors: seen.errors,
            p95: seen.latency_p95,
            ready: count(Phase::Ready),
            starting: count(Phase::Starting),
            draining: count(Phase::Draining),
            desired: self.wanted.or(last.map(|decision| decision.desired)).unwrap_or(0),
            capacity: last.map_or(0.0, |decision| decision.terms.capacity),
            sessions: seen.sessions,
            cpu: seen.cpu,
            memory: seen.memory,
        };
        let ready = seen.count(Phase::Ready);
        let lead = last.map_or(0.0, |decision| decision.terms.lead);
        let Some(store) = &*self.shared.store.borrow() else { return };
        if seen.span > 0.0 {
            store.sample(&self.name, sample);
        }
        let between = |from, to| store.series(&self.name, Some(from), Some(to)).samples;
        for (id, outcome) in self.ledger.step(ready, lead, now, between) {
            if outcome.verdict != "good" {
                tracing::warn!(pool = %self.name, decision = %id, "that step did not go well: {}", outcome.verdict);
            }
            for known in [&mut self.last, &mut self.last_change].into_iter().flatten().filter(|known| known.id == id) {
                known.outcome = Some(outcome.clone());
            }
            store.outcome(&self.name, &id, outcome);
        }
    }

    /// Shows what there is now: to the commands, to the metrics page, and to refused requests, which are told when to come back.
    pub(super) fn publish(&mut self, now: f64, decided: bool) {
        self.expect(now);
        if !decided {
            return;
        }
        let status = self.status();
        self.tally.spend(&status.counts, self.seen.span);
        self.conditions_changed(&status.conditions);
        self.figures(&status);
        self.shared.statuses.borrow_mut().insert(self.name.to_string(), status);
    }

    /// Says when the next instance is expected.
    fn expect(&self, now: f64) {
        let Some(pool) = &self.pool else { return };
        let lead = self.lead();
        let starting = self.fleet.instances(now).into_iter().filter(|instance| instance.phase == Phase::Starting);
        let soonest = starting.map(|instance| (lead - instance.age).max(1.0)).min_by(f64::total_cmp);
        pool.kept.set_eta(soonest.map(|seconds| Clock::now() + Duration::from_secs_f64(seconds)));
    }

    fn lead(&self) -> f64 {
        let last = self.last.as_ref().map(|record| record.decision.terms.lead).filter(|lead| *lead > 0.0);
        self.fleet.usual_lead().or(last).unwrap_or(self.settings.first_lead)
    }

    /// How the pool's scaler is.
    pub(super) fn status(&self) -> PoolScaler {
        let now = self.shared.now();
        let instances = self.fleet.status(now);
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for instance in &instances {
            *counts.entry(instance.state.clone()).or_default() += 1;
        }
        let last = self.last.as_ref();
        PoolScaler {
            pool: self.name.to_string(),
            mode: self.settings.mode.word().to_owned(),
            paused: self.paused_until.map(|until| (until - now).max(0.0)),
            set: self.set.map(|(to, until)| (to, (until - now).max(0.0))),
            driver: self.built.kind.to_owned(),
            min: self.settings.min,
            max: self.settings.max,
            desired: self.wanted.or(last.map(|record| record.decision.desired)).unwrap_or(0),
            counts,
            instances,
            conditions: self.conditions(now),
            seen: self.seen.clone(),
            last: self.last.clone(),
            last_change: self.last_change.clone(),
        }
    }

    fn finding(&self, code: &str, severity: &str, text: String, advice: &str) -> Finding {
        let pool = Some(self.name.to_string());
        Finding { code: code.to_owned(), severity: severity.to_owned(), pool, text, advice: advice.to_owned() }
    }

    /// Everything that needs attention.
    fn conditions(&self, now: f64) -> Vec<Finding> {
        let mut all = self.findings.clone();
        if let Some(error) = &self.built.problem {
            all.push(self.finding("DRIVER", "critical", error.what.clone(), &error.advice));
        }
        for (op, error) in &self.trouble {
            let code = if error.kind == ErrorKind::Unreachable { "DRIVER_UNREACHABLE" } else { "DRIVER" };
            let told = all.iter().any(|finding| finding.text == error.what);
            if !told && matches!(error.kind, ErrorKind::Unreachable | ErrorKind::Refused) {
                all.push(self.finding(code, "critical", format!("{op}: {}", error.what), &error.advice));
            }
        }
        let external = self.built.external.findings().into_iter();
        all.extend(external.map(|finding| Finding { pool: Some(self.name.to_string()), ..finding }));
        all.extend(self.built.driver.iter().filter_map(|driver| driver.diverging(now)));
        if let Some(error) = self.built.driver.as_ref().and_then(|driver| driver.hindrance()) {
            let code = match error.kind {
                ErrorKind::OtherScaler => "OTHER_SCALER",
                ErrorKind::Full => "QUOTA",
                _ => "DRIVER",
            };
            if all.iter().all(|finding| finding.code != code) {
                all.push(self.finding(code, "critical", error.what, &error.advice));
            }
        }
        all.extend(self.of_the_number(now));
        if !self.leads() {
            let role = self.shared.role.borrow();
            let leader = role.standing.leader.clone().unwrap_or("nobody".to_owned());
            all.push(self.finding("NOT_LEADER", "info", format!("{leader} decides about this pool"), "ask there"));
        }
        let scarce = self.shared.short_of_memory(&self.config).filter(|_| self.built.is_local);
        all.extend(scarce.map(|finding| Finding { pool: Some(self.name.to_string()), ..finding }));
        all
    }

    /// What is to be said about the number itself.
    fn of_the_number(&self, now: f64) -> Vec<Finding> {
        let mut all = Vec::new();
        let Some(decision) = self.last.as_ref().map(|record| &record.decision) else { return all };
        let (current, desired) = (decision.current, decision.desired);
        if !self.acts() && desired != current {
            let (mode, text) = (self.settings.mode, format!("it would have {desired} instead of {current} instances"));
            let code = if mode == Mode::DryRun { "DRY_RUN" } else { "OBSERVE" };
            all.push(self.finding(code, "info", text, "set mode = \"on\" to have it done"));
        }
        if decision.wanted > self.settings.max && now - self.below_max >= AT_MAX_AFTER {
            let text = format!("{} instances are wanted and {} is the most", decision.wanted, self.settings.max);
            all.push(self.finding("AT_MAX", "warning", text, "raise `max`, or make each instance take more"));
        }
        for limit in decision.limits.iter().filter(|limit| matches!(&*limit.name, "behavior" | "budget" | "freeze")) {
            let text = format!("{} instances are wanted; `{}` allows {} now", limit.from, limit.name, limit.to);
            all.push(self.finding("LIMITED_BY_RATE", "info", text, "see `behavior` and `max_changes_per_hour`"));
        }
        let reversals = self.state.reversals(now);
        if reversals >= self.config.scaler.notify.flapping {
            let text = format!("{reversals} changes of direction within ten minutes");
            all.push(self.finding("FLAPPING", "warning", text, "use profile = \"calm\", or a longer `hold`"));
        }
        all
    }

    /// Tells the log of conditions that have come or gone.
    fn conditions_changed(&mut self, conditions: &[Finding]) {
        for finding in conditions.iter().filter(|finding| !self.told.contains(&finding.code)) {
            let (code, text, advice) = (&finding.code, &finding.text, &finding.advice);
            match finding.severity.as_str() {
                "info" => tracing::info!(pool = %self.name, "{code}: {text}; {advice}"),
                "critical" => tracing::error!(pool = %self.name, "{code}: {text}; {advice}"),
                _ => tracing::warn!(pool = %self.name, "{code}: {text}; {advice}"),
            }
        }
        for gone in self.told.iter().filter(|code| !conditions.iter().any(|finding| finding.code == **code)) {
            tracing::info!(pool = %self.name, "{gone}: no longer so");
        }
        self.told = conditions.iter().map(|finding| finding.code.clone()).collect();
    }

    fn figures(&self, status: &PoolScaler) {
        let pool = &*self.name;
        let mut figures = self.tally.figures(pool);
        let mut gauge = |series, value: f64| figures.add(series, &[pool], value);
        gauge(Series::ScalerDesired, f64::from(status.desired));
        gauge(Series::ScalerMin, f64::from(status.min));
        gauge(Series::ScalerMax, f64::from(status.max));
        if let Some(decision) = self.last.as_ref().map(|record| &record.decision) {
            let terms = &decision.terms;
            gauge(Series::ScalerRaw, f64::from(decision.raw));
            gauge(Series::ScalerLoad, terms.level);
            gauge(Series::ScalerForecast, terms.forecast);
            gauge(Series::ScalerHeadroom, terms.error + terms.staffing);
            gauge(Series::ScalerBacklog, terms.backlog);
            gauge(Series::ScalerLead, terms.lead);
            gauge(Series::ScalerHold, terms.hold);
            let source = if terms.learned { "learned" } else { "configured" };
            figures.add(Series::ScalerCapacity, &[pool, source], terms.capacity);
        }
        for (state, count) in &status.counts {
            figures.add(Series::ScalerInstances, &[pool, state], f64::from(*count));
        }
        for finding in &status.conditions {
            figures.add(Series::ScalerCondition, &[pool, &finding.code], 1.0);
        }
        self.shared.registry.scalers.publish(pool, figures);
    }

    /// The pool has no scaler any more.
    pub(super) fn forget(&self) {
        tracing::info!(pool = %self.name, "the scaler has gone, and so have its instances");
        self.shared.registry.scalers.forget(&self.name);
        self.shared.statuses.borrow_mut().remove(&*self.name);
        self.shared.sizes.borrow_mut().remove(&*self.name);
        self.shared.own.borrow_mut().remove(&*self.name);
    }
}
