//! Who may ask an MCP server what, and how often.

use std::sync::Arc;
use std::time::Duration;

use crate::config::model::McpLimit;
use crate::limit::{Limiter, Reason, Refusal, Rule};
use crate::telemetry::LimitStats;
use crate::types::Moment;

/// One limit of a pool, compiled.
///
/// **Shape**: its clients survive reloads; see [`Limit::adopt`].
#[derive(Debug)]
pub struct Limit {
    settings: McpLimit,
    /// Who has used how much of it.
    pub limiter: Arc<Limiter>,
    /// Its counters.
    pub stats: Arc<LimitStats>,
}

impl Limit {
    /// The limits of new settings; the one at the same place in `before` hands on its clients. `stats` has the counters for each place.
    pub fn adopt(
        before: &[Limit],
        settings: &[McpLimit],
        stats: impl Fn(usize) -> Arc<LimitStats>,
        now: Moment,
    ) -> Arc<[Limit]> {
        let limit = |(place, settings): (usize, &McpLimit)| {
            let rule = rule(settings);
            let limiter = match before.get(place).map(|before| &before.limiter) {
                Some(known) if *known.rule() == rule => known.clone(),
                Some(known) => Arc::new(known.with_rule(rule, now)),
                None => Arc::new(Limiter::new(rule)),
            };
            Limit { settings: settings.clone(), limiter, stats: stats(place) }
        };
        settings.iter().enumerate().map(limit).collect()
    }

    /// Whether it counts such a request; `tool` is what a `tools/call` calls.
    pub fn counts(&self, method: &str, tool: Option<&str>) -> bool {
        let McpLimit { tool: tools, method: methods, .. } = &self.settings;
        if !tools.is_empty() {
            return method == "tools/call" && tool.is_some_and(|tool| tools.iter().any(|known| known == tool));
        }
        methods.is_empty() || methods.iter().any(|known| known == method)
    }

    /// Whether each tool is counted by itself.
    pub fn is_by_tool(&self) -> bool {
        !self.settings.tool.is_empty()
    }

    /// Why it has refused, in words that a model can act on. `tool` as for [`Limit::counts`].
    pub fn words(&self, refusal: &Refusal, tool: Option<&str>) -> String {
        let what = |count: u32| {
            let calls = if count == 1 { "call" } else { "calls" };
            match (tool.filter(|_| self.is_by_tool()), &self.settings.method[..]) {
                (Some(tool), _) => format!("{count} {calls} of {tool}"),
                (None, [method]) if method != "tools/call" => format!("{count} {method} requests"),
                (None, [_]) => format!("{count} tool {calls}"),
                (None, _) => format!("{count} {}", if count == 1 { "request" } else { "requests" }),
            }
        };
        let seconds = refusal.retry_after_seconds();
        match (refusal.reason, self.settings.rate) {
            (Reason::Rate, Some(rate)) => {
                let cost = match self.settings.cost {
                    1 => String::new(),
                    cost => format!(", of which this uses {cost}"),
                };
                format!("Rate limit: at most {} {}{cost}; try again in {seconds} s.", what(rate.count), unit(rate.per))
            }
            _ => {
                let most = self.settings.concurrency.unwrap_or(1);
                format!("Concurrency limit: at most {} at once; try again when one has ended.", what(most))
            }
        }
    }
}

fn rule(settings: &McpLimit) -> Rule {
    let whole = settings.rate.map_or(0, |rate| rate.count.saturating_sub(1));
    Rule {
        per: settings.per.clone(),
        rate: settings.rate,
        burst: settings.burst.unwrap_or(whole),
        cost: settings.cost,
        requests: settings.concurrency,
        max_clients: settings.max_clients,
        ..Rule::default()
    }
}

fn unit(per: Duration) -> String {
    match per.as_secs() {
        1 => "a second".into(),
        60 => "a minute".into(),
        3600 => "an hour".into(),
        86_400 => "a day".into(),
        _ => format!("in {} s", per.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{Admission, ClientKey, ConnectionSeats};
    use crate::telemetry::Registry;

    fn limits(before: &[Limit], settings: &[McpLimit]) -> Arc<[Limit]> {
        let registry = Registry::new(1, 100, &[]);
        Limit::adopt(before, settings, |place| registry.pool_limit("tools", place), Moment::START)
    }

    fn limit(rate: &str) -> McpLimit {
        McpLimit { rate: Some(rate.parse().unwrap()), ..McpLimit::default() }
    }

    #[test]
    fn a_limit_counts_what_it_names() {
        let named = McpLimit { tool: vec!["add".into()], ..limit("5/min") };
        let calls = McpLimit { method: vec!["tools/call".into()], ..limit("5/min") };
        let limits = limits(&[], &[named, calls, limit("5/min")]);
        let counted = |method, tool| limits.iter().map(|limit| limit.counts(method, tool)).collect::<Vec<_>>();
        assert_eq!(counted("tools/call", Some("add")), [true, true, true]);
        assert_eq!(counted("tools/call", Some("fail")), [false, true, true]);
        assert_eq!(counted("prompts/get", Some("add")), [false, false, true]);
    }

    #[test]
    fn what_was_used_stays_used_over_a_reload_and_the_words_say_what_to_do() {
        let settings = McpLimit { tool: vec!["run_sql".into()], ..limit("2/min") };
        let first = limits(&[], std::slice::from_ref(&settings));
        let seats = ConnectionSeats::new();
        let ask = |limits: &[Limit]| limits[0].limiter.admit(ClientKey::ALL.with(b"run_sql"), &seats, Moment::START);
        assert!(matches!(ask(&first), Admission::Proceed(..)) && matches!(ask(&first), Admission::Proceed(..)));
        let next = limits(&first, &[McpLimit { concurrency: Some(9), ..settings }]);
        let Admission::Refuse(refusal) = ask(&next) else { panic!("two a minute") };
        assert_eq!(
            next[0].words(&refusal, Some("run_sql")),
            "Rate limit: at most 2 calls of run_sql a minute; try again in 30 s."
        );
    }
}
