//! Where every upstream is full, requests wait: in order, within bounds, and for no longer than they must.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use support::*;
use tidegate::snapshot::{Intent, Pool, Replica};
use tokio::task::JoinHandle;

const WEB: &str = "[listener.web]\nbind = \"127.0.0.1:0\"\n[[route]]\npool = \"app\"\n";

fn pool(upstreams: &str, settings: &str) -> String {
    format!("{WEB}[pool.app]\nupstreams = [{upstreams}]\nmax_concurrency = 1\n{settings}\n")
}

fn one(settings: &str) -> String {
    pool("\"{a}\"", settings)
}

fn two(settings: &str) -> String {
    pool("\"{a}\", \"{b}\"", settings)
}

/// The pool as requests see it now.
fn app(proxy: &Proxy) -> Arc<Pool> {
    let snapshot = proxy.running().handle().snapshot();
    snapshot.pools.iter().find(|pool| &*pool.name == "app").expect("the pool is there").clone()
}

/// Returns once so many wait.
async fn waiting(proxy: &Proxy, count: usize) {
    eventually(&format!("{count} requests wait"), || app(proxy).kept.queue.len() == count).await;
}

/// Sends a request that is answered sooner or later.
fn ask(client: &Client, target: &str) -> JoinHandle<Answer> {
    tokio::spawn(client.get(target).into_future())
}

/// Sends so many, one after the other, each on a connection of its own, so that both workers have some; returns once all of them wait.
async fn ask_in_order(proxy: &Proxy, count: usize, waiting_before: usize) -> Vec<JoinHandle<Answer>> {
    let mut asked = Vec::new();
    for n in 0..count {
        asked.push(ask(&proxy.client(), &format!("/{n}")));
        waiting(proxy, waiting_before + n + 1).await;
    }
    asked
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("/{n}")).collect()
}

async fn all_well(asked: Vec<JoinHandle<Answer>>) {
    for answer in asked {
        assert_eq!(soon("an answer", answer).await.unwrap().status, 200);
    }
}

