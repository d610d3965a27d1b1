//! Policies as `scale_up_triggers`, `scale_down_triggers` and `scaling_limits`.

use std::time::Duration;

use serde_json::Value;

use super::draft::{Draft, Header};
use super::plain;
use crate::scale::{Amount, Paces};
use crate::types::{format_duration, parse_duration};

const UP: &str = "scale_up_triggers";
const DOWN: &str = "scale_down_triggers";
const LIMITS: &str = "scaling_limits";

/// Every object with triggers or limits, with the key it stands under.
pub(super) fn find(document: &Value) -> Vec<(Option<&str>, &Value)> {
    fn visit<'a>(name: Option<&'a str>, value: &'a Value, found: &mut Vec<(Option<&'a str>, &'a Value)>) {
        let Some(object) = value.as_object() else { return };
        if [UP, DOWN, LIMITS].iter().any(|key| object.contains_key(*key)) {
            return found.push((name, value));
        }
        object.iter().for_each(|(key, value)| visit(Some(key), value, found));
    }
    let mut found = Vec::new();
    visit(None, document, &mut found);
    found
}

/// Makes a scaler of one of them.
pub(super) fn draft(policies: &Value, pool: &str) -> Draft {
    let mut draft = Draft::new(pool, format!("a policy with `{UP}`, `{DOWN}` and `{LIMITS}`"));
    draft.note("mode is \"dry_run\" and `process` a guess, because nothing says how instances are made: mend it, then say mode = \"on\"");
    let limits = Limits::read(&policies[LIMITS], &mut draft);
    let mut table = draft.table(Header::Scaler);
    table.set("mode", "dry_run");
    match limits.min {
        Some(min) => table.set("min", min),
        None => table.aside("min = 1"),
    };
    match limits.max {
        Some(max) => table.set("max", max),
        None => table.aside("max = 10"),
    };
    draft.note(
        "the triggers became threshold policies: Tidegate also goes by the load itself, and the largest wish counts",
    );
    let mut names = Vec::new();
    for (key, up) in [(UP, true), (DOWN, false)] {
        for trigger in policies[key].as_array().into_iter().flatten() {
            self::trigger(&mut draft, trigger, up, &limits, &mut names);
        }
        if !policies[key].is_array() && !policies[key].is_null() {
            draft.warn(format!("{key} = {}: expected a list", policies[key]));
        }
    }
    for (key, rate) in [("behavior.scale_up", &limits.up), ("behavior.scale_down", &limits.down)] {
        if let Some(rate) = rate {
            let paces: Vec<String> = rate.0.iter().map(ToString::to_string).collect();
            draft.table(Header::Table(key)).set("policies", paces);
        }
    }
    let command = ["./app", "--port", "{port}"].map(str::to_owned).to_vec();
    draft.table(Header::Table("process")).set("command", command);
    for (key, value) in policies.as_object().into_iter().flatten() {
        if ![UP, DOWN, LIMITS].contains(&key.as_str()) {
            draft.warn(format!("{key} = {value}"));
        }
    }
    draft
}

/// How many there may be, and how fast.
#[derive(Default)]
struct Limits {
    min: Option<u64>,
    max: Option<u64>,
    up: Option<Paces>,
    down: Option<Paces>,
    /// The rests after growing and after shrinking.
    cooldown: [Option<Duration>; 2],
}

impl Limits {
    fn read(limits: &Value, draft: &mut Draft) -> Limits {
        let mut found = Limits::default();
        for (key, value) in limits.as_object().into_iter().flatten() {
            let name = key.to_ascii_lowercase();
            let understood = match name.as_str() {
                "min" | "min_instances" | "min_replicas" | "minreplicas" | "min_pods" | "min_servers" => {
                    found.min = value.as_u64();
                    found.min.is_some()
                }
                "max" | "max_instances" | "max_replicas" | "maxreplicas" | "max_pods" | "max_servers" => {
                    found.max = value.as_u64();
                    found.max.is_some()
                }
                "scale_up_rate" | "scale_up_limit" => {
                    found.up = value.as_str().and_then(|text| text.parse().ok());
                    found.up.is_some()
                }
                "scale_down_rate" | "scale_down_limit" => {
                    found.down = value.as_str().and_then(|text| text.parse().ok());
                    found.down.is_some()
                }
                _ if name.contains("cooldown") => {
                    let rest = span(value, if name.ends_with("minutes") { 60.0 } else { 1.0 });
                    let [up, down] = [!name.contains("down_"), !name.contains("up_")];
                    let [up, down] = [up || name.starts_with("cooldown"), down || name.starts_with("cooldown")];
                    found.cooldown =
                        [if up { rest } else { found.cooldown[0] }, if down { rest } else { found.cooldown[1] }];
                    rest.is_some()
                }
                _ => false,
            };
            if !understood {
                draft.warn(format!("{LIMITS}.{key} = {value}"));
            }
        }
        found
    }

