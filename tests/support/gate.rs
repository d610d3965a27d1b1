use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::eventually;
use super::proxy::Addressed;

/// An upstream that takes requests, remembers in which order, and answers each only when it is let go: `gate("a").await`.
///
/// It answers 200 with its name; `/health` at once. A request for `/login` is given a session of its own, in `Mcp-Session-Id`.
pub async fn gate(name: &str) -> Gate {
    gate_on(name, SocketAddr::from(([127, 0, 0, 1], 0))).await
}

/// On an address that was [found](free_address) before.
pub async fn gate_on(name: &str, address: SocketAddr) -> Gate {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option is set");
    socket.bind(address).expect("the address is free");
    let listener = socket.listen(128).expect("it listens");
    let address = listener.local_addr().expect("it has an address");
    let inside = Arc::new(Inside {
        name: name.to_owned(),
        seen: Mutex::default(),
        permits: Semaphore::new(0),
        dead: watch::Sender::new(false),
    });
    let accepting = tokio::spawn(accept(listener, inside.clone()));
    Gate { address, inside, accepting }
}

/// An address that nobody listens on.
pub fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

pub struct Gate {
    address: SocketAddr,
    inside: Arc<Inside>,
    accepting: JoinHandle<()>,
}

struct Inside {
    name: String,
    seen: Mutex<Vec<String>>,
    permits: Semaphore,
    dead: watch::Sender<bool>,
}

impl Gate {
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The targets of the requests that it has taken, in their order.
    pub fn seen(&self) -> Vec<String> {
        self.inside.seen.lock().unwrap().clone()
    }

    /// Returns once it has taken so many requests.
    pub async fn has_taken(&self, count: usize) {
        eventually(&format!("{} has taken {count} requests", self.inside.name), || self.seen().len() >= count).await;
        assert_eq!(self.seen().len(), count, "{:?}", self.seen());
    }

    /// Lets so many requests go, also of those that are still to come.
    pub fn lets_go(&self, count: usize) {
        self.inside.permits.add_permits(count);
    }

    /// Lets all go from now on.
    pub fn opens(&self) {
        self.inside.permits.close();
    }

    /// Its port and connections are closed at once.
    pub fn dies(&self) {
        self.accepting.abort();
        self.inside.dead.send_replace(true);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.dies();
    }
}

impl Addressed for Gate {
    fn address_text(&self) -> String {
        self.address()
    }
}

async fn accept(listener: TcpListener, inside: Arc<Inside>) {
    while let Ok((stream, _)) = listener.accept().await {
        let inside = inside.clone();
        tokio::spawn(async move {
            let mut dead = inside.dead.subscribe();
            let service = hyper::service::service_fn(|request| answer(request, inside.clone()));
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ = connection => {}
                _ = dead.wait_for(|dead| *dead) => {}
            }
        });
    }
}

async fn answer(request: Request<Incoming>, inside: Arc<Inside>) -> Result<Response<Full<Bytes>>, Infallible> {
    let target = request.uri().path_and_query().map_or("*", |target| target.as_str()).to_owned();
    let mut response = Response::new(Full::from(inside.name.clone()));
    if target == "/health" {
        return Ok(response);
    }
    if target == "/login" {
        let session = format!("{}-session", inside.name);
        response.headers_mut().insert("mcp-session-id", session.parse().expect("a header"));
    }
    inside.seen.lock().unwrap().push(target);
    // The body is part of what a waiting request has to keep.
    let _ = request.into_body().collect().await;
    // Closed, it lets everybody go.
    if let Ok(permit) = inside.permits.acquire().await {
        permit.forget();
    }
    Ok(response)
}
