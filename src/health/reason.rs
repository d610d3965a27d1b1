use std::fmt;
use std::time::Duration;

use super::outcomes::Trip;
use super::standing::State;
use crate::types::{Share, format_duration};

/// Something happened to an upstream that people should know. Where only its reason or its use changed, `from` and `to`
/// are the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// What it was.
    pub from: State,
    /// What it is.
    pub to: State,
    /// Why.
    pub reason: Reason,
}

/// Why an upstream is what it is; its text is for people.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// It is new and takes requests at once.
    Added,
    /// It is new and takes none before it has passed a check.
    AwaitingCheck,
    /// So many checks in a row passed.
    ChecksPassed(u32),
    /// So many checks in a row failed, the last because of this.
    ChecksFailed {
        /// How many.
        streak: u32,
        /// What the last one met.
        detail: String,
    },
    /// It is no longer checked.
    ChecksRemoved,
    /// It was sent away for failing requests.
    Ejected {
        /// Failures in a row.
        failures: u32,
        /// For how long.
        span: Duration,
    },
    /// It would have been sent away if there were not too many away already.
    NotEjected {
        /// Failures in a row.
        failures: u32,
        /// Upstreams of the pool that are ejected.
        ejected: usize,
        /// Upstreams of the pool that could be.
        members: usize,
        /// The most that may be.
        max_share: f64,
    },
    /// Its ejection is over.
    Returned,
    /// Its circuit is open.
    Opened {
        /// What opened it, where that is known.
        cause: Option<Trip>,
        /// For how long.
        span: Duration,
    },
    /// Its circuit is half open, with so many trial requests.
    HalfOpen(u32),
    /// Its circuit is closed again.
    CircuitClosed,
    /// It has no circuit breaker any more.
    BreakerRemoved,
    /// It drains, for so long at most.
    Draining(Duration),
    /// It drained to the last request, after so long.
    Empty(Duration),
    /// Its drain deadline passed with so many requests left.
    DeadlinePassed(u32),
    /// Somebody put it into maintenance.
    Maintenance,
    /// Somebody took it back into use.
    Recalled,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to {
            write!(f, "{}: {}", self.to, self.reason)
        } else {
            write!(f, "{} → {}: {}", self.from, self.to, self.reason)
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Added => f.write_str("added"),
            Reason::AwaitingCheck => f.write_str("waiting for its first good check"),
            Reason::ChecksPassed(streak) => write!(f, "{} passed", in_a_row(*streak, "check")),
            Reason::ChecksFailed { streak, detail } => write!(f, "{} failed: {detail}", in_a_row(*streak, "check")),
            Reason::ChecksRemoved => f.write_str("it is no longer checked"),
            Reason::Ejected { failures, span } => {
                write!(f, "ejected for {} after {}", format_duration(*span), in_a_row(*failures, "failure"))
            }
            Reason::NotEjected { failures, ejected, members, max_share } => write!(
                f,
                "not ejected after {}: {ejected} of {members} are ejected already, at most {} may be and one stays",
                in_a_row(*failures, "failure"),
                Share(*max_share)
            ),
            Reason::Returned => f.write_str("its ejection is over"),
            Reason::Opened { cause, span } => {
                write!(f, "circuit open for {}: ", format_duration(*span))?;
                match cause {
                    Some(Trip::OpenedByStreak(failures)) => f.write_str(&in_a_row(*failures, "failure")),
                    Some(Trip::OpenedByRate { failed, total }) => write!(f, "{failed} of {total} requests failed"),
                    Some(Trip::Reopened) => f.write_str("a trial request failed"),
                    _ => f.write_str("too many requests failed"),
                }
            }
            Reason::HalfOpen(trials) => write!(f, "circuit half open: {trials} trial requests must succeed"),
            Reason::CircuitClosed => f.write_str("circuit closed: the trial requests succeeded"),
            Reason::BreakerRemoved => f.write_str("it no longer has a circuit breaker"),
            Reason::Draining(deadline) => write!(f, "draining, for {} at most", format_duration(*deadline)),
            Reason::Empty(span) => write!(f, "nothing left to do, after {}", format_duration(rounded(*span))),
            Reason::DeadlinePassed(left) => write!(f, "its drain deadline passed with {left} requests left"),
            Reason::Maintenance => f.write_str("in maintenance"),
            Reason::Recalled => f.write_str("taken back into use"),
        }
    }
}

fn in_a_row(count: u32, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s in a row") }
}

/// To milliseconds: nobody reads on.
fn rounded(span: Duration) -> Duration {
    Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_read_as_people_say_them() {
        let seconds = Duration::from_secs;
        let refused = |streak| Reason::ChecksFailed { streak, detail: "connection refused".into() };
        for (reason, text) in [
            (refused(3), "3 checks in a row failed: connection refused"),
            (refused(1), "1 check failed: connection refused"),
            (Reason::Ejected { failures: 5, span: seconds(10) }, "ejected for 10s after 5 failures in a row"),
            (
                Reason::NotEjected { failures: 5, ejected: 1, members: 2, max_share: 0.5 },
                "not ejected after 5 failures in a row: 1 of 2 are ejected already, at most 50% may be and one stays",
            ),
            (
                Reason::Opened { cause: Some(Trip::OpenedByRate { failed: 12, total: 20 }), span: seconds(5) },
                "circuit open for 5s: 12 of 20 requests failed",
            ),
            (Reason::Empty(Duration::from_micros(3_000_400)), "nothing left to do, after 3s"),
        ] {
            assert_eq!(reason.to_string(), text);
        }
        let change = Change { from: State::Ready, to: State::Down, reason: refused(2) };
        assert_eq!(change.to_string(), "ready → down: 2 checks in a row failed: connection refused");
    }
}
