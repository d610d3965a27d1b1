//! Sessions: they stay where they began, and survive whatever becomes of their server and of the proxy.

use serde_json::json;

use super::driver::Sdk::{Python1, Python2, TypeScript};
use super::driver::*;
use super::support::*;

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
        assert!(at.answered_by("a") > 0 && at.answered_by("b") > 0, "{at:?}");
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
    assert!(before.answered_by("a") > 0 && before.answered_by("b") > 0, "{before:?}");
    fleet.proxy.operate("tools", &fleet.a.address().to_string(), "drain").await;
    let after = clients.call("whoami", 3).await.all_of(24);
    assert_eq!(after.answered_by("a"), before.answered_by("a") * 3, "sessions go on where they are");
    let fresh = clients.ask(json!({ "do": "fresh", "count": 6 })).await.all_of(6);
    assert_eq!(fresh.answered_by("b"), 6);
    fleet.proxy.operate("tools", &fleet.a.address().to_string(), "undrain").await;
    let fresh = clients.ask(json!({ "do": "fresh", "count": 8 })).await.all_of(8);
    assert!(fresh.answered_by("a") > 0, "{fresh:?}");
}

#[tokio::test]
async fn a_replica_that_is_taken_out_or_fails_its_check_keeps_its_sessions() {
    if sdks().is_none() {
        return;
    }
    let health = "health = { path = \"/health\", interval = \"100ms\", fall = 1, rise = 1 }";
    let fleet = Fleet::of([Python1, Python2], health).await;
    let address = fleet.a.address().to_string();
    let mut all = Vec::new();
    for sdk in ALL {
        let mut clients = fleet.clients(sdk).await;
        clients.ask(json!({ "do": "open", "count": 6, "mode": "legacy" })).await.all_of(6);
        let before = clients.call("whoami", 1).await.all_of(6);
        assert!(before.answered_by("a") > 0 && before.answered_by("b") > 0, "{sdk:?}: {before:?}");
        all.push((clients, before.answered_by("a")));
    }
    let fresh = json!({ "do": "fresh", "count": 6, "mode": "legacy" });
    fleet.a.is(false).await;
    fleet.proxy.until_state("tools", &address, "down").await;
    for (clients, at_a) in &mut all {
        let during = clients.call("whoami", 3).await.all_of(18);
        assert_eq!(during.answered_by("a"), *at_a * 3, "sessions go on where they are: {during:?}");
        assert_eq!(clients.ask(fresh.clone()).await.all_of(6).answered_by("b"), 6);
    }
    fleet.a.is(true).await;
    fleet.proxy.until_state("tools", &address, "ready").await;
    let (first, _) = &mut all[0];
    assert!(first.ask(fresh.clone()).await.all_of(6).answered_by("a") > 0, "it gets new ones again");
    // Out of the file: what is there may stay until the drain's time is over.
    let health = format!("{health}\ndrain = {{ deadline = \"10m\" }}");
    assert!(fleet.proxy.edit(&config(&[&fleet.b], &health, "")).await.accepted);
    for (clients, at_a) in &mut all {
        let during = clients.call("whoami", 3).await.all_of(18);
        assert_eq!(during.answered_by("a"), *at_a * 3, "sessions go on where they are: {during:?}");
        assert_eq!(clients.ask(fresh.clone()).await.all_of(6).answered_by("b"), 6);
    }
    assert!(fleet.proxy.edit(&config(&[&fleet.a, &fleet.b], &health, "")).await.accepted);
    fleet.proxy.until_state("tools", &address, "ready").await;
    assert!(all[0].0.ask(fresh).await.all_of(6).answered_by("a") > 0, "it is back");
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
        let (lost, kept) = (before.answered_by("a"), before.answered_by("b"));
        assert!(lost > 0 && kept > 0, "{before:?}");
        fleet.a.kill().await;
        let after = clients.call("whoami", 1).await.all_of(8);
        assert_eq!(after.answered_by("b"), 8);
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
        assert_eq!(after.answered_by("b"), 4);
    }
    until("the other one knows all of them", async || (fleet.b.touch("test://item/0").await == 12).then_some(())).await;
    for clients in &mut all {
        hears(clients, &uris(0..2)).await;
    }
}

#[tokio::test]
async fn both_eras_are_served_by_a_mixed_fleet_also_while_it_is_upgraded() {
    if sdks().is_none() {
        return;
    }
    // Sessions of these servers hold nothing of worth: they leave at once, and calls that run are ended in peace.
    let mut fleet = Fleet::of([Python1, Python2], "drain = { portable = true }").await;
    let mut auto = fleet.clients(Python2).await;
    let mut old = fleet.clients(Python1).await;
    let fresh = json!({ "do": "fresh", "count": 12 });
    assert_eq!(auto.ask(fresh.clone()).await.all_of(12).spoke(MODERN, 12).answered_by("b"), 12);
    old.ask(fresh.clone()).await.all_of(12).spoke(LEGACY, 12);
    auto.ask(json!({ "do": "fresh", "count": 12, "mode": "legacy" })).await.all_of(12).spoke(LEGACY, 12);
    // The old one becomes a new one while both kinds of clients work.
    auto.open(3).await.spoke(MODERN, 3);
    old.open(3).await.spoke(LEGACY, 3);
    for clients in [&mut auto, &mut old] {
        clients.ask(json!({ "do": "load", "tool": "whoami", "arguments": {} })).await.all_of(3);
    }
    let address = fleet.a.address().to_string();
    fleet.proxy.operate("tools", &address, "drain").await;
    fleet.proxy.until_state("tools", &address, "drained").await;
    fleet.a.replace(Some(Python2)).await;
    fleet.proxy.operate("tools", &address, "undrain").await;
    until("it is used", async || (fleet.a.asked("tools/call").await > 10).then_some(())).await;
    for clients in [&mut auto, &mut old] {
        let said = clients.ask(json!({ "do": "rest" })).await;
        assert_eq!(said.number("failed"), 0, "{said:?}");
    }
    auto.ask(fresh).await.all_of(12).spoke(MODERN, 12);
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
        assert!(at.answered_by("a") > 0 && at.answered_by("b") > 0, "{at:?}");
        clients.ask(json!({ "do": "call", "tool": "elicit", "text": "blue" })).await.all_of(8);
    }
}
