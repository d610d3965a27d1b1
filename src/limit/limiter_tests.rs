use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn rule(rate: &str, burst: u32) -> Rule {
    Rule { rate: Some(rate.parse().unwrap()), burst, ..Rule::default() }
}

fn client(n: u32) -> ClientKey {
    ClientKey::address(IpAddr::V4(n.into()))
}

fn at(ms: u64) -> Moment {
    Moment::START + Duration::from_millis(1_000_000 + ms)
}

/// Asks on a connection of its own.
fn ask(limiter: &Limiter, n: u32, now: Moment) -> Admission {
    limiter.admit(client(n), &ConnectionSeats::new(), now)
}

fn refusal(admission: Admission) -> Refusal {
    match admission {
        Admission::Refuse(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

fn passes(admission: &Admission) -> bool {
    matches!(admission, Admission::Proceed(..))
}

#[test]
fn each_client_has_its_own_burst() {
    let limiter = Limiter::new(rule("10/s", 2));
    for n in 0..3 {
        assert_eq!((0..10).filter(|_| passes(&ask(&limiter, n, at(0)))).count(), 3);
    }
    assert_eq!(limiter.size(), 3);
}

#[test]
fn retry_after_is_true_and_the_headers_add_up() {
    let limiter = Limiter::new(rule("1/5s", 1));
    let Admission::Proceed(_, Some(standing)) = ask(&limiter, 1, at(0)) else { panic!() };
    assert_eq!((standing.limit(), standing.remaining(), standing.reset()), (2, 1, Duration::from_secs(5)));
    assert!(passes(&ask(&limiter, 1, at(0))));
    let refused = refusal(ask(&limiter, 1, at(700)));
    assert_eq!((refused.reason, refused.retry_after_seconds()), (Reason::Rate, 5));
    assert_eq!(refused.standing.unwrap().remaining(), 0);
    assert_eq!(refused.standing.unwrap().reset(), Duration::from_millis(9300));
    let mut headers = HeaderMap::new();
    refused.tell(&mut headers);
    let told = ["retry-after", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"].map(|name| &headers[name]);
    assert_eq!(told, ["5", "2", "0", "10"]);
    assert!(!passes(&ask(&limiter, 1, at(4_999))));
    assert!(passes(&ask(&limiter, 1, at(700) + Duration::from_secs(refused.retry_after_seconds()))));
}

#[test]
fn a_request_above_the_rate_waits_its_turn_and_no_longer_than_asked_for() {
    let limiter = Limiter::new(Rule { delay: Duration::from_millis(200), ..rule("10/s", 0) });
    assert!(passes(&ask(&limiter, 1, at(0))));
    for expected in [100, 200] {
        let Admission::Wait(wait, _, Some(standing)) = ask(&limiter, 1, at(0)) else { panic!() };
        assert_eq!((wait, standing.remaining()), (Duration::from_millis(expected), 0));
    }
    assert_eq!(refusal(ask(&limiter, 1, at(0))).retry_after, Duration::from_millis(300));
}

#[test]
fn a_permit_holds_its_request_until_it_is_dropped() {
    let limiter = Limiter::new(Rule { requests: Some(2), ..Rule::default() });
    let first = ask(&limiter, 1, at(0));
    let _second = ask(&limiter, 1, at(0));
    assert_eq!(refusal(ask(&limiter, 1, at(0))).reason, Reason::Requests);
    assert_eq!(refusal(ask(&limiter, 1, at(0))).retry_after_seconds(), 1);
    assert!(passes(&ask(&limiter, 2, at(0))));
    drop(first);
    assert!(passes(&ask(&limiter, 1, at(0))));
}

#[test]
fn a_refusal_for_want_of_a_seat_costs_no_rate() {
    let limiter = Limiter::new(Rule { requests: Some(1), ..rule("1/h", 1) });
    let first = ask(&limiter, 1, at(0));
    assert_eq!(refusal(ask(&limiter, 1, at(0))).reason, Reason::Requests);
    drop(first);
    assert!(passes(&ask(&limiter, 1, at(0))));
    assert_eq!(refusal(ask(&limiter, 1, at(0))).reason, Reason::Rate);
}

#[test]
fn a_connection_counts_once_while_it_has_requests_and_not_between_them() {
    let limiter = Limiter::new(Rule { connections: Some(2), ..Rule::default() });
    let (one, two, three) = (ConnectionSeats::new(), ConnectionSeats::new(), ConnectionSeats::new());
    let first = limiter.admit(client(1), &one, at(0));
    let streams: Vec<_> = (0..50).map(|_| limiter.admit(client(1), &two, at(0))).collect();
    assert!(streams.iter().all(passes));
    assert_eq!(refusal(limiter.admit(client(1), &three, at(0))).reason, Reason::Connections);
    assert!(passes(&limiter.admit(client(2), &three, at(0))));
    drop(first);
    assert!(passes(&limiter.admit(client(1), &three, at(0))));
    assert!(passes(&limiter.admit(client(1), &one, at(0))));
    drop(streams);
    let again = [limiter.admit(client(1), &one, at(0)), limiter.admit(client(1), &three, at(0))];
    assert!(again.iter().all(passes));
    assert_eq!(refusal(limiter.admit(client(1), &two, at(0))).reason, Reason::Connections);
}

#[test]
fn a_connection_may_be_gone_before_its_last_body() {
    let limiter = Limiter::new(Rule { connections: Some(1), ..Rule::default() });
    let connection = ConnectionSeats::new();
    let permit = limiter.admit(client(1), &connection, at(0));
    drop(connection);
    assert!(!passes(&ask(&limiter, 1, at(0))));
    drop(permit);
    assert!(passes(&ask(&limiter, 1, at(0))));
}

#[test]
fn one_connection_with_ever_new_keys_remembers_none_of_them() {
    let limiter = Limiter::new(Rule { per: "header:x-key".parse().unwrap(), connections: Some(1), ..Rule::default() });
    let connection = ConnectionSeats::new();
    for n in 0..1000 {
        let held = [limiter.admit(client(n), &connection, at(0)), limiter.admit(client(n + 5000), &connection, at(0))];
        assert!(held.iter().all(passes));
    }
    assert!(format!("{connection:?}").matches("Seat {").count() <= 2);
}

#[test]
fn a_reload_keeps_clients_and_permits_and_honours_the_new_numbers() {
    let limiter = Limiter::new(Rule { requests: Some(1), ..rule("1/min", 0) });
    let permit = ask(&limiter, 1, at(0));
    let next = limiter.with_rule(Rule { requests: Some(2), ..rule("1/s", 0) }, at(0));
    let refused = refusal(ask(&next, 1, at(0)));
    assert_eq!((refused.reason, refused.retry_after), (Reason::Rate, Duration::from_secs(1)));
    let second = ask(&next, 1, at(1000));
    assert!(passes(&second));
    assert_eq!(refusal(ask(&next, 1, at(9000))).reason, Reason::Requests);
    drop(permit);
    assert!(passes(&ask(&next, 1, at(9000))));
    let others = next.with_rule(Rule { per: Per::All, ..rule("1/s", 0) }, at(9000));
    assert_eq!((others.size(), next.size()), (0, 1));
}

#[test]
fn several_limits_are_asked_as_one() {
    let per_client = Arc::new(Limiter::new(rule("1/s", 0)));
    let everybody = Arc::new(Limiter::new(Rule { per: Per::All, ..rule("1/s", 9) }));
    let limiters = [everybody.clone(), per_client];
    let (headers, connection) = (HeaderMap::new(), ConnectionSeats::new());
    let mut counted = Vec::new();
    let mut ask = |n: u32| {
        let who = Who { client: IpAddr::V4(n.into()), headers: &headers, principal: None, connection: &connection };
        admit_all(&limiters, who, at(0), |index, decision| counted.push((index, decision)))
    };
    let Admission::Proceed(_, Some(standing)) = ask(1) else { panic!() };
    assert_eq!((standing.limit(), standing.remaining()), (1, 0));
    for _ in 0..100 {
        let refused = refusal(ask(1));
        assert_eq!((refused.limiter, refused.reason), (1, Reason::Rate));
    }
    assert!((2..11).all(|n| passes(&ask(n))), "the refused have cost the others nothing");
    assert_eq!(refusal(ask(11)).limiter, 0);
    assert_eq!(counted[..3], [(0, Decision::Admitted), (1, Decision::Admitted), (1, Decision::Refused(Reason::Rate))]);
}

#[test]
fn joined_limits_wait_for_the_longest_and_hold_everything() {
    let slow = Limiter::new(Rule { delay: Duration::from_secs(9), requests: Some(2), ..rule("1/s", 0) });
    let slower = Limiter::new(Rule { delay: Duration::from_secs(9), requests: Some(2), ..rule("1/3s", 0) });
    let limiters = [Arc::new(slow), Arc::new(slower)];
    let (headers, connection) = (HeaderMap::new(), ConnectionSeats::new());
    let who = Who { client: IpAddr::V4(1.into()), headers: &headers, principal: None, connection: &connection };
    let first = admit_all(&limiters, who, at(0), |_, _| {});
    let Admission::Wait(wait, permit, _) = admit_all(&limiters, who, at(0), |_, _| {}) else { panic!() };
    assert_eq!(wait, Duration::from_secs(3));
    assert_eq!(refusal(admit_all(&limiters, who, at(60_000), |_, _| {})).reason, Reason::Requests);
    drop((first, permit));
    assert!(passes(&admit_all(&limiters, who, at(60_000), |_, _| {})));
    assert!(passes(&admit_all(&[], who, at(0), |_, _| {})));
}

#[test]
fn threads_are_let_through_exactly_as_often_as_allowed() {
    let limiter = Limiter::new(Rule { requests: Some(1500), ..rule("1/h", 999) });
    let counts: Vec<(usize, usize)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8u32)
            .map(|thread| {
                let limiter = &limiter;
                scope.spawn(move || {
                    let shared = (0..600).filter(|_| passes(&ask(limiter, 0, at(0)))).count();
                    let own = (0..1100).filter(|_| passes(&ask(limiter, 1 + thread, at(0)))).count();
                    (shared, own)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(counts.iter().map(|(shared, _)| shared).sum::<usize>(), 1000);
    assert!(counts.iter().all(|(_, own)| *own == 1000));
}

#[test]
fn threads_never_hold_more_at_once_than_allowed_and_leave_nothing_behind() {
    let limiter = Limiter::new(Rule { requests: Some(3), connections: Some(3), ..Rule::default() });
    let (running, most) = (std::sync::atomic::AtomicU32::new(0), std::sync::atomic::AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let connection = ConnectionSeats::new();
                for _ in 0..2000 {
                    let admission = limiter.admit(client(1), &connection, at(0));
                    if passes(&admission) {
                        use std::sync::atomic::Ordering::SeqCst;
                        most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                        running.fetch_sub(1, SeqCst);
                    }
                }
            });
        }
    });
    assert!(most.into_inner() <= 3);
    limiter.sweep(at(100_000));
    assert_eq!(limiter.size(), 0);
}

/// What a limiter should do, without its cleverness: everything that happened is remembered and counted anew.
#[derive(Default)]
struct Model {
    /// Per client: the debt in nanoseconds as of a moment.
    owed: HashMap<u32, (u128, u64)>,
    /// Per client: the connection of each request in progress.
    running: HashMap<u32, Vec<usize>>,
}

impl Model {
    fn admit(&mut self, rule: &Rule, n: u32, connection: usize, now: u64) -> Decision {
        let running = self.running.entry(n).or_default();
        if rule.requests.is_some_and(|max| running.len() >= max as usize) {
            return Decision::Refused(Reason::Requests);
        }
        let mut connections: Vec<usize> = running.clone();
        connections.push(connection);
        connections.sort_unstable();
        connections.dedup();
        if rule.connections.is_some_and(|max| connections.len() > max as usize) && !running.contains(&connection) {
            return Decision::Refused(Reason::Connections);
        }
        let mut wait = 0;
        if let Some(rate) = rule.rate {
            let interval = rate.per.as_nanos().div_ceil(u128::from(rate.count));
            let (owed, since) = self.owed.get(&n).copied().unwrap_or_default();
            let owed = owed.saturating_sub(u128::from(now - since));
            wait = owed.saturating_sub(interval * u128::from(rule.burst));
            if wait > rule.delay.as_nanos() {
                return Decision::Refused(Reason::Rate);
            }
            self.owed.insert(n, (owed + interval, now));
        }
        running.push(connection);
        if wait == 0 { Decision::Admitted } else { Decision::Delayed }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Ask { client: u32, connection: usize, after_ms: u64 },
    End { which: usize },
    Sweep,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ask = (0u32..4, 0usize..6, prop_oneof![Just(0u64), 0u64..400, Just(90_000)])
        .prop_map(|(client, connection, after_ms)| Step::Ask { client, connection, after_ms });
    let step = prop_oneof![6 => ask, 2 => (0usize..64).prop_map(|which| Step::End { which }), 1 => Just(Step::Sweep)];
    prop::collection::vec(step, 1..120)
}

fn rules() -> impl Strategy<Value = Rule> {
    let rate =
        prop::option::of((1u32..40, 1u64..3000).prop_map(|(count, ms)| Rate { count, per: Duration::from_millis(ms) }));
    let numbers = (0u32..5, 0u64..500, prop::option::of(1u32..5), prop::option::of(1u32..4));
    (rate, numbers).prop_map(|(rate, (burst, delay, requests, connections))| Rule {
        rate,
        burst,
        delay: Duration::from_millis(delay),
        requests,
        connections,
        ..Rule::default()
    })
}

proptest! {
    #[test]
    fn a_limiter_decides_as_the_plain_model_does(rule in rules(), steps in steps()) {
        let limiter = Limiter::new(rule.clone());
        let connections: Vec<_> = (0..6).map(|_| ConnectionSeats::new()).collect();
        let mut model = Model::default();
        let mut now = at(0);
        let mut held: Vec<(u32, usize, Admission)> = Vec::new();
        for step in steps {
            match step {
                Step::Ask { client: n, connection, after_ms } => {
                    now = now + Duration::from_millis(after_ms);
                    let admission = limiter.admit(client(n), &connections[connection], now);
                    prop_assert_eq!(admission.decision(), model.admit(&rule, n, connection, now.nanos()));
                    if !matches!(admission, Admission::Refuse(_)) {
                        held.push((n, connection, admission));
                    }
                }
                Step::End { which } if !held.is_empty() => {
                    let (n, connection, _permit) = held.swap_remove(which % held.len());
                    let running = model.running.get_mut(&n).unwrap();
                    running.swap_remove(running.iter().position(|on| *on == connection).unwrap());
                }
                Step::End { .. } => {}
                Step::Sweep => limiter.sweep(now),
            }
        }
        held.clear();
        limiter.sweep(now + Duration::from_secs(10_000));
        prop_assert_eq!(limiter.size(), 0);
    }
}
