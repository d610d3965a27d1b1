use super::*;
use futures_util::FutureExt;

#[tokio::test(flavor = "local")]
async fn idle_connections_end_at_once_and_busy_ones_behind_their_answer() {
    let site = site(&plain());
    let mut idle = site.connect().await;
    idle.write_all(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    read_until(&mut idle, "hello /a").await;
    let mut busy = site.connect().await;
    busy.write_all(b"GET /sleep/600 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut streaming = site.connect().await;
    streaming.write_all(b"GET /drip/10 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    read_until(&mut streaming, "xxxxxxxxxx").await;

    let began = std::time::Instant::now();
    site.drain(Duration::from_secs(5));
    assert_eq!(read_all(&mut idle).await, "");
    // Long before the drain's end, or its own.
    assert!(began.elapsed() < Duration::from_secs(4));
    let all = read_all(&mut streaming).await;
    assert!(all.ends_with("\r\n0\r\n\r\n"), "{all}");
    let all = read_all(&mut busy).await;
    assert!(all.contains("connection: close") && all.ends_with("slept"), "{all}");
    site.door.emptied().await;
    site.closed(&[Closed::Drained, Closed::Drained, Closed::Drained]).await;
    assert!(TcpStream::connect(site.address).await.is_err());
}

#[tokio::test(flavor = "local")]
async fn who_has_connected_before_the_door_closes_is_served() {
    let site = site(&settings());
    // Nothing has run since these connected: they are in the kernel's queue.
    let clients: Vec<_> = (0..20).map(|_| std::net::TcpStream::connect(site.address).unwrap()).collect();
    site.drain(Duration::from_secs(5));
    for client in clients {
        client.set_nonblocking(true).unwrap();
        let mut client = TcpStream::from_std(client).unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        client.write_all(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert!(read_all(&mut client).await.ends_with("hello /a"));
    }
    site.door.emptied().await;
}

#[tokio::test(flavor = "local")]
async fn a_head_that_is_half_in_is_still_answered() {
    let site = site(&plain());
    let mut stream = site.connect().await;
    stream.write_all(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\nGET /b HTT").await.unwrap();
    read_until(&mut stream, "hello /a").await;
    site.drain(Duration::from_secs(5));
    tokio::time::sleep(Duration::from_millis(400)).await;
    stream.write_all(b"P/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let all = read_all(&mut stream).await;
    assert!(all.contains("connection: close") && all.ends_with("hello /b"), "{all}");
    site.door.emptied().await;
}

#[tokio::test(flavor = "local")]
async fn streams_and_tunnels_are_cut_at_the_deadline() {
    let site = site(&settings());
    let mut stream = site.connect().await;
    stream.write_all(b"GET /drip/1000 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut tunnel = site.connect().await;
    tunnel
        .write_all(b"GET /tunnel HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nearly")
        .await
        .unwrap();
    read_until(&mut tunnel, "early").await;
    site.drain(Duration::from_millis(500));
    assert!(site.door.emptied().now_or_never().is_none());
    tunnel.write_all(b"still").await.unwrap();
    assert_eq!(read_until(&mut tunnel, "still").await, "still");
    let all = read_all(&mut stream).await;
    assert!(!all.ends_with("\r\n0\r\n\r\n"), "{all}");
    assert_eq!(read_all(&mut tunnel).await, "");
    site.door.emptied().await;
    site.closed(&[Closed::Drained, Closed::Drained]).await;
    assert_eq!(site.seats.taken(), 0);
}

#[tokio::test(flavor = "local")]
async fn a_closed_door_leaves_its_connections_alone() {
    let site = site(&plain());
    let mut stream = site.connect().await;
    stream.write_all(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    read_until(&mut stream, "hello /a").await;
    site.door.close();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(TcpStream::connect(site.address).await.is_err());
    stream.write_all(b"GET /b HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    read_until(&mut stream, "hello /b").await;
    assert!(site.door.emptied().now_or_never().is_none());
    drop(stream);
    site.door.emptied().await;
}
