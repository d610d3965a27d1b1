//! What fails at one upstream is done by another where that is safe, and told truly where it is not.

mod support;

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http::{Method, StatusCode};
use http_body::Frame;
use support::*;

const WEB: &str = "[listener.web]\nbind = \"127.0.0.1:0\"\n[[route]]\npool = \"app\"\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn pair(settings: &str) -> String {
    format!("{WEB}[pool.app]\nupstreams = [\"{{a}}\", \"{{b}}\"]\n{settings}\n")
}

fn one(settings: &str) -> String {
    format!("{WEB}[pool.app]\nupstreams = [\"{{a}}\"]\n{settings}\n")
}

async fn two() -> (Upstream, Upstream) {
    (upstream().named("a").start().await, upstream().named("b").start().await)
}

fn nobody_there() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A `tidegate upstream` as a process of its own; killed when dropped.
struct Process {
    child: Child,
    address: String,
}

impl Process {
    async fn start() -> Process {
        let address = nobody_there();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["upstream", "--bind", &address.to_string()]).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        until("the upstream listens", async || tokio::net::TcpStream::connect(address).await.ok()).await;
        Process { child, address: address.to_string() }
    }

    /// As `kill -9` does.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_killed_under_load_loses_no_request_that_may_be_repeated() {
    let (mut victim, other) = (Process::start().await, upstream().start().await);
    // Each request takes a while, so that some are at the victim when it dies.
    let proxy = proxy(&pair("")).with("a", victim.address.as_str()).with("b", &other).start().await;
    let web = proxy.address("web");
    let (done, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load: Vec<_> = (0..8)
        .map(|_| {
            let (client, done, answered) = (client(web), done.clone(), answered.clone());
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    let answer = client.get("/slow/2ms").attempt().await.expect("an answer");
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let more = async |count: u64| {
        let goal = answered.load(Ordering::Relaxed) + count;
        eventually("requests go on", || answered.load(Ordering::Relaxed) >= goal).await;
    };
    more(100).await;
    victim.kill();
    more(200).await;
    done.store(true, Ordering::Relaxed);
    for load in load {
        load.await.expect("no request is lost");
    }
    assert!(proxy.metric("tidegate_pool_retries_total{pool=\"app\"}").await.unwrap() >= 1.0);
    for refusal in ["connect_failed", "upstream_closed"] {
        let refused = proxy.metric(&format!("tidegate_refusals_total{{reason=\"{refusal}\"}}")).await;
        assert_eq!(refused.unwrap_or(0.0), 0.0, "what was answered in the end is no refusal");
    }
}

#[tokio::test]
async fn who_refuses_the_connection_is_passed_over_whatever_the_method() {
    let b = upstream().named("b").start().await;
    let proxy = proxy(&pair("eject = { failures = 0 }")).with("a", &nobody_there()).with("b", &b).start().await;
    let client = proxy.client();
    for method in [Method::GET, Method::POST, Method::PATCH] {
        for _ in 0..2 {
            let answer = client.call(method.clone(), "/echo").body("payload").await;
            assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "payload"));
        }
    }
    // A body that cannot be kept is sent only once, but nothing of it had been sent.
    let pieces = (0..40).map(|_| Ok(Frame::data(Bytes::from(vec![7; 8 << 10]))));
    for _ in 0..2 {
        let answer = client.post("/upload", "").streaming(stream::iter(pieces.clone())).await;
        assert_eq!(answer.json()["bytes"], 40 * (8 << 10));
    }
}

