//! What a request's decisions cost: `cargo bench --bench decide`.
//!
//! Each group states the claim it protects; nothing here is asserted, since time depends on the machine.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use divan::{Bencher, black_box};
use http::{HeaderMap, Method};
use tidegate::balance::{self, Algorithm, Cursor, Draw, Load, Member, stable_hash};
use tidegate::limit::{ClientKey, ConnectionSeats, Limiter, Per, Rule};
use tidegate::route::{self, PathPattern, Question};
use tidegate::types::{Moment, Rate};

fn main() {
    divan::main();
}

/// **Claim**: a pick costs some tens of nanoseconds whatever the size of the pool; only least connections, which is exact up to a
/// few hundred upstreams, pays about three for each of them.
mod pick {
    use super::*;

    const ALGORITHMS: [Algorithm; 7] = [
        Algorithm::RoundRobin,
        Algorithm::Weighted,
        Algorithm::LeastConnections,
        Algorithm::Ewma,
        Algorithm::Random,
        Algorithm::Hash,
        Algorithm::First,
    ];

    #[divan::bench(args = ALGORITHMS, consts = [3, 100, 1000])]
    fn and_leave<const UPSTREAMS: u32>(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
        let members: Vec<Member> = (0..UPSTREAMS).map(member).collect();
        let loads: Vec<Arc<Load>> = members.iter().map(|member| member.load.clone()).collect();
        let table = balance::Table::new(algorithm, Some(0.25), members);
        let cursor = Cursor::new();
        let mut random = fastrand::Rng::with_seed(1);
        bencher.bench_local(|| {
            let random = random.u64(..);
            let draw = Draw { now: Moment::from_nanos(1_000_000_000), random, hash: Some(random), tried: &[] };
            let picked = table.pick(&cursor, black_box(&draw));
            if let Ok(id) = picked {
                loads[id as usize].leave();
            }
            picked
        });
    }

    fn member(id: u32) -> Member {
        let load = Arc::new(Load::new());
        load.sample(Duration::from_micros(500 + u64::from(id)), Moment::from_nanos(1));
        let identity = stable_hash(format!("10.0.{}.{}:80", id / 250, id % 250).as_bytes());
        Member { id, load, weight: 1.0 + f64::from(id % 3), max: None, backup: false, identity }
    }
}

/// **Claim**: the number of routes does not matter for exact paths and prefixes.
mod find_route {
    use super::*;

    #[divan::bench(args = [10, 10_000])]
    fn prefix(bencher: Bencher<'_, '_>, routes: usize) {
        let table = table(routes, |number| PathPattern::Prefix(format!("/team{}/service{number}", number % 100)));
        let last = routes - 1;
        find(bencher, &table, &format!("/team{}/service{last}/v1/things/42", last % 100));
    }

    #[divan::bench(args = [10, 10_000])]
    fn exact(bencher: Bencher<'_, '_>, routes: usize) {
        let table = table(routes, |number| PathPattern::Exact(format!("/page/{number}")));
        find(bencher, &table, &format!("/page/{}", routes - 1));
    }

    #[divan::bench(args = [10, 10_000])]
    fn none(bencher: Bencher<'_, '_>, routes: usize) {
        let table = table(routes, |number| PathPattern::Prefix(format!("/r{number}")));
        find(bencher, &table, "/nowhere/to/be/found");
    }

    /// Expressions are tried one after the other, as everybody does.
    #[divan::bench(args = [1, 10])]
    fn regex(bencher: Bencher<'_, '_>, routes: usize) {
        let table = table(routes, |number| PathPattern::Regex {
            expression: format!("^/r{number}/[a-z]+/(\\d+)$"),
            ignore_case: false,
        });
        find(bencher, &table, &format!("/r{}/abc/42", routes - 1));
    }

    fn table(routes: usize, path: impl Fn(usize) -> PathPattern) -> route::Table {
        let rule = |number| route::Rule {
            name: format!("route {number}"),
            paths: vec![path(number)],
            ..route::Rule::default()
        };
        route::Table::build((0..routes).map(rule).collect(), &["web".to_owned()]).expect("good patterns")
    }

    fn find(bencher: Bencher<'_, '_>, table: &route::Table, path: &str) {
        let headers = HeaderMap::new();
        let question = Question {
            listener: 0,
            host: "api.example.com",
            path,
            query: None,
            method: &Method::GET,
            headers: &headers,
            client: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        };
        bencher.bench_local(|| black_box(table.find(black_box(&question))).is_some());
    }
}

