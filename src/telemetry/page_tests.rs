use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::limit::{Decision, Limiter, Reason, Rule};
use crate::telemetry::{Lane, McpError, PoolFigures};

/// A page as Prometheus reads it: each series with its sorted labels.
type Parsed = BTreeMap<(String, BTreeMap<String, String>), f64>;

fn parse(page: &str) -> Parsed {
    let mut parsed = Parsed::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = sample(line);
        assert!(parsed.insert(series, value).is_none(), "twice: {line}");
    }
    parsed
}

fn sample(line: &str) -> ((String, BTreeMap<String, String>), f64) {
    let end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    while let Some(pair) = rest.strip_prefix(['{', ',']) {
        let (label, quoted) = pair.split_once("=\"").unwrap();
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        let close = loop {
            match chars.next().unwrap() {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next().unwrap().1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, char) => value.push(char),
            }
        };
        labels.insert(label.to_owned(), value);
        rest = &quoted[close + 1..];
        rest = rest.strip_prefix('}').unwrap_or(rest);
    }
    ((name.to_owned(), labels), rest.trim().parse().unwrap())
}

fn value(parsed: &Parsed, name: &str, labels: &[(&str, &str)]) -> f64 {
    let labels = labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    *parsed.get(&(name.to_owned(), labels)).unwrap_or_else(|| panic!("no {name} in {:#?}", parsed.keys()))
}

