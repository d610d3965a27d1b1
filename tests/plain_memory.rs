//! What plain connections cost: one that does nothing has no buffer and no room for an answer. A process of its own, as it counts what
//! its allocator gives out.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tidegate::config::model::ProxyProtocol;
use tidegate::downstream::{Application, ClientBody, Connection, Door, HeadLimits, Inherited, Objection};
use tidegate::downstream::{Seats, Share, Terms, bind};
use tidegate::sweep::Sweep;
use tidegate::types::Bind;

struct Counting;

thread_local! {
    static HELD: Cell<i64> = const { Cell::new(0) };
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes on to the system's allocator as it came; counting touches nothing but a thread local without
// a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.set(HELD.get() + layout.size() as i64);
        TAKEN.set(TAKEN.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.set(HELD.get() - layout.size() as i64);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Hello(Arc<Terms>);

impl Application for Hello {
    type Body = Full<Bytes>;
    type State = ();

    fn terms(&self) -> Arc<Terms> {
        self.0.clone()
    }

    fn admit(&self, _: &Terms, _: IpAddr) -> Option<()> {
        Some(())
    }

    async fn answer(self: Rc<Self>, _: Rc<Connection>, _: Request<ClientBody>) -> Response<Self::Body> {
        // As large as a real answer in the making.
        let room = [0u8; 4000];
        tokio::task::yield_now().await;
        let mut response = Response::new(Full::from(if room[3999] == 0 { "hello" } else { "" }));
        response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/plain"));
        response
    }

    fn refuse(&self, _: &Rc<Connection>, _: Objection) -> Response<Self::Body> {
        Response::new(Full::default())
    }
}

fn terms(fast_lane: bool) -> Arc<Terms> {
    Arc::new(Terms {
        listener: 0,
        name: "web".into(),
        tls: None,
        http1: true,
        http2: true,
        proxy_protocol: ProxyProtocol::Off,
        trusted: vec![],
        max_connections: 1000,
        head: HeadLimits { size: 64 << 10, headers: 100, uri: 16 << 10 },
        max_streams: 100,
        header_timeout: Duration::from_secs(60),
        send_timeout: Duration::from_secs(60),
        keepalive_timeout: Duration::from_secs(60),
        half_close: false,
        fast_lane,
    })
}

/// An open door, and where it is.
fn open(fast_lane: bool) -> (Rc<Door<Hello>>, SocketAddr) {
    let bound = bind(&"127.0.0.1:0".parse().unwrap(), 1, &Inherited::default()).unwrap();
    let Bind::Tcp(address) = bound.address else { panic!("a TCP address") };
    let sweep = Sweep::new();
    tokio::task::spawn_local(sweep.clone().run());
    let socket = bound.sockets.into_iter().next().unwrap();
    (
        Door::open(socket, Share::among(1).remove(0), Rc::new(Hello(terms(fast_lane))), Seats::new(), sweep).unwrap(),
        address,
    )
}

async fn ask(client: &mut TcpStream) {
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nuser-agent: y\r\naccept: */*\r\n\r\n").unwrap();
    let mut all = [0; 1000];
    while !matches!(client.read(&mut all), Ok(1..)) {
        tokio::task::yield_now().await;
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_nonblocking(true).unwrap();
    client
}

/// Bytes of memory for each of many connections that are idle behind an answer.
async fn idle(fast_lane: bool) -> i64 {
    const CONNECTIONS: usize = 256;
    let (door, address) = open(fast_lane);
    let mut clients = Vec::with_capacity(2 * CONNECTIONS);
    let mut before = 0;
    for _ in 0..2 {
        // The first half pays for what all share.
        before = HELD.get();
        for _ in 0..CONNECTIONS {
            let mut client = connect(address);
            ask(&mut client).await;
            clients.push(client);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(door.connections(), 2 * CONNECTIONS);
    (HELD.get() - before) / CONNECTIONS as i64
}

/// How often memory is taken for a request, all in all.
async fn taken(fast_lane: bool) -> u64 {
    const REQUESTS: u64 = 100;
    let (_door, address) = open(fast_lane);
    let mut client = connect(address);
    ask(&mut client).await;
    let before = TAKEN.get();
    for _ in 0..REQUESTS {
        ask(&mut client).await;
    }
    (TAKEN.get() - before) / REQUESTS
}

#[tokio::test(flavor = "local")]
async fn an_idle_connection_holds_less_than_four_kilobytes() {
    let (lane, hyper) = (idle(true).await, idle(false).await);
    println!("{lane} bytes, {hyper} without the fast lane");
    assert!(lane <= 4096, "{lane}");
}

#[tokio::test(flavor = "local")]
async fn a_plain_request_takes_memory_for_its_head_and_little_else() {
    let (lane, hyper) = (taken(true).await, taken(false).await);
    println!("{lane} allocations for a request, {hyper} without the fast lane");
    assert!(lane <= 2 && lane <= hyper, "{lane} {hyper}");
}
