//! MCP servers on standard input and output behind the bridge: real processes, a small server in Python.

#[path = "stdio/client.rs"]
mod client;
mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use client::{Client, bridge, lives, scripted};
use serde_json::{Value, json};
use support::{eventually, has_python, soon};
use tidegate::stdio::{Settings, Share};

/// A bridge in a process of its own.
struct Host {
    process: std::process::Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    path: std::path::PathBuf,
    seen: Vec<String>,
}

/// Set where this program is to be a [`Host`].
const HOST: &str = "TIDEGATE_TEST_STDIO_HOST";

impl Host {
    fn start() -> Host {
        let mut command = std::process::Command::new(std::env::current_exe().expect("a program"));
        command.args(["--exact", "hosts_a_bridge", "--nocapture"]).env(HOST, "1").stdout(std::process::Stdio::piped());
        let mut process = command.spawn().expect("it starts");
        let lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let mut host = Host { process, lines, path: "".into(), seen: Vec::new() };
        host.path = host.line("listens at ").rsplit(' ').next().expect("a path").into();
        host
    }

    /// The next line that says so.
    fn line(&mut self, what: &str) -> String {
        for line in self.lines.by_ref() {
            let line = line.expect("text");
            self.seen.push(line.clone());
            if line.contains(what) {
                return line;
            }
        }
        panic!("it never said {what:?}: {:#?}", self.seen);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(self.path.parent().expect("a folder"));
    }
}

/// Not a test but what [`Host`] runs.
#[test]
fn hosts_a_bridge() {
    if std::env::var_os(HOST).is_none() {
        return;
    }
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stdout).init();
    let bridge = tidegate::stdio::Bridge::open(scripted(&[])).expect("a bridge");
    println!("listens at {}", bridge.path().display());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    runtime.expect("a runtime").block_on(bridge.run(std::future::pending())).expect("it runs");
}

/// Ends one that nobody else would.
fn end(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a number");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it was there");
}

fn shared(share: Share) -> Settings {
    Settings { share, ..scripted(&[]) }
}

#[tokio::test]
async fn ten_sessions_share_one_process() {
    if !has_python() {
        return;
    }
    let bridge = bridge(shared(Share::All));
    let mut pids = BTreeSet::new();
    let mut clients = futures_util::future::join_all((0..10).map(|_| bridge.client())).await;
    for client in &mut clients {
        pids.insert(client.pid().await);
    }
    assert_eq!(
        (pids.len(), bridge.handle.processes(), bridge.handle.starts(), bridge.handle.sessions()),
        (1, 1, 1, 10)
    );
    let received = clients[0].received().await;
    assert_eq!(received.iter().filter(|method| *method == "initialize").count(), 1);
    assert_eq!(received.iter().filter(|method| *method == "notifications/initialized").count(), 1);
    assert_eq!(clients[3].raw("DELETE", "").await.status, 204);
    assert_eq!(clients[3].post(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})).await.status, 404);
    assert_eq!(clients[4].call("echo", json!({"text": "still here"})).await.said(), "still here");
}

#[tokio::test]
async fn every_session_and_every_principal_can_have_a_process_of_its_own() {
    if !has_python() {
        return;
    }
    let own = bridge(shared(Share::Session));
    let (mut a, mut b) = (own.client().await, own.client().await);
    assert_ne!(a.pid().await, b.pid().await);
    let per = bridge(shared(Share::Principal));
    let mut all = [
        per.client_as("ann", json!({})).await,
        per.client_as("bob", json!({})).await,
        per.client_as("ann", json!({})).await,
    ];
    let pids = [all[0].pid().await, all[1].pid().await, all[2].pid().await];
    assert!(pids[0] == pids[2] && pids[0] != pids[1], "{pids:?}");
    // A session is nothing to anybody else.
    let thief = Client { principal: "bob".to_owned(), ..all[0].clone() };
    assert_eq!(thief.post(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})).await.status, 404);
}

