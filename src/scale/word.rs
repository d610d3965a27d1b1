//! The words that a scaler is configured with.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::types::{Share, format_duration, parse_duration};

/// Why a word could not be read; its text says what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct WordError(pub(super) String);

fn expected(what: &str) -> WordError {
    WordError(what.to_owned())
}

macro_rules! choice {
    ($(#[doc = $doc:literal])* $name:ident { $($(#[doc = $variant_doc:literal])* $variant:ident = $word:literal,)* }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[doc = $variant_doc])* $variant,)* }

        impl $name {
            /// Each with its word.
            pub const WORDS: &'static [(&'static str, $name)] = &[$(($word, $name::$variant),)*];

            /// Its word.
            pub const fn word(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }
    };
}

choice! {
    /// What a scaler may do.
    Mode {
        /// Nothing.
        Off = "off",
        /// Look and learn.
        Observe = "observe",
        /// Decide and tell, but change nothing.
        DryRun = "dry_run",
        /// Only add.
        UpOnly = "up_only",
        /// Add and remove.
        On = "on",
    }
}

choice! {
    /// What a scaler is like, in one word.
    Profile {
        /// Small reserve, quick to shrink.
        Fast = "fast",
        /// The default.
        Balanced = "balanced",
        /// Slow to shrink, few changes.
        Calm = "calm",
    }
}

choice! {
    /// Which of several policies counts.
    Select {
        /// The one that allows the greatest change.
        Max = "max",
        /// The one that allows the smallest change.
        Min = "min",
        /// No change in this direction.
        Disabled = "disabled",
    }
}

choice! {
    /// What the leader is elected on.
    LeaderKind {
        /// This proxy is alone.
        None = "none",
        /// A lock on a file: proxies of one host.
        File = "file",
        /// A key in Redis.
        Redis = "redis",
        /// A Lease of Kubernetes.
        Kubernetes = "kubernetes",
    }
}

choice! {
    /// Who leaves first.
    VictimOrder {
        /// Whoever has the fewest sessions, then the fewest streams and requests.
        FewestSessions = "fewest_sessions",
        /// Whoever has the fewest requests in flight.
        LeastInFlight = "least_in_flight",
        /// Whoever is there longest.
        Oldest = "oldest",
        /// Whoever came last.
        Newest = "newest",
    }
}

choice! {
    /// The signal that asks a process to stop.
    StopSignal {
        /// SIGTERM.
        Term = "TERM",
        /// SIGINT.
        Int = "INT",
        /// SIGQUIT.
        Quit = "QUIT",
        /// SIGUSR1.
        Usr1 = "USR1",
        /// SIGUSR2.
        Usr2 = "USR2",
        /// SIGHUP.
        Hup = "HUP",
    }
}

/// What can be scaled by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Offered load in erlangs.
    Load,
    /// Requests a second.
    Rps,
    /// Requests in progress at upstreams.
    InFlight,
    /// Long-lived streams and tunnels, as far as they are known; else requests in progress.
    Connections,
    /// Requests that wait.
    QueueDepth,
    /// How long the first of them has waited, in seconds.
    QueueWait,
    /// The 95th percentile of the time to an answer, in seconds.
    LatencyP95,
    /// Requests a second that were refused for want of room.
    Saturation,
    /// The share of answers that are 5xx.
    Errors,
    /// Sessions.
    Sessions,
    /// CPU, as a share of what an instance may use.
    Cpu,
    /// Memory, as a share of what an instance may use.
    Memory,
    /// Requests in progress as a share of all slots.
    PoolUtilisation,
    /// Instances that are ready.
    Ready,
    /// A value from elsewhere, by its name.
    External(String),
}

const METRICS: [(&str, Metric); 14] = [
    ("load", Metric::Load),
    ("rps", Metric::Rps),
    ("in_flight", Metric::InFlight),
    ("connections", Metric::Connections),
    ("queue_depth", Metric::QueueDepth),
    ("queue_wait", Metric::QueueWait),
    ("latency_p95", Metric::LatencyP95),
    ("saturation", Metric::Saturation),
    ("errors", Metric::Errors),
    ("sessions", Metric::Sessions),
    ("cpu", Metric::Cpu),
    ("memory", Metric::Memory),
    ("pool_utilisation", Metric::PoolUtilisation),
    ("ready", Metric::Ready),
];

impl FromStr for Metric {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        if let Some(name) = text.strip_prefix("external:").filter(|name| !name.is_empty()) {
            return Ok(Metric::External(name.to_owned()));
        }
        let found = METRICS.iter().find(|(word, _)| *word == text).map(|(_, metric)| metric.clone());
        found.ok_or_else(|| {
            let words: Vec<&str> = METRICS.iter().map(|(word, _)| *word).collect();
            WordError(format!("one of {} or \"external:NAME\"", words.join(", ")))
        })
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Metric::External(name) => write!(f, "external:{name}"),
            known => f.write_str(METRICS.iter().find(|(_, metric)| metric == known).map_or("", |(word, _)| word)),
        }
    }
}