#[tokio::test]
async fn a_request_that_may_have_been_delivered_is_repeated_only_if_idempotent() {
    let cutting = scripted().reads_request().cuts().start().await;
    let b = upstream().named("b").start().await;
    let settings = "balance = \"first\"\neject = { failures = 0 }";
    let proxy = proxy(&pair(settings)).with("a", &cutting).with("b", &b).start().await;
    let client = proxy.client();
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let answer = client.call(method, "/echo").body("kept").await;
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "kept"), "the body is sent again");
    }
    assert_eq!(client.get("/").await.upstream(), "b");
    let connections = cutting.connections();
    for method in [Method::POST, Method::PATCH] {
        let answer = client.call(method, "/echo").body("once").await;
        assert_eq!(answer.status, 502);
        assert!(answer.header("proxy-status").unwrap().contains("connection_terminated"));
    }
    assert_eq!(cutting.connections(), connections + 2, "asked once each");
    // A body larger than is kept cannot be sent again.
    let pieces = (0..40).map(|_| Ok(Frame::data(Bytes::from(vec![7; 8 << 10]))));
    let answer = client.call(Method::PUT, "/upload").streaming(stream::iter(pieces)).await;
    assert_eq!(answer.status, 502);
    assert_eq!(b.requests(), 4, "nothing else has come there");
}

#[tokio::test]
async fn answers_can_count_as_failed_attempts_and_attempts_have_an_end() {
    let sick = scripted().answers("HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno").start().await;
    let b = upstream().named("b").start().await;
    let settings =
        |attempts: u32| pair(&format!("balance = \"first\"\nretry = {{ statuses = [503], attempts = {attempts} }}"));
    let proxy = proxy(&settings(3)).with("a", &sick).with("b", &b).start().await;
    assert_eq!(proxy.client().get("/").await.upstream(), "b");
    assert_eq!(proxy.client().post("/", "").await.status, 503, "a POST has been delivered: its answer counts");
    assert!(proxy.edit(&settings(1)).await.accepted);
    let answer = proxy.client().get("/").await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (503, "no"), "the upstream's own answer");
}

#[tokio::test]
async fn where_nobody_is_left_to_try_the_client_gets_the_answer_there_is() {
    let sick = scripted().answers("HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno").start().await;
    let text = format!("{WEB}[pool.app]\nupstreams = [\"{{a}}\"]\nretry = {{ statuses = [503], attempts = 3 }}\n");
    let proxy = proxy(&text).with("a", &sick).start().await;
    let answer = proxy.client().get("/").await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (503, "no"));
    assert_eq!(proxy.metric("tidegate_pool_retries_total{pool=\"app\"}").await, Some(0.0), "nothing is paid for");
}

#[tokio::test]
async fn the_whole_request_ends_in_time_also_while_its_body_comes_in() {
    let a = scripted().reads_until("all of it").holds().start().await;
    let text = format!("{WEB}[pool.app]\nupstreams = [\"{{a}}\"]\ntimeout = {{ request = \"300ms\" }}\n");
    let proxy = proxy(&text).with("a", &a).start().await;
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").await;
    assert_eq!(raw.response().await.status, 504);
}

#[tokio::test]
async fn a_storm_of_retries_is_limited_by_the_budget() {
    // Two that cut every request: each retry fails as well.
    let (a, b) = (scripted().reads_request().cuts().start().await, scripted().reads_request().cuts().start().await);
    let settings = "eject = { failures = 0 }\nretry = { attempts = 2, budget = \"10%\" }";
    let proxy = proxy(&pair(settings)).with("a", &a).with("b", &b).start().await;
    let client = proxy.client();
    let began = Instant::now();
    const REQUESTS: usize = 400;
    for _ in 0..REQUESTS {
        assert_eq!(client.get("/").await.status, 502);
    }
    // Ten a second are always allowed, and as many may have been saved up.
    let allowed = REQUESTS as f64 * 0.1 + 10.0 * (began.elapsed().as_secs_f64() + 2.0) + 20.0;
    let retries = (a.connections() + b.connections() - REQUESTS) as f64;
    assert!(retries > 0.0 && retries <= allowed, "{retries} retries, {allowed} allowed");
    assert!(proxy.metric("tidegate_pool_retries_denied_total{pool=\"app\"}").await.unwrap() > 0.0);
}