#[tokio::test]
async fn ids_do_not_clash() {
    if !has_python() {
        return;
    }
    let bridge = bridge(shared(Share::All));
    let clients = futures_util::future::join_all((0..8).map(|_| bridge.client())).await;
    let talks = clients.into_iter().enumerate().map(|(who, mut client)| async move {
        for turn in 0..25 {
            // All use the same ids and tokens.
            let text = format!("{who}/{turn}");
            if turn % 5 == 0 {
                let message = client.call_message("progress", json!({"times": 3}));
                let answer = client.post(&message).await;
                let messages = answer.messages();
                assert_eq!(messages.len(), 4, "{messages:?}");
                for (at, progress) in messages[..3].iter().enumerate() {
                    assert_eq!(
                        progress["params"],
                        json!({"progressToken": message["params"]["_meta"]["progressToken"], "progress": at})
                    );
                }
                assert_eq!(messages[3]["id"], message["id"]);
            } else {
                assert_eq!(client.call("echo", json!({"text": text})).await.said(), text);
            }
        }
    });
    futures_util::future::join_all(talks).await;
    assert_eq!(bridge.handle.starts(), 1);
}

#[tokio::test]
async fn string_ids_come_back_as_strings() {
    if !has_python() {
        return;
    }
    let bridge = bridge(shared(Share::All));
    let client = bridge.client().await;
    let answer = client.post(&json!({"jsonrpc": "2.0", "id": "7", "method": "tools/list"})).await;
    assert_eq!(
        (answer.kind.as_str(), answer.text.as_str()),
        ("application/json", r#"{"jsonrpc": "2.0", "id": "7", "result": {"tools": []}}"#)
    );
}

#[tokio::test]
async fn a_version_is_negotiated_with_each_client() {
    if !has_python() {
        return;
    }
    let bridge = bridge(shared(Share::All));
    for (asked, agreed) in [("2025-11-25", "2025-06-18"), ("2025-03-26", "2025-03-26"), ("2025-06-18", "2025-06-18")] {
        let params = json!({"protocolVersion": asked, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
        let answer = bridge
            .stranger("")
            .post(&json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}))
            .await;
        assert_eq!(answer.message()["result"]["protocolVersion"], agreed);
    }
}

#[tokio::test]
async fn a_silent_call_becomes_a_stream() {
    if !has_python() {
        return;
    }
    let bridge = bridge(Settings { silence: Duration::from_millis(50), ..shared(Share::Session) });
    let mut client = bridge.client().await;
    let answer = client.call("slow", json!({"seconds": 0.5})).await;
    assert_eq!((answer.kind.as_str(), answer.said().as_str()), ("text/event-stream", "done"));
    client.accept = "application/json".to_owned();
    let answer = client.call("slow", json!({"seconds": 0.2})).await;
    assert_eq!((answer.kind.as_str(), answer.said().as_str()), ("application/json", "done"));
    client.accept = "text/html".to_owned();
    assert_eq!(client.raw("POST", "{}").await.status, 406);
}

#[tokio::test]
async fn servers_ask_who_calls() {
    if !has_python() {
        return;
    }
    let bridge = bridge(shared(Share::All));
    let mut deaf = bridge.client().await;
    let mut able = bridge.client_as("", json!({"sampling": {}})).await;
    let refused: Value =
        serde_json::from_str(&deaf.call("ask", json!({"method": "sampling/createMessage"})).await.said())
            .expect("JSON");
    assert_eq!(refused["error"]["code"], -32601);
    let mut other = bridge.client_as("", json!({"sampling": {}})).await;
    let mut calls =
        vec![able.begin("ask", json!({"method": "sampling/createMessage", "params": {"of": "able"}})).await];
    let mut questions = vec![calls[0].next().await];
    calls.push(other.begin("ask", json!({"method": "sampling/createMessage", "params": {"of": "other"}})).await);
    questions.push(calls[1].next().await);
    // The answer of one that was not asked is nobody's.
    let answer =
        |question: &Value, text: &str| json!({"jsonrpc": "2.0", "id": question["id"], "result": {"text": text}});
    assert_eq!(deaf.post(&answer(&questions[0], "forged")).await.status, 202);
    for ((client, question), (call, of)) in
        [&able, &other].into_iter().zip(&questions).zip(calls.iter_mut().zip(["able", "other"]))
    {
        assert_eq!(
            (question["method"].as_str(), question["params"]["of"].as_str()),
            (Some("sampling/createMessage"), Some(of))
        );
        assert_eq!(client.post(&answer(question, of)).await.status, 202);
        let answer = call.next().await;
        let said = answer["result"]["content"][0]["text"].as_str().unwrap_or_default();
        assert_eq!(serde_json::from_str::<Value>(said).expect("JSON"), json!({"result": {"text": of}}));
    }
}

#[tokio::test]
async fn notifications_find_who_wants_them() {
    if !has_python() {
        return;
    }
    let bridge = bridge(shared(Share::All));
    let (a, mut b) = (bridge.client().await, bridge.client().await);
    let (mut to_a, mut to_b) = (a.stream().await, b.stream().await);
    assert_eq!((to_a.status, a.raw("GET", "").await.status), (200, 409));
    let subscribe = json!({"jsonrpc": "2.0", "id": 1, "method": "resources/subscribe", "params": {"uri": "file:///a"}});
    assert_eq!(a.post(&subscribe).await.message()["result"], json!({}));
    b.call("notify", json!({"method": "notifications/resources/updated", "params": {"uri": "file:///a"}})).await;
    b.call("notify", json!({"method": "notifications/tools/list_changed"})).await;
    assert_eq!(to_a.next().await["params"]["uri"], "file:///a");
    assert_eq!(to_a.next().await["method"], "notifications/tools/list_changed");
    assert_eq!(to_b.next().await["method"], "notifications/tools/list_changed");
    // An end of what another still wants is not passed on.
    assert_eq!(b.post(&subscribe).await.status, 200);
    let unsubscribe =
        json!({"jsonrpc": "2.0", "id": 2, "method": "resources/unsubscribe", "params": {"uri": "file:///a"}});
    assert_eq!(b.post(&unsubscribe).await.message()["result"], json!({}));
    assert!(!b.received().await.contains(&"resources/unsubscribe".to_owned()));
    assert_eq!(a.post(&unsubscribe).await.message()["result"], json!({}));
    assert!(b.received().await.contains(&"resources/unsubscribe".to_owned()));
    drop(to_a);
    // The stream's place is free again, once its end has been seen.
    support::until("there is room for a stream again", async || (a.stream().await.status == 200).then_some(())).await;
    assert_eq!(a.raw("DELETE", "").await.status, 204);
    drop(to_b);
}

#[tokio::test]
async fn what_comes_without_a_stream_waits_for_one() {
    if !has_python() {
        return;
    }
    let bridge = bridge(shared(Share::Session));
    let mut client = bridge.client().await;
    client.accept = "application/json".to_owned();
    client.call("notify", json!({"method": "notifications/tools/list_changed"})).await;
    client.accept = "text/event-stream".to_owned();
    assert_eq!(client.stream().await.next().await["method"], "notifications/tools/list_changed");
}

#[tokio::test]
async fn a_cancelled_call_is_cancelled_at_the_server() {
    if !has_python() {
        return;
    }
    let bridge = bridge(shared(Share::All));
    let (mut a, mut b) = (bridge.client().await, bridge.client().await);
    let call = a.begin("slow", json!({"seconds": 1.5})).await;
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}});
    // The other one has no such call.
    assert_eq!((b.post(&cancel).await.status, a.post(&cancel).await.status), (202, 202));
    let said: Value = serde_json::from_str(&b.call("received", json!({})).await.said()).expect("JSON");
    let of = |method: &str| {
        said.as_array().expect("a list").iter().filter(|one| one[0] == method).cloned().collect::<Vec<_>>()
    };
    let slow = of("tools/call").into_iter().find(|one| one[2]["name"] == "slow").expect("the call");
    let cancelled = of("notifications/cancelled");
    assert_eq!((cancelled.len(), &cancelled[0][2]["requestId"]), (1, &slow[1]));
    drop(call);
}

