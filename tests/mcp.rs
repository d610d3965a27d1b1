//! MCP servers behind the proxy: two replicas, scripted clients of both eras.

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::*;
use tidegate::cli::backend::Speaks;

const POOL: &str = r#"
    [mcp]
    keys = ["0123456789abcdef0123456789abcdef"]
    [listener.web]
    bind = "127.0.0.1:0"
    [pool.tools]
    kind = "mcp"
    upstreams = ["{a}", "{b}"]
    keepalive = "300ms"
    queue = { timeout = "10s" }
    [[route]]
    pool = "tools"
"#;

const BOTH: &str = "application/json, text/event-stream";

/// A client of the era of sessions.
struct Session {
    client: Client,
    id: String,
    next: u64,
}

impl Session {
    async fn begin(client: Client) -> Session {
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" } });
        let answer = post(&client, message(1, "initialize", params)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let id = answer.header("mcp-session-id").expect("a session id").to_owned();
        let mut session = Session { client, id, next: 2 };
        let told = session.send(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        assert_eq!(told.status, 202);
        session
    }

    fn call(&self, body: Value) -> Call {
        post(&self.client, body).header("mcp-session-id", &self.id).header("mcp-protocol-version", "2025-11-25")
    }

    async fn send(&mut self, body: Value) -> Answer {
        self.call(body).await
    }

    async fn ask(&mut self, method: &str, params: Value) -> Answer {
        self.next += 1;
        let body = message(self.next, method, params);
        self.send(body).await
    }

    /// A tool's text.
    async fn tool(&mut self, name: &str, arguments: Value) -> String {
        let answer = self.ask("tools/call", json!({ "name": name, "arguments": arguments })).await;
        text_of(&said(&answer))
    }

    async fn stream(&self) -> Opened {
        let get = self.client.get("/mcp").header("accept", "text/event-stream").header("mcp-session-id", &self.id);
        get.open().await
    }
}

fn message(id: u64, method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

fn post(client: &Client, body: Value) -> Call {
    client.post("/mcp", body.to_string()).header("content-type", "application/json").header("accept", BOTH)
}

/// A request of the stateless era.
fn modern(client: &Client, id: u64, method: &str, mut params: Value) -> Call {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let mut call = post(client, message(id, method, params.clone()))
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", method);
    if let Some(name) = params["name"].as_str() {
        call = call.header("mcp-name", name);
    }
    call
}

/// The message of an answer, be it JSON or the last event of a stream.
fn said(answer: &Answer) -> Value {
    let text = answer.text();
    let data = text.lines().rev().find_map(|line| line.strip_prefix("data: ")).unwrap_or(&text);
    serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {} {text}", answer.status))
}

fn text_of(said: &Value) -> String {
    said["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{said}")).to_owned()
}

async fn pair() -> (Upstream, Upstream) {
    (upstream().named("a").start().await, upstream().named("b").start().await)
}

#[tokio::test]
async fn sessions_stay_where_they_are_also_through_another_proxy_and_over_a_reload() {
    let (a, b) = pair().await;
    let mut proxy = proxy(POOL).with("a", &a).with("b", &b).spawn().await;
    let web = client(proxy.address_of("web").await);
    let second = support::proxy(POOL).with("a", &a).with("b", &b).start().await;
    let mut sessions = Vec::new();
    for _ in 0..12 {
        let mut session = Session::begin(web.clone()).await;
        assert!(session.id.starts_with("tg1."), "{}", session.id);
        let home = session.tool("whoami", json!({})).await;
        sessions.push((session, home));
    }
    assert_eq!((a.mcp_sessions(), b.mcp_sessions()), (6, 6));
    for round in 1..=6u64 {
        if round == 3 {
            let verdict = proxy.edit(&POOL.replace("300ms", "400ms")).await;
            assert!(verdict.accepted, "{}", verdict.problems);
        }
        for (session, home) in &mut sessions {
            session.client = if round % 2 == 0 { second.client() } else { web.clone() };
            assert_eq!(session.tool("count", json!({})).await, round.to_string());
            assert_eq!(session.tool("whoami", json!({})).await, *home);
        }
    }
    proxy.signal(rustix::process::Signal::KILL);
    proxy.ended().await;
    let proxy = proxy.again().await;
    let web = client(proxy.address_of("web").await);
    for (session, _) in &mut sessions {
        session.client = web.clone();
        assert_eq!(session.tool("count", json!({})).await, "7", "over a kill and a restart");
    }
    let status = proxy.status().await;
    let pool = status.pools.iter().find(|pool| pool.name == "tools").unwrap();
    assert_eq!(pool.upstreams.iter().map(|known| known.sessions).sum::<u64>(), 12, "{pool:?}");
    let (session, _) = &sessions[0];
    let ended = session.client.call(http::Method::DELETE, "/mcp").header("mcp-session-id", &session.id).await;
    assert_eq!(ended.status, 200);
    assert_eq!(session.call(message(9, "ping", json!({}))).await.status, 404, "its client has ended it");
}

#[tokio::test]
async fn a_session_goes_on_when_its_server_is_killed() {
    let (mut a, b) = pair().await;
    let proxy = proxy(POOL).with("a", &a).with("b", &b).start().await;
    let mut sessions = Vec::new();
    for _ in 0..6 {
        let mut session = Session::begin(proxy.client()).await;
        assert_eq!(session.ask("logging/setLevel", json!({ "level": "debug" })).await.status, 200);
        assert_eq!(session.ask("resources/subscribe", json!({ "uri": "file:///x" })).await.status, 200);
        sessions.push(session);
    }
    assert_eq!((a.mcp_sessions(), b.mcp_begun()), (3, [3, 3]));
    a.kill().await;
    // Several requests of the same session notice at once: it is begun again once.
    for session in &mut sessions {
        let calls = (0..4).map(|id| session.call(message(id, "tools/call", json!({ "name": "whoami" }))).into_future());
        for answer in futures_util::future::join_all(calls).await {
            assert_eq!(text_of(&said(&answer)), "b");
        }
    }
    assert_eq!(b.mcp_begun(), [6, 6], "exactly one initialize and one initialized for each session that was lost");
    for session in &mut sessions {
        assert_eq!(session.tool("settings", json!({})).await, "debug file:///x", "what it had set is set again");
    }
}

#[tokio::test]
async fn with_404_the_client_is_told() {
    let (mut a, b) = pair().await;
    let text = POOL.replace("kind = \"mcp\"", "kind = \"mcp\"\nsession_loss = \"404\"");
    let proxy = proxy(&text).with("a", &a).with("b", &b).start().await;
    let mut sessions = [Session::begin(proxy.client()).await, Session::begin(proxy.client()).await];
    a.kill().await;
    let mut statuses = Vec::new();
    for session in &mut sessions {
        statuses.push(session.ask("ping", json!({})).await.status.as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 404]);
}

#[tokio::test]
async fn a_server_that_comes_back_without_its_sessions_gets_them_again() {
    let (mut a, mut b) = pair().await;
    let proxy = proxy(POOL).with("a", &a).with("b", &b).start().await;
    let mut session = Session::begin(proxy.client()).await;
    a.restart().await;
    b.restart().await;
    assert_eq!(session.tool("count", json!({})).await, "1");
    assert_eq!(session.tool("count", json!({})).await, "2");
}

#[tokio::test]
async fn forged_sessions_and_bad_messages_reach_no_server() {
    let (a, b) = pair().await;
    let proxy = proxy(POOL).with("a", &a).with("b", &b).start().await;
    let session = Session::begin(proxy.client()).await;
    let before = a.requests() + b.requests();
    let client = proxy.client();
    let forged = |id: &str| post(&client, message(1, "ping", json!({}))).header("mcp-session-id", id);
    for id in ["a-0", "tg1.", &session.id[..session.id.len() - 2], &format!("{}AA", session.id)] {
        let answer = forged(id).await;
        assert_eq!((answer.status.as_u16(), said(&answer)["error"]["code"].as_i64()), (404, Some(-32001)), "{id}");
        assert_eq!(said(&answer)["id"], 1);
    }
    let raw = |body: &str| {
        client.post("/mcp", body.to_owned()).header("content-type", "application/json").header("accept", BOTH)
    };
    for (body, code) in [
        ("{", -32700),
        ("", -32600),
        ("[]", -32600),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\",\"method\":\"b\"}", -32600),
        ("{\"a\":1}", -32600),
    ] {
        let answer = raw(body).await;
        assert_eq!((answer.status.as_u16(), said(&answer)["error"]["code"].as_i64()), (400, Some(code)), "{body}");
    }
    let call = json!({ "name": "whoami", "arguments": {} });
    let mismatched = modern(&client, 3, "tools/call", call.clone()).header("mcp-name", "other").await;
    assert_eq!((mismatched.status.as_u16(), said(&mismatched)["error"]["code"].as_i64()), (400, Some(-32020)));
    assert_eq!(a.requests() + b.requests(), before);
    assert_eq!(text_of(&said(&modern(&client, 4, "tools/call", call).await)).len(), 1);
}

#[tokio::test]
async fn the_standing_stream_outlives_its_server() {
    let (mut a, mut b) = pair().await;
    let proxy = proxy(POOL).with("a", &a).with("b", &b).start().await;
    let mut session = Session::begin(proxy.client()).await;
    let mut stream = session.stream().await;
    assert_eq!(stream.status, 200);
    let home = session.tool("whoami", json!({})).await;
    session.tool("touch", json!({})).await;
    read_until(&mut stream, "list_changed").await;
    read_until(&mut stream, ": keepalive").await;
    let status = proxy.status().await;
    assert_eq!(
        status.pools[0].upstreams.iter().map(|known| known.in_flight).sum::<u64>(),
        0,
        "an idle stream is no load"
    );
    if home == "a" {
        a.kill().await
    } else {
        b.kill().await
    }
    // The stream is followed by another server; until it is there, what that one says is not heard.
    until("the stream hears the other server", async || {
        let other = session.tool("whoami", json!({})).await;
        assert_ne!(other, home);
        session.tool("touch", json!({})).await;
        heard(&mut stream, "list_changed").await.then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_drain_moves_sessions_at_its_deadline_and_not_before() {
    let (a, b) = pair().await;
    let text = POOL.replace("kind = \"mcp\"", "kind = \"mcp\"\ndrain = { deadline = \"1s\" }");
    let proxy = proxy(&text).with("a", &a).with("b", &b).start().await;
    let mut sessions = vec![Session::begin(proxy.client()).await, Session::begin(proxy.client()).await];
    let mut streams = Vec::new();
    for session in &mut sessions {
        streams.push(session.stream().await);
    }
    proxy.operate("tools", &a.address(), "drain").await;
    let started = Instant::now();
    let homes = [sessions[0].tool("whoami", json!({})).await, sessions[1].tool("whoami", json!({})).await];
    if started.elapsed() < Duration::from_millis(800) {
        assert_ne!(homes[0], homes[1], "they stay for now");
    }
    for _ in 0..4 {
        let mut fresh = Session::begin(proxy.client()).await;
        assert_eq!(fresh.tool("whoami", json!({})).await, "b", "new ones go elsewhere");
    }
    proxy.until_state("tools", &a.address(), "drained").await;
    until("the drained one has no connection left", async || (a.stats().open_connections() == 0).then_some(())).await;
    for session in &mut sessions {
        assert_eq!(session.tool("whoami", json!({})).await, "b");
        session.tool("touch", json!({})).await;
    }
    for stream in &mut streams {
        until("the streams hear it", async || {
            sessions[0].tool("touch", json!({})).await;
            heard(stream, "list_changed").await.then_some(())
        })
        .await;
    }
    proxy.operate("tools", &a.address(), "undrain").await;
    proxy.until_state("tools", &a.address(), "ready").await;
    let mut homes = Vec::new();
    for _ in 0..4 {
        homes.push(Session::begin(proxy.client()).await.tool("whoami", json!({})).await);
    }
    assert!(homes.contains(&"a".to_owned()), "{homes:?}");
}

#[tokio::test]
async fn each_era_goes_to_servers_that_speak_it() {
    let (a, b) = pair().await;
    a.speaks(Speaks::Sessions);
    let proxy = proxy(POOL).with("a", &a).with("b", &b).start().await;
    let client = proxy.client();
    for id in 0..12 {
        let answer = modern(&client, id, "server/discover", json!({})).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let call = modern(&client, id, "tools/call", json!({ "name": "whoami", "arguments": {} })).await;
        assert_eq!(text_of(&said(&call)), "b");
        let mut session = Session::begin(proxy.client()).await;
        session.tool("whoami", json!({})).await;
    }
    assert!(a.mcp_sessions() > 0 && a.mcp_sessions() + b.mcp_sessions() == 12, "{}", a.mcp_sessions());
    // Nobody speaks it: the servers' own answer, untouched, so that the client goes back to the older era by itself.
    b.speaks(Speaks::Sessions);
    let refused = modern(&client, 99, "server/discover", json!({})).await;
    assert_eq!((refused.status.as_u16(), said(&refused)["error"]["code"].as_i64()), (400, Some(-32600)));
    a.speaks(Speaks::Stateless);
    for _ in 0..4 {
        let mut session = Session::begin(proxy.client()).await;
        assert_eq!(session.tool("whoami", json!({})).await, "b");
    }
}

#[tokio::test]
async fn a_state_goes_back_to_whoever_gave_it_out() {
    let (a, b) = pair().await;
    let proxy = proxy(POOL).with("a", &a).with("b", &b).start().await;
    let client = proxy.client();
    for id in 0..10 {
        let asked = said(&modern(&client, id, "tools/call", json!({ "name": "ask", "arguments": {} })).await);
        let state = asked["result"]["requestState"].clone();
        assert!(state.is_string(), "{asked}");
        let params = json!({ "name": "ask", "arguments": {}, "requestState": state, "inputResponses": {} });
        assert_eq!(text_of(&said(&modern(&client, id + 100, "tools/call", params).await)), "asked and answered");
    }
}

#[tokio::test]
async fn a_disconnect_cancels_and_progress_comes_as_it_is_made() {
    let (a, b) = pair().await;
    let proxy = proxy(POOL).with("a", &a).with("b", &b).start().await;
    let client = proxy.client();
    let slow = |id, ms: u64| {
        let arguments = json!({ "ms": ms, "progress": 100 });
        let meta = json!({ "name": "slow", "arguments": arguments });
        modern(&client, id, "tools/call", meta)
    };
    let mut open = slow(1, 1000).open().await;
    let mut pieces = 0;
    while let Some(piece) = open.next().await {
        piece.unwrap();
        pieces += 1;
    }
    // Who collects them would have one.
    assert!(pieces >= 4, "{pieces}");
    let mut cut = Vec::new();
    for id in 0..4 {
        let mut open = slow(id, 60_000).open().await;
        open.next().await.unwrap().unwrap();
        cut.push(open);
    }
    drop(cut);
    until("they are cancelled", async || (a.stats().cancelled() + b.stats().cancelled() == 4).then_some(())).await;
}

#[tokio::test]
async fn a_silent_call_is_kept_alive_and_answered_as_an_event() {
    let (a, b) = pair().await;
    let proxy = proxy(POOL).with("a", &a).with("b", &b).start().await;
    let mut session = Session::begin(proxy.client()).await;
    let answer = session.ask("tools/call", json!({ "name": "slow", "arguments": { "ms": 1500 } })).await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert!(answer.text().matches(": keepalive").count() >= 1, "{}", answer.text());
    assert_eq!(text_of(&said(&answer)), "done");
    let quick = session.ask("ping", json!({})).await;
    assert_eq!(quick.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn a_call_in_progress_on_a_dying_server_is_answered_and_lists_go_elsewhere() {
    let (mut a, b) = pair().await;
    let only_a = POOL.replace("\"{b}\"", "{ address = \"{b}\", backup = true }");
    let proxy = proxy(&only_a).with("a", &a).with("b", &b).start().await;
    let mut session = Session::begin(proxy.client()).await;
    let slow = json!({ "name": "slow", "arguments": { "ms": 60_000 } });
    let call = tokio::spawn(session.call(message(7, "tools/call", slow.clone())).into_future());
    let streamed = json!({ "name": "slow", "arguments": { "ms": 60_000, "progress": 50 } });
    let mut stream = session.call(message(8, "tools/call", streamed)).open().await;
    stream.next().await.unwrap().unwrap();
    until("both are there", async || (a.stats().in_flight() == 2).then_some(())).await;
    a.kill().await;
    let answer = call.await.unwrap();
    assert_eq!(answer.status, 200, "what a later call may get over is no HTTP error");
    let error = said(&answer);
    assert_eq!((&error["id"], &error["error"]["code"]), (&json!(7), &json!(-32000)));
    assert!(error["error"]["message"].as_str().unwrap().contains("not known"), "{error}");
    let mut rest = String::new();
    while let Some(Ok(piece)) = stream.next().await {
        rest.push_str(&String::from_utf8_lossy(&piece));
    }
    assert!(rest.contains("\"id\":8") && rest.contains("not known"), "{rest}");
    assert_eq!(session.tool("whoami", json!({})).await, "b", "the session lives");
}

#[tokio::test]
async fn a_question_whose_answer_breaks_off_is_asked_again_and_a_call_is_not() {
    let events =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n: hi\n\r\n";
    let half = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"jsonrpc\"";
    let whole = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}"#;
    let good =
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{whole}", whole.len());
    for broken in [events, half] {
        let script = scripted().reads_request().sends(broken).cuts();
        let script = script.next_connection().reads_request().sends(broken).cuts();
        let a = script.next_connection().answers(&good).start().await;
        let settings =
            POOL.replace(", \"{b}\"", "").replace("kind = \"mcp\"", "kind = \"mcp\"\neject = { failures = 0 }");
        let proxy = proxy(&settings).with("a", &a).start().await;
        let list = modern(&proxy.client(), 1, "tools/list", json!({})).await;
        assert_eq!(
            (said(&list)["id"].as_u64(), &said(&list)["result"]["tools"]),
            (Some(1), &json!([])),
            "{}",
            list.text()
        );
        assert_eq!(a.connections(), 3);
    }
    let a = scripted().reads_request().sends(events).cuts().start().await;
    let proxy = proxy(&POOL.replace(", \"{b}\"", "")).with("a", &a).start().await;
    let call = modern(&proxy.client(), 1, "tools/call", json!({ "name": "whoami", "arguments": {} })).await;
    assert!(said(&call)["error"]["message"].as_str().is_some_and(|text| text.contains("not known")), "{}", call.text());
    assert_eq!(a.connections(), 1);
}

#[tokio::test]
async fn a_session_wakes_the_pool_that_has_gone_to_sleep() {
    let (mut a, mut b) = pair().await;
    let scaler = "[pool.tools.scaler]\nexec = { command = [\"true\"] }\nmin = 0\nsleep = { wake_timeout = \"20s\" }\n";
    let health = "kind = \"mcp\"\nhealth = { kind = \"tcp\", interval = \"100ms\", fall = 1, rise = 1 }";
    let text = POOL.replace("kind = \"mcp\"", health).replace("timeout = \"10s\"", "timeout = \"100ms\"");
    let proxy = proxy(&(text + scaler)).with("a", &a).with("b", &b).start().await;
    proxy.settled().await;
    let mut session = Session::begin(proxy.client()).await;
    a.kill().await;
    b.kill().await;
    for upstream in [&a, &b] {
        proxy.until_state("tools", &upstream.address(), "down").await;
    }
    let call = tokio::spawn(async move { session.tool("whoami", json!({})).await });
    let waiting = || {
        let snapshot = proxy.running().handle().snapshot();
        snapshot.pools.iter().find(|pool| &*pool.name == "tools").expect("the pool is there").kept.queue.len()
    };
    eventually("the scaler sees that somebody waits", || waiting() == 1).await;
    // Longer than it may wait for room.
    tokio::time::sleep(Duration::from_millis(300)).await;
    a.restart().await;
    assert_eq!(soon("an answer", call).await.unwrap(), "a");
}

#[tokio::test]
async fn calls_wait_for_a_server_that_is_late() {
    let (mut a, mut b) = pair().await;
    a.kill().await;
    b.kill().await;
    let proxy = proxy(POOL).with("a", &a).with("b", &b).start().await;
    let client = proxy.client();
    let calls: Vec<_> = (0..8)
        .map(|id| {
            tokio::spawn(modern(&client, id, "tools/call", json!({ "name": "whoami", "arguments": {} })).into_future())
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(700)).await;
    // Both: one of them may be ejected by now, and is left alone for a while.
    a.restart().await;
    b.restart().await;
    for call in calls {
        assert!(["a", "b"].contains(&&*text_of(&said(&call.await.unwrap()))));
    }
}

#[tokio::test]
async fn one_stream_hears_every_server_also_those_that_come_later() {
    let (mut a, b) = pair().await;
    let c = upstream().named("c").start().await;
    let proxy = proxy(POOL).with("a", &a).with("b", &b).with("c", &c).start().await;
    let client = proxy.client();
    let listen = json!({ "notifications": { "toolsListChanged": true } });
    let mut stream = modern(&client, 7, "subscriptions/listen", listen).open().await;
    assert_eq!(stream.status, 200);
    let streams =
        async || proxy.status().await.pools[0].upstreams.iter().map(|known| known.streams).collect::<Vec<_>>();
    until("both are attached", async || (streams().await == [1, 1]).then_some(())).await;
    let touch = async |server: &Upstream| {
        let direct = support::client(server.socket_address());
        let call = json!({ "name": "touch", "arguments": {} });
        assert_eq!(text_of(&said(&modern(&direct, 1, "tools/call", call).await)), "touched");
    };
    let mut all = String::new();
    for round in 1..=8 {
        touch(if round % 2 == 0 { &a } else { &b }).await;
        while all.matches("list_changed").count() < round {
            all.push_str(&String::from_utf8_lossy(&soon("it is heard", stream.next()).await.unwrap().unwrap()));
        }
    }
    assert_eq!(all.matches("acknowledged").count(), 1, "{all}");
    assert!(!all.contains("\"result\""), "{all}");
    let wider = POOL.replace("\"{b}\"", "\"{b}\", \"{c}\"");
    assert!(proxy.edit(&wider).await.accepted);
    until("the third is attached", async || (streams().await == [1, 1, 1]).then_some(())).await;
    touch(&c).await;
    read_until(&mut stream, "list_changed").await;
    a.kill().await;
    until("it is detached", async || (streams().await == [0, 1, 1]).then_some(())).await;
    touch(&b).await;
    read_until(&mut stream, "list_changed").await;
    read_until(&mut stream, ": keepalive").await;
    drop(stream);
    until("nobody listens any more", async || (streams().await == [0, 0, 0]).then_some(())).await;
}

#[tokio::test]
async fn lists_are_asked_for_once_until_they_change() {
    let (a, b) = pair().await;
    let proxy = proxy(POOL).with("a", &a).with("b", &b).start().await;
    let client = proxy.client();
    let before = a.requests() + b.requests();
    for id in 0..100 {
        let answer = said(&modern(&client, id, "tools/list", json!({})).await);
        assert_eq!((&answer["id"], answer["result"]["tools"].as_array().map(Vec::len)), (&json!(id), Some(8)));
    }
    assert_eq!(a.requests() + b.requests() - before, 1);
    // Whoever brings credentials that nobody has checked here is for its server to judge.
    modern(&client, 1, "tools/list", json!({})).header("authorization", "Bearer x").await;
    assert_eq!(a.requests() + b.requests() - before, 2);
    let listen = json!({ "notifications": { "toolsListChanged": true } });
    let mut stream = modern(&client, 7, "subscriptions/listen", listen).open().await;
    until("both are attached", async || (streams(&proxy).await == [1, 1]).then_some(())).await;
    modern(&client, 8, "tools/call", json!({ "name": "touch", "arguments": {} })).await;
    read_until(&mut stream, "list_changed").await;
    let before = a.requests() + b.requests();
    modern(&client, 1, "tools/list", json!({})).await;
    assert_eq!(a.requests() + b.requests() - before, 1, "it has changed");
}

#[tokio::test]
async fn the_first_transport_stays_with_its_stream() {
    let (a, b) = pair().await;
    let proxy = proxy(POOL).with("a", &a).with("b", &b).start().await;
    let client = proxy.client();
    let mut homes = Vec::new();
    for number in 0..8u64 {
        let mut stream = client.get("/mcp/sse").header("accept", "text/event-stream").open().await;
        let mut all = String::new();
        let mut hear = async |all: &mut String, text: &str| {
            while !all.contains(text) {
                all.push_str(&String::from_utf8_lossy(&soon("an event", stream.next()).await.unwrap().unwrap()));
            }
        };
        hear(&mut all, "\n\n").await;
        let uri = all.lines().find_map(|line| line.strip_prefix("data: ")).unwrap().to_owned();
        assert!(uri.starts_with("/mcp/messages?session_id=") && uri.contains("&tidegate=tg1."), "{uri}");
        let send = |body: Value| client.post(&uri, body.to_string()).header("content-type", "application/json");
        for (id, tool) in [(1, "count"), (2, "count"), (3, "whoami")] {
            let call = message(id + number * 10, "tools/call", json!({ "name": tool, "arguments": {} }));
            assert_eq!(send(call).await.status, 202);
            hear(&mut all, &format!("\"id\":{}", id + number * 10)).await;
        }
        assert!(all.contains("\"text\":\"2\""), "{all}");
        homes.push(if all.contains("\"text\":\"a\"") { "a" } else { "b" });
        let forged = uri.replace("tg1.", "tg1.A");
        let answer =
            client.post(&forged, message(1, "ping", json!({})).to_string()).header("content-type", "application/json");
        assert_eq!(answer.await.status, 404);
    }
    assert!(homes.contains(&"a") && homes.contains(&"b"), "{homes:?}");
}

#[tokio::test]
async fn calls_wait_for_room_in_the_order_in_which_they_came() {
    let a = upstream().named("a").start().await;
    let text =
        POOL.replace("\"{a}\", \"{b}\"", "\"{a}\"").replace("kind = \"mcp\"", "kind = \"mcp\"\nmax_concurrency = 1");
    // One worker: between two of them nobody could say who came first.
    let text = format!("workers = 1\n{text}");
    let proxy = proxy(&text).with("a", &a).start().await;
    let session = Session::begin(proxy.client()).await;
    let mut calls = Vec::new();
    for id in 0..20u64 {
        // The first lasts until all the others are in line; the server counts those in the order in which they reach it.
        let params = match id {
            0 => json!({ "name": "slow", "arguments": { "ms": 4000 } }),
            _ => json!({ "name": "count", "arguments": {} }),
        };
        calls.push(tokio::spawn(session.call(message(id, "tools/call", params)).into_future()));
        until("it has come", async || (proxy.status().await.in_flight == id + 1).then_some(())).await;
    }
    for (id, call) in calls.into_iter().enumerate() {
        let answer = call.await.unwrap();
        let expected = if id == 0 { "done".to_owned() } else { id.to_string() };
        assert_eq!((answer.status.as_u16(), text_of(&said(&answer))), (200, expected));
    }
}

#[tokio::test]
async fn an_ended_session_is_over_and_so_is_its_stream() {
    let (a, b) = pair().await;
    let proxy = proxy(POOL).with("a", &a).with("b", &b).start().await;
    let session = Session::begin(proxy.client()).await;
    let mut stream = session.stream().await;
    let ended = session.client.call(http::Method::DELETE, "/mcp").header("mcp-session-id", &session.id).await;
    assert_eq!(ended.status, 200);
    // The tiny server does not end its streams; this one dies.
    let (mut a, mut b) = (a, b);
    let before = a.mcp_begun()[0] + b.mcp_begun()[0];
    if a.mcp_begun()[0] > 0 {
        a.kill().await
    } else {
        b.kill().await
    }
    let over = async { while stream.next().await.is_some() {} };
    soon("it is over", over).await;
    assert_eq!(before, 1);
    assert_eq!([a, b].iter().filter(|server| server.is_up()).map(|server| server.mcp_begun()[0]).sum::<u64>(), 0);
}

#[tokio::test]
async fn a_standing_stream_takes_nobodys_place() {
    let a = upstream().named("a").start().await;
    let text =
        POOL.replace("\"{a}\", \"{b}\"", "\"{a}\"").replace("kind = \"mcp\"", "kind = \"mcp\"\nmax_concurrency = 1");
    let proxy = proxy(&text).with("a", &a).start().await;
    let session = Session::begin(proxy.client()).await;
    let _stream = session.stream().await;
    let mut other = soon("there is room", Session::begin(proxy.client())).await;
    assert_eq!(soon("there is room", other.tool("count", json!({}))).await, "1");
}

#[tokio::test]
async fn servers_on_standard_input_and_output_are_upstreams_too() {
    if !has_python() {
        return;
    }
    let server = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stdio/server.py");
    let text = POOL
        .replace("upstreams = [\"{a}\", \"{b}\"]", "stdio = { command = [\"python3\", \"{server}\"], share = \"all\" }")
        .replace("{server}", server);
    let mut proxy = proxy(&text).spawn().await;
    let web = client(proxy.address_of("web").await);
    let mut processes = std::collections::BTreeSet::new();
    let mut sessions = Vec::new();
    for _ in 0..10 {
        let mut session = Session::begin(web.clone()).await;
        processes.insert(session.tool("pid", json!({})).await);
        sessions.push(session);
    }
    assert_eq!(processes.len(), 1, "{processes:?}");
    let verdict = proxy.edit(&text.replace("300ms", "400ms")).await;
    assert!(verdict.accepted, "{}", verdict.problems);
    for session in &mut sessions {
        assert!(processes.contains(&session.tool("pid", json!({})).await), "a reload lets them run");
    }
    // Nobody can say who they are but the proxy.
    let spoken = sessions[0].call(message(70, "ping", json!({}))).header("tidegate-principal", "root").await;
    assert_eq!(spoken.status, 200, "{}", spoken.text());
    let pid: i32 = processes.first().unwrap().parse().unwrap();
    let lives = || std::path::Path::new(&format!("/proc/{pid}")).exists();
    assert!(lives());
    proxy.signal(rustix::process::Signal::TERM);
    assert!(proxy.ended().await.success());
    eventually("its process ends with it", || !lives()).await;
}

#[tokio::test]
async fn nobody_gets_past_a_limit_by_another_dress() {
    let (a, b) = pair().await;
    let limited = format!("{POOL}\n[[pool.tools.limit]]\nper = \"all\"\ntool = \"whoami\"\nrate = \"1/d\"\n");
    let proxy = proxy(&limited).with("a", &a).with("b", &b).start().await;
    let client = proxy.client();
    let call = message(1, "tools/call", json!({ "name": "whoami", "arguments": {} })).to_string();
    let mut session = Session::begin(proxy.client()).await;
    assert_eq!(session.tool("whoami", json!({})).await.len(), 1);
    let post = |kind: &str, body: Vec<u8>| client.post("/mcp", body).header("content-type", kind);
    let utf16: Vec<u8> = call.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (dress, answer) in [
        ("another type", post("text/plain", call.clone().into_bytes()).await),
        ("no event streams", post("application/json", call.clone().into_bytes()).await),
        (
            "an upgrade",
            post("text/plain", call.clone().into_bytes()).header("connection", "upgrade").header("upgrade", "x").await,
        ),
        ("compressed", post("application/json", call.clone().into_bytes()).header("content-encoding", "gzip").await),
        ("UTF-16", post("application/json", utf16).await),
    ] {
        let said = said(&answer);
        let limited = said["result"]["isError"] == true;
        assert!(limited || answer.status == 400, "{dress}: {} {said}", answer.status);
    }
    // What is no message passes.
    let other = client.post("/register", "{\"redirect_uris\":[]}").header("content-type", "application/json").await;
    assert_eq!((other.status.as_u16(), other.json()["path"].as_str()), (200, Some("/register")));
    let form = client.post("/token", "grant_type=x").header("content-type", "application/x-www-form-urlencoded").await;
    assert_eq!(form.status, 200);
}

#[tokio::test]
async fn calls_that_wait_for_their_server_do_not_take_its_places() {
    let mut a = upstream().named("a").start().await;
    let text =
        POOL.replace("\"{a}\", \"{b}\"", "\"{a}\"").replace("kind = \"mcp\"", "kind = \"mcp\"\nmax_concurrency = 1");
    let proxy = proxy(&text).with("a", &a).start().await;
    let session = Session::begin(proxy.client()).await;
    let _stream = session.stream().await;
    a.kill().await;
    let call = |id| session.call(message(id, "tools/call", json!({ "name": "whoami", "arguments": {} }))).into_future();
    let calls: Vec<_> = (1..=3).map(|id| tokio::spawn(call(id))).collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    a.restart().await;
    for call in calls {
        assert_eq!(text_of(&said(&soon("it is answered", call).await.unwrap())), "a");
    }
}

#[tokio::test]
async fn a_server_of_the_older_era_is_not_pestered_to_be_listened_to() {
    let (a, b) = pair().await;
    b.speaks(Speaks::Sessions);
    let only_a = POOL.replace("\"{b}\"", "{ address = \"{b}\", backup = true }");
    let proxy = proxy(&only_a).with("a", &a).with("b", &b).start().await;
    let listen = json!({ "notifications": { "toolsListChanged": true } });
    let mut stream = modern(&proxy.client(), 7, "subscriptions/listen", listen).open().await;
    let before = b.requests();
    let both = POOL.replace("{a}", &a.address()).replace("{b}", &b.address());
    assert!(proxy.edit(&both).await.accepted);
    until("it is asked", async || (b.requests() > before).then_some(())).await;
    // Longer than one is left in peace that could not be reached.
    for _ in 0..16 {
        read_until(&mut stream, ": keepalive").await;
    }
    assert_eq!(b.requests() - before, 1);
}

#[tokio::test]
async fn a_server_that_never_answers_is_asked_to_listen_once() {
    let a = upstream().named("a").start().await;
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = mute.local_addr().unwrap();
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = asked.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = mute.accept().await {
            kept.lock().unwrap().push(stream);
        }
    });
    let alone = POOL.replace("\"{a}\", \"{b}\"", "\"{a}\"");
    let proxy = proxy(&alone).with("a", &a).start().await;
    let listen = json!({ "notifications": { "toolsListChanged": true } });
    let mut stream = modern(&proxy.client(), 7, "subscriptions/listen", listen).open().await;
    assert!(proxy.edit(&alone.replace("\"{a}\"", &format!("\"{{a}}\", \"{address}\""))).await.accepted);
    until("it is asked", async || (!asked.lock().unwrap().is_empty()).then_some(())).await;
    // More than twice as long as one that cannot be attached is left in peace.
    for _ in 0..16 {
        read_until(&mut stream, ": keepalive").await;
    }
    assert_eq!(asked.lock().unwrap().len(), 1);
}

/// How many streams each server has.
async fn streams(proxy: &Proxy) -> Vec<u64> {
    proxy.status().await.pools[0].upstreams.iter().map(|known| known.streams).collect()
}

/// Reads the stream until `text` has come.
async fn read_until(stream: &mut Opened, text: &str) {
    until(&format!("{text} comes"), async || heard(stream, text).await.then_some(())).await;
}

/// Whether `text` comes within a moment.
async fn heard(stream: &mut Opened, text: &str) -> bool {
    let wait = async {
        let mut all = String::new();
        while let Some(piece) = stream.next().await {
            all.push_str(&String::from_utf8_lossy(&piece.expect("the stream lives")));
            if all.contains(text) {
                return true;
            }
        }
        panic!("the stream has ended");
    };
    tokio::time::timeout(Duration::from_millis(700), wait).await.unwrap_or(false)
}

/// [`POOL`] with limits.
fn limited(limits: &str) -> String {
    POOL.replace("[[route]]", &format!("{limits}\n[[route]]"))
}

/// What a tool's result says, and whether it says that the tool failed.
fn result_of(answer: &Answer) -> (String, bool) {
    let said = said(answer);
    (text_of(&said), said["result"]["isError"] == true)
}

const FIVE: &str =
    "[[pool.tools.limit]]\nper = \"header:authorization\"\ntool = [\"echo\", \"count\"]\nrate = \"5/min\"\n";

#[tokio::test]
async fn above_its_rate_a_tool_answers_what_a_model_can_read_and_all_else_goes_on() {
    let (a, b) = pair().await;
    let proxy = proxy(&limited(FIVE)).with("a", &a).with("b", &b).start().await;
    let web = proxy.client();
    let mut session = Session::begin(web.clone()).await;
    let echo = |id, key: &str, session: &Session| {
        let params = json!({ "name": "echo", "arguments": { "text": "hi" } });
        session.call(message(id, "tools/call", params)).header("authorization", key).into_future()
    };
    for id in 0..5 {
        assert_eq!(result_of(&echo(id, "one", &session).await), ("hi".to_owned(), false));
    }
    let reached = a.requests() + b.requests();
    let sixth = echo(5, "one", &session).await;
    assert_eq!((sixth.status.as_u16(), said(&sixth)["id"].as_u64()), (200, Some(5)));
    let (text, failed) = result_of(&sixth);
    assert!(failed && text.starts_with("Rate limit: at most 5 calls of echo a minute; try again in "), "{text}");
    assert_eq!(a.requests() + b.requests(), reached, "no server has seen it");
    assert_eq!(session.tool("whoami", json!({})).await.len(), 1, "the session lives");
    let count = message(7, "tools/call", json!({ "name": "count" }));
    assert_eq!(
        result_of(&session.call(count).header("authorization", "one").await),
        ("1".into(), false),
        "another tool"
    );
    assert_eq!(result_of(&echo(8, "two", &session).await), ("hi".into(), false), "another client");
    // Neither a new session nor a reload begins anew.
    for _ in 0..3 {
        let next = Session::begin(web.clone()).await;
        assert!(result_of(&echo(9, "one", &next).await).1);
    }
    let verdict = proxy.edit(&limited(&FIVE.replace("\"count\"", "\"count\", \"fail\""))).await;
    assert!(verdict.accepted, "{}", verdict.problems);
    assert!(result_of(&echo(10, "one", &session).await).1, "a reload keeps counts");
    let refused =
        proxy.metric("tidegate_mcp_limit_decisions_total{pool=\"tools\",limit=\"0\",decision=\"refused_rate\"}");
    assert_eq!(refused.await, Some(5.0));
    let refusals =
        async || proxy.metric("tidegate_refusals_total{reason=\"rate_limited\"}").await.filter(|count| *count == 5.0);
    until("they are counted", refusals).await;
}

#[tokio::test]
async fn a_name_behind_what_is_read_ahead_is_no_way_round_a_limit_nor_are_batches_and_keys_that_come_again() {
    let (a, b) = pair().await;
    let proxy = proxy(&limited(FIVE)).with("a", &a).with("b", &b).start().await;
    let session = Session::begin(proxy.client()).await;
    let raw = |body: String| {
        let call = proxy.client().post("/mcp", body).header("content-type", "application/json").header("accept", BOTH);
        call.header("mcp-session-id", &session.id).header("mcp-protocol-version", "2025-11-25")
    };
    let filler = "x".repeat(200 << 10);
    let late = |id: u32| {
        format!(
            r#"{{"params":{{"arguments":{{"text":"hi","more":"{filler}"}},"name":"echo"}},"method":"tools/call","id":{id},"jsonrpc":"2.0"}}"#
        )
    };
    for id in 0..5 {
        assert_eq!(result_of(&raw(late(id)).await), ("hi".into(), false));
    }
    assert!(result_of(&raw(late(6)).await).1);
    let batch = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"count"}}"#;
    let answer = raw(format!("[{}]", [batch; 6].join(","))).await;
    assert_eq!((answer.status.as_u16(), said(&answer)["error"]["code"].as_i64()), (200, Some(-32000)));
    assert!(said(&answer)["error"]["data"]["retryAfterSeconds"].as_u64().is_some_and(|seconds| seconds >= 1));
    let again = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"whoami","arguments":{{"more":"{filler}"}},"name":"echo"}}}}"#
    );
    let answer = raw(again).await;
    assert_eq!((answer.status.as_u16(), said(&answer)["error"]["code"].as_i64()), (400, Some(-32600)));
}

