//! The end: all books are compared.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::faults::Done;
use crate::ledger::{Asked, Kind, Outcome, Record};
use crate::support::*;

/// How long after a kill a request may still be sent to the dead: a connection that has just been closed looks open until its worker's next
/// turn.
const AFTER_A_KILL: Duration = Duration::from_millis(250);
/// How long after a kill a client may learn of it, on a machine that is busy with other things.
const HEARD_OF: Duration = Duration::from_secs(2);

/// Those whose counts are compared; `b` is not among them, as it loses its counts each time it is taken out.
pub struct Upstreams<'a> {
    pub a: &'a Upstream,
    pub drained: &'a Upstream,
    pub killed: &'a Upstream,
}

/// A line of the access log.
#[derive(Debug, Deserialize)]
struct Line {
    target: String,
    status: u16,
    pool: Option<String>,
    upstream: Option<String>,
    upstream_status: Option<u16>,
    attempts: u32,
    refusal: Option<String>,
}

/// Counts by whatever they are told apart by.
type Counts<K> = BTreeMap<K, u64>;

/// What the log says, all in all.
#[derive(Debug, Default)]
struct Logged {
    lines: u64,
    classes: Counts<u16>,
    refusals: Counts<String>,
    to_pool: u64,
    /// Lines that name the upstream.
    last_at: Counts<String>,
    /// Answers of upstreams, by upstream and class.
    answers: Counts<(String, u16)>,
    refused: u64,
    cut: u64,
    left: u64,
    retried: u64,
    /// The longest from a kill until a client knew.
    heard_after: Duration,
}

/// Compares what clients know with the log, the metrics page and the upstreams.
pub async fn settle(proxy: &Proxy, records: &[Record], done: &Done, upstreams: &Upstreams<'_>) {
    assert!(!done.kills.is_empty() && done.drains > 0 && done.edits > 0, "too little was done: {done}");
    until("all connections of clients are closed, and each request that was counted has its line", async || {
        let page = page(proxy).await;
        let open = page.sum("tidegate_listener_connections_open") + page.sum("tidegate_listener_requests_in_flight");
        let counted = page.sum("tidegate_listener_requests_total");
        (open == 0 && page.sum("tidegate_access_log_lines_total") == counted).then_some(())
    })
    .await;
    let logged = read(proxy.folder(), records, done, &upstreams.killed.address());
    println!("{logged}");
    assert_eq!(logged.lines, records.len() as u64);
    assert!(logged.retried > 0, "no kill was felt");
    page(proxy).await.agrees(&logged, upstreams);
    for upstream in [upstreams.a, upstreams.drained] {
        let lines = logged.last_at.get(&upstream.address()).copied();
        assert_eq!(Some(upstream.requests()), lines, "{} has seen what the log says", upstream.address());
        assert_eq!(upstream.stats().in_flight(), 0);
    }
}

/// Reads all logs and holds each line against its request.
fn read(folder: &Path, records: &[Record], done: &Done, killed: &str) -> Logged {
    let mut logged = Logged::default();
    let mut seen = vec![false; records.len()];
    let mut problems = Vec::new();
    let files = std::fs::read_dir(folder).expect("the folder is there").map(|file| file.expect("a file").path());
    for file in files.filter(|path| path.file_stem().is_some_and(|name| name.to_string_lossy().starts_with("access"))) {
        for text in BufReader::new(std::fs::File::open(file).expect("a log")).lines() {
            let text = text.expect("text");
            let line: Line = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            let Some(number) = Asked::number_in(&line.target).filter(|number| *number < records.len()) else {
                problems.push(format!("nobody sent it: {text}"));
                continue;
            };
            if std::mem::replace(&mut seen[number], true) {
                problems.push(format!("logged twice: {text}"));
            }
            if let Err(problem) = judge(&records[number], &line, done, killed) {
                problems.push(format!("{problem}: {:?} {text}", records[number]));
            }
            logged.add(&line, &records[number], done);
        }
    }
    let missing =
        seen.iter().zip(records).filter(|(seen, _)| !**seen).map(|(_, record)| format!("not logged: {record:?}"));
    problems.extend(missing);
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems[..problems.len().min(20)].join("\n"));
    logged
}

/// Whether the request's end is one that it may have, and the log tells the same.
fn judge(record: &Record, line: &Line, done: &Done, killed: &str) -> Result<(), &'static str> {
    let Some((ended, outcome)) = &record.ended else { return Err("never answered") };
    if outcome.status() != line.status {
        return Err("the log has another status");
    }
    // Who leaves just ahead of a kill may be overtaken by it.
    let ended = if matches!(outcome, Outcome::Left(_)) { *ended + AFTER_A_KILL } else { *ended };
    let struck = line.upstream.as_deref() == Some(killed) && heard_after(record, ended, done).is_some();
    match outcome {
        Outcome::Whole(101 | 200) if line.refusal.is_none() => Ok(()),
        Outcome::Whole(101 | 200) => Err("whole, but not in the log"),
        Outcome::Whole(502) if record.kind == Kind::Once && struck && line.refusal.is_some() => Ok(()),
        Outcome::Whole(_) => Err("refused"),
        // The end of a tunnel's one side is an end in order.
        Outcome::Broken(101, _) if struck => Ok(()),
        Outcome::Broken(200, _) if record.kind != Kind::Safe && struck && line.refusal.is_some() => Ok(()),
        Outcome::Broken(..) => Err("broken"),
        Outcome::Left(200) if line.refusal.as_deref() == Some("client_closed") || struck => Ok(()),
        Outcome::Left(_) => Err("left, but not in the log"),
    }
}