/// What a signal is to be: HPA's `averageUtilization`, `averageValue` and `value`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A share of what an instance can do.
    Utilization(f64),
    /// For each instance.
    PerInstance(f64),
    /// Of the whole.
    Value(f64),
}

impl FromStr for Target {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let wrong = || expected("a target such as \"70%\", \"30\" (for each instance) or \"value:500\"");
        let target = if text.ends_with('%') {
            Target::Utilization(text.parse::<Share>().map_err(|_| wrong())?.0)
        } else if let Some(value) = text.strip_prefix("value:") {
            Target::Value(number(value).ok_or_else(wrong)?)
        } else {
            Target::PerInstance(number(text).ok_or_else(wrong)?)
        };
        let (Target::Utilization(amount) | Target::PerInstance(amount) | Target::Value(amount)) = target;
        if amount > 0.0 { Ok(target) } else { Err(wrong()) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Utilization(share) => write!(f, "{}", Share(*share)),
            Target::PerInstance(value) => write!(f, "{value}"),
            Target::Value(value) => write!(f, "value:{value}"),
        }
    }
}

/// A finite number; a duration counts in seconds, a share as itself.
pub(super) fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    if let Ok(share) = text.parse::<Share>() {
        return Some(share.0);
    }
    let plain = text.parse::<f64>().ok().filter(|number| number.is_finite());
    plain.or_else(|| parse_duration(text).ok().map(|span| span.as_secs_f64()))
}

/// How many may come or go in which time: `"4/15s"`, `"100%/15s"`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pace {
    /// How many.
    pub amount: Amount,
    /// Seconds.
    pub period: f64,
}

/// Paces as one text: `"50% or 4 pods per minute"`; what has no period of its own has the last one's.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Paces(pub Vec<Pace>);

impl FromStr for Paces {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let plain = text.replace(" per ", "/");
        let last = plain.rsplit_once('/').map_or("", |(_, period)| period);
        let whole = |part: &str| if part.contains('/') { part.to_owned() } else { format!("{part}/{last}") };
        plain.split(" or ").map(|part| whole(part).parse()).collect::<Result<_, _>>().map(Paces)
    }
}

impl fmt::Display for Paces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(" or "))
    }
}

/// So many, or such a share.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Amount {
    /// Instances.
    Count(u32),
    /// Percent of what was there when the period began.
    Percent(u32),
}

impl FromStr for Pace {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let wrong = || expected("a pace such as \"4/15s\", \"100%/15s\" or \"4 pods per minute\"");
        let plain = text.trim().replace(" per ", "/");
        let plain =
            [" pods", " pod", " instances", " instance"].iter().fold(plain, |text, word| text.replace(word, ""));
        let (amount, period) = plain.split_once('/').ok_or_else(wrong)?;
        let amount = amount.trim();
        let amount = match amount.strip_suffix('%') {
            Some(percent) => Amount::Percent(percent.trim().parse().map_err(|_| wrong())?),
            None => Amount::Count(amount.parse().map_err(|_| wrong())?),
        };
        let period = match period.trim() {
            "second" | "s" => 1.0,
            "minute" | "min" | "m" => 60.0,
            "hour" | "h" => 3600.0,
            span => parse_duration(span).map_err(|_| wrong())?.as_secs_f64(),
        };
        if period > 0.0 { Ok(Pace { amount, period }) } else { Err(wrong()) }
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = format_duration(std::time::Duration::from_secs_f64(self.period));
        match self.amount {
            Amount::Count(count) => write!(f, "{count}/{period}"),
            Amount::Percent(percent) => write!(f, "{percent}%/{period}"),
        }
    }
}

/// What a threshold policy does to the number of instances: `"+2"`, `"-1"`, `"+50%"`, `"=10"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Adjust {
    /// So many more, or fewer.
    Count(i32),
    /// So many percent more (rounded up), or fewer (rounded down); at least one.
    Percent(i32),
    /// So many.
    To(u32),
}

impl FromStr for Adjust {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let wrong = || expected("a change such as \"+2\", \"-1\", \"+50%\", \"-10%\" or \"=10\"");
        let text = text.trim();
        if let Some(to) = text.strip_prefix('=') {
            return to.trim().parse().map(Adjust::To).map_err(|_| wrong());
        }
        if !text.starts_with(['+', '-']) {
            return Err(wrong());
        }
        match text.strip_suffix('%') {
            Some(percent) => percent.trim().parse().map(Adjust::Percent).map_err(|_| wrong()),
            None => text.parse().map(Adjust::Count).map_err(|_| wrong()),
        }
    }
}

