//! One pool's turn, in the order in which it happens.

use std::time::Duration;

use futures_util::future::join_all;

use super::pool::{PoolEngine, Why};
use super::view;
use crate::admin::scaling::PoolSignals;
use crate::config::model::MaxConcurrency;
use crate::scale::{Decision, Mode, Observed, Phase, decide};
use crate::scaler::fleet::{Action, Input, Plan};
use crate::scaler::{DriverError, ErrorKind, Life, ScaleRequest};
use crate::snapshot::{Intent, Pool, Replica};
use crate::types::Clock;

/// From one decision to the next.
const DECIDE_EVERY: f64 = 1.0;
/// From one look at the driver's list to the next while something is on its way.
const BUSY_LIST: f64 = 0.2;
/// A driver that does not answer within this has not answered.
const PATIENCE: Duration = Duration::from_secs(15);
/// From one look at what instances use to the next.
const USAGE_EVERY: f64 = 5.0;

impl PoolEngine {
    /// What is due: the driver's list, a decision, the fleet's step, and what follows from them.
    pub(super) async fn turn(&mut self, why: Why) {
        let now = self.shared.now();
        self.adopt();
        let decides = why == Why::Wanted || now - self.decided >= DECIDE_EVERY;
        let stirs = why == Why::Stirred || (now - self.listed >= BUSY_LIST && self.is_busy(now));
        if !decides && !stirs {
            return;
        }
        if self.settings.mode == Mode::Off && self.retiring.is_none() {
            // What is there stays as it is.
            self.decided = now;
            return self.publish(now, true);
        }
        let answered = self.list(now).await;
        if !self.leads() {
            self.follow(decides);
            return self.publish(now, decides);
        }
        self.restore(now);
        if decides {
            self.look_at_usage(now).await;
            self.decide(now, answered);
        }
        self.propose().await;
        let plan = self.step(answered, now);
        self.keep(!plan.actions.is_empty());
        self.carry_out(&plan.actions, now).await;
        self.pass_on(plan);
        self.publish(now, decides);
    }

    /// Tells whoever makes the instances what would be asked for, each new number once, while that is only tried.
    async fn propose(&mut self) {
        let Some(record) = self.last.as_ref().filter(|_| self.settings.mode == Mode::DryRun) else { return };
        let decision = &record.decision;
        let request = ScaleRequest {
            desired: decision.desired,
            current: decision.current,
            decision: record.id.clone(),
            generation: record.generation,
            reason: decision.reason.clone(),
            victims: Vec::new(),
        };
        let is_news = decision.desired != decision.current && self.proposed != Some(decision.desired);
        self.proposed = (decision.desired != decision.current).then_some(decision.desired);
        let Some(driver) = self.built.driver.clone().filter(|_| is_news) else { return };
        if let Err(error) = bounded("propose", driver.propose(&request)).await {
            self.fail("propose", error);
        }
    }

    /// Whether something is on its way that is worth looking at more often.
    fn is_busy(&self, now: f64) -> bool {
        let coming = self.fleet.instances(now).iter().any(|instance| instance.phase == Phase::Starting);
        coming || self.found.iter().any(|found| matches!(found.life, Life::Pending | Life::Stopping))
    }

    /// Asks the driver what there is; whether it has answered.
    async fn list(&mut self, now: f64) -> bool {
        let Some(driver) = self.built.driver.clone() else {
            if let Some(error) = &self.built.problem {
                self.trouble.insert("build", error.clone());
            }
            return false;
        };
        self.listed = now;
        if let Some(pool) = &self.pool {
            let members = pool.members.iter().filter(|member| member.replica.is_none());
            driver.discovered(members.filter_map(|member| member.upstream.address.parse().ok()).collect());
        }
        match bounded("list", driver.list()).await {
            Ok(found) => {
                self.found = found;
                self.trouble.remove("list");
                true
            }
            Err(error) => {
                self.fail("list", error);
                false
            }
        }
    }

    fn fail(&mut self, op: &'static str, error: DriverError) {
        self.tally.driver_errors.entry(op.to_owned()).and_modify(|count| *count += 1).or_insert(1);
        if self.trouble.get(op) != Some(&error) {
            tracing::warn!(pool = %self.name, driver = self.built.kind, "{op}: {error}");
        }
        self.trouble.insert(op, error);
    }

