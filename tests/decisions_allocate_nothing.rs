//! The decisions of a request's path take no memory: picking an upstream, asking its circuit, telling how it went,
//! repeating, routing, limiting, counting, writing a line of the access log.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tidegate::balance::{Algorithm, Cursor, Draw, Load, Member, Table, stable_hash};
use tidegate::health::{BreakerPolicy, EjectPolicy, Outcome, Outcomes, Policy};
use tidegate::limit::{ConnectionSeats, Limiter, Per, Rule, Who, admit_all};
use tidegate::retry::{Attempt, Body, Budget, Stage, may_repeat};
use tidegate::route::{self, Condition, Question, Subject, ValuePattern};
use tidegate::telemetry::access::{AccessLog, Format, Line, LineBuffer, Target};
use tidegate::telemetry::{Lane, Registry};
use tidegate::types::Moment;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes on to the system's allocator as it came; counting touches nothing but a thread local without
// a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often this thread takes memory while it does something.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

fn draw(n: u64, tried: &[u32]) -> Draw<'_> {
    let random = stable_hash(&n.to_le_bytes());
    Draw { now: Moment::from_nanos(1 + n), random, hash: Some(!random), tried }
}

#[test]
fn the_count_sees_an_allocation() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

#[test]
fn no_algorithm_allocates_in_a_pool_of_any_size_whether_there_is_room_or_not() {
    for (_, algorithm) in Algorithm::WORDS {
        for count in [1u32, 5, 40, 600] {
            let member = |id: u32| Member {
                id,
                load: Arc::new(Load::new()),
                weight: 1.0 + f64::from(id % 3),
                max: Some(2),
                backup: id % 7 == 6,
                identity: stable_hash(&id.to_le_bytes()),
            };
            let table = Table::new(algorithm, Some(0.25), (0..count).map(member).collect());
            let cursor = Cursor::new();
            let work = || {
                // Twice as many as there is room for.
                for n in 0..u64::from(count) * 4 {
                    if let Ok(id) = table.pick(&cursor, &draw(n, &[1, 2])) {
                        table.member(id).unwrap().load.sample(Duration::from_millis(n), Moment::from_nanos(n));
                    }
                }
            };
            assert_eq!(allocations(work), 0, "{algorithm} with {count} members");
        }
    }
}

#[test]
fn health_and_retry_allocate_nothing_whatever_happens() {
    let second = Duration::from_secs(1);
    let breaker =
        BreakerPolicy { error_rate: 0.9, min_requests: 100, window: second, failures: None, open: second, probes: 3 };
    let eject = EjectPolicy { failures: 3, time: second, max_time: second, max_share: 0.5 };
    let policy = Policy { breaker: Some(breaker), eject, ..Policy::default() };
    let outcomes = Outcomes::new();
    let budget = Budget::new();
    let work = || {
        for n in 0..1_000 {
            let now = Moment::from_nanos(n * 1_000_000);
            budget.deposit(1, now);
            let Some(pass) = outcomes.admit() else { continue };
            let outcome = if n % 5 == 0 { Outcome::Good } else { Outcome::Bad };
            outcomes.record(pass, outcome, &policy, now);
            let attempt =
                Attempt { method: &Method::GET, stage: Stage::Sent, body: Body::None, made: 1, allowed: 3, left: None };
            let _ = may_repeat(&attempt, &budget, 0.2, now);
        }
    };
    assert_eq!(allocations(work), 0);
}