#[tokio::test]
async fn costs_and_calls_at_once_are_limited_and_what_begins_waits() {
    let (a, b) = pair().await;
    let limits = "[[pool.tools.limit]]\ntool = [\"echo\"]\nrate = \"10/min\"\ncost = 4\n\
        [[pool.tools.limit]]\ntool = [\"slow\"]\nconcurrency = 2\n\
        [[pool.tools.limit]]\nmethod = [\"initialize\"]\nrate = \"2/s\"\nburst = 0\n\
        [[pool.tools.limit]]\nmethod = [\"ping\"]\nrate = \"1/min\"\n";
    let proxy = proxy(&limited(limits)).with("a", &a).with("b", &b).start().await;
    let started = Instant::now();
    let mut session = Session::begin(proxy.client()).await;
    drop(Session::begin(proxy.client()).await);
    assert!(started.elapsed() >= Duration::from_millis(450), "the second waits: {:?}", started.elapsed());
    let mut failed = Vec::new();
    for _ in 0..3 {
        let answer = session.ask("tools/call", json!({ "name": "echo", "arguments": { "text": "hi" } })).await;
        failed.push(result_of(&answer).1);
    }
    assert_eq!(failed, [false, false, true], "ten are two of four");
    let slow =
        |id, ms: u64| session.call(message(id, "tools/call", json!({ "name": "slow", "arguments": { "ms": ms } })));
    let held = [slow(20, 60_000), slow(21, 60_000)].map(|call| tokio::spawn(call.into_future()));
    until("two are there", async || (a.stats().in_flight() + b.stats().in_flight() == 2).then_some(())).await;
    let (text, third) = result_of(&slow(22, 1).await);
    assert!(third && text.contains("at most 2 calls of slow at once"), "{text}");
    held.iter().for_each(|call| call.abort());
    until("there is room again", async || (!result_of(&slow(23, 1).await).1).then_some(())).await;
    assert_eq!(said(&session.ask("ping", json!({})).await)["result"], json!({}));
    let answer = session.ask("ping", json!({})).await;
    let error = &said(&answer)["error"];
    assert_eq!((answer.status.as_u16(), error["code"].as_i64()), (200, Some(-32000)));
    assert!(error["data"]["retryAfterSeconds"].as_u64().is_some_and(|seconds| (1..=60).contains(&seconds)), "{error}");
}

