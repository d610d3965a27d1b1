//! The life of the process: starting, signals, reloads, draining, ending, and what systemd is told of it.

mod support;

use std::future::IntoFuture;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::process::Signal;
use support::*;

const APP: &str = r#"
    shutdown_timeout = "30s"
    [listener.web]
    bind = "127.0.0.1:0"
    [pool.app]
    upstreams = ["{a}"]
    [[route]]
    pool = "app"
"#;

/// Returns once nobody listens there any more.
async fn until_refused(address: SocketAddr) {
    until("new connections are refused", async || {
        let connected = tokio::net::TcpStream::connect(address).await;
        connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused).then_some(())
    })
    .await;
}

#[tokio::test]
async fn sigterm_lets_what_runs_finish_and_nothing_begin() {
    let a = upstream().slow(Duration::from_millis(1500)).start().await;
    let mut proxy = proxy(APP).with("a", &a).spawn().await;
    let web = proxy.address_of("web").await;
    a.becomes_slow(Duration::ZERO);
    let mut idle = raw_client(web).await;
    idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(idle.response().await.status, 200);
    let mut fresh = raw_client(web).await;
    fresh.send("GET / HT").await;
    a.becomes_slow(Duration::from_millis(1500));
    let mut busy = raw_client(web).await;
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("the request is at the upstream", || a.stats().in_flight() == 1).await;

    proxy.signal(Signal::TERM);
    until_refused(web).await;
    idle.closed().await;
    until("who asks for readiness is told", async || {
        let answer = proxy.admin().get("/readyz").attempt().await.ok()?;
        (answer.status == 503).then_some(())
    })
    .await;
    assert_eq!(a.stats().in_flight(), 1, "the others did not have to wait for the slow one");
    // What has begun to come is still answered.
    fresh.send("TP/1.1\r\nHost: a\r\n\r\n").await;
    for mut running in [busy, fresh] {
        let answer = running.response().await;
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
        running.closed().await;
    }
    assert!(proxy.ended().await.success());
    assert!(proxy.log().contains("stopped"), "{}", proxy.log());
}

#[tokio::test]
async fn sigterm_lets_an_upload_go_on_to_its_end() {
    let a = upstream().start().await;
    let mut proxy = proxy(APP).with("a", &a).spawn().await;
    let web = proxy.address_of("web").await;
    let mut uploads = Vec::new();
    for client in [client(web), client(web).http2()] {
        let (say, said) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
        let frames = futures_util::stream::unfold(said, |mut said| async {
            said.recv().await.map(|piece| (Ok(http_body::Frame::data(piece)), said))
        });
        say.send(Bytes::from("before, ")).unwrap();
        uploads.push((say, tokio::spawn(client.post("/upload", "").streaming(frames).into_future())));
    }
    eventually("both uploads are at the upstream", || a.stats().in_flight() == 2).await;
    proxy.signal(Signal::TERM);
    until_refused(web).await;
    for (say, answer) in uploads {
        say.send(Bytes::from("after")).unwrap();
        drop(say);
        assert_eq!(answer.await.unwrap().json()["bytes"], 13);
    }
    assert!(proxy.ended().await.success());
}

#[tokio::test]
async fn streams_are_cut_when_the_shutdown_timeout_is_over() {
    let a = upstream().start().await;
    let text = APP.replace("30s", "700ms");
    let mut proxy = proxy(&text).with("a", &a).spawn().await;
    let web = proxy.address_of("web").await;
    let mut events = raw_client(web).await;
    events.send("GET /sse?interval=20ms HTTP/1.1\r\nHost: a\r\n\r\n").await;
    events.read_until("id: 1").await;
    let mut tunnel = raw_client(web).await;
    tunnel.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").await;
    assert_eq!(tunnel.response().await.status, 101);
    let mut new = client(web).http2().get("/sse?interval=20ms").open().await;
    new.text().await;

    let told = Instant::now();
    proxy.signal(Signal::TERM);
    until_refused(web).await;
    tunnel.send("still here").await.read_until("still here").await;
    let (rest, _) = events.rest().await;
    assert!(told.elapsed() >= Duration::from_millis(600), "cut after {:?}", told.elapsed());
    assert!(!rest.ends_with(b"0\r\n\r\n"), "what was cut must not look complete");
    tunnel.closed().await;
    let broken = loop {
        match new.next().await {
            Some(Ok(_)) => {}
            Some(Err(_)) => break true,
            None => break false,
        }
    };
    assert!(broken, "what was cut must not look complete");
    assert!(proxy.ended().await.success());
    assert!(told.elapsed() < Duration::from_secs(5), "ended after {:?}", told.elapsed());
}

