use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::types::Moment;

/// What one upstream has to do right now, and how fast it has been.
///
/// One for each upstream (pool and address); it survives reloads and is shared by all workers. All of it is on one
/// cache line of its own: a worker that takes a request to an upstream touches exactly this one.
///
/// **Source**: Finagle's `PeakEwma` and linkerd2's: a latency above the average replaces it at once, one below it is
/// blended in by the time that has passed, `w = exp(-dt / 10 s)`. The average fades while nothing is heard.
#[derive(Default)]
pub struct Load {
    counters: CachePadded<Counters>,
}

#[derive(Default)]
struct Counters {
    in_flight: AtomicU32,
    /// A [`Pace`], packed so that one compare-and-swap replaces average and time together.
    pace: AtomicU64,
}

/// The average latency, and when it was last heard of.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Pace {
    /// Nanoseconds; zero where there was no sample yet.
    nanos: f32,
    /// In ticks of 2^20 ns (about a millisecond), wrapping after 52 days. Differences of more than half of that read as
    /// zero: an upstream that was idle for a month keeps an average that has not faded, until its next sample.
    tick: u32,
}

impl Pace {
    fn unpack(bits: u64) -> Self {
        Pace { nanos: f32::from_bits((bits >> 32) as u32), tick: bits as u32 }
    }

    fn pack(self) -> u64 {
        u64::from(self.nanos.to_bits()) << 32 | u64::from(self.tick)
    }

    /// What is left of the average at `tick`: `exp(-dt / 10 s)`, and not more than 1 where clocks disagree.
    fn fading(self, tick: u32) -> f32 {
        let ticks = tick.wrapping_sub(self.tick) as i32;
        (-(ticks.max(0) as f32) * (TICK_NANOS / DECAY_NANOS)).exp()
    }

    fn with(self, nanos: f32, tick: u32) -> Self {
        let newer = tick.wrapping_sub(self.tick) as i32 > 0;
        let kept = self.fading(tick);
        let average = if nanos > self.nanos { nanos } else { self.nanos * kept + nanos * (1.0 - kept) };
        // Another worker's clock may be a little ahead of ours: time only goes on.
        let first = self.nanos == 0.0;
        Pace { nanos: average, tick: if newer || first { tick } else { self.tick } }
    }
}

/// Stands in the count of requests where nobody is let in; so it is looked at by whoever counts.
const SHUT: u32 = 1 << 31;

const TICK_NANOS: f32 = (1u64 << 20) as f32;
const DECAY_NANOS: f32 = Load::DECAY.as_nanos() as f32;

/// What is to be expected of an upstream; see [`super::ewma`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Outlook {
    pub(super) in_flight: u32,
    /// Nanoseconds; `None` where there was no sample yet.
    pub(super) latency: Option<f32>,
}

impl Load {
    /// The time constant of the average: after so long without a sample `1/e` of it is left.
    pub const DECAY: Duration = Duration::from_secs(10);

    /// An upstream that has nothing to do and was never heard of.
    pub fn new() -> Self {
        Load::default()
    }

    /// Requests in progress.
    pub fn in_flight(&self) -> u32 {
        self.counters.in_flight.load(Relaxed) & !SHUT
    }

    /// Lets nobody in from now on, if nobody is there: whoever was on the way in by an older snapshot has to look for another place.
    /// Whether nobody is there.
    pub fn shut_if_empty(&self) -> bool {
        let shut = self.counters.in_flight.compare_exchange(0, SHUT, SeqCst, SeqCst);
        shut.is_ok() || shut == Err(SHUT)
    }

    /// Lets nobody in from now on, whoever is there.
    pub fn shut(&self) {
        self.counters.in_flight.fetch_or(SHUT, SeqCst);
    }

    /// Lets everybody in again.
    pub fn open(&self) {
        if self.is_shut() {
            self.counters.in_flight.fetch_and(!SHUT, SeqCst);
        }
    }