#[tokio::test]
async fn the_page_counts_what_clients_count_and_invented_names_add_one_series() {
    let (a, b) = pair().await;
    let proxy = proxy(POOL).with("a", &a).with("b", &b).start().await;
    let mut session = Session::begin(proxy.client()).await;
    let listed = said(&session.ask("tools/list", json!({})).await);
    assert!(listed["result"]["tools"].as_array().is_some_and(|tools| !tools.is_empty()));
    for _ in 0..7 {
        session.tool("whoami", json!({})).await;
    }
    for _ in 0..3 {
        session.tool("fail", json!({})).await;
    }
    for invented in 0..2000 {
        let answer = session.ask("tools/call", json!({ "name": format!("tool{invented}") })).await;
        assert_eq!(said(&answer)["error"]["code"], -32602);
    }
    session.ask("made/up", json!({})).await;
    let series = |method: &str, tool: &str, error: &str| {
        format!(
            "mcp_server_operation_duration_seconds_count{{pool=\"tools\",mcp_method_name=\"{method}\",gen_ai_tool_name=\"{tool}\",error_type=\"{error}\"}}"
        )
    };
    let expected = [
        (series("initialize", "", ""), 1.0),
        (series("tools/list", "", ""), 1.0),
        (series("tools/call", "whoami", ""), 7.0),
        (series("tools/call", "fail", "tool_error"), 3.0),
        (series("tools/call", "other", "-32602"), 2000.0),
        (series("other", "", "-32601"), 1.0),
    ];
    until("all are counted", async || {
        for (name, count) in &expected {
            if proxy.metric(name).await != Some(*count) {
                return None;
            }
        }
        Some(())
    })
    .await;
    let page = proxy.admin().get("/metrics").await.text();
    let counts = page.lines().filter(|line| line.starts_with("mcp_server_operation_duration_seconds_count"));
    assert_eq!(counts.count(), expected.len(), "{page}");
    until("sessions are counted", async || {
        let page = proxy.admin().get("/metrics").await.text();
        let counts = page.lines().filter(|line| line.starts_with("tidegate_mcp_sessions{"));
        let sum: f64 = counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        (sum == 1.0).then_some(())
    })
    .await;
    assert_eq!(proxy.metric("tidegate_mcp_sessions_moved_total{pool=\"tools\"}").await, Some(0.0));
}