/// How long after a kill the request ended which that can have ended.
fn heard_after(record: &Record, ended: Instant, done: &Done) -> Option<Duration> {
    let possible = |(from, to): &&(Instant, Instant)| {
        record.begun <= *to + AFTER_A_KILL && ended >= *from && ended <= *to + HEARD_OF
    };
    done.kills.iter().find(possible).map(|(from, _)| ended - *from)
}

impl Logged {
    fn add(&mut self, line: &Line, record: &Record, done: &Done) {
        self.lines += 1;
        *self.classes.entry(line.status / 100).or_default() += 1;
        if let Some(refusal) = &line.refusal {
            *self.refusals.entry(refusal.clone()).or_default() += 1;
        }
        self.to_pool += u64::from(line.pool.is_some());
        self.retried += u64::from(line.attempts > 1);
        if let Some(upstream) = &line.upstream {
            *self.last_at.entry(upstream.clone()).or_default() += 1;
            if let Some(status) = line.upstream_status {
                *self.answers.entry((upstream.clone(), status / 100)).or_default() += 1;
            }
        }
        let Some((ended, outcome)) = &record.ended else { return };
        match outcome {
            Outcome::Whole(502) => self.refused += 1,
            Outcome::Broken(..) => self.cut += 1,
            Outcome::Left(_) => self.left += 1,
            _ => return,
        }
        if !matches!(outcome, Outcome::Left(_)) {
            self.heard_after = self.heard_after.max(heard_after(record, *ended, done).unwrap_or_default());
        }
    }
}

impl fmt::Display for Logged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Logged { lines, retried, refused, cut, left, heard_after, .. } = self;
        write!(
            f,
            "{lines} lines: {retried} tried again, {refused} refused and {cut} cut by kills, {left} left by clients"
        )?;
        write!(f, "; clients knew of a kill after {heard_after:.0?} at most; refusals {:?}", self.refusals)
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Done { kills, drains, edits, refused, removals, signals, rotations } = self;
        write!(
            f,
            "{} kills, {drains} drains, {edits} edits ({removals} took an upstream out), {refused} wrong edits",
            kills.len()
        )?;
        write!(f, ", {signals} signals, {rotations} rotations")
    }
}

/// The metrics page.
struct Page(String);

async fn page(proxy: &Proxy) -> Page {
    Page(proxy.admin().get("/metrics").await.text())
}

impl Page {
    /// The sum of all series whose name and labels begin so.
    fn sum(&self, series: &str) -> u64 {
        let values = self.0.lines().filter(|line| line.starts_with(series)).filter_map(|line| line.rsplit_once(' '));
        values.map(|(_, value)| value.parse::<f64>().expect("a number")).sum::<f64>() as u64
    }

    fn agrees(&self, logged: &Logged, upstreams: &Upstreams<'_>) {
        for class in 1..=5 {
            let count = logged.classes.get(&class).copied().unwrap_or(0);
            let of =
                |listener| format!("tidegate_listener_requests_total{{listener=\"{listener}\",class=\"{class}xx\"}}");
            assert_eq!(self.sum(&of("web")) + self.sum(&of("secure")), count, "{class}xx");
        }
        assert_eq!(self.sum("tidegate_route_requests_total{"), logged.lines);
        assert_eq!(self.sum("tidegate_route_request_duration_seconds_count{"), logged.lines);
        for counter in ["arrivals", "completions"] {
            assert_eq!(self.sum(&format!("tidegate_pool_{counter}_total{{pool=\"app\"")), logged.to_pool, "{counter}");
        }
        for upstream in [upstreams.a, upstreams.drained, upstreams.killed] {
            let address = upstream.address();
            let series = format!("tidegate_upstream_requests_total{{pool=\"app\",upstream=\"{address}\",");
            for class in 1..=5 {
                let count = logged.answers.get(&(address.clone(), class)).copied().unwrap_or(0);
                assert_eq!(self.sum(&format!("{series}class=\"{class}xx\"")), count, "{address} {class}xx");
            }
        }
        assert_eq!(self.sum("tidegate_refusals_total{"), logged.refusals.values().sum::<u64>());
        for (reason, count) in &logged.refusals {
            assert_eq!(self.sum(&format!("tidegate_refusals_total{{reason=\"{reason}\"}}")), *count, "{reason}");
        }
        for gauge in [
            "listener_requests_in_flight",
            "route_requests_in_flight",
            "upstream_requests_in_flight",
            "listener_connections_open",
            "access_log_lines_total{outcome=\"lost\"}",
            "pool_retries_denied_total",
            "pool_unfit_total",
            "pool_full_total",
        ] {
            assert_eq!(self.sum(&format!("tidegate_{gauge}")), 0, "{gauge}");
        }
        assert_eq!(self.sum("tidegate_upstream_connections_open"), self.sum("tidegate_upstream_connections_idle"));
        assert_eq!(self.sum("tidegate_access_log_lines_total{outcome=\"written\"}"), logged.lines);
    }
}
