use std::collections::BTreeMap;

use crate::admin::scaling::{Finding, PoolSignals, Signals};

/// A peer that was not heard of for so long is silent. Asked once a second, it may miss one question.
const SILENT: f64 = 2.5;
/// So long a silent peer is taken to go on as before.
const REMEMBERED: f64 = 30.0;

/// What other proxies have seen of all pools since the last look.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Heard {
    /// By pool.
    pub pools: BTreeMap<String, PoolHeard>,
    /// Whether it is from all of them. Where it is not, nothing may be removed.
    pub complete: bool,
    /// The peers, and how many seconds ago each was heard of.
    pub peers: BTreeMap<String, Option<f64>>,
    /// Silent peers, and why.
    pub findings: Vec<Finding>,
}

/// What other proxies have seen of one pool since the last look.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PoolHeard {
    /// Requests that came.
    pub arrivals: f64,
    /// Requests that were done.
    pub completions: f64,
    /// How long those had held slots, together, in seconds.
    pub held: f64,
    /// Requests refused for want of room.
    pub saturated: f64,
    /// Errors of the application.
    pub errors: f64,
    /// Requests in progress.
    pub in_flight: f64,
    /// Requests that wait.
    pub queue: f64,
    /// The longest wait.
    pub oldest_wait: f64,
    /// The highest of their 95th percentiles.
    pub latency_p95: Option<f64>,
    /// Sessions.
    pub sessions: f64,
    /// Requests in progress by upstream address.
    pub upstreams: BTreeMap<String, u64>,
    /// Addresses of instances that are about to go, as whoever decides says.
    pub leaving: Vec<String>,
}

/// Adds up what peers tell. Pure: it is told the time, in seconds that never go back.
///
/// Each counter is unrolled over its peer's restarts into one that only grows. What was given out is remembered, so that what was assumed of a
/// silent peer is not counted again when it tells.
#[derive(Debug, Default)]
pub(super) struct Sum {
    peers: BTreeMap<String, Peer>,
}

#[derive(Debug, Default)]
struct Peer {
    heard: Option<f64>,
    proxy: String,
    wrong: Option<String>,
    pools: BTreeMap<String, Pool>,
}

#[derive(Debug, Default)]
struct Pool {
    last: PoolSignals,
    counters: [Counter; COUNTERS],
}

const COUNTERS: usize = 5;

/// One counter of one pool of one peer.
#[derive(Debug, Clone, Copy, Default)]
struct Counter {
    /// As it was told last.
    told: f64,
    /// Unrolled: only grows.
    total: f64,
    /// A second, by the last two answers.
    rate: f64,
    /// Of the total, what was given out.
    given: f64,
}

impl Sum {
    /// Of these peers and no others.
    pub(super) fn new(peers: &[String]) -> Sum {
        Sum { peers: peers.iter().map(|peer| (peer.clone(), Peer::default())).collect() }
    }

    /// A peer has told what it has seen.
    pub(super) fn hear(&mut self, peer: &str, signals: Signals, now: f64) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.hear(signals, now);
        }
    }

    /// That was no other.
    pub(super) fn forget(&mut self, peer: &str) {
        self.peers.remove(peer);
    }

    /// A peer could not be asked.
    pub(super) fn miss(&mut self, peer: &str, why: String) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.wrong = Some(why);
        }
    }

    /// What was seen since the last look.
    pub(super) fn take(&mut self, now: f64) -> Heard {
        let mut heard = Heard { complete: true, ..Heard::default() };
        for (url, peer) in &mut self.peers {
            let age = peer.heard.map(|at| (now - at).max(0.0));
            heard.peers.insert(url.clone(), age);
            if age.is_none_or(|age| age > SILENT) {
                heard.complete = false;
                heard.findings.extend(peer.wrong.as_ref().map(|why| silent(url, age, why)));
            }
            if let Some(age) = age {
                peer.give(age, &mut heard.pools);
            }
        }
        heard
    }
}

fn silent(url: &str, age: Option<f64>, why: &str) -> Finding {
    let since = age.map_or("has never been heard of".to_owned(), |age| format!("was last heard of {age:.0} s ago"));
    Finding {
        code: "PEER_SILENT".to_owned(),
        severity: "warning".to_owned(),
        pool: None,
        text: format!("the proxy at {url} {since}: {why}"),
        advice: "no instance is removed until it answers; take it out of `scaler.peers` if it is gone for good"
            .to_owned(),
    }
}

impl Peer {
    fn hear(&mut self, signals: Signals, now: f64) {
        // What was counted before we listened is nobody's news.
        let first = self.heard.is_none();
        let restarted = !first && self.proxy != signals.proxy;
        let span = self.heard.map_or(0.0, |at| now - at);
        // A pool that it has no more keeps its counters: it may come back with them.
        for pool in self.pools.iter_mut().filter(|(name, _)| !signals.pools.contains_key(*name)).map(|(_, pool)| pool) {
            pool.last = PoolSignals::default();
            pool.counters.iter_mut().for_each(|counter| counter.rate = 0.0);
        }
        for (name, told) in signals.pools {
            let pool = self.pools.entry(name).or_default();
            let counts = counters(&told);
            let restarted = restarted || counts.iter().zip(&pool.counters).any(|(new, counter)| *new < counter.told);
            for (counter, told) in pool.counters.iter_mut().zip(counts) {
                counter.hear(told, first, restarted, span);
            }
            pool.last = told;
        }
        self.heard = Some(now);
        self.proxy = signals.proxy;
        self.wrong = None;
    }