    /// What a trigger does: what the rate allows, or one.
    fn adjust(&self, up: bool) -> String {
        let rate = if up { &self.up } else { &self.down };
        let sign = if up { '+' } else { '-' };
        match rate.iter().flat_map(|rate| &rate.0).map(|pace| pace.amount).next() {
            Some(Amount::Percent(percent)) => format!("{sign}{percent}%"),
            Some(Amount::Count(count)) => format!("{sign}{count}"),
            None => format!("{sign}1"),
        }
    }

    /// How long a trigger rests: the period of its rate.
    fn rest(&self, up: bool) -> Option<Duration> {
        let rate = if up { &self.up } else { &self.down };
        let period = rate.iter().flat_map(|rate| &rate.0).map(|pace| Duration::from_secs_f64(pace.period)).next();
        self.cooldown[usize::from(!up)].or(period)
    }
}

fn trigger(draft: &mut Draft, trigger: &Value, up: bool, limits: &Limits, names: &mut Vec<String>) {
    let word = if up { "up" } else { "down" };
    let Some(theirs) = trigger["metric"].as_str().or(trigger["name"].as_str()) else {
        return draft.warn(format!("the trigger {trigger} names no metric"));
    };
    let Some((ours, kind)) = metric(theirs) else {
        let why = "Tidegate does not see it; make it an external signal and a policy of it";
        return draft.warn(format!("the trigger {trigger}: {why}"));
    };
    let Some(threshold) = threshold(&trigger["threshold"], kind, theirs, draft) else {
        return draft.warn(format!("the trigger {trigger}: its threshold can not be read"));
    };
    let sign = match trigger["operator"].as_str().or(trigger["comparison"].as_str()) {
        Some(">" | "gt" | "greater_than" | "above") => ">",
        Some(">=" | "gte" | "ge") => ">=",
        Some("<" | "lt" | "less_than" | "below") => "<",
        Some("<=" | "lte" | "le") => "<=",
        Some(other) => return draft.warn(format!("the trigger {trigger}: nobody knows the operator {other:?}")),
        None if up => ">",
        None => "<",
    };
    if matches!(ours, "rps" | "connections" | "in_flight" | "queue_depth" | "sessions") {
        draft.note(format!(
            "`{ours}` is of the whole pool; for a threshold of each instance make it a signal with a target"
        ));
    }
    if ours == "latency_p95" && !theirs.contains("95") {
        draft.note(format!("{theirs} became the 95th percentile of the time to an answer"));
    }
    let mut name = format!("{ours}_{word}");
    let mut count = 1;
    while names.contains(&name) {
        count += 1;
        name = format!("{ours}_{word}_{count}");
    }
    names.push(name.clone());
    let lasting =
        [&trigger["duration"], &trigger["for"], &trigger["period"]].into_iter().find(|value| !value.is_null());
    let lasting = match lasting.map(|value| span(value, 1.0)) {
        Some(None) => {
            draft.warn(format!("the trigger {trigger}: its duration can not be read, it acts at once"));
            None
        }
        other => other.flatten(),
    };
    for (key, value) in trigger.as_object().into_iter().flatten() {
        let known = ["metric", "name", "threshold", "operator", "comparison", "duration", "for", "period"];
        if !known.contains(&key.as_str()) {
            draft.warn(format!("{key} = {value} of the trigger of {theirs}"));
        }
    }
    let mut table = draft.table(Header::Item("policy"));
    table.comment(format!("{theirs} {sign} {}", trigger["threshold"]));
    table.set("name", name).set("when", format!("{ours} {sign} {threshold}"));
    if let Some(lasting) = lasting {
        table.set("for", format_duration(lasting));
    }
    table.set("adjust", limits.adjust(up));
    if let Some(rest) = limits.rest(up) {
        table.set("cooldown", format_duration(rest));
    }
}

