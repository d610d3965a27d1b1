use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;

use super::fault::{Fault, Kind};
use super::histogram::Histogram;

/// A request that is sent longer than this after it was due is late. Less is the machine's own unrest.
pub(super) const LATE: Duration = Duration::from_millis(1);

/// When a request was due and when it was sent, since the load began. The same in a closed loop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) due: Duration,
    pub(super) sent: Duration,
    /// A connection was free for it when it was due: where it is late all the same, this machine was too busy.
    pub(super) free: bool,
}

/// A whole answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Of its body.
    pub(super) bytes: u64,
}

/// What has come of the load so far, on one thread or on all.
///
/// Knows no clock. Every request is counted in [`Tally::begun`], and at its end as an answer or as a failure.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) begun: u64,
    pub(super) latency: Histogram,
    /// Answers by the first digit of their status.
    pub(super) classes: [u64; 10],
    pub(super) bytes: u64,
    pub(super) failures: BTreeMap<Kind, Failures>,
    pub(super) late: u64,
    /// Those of them for which a connection was free.
    pub(super) late_though_free: u64,
    /// The longest that a request was sent after it was due.
    pub(super) latest: Duration,
    pub(super) reconnects: u64,
    /// When the last whole answer was there.
    pub(super) last_answer: Duration,
    /// When the last request ended, in whatever way.
    pub(super) last_end: Duration,
}

/// Failures of one kind.
#[derive(Debug, Clone, Default)]
pub(super) struct Failures {
    pub(super) count: u64,
    /// The cause of the first one.
    pub(super) example: String,
}

impl Tally {
    pub(super) fn begin(&mut self) {
        self.begun += 1;
    }

    /// Counts how a request ended. Latency is that of answers, from when they were due.
    pub(super) fn end(&mut self, request: Sent, now: Duration, outcome: Result<Answer, Fault>) {
        self.last_end = self.last_end.max(now);
        if !outcome.as_ref().is_err_and(|fault| fault.kind == Kind::Unsent) {
            let wait = request.sent.saturating_sub(request.due);
            self.late += u64::from(wait > LATE);
            self.late_though_free += u64::from(wait > LATE && request.free);
            self.latest = self.latest.max(wait);
        }
        match outcome {
            Ok(answer) => {
                self.latency.record(now.saturating_sub(request.due));
                self.classes[usize::from(answer.status.as_u16() / 100)] += 1;
                self.bytes += answer.bytes;
                self.last_answer = self.last_answer.max(now);
            }
            Err(fault) => {
                let failures = self.failures.entry(fault.kind).or_default();
                failures.count += 1;
                if failures.example.is_empty() {
                    failures.example = fault.cause;
                }
            }
        }
    }

    /// Counts all that `other` has counted.
    pub(super) fn add(&mut self, other: Tally) {
        self.begun += other.begun;
        self.latency.add(&other.latency);
        self.classes.iter_mut().zip(other.classes).for_each(|(mine, theirs)| *mine += theirs);
        self.bytes += other.bytes;
        for (kind, theirs) in other.failures {
            let mine = self.failures.entry(kind).or_default();
            mine.count += theirs.count;
            if mine.example.is_empty() {
                mine.example = theirs.example;
            }
        }
        self.late += other.late;
        self.late_though_free += other.late_though_free;
        self.latest = self.latest.max(other.latest);
        self.reconnects += other.reconnects;
        self.last_answer = self.last_answer.max(other.last_answer);
        self.last_end = self.last_end.max(other.last_end);
    }

    pub(super) fn answers(&self) -> u64 {
        self.classes.iter().sum()
    }

    pub(super) fn failed(&self) -> u64 {
        self.failures.values().map(|failures| failures.count).sum()
    }

    /// Whether there were answers, and nothing but 2xx and 3xx.
    pub(super) fn all_good(&self) -> bool {
        let good = self.classes[2] + self.classes[3];
        good > 0 && good == self.answers() && self.failed() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::schedule::Schedule;
    use super::*;

    const OK: Answer = Answer { status: StatusCode::OK, bytes: 10 };

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A load in virtual time on so many connections; the server answers within 0.5 ms, but stands still from 0.5 s to 0.8 s.
    fn stalled(rate: Option<f64>, connections: usize) -> Tally {
        let schedule = Schedule::new(rate.unwrap_or(1000.0), 2000, 0, 1);
        let mut tally = Tally::default();
        let mut free_at = vec![Duration::ZERO; connections];
        for n in 0..2000 {
            let free = free_at.iter_mut().min().unwrap();
            let due = rate.map_or(*free, |_| schedule.due(n).unwrap());
            let request = Sent { due, sent: due.max(*free), free: *free <= due };
            let stall =
                if (ms(500)..ms(800)).contains(&request.sent) { ms(800) - request.sent } else { Duration::ZERO };
            *free = request.sent + stall + Duration::from_micros(500);
            tally.begin();
            tally.end(request, *free, Ok(OK));
        }
        tally
    }

    #[test]
    fn a_stall_shows_in_the_latency_of_all_whom_it_kept_waiting() {
        let open = stalled(Some(1000.0), 1);
        assert_eq!(open.answers(), 2000);
        assert!(open.latency.quantile(0.99) > ms(280), "{:?}", open.latency.quantile(0.99));
        assert!(open.latency.quantile(0.90) > ms(150));
        assert_eq!(open.late_though_free, 0);
        assert!(open.late > 500 && open.latest > ms(295) && open.latest < ms(301), "{} {:?}", open.late, open.latest);
        let closed = stalled(None, 1);
        assert!(closed.latency.quantile(0.999) < ms(1), "which a closed loop hides");
        assert!(closed.latency.max() >= ms(299));
        assert_eq!((closed.late, closed.latest), (0, Duration::ZERO));
    }

    #[test]
    fn with_connections_to_spare_nothing_is_late_and_the_stall_shows_all_the_same() {
        let open = stalled(Some(1000.0), 400);
        assert_eq!(open.late, 0);
        assert!(open.latency.quantile(0.99) > ms(270) && open.latency.max() <= ms(301));
    }

    #[test]
    fn what_counts_as_good() {
        let request = Sent { due: ms(1), sent: ms(1), free: true };
        let one = |outcome| {
            let mut tally = Tally::default();
            tally.begin();
            tally.end(request, ms(2), outcome);
            tally
        };
        let status = |code| one(Ok(Answer { status: StatusCode::from_u16(code).unwrap(), bytes: 0 }));
        for (code, good) in [(200, true), (302, true), (404, false), (503, false), (799, false)] {
            assert_eq!(status(code).all_good(), good, "{code}");
        }
        assert!(!Tally::default().all_good(), "nothing was answered");
        let mut mixed = status(200);
        mixed.add(one(Err(Fault::new(Kind::Timeout, "late"))));
        mixed.add(one(Err(Fault::new(Kind::Timeout, "later"))));
        assert!(!mixed.all_good());
        assert_eq!((mixed.begun, mixed.answers(), mixed.failed()), (3, 1, 2));
        assert_eq!(mixed.failures[&Kind::Timeout].example, "late");
        assert_eq!(mixed.latency.max(), ms(1), "failures have no latency");
    }
}