    async fn look_at_usage(&mut self, now: f64) {
        if now - self.used < USAGE_EVERY {
            return;
        }
        self.used = now;
        let Some(driver) = self.built.driver.clone() else { return };
        match bounded("usage", driver.usage()).await {
            Ok(usage) => {
                self.usage = usage.into_iter().collect();
                self.trouble.remove("usage");
            }
            Err(error) => {
                self.usage.clear();
                self.fail("usage", error);
            }
        }
    }

    /// What is observed, decided and written down.
    fn decide(&mut self, now: f64, answered: bool) {
        self.decided = now;
        self.observe(now, answered);
        let decision = decide(&self.seen, &mut self.state, &self.settings, now);
        self.paused_until = self.paused_until.filter(|until| *until > now);
        self.set = self.set.filter(|(_, until)| *until > now);
        self.wanted = self.wish_of(&decision);
        if let Some((to, _)) = self.set {
            // What an operator has set is no step of the scaler's own.
            self.state.follow(to);
        }
        if decision.wanted <= self.settings.max {
            self.below_max = now;
        }
        self.tally.decided(&decision, self.wanted);
        self.write_down(decision, now);
        self.sample(now);
        self.started.clear();
        self.start_failures = 0;
    }

    fn observe(&mut self, now: f64, answered: bool) {
        let Some(pool) = self.pool.clone() else { return };
        let mut seen = self.look(&pool, now);
        seen.complete &= answered && !self.trouble.contains_key("list");
        seen.external = self.built.external.values();
        (seen.cpu, seen.memory) = view::usage_shares(&self.usage);
        seen.instances = self.fleet.instances(now);
        seen.started = self.started.clone();
        (seen.start_failures, seen.start_blocked) = (self.start_failures, self.start_blocked);
        self.seen = seen;
    }

    /// What this proxy, and where it matters the others, have seen of the pool since the last look.
    fn look(&mut self, pool: &Pool, now: f64) -> Observed {
        let readings = pool.readings(Clock::now());
        let own = self.sampler.signals(&readings);
        self.readings = readings.by_member;
        let mut seen = match &self.own {
            Some((at, before)) => view::between(before, &own, now - at),
            // Whatever was counted before we looked says nothing about a second.
            None => Observed {
                in_flight: own.in_flight,
                queue: own.queue as f64,
                oldest_wait: own.oldest_wait,
                ..Observed::default()
            },
        };
        let leaving =
            self.sent.iter().flat_map(|(replicas, _)| replicas).filter(|replica| replica.intent != Intent::Serve);
        let leaving = leaving.map(|replica| replica.address.to_string()).collect();
        let told = PoolSignals { leaving: if self.leads() { leaving } else { Vec::new() }, ..own.clone() };
        self.shared.own.borrow_mut().insert(self.name.to_string(), told);
        self.own = Some((now, own));
        if self.is_shared() {
            let (heard, complete) = self.shared.take_heard(&self.name);
            view::add(&mut seen, heard.unwrap_or_default());
            seen.complete &= complete;
        }
        seen
    }

    /// How many there are to be, after what operators have said; none where the number is to be left alone.
    fn wish_of(&self, decision: &Decision) -> Option<u32> {
        match (self.retiring, self.set, self.paused_until) {
            (Some(_), _, _) => Some(0),
            (None, Some((to, _)), _) => Some(to),
            (None, None, Some(_)) => None,
            (None, None, None) => decision.apply.then_some(decision.desired),
        }
    }

    fn step(&mut self, answered: bool, now: f64) -> Plan {
        let seen = view::members(self.pool.as_deref(), self.dissolved, &self.readings, &self.shared, &self.name);
        let scarce = self.built.is_local && self.shared.short_of_memory(&self.config).is_some();
        let last = self.last.as_ref();
        let cordon = last.filter(|_| self.set.is_none() && self.paused_until.is_none() && self.packs());
        let input = Input {
            found: answered.then_some(&self.found),
            seen: &seen,
            usage: &self.usage,
            wanted: self.wanted,
            cordon: cordon.map_or(0, |record| record.decision.cordon),
            decision: last.map_or("", |record| &record.id),
            generation: self.shared.role.borrow().standing.generation,
            reason: last.map_or("", |record| &record.decision.reason),
            may_start: if self.acts() && !scarce { self.shared.room(&self.config) } else { 0 },
            may_stop: self.acts(),
            random: fastrand::u64(..),
        };
        let plan = self.fleet.step(&input, now);
        self.shared.sizes.borrow_mut().insert(self.name.to_string(), self.fleet.instances(now).len() as u32);
        plan
    }

