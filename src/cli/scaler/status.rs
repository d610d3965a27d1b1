use std::fmt::Write;

use super::times::Times;
use crate::admin::scaling::{Finding, InstanceStatus, PoolScaler, Record, ScalerStatus};
use crate::cli::status::{number, span, table};

/// All scalers, or one and its instances, for a person to read.
pub(super) fn render(status: &ScalerStatus, pool: Option<&str>, times: &Times) -> String {
    let mut out = String::new();
    leadership(&mut out, status);
    let shown: Vec<&PoolScaler> =
        status.pools.iter().filter(|known| pool.is_none_or(|name| name == known.pool)).collect();
    if shown.is_empty() {
        out.push_str("no pool has a scaler: give one a section [pool.NAME.scaler]\n");
        return out;
    }
    pools(&mut out, &shown, times);
    if pool.is_some() {
        for shown in &shown {
            instances(&mut out, shown);
        }
    }
    let found: Vec<&Finding> = shown.iter().flat_map(|pool| &pool.conditions).collect();
    out.push('\n');
    if found.is_empty() {
        out.push_str("conditions: none\n");
    } else {
        out.push_str(&findings(&found));
    }
    out
}

fn leadership(out: &mut String, status: &ScalerStatus) {
    if matches!(status.leadership.as_str(), "" | "none") && status.peers.is_empty() {
        return;
    }
    let leader = status.leader.as_deref().map(|leader| format!(", led by {leader}")).unwrap_or_default();
    _ = writeln!(out, "{}{leader}, generation {}", status.leadership, status.generation);
    for (peer, heard) in &status.peers {
        let heard = heard.map_or("never heard of".to_owned(), |ago| format!("heard of {} ago", span(ago)));
        _ = writeln!(out, "  peer {peer}: {heard}");
    }
    out.push('\n');
}

const HEADS: [&str; 13] = [
    "POOL",
    "MODE",
    "READY",
    "START",
    "DRAIN",
    "DESIRED",
    "MIN/MAX",
    "LOAD",
    "CAP/INST",
    "UTIL",
    "QUEUE",
    "LEAD",
    "LAST CHANGE",
];

fn pools(out: &mut String, pools: &[&PoolScaler], times: &Times) {
    let mut rows = vec![HEADS.map(str::to_owned)];
    rows.extend(pools.iter().map(|pool| row(pool, times)));
    table(out, "", ['<', '<', '>', '>', '>', '>', '>', '>', '>', '>', '>', '>', '<'], &rows);
    let mut notes = Vec::new();
    if pools.iter().any(|pool| last(pool).is_some_and(|record| record.decision.terms.learned)) {
        notes.push("* learned");
    }
    if pools.iter().any(|pool| !applies(pool)) {
        notes.push("! told, not done (mode)");
    }
    if !notes.is_empty() {
        _ = writeln!(out, "{}", notes.join("   "));
    }
    for pool in pools {
        let mut line = String::new();
        if let Some(left) = pool.paused {
            _ = write!(line, " paused for another {};", span(left));
        }
        if let Some((to, left)) = pool.set {
            _ = write!(line, " set to {to} for another {};", span(left));
        }
        for (state, count) in pool.counts.iter().filter(|(state, count)| !is_usual(state) && **count > 0) {
            _ = write!(line, " {count} {state};");
        }
        if !line.is_empty() {
            _ = writeln!(out, "{}:{}", pool.pool, line.trim_end_matches(';'));
        }
    }
}

fn last(pool: &PoolScaler) -> Option<&Record> {
    pool.last.as_ref()
}

fn applies(pool: &PoolScaler) -> bool {
    matches!(pool.mode.as_str(), "on" | "up_only")
}

/// States that have a column of their own.
fn is_usual(state: &str) -> bool {
    ["ready", "warming", "requested", "starting", "probing", "draining", "stopping"].contains(&state)
}

/// So many are in any of these states.
pub(super) fn count(pool: &PoolScaler, states: &[&str]) -> u32 {
    states.iter().filter_map(|state| pool.counts.get(*state)).sum()
}

