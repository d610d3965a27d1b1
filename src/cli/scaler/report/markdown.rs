use std::fmt::Write;

use super::html::trigger;
use super::{Part, Report};
use crate::cli::scaler::explain::effect;
use crate::cli::scaler::simulate::{compared, money};
use crate::cli::scaler::status::short;
use crate::cli::scaler::times::Times;
use crate::cli::status::span;
use crate::scale::plan::{reserved_floor, usage};

/// The report as Markdown, for a wiki or a mail.
pub(super) fn page(report: &Report, times: &Times) -> String {
    let (from, until) = (times.full(report.from), times.full(report.until));
    let mut out = format!(
        "# Scaling report\n\n{from} to {until} ({}), Tidegate {}\n",
        span(report.until - report.from),
        report.version
    );
    for finding in &report.findings {
        _ = writeln!(out, "\n- **{}** {}: {}", cell(&finding.code), cell(&finding.text), cell(&finding.advice));
    }
    for part in &report.pools {
        pool(&mut out, part, times);
    }
    out
}

/// A text that stays one within a table and is no markup.
fn cell(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' | '*' | '_' | '`' | '[' | ']' | '<' | '>' | '\\' | '#' => out.extend(['\\', c]),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

fn pool(out: &mut String, part: &Part, times: &Times) {
    let known = &part.known;
    _ = writeln!(out, "\n## Pool {}\n\n| | | |\n|---|---|---|", cell(&known.pool.pool));
    for card in part.cards() {
        _ = writeln!(out, "| {} | **{}** {} | {} |", cell(card.name), cell(&card.value), card.level, cell(&card.note));
    }
    for finding in &part.findings {
        _ = writeln!(
            out,
            "\n- **{}** ({}): {}. {}",
            cell(&finding.code),
            cell(&finding.severity),
            cell(&finding.text),
            cell(&finding.advice)
        );
    }
    out.push_str("\n### Recommendations\n\n");
    if part.advice.is_empty() {
        out.push_str("None: sizes suit what was recorded.\n");
    }
    for advice in &part.advice {
        _ = writeln!(out, "- **{}** ({}): {}.", cell(&advice.title), cell(advice.code), cell(&advice.evidence));
        if let Some(change) = &advice.change {
            _ = writeln!(out, "\n  ```toml");
            change.trim_end().lines().for_each(|line| _ = writeln!(out, "  {line}"));
            _ = writeln!(out, "  ```");
        }
    }
    out.push_str("\n### Events\n\n| Time | From | To | Trigger | Effect |\n|---|---:|---:|---|---|\n");
    for record in known.history.records.iter().rev() {
        let decision = &record.decision;
        let known =
            record.outcome.as_ref().map_or_else(|| "not known yet".to_owned(), |outcome| effect(outcome).join("; "));
        let (from, to) = (decision.current, decision.desired);
        _ = writeln!(
            out,
            "| {} | {from} | {to} | {} | {} |",
            times.clock(decision.at),
            cell(&trigger(record)),
            cell(&known)
        );
    }
    out.push_str("\n### The same traffic under other policies\n\n");
    match &part.played {
        Ok(rows) => _ = writeln!(out, "```\n{}```", compared(rows, &known.price.1)),
        Err(why) => _ = writeln!(out, "Not played again: {}.", cell(why)),
    }
    let used = usage(&known.steps);
    _ = writeln!(
        out,
        "\n### Cost\n\n{:.1} instance-hours ({}), {:.0} % of them idle; {} times what the load fills. A fixed fleet of {} would have used {:.1}. Worth reserving: {}.",
        used.instance_hours,
        money(used.instance_hours * known.price.0, &cell(&known.price.1)),
        used.idle_share() * 100.0,
        used.over().map_or_else(|| "-".to_owned(), short),
        short(used.largest.ceil()),
        used.fixed_hours,
        reserved_floor(&known.steps),
    );
}

#[cfg(test)]
mod tests {
    use super::super::tests::{empty, report};
    use super::*;
    use crate::cli::scaler::times::tests::berlin;

    #[test]
    fn markdown_has_the_same_parts() {
        let text = page(&report(), &berlin());
        for part in [
            "# Scaling report\n\n2026-11-25 13:00:00 +01:00 to",
            "## Pool mcp\n",
            "- **START\\_FAILURES** (critical): 3 starts failed within 5 min: exit code 3. look at",
            "  ```toml\n  [pool.mcp.scaler]\n  headroom = 2.0\n  ```",
            "| 12:59:48 | 7 | 9 | trend (load 21.3 erl) | ready after 2.2s; wait 180ms -\\> 4ms",
            "Worth reserving: 2.",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn names_are_no_markup() {
        let text = page(&empty(), &berlin());
        assert!(text.contains("## Pool \\<script\\>"), "{text}");
        assert!(text.contains("Not played again: no requests are on record."), "{text}");
    }
}
