use std::fmt::Write;

use crate::admin::model::{PoolStatus, Status, UpstreamStatus, Verdict};

/// A status for a person to read.
pub(super) fn render(status: &Status) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail; `_ =` says so below.
    _ = writeln!(
        out,
        "Tidegate {}, pid {}, up {}, {} workers, generation {}{}",
        status.version,
        status.pid,
        span(status.uptime_seconds),
        status.workers,
        status.generation,
        if status.stopping { ", STOPPING" } else { "" },
    );
    if let Some(file) = &status.config_file {
        _ = writeln!(out, "configuration {file}");
    }
    _ = writeln!(out, "requests {}, {} in flight", status.requests, status.in_flight);
    last_reload(&mut out, status);
    out.push('\n');
    listeners(&mut out, status);
    for pool in &status.pools {
        out.push('\n');
        members(&mut out, pool);
    }
    out
}

fn last_reload(out: &mut String, status: &Status) {
    let Verdict { accepted, generation, cause, problems, .. } = &status.last_reload;
    let counts = format!("{} accepted, {} refused so far", status.reloads_accepted, status.reloads_refused);
    if *accepted {
        _ = writeln!(out, "last reload ({cause}) in force as generation {generation}; {counts}");
    } else {
        _ = writeln!(out, "last reload ({cause}) REFUSED, generation {generation} goes on; {counts}");
    }
    for line in problems.trim_end().lines() {
        _ = writeln!(out, "  {line}");
    }
}

fn listeners(out: &mut String, status: &Status) {
    let mut rows = vec![["LISTENER", "ADDRESS", "CONNECTIONS", "REQUESTS"].map(str::to_owned)];
    for listener in &status.listeners {
        rows.push([
            listener.name.clone(),
            listener.addresses.join(" "),
            listener.connections.to_string(),
            listener.requests.to_string(),
        ]);
    }
    table(out, "", ['<', '<', '>', '>'], &rows);
}

fn members(out: &mut String, pool: &PoolStatus) {
    let panic = if pool.panic { ", PANIC: too few are fit, all are used" } else { "" };
    _ = writeln!(out, "POOL {} ({}{panic})", pool.name, pool.balance);
    let heads = ["UPSTREAM", "STATE", "SINCE", "IN FLIGHT", "WEIGHT", "EWMA", "REQUESTS", "ERRORS", "WHY"];
    let mut rows = vec![heads.map(str::to_owned)];
    rows.extend(pool.upstreams.iter().map(member));
    table(out, "  ", ['<', '<', '>', '>', '>', '>', '>', '>', '<'], &rows);
}

fn member(upstream: &UpstreamStatus) -> [String; 9] {
    let mut why = upstream.reason.clone();
    if upstream.removed {
        why += ", no longer configured";
    }
    if let Some(seconds) = upstream.deadline_seconds {
        why += &format!(", cut in {}", span(seconds));
    }
    let in_flight = match upstream.max_connections {
        Some(most) => format!("{}/{most}", upstream.in_flight),
        None => upstream.in_flight.to_string(),
    };
    let in_flight = match upstream.sessions {
        0 => in_flight,
        sessions => format!("{in_flight}, {sessions} sessions"),
    };
    let backup = if upstream.backup { " backup" } else { "" };
    let ewma = if upstream.ewma_seconds > 0.0 { latency(upstream.ewma_seconds) } else { "-".to_owned() };
    [
        format!("{}{backup}", upstream.address),
        upstream.state.to_string(),
        span(upstream.since_seconds),
        in_flight,
        weight(upstream),
        ewma,
        upstream.requests.to_string(),
        upstream.errors.to_string(),
        why.trim_start_matches(", ").to_owned(),
    ]
}

/// `1`, and `0.3 of 1` while it is not what was configured.
fn weight(upstream: &UpstreamStatus) -> String {
    let configured = f64::from(upstream.configured_weight);
    if (upstream.weight - configured).abs() < 0.005 {
        number(configured)
    } else {
        format!("{} of {}", number(upstream.weight), number(configured))
    }
}

