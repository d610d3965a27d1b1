use std::fmt::Write;

use super::chart::{Chart, Form, Line, draw};
use super::{Part, Report};
use crate::admin::scaling::{Finding, Record, Sample};
use crate::cli::scaler::explain::effect;
use crate::cli::scaler::simulate::{Row, money};
use crate::cli::scaler::status::{seconds, short};
use crate::cli::scaler::times::Times;
use crate::cli::status::span;
use crate::scale::plan::{Advice, quantile, reserved_floor, usage};

const STYLE: &str = include_str!("style.css");
/// Events beyond so many are left to `history`.
const EVENTS: usize = 500;
/// Marks beyond so many in a chart say nothing any more.
const MARKS: usize = 40;

/// A text within HTML, also within an attribute.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            // What XML cannot hold at all.
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The whole page; it needs nothing from elsewhere.
pub(super) fn page(report: &Report, times: &Times) -> String {
    let names: Vec<&str> = report.pools.iter().map(|part| part.known.pool.pool.as_str()).collect();
    let title = escape(&format!("Scaling of {}", names.join(", ")));
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\
         <title>{title}</title><style>\n{STYLE}</style></head>\n<body><header><h1>{title}</h1><p>{} to {} ({})</p></header>\n<main>\n",
        escape(&times.full(report.from)),
        escape(&times.full(report.until)),
        span(report.until - report.from),
    );
    findings(&mut out, &report.findings);
    for part in &report.pools {
        if report.pools.len() > 1 {
            _ = writeln!(out, "<h2>{}</h2>", escape(&part.known.pool.pool));
        }
        pool(&mut out, report, part, times);
    }
    _ = write!(
        out,
        "</main>\n<footer>Tidegate {}. Waits, loads and instances as this proxy has recorded them; times are local.</footer></body></html>\n",
        escape(report.version)
    );
    out
}

fn pool(out: &mut String, report: &Report, part: &Part, times: &Times) {
    out.push_str("<div class=\"cards\">");
    for card in part.cards() {
        _ = write!(
            out,
            "<div class=\"card {}\"><span>{}</span><b>{}</b><span>{}</span></div>",
            card.level,
            escape(card.name),
            escape(&card.value),
            escape(&card.note)
        );
    }
    out.push_str("</div>\n");
    findings(out, &part.findings);
    charts(out, report, part, times);
    advice(out, &part.advice);
    events(out, part, times);
    played(out, part);
    costs(out, part);
    starts(out, part);
}

fn findings(out: &mut String, found: &[Finding]) {
    for finding in found {
        let severity =
            if matches!(finding.severity.as_str(), "critical" | "warning") { &finding.severity } else { "info" };
        _ = writeln!(
            out,
            "<div class=\"advice {severity}\"><span class=\"tag {severity}\">{}</span>{}<p>{}</p></div>",
            escape(&finding.code),
            escape(&finding.text),
            escape(&finding.advice)
        );
    }
}

fn charts(out: &mut String, report: &Report, part: &Part, times: &Times) {
    let samples = &part.known.series.samples;
    let pieces = |value: &dyn Fn(&Sample) -> Option<f64>| -> Vec<(f64, f64, f64)> {
        samples.iter().filter_map(|sample| Some((sample.at - sample.span, sample.at, value(sample)?))).collect()
    };
    let bound = |value: f64| vec![(report.from, report.until, value)];
    let line = |name, class, form, pieces| Line { name, class, form, pieces };
    let tick = |at| times.tick(at);
    let chart = |title, write, lines, marks| Chart {
        title,
        write,
        lines,
        marks,
        from: report.from,
        until: report.until,
        tick: &tick,
        offset: times.offset(report.until),
    };
    let filled = |sample: &Sample| (sample.capacity > 0.0).then(|| load(sample) / sample.capacity);
    let instances = vec![
        line("ready", "c1", Form::Area, pieces(&|sample| Some(sample.ready))),
        line("wanted", "c4", Form::Steps, pieces(&|sample| Some(f64::from(sample.desired)))),
        line("what the load would fill", "c2", Form::Curve, pieces(&filled)),
        line("most allowed", "c5", Form::Bound, bound(f64::from(part.known.pool.max))),
    ];
    out.push_str(&draw(&chart("Instances and load", short, instances, marks(part, times))));
    let waits = vec![
        line("longest wait", "c2", Form::Area, pieces(&|sample| Some(sample.wait))),
        line("95th percentile of answers", "c1", Form::Curve, pieces(&|sample| sample.p95)),
        line("wait allowed", "c5", Form::Bound, bound(part.known.slo.0)),
    ];
    out.push_str(&draw(&chart("Wait for a slot, and time to an answer", seconds, waits, Vec::new())));
    let rate = |sample: &Sample| (sample.span > 0.0).then(|| sample.arrivals / sample.span);
    let possible = |sample: &Sample| {
        let service = (sample.completions > 0.0).then(|| sample.held / sample.completions)?;
        (service > 0.0 && sample.capacity > 0.0).then(|| sample.ready * sample.capacity / service)
    };
    let refused =
        |sample: &Sample| (sample.span > 0.0 && sample.saturated > 0.0).then(|| sample.saturated / sample.span);
    let rates = vec![
        line("requests a second", "c1", Form::Area, pieces(&rate)),
        line("what ready instances can take", "c3", Form::Curve, pieces(&possible)),
        line("refused for want of room", "c5", Form::Curve, pieces(&refused)),
    ];
    out.push_str(&draw(&chart("Requests a second and capacity", compact, rates, Vec::new())));
}

