//! Calls and streams: all of them arrive, whole and in time, and refusals are such that the other side can go on.

use std::time::{Duration, Instant};

use serde_json::json;

use super::driver::Sdk::{Python1, Python2, TypeScript};
use super::driver::*;
use super::support::*;

#[tokio::test]
async fn progress_arrives_as_it_is_made_and_large_calls_pass() {
    if sdks().is_none() {
        return;
    }
    let fleet = Fleet::of([Python1, Python2], "").await;
    for sdk in ALL {
        let mut clients = fleet.clients(sdk).await;
        clients.open(2).await;
        clients.ask(json!({ "do": "echo", "size": 3_500_000 })).await.all_of(2);
        let mut direct = Clients::of(sdk, &fleet.a.url());
        direct.open(1).await;
        let order = json!({ "do": "progress", "seconds": 2, "sessions": [0] });
        // What a busy machine adds, it adds to both.
        let (said, usual) = (clients.ask(order.clone()).await, direct.ask(order).await);
        let bound = 150.max(usual.number("widest_gap_ms") + 50);
        assert!(said.number("widest_gap_ms") <= bound, "{sdk:?}: {said:?}, direct {usual:?}");
        assert_eq!(said.all_of(1).number("events"), 20);
    }
}

#[tokio::test]
async fn refusals_of_the_servers_pass_as_they_are() {
    if sdks().is_none() {
        return;
    }
    // One replica of each kind, so that who answers is known.
    for sdk in ALL {
        let replica = Replica::start(sdk, "a").await;
        let proxy = proxy(&config(&[&replica], "", "")).start().await;
        let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","arguments":{}}}"#;
        let both = "application/json, text/event-stream";
        for (method, body, headers) in [
            ("POST", call, vec![("accept", both)]),
            ("POST", call, vec![("accept", "text/html")]),
            ("GET", "", vec![("accept", "text/event-stream")]),
            ("DELETE", "", vec![]),
        ] {
            let mut seen = Vec::new();
            for address in [replica.address(), proxy.address("web")] {
                let method = method.parse().expect("a method");
                let mut call =
                    client(address).call(method, "/mcp").body(body).header("content-type", "application/json");
                for (name, value) in &headers {
                    call = call.header(name, value);
                }
                let answer = call.await;
                seen.push((answer.status, answer.text()));
            }
            assert_eq!(seen[0], seen[1], "{sdk:?} {method} {headers:?}");
        }
    }
}

#[tokio::test]
async fn who_leaves_cancels_in_the_new_era_and_does_not_in_the_old_one() {
    if sdks().is_none() {
        return;
    }
    let fleet = Fleet::of([Python2; 2], "").await;
    let mut clients = fleet.clients(Python2).await;
    clients.open(4).await.spoke(MODERN, 4);
    clients.ask(json!({ "do": "cancel" })).await.all_of(4);
    let begun = Instant::now();
    fleet.until_counted("cancelled", |count| count == 4).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    // Sessions: the call goes on without its client.
    let mut clients = fleet.clients(Python1).await;
    clients.open(4).await.spoke(LEGACY, 4);
    clients.order(json!({ "do": "progress", "seconds": 1.5 })).await;
    fleet.until_counted("running", |count| count == 4).await;
    drop(clients);
    fleet.until_counted("running", |count| count == 0).await;
    assert_eq!(fleet.counted("cancelled").await, 4);
}

#[tokio::test]
async fn silence_cuts_no_stream() {
    if sdks().is_none() {
        return;
    }
    let long = std::env::var_os("TIDEGATE_LONG").is_some();
    // As it is; and in a hurry, with clients that bear less silence than there is without the comments.
    let (settings, seconds, bears) = if long { ("", 70, 60) } else { ("keepalive = \"250ms\"", 4, 2) };
    let fleet = Fleet::of([Python2, Python1], settings).await;
    let mut all = Vec::new();
    for sdk in ALL {
        let mut clients = fleet.clients(sdk).await;
        clients.ask(json!({ "do": "open", "count": 2, "read_timeout": bears })).await.all_of(2);
        clients.ask(json!({ "do": "listen", "uris": uris(0..8) })).await.all_of(2);
        let slow = json!({ "seconds": seconds, "quiet": true });
        clients.order(json!({ "do": "call", "tool": "slow", "arguments": slow, "patience": 90 })).await;
        all.push(clients);
    }
    for clients in &mut all {
        clients.answer().await.all_of(2);
    }
    // The streams that nothing has come on meanwhile are still there.
    fleet.a.touch("test://item/0").await;
    fleet.b.touch("test://item/0").await;
    for clients in &mut all {
        hears(clients, &uris(0..1)).await;
    }
}

#[tokio::test]
async fn a_replica_dies_and_no_call_fails() {
    if sdks().is_none() {
        return;
    }
    let mut fleet = Fleet::of([Python2; 2], "").await;
    let mut clients = fleet.clients(Python2).await;
    clients.open(6).await.spoke(MODERN, 6);
    let list = json!({ "do": "list", "times": 40 });
    clients.ask(json!({ "do": "call", "tool": "add", "arguments": { "a": 1, "b": 2 }, "times": 10 })).await.all_of(60);
    // What may be repeated is asked for while it happens.
    clients.order(list).await;
    let before = fleet.asked("tools/list").await;
    until("lists are under way", async || (fleet.asked("tools/list").await > before + 20).then_some(())).await;
    fleet.a.kill().await;
    clients.answer().await.all_of(240);
    clients.call("whoami", 10).await.all_of(60);
    // Nobody who comes now is told that there is only the old era.
    let fresh = clients.ask(json!({ "do": "fresh", "count": 12 })).await.all_of(12).spoke(MODERN, 12);
    assert_eq!(fresh.answered_by("b"), 12);
}