    /// Has the driver do it, all at once: they do not depend on one another.
    async fn carry_out(&mut self, actions: &[Action], now: f64) {
        let Some(driver) = self.built.driver.clone() else { return };
        let calls = actions.iter().map(|action| async {
            match action {
                Action::Start(order) => ("start", bounded("start", driver.start(order)).await),
                Action::Stop { id, grace } => ("stop", bounded("stop", driver.stop(id, *grace)).await),
                Action::Scale(request) => ("scale", bounded("scale", driver.scale(request)).await),
                Action::Mark(ids) => ("mark", bounded("mark", driver.mark(ids)).await),
            }
        });
        let results = join_all(calls).await;
        for (action, (op, result)) in actions.iter().zip(results) {
            self.fleet.acted(action, &result, now);
            match result {
                Ok(()) => drop(self.trouble.remove(op)),
                Err(error) => self.fail(op, error),
            }
        }
    }

    /// Tells control, the log and the tally.
    fn pass_on(&mut self, plan: Plan) {
        let now = self.shared.now();
        for news in &plan.news {
            let (pool, instance) = (&self.name, &news.id);
            if news.bad {
                tracing::warn!(%pool, %instance, "{} → {}: {}", news.from, news.to, news.why);
            } else {
                tracing::info!(%pool, %instance, "{} → {}: {}", news.from, news.to, news.why);
            }
            self.tally.heard(news, now);
            if news.from == "draining" && matches!(news.to, "stopping" | "gone") {
                let left = self.readings.iter().find(|reading| reading.replica.as_deref() == Some(&news.id));
                self.tally.sessions_cut += left.map_or(0, |reading| reading.sessions as u64);
            }
        }
        self.tally.started(&plan.started, plan.start_failures);
        self.started.extend(&plan.started);
        self.start_failures += plan.start_failures;
        self.start_blocked = plan.start_blocked;
        self.findings = plan.findings;
        self.send(plan.replicas);
    }

    /// Tells control who is there, if that is something new.
    fn send(&mut self, replicas: Vec<Replica>) {
        let learns =
            self.config.pool.get(&*self.name).is_some_and(|pool| pool.max_concurrency == Some(MaxConcurrency::Learn));
        let capacity =
            self.last.as_ref().map(|record| record.decision.terms.capacity).filter(|capacity| *capacity >= 1.0);
        let learned = capacity.filter(|_| learns).map(|capacity| capacity.ceil() as u32);
        let set = (replicas, learned);
        if self.sent.as_ref() != Some(&set) {
            self.shared.host.replicas(&self.name, set.0.clone(), set.1);
            self.sent = Some(set);
        }
    }

    /// Another proxy decides: what the driver lists is used as it is.
    fn follow(&mut self, looks: bool) {
        let now = self.shared.now();
        if looks && let Some(pool) = self.pool.clone() {
            self.seen = self.look(&pool, now);
            self.decided = now;
        }
        self.restored = false;
        let draining = self.shared.leaving(&self.name);
        let drain = self.scaler().map(|scaler| (scaler.drain.requests, scaler.drain.sessions));
        let drain = drain.unwrap_or_default();
        self.send(view::followed(&self.found, &draining, drain));
    }
}

/// Waits for the driver, but not for ever.
pub(super) async fn bounded<T>(op: &str, call: impl Future<Output = Result<T, DriverError>>) -> Result<T, DriverError> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(result) => result,
        Err(_) => Err(DriverError {
            what: format!("no answer to `{op}` within {} s", PATIENCE.as_secs()),
            advice: "see whether what makes the instances is up and not overloaded".to_owned(),
            kind: ErrorKind::Unreachable,
        }),
    }
}
