use std::fmt::Write;

use super::explain::percent;
use super::status::{seconds, short};
use super::times::{Times, utc};
use crate::admin::scaling::{History, Outcome, Record};
use crate::cli::status::table;

/// Records of one or several pools in the order of time, as a table.
pub(super) fn render(histories: &[History], effect: bool, times: &Times) -> String {
    let records = in_order(histories);
    if records.is_empty() {
        return "nothing was changed in this time (--all shows what was decided, --since looks further back)\n"
            .to_owned();
    }
    let mut out = String::new();
    if effect {
        effects(&mut out, &records, times);
    } else {
        plain(&mut out, &records, times);
    }
    if histories.iter().any(|history| history.more) {
        out.push_str("there is more: ask for a shorter time with --since\n");
    }
    out
}

fn in_order(histories: &[History]) -> Vec<&Record> {
    let mut records: Vec<&Record> = histories.iter().flat_map(|history| &history.records).collect();
    records.sort_by(|a, b| a.decision.at.total_cmp(&b.decision.at));
    records
}

fn plain(out: &mut String, records: &[&Record], times: &Times) {
    let heads = ["TIME", "POOL", "FROM", "TO", "WANTED", "LOAD", "WHY", "LIMITED BY", "DONE", "DECISION"];
    let mut rows = vec![heads.map(str::to_owned)];
    rows.extend(records.iter().map(|record| {
        let decision = &record.decision;
        let limits: Vec<&str> = decision.limits.iter().map(|limit| limit.name.as_str()).collect();
        [
            times.clock(decision.at),
            record.pool.clone(),
            decision.current.to_string(),
            decision.desired.to_string(),
            decision.wanted.to_string(),
            short(decision.terms.level),
            decision.reason.clone(),
            if limits.is_empty() { "-".to_owned() } else { limits.join(",") },
            done(record).to_owned(),
            record.id.clone(),
        ]
    }));
    table(out, "", ['<', '<', '>', '>', '>', '>', '<', '<', '<', '<'], &rows);
}

fn done(record: &Record) -> &'static str {
    let rolled_back = record.outcome.as_ref().is_some_and(|outcome| outcome.rolled_back);
    match (record.decision.apply, record.decision.current == record.decision.desired) {
        (_, true) => "-",
        (false, false) => "told",
        (true, false) if rolled_back => "taken back",
        (true, false) => "yes",
    }
}

fn effects(out: &mut String, records: &[&Record], times: &Times) {
    let heads = ["TIME", "POOL", "FROM", "TO", "WHY", "READY AFTER", "WAIT", "P95", "ERRORS", "VERDICT"];
    let mut rows = vec![heads.map(str::to_owned)];
    let dash = || "-".to_owned();
    rows.extend(records.iter().map(|record| {
        let decision = &record.decision;
        let known = record.outcome.as_ref();
        let pair = |show: fn(f64) -> String, pick: fn(&Outcome) -> (f64, f64)| {
            known.map_or_else(dash, |outcome| format!("{} -> {}", show(pick(outcome).0), show(pick(outcome).1)))
        };
        let p95 = known.and_then(|outcome| outcome.p95.0.zip(outcome.p95.1));
        [
            times.clock(decision.at),
            record.pool.clone(),
            decision.current.to_string(),
            decision.desired.to_string(),
            decision.reason.clone(),
            known.and_then(|outcome| outcome.ready_after).map_or_else(dash, seconds),
            pair(seconds, |outcome| outcome.wait),
            p95.map_or_else(dash, |(before, after)| format!("{} -> {}", seconds(before), seconds(after))),
            pair(percent, |outcome| outcome.errors),
            known.map_or_else(dash, verdict),
        ]
    }));
    table(out, "", ['<', '<', '>', '>', '<', '>', '>', '>', '>', '<'], &rows);
}

pub(super) fn verdict(outcome: &Outcome) -> String {
    let back = if outcome.rolled_back { ", taken back" } else { "" };
    format!("{}{back}", outcome.verdict)
}

const COLUMNS: &str = "time,pool,id,from,to,raw,wanted,applied,reason,limits,load_erlangs,forecast_erlangs,slots,\
capacity,lead_seconds,hold_seconds,ready_after_seconds,wait_before_seconds,wait_after_seconds,p95_before_seconds,\
p95_after_seconds,errors_before,errors_after,verdict,rolled_back";

