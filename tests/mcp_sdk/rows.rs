//! What must hold, with two replicas unless said otherwise.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::process::Command;

use super::driver::Sdk::{Python1, Python2, TypeScript};
use super::driver::*;
use super::support::*;

const MODERN: &str = "2026-07-28";
const LEGACY: &str = "2025-11-25";

fn uris(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("test://item/{number}")).collect()
}

/// How often things that need luck are done; all of it where time does not matter.
fn rounds() -> u32 {
    if std::env::var_os("TIDEGATE_LONG").is_some() { 10 } else { 2 }
}

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
async fn every_session_stays_where_it_began() {
    if sdks().is_none() {
        return;
    }
    for (servers, sdk) in [([Python1; 2], Python1), ([TypeScript; 2], Python2), ([Python2; 2], TypeScript)] {
        let fleet = Fleet::of(servers, "").await;
        let mut clients = fleet.clients(sdk).await;
        // A client that asks for the era is told of the newer one where there is one; here sessions are what counts.
        clients.ask(json!({ "do": "open", "count": 24, "mode": "legacy" })).await.all_of(24).spoke(LEGACY, 24);
        // Each of them is counted for by itself, one to six.
        let counted = clients.call("count", 6).await.all_of(24 * 6);
        assert_eq!(counted.texts(), (1..=6).map(|count| (count.to_string(), 24)).collect::<Vec<_>>());
        let at = clients.call("whoami", 1).await.all_of(24);
        assert!(at.from("a") > 0 && at.from("b") > 0, "{at:?}");
        // The server asks back, on the stream of the call or the session's, and is answered by another request.
        clients.ask(json!({ "do": "call", "tool": "elicit", "text": "blue" })).await.all_of(24);
        // The server closes the call's stream; the client comes back for the result with Last-Event-ID.
        clients.call("polled", 1).await.all_of(24);
        clients.ask(json!({ "do": "close" })).await.all_of(24);
        let deleted = async || {
            fleet.a.counts().await["verbs"]["DELETE"].as_u64().unwrap_or(0)
                + fleet.b.counts().await["verbs"]["DELETE"].as_u64().unwrap_or(0)
        };
        until("every session has been ended", async || (deleted().await == 24).then_some(())).await;
        assert_eq!(fleet.asked("initialize").await, 24);
    }
}

#[tokio::test]
async fn two_proxies_that_share_only_the_key_serve_the_same_sessions() {
    if sdks().is_none() {
        return;
    }
    let fleet = Fleet::of([Python1; 2], "").await;
    let other = proxy(&fleet.text()).start().await;
    // Requests go to the one and to the other in turn.
    let front = proxy(
        "[listener.web]\nbind = \"127.0.0.1:0\"\n[[route]]\npool = \"front\"\n\
         [pool.front]\nbalance = \"round_robin\"\nupstreams = [\"{one}\", \"{other}\"]\n",
    );
    let front = front.with("one", &fleet.proxy.address("web")).with("other", &other.address("web")).start().await;
    for sdk in ALL {
        let mut clients = Clients::through(sdk, &front).await;
        clients.ask(json!({ "do": "open", "count": 6, "mode": "legacy" })).await.all_of(6);
        let counted = clients.call("count", 6).await.all_of(36);
        assert_eq!(counted.texts(), (1..=6).map(|count| (count.to_string(), 6)).collect::<Vec<_>>(), "{sdk:?}");
    }
    let taken = front.status().await;
    assert!(taken.pools[0].upstreams.iter().all(|proxy| proxy.requests > 0));
    assert_eq!(fleet.asked("initialize").await, 18, "nobody was recovered");
}