impl fmt::Display for Adjust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Adjust::Count(count) => write!(f, "{count:+}"),
            Adjust::Percent(percent) => write!(f, "{percent:+}%"),
            Adjust::To(to) => write!(f, "={to}"),
        }
    }
}

/// When a threshold policy acts: comparisons of metrics with numbers, joined by `and` or by `or`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// Whether one comparison is enough.
    pub any: bool,
    /// At least one.
    pub comparisons: Vec<Comparison>,
}

/// `queue_wait > 500ms`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// What is compared.
    pub metric: Metric,
    /// Whether it must be above the bound; otherwise below.
    pub above: bool,
    /// Whether the bound itself counts.
    pub or_equal: bool,
    /// With what; times in seconds, shares as shares.
    pub bound: f64,
    /// The bound as it was written.
    pub written: String,
}

impl Comparison {
    /// Whether it holds for this value.
    pub fn holds(&self, value: f64) -> bool {
        (self.or_equal && value == self.bound) || if self.above { value > self.bound } else { value < self.bound }
    }
}

impl FromStr for Condition {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let (any, parts): (bool, Vec<&str>) = match (text.contains(" or "), text.contains(" and ")) {
            (true, true) => return Err(expected("comparisons joined by `and` or by `or`, not by both")),
            (true, false) => (true, text.split(" or ").collect()),
            _ => (false, text.split(" and ").collect()),
        };
        let comparisons = parts.into_iter().map(str::parse).collect::<Result<_, _>>()?;
        Ok(Condition { any, comparisons })
    }
}

impl FromStr for Comparison {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let wrong = || expected("a comparison such as \"queue_wait > 500ms\" or \"cpu >= 80%\"");
        let at = text.find(['<', '>']).ok_or_else(wrong)?;
        let (metric, rest) = text.split_at(at);
        let above = rest.starts_with('>');
        let rest = &rest[1..];
        let (or_equal, bound) = rest.strip_prefix('=').map_or((false, rest), |bound| (true, bound));
        let written = bound.trim().to_owned();
        let bound = number(&written).ok_or_else(wrong)?;
        Ok(Comparison { metric: metric.trim().parse()?, above, or_equal, bound, written })
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.above { '>' } else { '<' };
        let equal = if self.or_equal { "=" } else { "" };
        write!(f, "{} {sign}{equal} {}", self.metric, self.written)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.any { " or " } else { " and " };
        let texts: Vec<String> = self.comparisons.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads_back<T: FromStr<Err = WordError> + fmt::Display + PartialEq + fmt::Debug>(text: &str, shown: &str) {
        let value: T = text.parse().unwrap();
        assert_eq!(value.to_string(), shown);
        assert_eq!(shown.parse::<T>().as_ref(), Ok(&value));
    }

    #[test]
    fn words_read_back() {
        reads_back::<Metric>("external:queue", "external:queue");
        reads_back::<Metric>("latency_p95", "latency_p95");
        reads_back::<Target>("70%", "70%");
        reads_back::<Target>("300ms", "0.3");
        reads_back::<Target>("value:500", "value:500");
        reads_back::<Pace>("100%/15s", "100%/15s");
        reads_back::<Pace>("4 pods per minute", "4/1m");
        reads_back::<Paces>("50% or 4 pods per minute", "50%/1m or 4/1m");
        reads_back::<Paces>("10% per minute", "10%/1m");
        reads_back::<Paces>("100%/15s or 4/30s", "100%/15s or 4/30s");
        reads_back::<Adjust>("+50%", "+50%");
        reads_back::<Adjust>("-1", "-1");
        reads_back::<Adjust>("=10", "=10");
        reads_back::<Condition>("cpu < 30% or rps<5", "cpu < 30% or rps < 5");
        reads_back::<Condition>("queue_wait >= 500ms and ready < 10", "queue_wait >= 500ms and ready < 10");
    }

    #[test]
    fn what_is_no_word_is_refused() {
        for text in ["", "load >", "load 5", "nothing > 5", "cpu > 1 and rps > 2 or ready > 3", "cpu > x"] {
            assert!(text.parse::<Condition>().is_err(), "{text}");
        }
        assert!("2".parse::<Adjust>().is_err());
        assert!("0/0s".parse::<Pace>().is_err());
        assert!("50% or 4".parse::<Paces>().is_err());
        assert!("".parse::<Paces>().is_err());
        assert!("0".parse::<Target>().is_err());
    }

    #[test]
    fn a_comparison_holds_on_its_side_only() {
        let above: Comparison = "queue_wait > 500ms".parse().unwrap();
        assert_eq!([0.4, 0.5, 0.6].map(|value| above.holds(value)), [false, false, true]);
        let below: Comparison = "cpu <= 30%".parse().unwrap();
        assert_eq!([0.2, 0.3, 0.4].map(|value| below.holds(value)), [true, true, false]);
    }
}