#[tokio::test]
async fn each_time_that_runs_out_has_its_own_answer() {
    // A queue of one that is full: further connections hang.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let hanging = full.local_addr().unwrap().as_socket().unwrap();
    full.set_nonblocking(true).unwrap();
    let mut queue = Vec::new();
    for _ in 0..8 {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.connect(&hanging.into());
        queue.push(socket);
    }
    let silent = scripted().holds().start().await;
    let stalls =
        scripted().reads_request().sends("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").holds().start().await;
    let text = r#"
        [listener.web]
        bind = "127.0.0.1:0"
        [pool.connect]
        upstreams = ["{hanging}"]
        timeout = { connect = "100ms" }
        retry = { attempts = 1 }
        [pool.tls]
        upstreams = ["{silent}"]
        tls = { verify = false }
        timeout = { tls = "100ms" }
        retry = { attempts = 1 }
        [pool.silent]
        upstreams = ["{silent}"]
        timeout = { first_byte = "100ms" }
        retry = { attempts = 1 }
        [pool.stalls]
        upstreams = ["{stalls}"]
        timeout = { idle = "100ms" }
        [[route]]
        path = "/connect"
        pool = "connect"
        [[route]]
        path = "/tls"
        pool = "tls"
        [[route]]
        path = "/first"
        pool = "silent"
        [[route]]
        path = "/whole"
        pool = "silent"
        timeout = { request = "100ms", first_byte = "60s" }
        [[route]]
        path = "/stalls"
        pool = "stalls"
    "#;
    let proxy = proxy(text).with("hanging", &hanging).with("silent", &silent).with("stalls", &stalls).start().await;
    let client = proxy.client();
    for (path, token, reason) in [
        ("/connect", "connection_timeout", "connect_timeout"),
        ("/tls", "connection_timeout", "tls_timeout"),
        ("/first", "http_response_timeout", "first_byte_timeout"),
        ("/whole", "http_response_timeout", "request_timeout"),
    ] {
        let answer = client.get(path).await;
        assert_eq!(answer.status, 504, "{path}");
        assert!(answer.header("proxy-status").is_some_and(|status| status.contains(token)), "{path}: {answer:?}");
        let counted = proxy.metric(&format!("tidegate_refusals_total{{reason=\"{reason}\"}}")).await;
        assert_eq!(counted, Some(1.0), "{path}");
    }
    let mut stalled = client.get("/stalls").open().await;
    assert_eq!(stalled.text().await, "half");
    assert!(stalled.next().await.expect("more, or an error").is_err(), "the rest does not come");
    let upstream = format!("pool=\"stalls\",upstream=\"{}\"", stalls.address());
    until("it is counted as what it is", async || {
        let counted = proxy.metric(&format!("tidegate_upstream_faults_total{{{upstream},fault=\"stalled\"}}")).await;
        counted.filter(|count| *count == 1.0)
    })
    .await;
}

#[tokio::test]
async fn streams_that_are_alive_are_not_cut_by_any_time_but_the_whole() {
    let a = upstream().start().await;
    let settings = "timeout = { first_byte = \"200ms\", idle = \"400ms\" }";
    let proxy = proxy(&one(settings)).with("a", &a).start().await;
    let began = Instant::now();
    let answer = proxy.client().get("/chunks/30?interval=40ms&size=10").await;
    assert_eq!(answer.body.len(), 300);
    assert!(began.elapsed() > Duration::from_millis(800));
    let limited = one("timeout = { request = \"300ms\" }");
    assert!(proxy.edit(&limited).await.accepted);
    let mut stream = proxy.client().get("/sse?interval=20ms").open().await;
    let cut = loop {
        match stream.next().await {
            Some(Ok(_)) => {}
            other => break other,
        }
    };
    assert!(cut.is_some_and(|cut| cut.is_err()), "the whole request has its time");
}

