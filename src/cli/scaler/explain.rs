use std::fmt::Write;

use super::status::{seconds, short};
use super::times::Times;
use crate::admin::scaling::{Outcome, Record};
use crate::cli::status::{span, table};
use crate::scale::{Decision, Limit, Terms};

/// A decision in words and numbers: its terms, who asked for what, what limited it, and what came of it.
pub(super) fn render(record: &Record, times: &Times) -> String {
    let decision = &record.decision;
    let mut out = head(record, times);
    out.push('\n');
    terms(&mut out, decision);
    if !decision.sources.is_empty() {
        out.push('\n');
        let mut rows = vec![["SOURCE", "WANTS", "WHY"].map(str::to_owned)];
        let wants = |wants: Option<u32>| wants.map_or("unknown".to_owned(), |wants| wants.to_string());
        let row = |source: &crate::scale::Source| [source.name.clone(), wants(source.wants), source.why.clone()];
        rows.extend(decision.sources.iter().map(row));
        table(&mut out, "  ", ['<', '>', '<'], &rows);
    }
    out.push('\n');
    limits(&mut out, decision);
    hold(&mut out, decision, times);
    seen(&mut out, record);
    outcome(&mut out, record);
    out
}

fn head(record: &Record, times: &Times) -> String {
    let decision = &record.decision;
    let done = match (decision.apply, decision.desired == decision.current) {
        (_, true) => "nothing to change",
        (true, false) => "applied",
        (false, false) => "told, not done (mode)",
    };
    let mut out =
        format!("{} {}: {} -> {}, {done}\n", record.pool, times.clock(decision.at), decision.current, decision.desired);
    let ago = span(times.now - decision.at);
    _ = writeln!(out, "  decision {}, {ago} ago, generation {}; why: {}", record.id, record.generation, {
        let reason = &decision.reason;
        if decision.rollback { format!("{reason}, a step before is taken back") } else { reason.clone() }
    });
    out
}

fn terms(out: &mut String, decision: &Decision) {
    let terms = &decision.terms;
    if *terms == Terms::default() {
        out.push_str("  the load model has seen nothing yet\n");
        return;
    }
    let window = if terms.surprise > 0.0 {
        format!("over {} (a longer window is contradicted by {} sigma)", seconds(terms.window), short(terms.surprise))
    } else {
        format!("over {}", seconds(terms.window))
    };
    let (rate, service) = (short(terms.rate), seconds(terms.service_time));
    _ = writeln!(out, "  load      {} erl = {rate} requests/s x {service} each, {window}", short(terms.level));
    _ = writeln!(out, "  trend     {} erl by the time a start is done ({})", signed(terms.trend), seconds(terms.lead));
    if terms.season > 0.0 || terms.period > 0.0 {
        let period = if terms.period > 0.0 { format!(", period {}", seconds(terms.period)) } else { String::new() };
        _ = writeln!(out, "  season    at least {} erl{period}", short(terms.season));
    }
    _ = writeln!(out, "  forecast  {} erl", short(terms.forecast));
    _ = writeln!(
        out,
        "  headroom  {} slots for the forecast's own errors, {} for chance (square root)",
        signed(terms.error),
        signed(terms.staffing)
    );
    let learned = if terms.learned { "learned" } else { "configured" };
    let (slots, capacity) = (short(terms.slots), short(terms.capacity));
    if terms.capacity > 0.0 {
        let exact = short(terms.slots / terms.capacity);
        let base = terms.base;
        _ = writeln!(out, "  slots     {slots} / {capacity} an instance ({learned}) = {exact} -> {base}");
    } else {
        _ = writeln!(out, "  slots     {slots}; what one instance can take is not known yet");
    }
    if terms.backlog > 0.0 {
        let boost = decision.raw.saturating_sub(terms.base);
        _ = writeln!(out, "  backlog   {} of work waits: +{boost} until it is gone", seconds(terms.backlog));
    }
    _ = writeln!(out, "  the load asks for {}, the largest of all asks for {}", decision.raw, decision.wanted);
}

fn signed(value: f64) -> String {
    if value < 0.0 { short(value) } else { format!("+{}", short(value)) }
}

