//! The near side on real sockets, with a trivial application.

mod agreement;
mod by_hyper;
mod door;
mod drain;
mod guard;
mod http1;
mod http2;
mod hyper_alone;
mod lane;
mod proxy_header;
mod tls;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use super::*;
use crate::config::model::{Listener, Protocol};
use crate::sweep::Sweep;
use crate::telemetry::Closed;
use crate::types::{Bind, Clock};

pub(super) type AnyBody = Pin<Box<dyn Body<Data = Bytes, Error = io::Error>>>;

/// A listener with an application that does what the path says.
pub(super) struct Site {
    pub(super) door: Rc<Door<Answers>>,
    pub(super) app: Rc<Answers>,
    pub(super) address: SocketAddr,
    pub(super) seats: Arc<Seats>,
}

pub(super) struct Answers {
    pub(super) terms: RefCell<Arc<Terms>>,
    /// What was observed and refused, in order.
    pub(super) heard: Rc<RefCell<Vec<String>>>,
    pub(super) closed: RefCell<Vec<Closed>>,
    /// Requests that were dropped before they were answered.
    pub(super) cancelled: Rc<Cell<u32>>,
    /// Connections let in at once.
    pub(super) room: Rc<Cell<u32>>,
}

/// Settings for tests: little patience where nothing else is said.
pub(super) fn settings() -> Listener {
    let mut listener = plain();
    listener.header_timeout = Duration::from_millis(400);
    listener.keepalive_timeout = Duration::from_millis(400);
    listener.send_timeout = Duration::from_millis(400);
    listener
}

fn plain() -> Listener {
    let bind = vec![Bind::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))];
    Listener {
        bind,
        protocols: vec![Protocol::Http2, Protocol::Http1],
        tls: None,
        proxy_protocol: crate::config::model::ProxyProtocol::Off,
        trusted_proxies: vec![],
        max_connections: 1000,
        max_connections_per_client: None,
        max_header_size: crate::types::Size(64 << 10),
        max_headers: 100,
        max_uri: crate::types::Size(16 << 10),
        max_body: None,
        max_streams: 128,
        header_timeout: Duration::from_secs(10),
        body_timeout: Duration::from_secs(30),
        send_timeout: Duration::from_secs(60),
        keepalive_timeout: Duration::from_secs(75),
        half_close: false,
        fast_lane: true,
        underscores: false,
        forwarded: crate::config::model::Forwarded::Off,
        request_id: crate::config::model::RequestId::Off,
        via: false,
    }
}

pub(super) fn site(settings: &Listener) -> Site {
    site_with(settings, None)
}

pub(super) fn site_with(settings: &Listener, tls: Option<TlsTerms>) -> Site {
    let bound = bind(&settings.bind[0], 1, &Inherited::default()).unwrap();
    let address = match bound.address {
        Bind::Tcp(address) => address,
        Bind::Unix(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    };
    let app = Rc::new(Answers {
        terms: RefCell::new(Arc::new(Terms::new(7, "web", settings, tls.map(Arc::new)))),
        heard: Rc::default(),
        closed: RefCell::default(),
        cancelled: Rc::default(),
        room: Rc::new(Cell::new(u32::MAX)),
    });
    let sweep = Sweep::new();
    spawn_local(sweep.clone().run());
    let seats = Seats::new();
    let socket = bound.sockets.into_iter().next().unwrap();
    let door = Door::open(socket, Share::among(1).remove(0), app.clone(), seats.clone(), sweep).unwrap();
    std::mem::forget(bound.file);
    Site { door, app, address, seats }
}

impl Site {
    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// All that comes back for `text`, to the end of the connection.
    pub(super) async fn exchange(&self, text: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        read_all(&mut stream).await
    }

    pub(super) fn drain(&self, after: Duration) {
        self.door.drain(Clock::now() + after);
    }

    /// Waits until connections have ended for these reasons, in any order.
    pub(super) async fn closed(&self, why: &[Closed]) {
        for _ in 0..200 {
            if self.app.closed.borrow().len() >= why.len() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let sorted = |why: &[Closed]| {
            let mut words: Vec<String> = why.iter().map(|why| format!("{why:?}")).collect();
            words.sort();
            words
        };
        assert_eq!(sorted(&self.app.closed.borrow()), sorted(why));
    }

    pub(super) fn heard(&self) -> Vec<String> {
        self.app.heard.borrow().clone()
    }
}

/// All bytes to the end, however it ends.
pub(super) async fn read_all(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut all = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(8), stream.read_to_end(&mut all)).await;
    match read {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => all.extend(format!("!{:?}", error.kind()).bytes()),
        Err(_) => all.extend(b"!Open"),
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Answers without what depends on when they were made.
pub(super) fn text_of(answers: &str) -> String {
    answers.split_inclusive("\r\n").filter(|line| !line.starts_with("date: ")).collect()
}

/// Reads until `end` has come.
pub(super) async fn read_until(stream: &mut (impl AsyncReadExt + Unpin), end: &str) -> String {
    let mut all = Vec::new();
    let reading = async {
        while !all.ends_with(end.as_bytes()) {
            all.push(stream.read_u8().await.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&all))));
        }
    };
    tokio::time::timeout(Duration::from_secs(8), reading).await.expect("in time");
    String::from_utf8(all).unwrap()
}

