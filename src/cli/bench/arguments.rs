use std::ops::RangeInclusive;
use std::time::Duration;

use clap::{Args, value_parser};
use http::Method;

use crate::types::{Rate, format_duration, parse_duration};

/// The longest that a load lasts.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);
/// The longest that a request is waited for.
const PATIENCE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(600);
/// More requests in a second than one machine makes.
const MOST_PER_SECOND: f64 = 1e6;

const EXIT_CODES: &str = "\
Without --rate, each connection sends its next request when the last one is answered: a server that is slow is asked less.
With --rate, requests are due on a fixed schedule, and each one's latency counts from when it was due: a server that stalls
is seen by all whom it would have kept waiting.

Exit codes: 0 every answer was a 2xx or 3xx, 1 any was not or none came, 64 wrong usage.";

/// `tidegate bench`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(in crate::cli) struct BenchArguments {
    /// What to ask for: http://HOST[:PORT]/PATH or https://…
    pub(super) url: String,
    /// Connections, kept open
    #[arg(short, long, value_name = "N", default_value_t = 50, value_parser = value_parser!(u32).range(1..=20_000))]
    pub(super) connections: u32,
    /// Send no more after so long; 10s unless there is --requests, at most 1h
    #[arg(short, long, value_name = "DURATION", value_parser = duration)]
    pub(super) duration: Option<Duration>,
    /// Send so many requests
    #[arg(short = 'n', long, value_name = "N", value_parser = value_parser!(u64).range(1..=10_000_000_000))]
    pub(super) requests: Option<u64>,
    /// Requests a second over all connections, due on a fixed schedule: 500, or 90/min
    #[arg(short, long, value_name = "R", value_parser = rate)]
    pub(super) rate: Option<f64>,
    /// Speak HTTP/2: by ALPN with https, by prior knowledge with http
    #[arg(long)]
    pub(super) http2: bool,
    /// With --http2: requests at once on each connection
    #[arg(long, value_name = "N", default_value_t = 1, requires = "http2", value_parser = value_parser!(u32).range(1..=1000))]
    pub(super) streams: u32,
    /// The method; GET, or POST where there is a body
    #[arg(short = 'X', long)]
    pub(super) method: Option<Method>,
    /// A request header, as often as needed
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub(super) headers: Vec<String>,
    /// The request's body, or @FILE that holds it; at most 64MiB
    #[arg(long, value_name = "TEXT|@FILE")]
    pub(super) body: Option<String>,
    /// Give a request up after so long, from when it was due
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = timeout)]
    pub(super) timeout: Duration,
    /// Threads that the connections are spread over
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=256))]
    pub(super) threads: u32,
    /// Accept any certificate
    #[arg(long)]
    pub(super) insecure: bool,
    /// As JSON
    #[arg(long)]
    pub(super) json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_millis(1)..=LONGEST)
}

fn timeout(text: &str) -> Result<Duration, String> {
    within(text, PATIENCE)
}

fn within(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, String> {
    let found = parse_duration(text).map_err(|error| error.to_string())?;
    let bounds = || format!("expected {} to {}", format_duration(*range.start()), format_duration(*range.end()));
    if range.contains(&found) { Ok(found) } else { Err(bounds()) }
}

/// In a second: `500`, `0.5`, `90/min`.
fn rate(text: &str) -> Result<f64, String> {
    let each_second = match text.parse::<Rate>() {
        Ok(rate) => Some(f64::from(rate.count) / rate.per.as_secs_f64()),
        Err(_) => text.parse().ok(),
    };
    let wrong = || format!("expected requests a second such as 500, 0.5 or 90/min, at most {MOST_PER_SECOND}");
    each_second.filter(|rate| (1e-3..=MOST_PER_SECOND).contains(rate)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_by_the_second_unless_told() {
        assert_eq!((rate("500"), rate("0.5"), rate("90/min")), (Ok(500.0), Ok(0.5), Ok(1.5)));
        for text in ["", "0", "-1", "x", "1e9", "NaN", "inf", "5/"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_have_bounds() {
        assert_eq!((duration("1h"), timeout("250ms")), (Ok(LONGEST), Ok(Duration::from_millis(250))));
        assert_eq!(duration("2h"), Err("expected 1ms to 1h".to_owned()));
        for text in ["0s", "1h1ns", "ten"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
