//! A pool with a scaler and nobody fit: requests wait for an instance, and those that are no demand do not.
//!
//! The instance here is a configured upstream that comes up late: what a request sees of it is the same as of one that a scaler has made.

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::*;
use tidegate::snapshot::Pool;
use tidegate::types::Clock;
use tokio::task::JoinHandle;

fn sleeping(scaler: &str, settings: &str) -> String {
    format!(
        "[listener.web]\nbind = \"127.0.0.1:0\"\n[[route]]\npool = \"app\"\n\
         [pool.app]\nupstreams = [\"{{a}}\"]\nmax_concurrency = 1\nretry = {{ attempts = 1 }}\n{settings}\n\
         [pool.app.scaler]\nexec = {{ command = [\"true\"] }}\nmin = 0\n{scaler}\n"
    )
}

fn app(proxy: &Proxy) -> Arc<Pool> {
    let snapshot = proxy.running().handle().snapshot();
    snapshot.pools.iter().find(|pool| &*pool.name == "app").expect("the pool is there").clone()
}

async fn waiting(proxy: &Proxy, count: usize) {
    eventually(&format!("{count} requests wait"), || app(proxy).kept.queue.len() == count).await;
}

fn ask(client: &Client, target: &str) -> JoinHandle<Answer> {
    tokio::spawn(client.get(target).into_future())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_wait_for_an_instance_and_are_served_in_order() {
    let address = free_address();
    let proxy = proxy(&sleeping("", "queue = { size = 10, timeout = \"200ms\" }")).with("a", &address).start().await;
    let mut asked = Vec::new();
    for n in 0..6 {
        let client = if n % 3 == 1 { proxy.client().http2() } else { proxy.client() };
        asked.push(ask(&client, &format!("/{n}")));
        waiting(&proxy, n + 1).await;
    }
    // Longer than a request may wait for a slot: that time begins once there is an instance.
    eventually("they have waited a while", || {
        app(&proxy).readings(Clock::now()).oldest_wait > Duration::from_millis(600)
    })
    .await;
    let a = gate_on("a", address).await;
    a.opens();
    for answer in asked {
        let answer = soon("an answer", answer).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.header("x-tidegate-cold-start")), (200, Some("true")));
    }
    assert_eq!(a.seen(), (0..6).map(|n| format!("/{n}")).collect::<Vec<_>>());
    let warm = proxy.client().get("/warm").await;
    assert_eq!((warm.status.as_u16(), warm.header("x-tidegate-cold-start")), (200, None));
    let readings = app(&proxy).readings(Clock::now());
    assert_eq!((readings.arrivals, readings.completions, readings.saturated, readings.queue), (7, 7, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_do_not_wait_and_are_no_demand() {
    let scaler = "sleep = { ignore_paths = [\"/livez\"], ignore_agents = [\"kube-probe/\"] }";
    let address = free_address();
    let proxy = proxy(&sleeping(scaler, "")).with("a", &address).start().await;
    let probes = async || {
        let by_agent = proxy.client().get("/").header("user-agent", "kube-probe/1.31").await;
        let by_path = proxy.client().get("/livez?full").await;
        [by_agent, by_path]
    };
    for answer in probes().await {
        assert_eq!(answer.status, 503);
        assert!(answer.header("retry-after").is_some_and(|after| after.parse::<u32>().is_ok_and(|after| after > 0)));
        assert_eq!(answer.header("proxy-status"), Some("tidegate; error=destination_unavailable"));
    }
    let readings = app(&proxy).readings(Clock::now());
    assert_eq!((readings.arrivals, readings.saturated, readings.queue), (0, 0, 0));
    // Also while others wait; and once somebody is fit they are answered like any other.
    let real = ask(&proxy.client(), "/real");
    waiting(&proxy, 1).await;
    assert!(probes().await.iter().all(|answer| answer.status == 503));
    let a = gate_on("a", address).await;
    a.opens();
    assert_eq!(soon("an answer", real).await.unwrap().status, 200);
    assert!(probes().await.iter().all(|answer| answer.status == 200));
    assert_eq!(app(&proxy).readings(Clock::now()).arrivals, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_longer_than_a_start_may_take_nor_in_a_longer_line_than_configured() {
    let scaler = "sleep = { wake_timeout = \"300ms\" }";
    let proxy = proxy(&sleeping(scaler, "queue = 1")).with("a", &free_address()).start().await;
    let waits = ask(&proxy.client(), "/waits");
    waiting(&proxy, 1).await;
    let too_many = proxy.client().get("/too-many").await;
    assert_eq!(too_many.header("proxy-status"), Some("tidegate; error=connection_limit_reached"));
    let answer = soon("an answer", waits).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.header("x-tidegate-cold-start")), (503, None));
    assert!(answer.header("retry-after").is_some());
    assert_eq!(proxy.metric("tidegate_refusals_total{reason=\"no_upstream\"}").await, Some(1.0));
    assert_eq!(proxy.metric("tidegate_refusals_total{reason=\"queue_full\"}").await, Some(1.0));
    assert_eq!(app(&proxy).readings(Clock::now()).saturated, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_will_start_an_instance_nobody_waits_for_one() {
    let proxy = proxy(&sleeping("mode = \"off\"", "")).with("a", &free_address()).start().await;
    let refused = proxy.client().get("/").await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, None));
    // Once a second the scaler says that it expects none.
    let after = until("an instance is expected", async || {
        app(&proxy).kept.set_eta(Some(Clock::now() + Duration::from_secs(90)));
        Some(proxy.client().get("/").await.header("retry-after")?.parse::<u32>().unwrap())
    })
    .await;
    assert!((85..=90).contains(&after), "{after}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scaler_added_by_a_reload_works_at_once_and_an_instance_is_found_within_moments() {
    let address = free_address();
    let without = "[listener.web]\nbind = \"127.0.0.1:0\"\n[[route]]\npool = \"app\"\n\
                   [pool.app]\nupstreams = [\"{a}\"]\nhealth = { kind = \"tcp\", interval = \"60s\" }\n";
    let proxy = proxy(without).with("a", &address).start().await;
    proxy.until_state("app", &address.to_string(), "down").await;
    assert_eq!(proxy.client().get("/").await.status, 503);
    let with = without.replace("60s", "50s") + "scaler = { exec = { command = [\"true\"] }, min = 0 }\n";
    assert!(proxy.edit(&with).await.accepted);
    let asked = ask(&proxy.client(), "/waits");
    waiting(&proxy, 1).await;
    let a = gate_on("a", address).await;
    a.opens();
    // Its checks come a minute apart, but for those of a start.
    assert_eq!(soon("an answer", asked).await.unwrap().status, 200);
}