fn limits(out: &mut String, decision: &Decision) {
    if decision.limits.is_empty() {
        out.push_str("  limits    none hit\n");
    }
    for (number, limit) in decision.limits.iter().enumerate() {
        let key = if number == 0 { "limits  " } else { "        " };
        let change = if limit.from == limit.to {
            limit.name.clone()
        } else {
            format!("{} {} -> {}", limit.name, limit.from, limit.to)
        };
        _ = writeln!(out, "  {key}  {change}: {}", meaning(limit).0);
    }
}

fn hold(out: &mut String, decision: &Decision, times: &Times) {
    let mut parts = Vec::new();
    if decision.terms.hold > 0.0 {
        parts.push(format!("too many are kept for {}", seconds(decision.terms.hold)));
    }
    if let Some(at) = decision.next_down_at {
        parts.push(format!("may shrink from {} on", times.clock(at)));
    }
    if decision.cordon > 0 {
        parts.push(format!("{} get no new work already", decision.cordon));
    }
    if !parts.is_empty() {
        _ = writeln!(out, "  hold      {}", parts.join("; "));
    }
}

fn seen(out: &mut String, record: &Record) {
    let seen = &record.seen;
    if seen.span <= 0.0 {
        out.push_str("  seen      nothing\n");
        return;
    }
    let mut line = format!("{} in progress", short(seen.in_flight));
    if seen.queue > 0.0 {
        _ = write!(line, ", {} wait (the first for {})", short(seen.queue), seconds(seen.oldest_wait));
    } else {
        line += ", none wait";
    }
    for (value, text) in [(seen.saturated, "refused for want of room"), (seen.errors, "application errors")] {
        if value > 0.0 {
            _ = write!(line, ", {} {text}", short(value));
        }
    }
    if let Some(p95) = seen.latency_p95 {
        _ = write!(line, ", p95 {}", seconds(p95));
    }
    for (share, name) in [(seen.cpu, "cpu"), (seen.memory, "memory")] {
        if let Some(share) = share {
            _ = write!(line, ", {name} {:.0} %", share * 100.0);
        }
    }
    if !seen.complete {
        line += "; not everything could be seen, so nothing is removed";
    }
    _ = writeln!(out, "  seen      {line}");
}

fn outcome(out: &mut String, record: &Record) {
    match &record.outcome {
        Some(outcome) => _ = writeln!(out, "  outcome   {}", effect(outcome).join("; ")),
        None if record.is_change() => out.push_str("  outcome   not known yet\n"),
        None => {}
    }
}

/// What came of a step, in words.
pub(super) fn effect(outcome: &Outcome) -> Vec<String> {
    let mut parts = Vec::new();
    if let Some(ready) = outcome.ready_after {
        parts.push(format!("ready after {}", seconds(ready)));
    }
    parts.push(format!("wait {} -> {}", seconds(outcome.wait.0), seconds(outcome.wait.1)));
    if let (Some(before), Some(after)) = outcome.p95 {
        parts.push(format!("p95 {} -> {}", seconds(before), seconds(after)));
    }
    parts.push(format!("errors {} -> {}", percent(outcome.errors.0), percent(outcome.errors.1)));
    if !outcome.verdict.is_empty() {
        parts.push(outcome.verdict.clone());
    }
    if outcome.rolled_back {
        parts.push("taken back".to_owned());
    }
    parts
}

/// `0`, `0.31 %`, `12 %`.
pub(super) fn percent(share: f64) -> String {
    match share * 100.0 {
        0.0 => "0".to_owned(),
        p if p.abs() >= 10.0 => format!("{p:.0} %"),
        p => format!("{} %", short(p)),
    }
}

