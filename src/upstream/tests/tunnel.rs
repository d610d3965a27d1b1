//! Connections that stop being HTTP.

use tokio::io::{DuplexStream, duplex};

use super::*;

/// What a client of a tunnel sees, and the tunnel's end with its counts.
fn tunnelled(
    side: &Side,
    upgraded: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
    idle: Option<Duration>,
) -> (DuplexStream, tokio::task::JoinHandle<(TunnelEnd, u64, u64)>) {
    let (client, near) = duplex(64);
    let sweep = side.sweep.clone();
    let running = tokio::task::spawn_local(async move {
        let traffic = Traffic::default();
        let end = tunnel(near, upgraded, &sweep, idle, &traffic).await;
        (end, traffic.up.get(), traffic.down.get())
    });
    (client, running)
}

fn websocket() -> Ask {
    Ask { upgrade: true, ..get("/chat").with("connection", "upgrade").with("upgrade", "websocket") }
}

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

#[tokio::test(flavor = "local")]
async fn a_switched_connection_carries_bytes_both_ways_and_loses_none() {
    let target = upstream(|mut stream, _| async move {
        let asked = head(&mut stream).await.unwrap();
        assert!(asked.contains("upgrade: websocket\r\n") && asked.contains("connection: upgrade\r\n"), "{asked}");
        stream.write_all(format!("{SWITCH}early").as_bytes()).await.unwrap();
        let said = until(&mut stream, "?").await.unwrap();
        stream.write_all(format!("{said}!").as_bytes()).await.unwrap();
    })
    .await;
    let side = side();
    let answer = websocket().over(&side, &target).await.unwrap();
    assert_eq!(answer.response.status(), 101);
    assert_eq!(answer.response.headers()["upgrade"], "websocket");
    let (mut client, end) = tunnelled(&side, answer.upgraded.unwrap(), None);
    client.write_all(b"how are you?").await.unwrap();
    client.shutdown().await.unwrap();
    let mut heard = String::new();
    client.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "earlyhow are you?!");
    assert!(matches!(end.await.unwrap(), (TunnelEnd::Closed, 12, 18)));
    assert!(side.connections.is_empty());
}

#[tokio::test(flavor = "local")]
async fn an_upgrade_may_be_declined() {
    let side = side();
    let target = answering(OK).await;
    let answer = websocket().over(&side, &target).await.unwrap();
    assert!(answer.upgraded.is_none());
    assert_eq!(outcome(Ok(answer)).await, ok());
    assert_eq!(side.connections.len(), 1);
    assert_eq!(outcome(get("/").over(&side, &target).await).await, ok());
}

#[tokio::test(flavor = "local")]
async fn an_upgrade_works_on_a_connection_used_before() {
    let target = upstream(|mut stream, _| async move {
        while let Some(head) = head(&mut stream).await {
            let switch = head.contains("upgrade");
            stream.write_all(if switch { SWITCH } else { OK }.as_bytes()).await.unwrap();
            if switch {
                stream.write_all(b"hello").await.unwrap();
                return;
            }
        }
    })
    .await;
    let side = side();
    assert_eq!(outcome(get("/").over(&side, &target).await).await, ok());
    let answer = websocket().over(&side, &target).await.unwrap();
    let mut heard = String::new();
    answer.upgraded.unwrap().read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "hello");
}

#[tokio::test(flavor = "local")]
async fn either_side_may_end_first_and_still_hears_the_rest() {
    let side = side();
    for client_first in [true, false] {
        let (far, mut upstream) = duplex(64);
        let (mut client, end) = tunnelled(&side, far, None);
        let (first, second) = if client_first { (&mut client, &mut upstream) } else { (&mut upstream, &mut client) };
        first.write_all(b"last words").await.unwrap();
        first.shutdown().await.unwrap();
        let mut heard = String::new();
        second.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "last words");
        second.write_all(b"farewell").await.unwrap();
        second.shutdown().await.unwrap();
        let mut heard = String::new();
        first.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "farewell");
        let (end, up, down) = end.await.unwrap();
        assert!(matches!(end, TunnelEnd::Closed));
        assert_eq!((up, down), if client_first { (10, 8) } else { (8, 10) });
    }
}

#[tokio::test(flavor = "local")]
async fn a_slow_reader_stops_the_writer_and_gets_everything() {
    let side = side();
    let (far, mut upstream) = duplex(1 << 20);
    let (mut client, _end) = tunnelled(&side, far, None);
    let text: Vec<u8> = (0..4u32 << 20).map(|number| (number % 251) as u8).collect();
    let sent = text.clone();
    let writing = tokio::task::spawn_local(async move {
        upstream.write_all(&sent).await.unwrap();
        upstream
    });
    settle().await;
    assert!(!writing.is_finished(), "the writer must wait for the reader");
    let mut heard = vec![0; text.len()];
    client.read_exact(&mut heard).await.unwrap();
    assert!(heard == text);
    drop(writing.await.unwrap());
}

#[tokio::test(flavor = "local")]
async fn silence_ends_a_tunnel_and_words_keep_it() {
    let side = side();
    let (far, mut upstream) = duplex(64);
    let (mut client, end) = tunnelled(&side, far, Some(Duration::from_millis(200)));
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(120)).await;
        client.write_all(b".").await.unwrap();
        upstream.read_u8().await.unwrap();
    }
    let (end, up, _) = end.await.unwrap();
    assert!(matches!(end, TunnelEnd::Idle));
    assert_eq!(up, 4);
}

#[tokio::test(flavor = "local")]
async fn a_broken_side_ends_a_tunnel_and_is_named() {
    let side = side();
    let (far, upstream) = duplex(64);
    let (mut client, end) = tunnelled(&side, far, None);
    drop(upstream);
    settle().await;
    client.write_all(b"anybody there?").await.unwrap();
    assert!(matches!(end.await.unwrap(), (TunnelEnd::UpstreamBroke(_), 0, 0)));
}