#[tokio::test]
async fn a_subscription_hears_of_every_replica() {
    if sdks().is_none() {
        return;
    }
    let mut fleet = Fleet::of([Python2; 2], "").await;
    let mut clients = fleet.clients(Python2).await;
    clients.open(3).await.spoke(MODERN, 3);
    clients.ask(json!({ "do": "listen", "uris": uris(0..12) })).await.all_of(3);
    for (number, uri) in uris(0..8).iter().enumerate() {
        let replica = if number % 2 == 0 { &fleet.a } else { &fleet.b };
        replica.touch(uri).await;
    }
    hears(&mut clients, &uris(0..8)).await;
    // One that joins.
    let c = Replica::start(Python2, "c").await;
    assert!(fleet.proxy.edit(&config(&[&fleet.a, &fleet.b, &c], "", "")).await.accepted);
    let begun = Instant::now();
    until("it is listened to", async || (c.asked("subscriptions/listen").await == 3).then_some(())).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    c.touch("test://item/8").await;
    let mut heard = uris(0..9);
    hears(&mut clients, &heard).await;
    // One that dies.
    fleet.a.kill().await;
    clients.call("whoami", 2).await.all_of(6);
    fleet.b.touch("test://item/9").await;
    heard.push("test://item/9".to_owned());
    hears(&mut clients, &heard).await;
}

#[tokio::test]
async fn what_a_replica_has_begun_is_ended_there() {
    if sdks().is_none() {
        return;
    }
    // The SDK seals the state of a question with a key that only the process has.
    let fleet = Fleet::of([Python2; 2], "").await;
    let mut clients = fleet.clients(Python2).await;
    clients.open(2).await.spoke(MODERN, 2);
    clients.ask(json!({ "do": "call", "tool": "elicit", "text": "blue", "times": 5 })).await.all_of(10);
    assert_eq!(fleet.asked("tools/call").await, 20, "each was asked once and answered once");
    // Tasks are known where they were made.
    for sdk in [Python1, TypeScript] {
        let fleet = Fleet::of([sdk; 2], "").await;
        let mut clients = fleet.clients(sdk).await;
        clients.open(4).await;
        let said = clients.ask(json!({ "do": "tasks", "count": 5 })).await.all_of(20);
        assert!(said.answered_by("a") > 0 && said.answered_by("b") > 0, "{said:?}");
    }
}

#[tokio::test]
async fn a_limit_is_told_to_the_model_and_the_session_lives() {
    if sdks().is_none() {
        return;
    }
    let (a, b) = tokio::join!(Replica::start(Python2, "a"), Replica::start(Python1, "b"));
    let limit = "[[pool.tools.limit]]\nper = \"header:authorization\"\ntool = \"add\"\nrate = \"5/min\"\n";
    let proxy = proxy(&config(&[&a, &b], "", limit)).start().await;
    proxy.settled().await;
    let add = json!({ "do": "call", "tool": "add", "arguments": { "a": 1, "b": 2 } });
    for sdk in ALL {
        let mut clients = Clients::through(sdk, &proxy).await;
        let headers = json!({ "authorization": format!("Bearer {sdk:?}") });
        let open = json!({ "do": "open", "headers": headers });
        clients.ask(open.clone()).await.all_of(1);
        for _ in 0..5 {
            clients.ask(add.clone()).await.all_of(1);
        }
        let sixth = clients.ask(add.clone()).await;
        let error = sixth.0["errors"][0].as_str().unwrap_or_default().to_lowercase();
        assert!(sixth.number("failed") == 1 && error.contains("try again"), "{sdk:?}: {sixth:?}");
        // A result, which the model reads; not an error of the client.
        assert_eq!(sixth.texts().len(), 1, "{sdk:?}: {sixth:?}");
        clients.call("whoami", 1).await.all_of(1);
        // Beginning anew gives nothing back.
        clients.ask(open).await.all_of(1);
        let again =
            clients.ask(json!({ "do": "call", "tool": "add", "arguments": { "a": 1, "b": 2 }, "sessions": [1] })).await;
        assert_eq!(again.number("failed"), 1, "{sdk:?}: {again:?}");
    }
}

#[tokio::test]
async fn calls_wait_for_room_and_for_a_server_that_is_late() {
    if sdks().is_none() {
        return;
    }
    let mut a = Replica::start(Python2, "a").await;
    let settings = "max_concurrency = 1\nqueue = { size = 100, timeout = \"30s\" }";
    let proxy = proxy(&config(&[&a], settings, "")).start().await;
    let mut all = Vec::new();
    for sdk in ALL {
        let mut clients = Clients::through(sdk, &proxy).await;
        clients.open(20).await;
        clients
            .ask(json!({ "do": "call", "tool": "slow", "arguments": { "seconds": 0.1, "quiet": true } }))
            .await
            .all_of(20);
        all.push(clients);
    }
    // Nobody is there for a while; who asks meanwhile is answered when somebody is.
    a.kill().await;
    for clients in &mut all {
        clients.order(json!({ "do": "call", "tool": "whoami", "sessions": [0, 1], "patience": 60 })).await;
    }
    if std::env::var_os("TIDEGATE_LONG").is_some() {
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    a = Replica::start_with(Python2, "a", a.address().port(), &[]).await;
    for clients in &mut all {
        clients.answer().await.all_of(2);
    }
    assert!(a.asked("tools/call").await >= 6);
}
