//! Where connections come from and go to: Unix sockets, PROXY protocol.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::support::*;

const APP: &str = r#"
    [listener.web]
    bind = "127.0.0.1:0"
    EXTRA
    [pool.app]
    upstreams = ["{a}"]
    [[route]]
    pool = "app"
"#;

#[tokio::test]
async fn unix_sockets_serve_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let (front, back) = (folder.path().join("front.sock"), folder.path().join("back.sock"));
    let a = upstream().on_unix(&back).start().await;
    let text = APP.replace("bind = \"127.0.0.1:0\"", "bind = \"unix:{front}\"").replace("EXTRA", "");
    let proxy = proxy(&text).with("a", &a).with("front", front.as_path()).start().await;
    for client in [Client::over_unix(&front), Client::over_unix(&front).http2()] {
        let answer = client.get("/x").header("Host", "app.test").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.upstream_saw("host"), ["app.test"]);
        assert_eq!(client.get("/bytes/1MiB").await.body.len(), 1 << 20);
    }
    // An upgrade too.
    let mut tunnel = UnixStream::connect(&front).await.unwrap();
    tunnel.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n!").await.unwrap();
    let mut heard = Vec::new();
    while !heard.ends_with(b"!") {
        assert!(soon("the echo", tunnel.read_buf(&mut heard)).await.unwrap() > 0);
    }
    drop(tunnel);
    proxy.stop().await;
    assert!(!front.exists(), "the socket's file is gone with its listener");
}

#[tokio::test]
async fn a_socket_file_that_a_dead_process_left_is_replaced_and_a_live_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let front = folder.path().join("front.sock");
    drop(std::os::unix::net::UnixListener::bind(&front).unwrap());
    let text = "[listener.web]\nbind = \"unix:{front}\"\n[[route]]\nrespond = 204\n";
    let proxy = || proxy(text).with("front", front.as_path());
    let first = proxy().start().await;
    assert_eq!(Client::over_unix(&front).get("/").await.status, 204);
    let error = proxy().try_start().await.err().expect("the address is taken").to_string();
    assert!(error.contains("another process"), "{error}");
    assert_eq!(Client::over_unix(&front).get("/").await.status, 204);
    first.stop().await;
}

/// A version 2 header for a TCP4 connection from this address.
fn version_2(from: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x21, 0x11, 0, 12]);
    header.extend(from);
    header.extend(Ipv4Addr::LOCALHOST.octets());
    header.extend(4321u16.to_be_bytes());
    header.extend(80u16.to_be_bytes());
    header
}

#[tokio::test]
async fn the_proxy_protocol_tells_the_client_where_it_is_believed() {
    let a = upstream().start().await;
    let headers = [
        b"PROXY TCP4 203.0.113.7 127.0.0.1 4321 80\r\n".to_vec(),
        version_2([203, 0, 113, 7]),
        b"PROXY TCP6 ::ffff:203.0.113.7 ::1 4321 80\r\n".to_vec(),
    ];
    for (trusted, seen) in [("127.0.0.0/8", "203.0.113.7"), ("10.0.0.0/8", "127.0.0.1")] {
        let extra = format!("proxy_protocol = \"require\"\ntrusted_proxies = [\"{trusted}\"]");
        let proxy = proxy(&APP.replace("EXTRA", &extra)).with("a", &a).start().await;
        for header in &headers {
            let mut raw = raw_client(proxy.address("web")).await;
            raw.send(header).await.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let answer = raw.response().await;
            assert_eq!(answer.status, 200);
            let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            let lines = json["headers"].as_array().unwrap();
            let real = lines.iter().find(|line| line[0] == "x-real-ip").expect("upstreams are told");
            assert_eq!(real[1], seen, "{trusted}");
        }
        // HTTP/2 behind a header.
        let mut raw = raw_client(proxy.address("web")).await;
        raw.send(&headers[0]).await.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
        let settings = raw.read_until([0x04]).await;
        assert!(settings.len() >= 4);
        // Without a header there is no connection.
        let mut bare = raw_client(proxy.address("web")).await;
        bare.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.closed().await;
    }
}

#[tokio::test]
async fn a_header_is_optional_where_it_is_accepted() {
    let a = upstream().start().await;
    let extra = "proxy_protocol = \"accept\"\ntrusted_proxies = [\"127.0.0.0/8\"]";
    let proxy = proxy(&APP.replace("EXTRA", extra)).with("a", &a).start().await;
    assert_eq!(proxy.client().get("/").await.upstream_saw("x-real-ip"), ["127.0.0.1"]);
    let mut raw = raw_client(proxy.address("web")).await;
    // Piece by piece, as a network may cut it.
    for byte in b"PROXY TCP4 203.0.113.7 127.0.0.1 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n" {
        raw.send([*byte]).await;
    }
    assert!(raw.response().await.text().contains("203.0.113.7"));
}

#[tokio::test]
async fn a_header_comes_before_tls() {
    let authority = Authority::new();
    let own = authority.signs("app.test");
    let a = upstream().start().await;
    let extra = "proxy_protocol = \"require\"\ntrusted_proxies = [\"127.0.0.0/8\"]\ntls = { certificate = \"own.pem\", key = \"own.key\" }";
    let builder = proxy(&APP.replace("EXTRA", extra)).with("a", &a);
    let proxy = builder.file("own.pem", &own.certificate).file("own.key", &own.key).start().await;
    let mut stream = tokio::net::TcpStream::connect(proxy.address("web")).await.unwrap();
    stream.write_all(&version_2([203, 0, 113, 7])).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(authority.client(&[]));
    let name = rustls_pki_types::ServerName::try_from("app.test").unwrap();
    let mut stream = soon("a handshake", connector.connect(name, stream)).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    assert!(
        answer.contains("[\"x-real-ip\",\"203.0.113.7\"]") && answer.contains("[\"x-forwarded-proto\",\"https\"]"),
        "{answer}"
    );
}