    fn give(&mut self, age: f64, pools: &mut BTreeMap<String, PoolHeard>) {
        let assumed = if age > SILENT { age.min(REMEMBERED) } else { 0.0 };
        for (name, pool) in &mut self.pools {
            let sum = pools.entry(name.clone()).or_default();
            let [arrivals, completions, held, saturated, errors] =
                pool.counters.each_mut().map(|counter| counter.give(assumed));
            sum.arrivals += arrivals;
            sum.completions += completions;
            sum.held += held;
            sum.saturated += saturated;
            sum.errors += errors;
            if age <= REMEMBERED {
                sum.add_state(&pool.last);
            }
        }
    }
}

impl Counter {
    fn hear(&mut self, told: f64, first: bool, restarted: bool, span: f64) {
        // After a restart it has counted from nothing.
        let more = if restarted { told } else { told - self.told };
        self.told = told;
        if first {
            return;
        }
        self.total += more;
        if span > 0.0 {
            self.rate = more / span;
        }
    }

    /// What is new, where its peer is taken to have gone on for `assumed` seconds.
    fn give(&mut self, assumed: f64) -> f64 {
        let total = self.total + self.rate * assumed;
        let new = (total - self.given).max(0.0);
        self.given += new;
        new
    }
}

impl PoolHeard {
    fn add_state(&mut self, told: &PoolSignals) {
        self.in_flight += told.in_flight;
        self.queue += told.queue as f64;
        self.oldest_wait = self.oldest_wait.max(told.oldest_wait);
        self.latency_p95 = match (self.latency_p95, told.latency_p95) {
            (Some(one), Some(other)) => Some(one.max(other)),
            (one, other) => one.or(other),
        };
        self.sessions += told.sessions as f64;
        for (address, count) in &told.upstreams {
            *self.upstreams.entry(address.clone()).or_default() += count;
        }
        self.leaving.extend(told.leaving.iter().cloned());
    }

    /// Takes in what was heard later: counts add up, what is so now replaces what was.
    pub(in crate::scaler) fn renew(&mut self, later: PoolHeard) {
        *self = PoolHeard {
            arrivals: self.arrivals + later.arrivals,
            completions: self.completions + later.completions,
            held: self.held + later.held,
            saturated: self.saturated + later.saturated,
            errors: self.errors + later.errors,
            oldest_wait: self.oldest_wait.max(later.oldest_wait),
            ..later
        };
    }

    /// Gives out the counts; what is so now stays.
    pub(in crate::scaler) fn give(&mut self) -> PoolHeard {
        let nothing = PoolHeard {
            arrivals: 0.0,
            completions: 0.0,
            held: 0.0,
            saturated: 0.0,
            errors: 0.0,
            oldest_wait: 0.0,
            ..self.clone()
        };
        std::mem::replace(self, nothing)
    }
}