fn row(pool: &PoolScaler, times: &Times) -> [String; 13] {
    let dash = || "-".to_owned();
    let terms = last(pool).map(|record| &record.decision.terms);
    let ready = count(pool, &["ready", "warming"]);
    let capacity = terms.map_or(0.0, |terms| terms.capacity);
    let slots = f64::from(ready) * capacity;
    let learned = if terms.is_some_and(|terms| terms.learned) { "*" } else { "" };
    [
        pool.pool.clone(),
        pool.mode.clone(),
        ready.to_string(),
        count(pool, &["requested", "starting", "probing"]).to_string(),
        count(pool, &["draining", "stopping"]).to_string(),
        format!("{}{}", pool.desired, if applies(pool) { "" } else { "!" }),
        format!("{}/{}", pool.min, pool.max),
        terms.map_or_else(dash, |terms| short(terms.level)),
        if capacity > 0.0 { format!("{}{learned}", short(capacity)) } else { dash() },
        if slots > 0.0 { format!("{:.0}%", pool.seen.in_flight / slots * 100.0) } else { dash() },
        short(pool.seen.queue),
        terms.filter(|terms| terms.lead > 0.0).map_or_else(dash, |terms| seconds(terms.lead)),
        pool.last_change.as_ref().map_or_else(dash, |record| change(record, times)),
    ]
}

/// `+2 12s ago (trend)`.
fn change(record: &Record, times: &Times) -> String {
    let decision = &record.decision;
    let step = i64::from(decision.desired) - i64::from(decision.current);
    format!("{step:+} {} ago ({})", span(times.now - decision.at), decision.reason)
}

fn instances(out: &mut String, pool: &PoolScaler) {
    out.push('\n');
    let heads = ["INSTANCE", "ADDRESS", "STATE", "SINCE", "AGE", "IN FLIGHT", "SESSIONS", "CPUS", "MEMORY", "DETAIL"];
    let mut rows = vec![heads.map(str::to_owned)];
    rows.extend(pool.instances.iter().map(instance));
    table(out, "", ['<', '<', '<', '>', '>', '>', '>', '>', '>', '<'], &rows);
    if pool.instances.is_empty() {
        out.push_str("no instances\n");
    }
}

fn instance(instance: &InstanceStatus) -> [String; 10] {
    let mut detail = Vec::new();
    if !instance.detail.is_empty() {
        detail.push(instance.detail.clone());
    }
    if instance.cordoned {
        detail.push("gets no new work, will leave soon".to_owned());
    }
    if instance.outdated {
        detail.push("an older build".to_owned());
    }
    if instance.attempts > 0 {
        detail.push(format!("{} failed starts in a row", instance.attempts));
    }
    [
        instance.id.clone(),
        instance.address.clone().unwrap_or_else(|| "-".to_owned()),
        instance.state.clone(),
        span(instance.since_seconds),
        span(instance.age_seconds),
        instance.in_flight.to_string(),
        instance.sessions.to_string(),
        instance.cpus.map_or_else(|| "-".to_owned(), number),
        instance.memory.map_or_else(|| "-".to_owned(), bytes),
        detail.join(", "),
    ]
}

/// Findings, the worst first, each with what to do about it.
pub(super) fn findings(found: &[&Finding]) -> String {
    let mut sorted = found.to_vec();
    sorted.sort_by_key(|finding| rank(&finding.severity));
    let mut out = String::new();
    for finding in sorted {
        let pool = finding.pool.as_deref().map(|pool| format!(" {pool}:")).unwrap_or_default();
        _ = writeln!(out, "{:<8} {}{pool} {}", finding.severity, finding.code, finding.text);
        if !finding.advice.is_empty() {
            _ = writeln!(out, "         -> {}", finding.advice);
        }
    }
    out
}

/// 0 is worst.
pub(super) fn rank(severity: &str) -> usize {
    ["critical", "warning", "info"].iter().position(|known| *known == severity).unwrap_or(3)
}

/// Three digits or so that matter: `21.3`, `1234`, `0.25`.
pub(super) fn short(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    if value.abs() >= 100.0 || value == 0.0 {
        return format!("{value:.0}");
    }
    if value.abs() >= 10.0 { trimmed(format!("{value:.1}")) } else { number(value) }
}

