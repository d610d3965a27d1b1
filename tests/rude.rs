//! Clients and upstreams that are slow, broken, hostile or many: each costs itself and nobody else.

mod support;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::*;

const APP: &str = r#"
    [listener.web]
    bind = "127.0.0.1:0"
    max_body = "off"
    EXTRA
    [pool.app]
    upstreams = ["{a}"]
    eject = { failures = 1, time = "5min", max_share = "100%" }
    [[route]]
    pool = "app"
"#;

fn with(extra: &str) -> String {
    APP.replace("EXTRA", extra)
}

async fn app(extra: &str) -> (Upstream, Proxy) {
    let a = upstream().named("a").start().await;
    let proxy = proxy(&with(extra)).with("a", &a).start().await;
    (a, proxy)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn a_head_that_does_not_come_in_time_is_408_however_it_drips() {
    let (a, proxy) = app("header_timeout = \"400ms\"").await;
    let mut stuck = raw_client(proxy.address("web")).await;
    stuck.send("GET / HTTP/1.1\r\nHo").await;
    let mut dripping = raw_client(proxy.address("web")).await;
    let began = Instant::now();
    let drip = async {
        let mut bytes = "GET / HTTP/1.1\r\nHost: a\r\nX: ".bytes().chain(std::iter::repeat(b'x'));
        while dripping.try_send([bytes.next().unwrap_or(b'x')]).await.is_ok()
            && began.elapsed() < Duration::from_millis(600)
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        dripping.response().await
    };
    let (answer, dripped) = tokio::join!(stuck.response(), drip);
    for answer in [answer, dripped] {
        assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
        assert!(answer.header("proxy-status").is_some());
    }
    stuck.closed().await;
    assert_eq!(a.requests(), 0);
}

#[tokio::test]
async fn a_body_that_stops_coming_is_408_and_the_upstream_is_told() {
    let (a, proxy) = app("body_timeout = \"300ms\"").await;
    for framing in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let cancelled = a.stats().cancelled();
        let mut raw = raw_client(proxy.address("web")).await;
        raw.send(format!("POST /upload HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n5\r\nhello\r\n")).await;
        let answer = raw.response().await;
        assert_eq!((answer.status, answer.header("connection")), (408, Some("close")), "{framing}");
        eventually("the upstream is told", || a.stats().in_flight() == 0 && a.requests() > cancelled).await;
    }
    // That was the clients' fault: the upstream is as good as ever, which one fault would have changed.
    assert_eq!(proxy.client().get("/").await.status, 200);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let (a, proxy) = app("send_timeout = \"400ms\"").await;
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("GET /bytes/256MiB HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("the upstream is told", || a.stats().cancelled() == 1).await;
    let (taken, _) = raw.rest().await;
    assert!(taken.len() < 256 << 20);
    until("it is counted", async || {
        let closed = "tidegate_listener_connections_closed_total{listener=\"web\",reason=\"timeout\"}";
        proxy.metric(closed).await.filter(|count| *count == 1.0)
    })
    .await;
    assert_eq!(proxy.client().get("/").await.status, 200);
}

#[tokio::test]
async fn slow_clients_take_no_place_from_others_for_long() {
    let (_a, proxy) = app("max_connections = 20\nheader_timeout = \"500ms\"").await;
    let web = proxy.address("web");
    let slow = join_all((0..20).map(|number| async move {
        let mut raw = raw_client(web).await;
        // Half of them say nothing, the others never end.
        if number % 2 == 0 {
            raw.send("GET / HTTP/1.1\r\n").await;
        }
        raw
    }))
    .await;
    let answered = join_all((0..20).map(|_| client(web).get("/").header("Connection", "close").into_future())).await;
    assert!(answered.iter().all(|answer| answer.status == 200));
    drop(slow);
}

#[tokio::test]
async fn a_flood_of_slow_heads_disturbs_nobody() {
    let (_a, proxy) = app("header_timeout = \"700ms\"").await;
    let web = proxy.address("web");
    let flood: Vec<_> = (0..500)
        .map(|_| {
            tokio::spawn(async move {
                let mut raw = raw_client(web).await;
                raw.send("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ").await;
                raw.response().await.status
            })
        })
        .collect();
    let good = client(web);
    for _ in 0..50 {
        assert_eq!(good.get("/").await.status, 200);
    }
    for slow in flood {
        assert_eq!(slow.await.unwrap(), 408);
    }
    until("they are counted", async || {
        proxy.metric("tidegate_refusals_total{reason=\"header_timeout\"}").await.filter(|count| *count == 500.0)
    })
    .await;
}

#[tokio::test]
async fn without_descriptors_it_waits_says_so_and_goes_on() {
    let a = upstream().start().await;
    let text = format!("workers = 1\n{}", with("keepalive_timeout = \"60s\""));
    let starved = proxy(&text).with("a", &a).spawn_with(|command| {
        let program = command.get_program().to_owned();
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        *command = std::process::Command::new("sh");
        command.args(["-c", "ulimit -n 60; exec \"$0\" \"$@\""]).arg(program).args(arguments);
    });
    let proxy = starved.await;
    let web = proxy.address_of("web").await;
    let mut flood = join_all((0..150).map(|_| raw_client(web))).await;
    eventually("it says so", || proxy.log().contains("cannot accept connections")).await;
    // Those who are in are answered: by the upstream, if a descriptor is left for it, or with 503.
    let first = &mut flood[0];
    first.send(GET).await;
    let status = first.response().await.status;
    assert!(status == 200 || status == 503, "{status}");
    drop(flood);
    until("it serves as before", async || {
        let answer = client(web).get("/").attempt().await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
    assert!(proxy.log().matches("cannot accept connections").count() < 5, "{}", proxy.log());
    proxy.stop().await;
}

/// Makes room for so many descriptors here and in processes started from here; `false` where that cannot be.
fn room_for(descriptors: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= descriptors);
    if !enough(limit.current) && enough(limit.maximum) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(descriptors), maximum: limit.maximum });
    }
    enough(getrlimit(Resource::Nofile).current)
}