/// Columns as wide as their widest cell; `sides` has `<` for a column of words and `>` for one of numbers.
pub(super) fn table<const N: usize>(out: &mut String, indent: &str, sides: [char; N], rows: &[[String; N]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in rows {
        let mut line = indent.to_owned();
        for ((cell, width), side) in row.iter().zip(&widths).zip(sides) {
            _ = if side == '<' { write!(line, "{cell:<width$}  ") } else { write!(line, "{cell:>width$}  ") };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

/// Seconds in the two largest units that matter: `3d 4h`, `2m 5s`, `850ms`.
pub(super) fn span(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match whole {
        0 => format!("{:.0}ms", seconds.max(0.0) * 1e3),
        1..60 => format!("{whole}s"),
        60..3600 => format!("{}m {}s", whole / 60, whole % 60),
        3600..86400 => format!("{}h {}m", whole / 3600, whole % 3600 / 60),
        _ => format!("{}d {}h", whole / 86400, whole % 86400 / 3600),
    }
}

/// A latency with three digits that matter.
pub(super) fn latency(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 1e-3 => (s * 1e6, "us"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

/// At most two decimals, and none that are zero.
pub(super) fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::model::ListenerStatus;
    use crate::health::State;

    fn upstream(address: &str) -> UpstreamStatus {
        UpstreamStatus {
            address: address.to_owned(),
            state: State::Ready,
            reason: "checks pass".to_owned(),
            since_seconds: 125.0,
            in_flight: 3,
            streams: 0,
            sessions: 0,
            weight: 1.0,
            configured_weight: 1,
            backup: false,
            max_connections: None,
            ewma_seconds: 0.001234,
            requests: 1000,
            errors: 2,
            deadline_seconds: None,
            removed: false,
        }
    }

    #[test]
    fn a_status_reads_at_a_glance() {
        let draining = UpstreamStatus {
            state: State::Draining,
            reason: "asked to".to_owned(),
            weight: 0.0,
            configured_weight: 2,
            max_connections: Some(10),
            ewma_seconds: 0.0,
            deadline_seconds: Some(29.5),
            ..upstream("10.0.0.1:9002")
        };
        let pool = PoolStatus {
            name: "tools".to_owned(),
            balance: "ewma".to_owned(),
            panic: false,
            upstreams: vec![upstream("127.0.0.1:9001"), draining],
        };
        let listener = ListenerStatus {
            name: "web".to_owned(),
            addresses: vec!["0.0.0.0:8080".to_owned()],
            connections: 12,
            requests: 1000,
        };
        let status = Status {
            version: "1.2.3".to_owned(),
            pid: 7,
            uptime_seconds: 7380.0,
            config_file: Some("tidegate.toml".to_owned()),
            generation: 4,
            workers: 2,
            stopping: false,
            requests: 1000,
            in_flight: 6,
            reloads_accepted: 2,
            reloads_refused: 1,
            last_reload: Verdict {
                accepted: false,
                generation: 4,
                at: 0.0,
                cause: "file".to_owned(),
                problems: "error: unknown key\n --> tidegate.toml:1:1\n".to_owned(),
                changes: Vec::new(),
            },
            listeners: vec![listener],
            pools: vec![pool],
        };
        let expected = "\
Tidegate 1.2.3, pid 7, up 2h 3m, 2 workers, generation 4
configuration tidegate.toml
requests 1000, 6 in flight
last reload (file) REFUSED, generation 4 goes on; 2 accepted, 1 refused so far
  error: unknown key
   --> tidegate.toml:1:1

LISTENER  ADDRESS       CONNECTIONS  REQUESTS
web       0.0.0.0:8080           12      1000

POOL tools (ewma)
  UPSTREAM        STATE     SINCE  IN FLIGHT  WEIGHT     EWMA  REQUESTS  ERRORS  WHY
  127.0.0.1:9001  ready     2m 5s          3       1  1.23 ms      1000       2  checks pass
  10.0.0.1:9002   draining  2m 5s       3/10  0 of 2        -      1000       2  asked to, cut in 29s
";
        assert_eq!(render(&status), expected);
    }

    #[test]
    fn spans_and_latencies_are_short() {
        let spans = [0.0421, 1.0, 61.0, 3661.0, 90_000.0].map(span);
        assert_eq!(spans, ["42ms", "1s", "1m 1s", "1h 1m", "1d 1h"]);
        let latencies = [0.000_012_3, 0.0456, 0.4567, 1.5].map(latency);
        assert_eq!(latencies, ["12.3 us", "45.6 ms", "457 ms", "1.50 s"]);
        assert_eq!([2.0, 0.5, 0.333].map(number), ["2", "0.5", "0.33"]);
    }
}
