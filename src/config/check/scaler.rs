//! Scalers: what they are to go by, and whether that goes together. How instances are made is `driver.rs`.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use super::Check;
use crate::config::model::{MaxConcurrency, Policy, Pool, PoolKind, Rules, Scaler, Schedule, Signal, Sleep};
use crate::config::place::At;
use crate::scale::{Adjust, Amount, Metric, ScheduleError, Target, check_schedule};

/// What is longer than this upwards is felt by clients.
const PATIENCE: Duration = Duration::from_secs(300);

impl Check<'_> {
    /// What a pool says of its scaler, its queue and its instances' concurrency.
    pub(super) fn scaling(&mut self, pool: &Pool, at: &At) {
        if pool.max_concurrency == Some(MaxConcurrency::Learn)
            && pool.scaler.is_none()
            && !self.failed(&at.key("scaler"))
        {
            let label = "expected a number, or a `scaler` in this pool";
            self.report.error(&at.key("max_concurrency"), "only a scaler learns what an instance can take", label);
        }
        let bounded = pool.upstreams.iter().any(|upstream| upstream.max_connections.is_some());
        // Calls of MCP clients wait for an upstream to be there, too.
        let calls = pool.kind == PoolKind::Mcp;
        if pool.queue.is_some() && !calls && pool.max_concurrency.is_none() && pool.scaler.is_none() && !bounded {
            let label = "no upstream is ever full without `max_concurrency` or `max_connections`";
            self.report.warning_at_key(&at.key("queue"), format!("`{}` has no effect", at.key("queue")), label);
        }
        if let Some(scaler) = &pool.scaler {
            self.scaler(scaler, &at.key("scaler"));
        }
    }

    fn scaler(&mut self, scaler: &Scaler, at: &At) {
        self.in_order(
            at,
            ["min", "max"],
            scaler.min > scaler.max,
            "there would be at least more instances than at most",
        );
        let restart = at.key("restart");
        let late = scaler.restart.backoff > scaler.restart.max_backoff;
        self.in_order(&restart, ["backoff", "max_backoff"], late, "the first wait is longer than the longest");
        if scaler.slo.target.0 >= 1.0 {
            let label = "expected less than 100%, such as \"99.9%\"";
            self.report.error(&at.key("slo").key("target"), "nobody can promise that no request ever waits", label);
        }
        self.driver(scaler, at);
        self.signals(&scaler.signal, &at.key("signal"));
        self.policies(scaler, &at.key("policy"));
        for (index, schedule) in scaler.schedule.iter().enumerate() {
            self.schedule(scaler, schedule, &at.key("schedule").index(index));
        }
        self.behavior(scaler, &at.key("behavior"));
        self.sleep(scaler, at);
        for (index, period) in scaler.predict.seasonal.iter().enumerate() {
            if !(Duration::from_secs(60)..=Duration::from_secs(28 * 86400)).contains(period) {
                let label = "expected 1m to 28d, such as \"1d\"";
                self.report.error(&at.key("predict").key("seasonal").index(index), "no period to look out for", label);
            }
        }
    }

    /// Two bounds the wrong way round; either may be a default.
    fn in_order(&mut self, at: &At, [low, high]: [&str; 2], wrong: bool, message: &str) {
        if !wrong || self.failed(at) {
            return;
        }
        let (low_at, high_at) = (at.key(low), at.key(high));
        let label = format!("expected `{low}` to be at most `{high}`");
        match (self.written(&low_at), self.written(&high_at)) {
            (true, true) => self.report.clash(&high_at, &low_at, message, [low, &label]),
            (true, false) => self.report.error(&low_at, message, label),
            _ => self.report.error(&high_at, message, label),
        }
    }

    fn signals(&mut self, signals: &[Signal], at: &At) {
        let mut first: BTreeMap<&Metric, At> = BTreeMap::new();
        for (index, signal) in signals.iter().enumerate() {
            let at = at.index(index);
            self.target(signal, &at);
            self.source(signal, &at);
            if let Some(first) = first.get(&signal.metric) {
                let message = format!("`{}` is a signal twice", signal.metric);
                self.report.clash(&at.key("metric"), first, message, ["first here", "again here"]);
            }
            first.entry(&signal.metric).or_insert(at.key("metric"));
        }
    }

    fn target(&mut self, signal: &Signal, at: &At) {
        use Metric::{Connections, Cpu, Errors, InFlight, Load, Memory, PoolUtilisation, Ready};
        let metric = &signal.metric;
        let share = matches!(metric, Cpu | Memory | Errors | PoolUtilisation);
        if *metric == Ready {
            let label = "expected what instances have to do, such as \"rps\" or \"in_flight\"";
            return self.report.error(&at.key("metric"), "the number of instances would follow itself", label);
        }
        let at = at.key("target");
        match signal.target {
            Target::Utilization(_) if !share && !matches!(metric, Load | InFlight | Connections) => {
                let label = "expected an amount for each instance such as 30, or \"value:500\"";
                self.report.error(&at, format!("nobody knows how much `{metric}` an instance can have"), label);
            }
            Target::PerInstance(amount) | Target::Value(amount) if share && amount > 1.0 => {
                let label = format!("`{metric}` is a share: expected one such as \"70%\"");
                self.report.error(&at, format!("`{metric}` never gets there"), label);
            }
            _ => {}
        }
    }

    /// Where an external signal's values come from.
    fn source(&mut self, signal: &Signal, at: &At) {
        let set =
            [("url", signal.url.is_some()), ("query", signal.query.is_some()), ("pointer", signal.pointer.is_some())];
        if !matches!(signal.metric, Metric::External(_)) {
            let label = format!("it is for \"external:NAME\"; `{}` is known here", signal.metric);
            return self.no_effect(at, &set, &label);
        }
        if self.failed(at) {
            return;
        }
        match &signal.url {
            Some(url) => self.url(&at.key("url"), url),
            None => {
                let message = format!("`{}` has no `url`", signal.metric);
                let label = "expected where it comes from: `url` with `query` (Prometheus) or `pointer` (JSON)";
                self.report.error(at, message, label);
            }
        }
        match (&signal.query, &signal.pointer) {
            (Some(_), Some(_)) => {
                let message = "a signal has both `query` and `pointer`";
                self.report.clash(&at.key("pointer"), &at.key("query"), message, ["this", "or this, not both"]);
            }
            (None, None) if signal.url.is_some() => {
                let label = "expected `query = \"…\"` (Prometheus) or `pointer = \"/…\"` (JSON)";
                self.report.error(at, format!("nothing says which value `{}` is", signal.metric), label);
            }
            (Some(query), None) if query.trim().is_empty() => {
                self.report.error(&at.key("query"), "the query is empty", "expected PromQL");
            }
            (None, Some(pointer)) if !pointer.is_empty() && !pointer.starts_with('/') => {
                let label = "expected a JSON pointer such as \"/queue/length\"";
                self.report.error(&at.key("pointer"), "no place in a JSON document", label);
            }
            _ => {}
        }
    }

    fn policies(&mut self, scaler: &Scaler, at: &At) {
        let mut first: BTreeMap<&str, At> = BTreeMap::new();
        for (index, policy) in scaler.policy.iter().enumerate() {
            let at = at.index(index);
            self.policy(scaler, policy, &at);
            if let Some(first) = first.get(policy.name.as_str()) {
                let message = format!("two policies are called `{}`", policy.name);
                self.report.clash(&at.key("name"), first, message, ["first here", "again here"]);
            }
            first.entry(&policy.name).or_insert(at.key("name"));
        }
    }

    fn policy(&mut self, scaler: &Scaler, policy: &Policy, at: &At) {
        let fits = (1..=100).contains(&policy.name.chars().count()) && !policy.name.chars().any(char::is_control);
        if !fits {
            let label = "expected 1 to 100 characters, none of them a control character";
            self.report.error(&at.key("name"), format!("bad name {:?}", policy.name), label);
        }
        let (least, most) = (policy.min.unwrap_or(0), policy.max.unwrap_or(u32::MAX));
        self.in_order(at, ["min", "max"], least > most, "the policy asks for at least more than for at most");
        let more = match policy.adjust {
            Adjust::Count(change) | Adjust::Percent(change) => {
                if change == 0 {
                    self.report.error(
                        &at.key("adjust"),
                        "it changes nothing",
                        "expected one such as \"+2\" or \"-10%\"",
                    );
                }
                change > 0
            }
            Adjust::To(_) => false,
        };
        if more && policy.r#for > PATIENCE {
            let label = "clients wait meanwhile; the load is answered within seconds in any case";
            self.report.warning(&at.key("for"), "it waits long before it adds", label);
        }
        for comparison in &policy.when.comparisons {
            let known = scaler.signal.iter().any(|signal| signal.metric == comparison.metric);
            if matches!(comparison.metric, Metric::External(_)) && !known {
                let label =
                    format!("add a `signal` with `metric = \"{}\"`, its `url` and what to ask for", comparison.metric);
                let message = format!("nothing says where `{}` comes from", comparison.metric);
                self.report.error(&at.key("when"), message, label);
            }
        }
    }

    fn schedule(&mut self, scaler: &Scaler, schedule: &Schedule, at: &At) {
        let now = self.surroundings.now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        for error in check_schedule(&schedule.cron, &schedule.tz, now) {
            let form = "expected minute, hour, day, month and weekday, such as \"0 8 * * 1-5\"";
            match error {
                ScheduleError::Cron(why) => {
                    let label = format!("{form}: {}", why.trim_end_matches('.'));
                    self.report.error(&at.key("cron"), "no time for a schedule", label);
                }
                ScheduleError::Never => self.report.error(&at.key("cron"), "that time never comes", form),
                ScheduleError::Zone => {
                    let label = "expected one such as \"Europe/Berlin\" or \"UTC\" that this machine's zoneinfo has";
                    self.report.error(&at.key("tz"), format!("there is no time zone {:?}", schedule.tz), label);
                }
            }
        }
        let (least, most) = (schedule.min.unwrap_or(0), schedule.max.unwrap_or(u32::MAX));
        self.in_order(at, ["min", "max"], least > most, "the schedule's floor is above its ceiling");
        if schedule.min.is_none() && schedule.max.is_none() && !self.failed(at) {
            self.report.error(at, "the schedule asks for nothing", "expected `min`, `max` or both");
        }
        if least > scaler.max {
            let label = format!("there are never more than `max = {}`", scaler.max);
            self.report.warning(&at.key("min"), "the schedule asks for more than there may be", label);
        }
        if most < scaler.min {
            let label = format!("there are never fewer than `min = {}`", scaler.min);
            self.report.warning(&at.key("max"), "the schedule allows fewer than there must be", label);
        }
    }

    fn behavior(&mut self, scaler: &Scaler, at: &At) {
        let (up, down) = (&scaler.behavior.scale_up, &scaler.behavior.scale_down);
        self.rules(up, &at.key("scale_up"));
        self.rules(down, &at.key("scale_down"));
        if up.stabilization.is_some_and(|window| window > PATIENCE) {
            let label = "clients wait meanwhile; expected \"0s\", or a minute at most";
            self.report.warning(
                &at.key("scale_up").key("stabilization"),
                "it waits long before it adds: too conservative",
                label,
            );
        }
        let whole = down.policies.0.iter().any(|pace| matches!(pace.amount, Amount::Percent(100..)));
        if down.stabilization == Some(Duration::ZERO) && whole {
            let label = "everything may go in one step at the first quiet second; expected a window such as \"5m\", or none at all for the `hold`";
            self.report.warning(
                &at.key("scale_down").key("stabilization"),
                "it removes at once what it will need back: too aggressive",
                label,
            );
        }
    }

    fn rules(&mut self, rules: &Rules, at: &At) {
        for (index, pace) in rules.policies.0.iter().enumerate() {
            let at = at.key("policies").index(index);
            if !(1.0..=3600.0).contains(&pace.period) {
                self.report.error(&at, "bad period of a pace", "expected 1s to 1h, such as \"4/15s\"");
            }
            if matches!(pace.amount, Amount::Count(0) | Amount::Percent(0)) {
                let label = "expected at least 1; `select = \"disabled\"` allows no change";
                self.report.error(&at, "a pace that allows nothing", label);
            }
        }
    }

    fn sleep(&mut self, scaler: &Scaler, at: &At) {
        let default = Sleep::default();
        let sleep = &scaler.sleep;
        let at = at.key("sleep");
        if scaler.min > 0 {
            let set = [
                ("idle_for", sleep.idle_for != default.idle_for),
                ("wake_timeout", sleep.wake_timeout != default.wake_timeout),
                ("wake_to", sleep.wake_to != default.wake_to),
                ("ignore_agents", sleep.ignore_agents != default.ignore_agents),
                ("ignore_paths", sleep.ignore_paths != default.ignore_paths),
            ];
            self.no_effect(&at, &set, "the pool sleeps only with `min = 0`");
        } else if sleep.wake_to > scaler.max {
            let label = format!("expected at most `max = {}`", scaler.max);
            self.report.error(&at.key("wake_to"), "the pool would wake to more than there may be", label);
        }
    }
}