/// The same as comma-separated values (RFC 4180, but for line ends), one line a record.
pub(super) fn csv(histories: &[History]) -> String {
    let mut out = format!("{COLUMNS}\n");
    for record in in_order(histories) {
        let (decision, terms) = (&record.decision, &record.decision.terms);
        let known = record.outcome.as_ref();
        let some = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
        let limits: Vec<&str> = decision.limits.iter().map(|limit| limit.name.as_str()).collect();
        let cells = [
            utc(decision.at),
            field(&record.pool),
            field(&record.id),
            decision.current.to_string(),
            decision.desired.to_string(),
            decision.raw.to_string(),
            decision.wanted.to_string(),
            decision.apply.to_string(),
            field(&decision.reason),
            field(&limits.join(" ")),
            terms.level.to_string(),
            terms.forecast.to_string(),
            terms.slots.to_string(),
            terms.capacity.to_string(),
            terms.lead.to_string(),
            terms.hold.to_string(),
            some(known.and_then(|outcome| outcome.ready_after)),
            some(known.map(|outcome| outcome.wait.0)),
            some(known.map(|outcome| outcome.wait.1)),
            some(known.and_then(|outcome| outcome.p95.0)),
            some(known.and_then(|outcome| outcome.p95.1)),
            some(known.map(|outcome| outcome.errors.0)),
            some(known.map(|outcome| outcome.errors.1)),
            known.map(|outcome| field(&outcome.verdict)).unwrap_or_default(),
            known.is_some_and(|outcome| outcome.rolled_back).to_string(),
        ];
        _ = writeln!(out, "{}", cells.join(","));
    }
    out
}

/// A text as a field. What a spreadsheet would take for a formula is made a text.
fn field(text: &str) -> String {
    let text = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{record, smaller};
    use super::super::times::tests::berlin;
    use super::*;

    fn histories() -> Vec<History> {
        let mut other = record();
        (other.pool, other.decision.apply, other.decision.at) = ("api".to_owned(), false, record().decision.at + 5.0);
        let history = |pool: &str, records| History { pool: pool.to_owned(), records, more: false };
        vec![history("mcp", vec![smaller(), record()]), history("api", vec![other])]
    }

    #[test]
    fn records_of_all_pools_stand_in_the_order_of_time() {
        let expected = "\
TIME      POOL  FROM  TO  WANTED  LOAD  WHY    LIMITED BY       DONE  DECISION
12:00:00  mcp      9   7       6  21.3  level  behavior,budget  yes   01JXB
12:59:48  mcp      7   9       9  21.3  trend  -                yes   01JXA
12:59:53  api      7   9       9  21.3  trend  -                told  01JXA
";
        assert_eq!(render(&histories(), false, &berlin()), expected);
    }

    #[test]
    fn effects_stand_before_and_after() {
        let mut histories = histories();
        histories[1].more = true;
        let worse = Outcome {
            wait: (0.0, 2.0),
            errors: (0.001, 0.25),
            verdict: "errors of new instances".to_owned(),
            rolled_back: true,
            ..Outcome::default()
        };
        histories[0].records[0].outcome = Some(worse);
        let expected = "\
TIME      POOL  FROM  TO  WHY    READY AFTER          WAIT             P95         ERRORS  VERDICT
12:00:00  mcp      9   7  level            -      0s -> 2s               -  0.1 % -> 25 %  errors of new instances, taken back
12:59:48  mcp      7   9  trend         2.2s  180ms -> 4ms  420ms -> 400ms         0 -> 0  verified
12:59:53  api      7   9  trend         2.2s  180ms -> 4ms  420ms -> 400ms         0 -> 0  verified
there is more: ask for a shorter time with --since
";
        assert_eq!(render(&histories, true, &berlin()), expected);
        assert!(render(&histories, false, &berlin()).contains("taken back"));
    }

    #[test]
    fn nothing_is_told_as_nothing() {
        assert!(render(&[], false, &berlin()).starts_with("nothing was changed"));
        assert_eq!(csv(&[]).lines().count(), 1);
    }

    #[test]
    fn csv_has_as_many_fields_in_each_line_and_no_formulas() {
        let mut histories = histories();
        histories[0].records[0].decision.reason = "policy:a \"b\"".to_owned();
        histories[0].records[1].decision.reason = "=HYPERLINK(1)".to_owned();
        let text = csv(&histories);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(
            lines[1].starts_with("2026-11-26T11:00:00Z,mcp,01JXB,9,7,6,6,true,\"policy:a \"\"b\"\"\","),
            "{}",
            lines[1]
        );
        assert!(lines[2].contains(",'=HYPERLINK(1),"), "{}", lines[2]);
        assert!(lines[2].ends_with(",2.2,0.18,0.004,0.42,0.4,0,0,verified,false"), "{}", lines[2]);
        let fields = |line: &str| line.matches(',').count();
        assert!(lines.iter().all(|line| fields(line) == fields(lines[0])), "{text}");
    }
}