#[tokio::test]
async fn ten_thousand_idle_connections_are_held_and_cost_little() {
    const MANY: usize = 10_000;
    if !room_for(MANY as u64 + 1000) {
        let text = "skipped: this needs 11,000 open files; raise the limit with `ulimit -Hn`";
        assert!(std::env::var_os("TIDEGATE_TEST_ALL").is_none(), "{text}");
        eprintln!("{text}");
        return;
    }
    let text = "[listener.web]\nbind = \"127.0.0.1:0\"\nkeepalive_timeout = \"10min\"\n[[route]]\nrespond = 204\n";
    let mut proxy = proxy(text).spawn().await;
    let web = proxy.address_of("web").await;
    assert_eq!(client(web).get("/").await.status, 204);
    let before = resident(proxy.pid());
    let mut idle = Vec::with_capacity(MANY);
    while idle.len() < MANY {
        idle.extend(
            join_all((0..100).map(|_| async {
                let mut raw = raw_client(web).await;
                raw.send(GET).await;
                assert_eq!(raw.response().await.status, 204);
                raw
            }))
            .await,
        );
    }
    let open = proxy.metric("tidegate_listener_connections_open{listener=\"web\"}").await.unwrap();
    assert!(open >= MANY as f64, "{open}");
    let each = (resident(proxy.pid()) - before) * 1024 / MANY as u64;
    println!("{MANY} idle connections take {each} bytes each");
    assert!(each < 24 << 10, "{each} bytes for each idle connection");
    // The first and the last are still good for another request.
    for number in [0, MANY - 1] {
        idle[number].send(GET).await;
        assert_eq!(idle[number].response().await.status, 204);
    }
    drop(idle);
    until("they are gone", async || {
        proxy.metric("tidegate_listener_connections_open{listener=\"web\"}").await.filter(|open| *open <= 2.0)
    })
    .await;
    proxy.stop().await;
}