/// What a limit means, and what to change if it is in the way.
fn meaning(limit: &Limit) -> (&'static str, &'static str) {
    match limit.name.as_str() {
        "min" => ("never fewer than the minimum", "lower `min`"),
        "max" => ("never more than the maximum", "raise `max`"),
        "behavior" => ("so many may come or go in this time", "widen `behavior.scale_up` or `behavior.scale_down`"),
        "stabilization" => ("the wish has to last for the whole window", "shorten `stabilization`"),
        "tolerance" => ("too small a difference to act on", "lower `tolerance`"),
        "step" => ("no step is larger", "raise `behavior.max_step_ratio`"),
        "budget" => ("too many changes in this hour, the larger size is held", "raise `max_changes_per_hour`"),
        "hold" => {
            ("too many are kept for a while, in case load returns", "shorten `hold` or take `profile = \"fast\"`")
        }
        "queue" => ("nothing is removed while requests wait", "wait, or raise `max_concurrency`"),
        "incomplete" => ("nothing is removed while not everything can be seen", "see `tidegate scaler doctor`"),
        "start_failures" => ("nothing is added while starts fail", "see `tidegate scaler doctor`"),
        "freeze" => ("a step was taken back; nothing is added for a while", "look at what new instances do"),
        "mode" => ("the mode does not allow it", "set `mode = \"on\"`"),
        "schedule" => ("a schedule holds now", "change `schedule`"),
        _ => ("limited", "see `tidegate scaler explain --settings`"),
    }
}

/// Why it did not have more, and why it did not have fewer.
pub(super) fn why_not(record: &Record, times: &Times) -> String {
    let decision = &record.decision;
    let mut out = head(record, times);
    _ = writeln!(out, "\nwhy not more than {}:", decision.desired);
    let more = not_more(decision);
    more.iter().for_each(|line| _ = writeln!(out, "  - {line}"));
    _ = writeln!(out, "\nwhy not fewer than {}:", decision.desired);
    let fewer = not_fewer(record, times);
    fewer.iter().for_each(|line| _ = writeln!(out, "  - {line}"));
    out
}

fn told(limit: &Limit) -> String {
    let (meaning, change) = meaning(limit);
    let step = if limit.from == limit.to { String::new() } else { format!(" ({} -> {})", limit.from, limit.to) };
    format!("{}{step}: {meaning}; to change that, {change}", limit.name)
}

fn not_more(decision: &Decision) -> Vec<String> {
    let mut lines: Vec<String> = decision.limits.iter().filter(|limit| limit.to < limit.from).map(told).collect();
    if decision.wanted > decision.current && !decision.apply {
        lines.push(format!("{} are wanted, but the mode only tells: set `mode = \"on\"`", decision.wanted));
    }
    for source in decision.sources.iter().filter(|source| source.wants.is_none()) {
        lines.push(format!("{} does not know: {}", source.name, source.why));
    }
    if decision.wanted <= decision.desired {
        let terms = &decision.terms;
        let mut line = format!("nothing asks for more: the load asks for {}", decision.raw);
        if terms.capacity > 0.0 {
            let room = f64::from(decision.desired) * terms.capacity - terms.slots;
            _ = write!(line, "; another one is wanted when {} more slots are needed", short(room.max(0.0)));
        }
        lines.push(line);
    }
    lines
}