/// The statuses in what came back.
pub(super) fn statuses(text: &str) -> Vec<&str> {
    let rests = text.split("HTTP/1.").skip(1).filter_map(|rest| rest.get(2..5));
    // Requests in echoed bodies have no status.
    rests.filter(|status| status.bytes().all(|byte| byte.is_ascii_digit())).collect()
}

struct Cancel(Option<Rc<Cell<u32>>>);

impl Drop for Cancel {
    fn drop(&mut self) {
        if let Some(count) = &self.0 {
            count.set(count.get() + 1);
        }
    }
}

/// Gives its place back when its connection has ended.
#[derive(Debug)]
pub(super) struct Place(Rc<Cell<u32>>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

pub(super) fn text(text: impl Into<Bytes>) -> AnyBody {
    Box::pin(Full::new(text.into()).map_err(|never| match never {}))
}

fn pieces(pieces: impl futures_util::Stream<Item = io::Result<Bytes>> + 'static) -> AnyBody {
    use futures_util::TryStreamExt;
    Box::pin(StreamBody::new(pieces.map_ok(Frame::data)))
}

fn trailers() -> http::HeaderMap {
    http::HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), HeaderValue::from_static("6"))])
}

/// All that was read of a request.
pub(super) async fn mirror<B: Body<Data = Bytes, Error: std::fmt::Display>>(request: Request<B>) -> String {
    let (parts, body) = request.into_parts();
    let mut all = format!("{} {} {:?}\n", parts.method, parts.uri, parts.version);
    for (name, value) in &parts.headers {
        all += &format!("{name}={value:?}\n");
    }
    match body.collect().await {
        Ok(body) => all + &format!("{:?}", body.to_bytes()),
        Err(_) => all + "broken",
    }
}

