//! Who is fit takes requests; who is not, drains or is put away takes none, and everybody can see why.

mod support;

use std::time::Duration;

use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const WEB: &str = "[listener.web]\nbind = \"127.0.0.1:0\"\n[[route]]\npool = \"app\"\n";

/// One pool with these settings and the upstreams `{a}` and `{b}`.
fn pair(settings: &str) -> String {
    format!("{WEB}[pool.app]\nupstreams = [\"{{a}}\", \"{{b}}\"]\n{settings}\n")
}

async fn two() -> (Upstream, Upstream) {
    (upstream().named("a").start().await, upstream().named("b").start().await)
}

/// Who answers so many requests, one after the other.
async fn who(client: &Client, requests: usize) -> String {
    let mut names = String::new();
    for _ in 0..requests {
        names += &client.get("/").await.upstream();
    }
    names
}

#[tokio::test]
async fn nobody_gets_a_request_before_its_first_good_check() {
    let (a, b) = two().await;
    a.becomes_sick();
    let proxy = proxy(&pair("health = { path = \"/health\", interval = \"20ms\", rise = 3, fall = 2 }"))
        .with("a", &a)
        .with("b", &b)
        .start()
        .await;
    proxy.until_state("app", &b.address(), "ready").await;
    assert_eq!(who(&proxy.client(), 4).await, "bbbb");
    let sick = proxy.until_state("app", &a.address(), "down").await;
    assert!(sick.reason.contains("failed") && sick.reason.contains("503"), "{}", sick.reason);
    // The first good check is enough; later it falls after so many in a row, and rises after so many.
    a.becomes_well();
    assert_eq!(proxy.until_state("app", &a.address(), "ready").await.reason, "1 check passed");
    a.becomes_sick();
    proxy.until_state("app", &a.address(), "down").await;
    a.becomes_well();
    assert_eq!(proxy.until_state("app", &a.address(), "ready").await.reason, "3 checks in a row passed");
    until("a takes its part", async || who(&proxy.client(), 2).await.contains('a').then_some(())).await;
    b.becomes_sick();
    let sick = proxy.until_state("app", &b.address(), "down").await;
    assert!(sick.reason.contains("checks in a row failed: ") && sick.reason.contains("503"), "{}", sick.reason);
    assert_eq!(who(&proxy.client(), 4).await, "aaaa");
    let labels = format!("pool=\"app\",upstream=\"{}\"", b.address());
    assert_eq!(proxy.metric(&format!("tidegate_upstream_state{{{labels},state=\"down\"}}")).await, Some(1.0));
    assert_eq!(proxy.metric(&format!("tidegate_upstream_state{{{labels},state=\"ready\"}}")).await, Some(0.0));
    let changes = format!("tidegate_upstream_state_changes_total{{{labels},state=\"down\"}}");
    assert_eq!(proxy.metric(&changes).await, Some(1.0));
    let failed = format!("tidegate_upstream_health_checks_total{{{labels},outcome=\"failed\"}}");
    assert!(proxy.metric(&failed).await.unwrap() >= 2.0);
    assert_eq!(proxy.metric("tidegate_pool_upstreams{pool=\"app\",state=\"down\"}").await, Some(1.0));
}

#[tokio::test]
async fn while_nobody_has_passed_a_check_requests_are_refused_unless_it_is_said_otherwise() {
    // It takes the connection and never answers the check.
    let silent = scripted().holds().start().await;
    let settings = |initial: &str| {
        format!(
            "{WEB}[pool.app]\nupstreams = [\"{{a}}\"]\nhealth = {{ interval = \"60s\", timeout = \"30s\", initial = \"{initial}\" }}\n\
             timeout = {{ first_byte = \"100ms\" }}\nretry = {{ attempts = 1 }}\n"
        )
    };
    let starting = proxy(&settings("down")).with("a", &silent).start().await;
    let answer = starting.client().get("/").await;
    assert_eq!(answer.status, 503);
    assert!(answer.header("proxy-status").unwrap().contains("destination_unavailable"));
    let state = starting.upstream("app", &silent.address()).await.unwrap();
    assert_eq!((state.state.word(), state.reason.as_str()), ("starting", "waiting for its first good check"));
    let trusting = proxy(&settings("up")).with("a", &silent).start().await;
    // It is asked, and does not answer in time.
    assert_eq!(trusting.client().get("/").await.status, 504);
}

