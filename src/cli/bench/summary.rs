use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::fault::Kind;
use super::histogram::Histogram;
use super::plan::Plan;
use super::tally::Tally;
use crate::cli::status::{latency, number};
use crate::types::format_duration;

/// What a load has shown; as JSON, exactly this.
///
/// **Units**: seconds and bytes.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    url: String,
    method: String,
    http2: bool,
    connections: u32,
    streams: u32,
    threads: u32,
    /// What was asked for: requests a second in an open loop.
    rate: Option<f64>,
    /// From the beginning to the last answer.
    seconds: f64,
    /// Whether it was ended before its time.
    interrupted: bool,
    /// Those that ended: answers and errors.
    requests: u64,
    answers: u64,
    answers_per_second: f64,
    /// Of the answers' bodies.
    bytes: u64,
    bytes_per_second: f64,
    status: BTreeMap<String, u64>,
    errors: BTreeMap<&'static str, Errors>,
    latency: Latency,
    /// Sent more than a millisecond after they were due.
    late: u64,
    /// Those of them for which a connection was free: the machine that sent them was too busy.
    late_though_free: u64,
    /// The longest after.
    latest: f64,
    reconnects: u64,
    /// In progress when it was interrupted.
    unfinished: u64,
}

#[derive(Debug, Serialize)]
struct Errors {
    count: u64,
    /// The first one's cause.
    #[serde(skip_serializing_if = "String::is_empty")]
    example: String,
}

/// Of answers, from when their requests were due.
#[derive(Debug, Serialize)]
struct Latency {
    min: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
    mean: f64,
}

impl Latency {
    fn of(histogram: &Histogram) -> Latency {
        let at = |share| histogram.quantile(share).as_secs_f64();
        Latency {
            min: histogram.min().as_secs_f64(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: histogram.max().as_secs_f64(),
            mean: histogram.mean().as_secs_f64(),
        }
    }
}

impl Summary {
    pub(super) fn of(plan: &Plan, tally: &Tally, interrupted: bool) -> Summary {
        let (answers, failed) = (tally.answers(), tally.failed());
        let lasted = if answers > 0 { tally.last_answer } else { tally.last_end };
        let each_second = |count: u64| if lasted.is_zero() { 0.0 } else { count as f64 / lasted.as_secs_f64() };
        // The usual ones are there also where they are zero, which is what programs look for.
        let shown = |(digit, count): &(usize, u64)| (2..=5).contains(digit) || *count > 0;
        let status = tally.classes.into_iter().enumerate().filter(shown);
        let errors = Kind::ALL.into_iter().map(|kind| {
            let of_kind = tally.failures.get(&kind).cloned().unwrap_or_default();
            (kind.word(), Errors { count: of_kind.count, example: of_kind.example })
        });
        Summary {
            url: plan.url.clone(),
            method: plan.request.method().to_string(),
            http2: plan.http2,
            connections: plan.connections,
            streams: plan.streams,
            threads: plan.threads,
            rate: plan.rate,
            seconds: lasted.as_secs_f64(),
            interrupted,
            requests: answers + failed,
            answers,
            answers_per_second: each_second(answers),
            bytes: tally.bytes,
            bytes_per_second: each_second(tally.bytes),
            status: status.map(|(digit, count)| (format!("{digit}xx"), count)).collect(),
            errors: errors.collect(),
            latency: Latency::of(&tally.latency),
            late: tally.late,
            late_though_free: tally.late_though_free,
            latest: tally.latest.as_secs_f64(),
            reconnects: tally.reconnects,
            unfinished: tally.begun.saturating_sub(answers + failed),
        }
    }

    /// For a person to read.
    pub(super) fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail; `_ =` says so below.
        let mut line = |name: &str, text: String| _ = writeln!(out, "{name:<12}{text}");
        let rate = number(self.answers_per_second);
        line(
            "requests",
            format!("{}, {} answered in {}, {rate}/s", self.requests, self.answers, latency(self.seconds)),
        );
        line("bodies", format!("{}, {}/s", size(self.bytes as f64), size(self.bytes_per_second)));
        line("status", self.status_line());
        for (at, (kind, errors)) in self.errors.iter().filter(|(_, errors)| errors.count > 0).enumerate() {
            line(if at == 0 { "errors" } else { "" }, format!("{kind} {}: {}", errors.count, errors.example));
        }
        if self.answers > 0 {
            line("latency", self.latency.line());
        }
        if self.rate.is_some() {
            line("late", self.late_line());
        }
        line("reconnects", self.reconnects.to_string());
        if self.interrupted {
            line("unfinished", format!("{} (interrupted)", self.unfinished));
        }
        out
    }