    /// Whether nobody is let in.
    pub fn is_shut(&self) -> bool {
        self.counters.in_flight.load(Relaxed) & SHUT != 0
    }

    /// Counts a request in, unless `max` are in progress already, or nobody is let in. Who was let in calls [`Load::leave`], once.
    ///
    /// **Bounds**: exact; however many workers enter, `max` is never exceeded, not even for a moment.
    pub fn enter(&self, max: Option<u32>) -> bool {
        let max = max.unwrap_or(SHUT).min(SHUT);
        // Not fetch_add and take back: the others would see the excess, and refuse what has room.
        self.counters.in_flight.fetch_update(Relaxed, Relaxed, |now| (now < max).then(|| now + 1)).is_ok()
    }

    /// The same for who has nowhere else to go: it is let in also where nobody is.
    pub fn enter_though_shut(&self, max: Option<u32>) -> bool {
        let max = max.unwrap_or(SHUT).min(SHUT);
        self.counters.in_flight.fetch_update(Relaxed, Relaxed, |now| (now & !SHUT < max).then(|| now + 1)).is_ok()
    }

    /// Counts a request out.
    pub fn leave(&self) {
        // Whoever leaves looks next whether somebody waits, and who begins to wait looks at this once more: one of them sees the other.
        let before = self.counters.in_flight.fetch_sub(1, SeqCst);
        debug_assert!(before & !SHUT > 0, "left without having entered");
    }

    /// Takes in how long an answer took (to its first byte).
    ///
    /// Only answers are samples. A failure is not: one that fails fast would draw all traffic to it; health judges
    /// those.
    ///
    /// **Bounds**: under contention a sample may be lost, after four other samples came in between.
    pub fn sample(&self, latency: Duration, now: Moment) {
        // At least a nanosecond: zero means that there was no sample.
        let nanos = (latency.as_nanos() as f32).max(1.0);
        let mut seen = self.counters.pace.load(Relaxed);
        for _ in 0..4 {
            let next = Pace::unpack(seen).with(nanos, tick(now)).pack();
            if next == seen {
                return;
            }
            match self.counters.pace.compare_exchange_weak(seen, next, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(other) => seen = other,
            }
        }
    }

    /// The peak-sensitive average latency, as faded by `now`; zero where there was no sample yet.
    pub fn ewma(&self, now: Moment) -> Duration {
        let pace = Pace::unpack(self.counters.pace.load(Relaxed));
        Duration::from_nanos((pace.nanos * pace.fading(tick(now))) as u64)
    }

    /// What is to be expected of it.
    ///
    /// While it has nothing to do its average fades, so that one that was slow is asked again. While it has requests
    /// the average stands as it was when it last answered: silence is no good news from somebody who is being waited
    /// for.
    pub(super) fn outlook(&self, now: Moment) -> Outlook {
        let in_flight = self.in_flight();
        let pace = Pace::unpack(self.counters.pace.load(Relaxed));
        let latency = match (pace.nanos == 0.0, in_flight) {
            (true, _) => None,
            (false, 0) => Some(pace.nanos * pace.fading(tick(now))),
            (false, _) => Some(pace.nanos),
        };
        Outlook { in_flight, latency }
    }
}