#[tokio::test]
async fn an_upstream_has_no_more_requests_at_once_than_it_may() {
    let (a, b) = two().await;
    let text = format!(
        "{WEB}[pool.app]\n\
         upstreams = [{{ address = \"{{a}}\", max_connections = 2 }}, {{ address = \"{{b}}\", max_connections = 1 }}]\n"
    );
    let proxy = proxy(&text).with("a", &a).with("b", &b).start().await;
    let client = proxy.client();
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(client.get("/sse?interval=1h").open().await);
    }
    assert_eq!((a.stats().in_flight(), b.stats().in_flight()), (2, 1));
    let answer = client.get("/").await;
    assert_eq!(answer.status, 503);
    assert!(answer.header("proxy-status").unwrap().contains("connection_limit_reached"));
    assert_eq!(proxy.metric("tidegate_pool_full_total{pool=\"app\"}").await, Some(1.0));
    streams.pop();
    until("there is room again", async || (client.get("/").await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn clients_stay_with_their_upstream_by_cookie_over_reloads_until_it_is_lost() {
    let (mut a, mut b) = two().await;
    let text = |number: u32| {
        pair(&format!(
            "sticky = {{ cookie = \"seat\" }}\neject = {{ failures = 1, time = \"60s\" }}\ndrain_timeout = \"{number}s\""
        ))
    };
    let proxy = proxy(&text(1)).with("a", &a).with("b", &b).start().await;
    let client = proxy.client();
    let first = client.get("/").await;
    let cookie = first.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    for number in 2..6 {
        assert!(proxy.edit(&text(number)).await.accepted);
        let again = client.get("/").header("cookie", &cookie).await;
        assert_eq!(again.upstream(), first.upstream());
        assert_eq!(again.header("set-cookie"), None);
    }
    let lost = if first.upstream() == "a" { &mut a } else { &mut b };
    lost.kill().await;
    let moved = client.get("/").header("cookie", &cookie).await;
    assert_ne!(moved.upstream(), first.upstream());
    let cookie = moved.header("set-cookie").expect("a new place").split(';').next().unwrap().to_owned();
    assert_eq!(client.get("/").header("cookie", &cookie).await.upstream(), moved.upstream());
}

#[tokio::test]
async fn clients_stay_with_the_upstream_whose_session_they_learned_over_reloads_until_it_is_lost() {
    let (mut a, mut b) = two().await;
    let text =
        |number: u32| pair(&format!("sticky = {{ learn = \"header:Mcp-Session-Id\" }}\ndrain_timeout = \"{number}s\""));
    let proxy = proxy(&text(1)).with("a", &a).with("b", &b).start().await;
    let client = proxy.client();
    let mut sessions = Vec::new();
    for _ in 0..4 {
        let begun = client.post("/mcp", "").await;
        sessions.push((begun.header("mcp-session-id").expect("a session").to_owned(), begun.upstream()));
    }
    assert!(sessions.iter().any(|(_, name)| name == "a") && sessions.iter().any(|(_, name)| name == "b"));
    for number in 2..5 {
        assert!(proxy.edit(&text(number)).await.accepted);
        for (session, name) in &sessions {
            let answer = client.post("/mcp", "").header("mcp-session-id", session).await;
            assert_eq!((answer.status, &answer.upstream()), (StatusCode::OK, name));
        }
    }
    let (session, name) = &sessions[0];
    if name == "a" {
        a.kill().await
    } else {
        b.kill().await
    }
    // The other does not know the session, and says so itself: that is how the client learns to begin anew.
    let answer = client.post("/mcp", "").header("mcp-session-id", session).await;
    assert_eq!(answer.status, 404);
    assert_eq!(client.post("/mcp", "").await.status, 200);
}

#[tokio::test]
async fn every_balancer_does_what_its_name_says() {
    let (a, b) = two().await;
    let text = |balance: &str, first: &str| {
        format!(
            "{WEB}[pool.app]\nbalance = \"{balance}\"\nhash_on = \"header:x-key\"\nupstreams = [{first}, \"{{b}}\"]\n"
        )
    };
    let weighted = |balance: &str| text(balance, "{ address = \"{a}\", weight = 3 }");
    let even = |balance: &str| text(balance, "\"{a}\"");
    let proxy = proxy(&even("round_robin")).with("a", &a).with("b", &b).start().await;
    let counts = async |requests: usize, key: &str| {
        let client = proxy.client();
        let mut counts = BTreeMap::from([("a".to_owned(), 0), ("b".to_owned(), 0)]);
        for _ in 0..requests {
            *counts.get_mut(&client.get("/").header("x-key", key).await.upstream()).unwrap() += 1;
        }
        (counts["a"], counts["b"])
    };
    assert_eq!(counts(20, "").await, (10, 10));
    assert!(proxy.edit(&weighted("weighted")).await.accepted);
    assert_eq!(counts(20, "").await, (15, 5));
    assert!(proxy.edit(&even("first")).await.accepted);
    assert_eq!(counts(10, "").await, (10, 0));
    assert!(proxy.edit(&even("random")).await.accepted);
    let (at_a, at_b) = counts(200, "").await;
    assert!(at_a > 40 && at_b > 40, "{at_a} {at_b}");
    assert!(proxy.edit(&even("hash")).await.accepted);
    let mut seen = (0, 0);
    for key in 0..30 {
        let (at_a, at_b) = counts(3, &format!("key-{key}")).await;
        assert!(at_a == 3 || at_b == 3, "one key, one upstream");
        seen = (seen.0 + at_a, seen.1 + at_b);
    }
    assert!(seen.0 > 0 && seen.1 > 0, "many keys, all upstreams: {seen:?}");
    // One has much to do, the other nothing.
    assert!(proxy.edit(&even("least_connections")).await.accepted);
    let mut streams = Vec::new();
    for _ in 0..2 {
        streams.push(proxy.client().get("/sse?interval=1h").open().await);
    }
    assert_eq!((a.stats().in_flight(), b.stats().in_flight()), (1, 1));
    drop(streams);
    eventually("they are gone", || a.stats().in_flight() + b.stats().in_flight() == 0).await;
    // One is slow.
    assert!(proxy.edit(&even("ewma")).await.accepted);
    a.becomes_slow(Duration::from_millis(50));
    let (at_a, at_b) = counts(60, "").await;
    assert!(at_b > 3 * at_a, "the quick one gets more: {at_a} {at_b}");
}

#[tokio::test]
async fn backups_stand_in_only_while_no_other_is_fit() {
    let (a, b) = two().await;
    let text = format!("{WEB}[pool.app]\nupstreams = [\"{{a}}\", BACKUP]\nhealth = {{ path = \"/health\", interval = \"20ms\", fall = 1, rise = 1 }}\n")
        .replace("BACKUP", "{ address = \"{b}\", backup = true }");
    let proxy = proxy(&text).with("a", &a).with("b", &b).start().await;
    proxy.settled().await;
    let client = proxy.client();
    for _ in 0..4 {
        assert_eq!(client.get("/").await.upstream(), "a");
    }
    a.becomes_sick();
    proxy.until_state("app", &a.address(), "down").await;
    until("the backup stands in", async || (client.get("/").await.upstream() == "b").then_some(())).await;
    a.becomes_well();
    proxy.until_state("app", &a.address(), "ready").await;
    until("it stands back", async || (client.get("/").await.upstream() == "a").then_some(())).await;
    assert_eq!(client.get("/").await.upstream(), "a");
}

#[tokio::test]
async fn what_breaks_in_the_middle_is_broken_for_the_client_too() {
    let a = upstream().start().await;
    let broken = scripted().answers(OK.replace("Content-Length: 2", "Content-Length: 9")).start().await;
    let proxy = proxy(&pair("balance = \"first\"")).with("a", &a).with("b", &broken).start().await;
    for target in ["/drop-mid-body?length=2000&sent=1000", "/drop-mid-body?length=2000&sent=1000&chunked"] {
        let opened = proxy.client().get(target).open().await;
        assert_eq!(opened.status, 200);
        assert!(opened.answer().await.is_err(), "{target}");
    }
    let upstream = proxy.upstream("app", &a.address()).await.unwrap();
    assert_eq!(upstream.in_flight, 0, "its places are free again");
}