fn trimmed(text: String) -> String {
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

/// `2.1s`, `450ms`, `3m 5s`.
pub(super) fn seconds(seconds: f64) -> String {
    match seconds {
        s if !s.is_finite() => "-".to_owned(),
        0.0 => "0s".to_owned(),
        s if s < 0.0 => format!("-{}", self::seconds(-s)),
        s if s < 0.001 => format!("{}ms", number(s * 1e3)),
        s if s < 1.0 => format!("{:.0}ms", s * 1e3),
        s if s < 10.0 => format!("{}s", number(s)),
        s if s < 60.0 => format!("{}s", trimmed(format!("{s:.1}"))),
        s => span(s),
    }
}

/// `45 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    let value = bytes as f64;
    let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{} {name}", short(value / unit as f64)),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{dry, mcp, status};
    use super::super::times::tests::berlin;
    use super::*;

    #[test]
    fn a_status_is_a_table_and_what_needs_attention() {
        let expected = "\
POOL  MODE     READY  START  DRAIN  DESIRED  MIN/MAX  LOAD  CAP/INST  UTIL  QUEUE  LEAD  LAST CHANGE
mcp   on           7      2      1        9     2/20  21.3        4*   86%      0  2.1s  +2 12s ago (trend)
api   dry_run      4      0      0       3!     2/10     -         -     -      0     -  -
* learned   ! told, not done (mode)
mcp: 1 backoff
api: paused for another 10m 0s; set to 3 for another 1h 0m

critical START_FAILURES mcp: 3 starts failed within 5 min: exit code 3
         -> look at its output: `journalctl -u tidegate`
info     DRY_RUN api: 3 are wanted, 4 are there
         -> set mode = \"on\" when you agree
";
        assert_eq!(render(&status(vec![mcp(), dry()]), None, &berlin()), expected);
    }

    #[test]
    fn one_pool_is_shown_with_its_instances() {
        let text = render(&status(vec![mcp(), dry()]), Some("mcp"), &berlin());
        let expected = "\
INSTANCE  ADDRESS          STATE     SINCE     AGE  IN FLIGHT  SESSIONS  CPUS  MEMORY  DETAIL
mcp-1     127.0.0.1:18100  ready     2h 0m   2h 0m          3        12  0.42  66 MiB  pid 4711
mcp-2     127.0.0.1:18101  draining    30s  1h 23m          1         1     -       -  pid 4712, gets no new work, will leave soon, an older build
";
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("api"), "{text}");
        assert!(render(&status(vec![dry()]), Some("api"), &berlin()).contains("no instances"));
    }

    #[test]
    fn without_a_scaler_or_trouble_it_says_so() {
        assert!(render(&status(Vec::new()), None, &berlin()).contains("[pool.NAME.scaler]"));
        let calm = PoolScaler { conditions: Vec::new(), ..mcp() };
        assert!(render(&status(vec![calm]), None, &berlin()).ends_with("conditions: none\n"));
    }

    #[test]
    fn several_proxies_are_told() {
        let mut shared = status(vec![mcp()]);
        shared.leadership = "follower".to_owned();
        shared.leader = Some("b".to_owned());
        shared.peers = [("a".to_owned(), Some(2.0)), ("c".to_owned(), None)].into();
        let text = render(&shared, None, &berlin());
        let head = "follower, led by b, generation 3\n  peer a: heard of 2s ago\n  peer c: never heard of\n\nPOOL";
        assert!(text.starts_with(head), "{text}");
    }

    #[test]
    fn numbers_have_the_digits_that_matter() {
        assert_eq!([0.0, 0.254, 4.0, 21.34, 1234.5, f64::NAN].map(short), ["0", "0.25", "4", "21.3", "1234", "-"]);
        assert_eq!(
            [0.0, 0.0004, 0.25, 2.1, 30.0, 185.0].map(seconds),
            ["0s", "0.4ms", "250ms", "2.1s", "30s", "3m 5s"]
        );
        assert_eq!([10, 66 << 20, 3 << 30].map(bytes), ["10 B", "66 MiB", "3 GiB"]);
    }
}