fn counters(told: &PoolSignals) -> [f64; COUNTERS] {
    [told.arrivals as f64, told.completions as f64, told.held, told.saturated as f64, told.errors as f64]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(proxy: &str, arrivals: u64) -> Signals {
        let pool =
            PoolSignals { arrivals, completions: arrivals / 2, in_flight: 3.0, sessions: 2, ..PoolSignals::default() };
        Signals { proxy: proxy.to_owned(), at: 0.0, pools: [("tools".to_owned(), pool)].into() }
    }

    fn names() -> Vec<String> {
        vec!["a".to_owned(), "b".to_owned()]
    }

    fn arrivals(heard: &Heard) -> f64 {
        heard.pools.get("tools").map_or(0.0, |pool| pool.arrivals)
    }

    #[test]
    fn what_was_counted_before_is_no_news_and_what_comes_is_summed() {
        let mut sum = Sum::new(&names());
        assert!(!sum.take(0.0).complete);
        sum.hear("a", told("a1", 1000), 1.0);
        assert!(!sum.take(1.0).complete);
        sum.hear("b", told("b1", 50), 1.1);
        let heard = sum.take(1.2);
        assert!(heard.complete && heard.findings.is_empty());
        assert_eq!((arrivals(&heard), heard.pools["tools"].in_flight, heard.pools["tools"].sessions), (0.0, 6.0, 4.0));
        sum.hear("a", told("a1", 1010), 2.0);
        sum.hear("b", told("b1", 55), 2.1);
        assert_eq!(arrivals(&sum.take(2.2)), 15.0);
        assert_eq!(arrivals(&sum.take(2.3)), 0.0);
    }

    #[test]
    fn a_restarted_peer_counts_from_nothing() {
        let mut sum = Sum::new(&["a".to_owned()]);
        sum.hear("a", told("a1", 1000), 1.0);
        sum.take(1.0);
        sum.hear("a", told("a2", 7), 2.0);
        assert_eq!(arrivals(&sum.take(2.0)), 7.0);
        // Also one of the same name, or that has counted further than before.
        sum.hear("a", told("a2", 3), 3.0);
        assert_eq!(arrivals(&sum.take(3.0)), 3.0);
        sum.hear("a", told("a3", 10), 4.0);
        assert_eq!(arrivals(&sum.take(4.0)), 10.0);
    }

    #[test]
    fn a_silent_peer_goes_on_as_before_for_thirty_seconds_and_stays_missed() {
        let mut sum = Sum::new(&["a".to_owned()]);
        sum.hear("a", told("a1", 0), 0.0);
        sum.hear("a", told("a1", 10), 1.0);
        assert_eq!(arrivals(&sum.take(1.0)), 10.0);
        sum.miss("a", "connection refused".into());
        let mut assumed = 0.0;
        for second in 2..=60 {
            let heard = sum.take(f64::from(second));
            assert_eq!(heard.complete, second <= 3, "at {second}");
            assert_eq!(heard.findings.len(), usize::from(second > 3));
            assert_eq!(heard.pools["tools"].in_flight, if second <= 31 { 3.0 } else { 0.0 });
            assumed += arrivals(&heard);
        }
        assert_eq!(assumed, 300.0);
        // Much fewer came meanwhile: nothing is given until the truth has caught up.
        sum.hear("a", told("a1", 110), 61.0);
        assert_eq!(arrivals(&sum.take(61.0)), 0.0);
        sum.hear("a", told("a1", 330), 62.0);
        assert_eq!(arrivals(&sum.take(62.0)), 20.0);
    }

    #[test]
    fn a_pool_that_is_new_to_a_known_peer_counts_from_its_start() {
        let mut sum = Sum::new(&["a".to_owned()]);
        sum.hear("a", Signals { proxy: "a1".into(), ..Signals::default() }, 1.0);
        sum.hear("a", told("a1", 5), 2.0);
        assert_eq!(arrivals(&sum.take(2.0)), 5.0);
    }

    #[test]
    fn a_pool_that_was_away_for_a_moment_is_not_counted_again() {
        let mut sum = Sum::new(&["a".to_owned()]);
        sum.hear("a", told("a1", 1000), 1.0);
        sum.hear("a", Signals { proxy: "a1".into(), ..Signals::default() }, 2.0);
        assert_eq!(sum.take(2.0).pools["tools"], PoolHeard::default());
        sum.hear("a", told("a1", 1004), 3.0);
        assert_eq!(arrivals(&sum.take(3.0)), 4.0);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Hear { peer: usize, more: u64 },
        Restart { peer: usize, count: u64 },
        Take,
        Wait(f64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..2usize, 0..1000u64).prop_map(|(peer, more)| Step::Hear { peer, more }),
            1 => (0..2usize, 0..1000u64).prop_map(|(peer, count)| Step::Restart { peer, count }),
            4 => Just(Step::Take),
            4 => (0.0..6.0).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 1..80)
    }

    proptest! {
        /// However they answer, restart and fall silent: nothing is negative, nothing is lost, no more is assumed than silence allows, and it is
        /// complete if and only if all were heard of lately.
        #[test]
        fn what_is_given_is_what_came(steps in steps()) {
            let names = names();
            let mut sum = Sum::new(&names);
            let mut now = 0.0;
            let (mut count, mut life, mut heard_at) = ([100u64; 2], [0u32; 2], [None::<f64>; 2]);
            let (mut came, mut given, mut assumed) = (0.0, 0.0, 0.0);
            let mut rate = [0.0f64; 2];
            for step in steps.into_iter().chain([Step::Take]) {
                let (peer, more) = match step {
                    Step::Wait(span) => { now += span; continue }
                    Step::Take => {
                        let heard = sum.take(now);
                        let complete = heard_at.iter().all(|at| at.is_some_and(|at| now - at <= SILENT));
                        prop_assert_eq!(heard.complete, complete);
                        for peer in 0..2 {
                            let silent = heard_at[peer].map_or(0.0, |at| now - at);
                            if silent > SILENT { assumed += rate[peer] * silent.min(REMEMBERED); }
                        }
                        prop_assert!(heard.pools.values().all(|pool| pool.arrivals >= 0.0 && pool.completions >= 0.0));
                        given += arrivals(&heard);
                        continue;
                    }
                    Step::Hear { peer, more } => { count[peer] += more; (peer, more) }
                    Step::Restart { peer, count: new } => { life[peer] += 1; count[peer] = new; (peer, new) }
                };
                if let Some(at) = heard_at[peer] {
                    came += more as f64;
                    if now > at { rate[peer] = more as f64 / (now - at); }
                }
                heard_at[peer] = Some(now);
                sum.hear(&names[peer], told(&format!("{peer}-{}", life[peer]), count[peer]), now);
            }
            prop_assert!(given >= came - 1e-6, "given {given} of {came}");
            prop_assert!(given <= came + assumed + 1e-6, "given {given} of {came} and {assumed} assumed");
        }
    }
}
