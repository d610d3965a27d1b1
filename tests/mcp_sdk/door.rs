//! Who may come in, what is counted of them, and what they are given without asking a server.

use http::Method;
use serde_json::{Value, json};
use tidegate::access::new_key;

use super::driver::Sdk::{Python1, Python2};
use super::driver::*;
use super::support::*;

/// Who asks: an order to open sessions with this key.
pub(crate) fn open(key: &str, count: u64) -> Value {
    json!({ "do": "open", "count": count, "headers": { "authorization": format!("Bearer {key}") } })
}

/// The one route with more rules.
pub(crate) fn ruled(text: &str, rules: &str) -> String {
    text.replace("pool = \"tools\"\n", &format!("pool = \"tools\"\n{rules}\n"))
}

#[tokio::test]
async fn who_has_no_key_and_pages_of_others_come_to_no_server() {
    if sdks().is_none() {
        return;
    }
    let ((alice, one), (bob, two)) = (new_key("alice", &[]).unwrap(), new_key("bob", &[]).unwrap());
    let (a, b) = tokio::join!(Replica::start(Python2, "a"), Replica::start(Python1, "b"));
    let limit = "[[pool.tools.limit]]\nper = \"principal\"\ntool = \"add\"\nrate = \"3/min\"\n";
    let rules = "auth = { keys = \"keys.txt\" }\norigins = \"https://app.test\"\ncors = \"mcp\"\n\
        resource = { url = \"https://mcp.example.com/mcp\", authorization_servers = [\"https://login.test\"] }";
    let text = ruled(&config(&[&a, &b], "", limit), rules);
    let proxy = proxy(&text).file("keys.txt", format!("{one}\n{two}\n")).start().await;
    proxy.settled().await;
    for sdk in ALL {
        let mut clients = Clients::through(sdk, &proxy).await;
        for headers in [json!({}), json!({ "authorization": "Bearer tg_wrong" })] {
            let refused = clients.ask(json!({ "do": "open", "headers": headers })).await;
            assert_eq!((refused.number("ok"), refused.number("failed")), (0, 1), "{sdk:?}: {refused:?}");
        }
    }
    // As a page's client is: with the browser's header, and asked for first.
    let web = proxy.client();
    let preflight = web
        .call(Method::OPTIONS, "/mcp")
        .header("origin", "https://app.test")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type,mcp-protocol-version,mcp-session-id")
        .await;
    assert_eq!(
        (preflight.status.as_u16(), preflight.header("access-control-allow-origin")),
        (204, Some("https://app.test"))
    );
    let foreign = web
        .post("/mcp", "{}")
        .header("origin", "https://evil.test")
        .header("authorization", &format!("Bearer {alice}"));
    assert_eq!(foreign.await.status, 403);
    let document = web.get("/.well-known/oauth-protected-resource/mcp").await;
    assert_eq!(document.json()["resource"], "https://mcp.example.com/mcp");
    for replica in [&a, &b] {
        assert_eq!(replica.counts().await["methods"], json!({}), "no server has seen any of it");
    }
    // Who has a key works, and has one limit in all sessions and with every client.
    let add = json!({ "do": "call", "tool": "add", "arguments": { "a": 1, "b": 2 } });
    for sdk in ALL {
        let mut clients = Clients::through(sdk, &proxy).await;
        clients.ask(open(&alice, 1)).await.all_of(1);
        clients.call("whoami", 1).await.all_of(1);
        clients.ask(add.clone()).await.all_of(1);
    }
    let mut clients = Clients::through(Python1, &proxy).await;
    clients.ask(open(&alice, 1)).await.all_of(1);
    assert_eq!(clients.ask(add.clone()).await.number("failed"), 1, "alice has had her three");
    let mut clients = Clients::through(Python1, &proxy).await;
    clients.ask(open(&bob, 1)).await.all_of(1);
    clients.ask(add).await.all_of(1);
    // A key that is taken out of the file is good for nothing at once; the other one goes on.
    std::fs::write(proxy.folder().join("keys.txt"), format!("{one}\n")).unwrap();
    until("bob is out", async || (clients.call("whoami", 1).await.number("failed") == 1).then_some(())).await;
}