#[test]
fn a_page_says_what_was_counted() {
    let registry = Registry::new(2, 10, &["no_route", "limited"]);
    let (route, listener) = (registry.route("api"), registry.listener("web"));
    for number in 0..2 {
        let lane = route.at(Lane::worker(number));
        lane.in_flight.up();
        lane.finished(200, Duration::from_millis(1), 10, 1000);
        lane.finished(502, Duration::from_millis(300), 1, 0);
        listener.at(Lane::worker(number)).closed.up(Closed::Idle);
        registry.at(Lane::worker(number)).refusals.up(1);
    }
    registry.at(Lane::worker(1)).open.up();
    registry.control.reloaded(Outcome::Ok, 7);
    registry.control.reloaded(Outcome::Failed, 7);
    registry.log.lose(3);
    let page = parse(&registry.page());
    assert_eq!(value(&page, "tidegate_route_requests_total", &[("route", "api"), ("class", "2xx")]), 2.0);
    assert_eq!(value(&page, "tidegate_route_requests_total", &[("route", "api"), ("class", "4xx")]), 0.0);
    assert_eq!(value(&page, "tidegate_route_requests_in_flight", &[("route", "api")]), 2.0);
    assert_eq!(value(&page, "tidegate_route_sent_bytes_total", &[("route", "api")]), 2000.0);
    let bucket = |le| value(&page, "tidegate_route_request_duration_seconds_bucket", &[("route", "api"), ("le", le)]);
    assert_eq!(["0.0005", "0.001", "0.256", "0.512", "1048.576", "+Inf"].map(bucket), [0.0, 2.0, 2.0, 4.0, 4.0, 4.0]);
    assert_eq!(value(&page, "tidegate_route_request_duration_seconds_count", &[("route", "api")]), 4.0);
    assert!((value(&page, "tidegate_route_request_duration_seconds_sum", &[("route", "api")]) - 0.602).abs() < 1e-9);
    assert_eq!(
        value(&page, "tidegate_listener_connections_closed_total", &[("listener", "web"), ("reason", "idle")]),
        2.0
    );
    let open = |worker| value(&page, "tidegate_worker_connections_open", &[("worker", worker)]);
    assert_eq!(["0", "1"].map(open), [0.0, 1.0]);
    assert_eq!(value(&page, "tidegate_refusals_total", &[("reason", "limited")]), 2.0);
    assert_eq!(value(&page, "tidegate_refusals_total", &[("reason", "no_route")]), 0.0);
    assert_eq!(value(&page, "tidegate_reloads_total", &[("outcome", "failed")]), 1.0);
    assert_eq!(value(&page, "tidegate_last_reload_successful", &[]), 0.0);
    assert!(value(&page, "tidegate_last_reload_success_timestamp_seconds", &[]) > 1.6e9);
    assert_eq!(value(&page, "tidegate_config_generation", &[]), 7.0);
    assert_eq!(value(&page, "tidegate_access_log_lines_total", &[("outcome", "lost")]), 3.0);
    assert_eq!(value(&page, "tidegate_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
}

#[test]
fn an_upstream_shows_its_state_and_counts_its_changes() {
    let registry = Registry::new(1, 10, &[]);
    let upstream = registry.upstream("tools", "127.0.0.1:9001");
    upstream.control.set_state(State::Ready);
    upstream.control.set_state(State::Ready);
    upstream.control.set_state(State::Down);
    upstream.control.ewma.set(0.0125);
    [Phase::Closed, Phase::Open, Phase::Open].into_iter().for_each(|phase| upstream.control.set_circuit(Some(phase)));
    let page = parse(&registry.page());
    let state =
        |name, state| value(&page, name, &[("pool", "tools"), ("upstream", "127.0.0.1:9001"), ("state", state)]);
    assert_eq!(["ready", "down"].map(|word| state("tidegate_upstream_state", word)), [0.0, 1.0]);
    assert_eq!(["ready", "down"].map(|word| state("tidegate_upstream_state_changes_total", word)), [1.0, 1.0]);
    let labels = [("pool", "tools"), ("upstream", "127.0.0.1:9001")];
    assert_eq!(value(&page, "tidegate_upstream_breaker_opened_total", &labels), 1.0);
    let phase = |phase| value(&page, "tidegate_upstream_breaker_phase", &[labels[0], labels[1], ("phase", phase)]);
    assert_eq!(["closed", "open", "half_open"].map(phase), [0.0, 1.0, 0.0]);
    assert_eq!(value(&page, "tidegate_upstream_ewma_seconds", &labels), 0.0125);
}

#[test]
fn limits_count_what_they_decide() {
    let registry = Registry::new(1, 10, &[]);
    let limit = registry.limit("api", 0);
    let lane = limit.at(Lane::worker(0));
    let decisions = [Decision::Admitted, Decision::Admitted, Decision::Delayed, Decision::Refused(Reason::Connections)];
    decisions.into_iter().for_each(|decision| lane.decided(decision));
    let limiter = Limiter::new(Rule::default());
    drop(limiter.admit(crate::limit::ClientKey::ALL, &Default::default(), crate::types::Moment::START));
    limit.control.observe(&limiter);
    let page = parse(&registry.page());
    let decided = |decision| {
        let labels = [("route", "api"), ("limit", "0"), ("decision", decision)];
        value(&page, "tidegate_limit_decisions_total", &labels)
    };
    assert_eq!(DECISIONS.map(decided), [2.0, 1.0, 0.0, 0.0, 1.0]);
    assert_eq!(value(&page, "tidegate_limit_clients", &[("route", "api"), ("limit", "0")]), 1.0);
}

#[test]
fn labels_hold_whatever_people_call_their_routes() {
    let registry = Registry::new(1, 10, &[]);
    let name = "a \"quoted\" \\ name,\nin {two} lines: é";
    let route = registry.route(name);
    route.at(Lane::worker(0)).requests.up(200);
    let page = parse(&registry.page());
    assert_eq!(value(&page, "tidegate_route_requests_total", &[("route", name), ("class", "2xx")]), 1.0);
}

#[test]
fn every_metric_of_the_table_is_on_a_full_page_and_no_other() {
    let registry = Registry::new(1, 10, &["no_route"]);
    registry.at(Lane::worker(0)).open.up();
    let (listener, route, pool) = (registry.listener("l"), registry.route("r"), registry.pool("p"));
    let (upstream, limit) = (registry.upstream("p", "u"), registry.limit("r", 0));
    route.at(Lane::worker(0)).finished(200, Duration::ZERO, 0, 0);
    upstream.at(Lane::worker(0)).latency.record(Duration::ZERO);
    pool.at(Lane::worker(0)).served_after(Duration::ZERO);
    upstream.control.set_circuit(Some(Phase::Closed));
    upstream.control.set_mcp(1, 1);
    pool.control.mcp().moves.set(1);
    pool.at(Lane::worker(0)).mcp().ended(0, None, McpError::None, Duration::ZERO);
    let of_tools = registry.pool_limit("p", 0);
    let mut figures = PoolFigures::default();
    for series in Series::ALL.iter().filter(|series| series.metric().name.starts_with("tidegate_scaler_")) {
        let labels = vec!["x"; series.metric().labels.len()];
        match series.metric().kind {
            MetricType::HISTOGRAM => figures.spans(*series, &labels, route.latency()),
            _ => figures.add(*series, &labels, 1.0),
        }
    }
    registry.scalers.publish("p", figures);
    let page = registry.page();
    let found: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert_eq!(found, METRICS.iter().map(|metric| metric.name).collect());
    drop((listener, route, pool, upstream, limit, of_tools));
    assert!(!registry.page().contains("route=\"r\""), "what is gone leaves the page");
}

#[test]
fn cardinality_is_bounded_and_the_rest_is_summed() {
    let registry = Registry::new(1, 5, &[]);
    let routes: Vec<_> = (0..100).map(|n| registry.route(&format!("r{n}"))).collect();
    let upstreams: Vec<_> = (0..100).map(|n| registry.upstream("p", &n.to_string())).collect();
    routes.iter().for_each(|route| route.at(Lane::worker(0)).requests.up(200));
    let page = parse(&registry.page());
    let total = |name: &str| page.keys().filter(|(series, _)| series == name).count();
    assert_eq!(total("tidegate_route_requests_in_flight"), 6);
    assert_eq!(total("tidegate_upstream_weight"), 5);
    assert_eq!(value(&page, "tidegate_route_requests_total", &[("route", "other"), ("class", "2xx")]), 95.0);
    drop(upstreams);
}

#[test]
fn others_can_collect_it_with_a_registry_of_theirs() {
    let theirs = prometheus::Registry::new();
    let ours = Registry::new(1, 5, &[]);
    let metrics = Metrics(ours);
    assert_eq!(metrics.desc().len(), METRICS.len());
    theirs.register(Box::new(metrics)).unwrap();
    assert!(theirs.gather().iter().any(|family| family.name() == "tidegate_config_generation"));
}