/// Slots in use.
fn load(sample: &Sample) -> f64 {
    if sample.span > 0.0 { (sample.held / sample.span).max(sample.in_flight) } else { sample.in_flight }
}

/// `1.2k`, `3.4M`: numbers that leave room for a chart.
fn compact(value: f64) -> String {
    let units = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    match units.into_iter().find(|(unit, _)| value.abs() >= *unit) {
        Some((unit, name)) if value.abs() < 1e15 => format!("{}{name}", short(value / unit)),
        Some(_) => format!("{value:.0e}"),
        None => short(value),
    }
}

fn marks(part: &Part, times: &Times) -> Vec<(f64, String)> {
    let changes = part.known.changes();
    if changes.len() > MARKS {
        return Vec::new();
    }
    let mark = |record: &&Record| {
        let decision = &record.decision;
        let (from, to, why) = (decision.current, decision.desired, &decision.reason);
        (decision.at, format!("{} {from} -> {to} ({why})", times.clock(decision.at)))
    };
    changes.iter().map(mark).collect()
}

fn advice(out: &mut String, found: &[Advice]) {
    out.push_str("<h3>Recommendations</h3>\n");
    if found.is_empty() {
        out.push_str("<p class=\"soft\">None: sizes suit what was recorded.</p>\n");
    }
    for advice in found {
        let (severity, code) = (advice.severity, escape(advice.code));
        _ = write!(
            out,
            "<div class=\"advice {severity}\"><span class=\"tag {severity}\">{code}</span><b>{}</b><p>{}.</p>",
            escape(&advice.title),
            escape(&sentence(&advice.evidence))
        );
        if let Some(change) = &advice.change {
            _ = write!(out, "<pre>{}</pre>", escape(change.trim_end()));
        }
        out.push_str("</div>\n");
    }
}

