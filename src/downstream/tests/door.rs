use super::*;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;

#[tokio::test(flavor = "local")]
async fn past_max_connections_the_rest_waits_in_the_queue() {
    let mut settings = settings();
    (settings.max_connections, settings.keepalive_timeout) = (2, Duration::from_secs(30));
    let site = site(&settings);
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = site.connect().await;
        stream.write_all(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        open.push(stream);
    }
    read_until(&mut open[0], "hello /a").await;
    read_until(&mut open[1], "hello /a").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((site.door.connections(), site.seats.taken()), (2, 2));
    drop(open.remove(0));
    read_until(&mut open[1], "hello /a").await;
    // A raised bound is seen as well.
    let mut fourth = site.connect().await;
    fourth.write_all(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    settings.max_connections = 3;
    *site.app.terms.borrow_mut() = Arc::new(Terms::new(7, "web", &settings, None));
    read_until(&mut fourth, "hello /a").await;
}

#[tokio::test(flavor = "local")]
async fn a_client_with_too_many_connections_is_turned_away() {
    let site = site(&settings());
    site.app.room.set(1);
    let mut first = site.connect().await;
    first.write_all(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    read_until(&mut first, "hello /a").await;
    assert_eq!(read_all(&mut site.connect().await).await, "");
    site.closed(&[Closed::Limit]).await;
    drop(first);
    site.closed(&[Closed::Limit, Closed::Client]).await;
    let all = site.exchange("GET /a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(all.ends_with("hello /a"));
}

#[tokio::test(flavor = "local")]
async fn accepted_sockets_have_what_the_listening_one_was_given() {
    let bound = bind(&"127.0.0.1:0".parse().unwrap(), 1, &Inherited::default()).unwrap();
    let (Bind::Tcp(address), Socket::Tcp(listener)) = (bound.address, &bound.sockets[0]) else { panic!() };
    let _client = std::net::TcpStream::connect(address).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    assert!(accepted.nodelay().unwrap());
    assert!(socket2::SockRef::from(&accepted).keepalive().unwrap());
}

#[test]
fn workers_share_a_port_and_nobody_else_does() {
    let bound = bind(&"127.0.0.1:0".parse().unwrap(), 3, &Inherited::default()).unwrap();
    assert_eq!(bound.sockets.len(), 3);
    let Bind::Tcp(address) = bound.address else { panic!() };
    for socket in &bound.sockets {
        let Socket::Tcp(listener) = socket else { panic!() };
        assert_eq!(listener.local_addr().unwrap(), address);
    }
    let error = bind(&Bind::Tcp(address), 3, &Inherited::default()).unwrap_err().to_string();
    assert!(error.contains(&format!("cannot listen on {address}")), "{error}");
    assert!(error.contains(&format!("'sport = :{}'", address.port())), "{error}");
    drop(bound);
    bind(&Bind::Tcp(address), 1, &Inherited::default()).unwrap();
}

#[test]
fn a_wildcard_takes_both_families() {
    let bound = bind(&"[::]:0".parse().unwrap(), 2, &Inherited::default()).unwrap();
    let Bind::Tcp(address) = bound.address else { panic!() };
    std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, address.port())).unwrap();
}

#[test]
fn what_cannot_be_bound_says_why() {
    let error = bind(&"192.0.2.1:80".parse().unwrap(), 1, &Inherited::default()).unwrap_err().to_string();
    assert!(error.ends_with("no interface of this machine has that address"), "{error}");
    let error = bind(&"unix:/nowhere/at/all.sock".parse().unwrap(), 1, &Inherited::default()).unwrap_err().to_string();
    assert!(error.ends_with("its directory does not exist"), "{error}");
}

#[test]
fn a_unix_socket_replaces_a_dead_ones_file_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.sock");
    let address = Bind::Unix(path.clone());
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let bound = bind(&address, 2, &Inherited::default()).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(bound.sockets.len(), 2);
    let error = bind(&address, 1, &Inherited::default()).unwrap_err().to_string();
    assert!(error.ends_with("another process listens there"), "{error}");
    // The file is somebody else's by now.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    drop(bound);
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    let error = bind(&address, 1, &Inherited::default()).unwrap_err().to_string();
    assert!(error.ends_with("a file of that name exists and is no socket"), "{error}");
    std::fs::remove_file(&path).unwrap();
    drop(bind(&address, 1, &Inherited::default()).unwrap());
    assert!(!path.exists());
}

#[test]
fn an_address_can_go_from_one_listener_of_ours_to_another_without_a_gap() {
    let none = Inherited::default();
    let first = bind(&"127.0.0.1:0".parse().unwrap(), 2, &none).unwrap();
    let second = rebind(&first.address, 2, &none).unwrap();
    assert_eq!(second.address, first.address);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.sock");
    let first = bind(&Bind::Unix(path.clone()), 2, &none).unwrap();
    let second = rebind(&first.address, 2, &none).unwrap();
    drop(first);
    let _client = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let Socket::Unix(listener) = &second.sockets[0] else { panic!() };
    listener.accept().unwrap();
    drop(second);
    assert!(!path.exists());
}