#[tokio::test]
async fn a_check_looks_at_what_it_was_told_to_look_at() {
    let answers = |status: &str, body: &str| {
        scripted().answers(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    };
    let teapot = answers("418 I'm a teapot", "short and stout").start().await;
    let cup = answers("418 I'm a teapot", "a cup").start().await;
    let fine = answers("200 OK", "short and stout").start().await;
    let silent = scripted().holds().start().await;
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let text = r#"
        [listener.web]
        bind = "127.0.0.1:0"
        [pool.http]
        upstreams = ["{teapot}", "{cup}", "{fine}"]
        [pool.http.health]
        path = "/brew?now=1"
        method = "OPTIONS"
        host = "pot.example"
        headers = { x-check = "yes" }
        expect = "418"
        contains = "stout"
        interval = "20ms"
        fall = 1
        [pool.tcp]
        upstreams = ["{silent}", "{gone}"]
        health = { kind = "tcp", interval = "20ms" }
        [[route]]
        respond = 204
    "#;
    let proxy = proxy(text)
        .with("teapot", &teapot)
        .with("cup", &cup)
        .with("fine", &fine)
        .with("silent", &silent)
        .with("gone", &gone)
        .start()
        .await;
    proxy.until_state("http", &teapot.address(), "ready").await;
    proxy.until_state("http", &cup.address(), "down").await;
    let fine = proxy.until_state("http", &fine.address(), "down").await;
    assert!(fine.reason.contains("200"), "{}", fine.reason);
    proxy.until_state("tcp", &silent.address(), "ready").await;
    let gone = proxy.until_state("tcp", &gone.to_string(), "down").await;
    assert!(gone.reason.to_lowercase().contains("refused"), "{}", gone.reason);
    let asked = teapot.request(0);
    assert_eq!(asked.first_line, "OPTIONS /brew?now=1 HTTP/1.1");
    assert_eq!((asked.header("host"), asked.header("x-check")), (Some("pot.example"), Some("yes")));
}

#[tokio::test]
async fn who_fails_real_requests_is_sent_away_for_a_time_that_grows() {
    let (mut a, b) = two().await;
    let settings = "eject = { failures = 2, time = \"200ms\", max_time = \"10s\" }";
    let proxy = proxy(&pair(settings)).with("a", &a).with("b", &b).start().await;
    a.kill().await;
    let client = proxy.client();
    let mut spans = Vec::new();
    for _ in 0..3 {
        let away = until("a is sent away", async || {
            // Nobody notices: the other upstream answers.
            assert_eq!(client.get("/").await.upstream(), "b");
            proxy.upstream("app", &a.address()).await.filter(|a| a.state.word() == "down")
        })
        .await;
        spans.push(away.reason);
        proxy.until_state("app", &a.address(), "ready").await;
    }
    assert!(spans[0].starts_with("ejected for 200ms after 2 failures"), "{spans:?}");
    assert!(spans[1].starts_with("ejected for 400ms") && spans[2].starts_with("ejected for 800ms"), "{spans:?}");
    let labels = format!("pool=\"app\",upstream=\"{}\"", a.address());
    assert_eq!(proxy.metric(&format!("tidegate_upstream_ejections_total{{{labels}}}")).await, Some(3.0));
    assert!(
        proxy.metric(&format!("tidegate_upstream_faults_total{{{labels},fault=\"connect\"}}")).await.unwrap() >= 6.0
    );
}

#[tokio::test]
async fn no_more_are_sent_away_than_the_pool_can_spare() {
    let (a, b) = two().await;
    a.fails(1.0);
    b.fails(1.0);
    let settings = "eject = { failures = 2, on_5xx = true, time = \"60s\", max_share = \"50%\" }";
    let proxy = proxy(&pair(settings)).with("a", &a).with("b", &b).start().await;
    let client = proxy.client();
    until("one is sent away", async || {
        assert_eq!(client.get("/").await.status, 500);
        let states = proxy.status().await.pools.remove(0).upstreams;
        states.iter().any(|upstream| upstream.state.word() == "down").then_some(())
    })
    .await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.status, 500);
    }
    let states = proxy.status().await.pools.remove(0).upstreams;
    let down = states.iter().filter(|upstream| upstream.state.word() == "down").count();
    assert_eq!(down, 1, "{states:?}");
}

