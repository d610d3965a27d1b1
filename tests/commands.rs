//! The commands, as a person uses them.

mod support;

use support::*;

const APP: &str = r#"
    [listener.web]
    bind = "127.0.0.1:0"
    [pool.app]
    upstreams = ["{a}", "{b}"]
    [[route]]
    pool = "app"
"#;

async fn running() -> (Upstream, Upstream, Proxy, String) {
    let (a, b) = (upstream().named("a").start().await, upstream().named("b").start().await);
    let proxy = proxy(APP).with("a", &a).with("b", &b).start().await;
    let admin = format!("unix:{}", proxy.folder().join("admin.sock").display());
    (a, b, proxy, admin)
}

#[tokio::test]
async fn an_upstream_is_drained_and_brought_back() {
    let (a, _b, proxy, admin) = running().await;
    let done = tidegate(&["drain", "app", &a.address(), "--wait", "--deadline", "5s", "--admin", &admin]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.out.starts_with(&format!("app {}: drained", a.address())), "{done:?}");
    for _ in 0..4 {
        assert_eq!(proxy.client().get("/").await.upstream(), "b");
    }
    let done = tidegate(&["undrain", "app", &a.address(), "--admin", &admin]).await;
    assert!(done.out.starts_with(&format!("app {}: ready", a.address())), "{done:?}");
    until("a answers again", async || (proxy.client().get("/").await.upstream() == "a").then_some(())).await;
}

#[tokio::test]
async fn maintenance_and_weights() {
    let (a, _b, proxy, admin) = running().await;
    let done = tidegate(&["maintenance", "app", &a.address(), "--admin", &admin]).await;
    assert!(done.out.contains(": maintenance"), "{done:?}");
    assert_eq!(proxy.client().get("/").await.upstream(), "b");
    let done = tidegate(&["ready", "app", &a.address(), "--admin", &admin]).await;
    assert!(done.out.contains(": ready"), "{done:?}");
    let done = tidegate(&["weight", "app", &a.address(), "7", "--admin", &admin]).await;
    assert!(done.out.contains("weight 7"), "{done:?}");
    let done = tidegate(&["weight", "app", &a.address(), "--admin", &admin]).await;
    assert!(done.out.contains("weight 1"), "{done:?}");
}

