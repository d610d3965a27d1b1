//! Questions to upstreams about their health.

use super::*;
use crate::config::model::{CheckKind, HealthCheck, Protocol, StatusSet};

fn check() -> HealthCheck {
    HealthCheck { path: "/health?deep=1".to_owned(), ..HealthCheck::default() }
}

async fn verdict(target: &Target, check: HealthCheck) -> Result<(), String> {
    probe(target, &Probe::new(&check).unwrap()).await.map_err(|failure| failure.to_string())
}

fn failure(words: &str) -> Result<(), String> {
    Err(words.to_owned())
}

#[tokio::test(flavor = "local")]
async fn a_question_is_asked_as_configured_and_once_per_connection() {
    let (told, mut asked) = mpsc::unbounded_channel();
    let target = upstream(move |mut stream, _| {
        let told = told.clone();
        async move {
            told.send(head(&mut stream).await.unwrap()).unwrap();
            stream.write_all(OK.as_bytes()).await.unwrap();
            assert!(stream.read_u8().await.is_err(), "closed afterwards");
        }
    })
    .await;
    assert_eq!(verdict(&target, check()).await, Ok(()));
    let host = address(&target);
    let expected = format!(
        "GET /health?deep=1 HTTP/1.1\r\nuser-agent: tidegate-health-check\r\nhost: localhost:{}\r\nconnection: close\r\n\r\n",
        host.port()
    );
    assert_eq!(asked.recv().await.unwrap(), expected);
    let headers = [("x-probe".to_owned(), "1".to_owned())].into();
    let own = HealthCheck { method: "HEAD".to_owned(), host: Some("shop.test".to_owned()), headers, ..check() };
    assert_eq!(verdict(&target, own).await, Ok(()));
    let asked = asked.recv().await.unwrap();
    assert!(asked.starts_with("HEAD /") && asked.contains("x-probe: 1\r\n") && asked.contains("host: shop.test\r\n"));
}

#[tokio::test(flavor = "local")]
async fn failures_are_told_in_plain_words() {
    let quick = HealthCheck { timeout: Duration::from_millis(100), ..check() };
    let failing = answering("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(verdict(&failing, check()).await, failure("503 instead of 200-399"));
    let tolerant = HealthCheck { expect: StatusSet(vec![(200, 200), (503, 503)]), ..check() };
    assert_eq!(verdict(&failing, tolerant).await, Ok(()));

    let silent = upstream(|mut stream, _| async move { while head(&mut stream).await.is_some() {} }).await;
    assert_eq!(verdict(&silent, quick).await, failure("no answer within 100ms"));
    let tcp = HealthCheck { kind: CheckKind::Tcp, ..check() };
    assert_eq!(verdict(&silent, tcp.clone()).await, Ok(()));

    let closing = answering_once("").await;
    assert_eq!(verdict(&closing, check()).await, failure("connection closed before the answer"));
    let talking = answering("SSH-2.0-OpenSSH_9.6\r\n\r\n").await;
    assert_eq!(verdict(&talking, check()).await, failure("bad response: not readable as HTTP"));

    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(verdict(&target(free, Pool::default()), tcp).await, failure("connection refused"));
    let elsewhere = HealthCheck { port: Some(free.port()), ..check() };
    assert_eq!(verdict(&*answering(OK).await, elsewhere).await, failure("connection refused"));
}

#[tokio::test(flavor = "local")]
async fn a_body_may_have_to_hold_a_text() {
    let holding = |text: &str| HealthCheck { contains: Some(text.to_owned()), ..check() };
    let target =
        answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nall\r\n5\r\n well\r\n0\r\n\r\n").await;
    assert_eq!(verdict(&target, holding("all well")).await, Ok(()));
    assert_eq!(verdict(&target, holding("all ill")).await, failure("the body does not hold \"all ill\""));

    let endless = upstream(|mut stream, _| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    })
    .await;
    assert_eq!(verdict(&endless, holding("y")).await, failure("the body does not hold \"y\""));
}

#[tokio::test(flavor = "local")]
async fn http2_and_unix_sockets_are_asked_too() {
    let plain = upstream(|stream, _| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut answer))) = connection.accept().await {
            assert_eq!(request.uri().path(), "/health");
            assert_eq!(request.uri().authority().unwrap(), "shop.test");
            let mut stream = answer.send_response(http::Response::new(()), false).unwrap();
            stream.send_data("all well".into(), true).unwrap();
        }
    })
    .await;
    let target = target(address(&plain), Pool { protocol: Protocol::Http2, ..Pool::default() });
    let contains = Some("well".to_owned());
    let host = Some("shop.test".to_owned());
    assert_eq!(verdict(&target, HealthCheck { contains, host, path: "/health".to_owned(), ..check() }).await, Ok(()));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::task::spawn_local(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        stream.write_all(OK.as_bytes()).await.unwrap();
    });
    let settings = Settings::of(&Pool::default(), None);
    let target = Target::new("pool", "unix", Place::Unix(path.as_path().into()), "localhost", &settings).unwrap();
    assert_eq!(verdict(&target, check()).await, Ok(()));
}

#[test]
fn a_check_that_cannot_be_made_names_its_key() {
    let key = |check: HealthCheck| Probe::new(&check).unwrap_err().key;
    assert_eq!(key(HealthCheck { path: "health".to_owned(), ..check() }), "path");
    assert_eq!(key(HealthCheck { method: "G T".to_owned(), ..check() }), "method");
    assert_eq!(key(HealthCheck { host: Some("a\nb".to_owned()), ..check() }), "host");
    assert_eq!(key(HealthCheck { headers: [("a b".to_owned(), String::new())].into(), ..check() }), "headers");
}

#[test]
fn a_probe_can_run_on_any_runtime() {
    fn sendable<T: Send>(_: T) {}
    let settings = Settings::of(&Pool::default(), None);
    let target = Target::new("a", "a", Place::Tcp(([127, 0, 0, 1], 1).into()), "localhost", &settings).unwrap();
    sendable(probe(&target, &Probe::new(&check()).unwrap()));
}
