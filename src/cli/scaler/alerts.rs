use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use crate::cli::Failure;
use crate::cli::operate::print;
use crate::cli::place::{USUAL, usual_file};
use crate::config;
use crate::config::model::{Config, Scaler};
use crate::scale::Mode;
use crate::types::format_duration;

/// The rules that need no numbers.
const COMMON: &str = include_str!("../../../conf/prometheus/tidegate-scaler.rules.yml");

/// `tidegate scaler alerts`.
pub(super) fn run(file: Option<&Path>) -> Result<ExitCode, Failure> {
    let Some(file) = usual_file(file) else {
        return Err(Failure::Usage(format!("name the configuration; there is neither {} nor {}", USUAL[0], USUAL[1])));
    };
    let outcome = config::from_disk(&file);
    let colorful = crate::cli::look::colorful();
    let refused = || Failure::Configuration(config::render(&outcome.problems, colorful));
    let config = outcome.config.as_ref().ok_or_else(refused)?;
    print(rules(config).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// All rules as YAML: the common ones, and those with the configuration's numbers.
fn rules(config: &Config) -> String {
    let mut out = COMMON.to_owned();
    let pools: Vec<(&String, &Scaler)> =
        config.pool.iter().filter_map(|(name, pool)| Some((name, pool.scaler.as_ref()?))).collect();
    let used = || pools.iter().filter(|(_, scaler)| scaler.mode != Mode::Off);
    if used().next().is_some() {
        out += "\n  # With the numbers of this configuration.\n  - name: tidegate-scaler-pools\n    rules:\n";
    }
    for (name, scaler) in used() {
        for alert in alerts(name, scaler, config) {
            out += &alert;
        }
    }
    out
}

struct Alert<'a> {
    name: &'a str,
    expr: String,
    lasting: &'a str,
    severity: &'a str,
    summary: String,
    description: String,
}

fn alerts(pool: &str, scaler: &Scaler, config: &Config) -> Vec<String> {
    let label = format!("pool={}", quoted(pool));
    let wait = scaler.slo.wait.as_secs_f64();
    // Without the tail that 1 - 0.995 has in binary.
    let lost = ((1.0 - scaler.slo.target.0) * 1e6).round() / 1e6;
    let notify = &config.scaler.notify;
    let mut found = vec![
        Alert {
            name: "TidegateScalerWaitAboveSlo",
            expr: format!("max(max_over_time(tidegate_pool_queue_oldest_wait_seconds{{{label}}}[1m])) > {wait}"),
            lasting: "5m",
            severity: "critical",
            summary: format!(
                "Requests wait in pool {pool} longer than they may ({})",
                format_duration(scaler.slo.wait)
            ),
            description: format!("See `tidegate scaler explain {pool} --why-not`."),
        },
        Alert {
            name: "TidegateScalerRefuses",
            expr: format!(
                "sum(rate(tidegate_pool_queue_requests_total{{{label},result=~\"full|timeout|unfit\"}}[5m])) / \
                 (sum(rate(tidegate_upstream_requests_total{{{label}}}[5m])) + sum(rate(tidegate_pool_queue_requests_total{{{label},result=~\"full|timeout|unfit\"}}[5m]))) > {lost}"
            ),
            lasting: "5m",
            severity: "critical",
            summary: format!("Pool {pool} refuses more than {} % of its requests for want of room", percent(lost)),
            description: "Raise `max`, or the queue's `size` and `timeout`.".to_owned(),
        },
        Alert {
            name: "TidegateScalerFlapping",
            expr: format!("sum(increase(tidegate_scaler_reversals_total{{{label}}}[10m])) >= {}", notify.flapping),
            lasting: "0s",
            severity: "warning",
            summary: format!("Pool {pool} grows and shrinks again and again"),
            description: "Take `profile = \"calm\"`, or a longer `hold`.".to_owned(),
        },
        Alert {
            name: "TidegateScalerLargeChange",
            expr: format!(
                "abs(max(tidegate_scaler_desired{{{label}}}) - max(tidegate_scaler_desired{{{label}}} offset 1m)) >= {}",
                notify.large_change
            ),
            lasting: "0s",
            severity: "info",
            summary: format!("Pool {pool} changed by {{{{ $value }}}} instances within a minute"),
            description: format!("See `tidegate scaler history {pool}`."),
        },
        Alert {
            name: "TidegateScalerNearMax",
            expr: format!("max(tidegate_scaler_desired{{{label}}}) >= {}", near(scaler.max)),
            lasting: "30m",
            severity: "info",
            summary: format!("Pool {pool} has been near its maximum of {} for half an hour", scaler.max),
            description: format!("See `tidegate scaler plan growth {pool}`."),
        },
    ];
    let cost = config.scaler.cost.instance_hour;
    if cost > 0.0 {
        let (hours, currency) = (24.0 * f64::from(scaler.max) * 0.8, &config.scaler.cost.currency);
        found.push(Alert {
            name: "TidegateScalerCost",
            expr: format!("sum(increase(tidegate_scaler_instance_seconds_total{{{label}}}[1d])) / 3600 > {hours}"),
            lasting: "1h",
            severity: "info",
            summary: format!("Pool {pool} ran at more than 80 % of its maximum for a day"),
            description: format!(
                "That is more than {:.2} {currency} a day. See `tidegate scaler plan cost {pool}`.",
                hours * cost
            ),
        });
    }
    found.iter().map(Alert::yaml).collect()
}

/// Nine tenths of the maximum, and never less than one below it where that is more.
fn near(max: u32) -> u32 {
    (f64::from(max) * 0.9).ceil() as u32
}

fn percent(share: f64) -> String {
    crate::cli::status::number(share * 100.0)
}

/// A string of PromQL and of YAML: JSON's rules are part of both.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl Alert<'_> {
    fn yaml(&self) -> String {
        let mut out = String::new();
        _ = writeln!(out, "      - alert: {}", self.name);
        _ = writeln!(out, "        expr: {}", quoted(&self.expr));
        _ = writeln!(out, "        for: {}", self.lasting);
        _ = writeln!(out, "        labels: {{ severity: {} }}", self.severity);
        _ = writeln!(out, "        annotations:");
        _ = writeln!(out, "          summary: {}", quoted(&self.summary));
        _ = writeln!(out, "          description: {}", quoted(&self.description));
        out
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::metrics;
    use super::*;
    use crate::config::{Memory, read_text};

    fn parsed(text: &str) -> Vec<Value> {
        let document: Value = serde_saphyr::from_str(text).unwrap();
        let groups = document["groups"].as_array().unwrap().clone();
        groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
    }

    fn config(text: &str) -> std::sync::Arc<Config> {
        let outcome = read_text("t.toml", text, &Memory::default());
        outcome.config.unwrap_or_else(|| panic!("{}", config::render(&outcome.problems, false)))
    }

    const TEXT: &str = r#"
[listener.web]
bind = "127.0.0.1:0"
[[route]]
pool = "mcp \"x\""
[pool."mcp \"x\"".scaler]
max = 20
slo = { wait = "100ms", target = "99.5%" }
process = { command = ["app", "{port}"] }
[pool.plain]
upstreams = ["127.0.0.1:1"]
[scaler]
notify = { flapping = 7 }
cost = { instance_hour = 0.5 }
"#;

    #[test]
    fn rules_are_yaml_with_the_configuration_s_numbers() {
        let rules = parsed(&rules(&config(TEXT)));
        let expr = |name: &str| {
            let rule = rules.iter().find(|rule| rule["alert"] == name).unwrap_or_else(|| panic!("{name}"));
            rule["expr"].as_str().unwrap().to_owned()
        };
        assert_eq!(
            expr("TidegateScalerWaitAboveSlo"),
            r#"max(max_over_time(tidegate_pool_queue_oldest_wait_seconds{pool="mcp \"x\""}[1m])) > 0.1"#
        );
        assert!(expr("TidegateScalerFlapping").ends_with(">= 7"));
        assert!(expr("TidegateScalerNearMax").ends_with(">= 18"));
        assert!(expr("TidegateScalerCost").ends_with("> 384"));
        assert_eq!(
            rules.iter().filter(|rule| rule["alert"] == "TidegateScalerRefuses").count(),
            1,
            "only pools with a scaler"
        );
    }

    #[test]
    fn every_rule_is_whole_and_asks_for_metrics_that_there_are() {
        let text = rules(&config(TEXT));
        for rule in parsed(&text) {
            let name = rule["alert"].as_str().or(rule["record"].as_str()).unwrap().to_owned();
            let expr = rule["expr"].as_str().unwrap_or_else(|| panic!("{name}"));
            assert_eq!(metrics::strange(expr), [""; 0], "{name}");
            let (open, close) = (expr.matches(['(', '{', '[']).count(), expr.matches([')', '}', ']']).count());
            assert_eq!(open, close, "{name}: {expr}");
            if rule["alert"].is_string() {
                assert!(rule["labels"]["severity"].is_string() && rule["annotations"]["summary"].is_string(), "{name}");
            }
        }
    }

    #[test]
    fn without_scalers_only_the_common_rules_are_there() {
        let none = "[listener.web]\nbind = \"127.0.0.1:0\"\n[[route]]\nrespond = 204\n";
        assert_eq!(rules(&config(none)), COMMON);
    }
}
