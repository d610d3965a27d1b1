//! A reload changes what the edit says, all of it at once, and nothing else.

mod support;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const WEB: &str = "[listener.web]\nbind = \"127.0.0.1:0\"\n";

fn says(word: &str) -> String {
    format!("{WEB}[[route]]\nrespond = {{ status = 200, body = \"{word}\" }}\n")
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

async fn until_said(client: &Client, word: &str) {
    until(&format!("it says {word}"), async || (client.get("/").await.text() == word).then_some(())).await;
}

#[tokio::test]
async fn saving_the_file_is_enough_however_it_is_saved() {
    let proxy = proxy(&says("one")).start().await;
    let client = proxy.client();
    assert_eq!(client.get("/").await.text(), "one");
    let text = |word: &str| std::fs::read_to_string(proxy.file()).unwrap().replace("one", word);
    let (second, third, fourth) = (text("two"), text("three"), text("four"));
    // Written in place.
    std::fs::write(proxy.file(), second).unwrap();
    until_said(&client, "two").await;
    // Renamed over.
    proxy.save(&says("one"));
    until_said(&client, "one").await;
    // Linked as Kubernetes does it, and the link swapped.
    let path = |name: &str| proxy.folder().join(name);
    for (version, text) in [("..v3", third), ("..v4", fourth)] {
        std::fs::create_dir(path(version)).unwrap();
        std::fs::write(path(version).join("tidegate.toml"), text).unwrap();
    }
    symlink("..v3", path("..data")).unwrap();
    symlink("..data/tidegate.toml", path("link")).unwrap();
    std::fs::rename(path("link"), proxy.file()).unwrap();
    until_said(&client, "three").await;
    symlink("..v4", path("..new")).unwrap();
    std::fs::rename(path("..new"), path("..data")).unwrap();
    until_said(&client, "four").await;
    assert_eq!(proxy.status().await.last_reload.cause, "file");
}

#[tokio::test]
async fn a_log_that_is_written_beside_the_file_does_not_put_the_reload_off() {
    let proxy = proxy(&says("one")).start().await;
    let (path, done) = (proxy.folder().join("noise"), Arc::new(AtomicBool::new(false)));
    let ended = done.clone();
    let noise = std::thread::spawn(move || {
        while !ended.load(Ordering::Relaxed) {
            std::fs::write(&path, "line").unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    proxy.save(&says("two"));
    until_said(&proxy.client(), "two").await;
    done.store(true, Ordering::Relaxed);
    noise.join().unwrap();
}

#[tokio::test]
async fn sighup_reads_the_file_again() {
    let mut proxy = proxy(&says("one")).spawn().await;
    proxy.signal(Signal::HUP);
    let status = until("the signal was heeded", async || {
        let status = proxy.status().await;
        (status.last_reload.cause == "signal").then_some(status)
    })
    .await;
    assert!(status.last_reload.accepted);
    assert_eq!(client(proxy.address_of("web").await).get("/").await.text(), "one");
}

#[tokio::test]
async fn a_bad_edit_changes_nothing_and_says_why() {
    let proxy = proxy(&says("one")).start().await;
    let generation = proxy.status().await.generation;
    let bad = format!("{}\n[[route]]\npath = \"/x\"\npool = \"nowhere\"\n[pool.app]\nbalanse = 1\n", says("two"));
    let verdict = proxy.edit(&bad).await;
    assert!(!verdict.accepted);
    for part in ["nowhere", "balanse", "tidegate.toml:"] {
        assert!(verdict.problems.contains(part), "{part}: {}", verdict.problems);
    }
    assert_eq!(proxy.client().get("/").await.text(), "one");
    let status = proxy.status().await;
    assert_eq!((status.generation, status.reloads_refused), (generation, 1));
    assert!(!status.last_reload.accepted && status.last_reload.problems.contains("nowhere"));
    assert_eq!(proxy.metric("tidegate_reloads_total{outcome=\"failed\"}").await, Some(1.0));
    assert_eq!(proxy.metric("tidegate_last_reload_successful").await, Some(0.0));
    // And it mends itself.
    assert!(proxy.edit(&says("two")).await.accepted);
    assert_eq!(proxy.client().get("/").await.text(), "two");
    assert_eq!(proxy.metric("tidegate_last_reload_successful").await, Some(1.0));
}

#[tokio::test]
async fn a_request_sees_one_generation() {
    let edit = |word: &str| format!("{}response_headers = {{ set = {{ x-word = \"{word}\" }} }}\n", says(word));
    let proxy = proxy(&edit("w0")).start().await;
    let done = Arc::new(AtomicBool::new(false));
    let (client, ended) = (proxy.client(), done.clone());
    let asking = tokio::spawn(async move {
        let mut seen = std::collections::BTreeSet::new();
        while !ended.load(Ordering::Relaxed) {
            let answer = client.get("/").await;
            assert_eq!(answer.header("x-word"), Some(answer.text().as_str()));
            seen.insert(answer.text());
        }
        seen.len()
    });
    for number in 1..=30 {
        assert!(proxy.edit(&edit(&format!("w{number}"))).await.accepted);
        // Some request at least sees each of them.
        assert_eq!(proxy.client().get("/").await.text(), format!("w{number}"));
    }
    done.store(true, Ordering::Relaxed);
    assert!(asking.await.unwrap() > 1);
}

#[tokio::test]
async fn what_an_edit_does_not_change_stays_as_it_was() {
    let (a, b) = (upstream().named("a").start().await, upstream().named("b").start().await);
    let text = |number: u32| {
        format!(
            r#"
            [listener.web]
            bind = "127.0.0.1:0"
            [pool.app]
            upstreams = ["{{a}}", "{{b}}"]
            health = {{ path = "/health", interval = "60s" }}
            [[route]]
            pool = "app"
            [[route]]
            path = "/limited"
            pool = "app"
            limit = {{ rate = "1/min", burst = 1, per = "client" }}
            [[route]]
            path = "/n{number}"
            respond = 204
            "#
        )
    };
    let proxy = proxy(&text(0)).with("a", &a).with("b", &b).start().await;
    proxy.settled().await;
    proxy.operate("app", &b.address(), "drain").await;
    proxy.operate("app", &a.address(), "weight?value=5").await;
    let mut kept = raw_client(proxy.address("web")).await;
    const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(kept.send(GET).await.response().await.status, 200);
    let client = proxy.client();
    let last = (0..9).map(|_| client.get("/limited"));
    let mut statuses = Vec::new();
    for call in last {
        statuses.push(call.await.status.as_u16());
    }
    assert_eq!(statuses.last(), Some(&429));
    let before = proxy.upstream("app", &a.address()).await.unwrap();
    assert!(before.ewma_seconds > 0.0);
    let connections = a.stats().connections();
    for number in 1..=10 {
        assert!(proxy.edit(&text(number)).await.accepted);
    }
    assert_eq!(client.get("/n10").await.status, 204);
    assert_eq!(client.get("/limited").await.status, 429, "the limit remembers");
    assert_eq!(kept.send(GET).await.response().await.status, 200, "the connection is the same");
    assert_eq!(a.stats().connections(), connections, "and so are those to the upstream");
    assert_eq!((a.stats().health_checks(), b.stats().health_checks()), (1, 1), "nobody is asked anew");
    let after = proxy.upstream("app", &a.address()).await.unwrap();
    assert!(after.ewma_seconds > 0.0 && after.since_seconds >= before.since_seconds);
    assert_eq!(after.configured_weight, 5, "what an operator has set stays while the file says the same");
    assert_eq!(proxy.upstream("app", &b.address()).await.unwrap().state.word(), "drained");
    let heavier = text(11).replace("\"{a}\"", "{ address = \"{a}\", weight = 3 }");
    assert!(proxy.edit(&heavier).await.accepted);
    assert_eq!(proxy.upstream("app", &a.address()).await.unwrap().configured_weight, 3);
}

#[tokio::test]
async fn new_listeners_are_bound_first_and_a_port_that_is_taken_refuses_the_edit() {
    let proxy = proxy(&says("one")).start().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let more = |port: u16| {
        format!(
            "{}[listener.afresh]\nbind = \"127.0.0.1:0\"\n[listener.more]\nbind = \"127.0.0.1:{port}\"\n",
            says("two")
        )
    };
    let port = taken.local_addr().unwrap().port();
    let verdict = proxy.edit(&more(port)).await;
    assert!(!verdict.accepted && verdict.problems.contains(&port.to_string()), "{}", verdict.problems);
    assert_eq!(proxy.client().get("/").await.text(), "one");
    let status = proxy.status().await;
    assert_eq!(status.listeners.iter().map(|known| known.name.as_str()).collect::<Vec<_>>(), ["web"]);
    let page = proxy.admin().get("/metrics").await.text();
    assert!(!page.contains("afresh"), "a refused edit leaves no trace");
    drop(taken);
    let verdict = proxy.edit(&more(port)).await;
    assert!(verdict.accepted, "{}", verdict.problems);
    for address in [proxy.address("web"), proxy.address_of("afresh").await, local(port)] {
        assert_eq!(client(address).get("/").await.text(), "two");
    }
}

#[tokio::test]
async fn a_listener_can_be_renamed_and_an_address_widened_in_one_edit() {
    let port = free_port();
    let listener = |name: &str, bind: &str| {
        format!(
            "[listener.{name}]\nbind = [\"{bind}\", \"unix:{{folder}}/web.sock\"]\n[[route]]\nlistener = \"{name}\"\nrespond = {{ status = 200, body = \"{name}\" }}\n"
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let narrow = format!("127.0.0.1:{port}");
    let proxy = proxy(&listener("web", &narrow)).with("folder", folder.path()).start().await;
    let mut kept = raw_client(local(port)).await;
    const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(kept.send(GET).await.response().await.text(), "web");
    for (name, bind) in
        [("front", narrow.clone()), ("front", format!("0.0.0.0:{port}")), ("back", narrow.clone()), ("web", narrow)]
    {
        let verdict = proxy.edit(&listener(name, &bind)).await;
        assert!(verdict.accepted, "{}", verdict.problems);
        // The old socket is closed only after the new one is open.
        until("the port has its name", async || (client(local(port)).get("/").await.text() == name).then_some(()))
            .await;
        let over_unix = || Client::over_unix(&folder.path().join("web.sock"));
        until("so has the path", async || (over_unix().get("/").await.text() == name).then_some(())).await;
        let status = proxy.status().await;
        assert_eq!(status.listeners.len(), 1, "{:?}", status.listeners);
        assert_eq!(status.listeners[0].addresses.len(), 2);
    }
    assert_eq!(kept.send(GET).await.response().await.text(), "web", "its listener is back");
    let verdict = proxy.edit(&listener("web", &format!("127.0.0.1:{}", free_port()))).await;
    assert!(verdict.accepted);
    eventually("the old port is closed", || std::net::TcpStream::connect(local(port)).is_err()).await;
    proxy.stop().await;
    assert!(!folder.path().join("web.sock").exists());
}

#[tokio::test]
async fn streams_of_what_is_removed_go_on() {
    let (a, b) = (upstream().named("a").start().await, upstream().named("b").start().await);
    let with = r#"
        [listener.web]
        bind = "127.0.0.1:0"
        [listener.old]
        bind = "127.0.0.1:0"
        [pool.gone]
        upstreams = ["{a}"]
        [pool.app]
        upstreams = ["{a}", "{b}"]
        [[route]]
        path = "/app"
        pool = "app"
        rewrite = { prefix = "/" }
        [[route]]
        pool = "gone"
    "#;
    let without = r#"
        [listener.web]
        bind = "127.0.0.1:0"
        [pool.app]
        upstreams = ["{b}"]
        [[route]]
        path = "/app"
        pool = "app"
    "#;
    let proxy = proxy(with).with("a", &a).with("b", &b).start().await;
    let old = proxy.address("old");
    let mut events = client(old).get("/sse?interval=10ms").open().await;
    let mut download = proxy.client().get("/chunks/200?interval=10ms&size=100").open().await;
    let upgrade = client(old).get("/ws").header("connection", "upgrade").header("upgrade", "bytes");
    let mut tunnel = upgrade.upgrade().await.unwrap_or_else(|opened| panic!("{}", opened.status));
    // One of two goes to the upstream that is removed from a pool that stays.
    let mut others = Vec::new();
    for _ in 0..2 {
        others.push(proxy.client().get("/app/sse?interval=10ms").open().await);
    }
    events.text().await;
    assert!(proxy.edit(without).await.accepted);
    assert_eq!(proxy.client().get("/").await.status, 404);
    eventually("the old listener is closed", || std::net::TcpStream::connect(old).is_err()).await;
    let leaving = proxy.upstream("app", &a.address()).await.expect("it still finishes its stream");
    assert!(leaving.removed && leaving.state.word() == "draining" && leaving.in_flight == 1, "{leaving:?}");
    let leaving = proxy.upstream("gone", &a.address()).await.expect("so does the pool that is removed");
    assert!(leaving.removed && leaving.state.word() == "draining", "{leaving:?}");
    for _ in 0..20 {
        events.text().await;
        for other in &mut others {
            other.text().await;
        }
        tunnel.write_all(b"ping").await.unwrap();
        let mut pong = [0; 4];
        soon("the tunnel's echo", tunnel.read_exact(&mut pong)).await.unwrap();
    }
    let mut length = 0;
    while let Some(piece) = download.next().await {
        length += piece.expect("an unbroken download").len();
    }
    assert_eq!(length, 20_000);
    // The pool comes back while it drains: it is the same, and nothing is cut.
    assert!(proxy.edit(with).await.accepted);
    assert_eq!(proxy.until_state("app", &a.address(), "ready").await.in_flight, 1);
    assert_eq!(proxy.until_state("gone", &a.address(), "ready").await.in_flight, 2);
    events.text().await;
    drop((others, events, tunnel));
    until("all has ended", async || {
        let (app, gone) = (proxy.upstream("app", &a.address()).await?, proxy.upstream("gone", &a.address()).await?);
        (app.in_flight + gone.in_flight == 0).then_some(())
    })
    .await;
    // Now nothing is left to wait for.
    assert!(proxy.edit(without).await.accepted);
    until("it has gone", async || proxy.upstream("app", &a.address()).await.is_none().then_some(())).await;
    until("nothing is left of a pool that has gone", async || {
        let page = proxy.admin().get("/metrics").await.text();
        (!page.contains("pool=\"gone\"")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_deadline_of_a_drain_cuts_what_is_left_of_a_removed_pool() {
    let a = upstream().start().await;
    let with =
        format!("{WEB}[pool.app]\ndrain_timeout = \"300ms\"\nupstreams = [\"{{a}}\"]\n[[route]]\npool = \"app\"\n");
    let proxy = proxy(&with).with("a", &a).start().await;
    let mut events = proxy.client().get("/sse?interval=10ms").open().await;
    let upgrade = proxy.client().get("/ws").header("connection", "upgrade").header("upgrade", "bytes");
    let mut tunnel = upgrade.upgrade().await.unwrap_or_else(|opened| panic!("{}", opened.status));
    let waiting = tokio::spawn(proxy.client().get("/hang").attempt());
    eventually("three are there", || a.stats().in_flight() == 3).await;
    assert!(proxy.edit(WEB).await.accepted);
    let broken = loop {
        match events.next().await {
            Some(Ok(_)) => {}
            other => break other,
        }
    };
    assert!(broken.is_some_and(|last| last.is_err()), "a cut stream is a broken message, never a whole one");
    let mut rest = Vec::new();
    let _ = soon("the tunnel's end", tunnel.read_to_end(&mut rest)).await;
    let answer = waiting.await.unwrap().unwrap();
    assert_eq!(answer.status, 503);
    assert!(answer.header("proxy-status").is_some_and(|status| status.contains("connection_terminated")));
    eventually("the upstream is rid of them", || a.stats().in_flight() == 0).await;
    assert!(proxy.metric("tidegate_refusals_total{reason=\"drain_deadline\"}").await.unwrap_or(0.0) >= 3.0);
}

#[tokio::test]
async fn new_certificates_are_taken_when_their_files_change() {
    fn certificate() -> (rcgen::Certificate, String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let pem = certificate.pem();
        (certificate, pem, key.serialize_pem())
    }
    fn trusting(certificate: &rcgen::Certificate) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Arc::new(config.with_root_certificates(roots).with_no_client_auth())
    }
    let (first, pem, key) = certificate();
    let text = says("one").replace("[[route]]", "tls = { certificate = \"web.pem\", key = \"web.key\" }\n[[route]]");
    let proxy = proxy(&text).file("web.pem", pem).file("web.key", key).start().await;
    let mut kept = proxy.client().tls(trusting(&first), "localhost").get("/").open().await;
    assert_eq!(kept.text().await, "one");
    let (second, pem, key) = certificate();
    // A certificate without its key is refused; the two together are taken.
    std::fs::write(proxy.folder().join("web.pem"), pem).unwrap();
    until("the half is refused", async || (proxy.status().await.reloads_refused > 0).then_some(())).await;
    assert_eq!(proxy.client().tls(trusting(&first), "localhost").get("/").await.text(), "one");
    std::fs::write(proxy.folder().join("web.key"), key).unwrap();
    until("the new certificate is shown", async || {
        proxy.client().tls(trusting(&second), "localhost").get("/").attempt().await.ok()
    })
    .await;
    assert!(proxy.client().tls(trusting(&first), "localhost").get("/").attempt().await.is_err());
    assert_eq!(proxy.metric("tidegate_certificate_reloads_total").await, Some(1.0));
}

#[tokio::test]
async fn the_admin_apis_token_and_address_can_be_changed() {
    let (first, second) = (free_port(), free_port());
    let text =
        |port: u16, token: &str| format!("[admin]\nbind = \"127.0.0.1:{port}\"\ntoken = \"{token}\"\n{}", says("one"));
    let proxy = proxy(&text(first, "sixteen-letters-one")).start().await;
    let status = async |port: u16, token: &str| {
        let bearer = format!("Bearer {token}");
        let call = client(local(port)).get("/status").header("authorization", &bearer);
        call.attempt().await.map(|answer| answer.status.as_u16()).ok()
    };
    assert_eq!(status(first, "sixteen-letters-one").await, Some(200));
    proxy.save(&text(first, "sixteen-letters-two"));
    until("the new token is right", async || (status(first, "sixteen-letters-two").await == Some(200)).then_some(()))
        .await;
    assert_eq!(status(first, "sixteen-letters-one").await, Some(401));
    proxy.save(&text(second, "sixteen-letters-two"));
    until("the new address is open", async || (status(second, "sixteen-letters-two").await == Some(200)).then_some(()))
        .await;
    until("the old one is closed", async || status(first, "sixteen-letters-two").await.is_none().then_some(())).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.save(&text(taken.local_addr().unwrap().port(), "sixteen-letters-two"));
    until("an address that is taken is refused", async || {
        let call = client(local(second)).get("/status").header("authorization", "Bearer sixteen-letters-two");
        let status: tidegate::admin::model::Status = call.await.parsed();
        (status.reloads_refused == 1).then_some(())
    })
    .await;
    proxy.save(&format!("admin = {{ bind = \"off\" }}\n{}", says("two")));
    until_said(&proxy.client(), "two").await;
    until("it is off", async || status(second, "sixteen-letters-two").await.is_none().then_some(())).await;
}

#[tokio::test]
async fn the_access_log_goes_where_the_edit_says_or_where_it_went_before() {
    let text = |log: &str| format!("access_log = {{ target = \"{log}\", format = \"{{path}}\" }}\n{}", says("one"));
    let folder = tempfile::tempdir().unwrap();
    let log = |name: &str| folder.path().join(name);
    let target = |name: &str| log(name).display().to_string();
    let proxy = proxy(&text(&target("first"))).start().await;
    let written = async |name: &str, line: &str| {
        until(&format!("{line} is in {name}"), async || {
            let text = std::fs::read_to_string(log(name)).unwrap_or_default();
            text.lines().any(|known| known == line).then_some(())
        })
        .await;
    };
    proxy.client().get("/a").await;
    written("first", "/a").await;
    assert!(!proxy.edit(&text(&target("no/such/folder"))).await.accepted);
    proxy.client().get("/b").await;
    written("first", "/b").await;
    assert!(proxy.edit(&text(&target("second"))).await.accepted);
    proxy.client().get("/c").await;
    written("second", "/c").await;
    assert!(proxy.edit(&says("one")).await.accepted);
    proxy.client().get("/d").await;
    assert!(proxy.edit(&text(&target("second"))).await.accepted);
    proxy.client().get("/e").await;
    written("second", "/e").await;
    assert_eq!(std::fs::read_to_string(log("first")).unwrap(), "/a\n/b\n");
    assert_eq!(std::fs::read_to_string(log("second")).unwrap(), "/c\n/e\n");
}

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_reloads_under_load_lose_nothing_cut_nothing_and_grow_nothing() {
    let all = std::env::var_os("TIDEGATE_LONG").is_some();
    let reloads = if all { 1000 } else { 150 };
    let (a, b) = (upstream().named("a").start().await, upstream().named("b").start().await);
    let text = |number: u32| {
        let (second, weight) = (if number.is_multiple_of(3) { "" } else { ", \"{b}\"" }, 1 + number % 4);
        format!(
            r#"
            [listener.web]
            bind = "127.0.0.1:{{port}}"
            [pool.app]
            upstreams = [{{ address = "{{a}}", weight = {weight} }}{second}]
            health = {{ path = "/health", initial = "up" }}
            [[route]]
            pool = "app"
            limit = {{ rate = "100000/s", burst = 100000, per = "client" }}
            [[route]]
            path = "/other{number}"
            respond = 204
            "#
        )
    };
    let port = free_port().to_string();
    let mut proxy = proxy(&text(1)).with("a", &a).with("b", &b).with("port", port.as_str()).spawn().await;
    let (pid, web) = (proxy.pid(), proxy.address_of("web").await);
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = client(web).get("/sse?interval=100ms").open().await;
        stream.text().await;
        streams.push(stream);
    }
    let (done, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (client, done, answered) = (client(web), done.clone(), answered.clone());
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    let answer = client.get("/").attempt().await.expect("every request is answered");
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    // What is allocated once is allocated by then: caches of the allocator, tables of their final size.
    for number in 0..reloads / 3 {
        assert!(proxy.edit(&text(number)).await.accepted);
    }
    let before = resident(pid);
    for number in 0..reloads {
        let verdict = proxy.edit(&text(number)).await;
        assert!(verdict.accepted, "{}", verdict.problems);
    }
    let after = resident(pid);
    done.store(true, Ordering::Relaxed);
    for load in load {
        load.await.expect("no request failed");
    }
    for stream in &mut streams {
        stream.text().await;
    }
    let answered = answered.load(Ordering::Relaxed);
    println!("{reloads} reloads under {answered} requests: {before} KiB resident before, {after} KiB after");
    assert!(after < before + 5 * 1024, "{before} KiB before, {after} KiB after");
    assert!(answered > 0);
}