#[tokio::test]
async fn a_second_sigterm_ends_it_at_once() {
    let a = upstream().start().await;
    let mut proxy = proxy(APP).with("a", &a).spawn().await;
    let web = proxy.address_of("web").await;
    let mut events = client(web).get("/sse?interval=20ms").open().await;
    events.text().await;
    let told = Instant::now();
    proxy.signal(Signal::TERM);
    until_refused(web).await;
    events.text().await;
    proxy.signal(Signal::INT);
    assert_eq!(proxy.ended().await.code(), Some(1));
    assert!(told.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn sigusr1_opens_the_access_log_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (log, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let text = "access_log = { target = \"{log}\", format = \"{path}\" }\n[listener.web]\nbind = \"127.0.0.1:0\"\n[[route]]\nrespond = 204\n";
    let mut proxy = proxy(text).with("log", log.as_path()).spawn().await;
    let http = client(proxy.address_of("web").await);
    let lines = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    http.get("/one").await;
    eventually("the line is written", || lines(&log) == "/one\n").await;
    std::fs::rename(&log, &moved).unwrap();
    http.get("/two").await;
    eventually("the moved file goes on", || lines(&moved) == "/one\n/two\n").await;
    proxy.signal(Signal::USR1);
    eventually("there is a new file", || log.exists()).await;
    http.get("/three").await;
    eventually("the line is in the new file", || lines(&log) == "/three\n").await;
    assert_eq!(lines(&moved), "/one\n/two\n");
    proxy.stop().await;
}

#[tokio::test]
async fn lines_of_the_last_requests_are_written_before_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let text = "access_log = { target = \"{log}\", format = \"{path}\" }\n[listener.web]\nbind = \"127.0.0.1:0\"\n[[route]]\nrespond = 204\n";
    let proxy = proxy(text).with("log", log.as_path()).spawn().await;
    let http = client(proxy.address_of("web").await);
    for number in 0..50 {
        http.get(&format!("/{number}")).await;
    }
    proxy.stop().await;
    assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 50);
}

#[tokio::test]
async fn sighup_has_the_file_read_again_and_a_bad_one_changes_nothing() {
    let text = "[listener.web]\nbind = \"127.0.0.1:0\"\n[[route]]\nrespond = { body = \"ANSWER\" }\n";
    let mut proxy = proxy(text).spawn().await;
    let web = proxy.address_of("web").await;
    proxy.signal(Signal::HUP);
    until("the reload is told of", async || (proxy.status().await.last_reload.cause == "signal").then_some(())).await;
    proxy.save(&text.replace("ANSWER", "other"));
    until("the other answer is given", async || (client(web).get("/").await.text() == "other").then_some(())).await;
    proxy.save(&text.replace("respond", "rspond"));
    until("the bad file is refused", async || (!proxy.status().await.last_reload.accepted).then_some(())).await;
    proxy.signal(Signal::HUP);
    until("it is refused again", async || (proxy.status().await.reloads_refused >= 2).then_some(())).await;
    assert_eq!(client(web).get("/").await.text(), "other");
    assert!(proxy.log().contains("respond"), "{}", proxy.log());
    assert_eq!(proxy.metric("tidegate_last_reload_successful").await, Some(0.0));
}