#[tokio::test]
async fn where_too_few_are_fit_all_are_used() {
    let (a, b) = two().await;
    a.becomes_sick();
    let health = "health = { path = \"/health\", interval = \"20ms\", initial = \"up\", fall = 1 }";
    let proxy = proxy(&pair(&format!("{health}\npanic_threshold = \"60%\""))).with("a", &a).with("b", &b).start().await;
    proxy.until_state("app", &a.address(), "down").await;
    let names = who(&proxy.client(), 4).await;
    assert!(names.contains('a') && names.contains('b'), "{names}");
    assert!(proxy.status().await.pools[0].panic);
    a.becomes_well();
    proxy.until_state("app", &a.address(), "ready").await;
    assert!(!proxy.status().await.pools[0].panic);
    // Without the threshold, the sick one gets nothing, and where all are sick, nobody answers.
    assert!(proxy.edit(&pair(health)).await.accepted);
    a.becomes_sick();
    b.becomes_sick();
    proxy.until_state("app", &a.address(), "down").await;
    proxy.until_state("app", &b.address(), "down").await;
    assert_eq!(proxy.client().get("/").await.status, 503);
    assert!(proxy.metric("tidegate_pool_unfit_total{pool=\"app\"}").await.unwrap() >= 1.0);
}

#[tokio::test]
async fn a_circuit_opens_lets_a_few_probes_through_and_closes() {
    let a = upstream().named("a").start().await;
    let text = format!(
        "{WEB}[pool.app]\nupstreams = [\"{{a}}\"]\nretry = {{ attempts = 1 }}\n\
         eject = {{ failures = 0, on_5xx = true }}\n\
         breaker = {{ failures = 3, open = \"300ms\", probes = 2 }}\n"
    );
    let proxy = proxy(&text).with("a", &a).start().await;
    let client = proxy.client();
    a.fails(1.0);
    for _ in 0..3 {
        assert_eq!(client.get("/").await.status, 500);
    }
    let open = proxy.until_state("app", &a.address(), "down").await;
    assert!(open.reason.starts_with("circuit open for 300ms"), "{}", open.reason);
    let before = a.requests();
    assert_eq!(client.get("/").await.status, 503, "nobody asks it");
    assert_eq!(a.requests(), before);
    until("it is half open", async || {
        let upstream = proxy.upstream("app", &a.address()).await?;
        upstream.reason.starts_with("circuit half open").then_some(())
    })
    .await;
    // Two probes go through at once; the third request is refused meanwhile.
    a.fails(0.0);
    a.becomes_slow(Duration::from_millis(300));
    let probes: Vec<_> = (0..2).map(|_| tokio::spawn(proxy.client().get("/").attempt())).collect();
    eventually("both probes are there", || a.stats().in_flight() == 2).await;
    assert_eq!(client.get("/").await.status, 503);
    for probe in probes {
        assert_eq!(probe.await.unwrap().unwrap().status, 200);
    }
    a.becomes_slow(Duration::ZERO);
    let closed = proxy.until_state("app", &a.address(), "ready").await;
    assert!(closed.reason.starts_with("circuit closed"), "{}", closed.reason);
    assert_eq!(client.get("/").await.status, 200);
    let labels = format!("pool=\"app\",upstream=\"{}\"", a.address());
    assert_eq!(proxy.metric(&format!("tidegate_upstream_breaker_opened_total{{{labels}}}")).await, Some(1.0));
    assert_eq!(proxy.metric(&format!("tidegate_upstream_breaker_phase{{{labels},phase=\"closed\"}}")).await, Some(1.0));
}

#[tokio::test]
async fn who_comes_back_starts_slowly() {
    let (a, b) = two().await;
    let proxy = proxy(&pair("slow_start = \"60s\"\nbalance = \"weighted\"")).with("a", &a).with("b", &b).start().await;
    proxy.operate("app", &a.address(), "maintenance").await;
    let back = proxy.operate("app", &a.address(), "ready").await;
    assert!(back.weight > 0.0 && back.weight < 0.2, "{back:?}");
    let labels = format!("pool=\"app\",upstream=\"{}\"", a.address());
    assert!(proxy.metric(&format!("tidegate_upstream_weight{{{labels}}}")).await.unwrap() < 0.2);
}