/// **Claim**: a limit costs one lookup in a sharded table, whatever the number of clients.
mod limit {
    use super::*;

    #[divan::bench(args = [1, 100_000])]
    fn admit(bencher: Bencher<'_, '_>, clients: u32) {
        let rule = Rule {
            per: Per::Client,
            rate: Some(Rate { count: 1_000_000, per: Duration::from_secs(1) }),
            burst: 1_000_000,
            delay: Duration::ZERO,
            requests: Some(1000),
            connections: None,
            max_clients: 200_000,
            cost: 1,
        };
        let limiter = Limiter::new(rule);
        let seats = ConnectionSeats::default();
        let mut number = 0u32;
        bencher.bench_local(|| {
            number += 1;
            let client = IpAddr::V4(Ipv4Addr::from_bits(number % clients));
            let now = Moment::from_nanos(u64::from(number) * 2_000);
            black_box(limiter.admit(ClientKey::address(client), &seats, now));
        });
    }
}

/// **Claim**: a request gets its snapshot for the price of an uncontended load and count; a newly published one costs each worker one
/// load more, once.
mod snapshot {
    use tidegate::control::{Options, start};
    use tidegate::snapshot::{Cell, Reader};

    use super::*;

    #[divan::bench]
    fn view(bencher: Bencher<'_, '_>) {
        let reader = Reader::new(cell());
        bencher.bench_local(|| black_box(reader.view().generation));
    }

    #[divan::bench]
    fn view_after_publishing(bencher: Bencher<'_, '_>) {
        let cell = cell();
        let reader = Reader::new(cell.clone());
        bencher
            .with_inputs(|| {
                let mut next = (*cell.load()).clone();
                next.generation += 1;
                cell.publish(Arc::new(next));
            })
            .bench_local_values(|()| black_box(reader.view().generation));
    }

    /// The snapshot of a real configuration.
    fn cell() -> Arc<Cell> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("tidegate.toml");
        let text = "admin = { bind = \"off\" }\nworkers = 1\nlog = { level = \"off\" }\n[listener.web]\nbind = \"127.0.0.1:0\"\n\
                    [pool.app]\nupstreams = [\"127.0.0.1:9\"]\n[[route]]\npool = \"app\"\n";
        std::fs::write(&file, text).expect("a file is written");
        let running = start(Options { watch: false, ..Options::embedded(file) }).expect("a good configuration");
        let first = running.handle().snapshot();
        running.stop();
        Cell::new(first)
    }
}

/// **Claim**: a second's decision costs a pool less than 50 µs, whatever it remembers; writing what it remembers a fraction of a millisecond.
mod scale {
    use tidegate::scale::{Instance, Observed, Phase, Profile, Settings, State, decide};

    use super::*;

    const BEGIN: f64 = 1.7e9;

    #[divan::bench(args = [1, 200])]
    fn decision(bencher: Bencher<'_, '_>, instances: usize) {
        let settings = Settings { max: 1000, seasonal: vec![86400.0], ..Settings::of_profile(Profile::Balanced) };
        let (mut state, mut second) = (experienced(&settings, instances), 10_000.0);
        bencher.bench_local(|| {
            second += 1.0;
            decide(black_box(&seen(second, instances)), &mut state, &settings, BEGIN + second)
        });
    }

    #[divan::bench]
    fn state_to_text(bencher: Bencher<'_, '_>) {
        let state = experienced(&Settings { seasonal: vec![86400.0], ..Settings::of_profile(Profile::Balanced) }, 20);
        bencher.bench_local(|| serde_json::to_string(black_box(&state)).expect("state is plain").len());
    }

    /// After ten thousand seconds every ring is full.
    fn experienced(settings: &Settings, instances: usize) -> State {
        let mut state = State::default();
        for second in (0..10_000).map(f64::from) {
            decide(&seen(second, instances), &mut state, settings, BEGIN + second);
        }
        state
    }

    fn seen(second: f64, instances: usize) -> Observed {
        let rate = 200.0 + 150.0 * (second / 97.0).sin() + 20.0 * (second * 1.7).sin();
        Observed {
            span: 1.0,
            arrivals: rate,
            completions: rate,
            held: rate * 0.1,
            in_flight: rate * 0.1,
            instances: vec![Instance { phase: Phase::Ready, age: second }; instances],
            complete: true,
            ..Observed::default()
        }
    }
}
