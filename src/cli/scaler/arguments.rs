use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::arguments::AdminArguments;
use crate::scale::Profile;
use crate::types::{Share, parse_duration};

/// How times can be given, where a command takes one.
const TIMES: &str = "Times are local: 14:02:11 (the last time it was that late), -5m (five minutes ago), \
2026-11-26T14:02:11, 2026-11-26T14:02:11Z, or seconds since 1970.";

/// What can be asked and told about scaling.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ScalerCommand {
    /// Show every pool's scaler, and what needs attention
    Status {
        /// Show this pool alone, with each of its instances
        pool: Option<String>,
        /// As JSON, everything there is
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// Say why a pool has as many instances as it has: every term, source and limit of a decision
    Explain(ExplainArguments),
    /// List what was changed, and what came of it
    History(HistoryArguments),
    /// Say what is wrong and what to do; with --config also what this machine lacks for that configuration
    #[command(after_help = "Exit codes: 0 nothing critical, 1 something critical, or no answer.")]
    Doctor {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// Leave a pool's number of instances as it is for a while; those that die are still replaced
    Pause {
        /// The pool
        pool: String,
        /// For so long
        #[arg(value_name = "DURATION", default_value = "30m", value_parser = parse_duration)]
        lasting: Duration,
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// End a pause
    Resume {
        /// The pool
        pool: String,
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// Have so many instances for a while, whatever the load; or end that
    Set {
        /// The pool
        pool: String,
        /// How many
        #[arg(required_unless_present = "end", conflicts_with = "end")]
        to: Option<u32>,
        /// For so long
        #[arg(long = "for", value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
        lasting: Duration,
        /// Go by the load again
        #[arg(long)]
        end: bool,
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// Replace all instances of a pool, one at a time, each replacement first
    Recycle {
        /// The pool
        pool: String,
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// Turn a Kubernetes HorizontalPodAutoscaler (YAML) into a configuration
    Import {
        /// The manifest
        file: PathBuf,
        /// The pool's name; the manifest's unless given
        #[arg(long)]
        pool: Option<String>,
    },
    /// Replay recorded or made-up traffic through this and other ways to scale, and compare
    Simulate(SimulateArguments),
    /// Plan ahead from what was measured
    #[command(subcommand)]
    Plan(PlanCommand),
    /// Write a report of what scaling did, with recommendations
    Report(ReportArguments),
    /// Print Prometheus rules for a configuration: recording rules and alerts with its numbers
    Alerts {
        /// The configuration; ./tidegate.toml, then /etc/tidegate/tidegate.toml
        file: Option<PathBuf>,
    },
    /// Print the Grafana dashboard (JSON)
    Dashboard,
}

/// `tidegate scaler explain`.
#[derive(Debug, Args)]
#[command(after_help = TIMES)]
pub(in crate::cli) struct ExplainArguments {
    /// The pool
    pub(in crate::cli) pool: String,
    /// The decision in force at this time; the last one unless given
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(in crate::cli) at: Option<String>,
    /// Say what kept it from having more, and from having fewer
    #[arg(long)]
    pub(in crate::cli) why_not: bool,
    /// Show the scaler's settings instead, every default and profile filled in
    #[arg(long, conflicts_with_all = ["at", "why_not"])]
    pub(in crate::cli) settings: bool,
    /// As JSON, everything there is
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArguments,
}

/// `tidegate scaler history`.
#[derive(Debug, Args)]
#[command(after_help = TIMES)]
pub(in crate::cli) struct HistoryArguments {
    /// The pool; all of them unless given
    pub(in crate::cli) pool: Option<String>,
    /// From this time on, or for so long back
    #[arg(long, value_name = "TIME", default_value = "24h", allow_hyphen_values = true)]
    pub(in crate::cli) since: String,
    /// Decisions that changed nothing too
    #[arg(long)]
    pub(in crate::cli) all: bool,
    /// Before and after: waits, latency, errors, and the verdict
    #[arg(long)]
    pub(in crate::cli) effect: bool,
    /// As JSON, everything there is
    #[arg(long, conflicts_with = "csv")]
    pub(in crate::cli) json: bool,
    /// As comma-separated values
    #[arg(long)]
    pub(in crate::cli) csv: bool,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArguments,
}

/// `tidegate scaler simulate`.
#[derive(Debug, Args)]
pub(in crate::cli) struct SimulateArguments {
    /// The pool whose traffic, settings and measured service and start-up times are taken; the only one unless given
    pub(in crate::cli) pool: Option<String>,
    /// Replay what the running proxy has recorded: for so long back
    #[arg(long, value_name = "TIME", default_value = "24h", allow_hyphen_values = true)]
    pub(in crate::cli) from: String,
    /// Replay a file instead: lines of SECONDS,REQUESTS-A-SECOND (or RFC 3339 times); asks no running proxy
    #[arg(long, value_name = "FILE", conflicts_with = "shape")]
    pub(in crate::cli) rates: Option<PathBuf>,
    /// Make traffic up instead; asks no running proxy
    #[arg(long, value_enum)]
    pub(in crate::cli) shape: Option<Shape>,
    /// With --shape: requests a second at its highest
    #[arg(long, value_name = "RPS", default_value = "200")]
    pub(in crate::cli) peak: f64,
    /// With --shape: how long
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    pub(in crate::cli) length: Duration,
    /// How long a request is worked on; as measured, else 100ms
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(in crate::cli) service: Option<Duration>,
    /// How many requests an instance really takes at once; as measured, else 4
    #[arg(long, value_name = "N")]
    pub(in crate::cli) concurrency: Option<u32>,
    /// How long a start takes; as measured, else 10s
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(in crate::cli) start: Option<Duration>,
    /// The fewest instances; as configured, else 1
    #[arg(long)]
    pub(in crate::cli) min: Option<u32>,
    /// The most; as configured, else 40
    #[arg(long)]
    pub(in crate::cli) max: Option<u32>,
    /// A wait longer than this is a violation
    #[arg(long, value_name = "DURATION", default_value = "250ms", value_parser = parse_duration)]
    pub(in crate::cli) slo: Duration,
    /// Profiles to compare
    #[arg(long, value_delimiter = ',', default_value = "fast,balanced,calm", value_parser = profile)]
    pub(in crate::cli) profile: Vec<Profile>,
    /// Compare with this HorizontalPodAutoscaler
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) hpa: Option<PathBuf>,
    /// Compare with Knative's autoscaler at this utilization, in percent
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(in crate::cli) kpa: Option<u32>,
    /// What chance begins with: the same seed, the same result
    #[arg(long, default_value_t = 1)]
    pub(in crate::cli) seed: u64,
    /// As JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArguments,
}

/// Traffic that is made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum Shape {
    /// A tenth of the peak, then all of it at once
    Step,
    /// From a tenth to the peak and back, evenly
    Ramp,
    /// Four days, each a quarter of the length
    Diurnal,
    /// A fifth of the peak with four sudden crowds
    Flash,
    /// A saw of two minutes
    Sawtooth,
    /// On for 90 seconds, off for 90
    OnOff,
}

fn profile(text: &str) -> Result<Profile, String> {
    let found = Profile::WORDS.iter().find(|(word, _)| *word == text).map(|(_, profile)| *profile);
    found.ok_or_else(|| "expected fast, balanced or calm".to_owned())
}

/// `tidegate scaler plan`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PlanCommand {
    /// How many instances the coming months need, what they cost, and when the maximum is too small
    Growth {
        /// The pool; the only one unless given
        pool: Option<String>,
        /// Growth of the load: 15%/month, 100%/year
        #[arg(long, value_name = "SHARE/TIME", default_value = "15%/month", value_parser = monthly)]
        rate: f64,
        /// How far to look
        #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=120))]
        months: u32,
        /// Room on top of the peak
        #[arg(long, value_name = "SHARE", default_value = "20%")]
        margin: Share,
        /// The peak load, in requests in progress at once; as measured unless given
        #[arg(long, value_name = "ERLANGS")]
        peak: Option<f64>,
        #[command(flatten)]
        period: Period,
    },
    /// What the recorded traffic costs under each profile, what it is worth to reserve, and what stands idle
    Cost {
        /// The pool; the only one unless given
        pool: Option<String>,
        /// Profiles to compare
        #[arg(long, value_delimiter = ',', default_value = "fast,balanced,calm", value_parser = profile)]
        scenario: Vec<Profile>,
        #[command(flatten)]
        period: Period,
    },
    /// What to change: minimum, maximum, profile, memory, each with its evidence
    RightSize {
        /// The pool; all of them unless given
        pool: Option<String>,
        #[command(flatten)]
        period: Period,
    },
}

/// What a plan is made from.
#[derive(Debug, Args)]
pub(in crate::cli) struct Period {
    /// What was recorded from this time on, or for so long back
    #[arg(long, value_name = "TIME", default_value = "7d", allow_hyphen_values = true)]
    pub(in crate::cli) since: String,
    /// As JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArguments,
}

/// `15%/month` as 0.15; a year's growth as the month's that makes it.
fn monthly(text: &str) -> Result<f64, String> {
    let wrong = || "expected growth such as 15%/month or 100%/year".to_owned();
    let (share, time) = text.split_once('/').unwrap_or((text, "month"));
    let percent: f64 = share.trim().strip_suffix('%').and_then(|p| p.trim().parse().ok()).ok_or_else(wrong)?;
    let rate = percent / 100.0;
    if !(rate > -1.0 && rate <= 100.0) {
        return Err(wrong());
    }
    match time.trim() {
        "month" => Ok(rate),
        "year" => Ok((1.0 + rate).powf(1.0 / 12.0) - 1.0),
        _ => Err(wrong()),
    }
}

/// `tidegate scaler report`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("form").args(["html", "md", "json"]).required(true).multiple(true))]
pub(in crate::cli) struct ReportArguments {
    /// The pool; all of them unless given
    pub(in crate::cli) pool: Option<String>,
    /// From this time on, or for so long back
    #[arg(long, value_name = "TIME", default_value = "24h", allow_hyphen_values = true)]
    pub(in crate::cli) since: String,
    /// As one self-contained HTML page
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) html: Option<PathBuf>,
    /// As Markdown
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) md: Option<PathBuf>,
    /// As JSON
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) json: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArguments,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_by_the_month_or_the_year() {
        assert_eq!(monthly("15%/month"), Ok(0.15));
        assert_eq!(monthly("-10 % / month"), Ok(-0.1));
        assert!((monthly("100%/year").unwrap() - 0.059_463).abs() < 1e-6);
        for text in ["15", "15%/week", "x%/month", "-100%/month", "NaN%/month"] {
            assert!(monthly(text).is_err(), "{text}");
        }
    }
}