#[tokio::test]
async fn names_are_resolved_and_one_that_is_not_never_stops_the_start() {
    let a = upstream().named("a").start().await;
    let port = a.socket_address().port();
    let text = format!(
        r#"
        [listener.web]
        bind = "127.0.0.1:0"
        [pool.app]
        upstreams = ["localhost:{port}"]
        [pool.lost]
        upstreams = ["no-such-name.invalid:80"]
        [[route]]
        pool = "app"
        [[route]]
        path = "/lost"
        pool = "lost"
        "#
    );
    let proxy = proxy(&text).start().await;
    let client = proxy.client();
    assert_eq!(client.get("/lost").await.status, 503);
    let answer = until("the name is known", async || {
        let answer = client.get("/").await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!(answer.upstream(), "a");
    assert!(proxy.upstream("app", &a.address()).await.is_some(), "it is known by its address");
    // It can be operated by its name too.
    assert_eq!(proxy.operate("app", &format!("localhost:{port}"), "maintenance").await.state.word(), "maintenance");
    // The name goes and comes back at once: it is looked up anew.
    let without = text.replace(&format!("\"localhost:{port}\""), "");
    let verdict = proxy.edit(&without).await;
    assert!(verdict.accepted, "{}", verdict.problems);
    assert_eq!(client.get("/").await.status, 503);
    assert!(proxy.edit(&text).await.accepted);
    until("the name is known again", async || (client.get("/").await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn a_drained_upstream_takes_nothing_new_and_finishes_what_it_has() {
    let (a, b) = two().await;
    let proxy = proxy(&pair("")).with("a", &a).with("b", &b).start().await;
    let client = proxy.client();
    let mut streams = Vec::new();
    for _ in 0..2 {
        streams.push(client.get("/sse?interval=10ms").open().await);
    }
    let draining = proxy.operate("app", &a.address(), "drain?deadline=60s").await;
    assert_eq!(draining.state.word(), "draining");
    assert!(draining.reason.starts_with("draining, for 1m"), "{}", draining.reason);
    assert!(draining.deadline_seconds.is_some_and(|left| left > 50.0));
    assert_eq!(who(&client, 4).await, "bbbb");
    for stream in &mut streams {
        stream.text().await;
    }
    assert_eq!(proxy.upstream("app", &a.address()).await.unwrap().state.word(), "draining");
    drop(streams);
    let empty = proxy.until_state("app", &a.address(), "drained").await;
    assert!(empty.reason.starts_with("nothing left to do"), "{}", empty.reason);
    assert_eq!(proxy.operate("app", &a.address(), "undrain").await.state.word(), "ready");
    assert!(who(&client, 4).await.contains('a'));
    assert_eq!(proxy.operate("app", &b.address(), "maintenance").await.state.word(), "maintenance");
    assert_eq!(who(&client, 4).await, "aaaa");
    proxy.operate("app", &b.address(), "ready").await;
    assert_eq!(proxy.operate("app", &b.address(), "weight?value=0").await.weight, 0.0);
    assert_eq!(who(&client, 4).await, "aaaa");
    proxy.operate("app", &b.address(), "weight").await;
    assert!(who(&client, 4).await.contains('b'));
}

#[tokio::test]
async fn who_came_before_a_drain_and_picks_after_it_goes_elsewhere() {
    let (a, b) = two().await;
    let text = format!(
        "{}\n{}",
        pair("balance = \"first\"").replace(
            "pool = \"app\"\n",
            "name = \"held\"\npool = \"app\"\nlimit = { rate = \"1/s\", delay = \"10s\" }\n"
        ),
        "[[route]]\nname = \"quick\"\npath = \"/quick\"\npool = \"app\"\n"
    );
    let proxy = proxy(&text).with("a", &a).with("b", &b).start().await;
    assert_eq!(who(&proxy.client(), 1).await, "a");
    // It is held for its rate, having seen `a` where it was first.
    let client = proxy.client();
    let held = tokio::spawn(async move { client.get("/").await.upstream() });
    let held_back = "tidegate_limit_decisions_total{route=\"held\",limit=\"0\",decision=\"delayed\"}";
    until("it is held", async || proxy.metric(held_back).await.filter(|count| *count == 1.0)).await;
    proxy.operate("app", &a.address(), "drain").await;
    let drained = proxy.until_state("app", &a.address(), "drained").await;
    assert_eq!(drained.in_flight, 0);
    assert_eq!(held.await.unwrap(), "b", "a drained upstream takes nothing, whenever who asks has come");
    assert_eq!(a.requests(), 1);
    proxy.operate("app", &a.address(), "undrain").await;
    proxy.until_state("app", &a.address(), "ready").await;
    let quick = proxy.client().get("/quick").await.upstream();
    assert_eq!(quick, "a", "and is open again");
}

#[tokio::test]
async fn the_deadline_of_a_drain_cuts_streams_and_tunnels() {
    let a = upstream().start().await;
    let text = format!("{WEB}[pool.app]\nupstreams = [\"{{a}}\"]\n");
    let proxy = proxy(&text).with("a", &a).start().await;
    let mut events = proxy.client().get("/sse?interval=10ms").open().await;
    // A stream that is silent is cut too.
    let mut silent = proxy.client().get("/sse?interval=1h").open().await;
    let upgrade = proxy.client().get("/ws").header("connection", "upgrade").header("upgrade", "bytes");
    let mut tunnel = upgrade.upgrade().await.unwrap_or_else(|opened| panic!("{}", opened.status));
    tunnel.write_all(b"ping").await.unwrap();
    let mut pong = [0; 4];
    tunnel.read_exact(&mut pong).await.unwrap();
    proxy.operate("app", &a.address(), "drain?deadline=200ms").await;
    for stream in [&mut events, &mut silent] {
        let last = loop {
            match stream.next().await {
                Some(Ok(_)) => {}
                other => break other,
            }
        };
        assert!(last.is_some_and(|last| last.is_err()), "the client sees that it is not whole");
    }
    let _ = soon("the tunnel's end", tunnel.read_to_end(&mut Vec::new())).await;
    let drained = proxy.until_state("app", &a.address(), "drained").await;
    assert!(drained.reason.contains("deadline passed with 3 requests left"), "{}", drained.reason);
    eventually("the upstream is rid of them", || a.stats().in_flight() == 0).await;
    // Taken back into use, it is not cut any more.
    proxy.operate("app", &a.address(), "ready").await;
    let mut events = proxy.client().get("/sse?interval=10ms&events=30").open().await;
    for _ in 0..20 {
        events.text().await;
    }
}

#[tokio::test]
async fn who_is_stuck_to_a_draining_upstream_may_stay_until_its_deadline() {
    let (a, b) = two().await;
    let proxy = proxy(&pair("sticky = { cookie = \"seat\" }")).with("a", &a).with("b", &b).start().await;
    let client = proxy.client();
    let first = client.get("/").await;
    let cookie = first.header("set-cookie").expect("a cookie").split(';').next().unwrap().to_owned();
    let stuck = if first.upstream() == "a" { &a } else { &b };
    proxy.operate("app", &stuck.address(), "drain?deadline=1s").await;
    // It has nothing to do just now, and clients that may come back.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(proxy.upstream("app", &stuck.address()).await.unwrap().state.word(), "draining");
    assert_eq!(client.get("/").header("cookie", &cookie).await.upstream(), first.upstream());
    let new = client.get("/").await;
    assert_ne!(new.upstream(), first.upstream(), "nobody new is sent there");
    let drained = proxy.until_state("app", &stuck.address(), "drained").await;
    assert!(drained.reason.starts_with("nothing left to do"), "{}", drained.reason);
    let moved = client.get("/").header("cookie", &cookie).await;
    assert_eq!(moved.upstream(), new.upstream());
    assert!(moved.header("set-cookie").is_some(), "it is told where it belongs now");
    assert_eq!(proxy.metric("tidegate_pool_sticky_moved_total{pool=\"app\"}").await, Some(1.0));
}

#[tokio::test]
async fn the_drain_command_waits_until_a_real_process_has_let_go() {
    let (a, b) = two().await;
    let proxy = proxy(&pair("")).with("a", &a).with("b", &b).spawn().await;
    let admin = format!("unix:{}", proxy.folder().join("admin.sock").display());
    let web = client(proxy.address_of("web").await);
    let streams = [web.get("/sse?interval=10ms").open().await, web.get("/sse?interval=10ms").open().await];
    let address = a.address();
    let command = ["drain", "app", &address, "--wait", "--deadline", "60s", "--admin", &admin];
    let mut waiting = std::pin::pin!(tidegate(&command));
    tokio::select! {
        done = &mut waiting => panic!("it did not wait: {done:?}"),
        _ = proxy.until_state("app", &address, "draining") => {}
    }
    drop(streams);
    let done = waiting.await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.out.contains("drained"), "{done:?}");
    eventually("the log tells", || {
        let log = proxy.log();
        log.contains("ready → draining") && log.contains("draining → drained: nothing left to do")
    })
    .await;
    let done = tidegate(&["undrain", "app", &address, "--admin", &admin]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    until("a answers again", async || (web.get("/").await.upstream() == "a").then_some(())).await;
}