#[test]
fn handed_over_sockets_are_used_for_their_address_again_and_again() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Bind::Tcp(listener.local_addr().unwrap());
    let inherited = Inherited::of([Socket::Tcp(listener)]).unwrap();
    for _ in 0..2 {
        let bound = bind(&address, 2, &inherited).unwrap();
        assert_eq!((bound.sockets.len(), &bound.address), (2, &address));
    }
    assert!(bind(&"127.0.0.1:0".parse().unwrap(), 1, &inherited).unwrap().address != address);

    let any = std::net::TcpListener::bind("[::]:0").unwrap();
    let port = any.local_addr().unwrap().port();
    let inherited = Inherited::of([Socket::Tcp(any)]).unwrap();
    let bound = bind(&format!("0.0.0.0:{port}").parse().unwrap(), 1, &inherited).unwrap();
    assert_eq!(bound.address, format!("[::]:{port}").parse().unwrap());
}

#[tokio::test(flavor = "local")]
async fn unix_sockets_serve_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.sock");
    let mut settings = settings();
    settings.bind = vec![Bind::Unix(path.clone())];
    let site = site(&settings);
    let all = tokio::task::spawn_blocking(move || {
        let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
        stream.write_all(b"GET /facts HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        all
    });
    assert!(all.await.unwrap().ends_with("7 http 127.0.0.1  false "));
    site.drain(Duration::from_secs(1));
    site.door.emptied().await;
}

#[tokio::test(flavor = "local")]
async fn noise_harms_nobody_else() {
    let mut settings = settings();
    settings.proxy_protocol = crate::config::model::ProxyProtocol::Accept;
    let site = site(&settings);
    let mut random = fastrand::Rng::with_seed(7);
    let starts: [&[u8]; 6] = [
        b"",
        b"GET ",
        b"POST / HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PROXY TCP4 ",
        b"\r\n\r\n\0\r\nQUIT\n",
    ];
    for round in 0..120 {
        let mut bytes = starts[round % starts.len()].to_vec();
        let count = random.usize(..400);
        bytes.extend(std::iter::repeat_with(|| random.u8(..)).take(count));
        let mut stream = site.connect().await;
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        read_all(&mut stream).await;
    }
    let all = site.exchange("GET /a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(all.ends_with("hello /a"), "{all}");
    assert!(!site.heard().iter().any(|text| text.starts_with("panic")));
    for _ in 0..100 {
        if site.door.connections() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((site.door.connections(), site.app.room.get()), (0, u32::MAX));
}

#[tokio::test(flavor = "local")]
async fn a_socket_that_closes_takes_who_has_connected_and_lets_nobody_else_begin() {
    let site = site(&settings());
    let mut early = std::net::TcpStream::connect(site.address).unwrap();
    early.write_all(b"GET /a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    site.door.close();
    // The loop learns of it. What follows keeps its thread, so that it gets no further.
    tokio::task::yield_now().await;
    let late = std::net::TcpStream::connect_timeout(&site.address, Duration::from_millis(30));
    assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut, "neither taken nor reset");
    site.door.emptied().await;
    let mut all = String::new();
    early.read_to_string(&mut all).unwrap();
    assert!(all.ends_with("hello /a"), "{all}");
    let gone = std::net::TcpStream::connect(site.address);
    assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

/// Clients that connect all the time, each for one request, until `stop`; gives what went wrong, and the longest wait.
fn callers(
    address: SocketAddr,
    stop: &Arc<std::sync::atomic::AtomicBool>,
) -> Vec<std::thread::JoinHandle<Vec<String>>> {
    let call = move || {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.write_all(b"GET /a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
        let mut all = String::new();
        stream.read_to_string(&mut all)?;
        if all.ends_with("hello /a") { Ok(()) } else { Err(io::Error::other(all)) }
    };
    let run = move |stop: Arc<std::sync::atomic::AtomicBool>| {
        let mut failed = Vec::new();
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            failed.extend(call().err().map(|error| error.to_string()));
        }
        failed
    };
    (0..4).map(|_| (stop.clone(), run)).map(|(stop, run)| std::thread::spawn(move || run(stop))).collect()
}

#[tokio::test(flavor = "local")]
async fn nobody_is_reset_when_another_socket_takes_over_the_port_or_another_listener_the_socket() {
    let mut settings = settings();
    settings.bind = vec!["0.0.0.0:0".parse().unwrap()];
    let wide = site(&settings);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, wide.address.port()));
    let stop = Arc::default();
    let callers = callers(address, &stop);
    let sweep = Sweep::new();
    spawn_local(sweep.clone().run());
    for _ in 0..12 {
        let bound = rebind(&Bind::Tcp(address), 1, &Inherited::default()).unwrap();
        let socket = bound.sockets.into_iter().next().unwrap();
        let narrow =
            Door::open(socket, Share::among(1).remove(0), wide.app.clone(), wide.seats.clone(), sweep.clone()).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let heir = narrow.hand_over(wide.app.clone(), wide.seats.clone());
        narrow.emptied().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        heir.close();
        heir.emptied().await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    // They may wait for an answer of ours.
    let ended = async || callers.iter().all(|caller| caller.is_finished());
    while !ended().await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for caller in callers {
        assert_eq!(caller.join().unwrap(), Vec::<String>::new());
    }
}
