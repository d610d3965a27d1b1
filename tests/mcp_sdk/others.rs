//! Other kinds of servers and clients: on standard input and output, and the official conformance suites.

use std::path::Path;

use serde_json::json;
use tidegate::access::new_key;
use tokio::process::Command;

use super::door::{open, ruled};
use super::driver::Sdk::{Python1, Python2, TypeScript};
use super::driver::*;
use super::support::*;

fn processes(said: &Said) -> Vec<u32> {
    let pid = |(text, _): (String, u64)| text.rsplit('/').next().and_then(|pid| pid.parse().ok()).expect("a process");
    said.texts().into_iter().map(pid).collect()
}

fn lives(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

async fn started(text: &str) -> Proxy {
    proxy(text).start().await
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

#[tokio::test]
async fn who_has_a_key_has_a_process_for_all_sessions() {
    if sdks().is_none() {
        return;
    }
    let ((alice, one), (bob, two)) = (new_key("alice", &[]).unwrap(), new_key("bob", &[]).unwrap());
    let settings = stdio(Python1, "share = \"principal\", idle_timeout = \"1s\"");
    let text = ruled(&config(&[], &settings, ""), "auth = { keys = \"keys.txt\" }");
    let proxy = proxy(&text).file("keys.txt", format!("{one}\n{two}\n")).start().await;
    let mut own = Vec::new();
    for (key, sdk) in [(&alice, Python1), (&alice, TypeScript), (&bob, Python2)] {
        let mut clients = Clients::through(sdk, &proxy).await;
        clients.ask(open(key, 3)).await.all_of(3);
        let at = processes(&clients.call("whoami", 2).await.all_of(6));
        assert_eq!(at.len(), 1, "{sdk:?}: {at:?}");
        own.push(at[0]);
        // It is gone without a word.
        drop(clients);
    }
    assert!(own[0] == own[1] && own[0] != own[2], "{own:?}");
    eventually("no process is left", || !own.iter().copied().any(lives)).await;
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
