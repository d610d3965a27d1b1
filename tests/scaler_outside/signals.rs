use std::time::Duration;

use serde_json::json;
use tidegate::admin::scaling::{PoolSignals, Signals};
use tidegate::config::model::{self, Secret};
use tidegate::scaler::{External, HttpClient, Peers};

use super::http::{Reply, Server, local, ok, until};

fn signal(name: &str, server: &Server, query: Option<&str>, pointer: Option<&str>) -> model::Signal {
    model::Signal {
        metric: format!("external:{name}").parse().unwrap(),
        target: "value:5".parse().unwrap(),
        url: Some(server.url()),
        query: query.map(str::to_owned),
        pointer: pointer.map(str::to_owned),
        interval: Duration::from_secs(1),
        max_age: Duration::from_secs(2),
        up_only: false,
    }
}

#[test]
fn external_values_come_and_go_stale_and_come_back() {
    local(async {
        let prometheus = json!({ "status": "success", "data": { "resultType": "vector", "result": [{ "metric": {}, "value": [1, "42.5"] }] } });
        let (one, other) =
            (Server::start([ok(prometheus.to_string())]).await, Server::start([ok(r#"{"jobs":{"waiting":7}}"#)]).await);
        let signals =
            [signal("queue", &one, Some("sum(queue)"), None), signal("jobs", &other, None, Some("/jobs/waiting"))];
        let external = External::new(&signals, &HttpClient::default());
        assert_eq!((external.values().len(), external.findings()), (0, vec![]));
        let both = [("jobs".to_owned(), 7.0), ("queue".to_owned(), 42.5)];
        until("both are known", async || (external.values() == both.clone().into()).then_some(())).await;
        assert_eq!(one.asked.borrow()[0].path, "/api/v1/query?query=sum%28queue%29");

        other.answers([Reply::Status(500, String::new())]);
        let finding = until("one is stale", async || external.findings().pop()).await;
        assert_eq!(finding.code, "EXTERNAL_STALE");
        assert!(finding.text.contains("\"jobs\"") && finding.text.contains("status 500"), "{finding:?}");
        assert!(!external.values().contains_key("jobs"));
        other.answers([ok(r#"{"jobs":{"waiting":8}}"#)]);
        until("it is back", async || external.values().get("jobs").copied()).await;
    });
}

fn told(proxy: &str, arrivals: u64) -> Reply {
    let pool = PoolSignals { arrivals, in_flight: 2.0, ..PoolSignals::default() };
    let signals = Signals { proxy: proxy.to_owned(), at: 0.0, pools: [("tools".to_owned(), pool)].into() };
    ok(serde_json::to_string(&signals).unwrap())
}

#[test]
fn a_proxy_that_is_among_its_own_peers_does_not_count_itself() {
    local(async {
        let (me, other) =
            (Server::start([told("me", 5), told("me", 500)]).await, Server::start([told("b", 7), told("b", 9)]).await);
        let peers = Peers::new(&[me.url(), other.url()], "me", None, &HttpClient::default());
        let mut arrivals = 0.0;
        until("the other has told twice and nobody is waited for", async || {
            let heard = peers.take();
            arrivals += heard.pools.get("tools").map_or(0.0, |pool| pool.arrivals);
            (arrivals >= 2.0 && heard.complete && heard.peers.len() == 1).then_some(())
        })
        .await;
        assert_eq!((arrivals, me.asked.borrow().len()), (2.0, 1));
    });
}

#[test]
fn peers_are_asked_each_second_and_summed() {
    local(async {
        let (one, other) =
            (Server::start([told("a", 100), told("a", 130)]).await, Server::start([told("b", 7), told("b", 9)]).await);
        let token = Secret::new("word".to_owned());
        let peers = Peers::new(&[one.url(), other.url()], "me", Some(&token), &HttpClient::default());
        assert!(!peers.take().complete);
        let mut arrivals = 0.0;
        until("both have told twice", async || {
            let heard = peers.take();
            arrivals += heard.pools.get("tools").map_or(0.0, |pool| pool.arrivals);
            (arrivals >= 32.0 && heard.complete).then_some(())
        })
        .await;
        assert_eq!(arrivals, 32.0);
        let asked = one.asked.borrow()[0].clone();
        assert_eq!(
            (asked.path.as_str(), asked.header("authorization").as_deref()),
            ("/scaler/signals", Some("bearer word"))
        );

        other.answers([Reply::Status(401, String::new())]);
        let heard = until("one is missed", async || Some(peers.take()).filter(|heard| !heard.complete)).await;
        assert!(heard.findings[0].text.contains("refuses our token"), "{:?}", heard.findings);
        assert_eq!(heard.pools["tools"].in_flight, 4.0, "its last value still counts");
        other.answers([told("b", 9)]);
        until("it is back", async || peers.take().complete.then_some(())).await;
    });
}
