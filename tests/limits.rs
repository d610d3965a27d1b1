//! What clients may do at most: exactly that, whoever they say they are.

mod support;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use support::*;

/// A proxy in front of an upstream, with this limit on everything; `inner` believes everybody on loopback.
async fn limited(limit: &str) -> (Upstream, Proxy) {
    let a = upstream().start().await;
    let text = format!(
        r#"
        [listener.web]
        bind = "127.0.0.1:0"
        [listener.inner]
        bind = "127.0.0.1:0"
        trusted_proxies = "127.0.0.0/8"
        [pool.app]
        upstreams = "{{a}}"
        [[route]]
        name = "all"
        pool = "app"
        limit = {limit}
        "#
    );
    let proxy = proxy(&text).with("a", &a).start().await;
    (a, proxy)
}

/// The status that a client gets who is known by this header.
async fn status_with(proxy: &Proxy, name: &str, value: &str) -> u16 {
    client(proxy.address("inner")).get("/").header(name, value).await.status.as_u16()
}

#[tokio::test]
async fn a_rate_lets_exactly_its_burst_and_one_through_however_many_come_at_once() {
    let (a, proxy) = limited(r#"{ rate = "1/min", burst = 4 }"#).await;
    let answers = join_all((0..40).map(|_| async { client(proxy.address("web")).get("/").await })).await;
    let (passed, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((passed.len(), refused.len()), (5, 35));
    assert_eq!(a.requests(), 5);
    for answer in refused {
        assert_eq!(answer.status, 429);
        assert_eq!(answer.header("proxy-status"), Some("tidegate; error=http_request_denied"));
        let retry_after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        // Rounded up; what little passed between two workers' looks at their clocks may cost a second more.
        assert!((50..=61).contains(&retry_after), "{retry_after}");
        assert_eq!(answer.header("ratelimit-limit"), Some("5"));
        assert_eq!(answer.header("ratelimit-remaining"), Some("0"));
        assert!(answer.header("ratelimit-reset").is_some());
    }
    let counted = async |decision: &str| {
        let series = format!("tidegate_limit_decisions_total{{route=\"all\",limit=\"0\",decision=\"{decision}\"}}");
        proxy.metric(&series).await
    };
    assert_eq!(counted("admitted").await, Some(5.0));
    assert_eq!(counted("refused_rate").await, Some(35.0));
}

#[tokio::test]
async fn retry_after_is_true() {
    let (_a, proxy) = limited(r#"{ rate = "1/s" }"#).await;
    let client = proxy.client();
    assert_eq!(client.get("/").await.status, 200);
    let started = Instant::now();
    let refused = client.get("/").await;
    assert_eq!(refused.status, 429);
    let wait = Duration::from_secs(refused.header("retry-after").unwrap().parse().unwrap());
    assert_eq!(wait, Duration::from_secs(1));
    tokio::time::sleep_until((started + wait).into()).await;
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(client.get("/").await.status, 429);
}

#[tokio::test]
async fn requests_above_the_rate_can_be_held_instead() {
    let (a, proxy) = limited(r#"{ rate = "20/s", delay = "150ms" }"#).await;
    let started = Instant::now();
    let answers = join_all((0..8).map(|_| async { client(proxy.address("web")).get("/").await.status.as_u16() })).await;
    let passed = answers.iter().filter(|status| **status == 200).count();
    // One at once, and one for each 50 ms that may be waited; a slow machine lets a later one in as well.
    assert!((4..8).contains(&passed), "{answers:?}");
    assert!(started.elapsed() >= Duration::from_millis(150));
    assert_eq!(a.requests(), passed as u64);
}

#[tokio::test]
async fn the_status_of_a_refusal_can_be_chosen() {
    let (_a, proxy) = limited(r#"{ rate = "1/min", status = 503 }"#).await;
    assert_eq!(proxy.client().get("/").await.status, 200);
    let refused = proxy.client().get("/").await;
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
}

#[tokio::test]
async fn a_request_is_in_progress_until_the_last_byte_of_its_answer() {
    let (a, proxy) = limited("{ requests = 2 }").await;
    let opened =
        join_all((0..8).map(|_| async { client(proxy.address("web")).get("/sse?interval=1h").open().await })).await;
    let (mut running, refused): (Vec<_>, Vec<_>) = opened.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((running.len(), refused.len()), (2, 6));
    assert!(refused.iter().all(|answer| answer.status == 429 && answer.headers["retry-after"] == "1"));
    for stream in &mut running {
        stream.text().await;
    }
    assert_eq!(proxy.client().get("/").await.status, 429);
    running.pop();
    until("the place of the one that left is free", async || {
        (proxy.client().get("/bytes/1").await.status == 200).then_some(())
    })
    .await;
    running.push(proxy.client().get("/sse?interval=1h").open().await);
    assert_eq!(running[1].status, 200);
    assert_eq!(proxy.client().get("/").await.status, 429);
    drop(running);
    eventually("the upstream is left", || a.stats().in_flight() == 0).await;
}

#[tokio::test]
async fn a_connection_counts_while_it_has_a_request_in_progress() {
    let (_a, proxy) = limited("{ connections = 1 }").await;
    let idle = proxy.client();
    assert_eq!(idle.get("/").await.status, 200);
    // Over HTTP/2 two requests share one connection.
    let first = proxy.client().http2();
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("GET /sse?interval=1h HTTP/1.1\r\nHost: a\r\n\r\n").await;
    raw.read_until("says 0").await;
    assert_eq!(idle.get("/").await.status, 429);
    assert_eq!(first.get("/").await.status, 429);
    raw.reset();
    until("its seat is free", async || (idle.get("/").await.status == 200).then_some(())).await;
    assert_eq!(first.get("/").await.status, 200);
}

#[tokio::test]
async fn clients_are_told_apart_by_address_and_nobody_can_spoof_another() {
    let (_a, proxy) = limited(r#"{ rate = "1/min" }"#).await;
    let from = |source: &str| client(proxy.address("web")).from(format!("{source}:0").parse().unwrap());
    assert_eq!(from("127.0.0.1").get("/").await.status, 200);
    assert_eq!(from("127.0.0.1").get("/").header("x-forwarded-for", "9.9.9.9").await.status, 429);
    assert_eq!(from("127.0.0.1").get("/").header("forwarded", "for=9.9.9.9").await.status, 429);
    assert_eq!(from("127.0.0.2").get("/").await.status, 200);
    assert_eq!(from("127.0.0.2").get("/").await.status, 429);
    assert_eq!(status_with(&proxy, "x-forwarded-for", "9.9.9.9").await, 200);
    assert_eq!(status_with(&proxy, "x-forwarded-for", "1.1.1.1, 9.9.9.9").await, 429);
}

#[tokio::test]
async fn ipv6_clients_are_counted_by_their_64() {
    let (_a, proxy) = limited(r#"{ rate = "1/min" }"#).await;
    assert_eq!(status_with(&proxy, "x-forwarded-for", "2001:db8::1").await, 200);
    assert_eq!(status_with(&proxy, "x-forwarded-for", "2001:db8::ffff:2").await, 429);
    assert_eq!(status_with(&proxy, "x-forwarded-for", "2001:db8:0:1::1").await, 200);
}

#[tokio::test]
async fn clients_are_told_apart_by_prefix_header_or_cookie_or_not_at_all() {
    let (_a, proxy) = limited(r#"{ rate = "1/min", per = "client/24" }"#).await;
    assert_eq!(status_with(&proxy, "x-forwarded-for", "198.51.100.1").await, 200);
    assert_eq!(status_with(&proxy, "x-forwarded-for", "198.51.100.200").await, 429);
    assert_eq!(status_with(&proxy, "x-forwarded-for", "198.51.101.1").await, 200);
    let (_a, proxy) = limited(r#"{ rate = "1/min", per = "header:x-api-key" }"#).await;
    assert_eq!(status_with(&proxy, "x-api-key", "one").await, 200);
    assert_eq!(status_with(&proxy, "x-api-key", "one").await, 429);
    assert_eq!(status_with(&proxy, "x-api-key", "two").await, 200);
    let (_a, proxy) = limited(r#"{ rate = "1/min", per = "cookie:sid" }"#).await;
    assert_eq!(status_with(&proxy, "cookie", "a=1; sid=one").await, 200);
    assert_eq!(status_with(&proxy, "cookie", "sid=one; a=2").await, 429);
    assert_eq!(status_with(&proxy, "cookie", "sid=two").await, 200);
    let (_a, proxy) = limited(r#"{ rate = "1/min", per = "all" }"#).await;
    assert_eq!(status_with(&proxy, "x-forwarded-for", "198.51.100.1").await, 200);
    assert_eq!(status_with(&proxy, "x-forwarded-for", "203.0.113.1").await, 429);
}

#[tokio::test]
async fn a_request_that_one_limit_refuses_costs_nothing_at_the_others() {
    let (_a, proxy) =
        limited(r#"[{ rate = "1/min", burst = 1, per = "all" }, { rate = "1/min", per = "header:key" }]"#).await;
    assert_eq!(status_with(&proxy, "key", "one").await, 200);
    for _ in 0..3 {
        assert_eq!(status_with(&proxy, "key", "one").await, 429);
    }
    assert_eq!(status_with(&proxy, "key", "two").await, 200);
    assert_eq!(status_with(&proxy, "key", "three").await, 429);
}

#[tokio::test]
async fn what_clients_have_used_survives_a_reload() {
    let a = upstream().start().await;
    let text = r#"
        [listener.web]
        bind = "127.0.0.1:0"
        [pool.app]
        upstreams = "{a}"
        [[route]]
        name = "all"
        pool = "app"
        limit = [{ rate = "1/min" }, { requests = 1, per = "all" }]
    "#;
    let proxy = proxy(text).with("a", &a).start().await;
    let mut stream = proxy.client().from("127.0.0.9:0".parse().unwrap()).get("/sse?interval=20ms").open().await;
    stream.text().await;
    let generation = proxy.status().await.generation;
    proxy.edit(&format!("{text}\n[[route]]\npath = \"/new\"\nrespond = 200")).await;
    assert!(proxy.status().await.generation > generation);
    assert_eq!(proxy.client().get("/new").await.status, 200);
    assert_eq!(proxy.client().get("/").await.status, 429, "the stream from before still holds its place");
    drop(stream);
    until("its place is free", async || (proxy.client().get("/").await.status == 200).then_some(())).await;
    proxy.edit(text).await;
    assert_eq!(proxy.client().get("/").await.status, 429, "the rate's only request is used up");
}

#[tokio::test]
async fn one_client_may_have_so_many_connections() {
    let a = upstream().start().await;
    let proxy = proxy(
        r#"
        [listener.web]
        bind = "127.0.0.1:0"
        max_connections_per_client = 2
        [pool.app]
        upstreams = "{a}"
        [[route]]
        pool = "app"
        "#,
    )
    .with("a", &a)
    .start()
    .await;
    const GET: &str = "GET /bytes/1 HTTP/1.1\r\nHost: a\r\n\r\n";
    let (mut first, mut second) = (raw_client(proxy.address("web")).await, raw_client(proxy.address("web")).await);
    for client in [&mut first, &mut second] {
        client.send(GET).await;
        assert_eq!(client.response().await.status, 200);
    }
    let mut third = raw_client(proxy.address("web")).await;
    third.closed().await;
    let mut other = raw_client_from("127.0.0.2:0".parse().unwrap(), proxy.address("web")).await;
    other.send(GET).await;
    assert_eq!(other.response().await.status, 200);
    drop(first);
    until("there is room for another", async || {
        let mut another = raw_client(proxy.address("web")).await;
        another.try_send(GET).await.ok()?;
        another.rest_starts_with("HTTP/1.1 200").await.then_some(())
    })
    .await;
    second.send(GET).await;
    assert_eq!(second.response().await.status, 200);
}

#[tokio::test]
async fn connections_above_the_bound_wait_their_turn() {
    let proxy =
        proxy("workers = 1\n[listener.web]\nbind = \"127.0.0.1:0\"\nmax_connections = 1\n[[route]]\nrespond = 200")
            .start()
            .await;
    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut first = raw_client(proxy.address("web")).await;
    first.send(GET).await;
    assert_eq!(first.response().await.status, 200);
    let mut second = raw_client(proxy.address("web")).await;
    second.send(GET).await;
    assert!(tokio::time::timeout(Duration::from_millis(100), second.response()).await.is_err());
    drop(first);
    assert_eq!(second.response().await.status, 200);
}