fn tick(now: Moment) -> u32 {
    (now.nanos() >> 20) as u32
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pace = Pace::unpack(self.counters.pace.load(Relaxed));
        f.debug_struct("Load").field("in_flight", &self.in_flight()).field("pace", &pace).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::AtomicBool;

    fn at(millis: u64) -> Moment {
        Moment::START + Duration::from_millis(millis)
    }

    fn about(left: Duration, right: Duration) -> bool {
        left.abs_diff(right) <= right / 100
    }

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_slowly() {
        let load = Load::new();
        assert_eq!(load.ewma(at(0)), Duration::ZERO);
        load.sample(Duration::from_millis(10), at(0));
        load.sample(Duration::from_millis(100), at(1));
        assert!(about(load.ewma(at(1)), Duration::from_millis(100)));
        load.sample(Duration::from_millis(10), at(10_001));
        let expected = Duration::from_secs_f64(0.1 * (-1f64).exp() + 0.01 * (1.0 - (-1f64).exp()));
        assert!(about(load.ewma(at(10_001)), expected), "{:?}", load.ewma(at(10_001)));
    }

    #[test]
    fn it_fades_while_nothing_is_heard_but_not_while_somebody_waits() {
        let load = Load::new();
        load.sample(Duration::from_secs(1), at(0));
        assert!(about(load.ewma(at(20_000)), Duration::from_secs_f64((-2f64).exp())));
        assert!(load.outlook(at(20_000)).latency.unwrap() < 0.14e9);
        assert!(load.enter(None));
        assert_eq!(load.outlook(at(20_000)).latency, Some(1e9));
    }

    #[test]
    fn an_older_clock_does_not_turn_time_back() {
        let load = Load::new();
        load.sample(Duration::from_millis(10), at(5_000));
        load.sample(Duration::from_millis(20), at(1_000));
        assert!(about(load.ewma(at(15_000)), Duration::from_secs_f64(0.02 * (-1f64).exp())));
        assert!(about(load.ewma(at(0)), Duration::from_millis(20)));
    }

    #[test]
    fn many_workers_never_exceed_the_maximum_and_leave_nothing_behind() {
        const MAX: u32 = 3;
        let load = Load::new();
        let exceeded = AtomicBool::new(false);
        let entered = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        if !load.enter(Some(MAX)) {
                            continue;
                        }
                        entered.fetch_add(1, Relaxed);
                        exceeded.fetch_or(load.in_flight() > MAX, Relaxed);
                        load.leave();
                    }
                });
            }
        });
        assert!(!exceeded.into_inner());
        assert!(entered.into_inner() > 0);
        assert_eq!(load.in_flight(), 0);
    }

    #[test]
    fn once_it_is_shut_nobody_comes_in() {
        for _ in 0..200 {
            let load = Load::new();
            assert!(load.enter(None) && !load.shut_if_empty(), "somebody is there");
            load.leave();
            std::thread::scope(|scope| {
                for max in [None, Some(3)] {
                    let load = &load;
                    // Each comes and goes until it finds the door closed.
                    scope.spawn(move || {
                        while load.enter(max) {
                            load.leave();
                        }
                    });
                }
                while !load.shut_if_empty() {
                    std::hint::spin_loop();
                }
                assert_eq!(load.in_flight(), 0);
            });
            assert!(load.is_shut() && load.shut_if_empty() && !load.enter(None) && !load.enter(Some(1)));
            assert!(load.enter_though_shut(Some(1)) && !load.enter_though_shut(Some(1)), "who has nowhere else to go");
            assert_eq!(load.in_flight(), 1);
            load.leave();
            load.open();
            assert!(load.enter(Some(1)) && !load.enter(Some(1)));
            load.shut();
            assert_eq!((load.in_flight(), load.enter(None)), (1, false), "who is there may stay");
        }
    }

    proptest! {
        #[test]
        fn the_average_stays_between_the_least_and_the_greatest(samples in prop::collection::vec((1u64..10_000_000, 0u64..5_000), 1..50)) {
            let load = Load::new();
            let mut now = 1;
            for (micros, wait) in &samples {
                now += wait;
                load.sample(Duration::from_micros(*micros), at(now));
            }
            let micros = load.ewma(at(now)).as_secs_f64() * 1e6;
            let least = samples.iter().map(|(micros, _)| *micros).min().unwrap() as f64;
            let greatest = samples.iter().map(|(micros, _)| *micros).max().unwrap() as f64;
            prop_assert!(micros >= least * 0.999 - 1.0 && micros <= greatest * 1.001 + 1.0, "{micros} outside {least}..{greatest}");
        }
    }
}
