//! Accepting while the process has no file descriptor left. A process of its own, as it lowers a limit of the process.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::{IpAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidegate::config::model::ProxyProtocol;
use tidegate::downstream::{
    Application, ClientBody, Connection, Door, Event, HeadLimits, Inherited, Objection, Seats, Share, Terms, bind,
};
use tidegate::sweep::Sweep;
use tidegate::types::Bind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Hello {
    terms: Arc<Terms>,
    failures: RefCell<Vec<String>>,
}

impl Application for Hello {
    type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;
    type State = ();

    fn terms(&self) -> Arc<Terms> {
        self.terms.clone()
    }

    fn admit(&self, _: &Terms, _: IpAddr) -> Option<()> {
        Some(())
    }

    async fn answer(self: Rc<Self>, _: Rc<Connection>, _: Request<ClientBody>) -> Response<Self::Body> {
        Response::new(Self::Body::new(Full::from("hello")))
    }

    fn refuse(&self, _: &Rc<Connection>, _: Objection) -> Response<Self::Body> {
        Response::new(Self::Body::default())
    }

    fn observe(&self, event: Event<'_>) {
        if let Event::AcceptFailed(error) = event {
            self.failures.borrow_mut().push(error.to_string());
        }
    }
}

fn terms() -> Arc<Terms> {
    Arc::new(Terms {
        listener: 0,
        name: "web".into(),
        tls: None,
        http1: true,
        http2: true,
        proxy_protocol: ProxyProtocol::Off,
        trusted: vec![],
        max_connections: 100,
        head: HeadLimits { size: 64 << 10, headers: 100, uri: 16 << 10 },
        max_streams: 100,
        header_timeout: Duration::from_secs(10),
        send_timeout: Duration::from_secs(10),
        keepalive_timeout: Duration::from_secs(10),
        half_close: false,
        fast_lane: true,
    })
}

#[tokio::test(flavor = "local")]
async fn want_of_descriptors_is_waited_out_and_nobody_is_lost() {
    let bound = bind(&"127.0.0.1:0".parse().unwrap(), 1, &Inherited::default()).unwrap();
    let Bind::Tcp(address) = bound.address else { panic!("a TCP address") };
    let app = Rc::new(Hello { terms: terms(), failures: RefCell::default() });
    let sweep = Sweep::new();
    tokio::task::spawn_local(sweep.clone().run());
    let socket = bound.sockets.into_iter().next().unwrap();
    let _door = Door::open(socket, Share::among(1).remove(0), app.clone(), Seats::new(), sweep).unwrap();

    // Idle behind its answer: it will have to make room.
    let mut idle = tokio::net::TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    idle.read_u8().await.unwrap();

    // Connected, but not accepted: this thread has not run the door yet.
    let mut waiting: Vec<TcpStream> = (0..10).map(|_| TcpStream::connect(address).unwrap()).collect();
    let before = getrlimit(Resource::Nofile);
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    setrlimit(Resource::Nofile, Rlimit { current: Some(open - 1), maximum: before.maximum }).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let failures = app.failures.borrow().len();
    assert!((2..20).contains(&failures), "{failures}: tried again, and not in a loop without end");
    assert!(app.failures.borrow()[0].contains("Too many open files"), "{:?}", app.failures);

    let mut all = String::new();
    tokio::time::timeout(Duration::from_secs(1), idle.read_to_string(&mut all)).await.unwrap().unwrap();
    assert!(all.ends_with("hello"), "{all}");

    waiting.truncate(5);
    setrlimit(Resource::Nofile, before).unwrap();
    for client in waiting {
        client.set_nonblocking(true).unwrap();
        let mut client = tokio::net::TcpStream::from_std(client).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut all = String::new();
        client.read_to_string(&mut all).await.unwrap();
        assert!(all.ends_with("hello"), "{all}");
    }
}