#[test]
fn a_known_client_is_limited_without_allocations() {
    let rule = Rule { rate: "10/s".parse().ok(), burst: 5, connections: Some(4), ..Rule::default() };
    let by_key = Rule { per: "header:x-api-key".parse().unwrap(), requests: Some(3), ..rule.clone() };
    let by_cookie = Rule { per: Per::Cookie("sid".to_owned()), connections: None, ..rule.clone() };
    let mut headers = http::HeaderMap::new();
    headers.insert("x-api-key", "0123456789abcdef".parse().unwrap());
    headers.insert("cookie", "a=b; sid=0123456789abcdef".parse().unwrap());
    let connection = ConnectionSeats::new();
    let who = Who { client: "10.1.2.3".parse().unwrap(), headers: &headers, principal: None, connection: &connection };
    for rules in [vec![rule.clone()], vec![rule, by_key, by_cookie]] {
        let limiters: Vec<_> = rules.into_iter().map(|rule| Arc::new(Limiter::new(rule))).collect();
        let work = || {
            for n in 1..100u64 {
                let now = Moment::from_nanos(n * 50_000_000);
                let _first = admit_all(&limiters, who, now, |_, _| {});
                let _second = admit_all(&limiters, who, now, |_, _| {});
            }
        };
        work();
        assert_eq!(allocations(work), 0, "{} limits", limiters.len());
    }
}

#[test]
fn a_request_is_counted_and_logged_without_allocations() {
    let registry = Registry::new(1, 10, &["limited"]);
    let (route, lane) = (registry.route("api"), Lane::worker(0));
    let mut lines = LineBuffer::new(AccessLog::start(Target::Off, registry.log.clone()).unwrap());
    let formats = ["combined", "json", "{client} {path} {duration}"].map(|format| Format::parse(format).unwrap());
    let request = |n: u64, lines: &mut LineBuffer| {
        route.at(lane).finished(200, Duration::from_millis(n), 10, 1000);
        registry.at(lane).refusals.up(0);
        let at = Moment::from_nanos(n * 700_000_000);
        let client = Some("2001:db8::7".parse().unwrap());
        lines.write(&formats[n as usize % 3], &Line { at, client, target: "/\"?x", ..Line::default() });
    };
    (0..60).for_each(|n| request(n, &mut lines));
    lines.tick();
    assert_eq!(allocations(|| (0..50).for_each(|n| request(n, &mut lines))), 0);
}

#[test]
fn a_request_is_normalized_and_routed_without_allocations() {
    let rule = |path: &str| route::Rule { paths: vec![path.parse().unwrap()], ..route::Rule::default() };
    let asks = |path: &str, subject| {
        let conditions = vec![Condition { subject, negated: false }];
        route::Rule { conditions, ..rule(path) }
    };
    let value = |text: &str| ValuePattern::Regex(text.to_owned());
    let mut rules: Vec<_> = (0..1000).map(|n| rule(&format!("/api/{n}"))).collect();
    rules.extend([
        asks("/", Subject::Cookie("user".to_owned(), value("^b"))),
        asks("/", Subject::Query("q".to_owned(), ValuePattern::Exact("a b".to_owned()))),
        asks("/", Subject::Header(http::header::ACCEPT, value("json"))),
        asks("/", Subject::Source(vec!["10.0.0.0/8".parse().unwrap()])),
        rule(r"~ \.php$"),
        route::Rule { hosts: vec!["*.example.com".parse().unwrap()], ..rule("/wild") },
        rule("/"),
    ]);
    let table = route::Table::build(rules, &["web".to_owned()]).unwrap();
    let mut headers = http::HeaderMap::new();
    headers.insert(http::header::COOKIE, "a=b; user=anna".parse().unwrap());
    headers.insert(http::header::ACCEPT, "text/html".parse().unwrap());
    let route = |target: &str| {
        let host = route::host::parse("shop.example.com:8080").unwrap();
        let path = route::normalize(target).unwrap();
        let question = Question {
            listener: 0,
            host: &host.name,
            path: path.matching(),
            query: Some("p=1&q=a%20c"),
            method: &Method::GET,
            headers: &headers,
            client: Some([192, 168, 0, 1].into()),
        };
        table.find(&question).map(|found| found.rule)
    };
    // An expression makes its working memory at its first use on a thread.
    route("/x.php");
    for (target, rule) in [("/api/777/x", 777), ("/x.php", 1004), ("/wild/x", 1005), ("/.well-known/x", 1006)] {
        assert_eq!(allocations(|| assert_eq!(route(target), Some(rule))), 0, "{target}");
    }
}