#[tokio::test]
async fn random_bytes_from_clients_and_upstreams_harm_nobody() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut noise = |lead: &[u8]| -> Vec<u8> {
        let length = random.usize(1..2000);
        lead.iter().copied().chain(std::iter::repeat_with(|| random.u8(..)).take(length)).collect()
    };
    let good = upstream().start().await;
    let mut babble = scripted().reads_request().sends(noise(b""));
    for lead in [&b"HTTP/1.1 "[..], b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: ", b"\0\0\0"] {
        babble = babble.next_connection().reads_request().sends(noise(lead));
    }
    let babble = babble.start().await;
    let text = with("header_timeout = \"300ms\"\nbody_timeout = \"300ms\"")
        .replace("eject = { failures = 1,", "retry = { attempts = 1 }\neject = { failures = 0,")
        .replace("[[route]]", "[pool.babble]\nupstreams = [\"{b}\"]\neject = { failures = 0 }\ntimeout = { first_byte = \"300ms\" }\n[[route]]\npath = \"/babble\"\npool = \"babble\"\n[[route]]");
    let proxy = proxy(&text).with("a", &good).with("b", &babble).spawn().await;
    let web = proxy.address_of("web").await;
    let leads: [&[u8]; 6] = [
        b"",
        b"GET / HTTP/1.1\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ];
    let clients = (0..120).map(|number| {
        let bytes = noise(leads[number % leads.len()]);
        async move {
            let mut raw = raw_client(web).await;
            let _ = raw.try_send(bytes).await;
            raw.rest().await
        }
    });
    join_all(clients.collect::<Vec<_>>()).await;
    for _ in 0..5 {
        let answer = client(web).get("/babble").attempt().await;
        assert!(answer.as_ref().map_or(true, |answer| answer.status.as_u16() >= 500), "{answer:?}");
    }
    assert_eq!(client(web).get("/").await.status, 200);
    assert_eq!(client(web).http2().get("/").await.status, 200);
    assert!(!proxy.log().contains("panic"), "{}", proxy.log());
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_ends_its_side_has_left_unless_half_closing_is_allowed() {
    for (extra, answered) in [("", false), ("half_close = true", true)] {
        let (a, proxy) = app(extra).await;
        let mut raw = raw_client(proxy.address("web")).await;
        raw.send("GET /slow/300ms HTTP/1.1\r\nHost: a\r\n\r\n").await;
        eventually("the request is at the upstream", || a.stats().in_flight() == 1).await;
        raw.half_close().await;
        if answered {
            assert_eq!(raw.response().await.status, 200);
        } else {
            eventually("the upstream is told", || a.stats().cancelled() == 1).await;
            raw.closed().await;
        }
    }
}

#[tokio::test]
async fn clients_that_reset_in_the_middle_are_never_the_upstreams_fault() {
    let (a, proxy) = app("").await;
    let web = proxy.address("web");
    // In the middle of the answer.
    let mut raw = raw_client(web).await;
    raw.send("GET /sse?interval=10ms HTTP/1.1\r\nHost: a\r\n\r\n").await.read_until("id: 1").await;
    raw.reset();
    eventually("the upstream is told", || a.stats().cancelled() == 1).await;
    // In the middle of its own body.
    let mut raw = raw_client(web).await;
    raw.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nbeginning").await;
    eventually("the upload is at the upstream", || a.stats().in_flight() == 1).await;
    raw.reset();
    eventually("the upload is over", || a.stats().in_flight() == 0).await;
    // Before the answer.
    let mut raw = raw_client(web).await;
    raw.send("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("the request is at the upstream", || a.stats().in_flight() == 1).await;
    raw.reset();
    eventually("the upstream is told", || a.stats().in_flight() == 0).await;
    until("all three are counted as clients that left", async || {
        let left = proxy.metric("tidegate_refusals_total{reason=\"client_closed\"}").await.unwrap_or(0.0);
        let broken = proxy.metric("tidegate_refusals_total{reason=\"body_broken\"}").await.unwrap_or(0.0);
        (left + broken >= 3.0).then_some(())
    })
    .await;
    // One fault would have ejected it for minutes.
    assert_eq!(proxy.client().get("/").await.status, 200);
    let upstream = proxy.upstream("app", &a.address()).await.unwrap();
    assert_eq!((upstream.state.word(), upstream.in_flight), ("ready", 0));
}

#[tokio::test]
async fn an_upstream_that_breaks_off_leaves_a_broken_answer_never_a_whole_one() {
    let answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nxyz\r\n",
    ];
    for answer in answers {
        // Ended in order, and by a reset that comes when the beginning has surely been read.
        for cut in [false, true] {
            let half = scripted().reads_request().sends(answer);
            let half = if cut { half.pauses(Duration::from_millis(50)).cuts() } else { half };
            let half = half.start().await;
            let proxy = proxy(&with("")).with("a", &half).start().await;
            let mut raw = raw_client(proxy.address("web")).await;
            raw.send(GET).await;
            let seen = raw.response().await;
            assert_eq!(seen.status, 200);
            assert_eq!(seen.end, End::Broken, "{answer:?} {cut}");
            // To HTTP/1.0 the end of the connection would be the end of the answer; there a reset tells.
            let proxy = self::proxy(&with("")).with("a", &half).start().await;
            let mut old = raw_client(proxy.address("web")).await;
            old.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
            let (seen, orderly) = old.rest().await;
            let length_known = String::from_utf8_lossy(&seen).to_lowercase().contains("content-length");
            assert!(length_known || !orderly, "{answer:?} {cut} {:?}", String::from_utf8_lossy(&seen));
            let proxy = self::proxy(&with("")).with("a", &half).start().await;
            assert!(proxy.client().http2().get("/").attempt().await.is_err(), "{answer:?} {cut}");
        }
    }
}

fn proxy(text: &str) -> ProxyBuilder {
    support::proxy(text)
}

#[tokio::test]
async fn a_reset_before_the_answer_is_502_or_another_upstream() {
    let breaking = scripted().reads_request().cuts().start().await;
    let proxy = proxy(&with("")).with("a", &breaking).start().await;
    let answer = proxy.client().get("/").await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.header("proxy-status"), Some("tidegate; error=connection_terminated"));

    let good = upstream().named("good").start().await;
    let text = with("").replace("[\"{a}\"]", "[\"{a}\", \"{b}\"]");
    let proxy = self::proxy(&text).with("a", &breaking).with("b", &good).start().await;
    for _ in 0..10 {
        assert_eq!(proxy.client().get("/").await.upstream(), "good");
    }
}

#[tokio::test]
async fn a_pipelining_client_gets_its_answers_in_order() {
    let (a, proxy) = app("").await;
    let mut raw = raw_client(proxy.address("web")).await;
    let burst: String = (0..200).map(|number| format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    raw.send(burst).await;
    for number in 0..200 {
        let answer = raw.response().await;
        assert!(answer.text().contains(&format!("\"path\":\"/{number}\"")), "{number}: {}", answer.text());
    }
    assert_eq!(a.requests(), 200);
}