#[tokio::test]
async fn an_idle_process_stops_and_its_session_comes_back() {
    if !has_python() {
        return;
    }
    for share in [Share::Session, Share::All] {
        let bridge = bridge(Settings { idle_timeout: Duration::from_millis(300), ..shared(share) });
        let mut client = bridge.client().await;
        let stream = client.stream().await;
        let level = json!({"jsonrpc": "2.0", "id": 1, "method": "logging/setLevel", "params": {"level": "debug"}});
        assert_eq!(client.post(&level).await.status, 200);
        let subscribe =
            json!({"jsonrpc": "2.0", "id": 1, "method": "resources/subscribe", "params": {"uri": "file:///a"}});
        assert_eq!(client.post(&subscribe).await.status, 200);
        let first = client.pid().await;
        eventually("the idle process has stopped", || !lives(first) && bridge.handle.processes() == 0).await;
        assert_eq!(bridge.handle.sessions(), 1);
        // Single flight: many at once start one.
        let calls = (0..5).map(|_| {
            let mut client = client.clone();
            async move { client.pid().await }
        });
        let pids: BTreeSet<u32> = futures_util::future::join_all(calls).await.into_iter().collect();
        assert!(pids.len() == 1 && !pids.contains(&first), "{pids:?} after {first}");
        let received = client.received().await;
        for method in ["initialize", "notifications/initialized", "logging/setLevel", "resources/subscribe"] {
            assert_eq!(received.iter().filter(|one| *one == method).count(), 1, "{method} in {received:?}");
        }
        drop(stream);
    }
}