    fn status_line(&self) -> String {
        let seen = self.status.iter().filter(|(_, count)| **count > 0);
        let words: Vec<String> = seen.map(|(class, count)| format!("{class} {count}")).collect();
        if words.is_empty() { "no answers".to_owned() } else { words.join(", ") }
    }

    fn late_line(&self) -> String {
        if self.late == 0 {
            return "none: every request was sent when it was due".to_owned();
        }
        let all = format!("{} sent more than 1 ms after they were due, at most {}", self.late, latency(self.latest));
        match self.late_though_free {
            0 => all,
            ours => format!("{all}; {ours} though a connection was free: this machine was busy"),
        }
    }
}

impl Latency {
    fn line(&self) -> String {
        let spans = [
            ("p50", self.p50),
            ("p90", self.p90),
            ("p99", self.p99),
            ("p99.9", self.p99_9),
            ("max", self.max),
            ("mean", self.mean),
        ];
        spans.map(|(name, seconds)| format!("{name} {}", latency(seconds))).join(", ")
    }
}

/// What is about to be done, in a line.
pub(super) fn heading(plan: &Plan) -> String {
    let many = |count: u32, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let mut out = format!("{} {} over {}", plan.request.method(), plan.url, many(plan.connections, "connection"));
    if plan.http2 {
        out += &format!(" of {}, HTTP/2", many(plan.streams, "stream"));
    }
    if plan.threads > 1 {
        out += &format!(", {}", many(plan.threads, "thread"));
    }
    match (plan.rate, plan.requests) {
        (Some(rate), total) => out += &format!(": {} at {}/s", total.unwrap_or(0), number(rate)),
        (None, Some(total)) => out += &format!(": {total} requests"),
        (None, None) => out += &format!(": {}", format_duration(plan.duration)),
    }
    out
}

/// Bytes with three digits that matter.
fn size(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = (0..units.len() - 1).find(|power| bytes < 1024f64.powi(*power as i32 + 1)).unwrap_or(units.len() - 1);
    let value = bytes / 1024f64.powi(power as i32);
    let digits = if power == 0 || value >= 100.0 { 0 } else { 1 + usize::from(value < 10.0) };
    format!("{value:.digits$} {}", units[power])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::super::fault::Fault;
    use super::super::tally::{Answer, Sent};
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn summary(rate: Option<f64>) -> Summary {
        let mut tally = Tally::default();
        for n in 0..1000 {
            let request = Sent { due: ms(n * 2), sent: ms(n * 2 + u64::from(n == 500) * 7), free: true };
            let status = if n == 7 { StatusCode::NOT_FOUND } else { StatusCode::OK };
            tally.begin();
            tally.end(request, ms(n * 2 + 10), Ok(Answer { status, bytes: 2048 }));
        }
        tally.begin();
        let request = Sent { due: ms(5), sent: ms(5), free: true };
        tally.end(request, ms(9000), Err(Fault::new(Kind::Timeout, "no answer in time")));
        tally.begin();
        Summary::of(&Plan::example(rate), &tally, true)
    }

    #[test]
    fn people_read_what_was_counted() {
        let text = summary(Some(500.0)).render();
        let expected = "\
requests    1001, 1000 answered in 2.01 s, 498.01/s
bodies      1.95 MiB, 996 KiB/s
status      2xx 999, 4xx 1
errors      timeout 1: no answer in time
latency     p50 10.0 ms, p90 10.0 ms, p99 10.0 ms, p99.9 10.0 ms, max 10.0 ms, mean 10.0 ms
late        1 sent more than 1 ms after they were due, at most 7.00 ms; 1 though a connection was free: this machine was busy
reconnects  0
unfinished  1 (interrupted)
";
        assert_eq!(text, expected);
        assert!(!summary(None).render().contains("\nlate "), "in a closed loop nothing is due");
    }

    #[test]
    fn programs_read_the_same_numbers() {
        let json = serde_json::to_value(summary(Some(500.0))).unwrap();
        assert_eq!(json["requests"], 1001);
        assert_eq!(json["status"], serde_json::json!({ "2xx": 999, "3xx": 0, "4xx": 1, "5xx": 0 }));
        assert_eq!(json["errors"]["timeout"]["count"], 1);
        assert_eq!(json["errors"]["connect"]["count"], 0);
        assert_eq!((&json["latency"]["p99_9"], &json["unfinished"]), (&0.01.into(), &1.into()));
    }

    #[test]
    fn sizes_have_three_digits() {
        assert_eq!(
            [0.0, 1023.0, 1024.0, 10_240.0, 1.5e6, 5e13].map(size),
            ["0 B", "1023 B", "1.00 KiB", "10.0 KiB", "1.43 MiB", "45.5 TiB"]
        );
    }
}