fn replica(gate: &Gate, id: &str, intent: Intent) -> Replica {
    Replica { id: id.into(), address: gate.address().parse().unwrap(), intent }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_come_first_served_over_both_workers() {
    let a = gate("a").await;
    let proxy = proxy(&one("queue = 100")).with("a", &a).start().await;
    let holder = ask(&proxy.client(), "/holder");
    a.has_taken(1).await;
    let asked = ask_in_order(&proxy, 24, 0).await;
    assert!(app(&proxy).kept.queue.oldest().is_some());
    a.opens();
    all_well(asked).await;
    all_well(vec![holder]).await;
    assert_eq!(a.seen()[1..], numbered(24));
    assert_eq!(app(&proxy).kept.queue.len(), 0);
    let lanes = proxy.metric("tidegate_pool_queue_requests_total{pool=\"app\",result=\"served\"}").await;
    assert_eq!(lanes, Some(24.0));
    assert_eq!(proxy.metric("tidegate_pool_queue_wait_seconds_count{pool=\"app\"}").await, Some(24.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_line_is_bounded_and_says_when_to_come_back() {
    let a = gate("a").await;
    let proxy = proxy(&one("queue = 2")).with("a", &a).start().await;
    let holder = ask(&proxy.client(), "/holder");
    a.has_taken(1).await;
    let asked = ask_in_order(&proxy, 2, 0).await;
    let refused = proxy.client().get("/too-many").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("proxy-status"), Some("tidegate; error=connection_limit_reached"));
    let seconds: u32 = refused.header("retry-after").expect("a time").parse().unwrap();
    assert!((1..=10).contains(&seconds), "{seconds}");
    a.opens();
    all_well(asked).await;
    all_well(vec![holder]).await;
    assert_eq!(proxy.metric("tidegate_refusals_total{reason=\"queue_full\"}").await, Some(1.0));
    assert_eq!(proxy.metric("tidegate_pool_queue_requests_total{pool=\"app\",result=\"full\"}").await, Some(1.0));
    assert_eq!(a.seen().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_waited_too_long_is_told_and_its_place_is_free() {
    let a = gate("a").await;
    let proxy = proxy(&one("queue = { size = 1, timeout = \"300ms\" }")).with("a", &a).start().await;
    let holder = ask(&proxy.client(), "/holder");
    a.has_taken(1).await;
    let began = Instant::now();
    let late = proxy.client().get("/late").await;
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    assert_eq!(late.status, 503);
    assert_eq!(late.header("retry-after"), Some("1"));
    assert_eq!(proxy.metric("tidegate_refusals_total{reason=\"queue_timeout\"}").await, Some(1.0));
    assert_eq!(proxy.metric("tidegate_pool_saturated_total{pool=\"app\"}").await, Some(1.0));
    waiting(&proxy, 0).await;
    let next = ask(&proxy.client(), "/next");
    waiting(&proxy, 1).await;
    a.opens();
    all_well(vec![holder, next]).await;
    assert_eq!(a.seen(), ["/holder", "/next"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_frees_its_place_at_once_whatever_it_speaks() {
    let a = gate("a").await;
    let proxy = proxy(&one("queue = { size = 3, timeout = \"60s\" }")).with("a", &a).start().await;
    let holder = ask(&proxy.client(), "/holder");
    a.has_taken(1).await;
    let mut plain = raw_client(proxy.address("web")).await;
    plain.send("GET /leaves HTTP/1.1\r\nHost: a\r\n\r\n").await;
    waiting(&proxy, 1).await;
    let http2 = ask(&proxy.client().http2(), "/leaves-too");
    waiting(&proxy, 2).await;
    let mut uploads = raw_client(proxy.address("web")).await;
    uploads.send("POST /leaves-in-the-middle HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nonly so much").await;
    waiting(&proxy, 3).await;
    drop(plain);
    waiting(&proxy, 2).await;
    http2.abort();
    waiting(&proxy, 1).await;
    uploads.reset();
    waiting(&proxy, 0).await;
    a.opens();
    all_well(vec![holder]).await;
    all_well(vec![ask(&proxy.client(), "/stays")]).await;
    assert_eq!(a.seen(), ["/holder", "/stays"]);
    let left = proxy.metric("tidegate_pool_queue_requests_total{pool=\"app\",result=\"left\"}").await;
    assert_eq!(left, Some(3.0));
    // Who leaves in the middle of its body may be told apart from who just leaves.
    let closed = proxy.metric("tidegate_refusals_total{reason=\"client_closed\"}").await;
    let broken = proxy.metric("tidegate_refusals_total{reason=\"body_broken\"}").await;
    assert_eq!(closed.unwrap() + broken.unwrap(), 3.0);
    assert_eq!(proxy.metric("tidegate_pool_saturated_total{pool=\"app\"}").await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_upload_is_not_read_beyond_its_buffers_and_arrives_whole() {
    use tokio::io::AsyncWriteExt;
    const SIZE: usize = 64 << 20;
    let a = gate("a").await;
    let proxy = proxy(&one("queue = { size = 3, timeout = \"60s\" }")).with("a", &a).start().await;
    let holder = ask(&proxy.client(), "/holder");
    a.has_taken(1).await;
    let mut upload = tokio::net::TcpStream::connect(proxy.address("web")).await.unwrap();
    upload
        .write_all(format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    waiting(&proxy, 1).await;
    let piece = vec![7u8; 64 << 10];
    let mut taken = 0;
    // Whatever the kernel does not take for a while is not read on the other side.
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(500), upload.write(&piece)).await {
        taken += written.unwrap();
        assert!(taken < 32 << 20, "a waiting request's body is read");
    }
    assert_eq!(app(&proxy).kept.queue.len(), 1);
    a.opens();
    let mut left = SIZE - taken;
    while left > 0 {
        let written = soon("the rest is read", upload.write(&piece[..piece.len().min(left)])).await.unwrap();
        left -= written;
    }
    let mut answer = [0; 12];
    soon("an answer", tokio::io::AsyncReadExt::read_exact(&mut upload, &mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    all_well(vec![holder]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_for_the_whole_request_goes_on_while_it_waits() {
    let a = gate("a").await;
    let settings = "queue = { size = 3, timeout = \"60s\" }\ntimeout = { request = \"300ms\" }";
    let proxy = proxy(&one(settings)).with("a", &a).start().await;
    let mut holder = raw_client(proxy.address("web")).await;
    holder.send("GET /holder HTTP/1.1\r\nHost: a\r\n\r\n").await;
    a.has_taken(1).await;
    let late = proxy.client().get("/late").await;
    assert_eq!(late.status, 504);
    assert!(a.seen().len() <= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_without_a_queue_refuses_at_once_and_says_how_long_requests_take() {
    let a = gate("a").await;
    let proxy = proxy(&one("")).with("a", &a).start().await;
    let first = ask(&proxy.client(), "/first");
    a.has_taken(1).await;
    let refused = proxy.client().get("/refused").await;
    assert_eq!((refused.status, refused.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, None));
    a.lets_go(1);
    all_well(vec![first]).await;
    let second = ask(&proxy.client(), "/second");
    a.has_taken(2).await;
    let refused = proxy.client().get("/refused").await;
    assert!(refused.header("retry-after").is_some(), "it is known now");
    assert_eq!(proxy.metric("tidegate_refusals_total{reason=\"upstreams_full\"}").await, Some(2.0));
    a.opens();
    all_well(vec![second]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_stuck_to_a_full_upstream_waits_for_that_one() {
    let (a, b) = (gate("a").await, gate("b").await);
    let settings = "queue = 10\nsticky = { learn = \"header:Mcp-Session-Id\" }\nbalance = \"first\"";
    let proxy = proxy(&two(settings)).with("a", &a).with("b", &b).start().await;
    a.lets_go(1);
    let login = proxy.client().get("/login").await;
    assert_eq!(login.text(), "a");
    let session = login.header("mcp-session-id").unwrap().to_owned();
    let stuck = |target: &str| {
        let client = proxy.client();
        tokio::spawn(client.get(target).header("mcp-session-id", &session).into_future())
    };
    let holder = stuck("/holder");
    a.has_taken(2).await;
    let waits = stuck("/waits");
    waiting(&proxy, 1).await;
    // Who can use the other one does not stand behind it.
    b.lets_go(1);
    let passes = ask(&proxy.client(), "/passes");
    assert_eq!(soon("an answer", passes).await.unwrap().text(), "b");
    a.lets_go(2);
    assert_eq!(soon("an answer", holder).await.unwrap().text(), "a");
    assert_eq!(soon("an answer", waits).await.unwrap().text(), "a");
    assert_eq!(a.seen(), ["/login", "/holder", "/waits"]);
    let readings = app(&proxy).readings(tidegate::types::Clock::now());
    assert_eq!((readings.sessions, readings.by_member[0].sessions, readings.by_member[1].sessions), (1, 1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_client_whose_upstream_dies_while_it_waits_moves_on() {
    let (a, b) = (gate("a").await, gate("b").await);
    let settings = "queue = 10\nsticky = { learn = \"header:Mcp-Session-Id\" }\nbalance = \"first\"\n\
                    health = { kind = \"tcp\", interval = \"50ms\", fall = 1 }";
    let proxy = proxy(&two(settings)).with("a", &a).with("b", &b).start().await;
    proxy.until_state("app", &a.address(), "ready").await;
    proxy.until_state("app", &b.address(), "ready").await;
    a.lets_go(1);
    let login = proxy.client().get("/login").await;
    assert_eq!(login.text(), "a");
    let session = login.header("mcp-session-id").unwrap().to_owned();
    let stuck = |target: &str| proxy.client().get(target).header("mcp-session-id", &session);
    let holder = tokio::spawn(stuck("/holder").attempt());
    a.has_taken(2).await;
    let waits = tokio::spawn(stuck("/waits").attempt());
    waiting(&proxy, 1).await;
    a.dies();
    b.opens();
    assert_eq!(soon("an answer", waits).await.unwrap().unwrap().text(), "b");
    let _ = soon("an end", holder).await.unwrap();
    waiting(&proxy, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_while_requests_wait_serves_them_by_what_is_new() {
    let (a, b) = (gate("a").await, gate("b").await);
    let proxy = proxy(&one("queue = 100")).with("a", &a).with("b", &b).start().await;
    let holder = ask(&proxy.client(), "/holder");
    a.has_taken(1).await;
    let asked = ask_in_order(&proxy, 6, 0).await;
    b.opens();
    assert!(proxy.edit(&two("queue = 100")).await.accepted);
    all_well(asked).await;
    assert_eq!(b.seen(), numbered(6), "in order, by an upstream that was not there when they came");
    assert_eq!(a.seen(), ["/holder"]);
    a.opens();
    all_well(vec![holder]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_gives_more_room_is_noticed() {
    let a = gate("a").await;
    let proxy = proxy(&one("queue = 100")).with("a", &a).start().await;
    let holder = ask(&proxy.client(), "/holder");
    a.has_taken(1).await;
    let asked = ask_in_order(&proxy, 5, 0).await;
    let wider = one("queue = 100").replace("max_concurrency = 1", "max_concurrency = 4");
    assert!(proxy.edit(&wider).await.accepted);
    a.has_taken(4).await;
    waiting(&proxy, 2).await;
    let mut seen = a.seen()[1..].to_vec();
    seen.sort();
    assert_eq!(seen, numbered(3), "the first three");
    a.opens();
    all_well(asked).await;
    all_well(vec![holder]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_a_reload_takes_away_serves_those_in_line() {
    let a = gate("a").await;
    let proxy = proxy(&one("queue = 100")).with("a", &a).start().await;
    let holder = ask(&proxy.client(), "/holder");
    a.has_taken(1).await;
    let kept = app(&proxy);
    let asked = ask_in_order(&proxy, 3, 0).await;
    let other = "[listener.web]\nbind = \"127.0.0.1:0\"\n[[route]]\nrespond = { status = 410, body = \"gone\" }\n";
    assert!(proxy.edit(other).await.accepted);
    assert_eq!(kept.kept.queue.len(), 3);
    a.opens();
    all_well(asked).await;
    all_well(vec![holder]).await;
    assert_eq!(a.seen()[1..], numbered(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_last_upstream_goes_nobody_waits_for_it() {
    let a = gate("a").await;
    let settings = "queue = 10\nhealth = { kind = \"tcp\", interval = \"50ms\", fall = 1 }\nretry = { attempts = 1 }";
    let proxy = proxy(&one(settings)).with("a", &a).start().await;
    proxy.until_state("app", &a.address(), "ready").await;
    let holder = ask(&proxy.client(), "/holder");
    a.has_taken(1).await;
    let asked = ask_in_order(&proxy, 3, 0).await;
    a.dies();
    for answer in asked {
        let answer = soon("an answer", answer).await.unwrap();
        assert!(matches!(answer.status.as_u16(), 502 | 503), "{}", answer.status);
    }
    assert_eq!(soon("an answer", holder).await.unwrap().status, 502);
    waiting(&proxy, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bound_that_is_learned_comes_with_the_replicas() {
    let (a, b) = (gate("a").await, gate("b").await);
    let text = format!(
        "{WEB}[pool.app]\nmax_concurrency = \"learn\"\nscaler = {{ exec = {{ command = [\"true\"] }}, mode = \"off\" }}\n"
    );
    let proxy = proxy(&text).start().await;
    let handle = proxy.running().handle().clone();
    let name: Arc<str> = "app".into();
    let set = [replica(&a, "app-1", Intent::Serve), replica(&b, "app-2", Intent::Cordon)];
    handle.replicas(&name, set.to_vec(), Some(2));
    proxy.until_state("app", &a.address(), "ready").await;
    proxy.until_state("app", &b.address(), "ready").await;
    // Cordoned: used only where nobody else has room.
    let first = [ask(&proxy.client(), "/1"), ask(&proxy.client(), "/2")];
    a.has_taken(2).await;
    assert!(b.seen().is_empty());
    let third = ask(&proxy.client(), "/3");
    b.has_taken(1).await;
    let readings = app(&proxy).readings(tidegate::types::Clock::now());
    assert_eq!((readings.arrivals, readings.in_flight, readings.queue), (3, 3, 0));
    let flights: Vec<u32> = readings.by_member.iter().map(|member| member.in_flight).collect();
    assert_eq!(flights.iter().sum::<u32>(), 3);
    assert!(readings.by_member.iter().all(|member| member.replica.is_some()));
    handle.replicas(&name, set.to_vec(), Some(3));
    let fourth = ask(&proxy.client(), "/4");
    eventually("the new bound holds", || a.seen().len() == 3 || b.seen().len() == 2).await;
    a.opens();
    b.opens();
    all_well(first.into_iter().chain([third, fourth]).collect()).await;
    let readings = app(&proxy).readings(tidegate::types::Clock::now());
    assert_eq!((readings.completions, readings.in_flight), (4, 0));
    assert!(readings.held_seconds > 0.0 && readings.latency.count() == 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_replica_serves_those_who_wait_in_order_and_keeps_its_place_over_reloads() {
    let (a, b) = (gate("a").await, gate("b").await);
    let scaler = "queue = 50\nscaler = { exec = { command = [\"true\"] }, mode = \"off\" }";
    let proxy = proxy(&one(scaler)).with("a", &a).start().await;
    proxy.until_state("app", &a.address(), "ready").await;
    let handle = proxy.running().handle().clone();
    let name: Arc<str> = "app".into();
    let holder = ask(&proxy.client(), "/holder");
    a.has_taken(1).await;
    let asked = ask_in_order(&proxy, 8, 0).await;
    handle.replicas(&name, vec![replica(&b, "app-1", Intent::Serve)], None);
    b.opens();
    all_well(asked).await;
    assert_eq!(b.seen(), numbered(8));
    assert!(proxy.edit(&one(&format!("{scaler}\nidle_timeout = \"30s\""))).await.accepted);
    let member = proxy.upstream("app", &b.address()).await.expect("the replica outlives the reload");
    assert_eq!(member.state.word(), "ready");
    // One that is named no more and has nothing to do goes at once.
    handle.replicas(&name, vec![], None);
    until("the replica is gone", async || proxy.upstream("app", &b.address()).await.is_none().then_some(())).await;
    a.opens();
    all_well(vec![holder]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_drains_for_its_sessions_and_can_be_called_back() {
    let (a, b) = (gate("a").await, gate("b").await);
    a.opens();
    b.opens();
    let text = format!(
        "{WEB}[pool.app]\nbalance = \"first\"\nsticky = {{ learn = \"header:Mcp-Session-Id\" }}\n\
         scaler = {{ exec = {{ command = [\"true\"] }}, mode = \"off\" }}\n"
    );
    let proxy = proxy(&text).start().await;
    let handle = proxy.running().handle().clone();
    let name: Arc<str> = "app".into();
    let set = |intent| vec![replica(&a, "app-1", intent), replica(&b, "app-2", Intent::Serve)];
    handle.replicas(&name, set(Intent::Serve), None);
    proxy.until_state("app", &a.address(), "ready").await;
    proxy.until_state("app", &b.address(), "ready").await;
    let login = proxy.client().get("/login").await;
    assert_eq!(login.text(), "a");
    let stuck = async |target: &str| proxy.client().get(target).header("mcp-session-id", "a-session").await.text();
    let drain = Intent::Drain { requests: Duration::ZERO, sessions: Duration::from_secs(600) };
    handle.replicas(&name, set(drain), None);
    proxy.until_state("app", &a.address(), "draining").await;
    assert_eq!((stuck("/again").await, proxy.client().get("/new").await.text()), ("a".into(), "b".into()));
    // The same set again changes nothing; nor does it undo what an operator does.
    handle.replicas(&name, set(drain), None);
    assert_eq!(stuck("/again").await, "a");
    handle.replicas(&name, set(Intent::Serve), None);
    proxy.until_state("app", &a.address(), "ready").await;
    assert_eq!(proxy.client().get("/new").await.text(), "a");
    proxy.operate("app", &a.address(), "maintenance").await;
    handle.replicas(&name, set(Intent::Serve), None);
    handle.replicas(&name, set(Intent::Cordon), None);
    until("the wish has arrived", async || app(&proxy).members.iter().any(|member| member.cordoned).then_some(()))
        .await;
    assert_eq!(proxy.upstream("app", &a.address()).await.unwrap().state.word(), "maintenance");
    // Sessions that may not come back do not hold it.
    proxy.operate("app", &a.address(), "ready").await;
    handle.replicas(&name, set(Intent::Drain { requests: Duration::ZERO, sessions: Duration::ZERO }), None);
    proxy.until_state("app", &a.address(), "drained").await;
    assert_eq!(stuck("/moves").await, "b");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_on_a_draining_replica_end_by_their_deadline_where_nobody_is_stuck() {
    let a = gate("a").await;
    let text = format!(
        "{WEB}[pool.app]\nsticky = {{ learn = \"header:Mcp-Session-Id\" }}\nretry = {{ attempts = 1 }}\n\
         scaler = {{ exec = {{ command = [\"true\"] }}, mode = \"off\" }}\n"
    );
    let proxy = proxy(&text).start().await;
    let handle = proxy.running().handle().clone();
    let name: Arc<str> = "app".into();
    handle.replicas(&name, vec![replica(&a, "app-1", Intent::Serve)], None);
    proxy.until_state("app", &a.address(), "ready").await;
    let running = ask(&proxy.client(), "/long");
    a.has_taken(1).await;
    let drain = Intent::Drain { requests: Duration::from_millis(200), sessions: Duration::from_secs(600) };
    handle.replicas(&name, vec![replica(&a, "app-1", drain)], None);
    let answer = soon("an answer", running).await.unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text());
    proxy.until_state("app", &a.address(), "drained").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_is_served_without_loss_through_few_slots() {
    let (a, b) = (upstream().named("a").start().await, upstream().named("b").start().await);
    let text = two("queue = 1000").replace("max_concurrency = 1", "max_concurrency = 2");
    let proxy = proxy(&text).with("a", &a).with("b", &b).start().await;
    let crowd = (0..40).map(|_| {
        let client = if fastrand::bool() { proxy.client() } else { proxy.client().http2() };
        tokio::spawn(async move {
            for _ in 0..10 {
                let answer = client.get("/").await;
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
        })
    });
    for one in crowd.collect::<Vec<_>>() {
        soon("everybody is served", one).await.unwrap();
    }
    assert_eq!(a.requests() + b.requests(), 400);
    eventually("nobody waits", || app(&proxy).kept.queue.is_empty()).await;
    let waited = proxy.metric("tidegate_pool_queue_requests_total{pool=\"app\",result=\"served\"}").await;
    assert!(waited > Some(40.0), "many had to wait: {waited:?}");
    assert_eq!(proxy.metric("tidegate_pool_arrivals_total{pool=\"app\"}").await, Some(400.0));
    assert_eq!(proxy.metric("tidegate_pool_completions_total{pool=\"app\"}").await, Some(400.0));
}