/// With a large letter at its beginning.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn table(out: &mut String, class: &str, heads: &[(&str, bool)], rows: &[Vec<String>]) {
    _ = write!(out, "<div class=\"scroll{class}\"><table>");
    if heads.iter().any(|(head, _)| !head.is_empty()) {
        out.push_str("<thead><tr>");
        for (head, number) in heads {
            _ = write!(out, "<th{}>{}</th>", if *number { " class=\"n\"" } else { "" }, escape(head));
        }
        out.push_str("</tr></thead>");
    }
    out.push_str("<tbody>\n");
    for row in rows {
        out.push_str("<tr>");
        for (cell, (_, number)) in row.iter().zip(heads) {
            let class = match number {
                true => " class=\"n\"",
                false if cell.chars().count() > 44 => " class=\"wide\"",
                false => "",
            };
            _ = write!(out, "<td{class}>{cell}</td>");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
}

fn events(out: &mut String, part: &Part, times: &Times) {
    out.push_str("<h3>Events</h3>\n");
    let records = &part.known.history.records;
    if records.is_empty() {
        out.push_str("<p class=\"soft\">Nothing was changed in this time.</p>\n");
        return;
    }
    let row = |record: &Record| {
        let decision = &record.decision;
        let (word, class) = if decision.desired > decision.current { ("up", "up") } else { ("down", "down") };
        let told = if decision.apply { "" } else { ", told only" };
        let known =
            record.outcome.as_ref().map_or_else(|| "not known yet".to_owned(), |outcome| effect(outcome).join("; "));
        vec![
            escape(&times.clock(decision.at)),
            format!("<span class=\"{class}\">{word}</span>{told}"),
            decision.current.to_string(),
            decision.desired.to_string(),
            escape(&trigger(record)),
            escape(&known),
        ]
    };
    let rows: Vec<Vec<String>> = records.iter().rev().take(EVENTS).map(row).collect();
    let heads =
        [("Time", false), ("Event", false), ("From", true), ("To", true), ("Trigger", false), ("Effect", false)];
    table(out, " tall", &heads, &rows);
    if records.len() > EVENTS || part.known.history.more {
        _ = writeln!(out, "<p class=\"soft\">These are the latest; `tidegate scaler history` has all of them.</p>");
    }
}

/// What made it, and what it was limited by.
pub(super) fn trigger(record: &Record) -> String {
    let decision = &record.decision;
    let limits: Vec<&str> = decision.limits.iter().map(|limit| limit.name.as_str()).collect();
    let limited = if limits.is_empty() { String::new() } else { format!(", limited by {}", limits.join(", ")) };
    format!("{} (load {} erl){limited}", decision.reason, short(decision.terms.level))
}

fn played(out: &mut String, part: &Part) {
    out.push_str("<h3>The same traffic under other policies</h3>\n");
    let rows = match &part.played {
        Ok(rows) => rows,
        Err(why) => {
            _ = writeln!(out, "<p class=\"soft\">Not played again: {}.</p>", escape(why));
            return;
        }
    };
    let currency = part.known.price.1.as_str();
    let cells = |(index, row): (usize, &Row)| {
        vec![
            escape(&row.name),
            format!("{:.2} %", row.violations_percent),
            format!("{:.1}", row.instance_hours),
            if index == 0 { "-".to_owned() } else { format!("{:+.0} %", row.versus_now_percent) },
            format!("{} x", short(row.over)),
            short(row.starts_per_hour),
            short(row.reversals_per_hour),
            escape(&seconds(row.late_p99_seconds)),
            escape(&money(row.cost, currency)),
        ]
    };
    let heads = [
        ("Policy", false),
        ("Late or lost", true),
        ("Instance-hours", true),
        ("vs now", true),
        ("Over", true),
        ("Starts/h", true),
        ("Reversals/h", true),
        ("Late p99", true),
        ("Cost", true),
    ];
    let rows: Vec<Vec<String>> = rows.iter().enumerate().map(cells).collect();
    table(out, "", &heads, &rows);
    _ = writeln!(
        out,
        "<p class=\"soft\">Simulated with the latest {} of the recorded requests, instances as measured here. Late: by more than {} beyond a request's own work.</p>",
        span(part.played_seconds),
        escape(&seconds(part.known.slo.0)),
    );
}

fn costs(out: &mut String, part: &Part) {
    out.push_str("<h3>Cost</h3>\n");
    let known = &part.known;
    let used = usage(&known.steps);
    if used.hours <= 0.0 {
        out.push_str("<p class=\"soft\">Nothing was recorded in this time.</p>\n");
        return;
    }
    let (price, currency) = (known.price.0, known.price.1.as_str());
    let floor = reserved_floor(&known.steps);
    let row = |name: &str, hours: f64, note: String| {
        vec![name.to_owned(), format!("{hours:.1}"), escape(&money(hours * price, currency)), escape(&note)]
    };
    let idle = used.instance_hours * used.idle_share();
    let rows = [
        row("As scaled", used.instance_hours, format!("{} on record", span(used.hours * 3600.0))),
        row("of it idle", idle, format!("{:.0} %: room for bursts, starts and drains", used.idle_share() * 100.0)),
        row(
            "A fixed fleet of the largest size",
            used.fixed_hours,
            format!("{} instances; scaling saved {:.0} %", short(used.largest.ceil()), used.saved_share() * 100.0),
        ),
        row(
            "Worth reserving",
            f64::from(floor) * used.hours,
            format!("{floor} instances ran for 90 % of the time or more"),
        ),
    ];
    table(out, "", &[("", false), ("Instance-hours", true), ("Cost", true), ("", false)], &rows);
    if price <= 0.0 {
        out.push_str("<p class=\"soft\">Set scaler.cost.instance_hour for money.</p>\n");
    }
}

fn starts(out: &mut String, part: &Part) {
    out.push_str("<h3>Starts and flaps</h3>\n");
    let known = &part.known;
    let times: Vec<(f64, f64)> =
        known.history.records.iter().filter_map(|record| Some((record.outcome.as_ref()?.ready_after?, 1.0))).collect();
    let at = |share: f64| quantile(times.iter().copied(), share).map_or_else(|| "-".to_owned(), seconds);
    let failing: u32 = known.pool.instances.iter().map(|instance| instance.attempts).sum();
    let rolled = known.history.records.iter().filter_map(|record| record.outcome.as_ref());
    let rolled = rolled.filter(|outcome| outcome.rolled_back).count();
    let rows = [
        vec![
            "Steps up until all were ready: median, 90th percentile".to_owned(),
            escape(&format!("{}, {}", at(0.5), at(0.9))),
        ],
        vec!["Start-up time that is reckoned with".to_owned(), escape(&seconds(known.lead()))],
        vec!["Failed starts of instances that are still tried".to_owned(), failing.to_string()],
        vec!["Changes that turned round within ten minutes".to_owned(), known.reversals().to_string()],
        vec!["Steps that were taken back".to_owned(), rolled.to_string()],
    ];
    table(out, "", &[("", false), ("", true)], &rows);
}

#[cfg(test)]
mod tests {
    use super::super::tests::{empty, report};
    use super::*;
    use crate::cli::scaler::times::tests::{NOON, berlin};

    /// Whether each tag that opens is closed, in order, and no text holds what would open one.
    fn check(page: &str) {
        let mut open: Vec<&str> = Vec::new();
        let body = page.strip_prefix("<!DOCTYPE html>\n").expect("a doctype");
        let (mut rest, mut tags) = (body, 0);
        while let Some(start) = rest.find('<') {
            if open.last() != Some(&"style") {
                assert!(!rest[..start].contains('>'), "a stray > in {:?}", &rest[..start]);
            }
            let end = start + rest[start..].find('>').expect("a tag ends");
            let tag = &rest[start + 1..end];
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "{tag}");
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "near {}", &rest[..end.min(200)]);
            } else if !tag.ends_with('/') {
                open.push(name);
            }
            tags += 1;
            rest = &rest[end + 1..];
        }
        assert!(open.is_empty() && tags > 50, "{open:?}");
        assert!(!page.contains("NaN") && !page.contains("inf "), "no number is none");
    }

    #[test]
    fn a_page_is_whole_and_tells_everything() {
        let page = page(&report(), &berlin());
        check(&page);
        for part in [
            "<title>Scaling of mcp</title>",
            "2026-11-25 13:00:00 +01:00 to 2026-11-26 13:00:00 +01:00",
            "<span class=\"tag critical\">START_FAILURES</span>3 starts failed",
            "Instances and load",
            "<title>12:59:48 7 -&gt; 9 (trend)</title>",
            "<td>trend (load 21.3 erl)</td><td class=\"wide\">ready after 2.2s; wait 180ms -&gt; 4ms",
            "<pre>[pool.mcp.scaler]\nheadroom = 2.0</pre>",
            "HPA, CPU 70 %",
            "2 instances ran for 90 % of the time or more",
        ] {
            assert!(page.contains(part), "{part}");
        }
        for foreign in ["http://", "https://", "<script", "src=", "href=", "@import", "url("] {
            assert!(!page.contains(foreign), "it needs {foreign}");
        }
    }

    #[test]
    fn without_any_data_it_is_whole_too_and_names_are_only_text() {
        let page = page(&empty(), &berlin());
        check(&page);
        assert!(
            page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;") && page.contains("Nothing was recorded")
        );
    }

    #[test]
    fn one_sample_and_huge_numbers_are_drawn() {
        let mut one = report();
        let known = &mut one.pools[0].known;
        known.series.samples.truncate(1);
        check(&page(&one, &berlin()));
        let sample = &mut one.pools[0].known.series.samples[0];
        (sample.arrivals, sample.wait, sample.ready, sample.held) = (1e300, 1e12, 1e9, f64::INFINITY);
        sample.at = NOON - 100.0;
        let text = page(&one, &berlin());
        assert!(text.contains("<circle"), "a lonely sample is a dot");
    }

    #[test]
    fn texts_are_escaped_and_numbers_are_short() {
        assert_eq!(escape("a<b>&\"c\"'\u{1}"), "a&lt;b&gt;&amp;&quot;c&quot;&#39;\u{fffd}");
        assert_eq!([0.0, 950.0, 1234.0, 2.5e6, 1e300].map(compact), ["0", "950", "1.23k", "2.5M", "1e300"]);
    }
}