/// What a threshold is measured in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Share,
    Time,
    Number,
}

/// Our name of a metric.
fn metric(theirs: &str) -> Option<(&'static str, Kind)> {
    let name = theirs.to_ascii_lowercase().replace(['-', '.', ' '], "_");
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    let found = if has(&["pool_util", "pool_usage", "connection_pool"]) {
        ("pool_utilisation", Kind::Share)
    } else if has(&["cpu"]) {
        ("cpu", Kind::Share)
    } else if has(&["memory", "mem_"]) || name == "mem" {
        ("memory", Kind::Share)
    } else if has(&["error"]) {
        ("errors", Kind::Share)
    } else if has(&["queue_wait", "queue_time", "wait_time"]) {
        ("queue_wait", Kind::Time)
    } else if has(&["queue", "pending_requests", "backlog"]) {
        ("queue_depth", Kind::Number)
    } else if has(&["response_time", "latency", "duration"]) {
        ("latency_p95", Kind::Time)
    } else if has(&["request_rate", "requests_per", "rps", "throughput"]) {
        ("rps", Kind::Number)
    } else if has(&["concurrent_requests", "in_flight", "inflight", "active_requests"]) {
        ("in_flight", Kind::Number)
    } else if has(&["connections"]) {
        ("connections", Kind::Number)
    } else if has(&["sessions", "active_users", "concurrent_users"]) {
        ("sessions", Kind::Number)
    } else {
        return None;
    };
    Some(found)
}

/// A threshold as our conditions have it.
fn threshold(value: &Value, kind: Kind, theirs: &str, draft: &mut Draft) -> Option<String> {
    let text = value.as_str().map(str::trim);
    let number = value.as_f64().or_else(|| text?.parse().ok()).filter(|number| *number >= 0.0);
    match kind {
        Kind::Share => {
            let percent = match (number, text) {
                // 0.8 is a share, 80 are percent.
                (Some(number), _) if number < 1.0 => number * 100.0,
                (Some(number), _) => number,
                (None, text) => text?.strip_suffix('%')?.trim().parse().ok()?,
            };
            (0.0..=100.0).contains(&percent).then(|| crate::types::Share(percent / 100.0).to_string())
        }
        Kind::Time => match (number, text) {
            (Some(number), _) => {
                let milliseconds = theirs.ends_with("_ms") || number >= 20.0;
                let unit = if milliseconds { "ms" } else { "s" };
                draft.note(format!("the threshold {} of {theirs} was taken for {unit}", plain(number)));
                Some(format!("{}{unit}", plain(number)))
            }
            (None, text) => parse_duration(&words_to_unit(text?)).ok().map(format_duration),
        },
        Kind::Number => {
            let number = number.or_else(|| text?.trim_end_matches("/s").trim().parse().ok())?;
            Some(plain(number))
        }
    }
}

/// A span such as `"5m"`, `"5 minutes"` or a number in the given unit.
fn span(value: &Value, unit: f64) -> Option<Duration> {
    match value.as_f64() {
        Some(number) => Duration::try_from_secs_f64(number * unit).ok(),
        None => parse_duration(&words_to_unit(value.as_str()?)).ok(),
    }
}

fn words_to_unit(text: &str) -> String {
    let text = text.trim().to_ascii_lowercase().replace(' ', "");
    let units =
        [("milliseconds", "ms"), ("seconds", "s"), ("second", "s"), ("secs", "s"), ("minutes", "m"), ("minute", "m")];
    let text = units.iter().fold(text, |text, (word, unit)| text.replace(word, unit));
    [("mins", "m"), ("hours", "h"), ("hour", "h"), ("days", "d"), ("day", "d")]
        .iter()
        .fold(text, |text, (word, unit)| text.replace(word, unit))
}