#[tokio::test]
async fn systemd_is_told_of_readiness_reloads_and_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let notified = UnixDatagram::bind(&path).unwrap();
    notified.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = || {
        let mut message = [0; 512];
        let length = notified.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let text = "[listener.web]\nbind = \"127.0.0.1:0\"\n[[route]]\nrespond = 204\n";
    let mut proxy = proxy(text).spawn_with(|command| _ = command.env("NOTIFY_SOCKET", &path)).await;
    assert!(heard().lines().any(|line| line == "READY=1"));
    proxy.signal(Signal::HUP);
    let reloading = heard();
    assert!(reloading.lines().any(|line| line == "RELOADING=1"), "{reloading}");
    // Without it systemd's `Type=notify-reload` does not believe it.
    assert!(reloading.lines().any(|line| line.starts_with("MONOTONIC_USEC=")), "{reloading}");
    assert!(heard().lines().any(|line| line == "READY=1"));
    proxy.signal(Signal::TERM);
    let stopping = heard();
    assert!(stopping.lines().any(|line| line == "STOPPING=1"), "{stopping}");
    assert!(proxy.ended().await.success());
}

/// What systemd itself thinks of the unit that comes with us: 0 is closed, 10 is open; below 2 it is "OK".
#[test]
fn the_service_is_hardened() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/tidegate.service");
    let mut command = std::process::Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--no-pager", "--threshold=20", unit]);
    match command.output() {
        Ok(output) => {
            let told = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && told.contains("Overall exposure level"), "{told}{output:?}");
        }
        Err(error) => {
            eprintln!("SKIPPED: systemd-analyze is not there: {error}");
            assert!(std::env::var_os("TIDEGATE_TEST_ALL").is_none_or(|all| all != "1"), "{error}");
        }
    }
}

/// Hands a listening socket over as systemd does: as descriptor 3, named by the environment.
fn hand_over(command: &mut Command, listener: &TcpListener) {
    let program = command.get_program().to_owned();
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let script = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\"";
    *command = Command::new("sh");
    command.args(["-c", script]).arg(program).args(arguments);
    command.stdin(Stdio::from(OwnedFd::from(listener.try_clone().unwrap())));
}

#[tokio::test]
async fn who_connects_before_the_start_to_a_handed_over_socket_is_served() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut early = raw_client(address).await;
    early.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let text = "[listener.web]\nbind = \"{web}\"\n[[route]]\nrespond = { body = \"hello\" }\n";
    let proxy = proxy(text).with("web", &address).spawn_with(|command| hand_over(command, &listener)).await;
    assert_eq!(early.response().await.text(), "hello");
    proxy.stop().await;
}

#[tokio::test]
async fn a_restart_behind_a_handed_over_socket_refuses_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let text = "[listener.web]\nbind = \"{web}\"\n[[route]]\nrespond = { body = \"hello\" }\n";
    let start = async || proxy(text).with("web", &address).spawn_with(|command| hand_over(command, &listener)).await;
    let mut running = start().await;
    let load = tokio::spawn(async move {
        let mut answered = 0;
        loop {
            let answer = client(address).get("/").header("Connection", "close").attempt().await;
            assert_eq!(answer.expect("nobody is refused or cut").status, 200);
            answered += 1;
            if answered % 5 == 0 {
                tokio::task::yield_now().await;
            }
        }
    });
    for _ in 0..3 {
        running.stop().await;
        running = start().await;
        assert!(!load.is_finished());
    }
    assert_eq!(client(address).get("/").await.status, 200);
    load.abort();
    assert!(load.await.unwrap_err().is_cancelled(), "every request was answered");
    running.stop().await;
}