#[tokio::test]
async fn a_long_call_is_not_killed() {
    if !has_python() {
        return;
    }
    let bridge = bridge(Settings { idle_timeout: Duration::from_millis(200), ..shared(Share::Session) });
    let mut client = bridge.client().await;
    assert_eq!(client.call("slow", json!({"seconds": 2.0})).await.said(), "done");
    assert_eq!(bridge.handle.starts(), 1);
}

#[tokio::test]
async fn a_crash_is_told_and_the_next_call_works() {
    if !has_python() {
        return;
    }
    for share in [Share::Session, Share::All] {
        let bridge = bridge(shared(share));
        let mut client = bridge.client().await;
        let mut other = client.clone();
        let mut silent = other.begin("slow", json!({"seconds": 100})).await;
        let answer = client.call("crash", json!({"code": 7})).await;
        let what = answer.message()["error"]["message"].as_str().expect("a message").to_owned();
        assert_eq!(answer.code(), -32603);
        assert!(what.contains("exit status: 7") && what.contains("the roof is on fire"), "{what}");
        assert_eq!(silent.next().await["error"]["code"], -32603);
        assert_eq!(client.call("echo", json!({"text": "again"})).await.said(), "again");
        assert_eq!(bridge.handle.starts(), 2);
    }
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    if !has_python() {
        return;
    }
    let bridge = bridge(scripted(&["--broken"]));
    let client = bridge.stranger("");
    let initialize = json!({"jsonrpc": "2.0", "id": "one", "method": "initialize", "params": {"protocolVersion": "2025-06-18", "capabilities": {}}});
    let mut what = String::new();
    for _ in 0..6 {
        let answer = client.post(&initialize).await;
        assert_eq!(
            (answer.status, answer.code(), &answer.message()["id"], answer.session.clone()),
            (200, -32603, &json!("one"), None)
        );
        what = answer.message()["error"]["message"].as_str().expect("a message").to_owned();
        assert!(what.contains("no module named nothing"), "{what}");
    }
    assert!(what.contains("5 times in a row"), "{what}");
    assert_eq!(bridge.handle.starts(), 5);
    // Another command is not held to account for it.
    bridge.handle.update(scripted(&[]));
    bridge.client().await;
    bridge.handle.update(Settings::new("tools", ["no-such-program-anywhere"]));
    support::until("the new command is used", async || {
        let answer = client.post(&initialize).await.message();
        answer["error"]["message"]
            .as_str()
            .is_some_and(|what| what.contains("`no-such-program-anywhere` is not there"))
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_reload_leaves_running_processes_alone() {
    if !has_python() {
        return;
    }
    let bridge = bridge(shared(Share::All));
    let mut old = bridge.client().await;
    let pid = old.pid().await;
    bridge.handle.update(Settings { env: [("NEW".to_owned(), "1".to_owned())].into(), ..shared(Share::All) });
    let new = support::until("new sessions get the new command", async || {
        let new = bridge.client().await.pid().await;
        (new != pid).then_some(new)
    })
    .await;
    assert_eq!(old.pid().await, pid);
    assert!(lives(new));
}

#[tokio::test]
async fn nothing_of_a_group_stays() {
    if !has_python() {
        return;
    }
    let bridge = bridge(shared(Share::Session));
    let mut client = bridge.client().await;
    let family: Vec<u32> = serde_json::from_str(&client.call("children", json!({})).await.said()).expect("numbers");
    assert!(family.iter().all(|pid| lives(*pid)));
    assert_eq!(client.raw("DELETE", "").await.status, 204);
    eventually("all have ended", || !family.iter().any(|pid| lives(*pid))).await;
    // The same where it crashes, and where the bridge ends.
    let mut client = bridge.client().await;
    let family: Vec<u32> = serde_json::from_str(&client.call("children", json!({})).await.said()).expect("numbers");
    client.call("crash", json!({"code": 1})).await;
    eventually("all have ended", || !family.iter().any(|pid| lives(*pid))).await;
    let family: Vec<u32> = serde_json::from_str(&client.call("children", json!({})).await.said()).expect("numbers");
    let folder = bridge.path.parent().expect("a folder").to_owned();
    assert!(folder.exists());
    bridge.stop();
    assert!(!family.iter().any(|pid| lives(*pid)) && !folder.exists());
}

#[tokio::test]
async fn who_does_not_stop_is_killed() {
    if !has_python() {
        return;
    }
    let bridge = bridge(Settings { grace: Duration::from_millis(700), ..scripted(&["--stubborn"]) });
    let mut client = bridge.client().await;
    let pid = client.pid().await;
    let begun = Instant::now();
    assert_eq!(client.raw("DELETE", "").await.status, 204);
    eventually("it is killed", || !lives(pid)).await;
    assert!(begun.elapsed() >= Duration::from_millis(650), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn who_leaves_without_a_word_leaves_no_process() {
    if !has_python() {
        return;
    }
    let bridge = bridge(Settings { abandoned: Duration::from_millis(500), ..shared(Share::Session) });
    let mut client = bridge.client().await;
    let (pid, stream) = (client.pid().await, client.stream().await);
    let call = client.begin("slow", json!({"seconds": 1000})).await;
    assert!(lives(pid));
    drop((stream, call));
    eventually("its process has ended", || !lives(pid)).await;
    // It may come back.
    assert_ne!(client.pid().await, pid);
}

#[tokio::test]
async fn a_client_that_listens_is_not_gone() {
    if !has_python() {
        return;
    }
    let bridge = bridge(Settings { abandoned: Duration::from_millis(200), ..shared(Share::Session) });
    let mut listens = bridge.client().await;
    let stream = listens.stream().await;
    let pid = listens.pid().await;
    let gone = bridge.client().await.pid().await;
    eventually("the one without a stream has ended", || !lives(gone)).await;
    assert!(lives(pid));
    drop(stream);
}

#[tokio::test]
async fn a_session_that_nobody_uses_is_forgotten() {
    if !has_python() {
        return;
    }
    let settings = Settings { session_idle: Duration::from_millis(300), ..shared(Share::All) };
    let bridge = bridge(settings);
    let client = bridge.client().await;
    eventually("it is forgotten", || bridge.handle.sessions() == 0).await;
    let answer = client.post(&json!({"jsonrpc": "2.0", "id": 5, "method": "tools/list"})).await;
    assert_eq!((answer.status, answer.code(), &answer.message()["id"]), (404, -32001, &json!(5)));
}

#[tokio::test]
async fn a_batch_is_answered_as_a_whole() {
    if !has_python() {
        return;
    }
    let bridge = bridge(shared(Share::All));
    let mut client = bridge.client().await;
    let batch = json!([
        {"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
        {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"},
        client.call_message("echo", json!({"text": "second"})),
    ]);
    let answer = client.post(&batch).await;
    assert_eq!((answer.status, answer.message().as_array().map(Vec::len)), (200, Some(2)));
    assert_eq!(answer.message()[1]["result"]["content"][0]["text"], "second");
    assert!(client.received().await.contains(&"notifications/roots/list_changed".to_owned()));
    client.version = Some("2025-06-18");
    let answer = client.post(&batch).await;
    assert_eq!((answer.status, answer.code()), (400, -32600));
}

#[tokio::test]
async fn malformed_requests_get_an_error_that_says_so() {
    if !has_python() {
        return;
    }
    let bridge = bridge(Settings { max_body: 10_000, ..shared(Share::Session) });
    let client = bridge.client().await;
    let long = json!({"jsonrpc": "2.0", "id": 1, "method": "x", "params": {"long": "x".repeat(10_000)}}).to_string();
    let cases = [
        ("{", 400, -32700),
        ("", 400, -32700),
        ("[]", 400, -32600),
        ("{}", 400, -32600),
        (r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#, 400, -32600),
        (long.as_str(), 413, -32600),
    ];
    for (text, status, code) in cases {
        let answer = client.raw("POST", text.to_owned()).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{text}");
    }
    let mut stranger = bridge.stranger("");
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    assert_eq!(stranger.post(&list).await.status, 400);
    assert_eq!(stranger.raw("PUT", "").await.status, 405);
    stranger.session = Some("nobody".to_owned());
    assert_eq!((stranger.post(&list).await.status, stranger.raw("GET", "").await.status), (404, 404));
    stranger.version = Some("2099-01-01");
    let answer = stranger.post(&list).await;
    assert_eq!(
        (answer.status, answer.code(), &answer.message()["error"]["data"]["requested"]),
        (400, -32022, &json!("2099-01-01"))
    );
    assert_eq!(bridge.handle.starts(), 1);
}

#[tokio::test]
async fn what_a_server_says_beside_the_protocol_is_dropped() {
    if !has_python() {
        return;
    }
    let bridge = bridge(Settings { max_line: 100_000, ..shared(Share::Session) });
    let mut client = bridge.client().await;
    assert_eq!(client.call("noise", json!({})).await.said(), "done");
    assert_eq!(client.call("chatter", json!({"lines": 20_000})).await.said(), "done");
    assert_eq!(bridge.handle.starts(), 1);
    let answer = client.call("flood", json!({"bytes": 200_000})).await;
    assert!(
        answer.message()["error"]["message"].as_str().is_some_and(|what| what.contains("longer than 100000")),
        "{answer:?}"
    );
    assert_eq!(client.call("echo", json!({"text": "again"})).await.said(), "again");
}

#[tokio::test]
async fn there_are_no_more_than_there_may_be() {
    if !has_python() {
        return;
    }
    let bridge = bridge(Settings { max_processes: 1, max_pending: 1, ..shared(Share::Session) });
    let mut client = bridge.client().await;
    let params = json!({"protocolVersion": "2025-06-18", "capabilities": {}});
    let answer =
        bridge.stranger("").post(&json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})).await;
    assert!(
        answer.message()["error"]["message"].as_str().is_some_and(|what| what.contains("max_processes")),
        "{answer:?}"
    );
    let call = client.begin("slow", json!({"seconds": 1000})).await;
    assert!(
        client.call("pid", json!({})).await.message()["error"]["message"]
            .as_str()
            .is_some_and(|what| what.contains("in progress"))
    );
    drop(call);
}

#[tokio::test]
async fn a_legacy_server_lets_modern_clients_fall_back() {
    if !has_python() {
        return;
    }
    let bridge = bridge(shared(Share::All));
    let mut client = bridge.stranger("");
    client.version = Some("2026-07-28");
    let message = client.call_message("pid", json!({}));
    for _ in 0..2 {
        let answer = client.post(&message).await;
        assert_eq!((answer.status, answer.code(), &answer.message()["id"]), (400, -32022, &message["id"]));
        assert!(
            answer.message()["error"]["data"]["supported"]
                .as_array()
                .is_some_and(|all| all.contains(&json!("2025-06-18")))
        );
    }
    assert_eq!(bridge.handle.starts(), 1);
    eventually("nothing is left of the probe", || bridge.handle.processes() == 0).await;
    bridge.client().await;
}

#[tokio::test]
async fn modern_requests_reach_modern_servers() {
    if !has_python() {
        return;
    }
    let bridge = bridge(Settings { share: Share::All, ..scripted(&["--modern"]) });
    let mut clients: Vec<Client> =
        (0..4).map(|_| Client { version: Some("2026-07-28"), ..bridge.stranger("") }).collect();
    let mut pids = BTreeSet::new();
    for client in &mut clients {
        pids.insert(client.pid().await);
        let progress = client.call("progress", json!({"times": 2})).await;
        assert_eq!(progress.messages().len(), 3);
    }
    assert_eq!((pids.len(), clients[0].raw("GET", "").await.status), (1, 405));
    let mut message = clients[0].call_message("pid", json!({}));
    message["method"] = json!("no/such");
    let answer = clients[0].post(&message).await;
    assert_eq!((answer.status, answer.code()), (404, -32601));
    message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2025-06-18");
    assert_eq!(clients[0].post(&message).await.code(), -32020);
    // Who leaves cancels.
    let call = clients[1].begin("slow", json!({"seconds": 1000})).await;
    drop(call);
    let mut other = clients[2].clone();
    support::until("the call is cancelled", async || {
        other.received().await.contains(&"notifications/cancelled".to_owned()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_only_accepts_events_gets_events() {
    if !has_python() {
        return;
    }
    let bridge = bridge(shared(Share::Session));
    let mut client = bridge.stranger("");
    client.accept = "text/event-stream".to_owned();
    client.initialize(json!({})).await;
    let answer = client.call("echo", json!({"text": "hello"})).await;
    assert_eq!((answer.kind.as_str(), answer.said().as_str()), ("text/event-stream", "hello"));
}

#[tokio::test]
async fn who_waits_at_the_end_gets_an_answer() {
    if !has_python() {
        return;
    }
    let bridge = bridge(shared(Share::All));
    let (mut client, stream) = (bridge.client().await, bridge.client().await.stream().await);
    let mut call = client.begin("slow", json!({"seconds": 1000})).await;
    bridge.stop();
    assert_eq!(call.next().await["error"]["code"], -32603);
    stream.ends().await;
}

#[tokio::test]
async fn nothing_stays_of_a_proxy_that_is_killed() {
    if !has_python() {
        return;
    }
    let mut host = Host::start();
    let mut client = client::at(&host.path);
    client.initialize(json!({})).await;
    let family: Vec<u32> = serde_json::from_str(&client.call("children", json!({})).await.said()).expect("numbers");
    host.process.kill().expect("it is killed");
    host.process.wait().expect("it has ended");
    // What has left its group on purpose is nobody's then.
    let (near, far) = family.split_at(2);
    eventually("all have ended", || !near.iter().any(|pid| lives(*pid))).await;
    end(far[0]);
}

#[tokio::test]
async fn what_servers_say_is_logged_within_bounds() {
    if !has_python() {
        return;
    }
    let mut host = Host::start();
    let mut client = client::at(&host.path);
    client.initialize(json!({})).await;
    let pid = client.pid().await;
    client.call("crash", json!({"code": 1})).await;
    let line = host.line("the roof is on fire");
    assert!(
        line.contains("INFO tidegate::stdio") && line.contains("pool=tools") && line.contains(&format!("pid={pid}")),
        "{line}"
    );
    host.line("the MCP server ended: exit status: 1");
    client.call("chatter", json!({"lines": 5000})).await;
    client.call("noise", json!({})).await;
    assert_eq!(client.raw("DELETE", "").await.status, 204);
    host.line("lines of output were not logged");
    assert!(host.seen.iter().filter(|line| line.contains(" line ")).count() < 1000);
    host.process.kill().expect("it is killed");
}

#[tokio::test]
async fn a_bridge_that_is_dropped_kills_all() {
    if !has_python() {
        return;
    }
    let mut settings = scripted(&["--stubborn"]);
    settings.share = Share::All;
    let bridge = tidegate::stdio::Bridge::open(settings).expect("a bridge");
    let path = bridge.path().to_owned();
    let (sender, receiver) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            tokio::select! { _ = bridge.run(std::future::pending()) => {}, _ = stopped => {} }
        });
        drop(local);
        sender.send(()).expect("somebody waits");
    });
    let mut client = client::at(&path);
    client.initialize(json!({})).await;
    let family: Vec<u32> = serde_json::from_str(&client.call("children", json!({})).await.said()).expect("numbers");
    drop(stop);
    soon("the end", async { receiver.recv().expect("it ends") }).await;
    eventually("all have ended", || !family.iter().any(|pid| lives(*pid))).await;
    thread.join().expect("it ends well");
}