#[tokio::test]
async fn a_reload_tells_its_verdict_by_words_and_exit_code() {
    let (_a, _b, proxy, admin) = running().await;
    let generation = proxy.status().await.generation;
    let done = tidegate(&["reload", "--admin", &admin]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    std::fs::write(proxy.file(), "[pool.app]\nbalance = \"rond_robin\"\n").unwrap();
    let done = tidegate(&["reload", "--admin", &admin]).await;
    assert_eq!(done.code, Some(78));
    assert!(done.err.contains("tidegate.toml:2:11") && done.err.contains("round_robin"), "{}", done.err);
    assert!(done.err.trim_end().ends_with("goes on unchanged"), "{}", done.err);
    let status = tidegate(&["status", "--admin", &admin]).await;
    assert!(status.out.contains("REFUSED") && status.out.contains("rond_robin"), "{}", status.out);
    assert!(proxy.status().await.generation >= generation);
    assert_eq!(proxy.client().get("/").await.status, 200);
}

#[tokio::test]
async fn status_is_for_people_and_for_programs() {
    let (a, _b, proxy, admin) = running().await;
    proxy.client().get("/").await;
    let table = tidegate(&["status", "--admin", &admin]).await.out;
    assert!(table.contains("POOL app (round_robin)") && table.contains(&a.address()), "{table}");
    let json = tidegate(&["status", "--json", "--admin", &admin]).await.out;
    let status: tidegate::admin::model::Status = serde_json::from_str(&json).unwrap();
    assert_eq!(status.pools[0].upstreams.len(), 2);
    assert_eq!(status.requests, 1);
    // The admin address also comes from the configuration.
    let file = proxy.file().display().to_string();
    assert_eq!(tidegate(&["status", "--config", &file]).await.code, Some(0));
}

#[tokio::test]
async fn mistakes_end_with_the_right_code() {
    let (_a, _b, _proxy, admin) = running().await;
    for (arguments, code, words) in [
        (&["drain", "ap", "x:1", "--admin", &admin][..], 1, "ap"),
        (&["drain", "app", "10.0.0.1:1", "--admin", &admin], 1, "10.0.0.1:1"),
        (&["status", "--admin", "unix:/nonexistent"], 1, "does it run"),
        (&["status", "--admin", "https://x:1"], 64, "http://HOST:PORT"),
        (&["status", "--bogus"], 64, "--bogus"),
        (&["frobnicate"], 64, "frobnicate"),
        (&["check", "/nonexistent.toml"], 78, "/nonexistent.toml"),
        (&["run", "/nonexistent.toml"], 78, "/nonexistent.toml"),
        (&["demo", "--seconds", "1"], 64, "3..=600"),
    ] {
        let done = tidegate(arguments).await;
        assert_eq!(done.code, Some(code), "{arguments:?}: {done:?}");
        assert!(done.err.contains(words), "{arguments:?}: {}", done.err);
    }
    for asked in ["--help", "--version"] {
        assert_eq!(tidegate(&[asked]).await.code, Some(0));
    }
}

#[tokio::test]
async fn what_show_prints_is_a_configuration_that_shows_itself() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/demo.toml");
    let shown = tidegate(&["show", file]).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    let again = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(again.path(), &shown.out).unwrap();
    assert_eq!(tidegate(&["show", &again.path().display().to_string()]).await.out, shown.out);
    assert!(tidegate(&["show", "--defaults"]).await.out.contains("keepalive_timeout"));
}

#[tokio::test]
async fn the_demo_plays_by_itself_and_loses_nothing() {
    let done = tidegate(&["demo", "--seconds", "4"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.out, done.err);
    assert!(done.out.contains(" 0 failed;"), "{}", done.out);
    for event in ["kill -9", "is down", "configuration reloaded", "is drained"] {
        assert!(done.out.contains(event), "{event}: {}", done.out);
    }
}

#[tokio::test]
async fn the_mcp_demo_plays_by_itself_and_loses_no_session() {
    let done = tidegate(&["demo", "--mcp", "--seconds", "8"]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.out, done.err);
    assert!(done.out.contains(" 0 failed;") && done.out.contains("began again elsewhere"), "{}", done.out);
}

#[tokio::test]
async fn the_program_ends_in_order_at_sigterm_and_tells_systemd() {
    use std::os::unix::net::UnixDatagram;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let notified = UnixDatagram::bind(&path).unwrap();
    let text = "[listener.web]\nbind = \"127.0.0.1:0\"\n[[route]]\nrespond = 204\n";
    let proxy = proxy(text).spawn_with(|command| _ = command.env("NOTIFY_SOCKET", &path)).await;
    let mut message = [0; 256];
    notified.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = notified.recv(&mut message).unwrap();
    assert!(String::from_utf8_lossy(&message[..length]).contains("READY=1"));
    let web = proxy.address_of("web").await;
    assert_eq!(client(web).get("/").await.status, 204);
    proxy.stop().await;
    assert!(client(web).get("/").attempt().await.is_err());
}

#[tokio::test]
async fn the_configurations_that_come_with_it_are_good() {
    for file in ["demo", "demo-mcp", "mcp", "compose", "tidegate"] {
        let path = format!("{}/conf/{file}.toml", env!("CARGO_MANIFEST_DIR"));
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidegate"));
        let output = command
            .args(["check", &path])
            .env("TIDEGATE_TOKEN", "sixteen-letters!")
            .env("TIDEGATE_MCP_KEY", "0123456789abcdef0123456789abcdef")
            .output()
            .await
            .unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && err.is_empty(), "{file}: {out}{err}");
    }
}