#[tokio::test]
async fn a_kill_behind_a_handed_over_socket_refuses_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let text = "[listener.web]\nbind = \"{web}\"\n[[route]]\nrespond = { body = \"hello\" }\n";
    let start = async || proxy(text).with("web", &address).spawn_with(|command| hand_over(command, &listener)).await;
    let mut running = start().await;
    for _ in 0..3 {
        let mut before = raw_client(address).await;
        before.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(before.response().await.text(), "hello");
        running.signal(Signal::KILL);
        running.ended().await;
        before.closed().await;
        // Nobody is there; who comes now waits in the socket that outlives us.
        let mut meanwhile = Vec::new();
        for _ in 0..20 {
            let mut client = raw_client(address).await;
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            meanwhile.push(client);
        }
        running = start().await;
        for client in &mut meanwhile {
            assert_eq!(client.response().await.text(), "hello");
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn a_second_process_on_the_same_port_does_not_start() {
    let text = "[listener.web]\nbind = \"{web}\"\n[[route]]\nrespond = 204\n";
    let first = proxy("[listener.web]\nbind = \"127.0.0.1:0\"\n[[route]]\nrespond = 204\n").spawn().await;
    let web = first.address_of("web").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.toml");
    std::fs::write(&file, format!("admin = {{ bind = \"off\" }}\n{}", text.replace("{web}", &web.to_string())))
        .unwrap();
    let second = tidegate(&["run", &file.display().to_string()]).await;
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.err.contains("another process"), "{}", second.err);
    assert_eq!(client(web).get("/").await.status, 204);
    first.stop().await;
}

#[tokio::test]
async fn check_tells_everything_that_is_wrong_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.toml");
    let path = file.display().to_string();
    std::fs::write(&file, "[listener.web]\nbind = \"127.0.0.1:0\"\n[[route]]\npool = \"app\"\nprity = 1\n").unwrap();
    let checked = tidegate(&["check", &path]).await;
    assert_eq!(checked.code, Some(78), "{checked:?}");
    for words in ["t.toml:4:8", "app", "t.toml:5:1", "priority"] {
        assert!(checked.err.contains(words), "{words}: {}", checked.err);
    }
    let run = tidegate(&["run", &path]).await;
    assert_eq!((run.code, run.err), (Some(78), checked.err));
    std::fs::write(&file, "[listener.web]\nbind = \"127.0.0.1:0\"\n[[route]]\nrespond = 204\n").unwrap();
    assert_eq!(tidegate(&["check", &path]).await.code, Some(0));
}

#[tokio::test]
async fn the_admin_api_is_for_this_machine_and_no_web_page() {
    let text = "admin = { bind = \"0.0.0.0:0\" }\n[listener.web]\nbind = \"127.0.0.1:0\"\n[[route]]\nrespond = 204\n";
    let error = proxy(text).try_start().await.err().expect("it does not start");
    let tidegate::control::StartError::Config(problems) = error else { panic!("{error}") };
    let told = tidegate::config::render(&problems, false);
    assert!(told.contains("token"), "{told}");

    let proxy = proxy(&text.replace("0.0.0.0", "127.0.0.1")).start().await;
    let Some(tidegate::types::Bind::Tcp(admin)) = proxy.running().admin_address().cloned() else { panic!("no admin") };
    for (method, headers, status) in [
        ("GET", format!("Host: {admin}"), 200),
        ("GET", format!("Host: localhost:{}", admin.port()), 200),
        ("GET", "Host: evil.example".to_owned(), 403),
        ("POST", format!("Host: {admin}\r\nContent-Length: 0"), 200),
        ("POST", format!("Host: {admin}\r\nOrigin: http://evil.example\r\nContent-Length: 0"), 403),
        ("POST", format!("Host: {admin}\r\nSec-Fetch-Site: cross-site\r\nContent-Length: 0"), 403),
    ] {
        let target = if method == "GET" { "/status" } else { "/reload" };
        let mut raw = raw_client(admin).await;
        raw.send(format!("{method} {target} HTTP/1.1\r\n{headers}\r\n\r\n")).await;
        assert_eq!(raw.response().await.status, status, "{method} {headers}");
    }
    let token = "admin = { bind = \"0.0.0.0:0\", token = \"sixteen-letters!\" }";
    let open = crate::proxy(&text.replace("admin = { bind = \"0.0.0.0:0\" }", token)).start().await;
    assert_eq!(open.admin().get("/status").attempt().await.unwrap().status, 401);
    let call = open.admin().get("/status").header("Authorization", "Bearer sixteen-letters!");
    assert_eq!(call.await.status, 200);
    let config = open.admin().get("/config").header("Authorization", "Bearer sixteen-letters!").await.text();
    assert!(!config.contains("sixteen-letters"), "{config}");
}