/// `count` pieces of `size` bytes, one each `millis`.
fn drip(count: usize, size: usize, millis: u64) -> AnyBody {
    pieces(futures_util::stream::unfold(0, move |done| async move {
        if done == count {
            return None;
        }
        if millis > 0 {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        Some((Ok(Bytes::from(vec![b'x'; size])), done + 1))
    }))
}

impl Application for Answers {
    type Body = AnyBody;
    type State = Place;

    fn terms(&self) -> Arc<Terms> {
        self.terms.borrow().clone()
    }

    fn admit(&self, _: &Terms, client: IpAddr) -> Option<Place> {
        if client != Ipv4Addr::LOCALHOST {
            self.heard.borrow_mut().push(format!("client {client}"));
        }
        let left = self.room.get().checked_sub(1)?;
        self.room.set(left);
        Some(Place(self.room.clone()))
    }

    async fn answer(
        self: Rc<Self>,
        connection: Rc<Connection<Place>>,
        mut request: Request<ClientBody>,
    ) -> Response<AnyBody> {
        let mut cancel = Cancel(Some(self.cancelled.clone()));
        let path = request.uri().path().to_owned();
        let number = path.rsplit('/').next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        let kind = path.split('/').nth(1).unwrap_or_default();
        let response = match kind {
            "facts" => {
                let tls = connection.tls().map(|tls| format!("{tls:?}")).unwrap_or_default();
                let facts = format!(
                    "{} {} {} {} {} {tls}",
                    connection.listener(),
                    connection.scheme(),
                    connection.client(),
                    connection.local().map(|local| local.to_string()).unwrap_or_default(),
                    connection.is_http2(),
                );
                Response::new(text(facts))
            }
            "echo" => match request.body_mut().collect().await {
                Ok(body) => Response::new(text(body.to_bytes())),
                Err(error) => Response::builder().status(400).body(text(error.to_string())).unwrap(),
            },
            "sleep" => {
                tokio::time::sleep(Duration::from_millis(number)).await;
                Response::new(text("slept"))
            }
            "mirror" => Response::new(text(mirror(request).await)),
            "status" => Response::builder().status(number as u16).header("x-a", "b").body(text("")).unwrap(),
            "close" => Response::builder().header("connection", "close").body(text("closing")).unwrap(),
            "dated" => Response::builder().header("date", "long ago").body(text("")).unwrap(),
            // So many bytes that are said to be ten.
            "ten" => Response::builder().header("content-length", "10").body(drip(1, number as usize, 0)).unwrap(),
            "trailers" => {
                let frames = [Frame::data(Bytes::from_static(b"sum")), Frame::trailers(trailers())];
                let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok)));
                Response::builder().header("trailer", "x-sum").body(Box::pin(body) as AnyBody).unwrap()
            }
            // The answer comes first; the body is read by somebody else, slowly.
            "early" => {
                let mut body = request.into_body();
                let read = self.heard.clone();
                spawn_local(async move {
                    let mut bytes = 0;
                    while let Some(frame) = body.frame().await {
                        match frame {
                            Ok(frame) => bytes += frame.data_ref().map_or(0, Bytes::len),
                            Err(error) => return read.borrow_mut().push(error.to_string()),
                        }
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    read.borrow_mut().push(format!("read {bytes}"));
                });
                cancel.0 = None;
                return Response::new(text("early"));
            }
            "refuse" => Response::builder().status(413).body(text("too much")).unwrap(),
            "drip" => Response::new(drip(number as usize, 10, 50)),
            "big" => Response::new(drip(number as usize, 64 << 10, 0)),
            "broken" => Response::new(pieces(futures_util::stream::iter([
                Ok(Bytes::from_static(b"part")),
                Err(io::Error::other("upstream broke")),
            ]))),
            "panic" => panic!("on request"),
            "late-panic" => {
                let first = futures_util::stream::iter([Ok(Bytes::from_static(b"part"))]);
                let then = futures_util::stream::poll_fn(|_| panic!("in the body"));
                Response::new(pieces(futures_util::StreamExt::chain(first, then)))
            }
            "tunnel" => {
                let upgrade = hyper::upgrade::on(&mut request);
                let busy = connection.enter();
                spawn_local(async move {
                    let Ok(upgraded) = upgrade.await else { return };
                    let (mut reader, mut writer) = tokio::io::split(hyper_util::rt::TokioIo::new(upgraded));
                    let _ = tokio::io::copy(&mut reader, &mut writer).await;
                    let _ = writer.shutdown().await;
                    drop(busy);
                });
                let mut response = Response::new(text(""));
                if !connection.is_http2() {
                    *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
                    response.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
                    response.headers_mut().insert("upgrade", HeaderValue::from_static("echo"));
                }
                response
            }
            _ => Response::new(text(format!("hello {path}"))),
        };
        cancel.0 = None;
        response
    }

    fn refuse(&self, _: &Rc<Connection<Place>>, objection: Objection) -> Response<AnyBody> {
        self.heard.borrow_mut().push(format!("refused: {objection}"));
        Response::builder().status(objection.status()).body(text("ours")).unwrap()
    }

    fn observe(&self, event: Event<'_>) {
        match event {
            Event::Closed { why, .. } => self.closed.borrow_mut().push(why),
            Event::Accepted => {}
            Event::Handshake => self.heard.borrow_mut().push("handshake".to_owned()),
            Event::HandshakeFailed(error) => self.heard.borrow_mut().push(error.to_string()),
            Event::Unparsable(error) => self.heard.borrow_mut().push(format!("unparsable: {error}")),
            Event::Panicked(text) => self.heard.borrow_mut().push(format!("panic: {text}")),
            Event::AcceptFailed(error) => self.heard.borrow_mut().push(format!("accept: {:?}", error.kind())),
        }
    }
}