#[tokio::test]
async fn the_page_counts_what_the_sdks_count() {
    if sdks().is_none() {
        return;
    }
    let fleet = Fleet::of([Python1, Python2], "").await;
    let mut sessions = 0;
    for sdk in ALL {
        let mut clients = fleet.clients(sdk).await;
        clients.ask(json!({ "do": "open", "count": 3, "mode": "legacy" })).await.all_of(3);
        sessions += 3;
        clients.ask(json!({ "do": "list" })).await.all_of(3);
        clients.call("whoami", 5).await.all_of(15);
        let failed = clients.call("fail", 2).await;
        assert_eq!(failed.number("failed"), 6, "{failed:?}");
        clients.call("no_such_tool", 1).await;
        clients.ask(json!({ "do": "close" })).await.all_of(3);
    }
    let page = async || fleet.proxy.admin().get("/metrics").await.text();
    // Of all series of a method and tool, whatever became of the calls.
    let counted = |page: &str, method: &str, tool: &str| -> f64 {
        let start = "mcp_server_operation_duration_seconds_count{";
        let labels = format!("mcp_method_name=\"{method}\",gen_ai_tool_name=\"{tool}\"");
        let lines = page.lines().filter(|line| line.starts_with(start) && line.contains(&labels));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    let n = f64::from(sessions);
    for (method, tool, count) in [
        ("initialize", "", n),
        ("tools/list", "", n),
        ("tools/call", "whoami", 5.0 * n),
        ("tools/call", "fail", 2.0 * n),
        ("tools/call", "other", n),
    ] {
        until(&format!("{method} {tool} is counted"), async || {
            (counted(&page().await, method, tool) == count).then_some(())
        })
        .await;
    }
    let errors = "gen_ai_tool_name=\"fail\",error_type=\"tool_error\"";
    assert!(page().await.lines().any(|line| line.contains(errors) && line.ends_with(" 18")), "{}", page().await);
    let asked = fleet.asked("tools/call").await;
    assert_eq!(asked as f64, 8.0 * n, "and the servers have seen the same");
}

#[tokio::test]
async fn a_list_is_asked_for_once_by_whoever_may_share_it() {
    if sdks().is_none() {
        return;
    }
    let ((alice, one), (bob, two)) = (new_key("alice", &[]).unwrap(), new_key("bob", &[]).unwrap());
    for scope in ["public", "private"] {
        let lists = ["--lists", scope];
        let start = |name| Replica::start_with(Python2, name, 0, &lists);
        let (a, b) = tokio::join!(start("a"), start("b"));
        let text = ruled(&config(&[&a, &b], "", ""), "auth = { keys = \"keys.txt\" }");
        let proxy = proxy(&text).file("keys.txt", format!("{one}\n{two}\n")).start().await;
        proxy.settled().await;
        let lists = async || a.asked("tools/list").await + b.asked("tools/list").await;
        let mut all = Vec::new();
        for key in [&alice, &bob] {
            let mut clients = Clients::through(Python2, &proxy).await;
            clients.ask(open(key, 2)).await.all_of(2).spoke(MODERN, 2);
            all.push(clients);
        }
        for clients in &mut all {
            clients.ask(json!({ "do": "list", "times": 1, "sessions": [0] })).await.all_of(1);
            clients.ask(json!({ "do": "list", "times": 50 })).await.all_of(100);
        }
        let expected = if scope == "public" { 1 } else { 2 };
        assert_eq!(lists().await, expected, "{scope}");
        // A change is heard of, and what was kept is asked for anew.
        all[0].ask(json!({ "do": "listen", "uris": ["tools"], "sessions": [0] })).await.all_of(1);
        a.touch("tools").await;
        until("the change is heard of", async || {
            let heard = all[0].ask(json!({ "do": "heard", "sessions": [0] })).await;
            (heard.0["heard"][0] == json!(["tools"])).then_some(())
        })
        .await;
        all[0].ask(json!({ "do": "list" })).await.all_of(2);
        assert!(lists().await > expected, "{scope}: it has changed");
    }
}
