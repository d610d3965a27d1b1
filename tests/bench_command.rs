//! `tidegate bench` counts right, and hides nothing.

mod support;

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use support::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What a load showed, and its exit code.
async fn bench(url: &str, arguments: &[&str]) -> (Value, i32) {
    let done = tidegate(&[&["bench", url, "--json"], arguments].concat()).await;
    let code = done.code.expect("it ends by itself");
    (serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}: {done:?}")), code)
}

fn url(upstream: &Upstream) -> String {
    format!("http://{}/", upstream.address())
}

fn seconds(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[tokio::test]
async fn a_closed_loop_sends_exactly_what_it_was_told_to() {
    let a = upstream().start().await;
    let (seen, code) = bench(&url(&a), &["--requests", "1000", "--connections", "7", "--threads", "3"]).await;
    assert_eq!((&seen["requests"], &seen["answers"], code), (&1000.into(), &1000.into(), 0), "{seen}");
    assert_eq!(a.requests(), 1000);
    assert_eq!(a.stats().connections(), 7, "each connection serves many requests");
    assert_eq!((&seen["status"]["2xx"], &seen["reconnects"], &seen["threads"]), (&1000.into(), &0.into(), &3.into()));
    let latency = &seen["latency"];
    let rising = ["min", "p50", "p90", "p99", "p99_9", "max"].map(|name| seconds(&latency[name]));
    assert!(rising[0] > 0.0 && rising.is_sorted(), "{latency}");
    assert!(seconds(&seen["bytes"]) > 1000.0 && seconds(&seen["answers_per_second"]) > 0.0, "{seen}");
}

#[tokio::test]
async fn a_duration_ends_it_and_what_is_in_progress_is_waited_for() {
    let a = upstream().slow(Duration::from_millis(30)).start().await;
    let (seen, code) = bench(&url(&a), &["--duration", "500ms", "--connections", "4"]).await;
    let answers = seen["answers"].as_u64().unwrap();
    assert!((4..=68).contains(&answers) && code == 0, "{seen}");
    assert_eq!((a.requests(), &seen["unfinished"]), (answers, &0.into()), "none was left halfway");
}

#[tokio::test]
async fn through_a_proxy_with_a_body_and_headers_of_ones_own() {
    let a = upstream().start().await;
    let text = r#"
        [listener.web]
        bind = "127.0.0.1:0"
        [pool.app]
        upstreams = ["{a}"]
        [[route]]
        host = "app.test"
        path = "/echo"
        pool = "app"
    "#;
    let proxy = proxy(text).with("a", &a).start().await;
    let body = proxy.folder().join("body");
    std::fs::write(&body, "x".repeat(5000)).unwrap();
    let (url, body) = (format!("http://{}/echo", proxy.address("web")), format!("@{}", body.display()));
    let arguments = ["--requests", "50", "--header", "Host: app.test", "--body", &body];
    for arguments in [&arguments[..], &[&arguments[..], &["--http2", "--streams", "5"]].concat()] {
        let (seen, code) = bench(&url, arguments).await;
        assert_eq!((&seen["answers"], &seen["bytes"], code), (&50.into(), &250_000.into(), 0), "{seen}");
        assert_eq!(seen["method"], "POST");
    }
    assert_eq!(a.requests(), 100);
    let (seen, code) = bench(&url, &["--requests", "3"]).await;
    assert_eq!((&seen["status"]["4xx"], code), (&3.into(), 1), "no such host: {seen}");
}

#[tokio::test]
async fn http2_shares_a_connection_among_streams() {
    let a = upstream().slow(Duration::from_millis(100)).start().await;
    let arguments = ["--http2", "--streams", "20", "--connections", "2", "--requests", "80"];
    let (seen, code) = bench(&url(&a), &arguments).await;
    assert_eq!((&seen["answers"], &seen["http2"], code), (&80.into(), &true.into(), 0), "{seen}");
    assert_eq!(a.stats().connections(), 2);
    assert!(seconds(&seen["seconds"]) < 2.0, "forty at once, so twice 100 ms: {seen}");
}

#[tokio::test]
async fn tls_by_either_protocol_and_only_with_a_good_certificate_unless_told() {
    let alpn = Authority::new().server("127.0.0.1", &["h2", "http/1.1"]);
    let a = upstream().tls(alpn).start().await;
    let url = format!("https://{}/", a.address());
    for arguments in [&["--insecure", "--requests", "20"][..], &["--insecure", "--requests", "20", "--http2"]] {
        let (seen, code) = bench(&url, arguments).await;
        assert_eq!((&seen["answers"], code), (&20.into(), 0), "{seen}");
    }
    let (seen, code) = bench(&url, &["--requests", "2", "--connections", "1"]).await;
    assert_eq!((&seen["errors"]["tls"]["count"], &seen["answers"], code), (&2.into(), &0.into(), 1), "{seen}");
    assert!(seen["errors"]["tls"]["example"].as_str().unwrap().contains("certificate"), "{seen}");
    let old = upstream().tls(Authority::new().server("127.0.0.1", &["http/1.1"])).start().await;
    let url = format!("https://{}/", old.address());
    let (seen, _) = bench(&url, &["--requests", "2", "--insecure", "--http2"]).await;
    assert_eq!(seen["errors"]["tls"]["count"], 2, "{seen}");
}

/// Answers 150 requests on its one connection, stands still for 300 ms, once, and goes on.
async fn stalls_once() -> Scripted {
    let answers = |script: Script, count| (0..count).fold(script, |script, _| script.reads_request().sends(OK));
    answers(answers(scripted(), 150).reads_request().pauses(Duration::from_millis(300)).sends(OK), 500).start().await
}

#[tokio::test]
async fn an_open_loop_shows_the_latency_that_a_stall_gives_to_all_who_come_meanwhile() {
    let server = stalls_once().await;
    let url = format!("http://{}/", server.address());
    let (seen, code) = bench(&url, &["--connections", "1", "--rate", "200", "--requests", "400"]).await;
    assert_eq!((&seen["answers"], code), (&400.into(), 0), "{seen}");
    // Sixty requests were due in 300 ms: 15 % of all, so that the slowest hundredth waited nearly that long.
    assert!(seconds(&seen["latency"]["p99"]) > 0.25, "{seen}");
    assert!(seconds(&seen["latency"]["p90"]) > 0.05, "{seen}");
    assert!(seconds(&seen["late"]) > 30.0 && seconds(&seen["latest"]) > 0.25, "{seen}");
    assert!(seconds(&seen["seconds"]) > 1.9, "400 requests at 200/s: {seen}");

    let server = stalls_once().await;
    let url = format!("http://{}/", server.address());
    let (seen, _) = bench(&url, &["--connections", "1", "--requests", "400"]).await;
    assert!(seconds(&seen["latency"]["p99"]) < 0.2, "one slow answer of 400 is what a closed loop sees: {seen}");
    assert!(seconds(&seen["latency"]["max"]) >= 0.3, "{seen}");
}

#[tokio::test]
async fn an_open_loop_keeps_its_rate_and_is_not_late_without_cause() {
    let a = upstream().start().await;
    let arguments = ["--rate", "300/s", "--duration", "1s", "--connections", "10", "--threads", "2"];
    let (seen, code) = bench(&url(&a), &arguments).await;
    assert_eq!((&seen["answers"], a.requests(), code), (&300.into(), 300, 0), "{seen}");
    assert!((0.99..3.0).contains(&seconds(&seen["seconds"])), "{seen}");
}

#[tokio::test]
async fn what_could_not_be_sent_in_time_is_said() {
    let a = upstream().slow(Duration::from_secs(60)).start().await;
    let arguments = ["--rate", "100", "--duration", "500ms", "--connections", "2", "--timeout", "700ms"];
    let (seen, code) = bench(&url(&a), &arguments).await;
    let errors = |kind: &str| seen["errors"][kind]["count"].as_u64().unwrap();
    assert_eq!((&seen["requests"], &seen["answers"], code), (&50.into(), &0.into(), 1), "{seen}");
    assert_eq!(errors("timeout") + errors("unsent"), 50, "{seen}");
    assert!(errors("timeout") >= 2, "{seen}");
    let told = tidegate(&[&["bench", &url(&a)], &arguments[..]].concat()).await;
    assert!(told.out.contains("timeout") && told.out.contains("no answers"), "{}", told.out);
}

#[tokio::test]
async fn errors_are_told_by_kind() {
    let dead = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let resets = scripted().reads_request().cuts().start().await;
    let closes = scripted().reads_request().start().await;
    let half = scripted().reads_request().sends("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").start().await;
    let babbles = scripted().reads_request().sends("220 mail.test ESMTP\r\n\r\n").start().await;
    let hangs = scripted().holds().start().await;
    let ends = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    let nonsense = scripted().reads_request().sends(ends).start().await;
    let plain = |address: String| format!("http://{address}/");
    for (url, kind) in [
        (plain(dead), "connect"),
        (format!("https://{}/", hangs.address()), "connect"),
        (plain(resets.address()), "reset"),
        (plain(closes.address()), "closed"),
        (plain(half.address()), "closed"),
        (plain(babbles.address()), "malformed"),
        (plain(nonsense.address()), "malformed"),
        (plain(hangs.address()), "timeout"),
    ] {
        let arguments = ["--requests", "6", "--connections", "2", "--timeout", "300ms"];
        let (seen, code) = bench(&url, &arguments).await;
        assert_eq!(
            (&seen["errors"][kind]["count"], &seen["requests"], code),
            (&6.into(), &6.into(), 1),
            "{kind}: {seen}"
        );
        assert!(!seen["errors"][kind]["example"].as_str().unwrap().is_empty(), "{kind}: {seen}");
    }
}

#[tokio::test]
async fn a_server_that_closes_after_each_answer_only_costs_connections() {
    let closing = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    let server = scripted().reads_request().sends(closing).start().await;
    let (seen, code) = bench(&format!("http://{}/", server.address()), &["-n", "40", "-c", "4"]).await;
    assert_eq!((&seen["answers"], &seen["reconnects"], code), (&40.into(), &36.into(), 0), "{seen}");
}

#[tokio::test]
async fn an_interrupt_ends_it_and_the_result_is_told() {
    let a = upstream().start().await;
    for (path, arguments, words) in [
        ("", &["--duration", "1h"][..], ["2xx", "p99.9", "unfinished"]),
        ("", &["--duration", "1h", "--rate", "50"], ["2xx", "late", "unfinished"]),
        ("hang", &["--timeout", "10m"], ["no answers", "requests    0", "unfinished  50"]),
    ] {
        let before = a.requests();
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["bench", &(url(&a) + path)]).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let child = command.kill_on_drop(true).spawn().expect("the program starts");
        eventually("requests have come", || a.requests() >= before + 50).await;
        let pid = rustix::process::Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let done = soon("the end", child.wait_with_output()).await.unwrap();
        let out = String::from_utf8_lossy(&done.stdout);
        assert!(words.iter().all(|word| out.contains(word)), "{words:?}: {out}");
        assert_eq!(done.status.success(), path.is_empty(), "{out}");
    }
}

