//! One way into the cluster: a socket, HTTP, TLS, and how it is closed or goes dark.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::api::{self, Answer, Call, Watch};
use super::world::World;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A socket of the API server.
pub struct Door {
    world: Arc<World>,
    address: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    /// Each step cuts all connections.
    cuts: watch::Sender<u64>,
    /// Requests are read and never answered.
    dark: watch::Sender<bool>,
    accepting: Option<JoinHandle<()>>,
}

impl Door {
    pub async fn open(world: Arc<World>, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (cuts, dark) = (watch::channel(0).0, watch::channel(false).0);
        let mut door = Door { world, address, tls, cuts, dark, accepting: None };
        door.accept(listener);
        door
    }

    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Cuts every connection in the middle of what it does.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Nobody listens any more.
    pub async fn close(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            let _aborted = accepting.await;
        }
        self.cut();
    }

    pub async fn open_again(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the same port");
        self.accept(listener);
    }

    /// Takes requests and answers none, also on the connections there are.
    pub fn go_dark(&self, dark: bool) {
        self.dark.send_replace(dark);
    }

    fn accept(&mut self, listener: TcpListener) {
        let (world, tls) = (self.world.clone(), self.tls.clone());
        let (cuts, dark) = (self.cuts.subscribe(), self.dark.subscribe());
        self.accepting = Some(tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (world, tls, mut cuts, dark) = (world.clone(), tls.clone(), cuts.clone(), dark.clone());
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = cuts.changed() => {}
                        () = serve(stream, tls, world, dark) => {}
                    }
                });
            }
        }));
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
        self.cut();
    }
}

async fn serve(
    stream: TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
    world: Arc<World>,
    dark: watch::Receiver<bool>,
) {
    let service = service_fn(move |request| answer(request, world.clone(), dark.clone()));
    let http = hyper::server::conn::http1::Builder::new();
    // Whoever leaves in the middle is no fault of the server.
    let _end = match tls {
        None => http.serve_connection(TokioIo::new(stream), service).await,
        Some(tls) => match TlsAcceptor::from(tls).accept(stream).await {
            Ok(stream) => http.serve_connection(TokioIo::new(stream), service).await,
            Err(_) => return,
        },
    };
}

async fn answer(
    request: Request<Incoming>,
    world: Arc<World>,
    mut dark: watch::Receiver<bool>,
) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let call = Call::read(&parts, &body);
    let mut changes = world.changes();
    world.change(|state| state.asked.push(call.right.clone()));
    while *dark.borrow_and_update() {
        let _door_is_gone = dark.changed().await;
    }
    while world.look(|state| state.stuck.contains(&call.right)) {
        let _world_is_gone = changes.changed().await;
    }
    Ok(match api::answer(&world, &call) {
        Answer::Object(code, object) => respond(code, "application/json", object.to_string()),
        Answer::Text(code, text) => respond(code, "text/plain; charset=utf-8", text.to_owned()),
        Answer::Watch(watch) => {
            world.change(|state| state.watches += 1);
            Response::new(events(watch, world).boxed_unsync())
        }
    })
}

fn respond(code: u16, kind: &str, text: String) -> Response<Body> {
    let body = Full::new(Bytes::from(text)).boxed_unsync();
    Response::builder().status(code).header("content-type", kind).body(body).expect("a response")
}

/// One line for each event, in chunks, until its time is over.
fn events(watch: Watch, world: Arc<World>) -> impl http_body::Body<Data = Bytes, Error = Infallible> + Send {
    let deadline = tokio::time::Instant::now() + watch.time;
    let changes = world.changes();
    let lines = stream::unfold((watch, world, changes), move |(mut watch, world, mut changes)| async move {
        loop {
            changes.mark_unchanged();
            if let Some(lines) = world.look(|state| watch.next(state)) {
                return Some((Ok(Frame::data(Bytes::from(lines))), (watch, world, changes)));
            }
            if watch.over || tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
                return None;
            }
        }
    });
    StreamBody::new(lines)
}