#[tokio::test]
async fn sessions_outlive_a_restart_and_a_reload() {
    if sdks().is_none() {
        return;
    }
    let (a, b) = tokio::join!(Replica::start(Python2, "a"), Replica::start(TypeScript, "b"));
    let text = config(&[&a, &b], "", "").replace("127.0.0.1:0", &free_address().to_string());
    let mut proxy = proxy(&text).spawn().await;
    let mut all = Vec::new();
    for sdk in ALL {
        let mut clients = Clients::through(sdk, &proxy).await;
        clients.ask(json!({ "do": "open", "count": 4, "mode": "legacy" })).await.all_of(4);
        clients.call("count", 1).await.all_of(4);
        all.push(clients);
    }
    assert!(proxy.edit(&text.replace("[pool.tools]", "[pool.tools]\nbalance = \"least_connections\"")).await.accepted);
    for clients in &mut all {
        assert_eq!(clients.call("count", 1).await.all_of(4).texts(), [("2".to_owned(), 4)]);
    }
    proxy.signal(rustix::process::Signal::KILL);
    proxy.ended().await;
    let _proxy = proxy.again().await;
    for clients in &mut all {
        assert_eq!(clients.call("count", 1).await.all_of(4).texts(), [("3".to_owned(), 4)]);
    }
    assert_eq!(a.asked("initialize").await + b.asked("initialize").await, 12);
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

/// Returns once every session has heard of exactly these, and lost nothing.
async fn hears(clients: &mut Clients, uris: &[String]) {
    let wanted = json!(uris);
    let mut last = None;
    let heard = async || {
        let said = clients.ask(json!({ "do": "heard" })).await;
        let all = said.0["heard"].as_array().expect("a list").iter().all(|heard| *heard == wanted);
        let lost = said.0["lost"].as_array().expect("a list").iter().any(|lost| !lost.is_null());
        assert!(!lost, "{said:?}");
        last = Some(said);
        all.then_some(())
    };
    until(&format!("{uris:?} have been heard of"), heard).await;
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
    assert_eq!(fresh.from("b"), 12);
}

#[tokio::test]
async fn a_reload_loses_no_call_no_stream_and_no_session() {
    if sdks().is_none() {
        return;
    }
    let fleet = Fleet::of([Python2, Python1], "").await;
    let text = fleet.text();
    let mut all = Vec::new();
    for sdk in ALL {
        let mut clients = fleet.clients(sdk).await;
        clients.open(4).await;
        clients.ask(json!({ "do": "listen", "uris": uris(0..8) })).await.all_of(4);
        all.push(clients);
    }
    for round in 0..rounds() {
        for clients in &mut all {
            clients.ask(json!({ "do": "load", "tool": "whoami", "arguments": {} })).await.all_of(4);
            clients.order(json!({ "do": "progress", "seconds": 1 })).await;
        }
        for reload in 0..3 {
            let before = fleet.asked("tools/call").await;
            let max = 1000 + round * 10 + reload;
            let edit = text.replace("[pool.tools]", &format!("[pool.tools]\nmax_concurrency = {max}"));
            assert!(fleet.proxy.edit(&edit).await.accepted);
            until("calls go on", async || (fleet.asked("tools/call").await > before + 20).then_some(())).await;
        }
        for clients in &mut all {
            clients.answer().await.all_of(4);
            let said = clients.ask(json!({ "do": "rest" })).await;
            assert_eq!(said.number("failed"), 0, "{said:?}");
        }
    }
    for uri in uris(0..8) {
        fleet.a.touch(&uri).await;
        fleet.b.touch(&uri).await;
    }
    for clients in &mut all {
        hears(clients, &uris(0..8)).await;
    }
    assert_eq!(fleet.asked("initialize").await, 8, "nobody had to begin again");
}

#[tokio::test]
async fn drained_replicas_keep_their_sessions_and_get_no_new_ones() {
    if sdks().is_none() {
        return;
    }
    let fleet = Fleet::of([Python1, TypeScript], "drain = { deadline = \"10m\" }").await;
    let mut clients = fleet.clients(Python1).await;
    clients.open(8).await;
    let before = clients.call("whoami", 1).await.all_of(8);
    assert!(before.from("a") > 0 && before.from("b") > 0, "{before:?}");
    fleet.proxy.operate("tools", &fleet.a.address().to_string(), "drain").await;
    let after = clients.call("whoami", 3).await.all_of(24);
    assert_eq!(after.from("a"), before.from("a") * 3, "sessions go on where they are");
    let fresh = clients.ask(json!({ "do": "fresh", "count": 6 })).await.all_of(6);
    assert_eq!(fresh.from("b"), 6);
    fleet.proxy.operate("tools", &fleet.a.address().to_string(), "undrain").await;
    let fresh = clients.ask(json!({ "do": "fresh", "count": 8 })).await.all_of(8);
    assert!(fresh.from("a") > 0, "{fresh:?}");
}

#[tokio::test]
async fn sessions_of_a_killed_replica_go_on_at_the_other_one() {
    if sdks().is_none() {
        return;
    }
    for (servers, sdk) in [(Python1, Python1), (TypeScript, Python2), (Python2, TypeScript)] {
        let mut fleet = Fleet::of([servers; 2], "session_loss = \"reinit\"").await;
        let mut clients = fleet.clients(sdk).await;
        clients.ask(json!({ "do": "open", "count": 8, "mode": "legacy" })).await.all_of(8);
        clients.ask(json!({ "do": "listen", "uris": uris(0..2) })).await.all_of(8);
        let before = clients.call("whoami", 1).await.all_of(8);
        let (lost, kept) = (before.from("a"), before.from("b"));
        assert!(lost > 0 && kept > 0, "{before:?}");
        fleet.a.kill().await;
        let after = clients.call("whoami", 1).await.all_of(8);
        assert_eq!(after.from("b"), 8);
        // What a busy machine adds, it adds to both.
        let bound = 500.max(5 * before.number("slowest_ms"));
        assert!(after.number("slowest_ms") < bound, "{sdk:?}: {after:?}, before {before:?}");
        // Calls at the same time recover a session once.
        clients.call("count", 6).await.all_of(48);
        let both = (fleet.b.asked("initialize").await, fleet.b.asked("notifications/initialized").await);
        assert_eq!(both, (kept + lost, kept + lost), "{sdk:?}");
        // What it had subscribed to it hears of from there.
        until("the other one knows the subscribers", async || {
            (fleet.b.touch("test://item/0").await == 8).then_some(())
        })
        .await;
        hears(&mut clients, &uris(0..1)).await;
    }
}

#[tokio::test]
async fn a_drain_moves_sessions_and_their_streams_at_its_deadline() {
    if sdks().is_none() {
        return;
    }
    let fleet = Fleet::of([Python1; 2], "drain = { deadline = \"1s\", migrate = true }").await;
    let mut all = Vec::new();
    for sdk in ALL {
        let mut clients = fleet.clients(sdk).await;
        clients.open(4).await;
        clients.ask(json!({ "do": "listen", "uris": uris(0..2) })).await.all_of(4);
        all.push(clients);
    }
    assert!(fleet.a.touch("test://item/1").await > 0);
    fleet.b.touch("test://item/1").await;
    fleet.proxy.operate("tools", &fleet.a.address().to_string(), "drain?deadline=1s").await;
    until("no stream is left at it", async || (fleet.a.counts().await["listening"] == 0).then_some(())).await;
    for clients in &mut all {
        let after = clients.call("whoami", 1).await.all_of(4);
        assert_eq!(after.from("b"), 4);
    }
    until("the other one knows all of them", async || (fleet.b.touch("test://item/0").await == 12).then_some(())).await;
    for clients in &mut all {
        hears(clients, &uris(0..2)).await;
    }
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
async fn both_eras_are_served_by_a_mixed_fleet_also_while_it_is_upgraded() {
    if sdks().is_none() {
        return;
    }
    let mut fleet = Fleet::of([Python1, Python2], "").await;
    let mut auto = fleet.clients(Python2).await;
    let mut old = fleet.clients(Python1).await;
    let fresh = json!({ "do": "fresh", "count": 12 });
    assert_eq!(auto.ask(fresh.clone()).await.all_of(12).spoke(MODERN, 12).from("b"), 12);
    old.ask(fresh.clone()).await.all_of(12).spoke(LEGACY, 12);
    auto.ask(json!({ "do": "fresh", "count": 12, "mode": "legacy" })).await.all_of(12).spoke(LEGACY, 12);
    // The old one becomes a new one while both kinds of clients work.
    auto.open(3).await.spoke(MODERN, 3);
    old.open(3).await.spoke(LEGACY, 3);
    for clients in [&mut auto, &mut old] {
        clients.ask(json!({ "do": "load", "tool": "whoami", "arguments": {} })).await.all_of(3);
    }
    fleet.proxy.operate("tools", &fleet.a.address().to_string(), "drain?deadline=100ms").await;
    until("it has been left", async || {
        let counts = fleet.a.counts().await;
        (counts["listening"] == 0 && counts["running"] == 0).then_some(())
    })
    .await;
    fleet.a.replace(Some(Python2)).await;
    fleet.proxy.operate("tools", &fleet.a.address().to_string(), "undrain").await;
    until("it is used", async || (fleet.a.asked("tools/call").await > 10).then_some(())).await;
    for clients in [&mut auto, &mut old] {
        let said = clients.ask(json!({ "do": "rest" })).await;
        assert_eq!(said.number("failed"), 0, "{said:?}");
    }
    auto.ask(fresh).await.all_of(12).spoke(MODERN, 12);
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
        assert!(said.from("a") > 0 && said.from("b") > 0, "{said:?}");
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
        clients.order(json!({ "do": "call", "tool": "whoami", "sessions": [0, 1] })).await;
    }
    a = Replica::start_with(Python2, "a", a.address().port(), &[]).await;
    for clients in &mut all {
        clients.answer().await.all_of(2);
    }
    assert!(a.asked("tools/call").await >= 6);
}

#[tokio::test]
async fn sessions_of_2024_stay_where_they_began() {
    if sdks().is_none() {
        return;
    }
    let fleet = Fleet::of([Python1; 2], "").await;
    let url = format!("http://{}/sse", fleet.proxy.address("web"));
    for sdk in ALL {
        let mut clients = Clients::of(sdk, &url);
        clients.ask(json!({ "do": "open", "count": 8, "transport": "sse", "mode": "legacy" })).await.all_of(8);
        let counted = clients.call("count", 6).await.all_of(48);
        assert_eq!(counted.texts(), (1..=6).map(|count| (count.to_string(), 8)).collect::<Vec<_>>(), "{sdk:?}");
        let at = clients.call("whoami", 1).await.all_of(8);
        assert!(at.from("a") > 0 && at.from("b") > 0, "{at:?}");
        clients.ask(json!({ "do": "call", "tool": "elicit", "text": "blue" })).await.all_of(8);
    }
}

fn processes(said: &Said) -> Vec<u32> {
    let pid = |(text, _): (String, u64)| text.rsplit('/').next().and_then(|pid| pid.parse().ok()).expect("a process");
    said.texts().into_iter().map(pid).collect()
}

fn lives(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn servers_on_standard_input_and_output_serve_many() {
    if sdks().is_none() {
        return;
    }
    for (server, sdk) in [(Python1, TypeScript), (TypeScript, Python1)] {
        // One process for all; a call that takes longer than it may be idle is waited for.
        let settings = stdio(server, "share = \"all\", idle_timeout = \"1s\"");
        let proxy = started(&config(&[], &settings, "")).await;
        let mut clients = Clients::through(sdk, &proxy).await;
        clients.open(10).await;
        let one = processes(&clients.call("whoami", 2).await.all_of(20));
        assert_eq!(one.len(), 1, "{one:?}");
        let slow = json!({ "seconds": 2.5, "quiet": true });
        let order = json!({ "do": "call", "tool": "slow", "arguments": slow, "sessions": [0] });
        clients.ask(order).await.all_of(1);
        clients.ask(json!({ "do": "close" })).await.all_of(10);
        drop(clients);
        eventually("the process has been stopped", || !lives(one[0])).await;
        // One process for each session, and none after a client that just goes.
        let settings = stdio(server, "share = \"session\", abandoned = \"500ms\"");
        let proxy = started(&config(&[], &settings, "")).await;
        let mut clients = Clients::through(sdk, &proxy).await;
        clients.open(3).await;
        let own = processes(&clients.call("whoami", 1).await.all_of(3));
        assert_eq!(own.len(), 3, "{own:?}");
        assert_eq!(clients.call("count", 2).await.all_of(6).texts(), [("1".to_owned(), 3), ("2".to_owned(), 3)]);
        clients.ask(json!({ "do": "call", "tool": "elicit", "text": "blue" })).await.all_of(3);
        drop(clients);
        eventually("no process is left", || !own.iter().copied().any(lives)).await;
    }
}

async fn started(text: &str) -> Proxy {
    proxy(text).start().await
}

/// The lines of a suite's summary, one per scenario.
async fn conformance(url: &str, version: &str) -> Vec<String> {
    let folder = sdks().expect("the SDKs are there");
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mcp_sdk/conformance.mjs");
    let results = tempfile::tempdir().expect("a temporary folder");
    let (suite, which) = match version {
        LEGACY => ("@modelcontextprotocol/conformance", ["--spec-version", version, "--suite", "all"].to_vec()),
        _ => ("conformance-2026", ["--requirements", version].to_vec()),
    };
    let mut command = Command::new("node");
    command.arg("--import").arg(own).arg(folder.join("node/node_modules").join(suite).join("dist/index.js"));
    command.args(["server", "--url", url, "-o"]).arg(results.path()).args(which).kill_on_drop(true);
    let output = command.output().await.expect("the suite runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<String> =
        text.lines().filter(|line| line.contains(" passed, ")).map(|line| line.trim().to_owned()).collect();
    assert!(lines.iter().any(|line| line.starts_with("Total: ")), "{text}");
    lines
}

#[tokio::test]
async fn the_conformance_suites_find_no_difference() {
    let Some(folder) = sdks() else { return };
    if !folder.join("node/node_modules/conformance-2026").exists() {
        eprintln!("skipped: no suite for {MODERN} in {}; install it with .ci/mcp-sdks", folder.display());
        return;
    }
    let everything = ["--everything"];
    let start = |name| Replica::start_with(Python2, name, 0, &everything);
    let (alone, a, b) = tokio::join!(start("alone"), start("a"), start("b"));
    let proxy = proxy(&config(&[&a, &b], "", "")).start().await;
    proxy.settled().await;
    let through = format!("http://{}/mcp", proxy.address("web"));
    for version in [LEGACY, MODERN] {
        let direct = conformance(&alone.url(), version).await;
        let proxied = conformance(&through, version).await;
        eprintln!("{version}: direct {:?}, through the proxy {:?}", direct.last(), proxied.last());
        assert_eq!(proxied, direct, "{version}");
    }
    assert!(a.asked("tools/call").await > 10 && b.asked("tools/call").await > 10);
}