fn not_fewer(record: &Record, times: &Times) -> Vec<String> {
    let decision = &record.decision;
    let mut lines: Vec<String> = decision.limits.iter().filter(|limit| limit.to > limit.from).map(told).collect();
    let asking = |wants: Option<u32>| wants.is_some_and(|wants| wants >= decision.desired);
    for source in decision.sources.iter().filter(|source| asking(source.wants)) {
        lines.push(format!("{} asks for {}: {}", source.name, source.wants.unwrap_or_default(), source.why));
    }
    if lines.is_empty() && decision.raw >= decision.desired {
        lines.push(format!("the load asks for {}", decision.raw));
    }
    if let Some(at) = decision.next_down_at {
        lines.push(format!("too many are kept until {} at least", times.clock(at)));
    }
    if record.seen.queue > 0.0 {
        lines.push(format!("{} requests wait", short(record.seen.queue)));
    }
    if !record.seen.complete {
        lines.push("not everything could be seen, so nothing is removed".to_owned());
    }
    if lines.is_empty() {
        lines.push(format!("{} are kept only until a step down is due", decision.desired));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::sample::{record, smaller};
    use super::super::times::tests::berlin;
    use super::*;

    #[test]
    fn a_decision_is_told_with_all_its_terms() {
        let expected = "\
mcp 12:59:48: 7 -> 9, applied
  decision 01JXA, 12s ago, generation 3; why: trend

  load      21.3 erl = 10.4 requests/s x 2.05s each, over 4s (a longer window is contradicted by 3.9 sigma)
  trend     +2.8 erl by the time a start is done (2.1s)
  forecast  24.1 erl
  headroom  +2 slots for the forecast's own errors, +2.9 for chance (square root)
  slots     29 / 4 an instance (learned) = 7.25 -> 8
  the load asks for 8, the largest of all asks for 9

  SOURCE                  WANTS  WHY
  load                        8  29.0 slots at 4.0 an instance
  policy:pool_pressure        9  pool_utilisation 0.86 > 85%: +50%
  signal:external:jobs  unknown  no value for 2m 5s

  limits    none hit
  hold      too many are kept for 30s; may shrink from 13:00:18 on
  seen      24.1 in progress, none wait
  outcome   ready after 2.2s; wait 180ms -> 4ms; p95 420ms -> 400ms; errors 0 -> 0; verified
";
        assert_eq!(render(&record(), &berlin()), expected);
    }

    #[test]
    fn limits_are_told_with_what_they_mean() {
        let text = render(&smaller(), &berlin());
        let limits = "\
  limits    behavior 6 -> 7: so many may come or go in this time
            budget: too many changes in this hour, the larger size is held
";
        assert!(text.contains(limits), "{text}");
        assert!(text.contains("  outcome   not known yet\n"), "{text}");
        assert!(text.starts_with("mcp 12:00:00: 9 -> 7, applied\n"), "{text}");
    }

    #[test]
    fn what_kept_it_from_more_and_from_fewer_is_told_with_what_to_change() {
        let expected = "\
why not more than 7:
  - nothing asks for more: the load asks for 6; another one is wanted when 0 more slots are needed

why not fewer than 7:
  - behavior (6 -> 7): so many may come or go in this time; to change that, widen `behavior.scale_up` or `behavior.scale_down`
  - too many are kept until 13:00:18 at least
";
        let text = why_not(&smaller(), &berlin());
        assert!(text.ends_with(expected), "{text}");
        let mut full = record();
        full.decision.desired = 8;
        full.decision.limits = vec![Limit { name: "max".to_owned(), from: 9, to: 8 }];
        full.decision.apply = false;
        let text = why_not(&full, &berlin());
        for part in [
            "  - max (9 -> 8): never more than the maximum; to change that, raise `max`\n",
            "  - 9 are wanted, but the mode only tells: set `mode = \"on\"`\n",
            "  - signal:external:jobs does not know: no value for 2m 5s\n",
            "why not fewer than 8:\n  - load asks for 8: 29.0 slots at 4.0 an instance\n",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn every_limit_that_a_decision_names_has_words_of_its_own() {
        for name in [
            "min",
            "max",
            "behavior",
            "stabilization",
            "tolerance",
            "step",
            "budget",
            "hold",
            "queue",
            "incomplete",
            "start_failures",
            "freeze",
            "mode",
            "schedule",
        ] {
            let limit = Limit { name: name.to_owned(), from: 1, to: 2 };
            assert_ne!(meaning(&limit).0, "limited", "{name}");
        }
    }

    #[test]
    fn an_empty_record_and_a_backlog_are_told_too() {
        let text = render(&Record::default(), &berlin());
        assert!(text.contains("the load model has seen nothing yet") && text.contains("seen      nothing"), "{text}");
        let mut busy = record();
        (busy.decision.terms.backlog, busy.decision.raw, busy.decision.rollback) = (12.0, 10, true);
        (busy.decision.terms.season, busy.decision.terms.period) = (18.0, 600.0);
        (busy.seen.queue, busy.seen.oldest_wait, busy.seen.complete) = (5.0, 0.4, false);
        let text = render(&busy, &berlin());
        for part in [
            "  backlog   12s of work waits: +2 until it is gone\n",
            "  season    at least 18 erl, period 10m 0s\n",
            "5 wait (the first for 400ms); not everything could be seen, so nothing is removed\n",
            "why: trend, a step before is taken back\n",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