#[tokio::test]
async fn wrong_arguments_are_refused_before_anything_is_sent() {
    let a = upstream().start().await;
    let url = url(&a);
    for (arguments, words) in [
        (&["bench"][..], "<URL>"),
        (&["bench", "127.0.0.1:80"], "http://127.0.0.1:8080/path"),
        (&["bench", &url, "--duration", "2h"], "1ms to 1h"),
        (&["bench", &url, "--rate", "0"], "requests a second"),
        (&["bench", &url, "--streams", "5"], "--http2"),
        (&["bench", &url, "--connections", "0"], "1..=20000"),
        (&["bench", &url, "--header", "oops"], "Name: value"),
        (&["bench", &url, "--body", "@/nonexistent"], "/nonexistent"),
        (&["bench", &url, "--method", "GE T"], "GE T"),
    ] {
        let done = tidegate(arguments).await;
        assert_eq!(done.code, Some(64), "{arguments:?}: {done:?}");
        assert!(done.err.contains(words), "{arguments:?}: {}", done.err);
    }
    assert_eq!(a.requests(), 0);
    let done = tidegate(&["bench", "http://nowhere.invalid/"]).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.err.contains("cannot resolve nowhere.invalid"), "{}", done.err);
    assert!(tidegate(&["--help"]).await.out.contains("bench"));
}
