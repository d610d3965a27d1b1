//! Clients of all kinds, each at its own pace, until the ledger says that it is over.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::unfold;
use futures_util::{SinkExt, StreamExt};
use http::{Method, Request};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::ledger::{Asked, Kind, Ledger};
use crate::support::*;

/// What every client knows.
#[derive(Clone)]
pub struct World {
    pub web: SocketAddr,
    /// The same with TLS, for this name and by this authority.
    pub secure: SocketAddr,
    pub authority: Arc<Authority>,
    pub name: &'static str,
    pub ledger: Arc<Ledger>,
}

impl World {
    fn client(&self) -> Client {
        client(self.web)
    }

    fn secure_client(&self, alpn: &[&str]) -> Client {
        client(self.secure).tls(self.authority.client(alpn), self.name)
    }
}

/// Starts them all: about 450 requests a second together, and some 20 streams at any time.
pub fn start(world: World) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for number in 0..6 {
        clients.spawn(keeps_its_connection(world.clone(), world.client(), number));
        clients.spawn(opens_websockets(world.clone(), number));
    }
    for number in 0..3 {
        for alpn in ["http/1.1", "h2"] {
            clients.spawn(keeps_its_connection(world.clone(), world.secure_client(&[alpn]), number));
        }
        for how in [Upload::Sized, Upload::Chunked, Upload::Put] {
            clients.spawn(uploads(world.clone(), how, number));
        }
        clients.spawn(connects_anew(world.clone(), number == 0));
    }
    for client in [world.client(), world.client().http2(), world.secure_client(&["h2"])] {
        for count in [10, 40] {
            clients.spawn(reads_events(world.clone(), client.clone(), count));
        }
        clients.spawn(leaves(world.clone(), client));
        clients.spawn(reads_the_edition(world.clone()));
    }
    for _ in 0..2 {
        clients.spawn(multiplexes(world.clone()));
    }
    clients
}

/// A turn every so often, and never two at once to catch up.
fn every(millis: u64) -> Interval {
    let mut pace = interval(Duration::from_millis(millis));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

/// Sends it and takes down what came: the answer, where it is a whole and good one.
async fn send(call: Call, asked: Asked) -> Option<Answer> {
    let opened = match call.attempt_open().await {
        Ok(opened) => opened,
        Err(error) => {
            asked.broke(0, error);
            return None;
        }
    };
    let status = opened.status.as_u16();
    match opened.answer().await {
        Ok(answer) => {
            asked.whole(status);
            (status == 200).then_some(answer)
        }
        Err(error) => {
            asked.broke(status, error);
            None
        }
    }
}

/// The bytes of the upstreams' `/bytes`.
fn pattern(length: usize) -> Bytes {
    (0..length).map(|at| (at % 251) as u8).collect()
}

fn assert_described(answer: &Answer, target: &str) {
    let query = target.split_once('?').map(|(_, query)| query);
    assert_eq!(answer.json()["query"].as_str(), query, "somebody else's answer");
}

async fn keeps_its_connection(world: World, client: Client, number: usize) {
    let mut pace = every(65);
    let paths = ["/", "/bytes/3000", "/slow/20ms"];
    for path in paths.into_iter().cycle().skip(number) {
        pace.tick().await;
        if !world.ledger.goes_on() {
            return;
        }
        let asked = world.ledger.ask(Kind::Safe);
        let target = asked.target(path);
        match send(client.get(&target), asked).await {
            Some(answer) if path.starts_with("/bytes") => assert_eq!(answer.body, pattern(3000)),
            Some(answer) => assert_described(&answer, &target),
            None => {}
        }
    }
}

async fn connects_anew(world: World, secure: bool) {
    let mut pace = every(80);
    while world.ledger.goes_on() {
        pace.tick().await;
        let asked = world.ledger.ask(Kind::Safe);
        let target = asked.target("/");
        let client = if secure { world.secure_client(&["http/1.1"]) } else { world.client() };
        let call = client.get(&target).header("connection", "close");
        if let Some(answer) = send(call, asked).await {
            assert_described(&answer, &target);
        }
    }
}

/// What an edit has said is never taken back.
async fn reads_the_edition(world: World) {
    let (client, mut pace, mut last) = (world.client(), every(80), 0);
    while world.ledger.goes_on() {
        pace.tick().await;
        let asked = world.ledger.ask(Kind::Safe);
        let target = asked.target("/edition");
        if let Some(answer) = send(client.get(&target), asked).await {
            let edition: u64 = answer.text().parse().expect("a number");
            assert!(edition >= last, "{edition} after {last}");
            last = edition;
        }
    }
}

/// Six requests at a time on one HTTP/2 connection, which lasts to the end.
async fn multiplexes(world: World) {
    let stream = TcpStream::connect(world.web).await.expect("it listens");
    stream.set_nodelay(true).expect("an open socket");
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    join_all((0..6).map(|_| asks_on(&world, sender.clone()))).await;
    drop(sender);
    soon("the end of the connection", connection).await.expect("no panic").expect("it ends in order");
}

async fn asks_on(world: &World, mut sender: http2::SendRequest<Full<Bytes>>) {
    let mut pace = every(90);
    let sorts = [(Method::GET, "/", 0), (Method::GET, "/bytes/20000", 0), (Method::POST, "/echo", 5000)];
    for (method, path, length) in sorts.into_iter().cycle() {
        pace.tick().await;
        if !world.ledger.goes_on() {
            return;
        }
        let asked = world.ledger.ask(if method == Method::GET { Kind::Safe } else { Kind::Once });
        let target = asked.target(path);
        let request = Request::builder().method(method).uri(format!("http://soak.test{target}"));
        let request = request.body(Full::from(pattern(length))).expect("a request");
        let response = match soon("an answer", sender.send_request(request)).await {
            Ok(response) => response,
            Err(error) => {
                asked.broke(0, error);
                continue;
            }
        };
        let status = response.status().as_u16();
        match soon("the end of an answer", response.into_body().collect()).await {
            Ok(body) => {
                asked.whole(status);
                let body = body.to_bytes();
                match path {
                    _ if status != 200 => {}
                    "/" => assert!(String::from_utf8_lossy(&body).contains(target.trim_start_matches("/?"))),
                    "/echo" => assert_eq!(body, pattern(length)),
                    _ => assert_eq!(body, pattern(20_000)),
                }
            }
            Err(error) => asked.broke(status, error),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Upload {
    /// POST, with a length.
    Sized,
    /// POST, piece by piece.
    Chunked,
    /// PUT, and no longer than what is kept to be sent again.
    Put,
}

async fn uploads(world: World, how: Upload, number: usize) {
    let (client, mut pace) = (world.client(), every(200));
    for turn in number.. {
        pace.tick().await;
        if !world.ledger.goes_on() {
            return;
        }
        let most = if how == Upload::Put { 32 << 10 } else { 200 << 10 };
        let body = pattern(1 + turn * 7919 % most);
        let asked = world.ledger.ask(if how == Upload::Put { Kind::Safe } else { Kind::Once });
        let target = asked.target("/upload");
        let call = match how {
            Upload::Sized => client.post(&target, body.clone()),
            Upload::Chunked => client.call(Method::POST, &target).streaming(pieces(body.clone())),
            Upload::Put => client.call(Method::PUT, &target).body(body.clone()),
        };
        if let Some(answer) = send(call, asked).await {
            let digest = ring::digest::digest(&ring::digest::SHA256, &body);
            let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            let seen = answer.json();
            assert_eq!((seen["bytes"].as_u64(), seen["sha256"].as_str()), (Some(body.len() as u64), Some(&*hex)));
        }
    }
}

/// A body that takes its time.
fn pieces(body: Bytes) -> impl futures_util::Stream<Item = std::io::Result<Frame<Bytes>>> {
    unfold(body, |mut left| async move {
        if left.is_empty() {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(4)).await;
        let piece = left.split_to(left.len().min(16 << 10));
        Some((Ok(Frame::data(piece)), left))
    })
}

/// Reads streams of events to their end.
async fn reads_events(world: World, client: Client, count: u64) {
    while world.ledger.goes_on() {
        let asked = world.ledger.ask(Kind::Stream);
        let target = asked.target(&format!("/sse?events={count}&interval=50ms"));
        let mut opened = match client.get(&target).attempt_open().await {
            Ok(opened) => opened,
            Err(error) => {
                asked.broke(0, error);
                continue;
            }
        };
        let (status, mut seen) = (opened.status.as_u16(), String::new());
        let end = loop {
            match opened.next().await {
                Some(Ok(piece)) => seen += std::str::from_utf8(&piece).expect("text"),
                Some(Err(error)) => break Err(error),
                None => break Ok(()),
            }
        };
        // However it ends, what came is what was said from the beginning.
        let name = seen.split_once("data: ").and_then(|(_, rest)| rest.split_once(' ')).map_or("", |(name, _)| name);
        let said: String = (0..count).map(|id| format!("id: {id}\nevent: tick\ndata: {name} says {id}\n\n")).collect();
        assert!(status != 200 || said.starts_with(&seen), "{seen}");
        match end {
            Ok(()) => {
                assert!(status != 200 || seen == said, "a stream that ends in order is whole: {seen}");
                asked.whole(status);
            }
            Err(error) => asked.broke(status, error),
        }
    }
}

/// Opens streams without end and goes away.
async fn leaves(world: World, client: Client) {
    while world.ledger.goes_on() {
        let asked = world.ledger.ask(Kind::Stream);
        let mut opened = match client.get(&asked.target("/sse?interval=50ms")).attempt_open().await {
            Ok(opened) => opened,
            Err(error) => {
                asked.broke(0, error);
                continue;
            }
        };
        let status = opened.status.as_u16();
        let mut left = 12;
        let why = loop {
            match opened.next().await {
                Some(Ok(_)) if left == 0 => break None,
                Some(Ok(_)) => left -= 1,
                Some(Err(error)) => break Some(error.to_string()),
                None => break Some("it has an end".to_owned()),
            }
        };
        drop(opened);
        match why {
            None => asked.left(status),
            Some(why) => asked.broke(status, why),
        }
    }
}

/// Talks for a while on each WebSocket and closes it.
async fn opens_websockets(world: World, number: usize) {
    let mut pace = every(40);
    for turn in number.. {
        pace.tick().await;
        if !world.ledger.goes_on() {
            return;
        }
        let asked = world.ledger.ask(Kind::Stream);
        let stream = TcpStream::connect(world.web).await.expect("it listens");
        let url = format!("ws://soak.test{}", asked.target("/ws"));
        let mut socket = match soon("a handshake", tokio_tungstenite::client_async(url, stream)).await {
            Ok((socket, _)) => socket,
            Err(Error::Http(response)) => {
                asked.whole(response.status().as_u16());
                continue;
            }
            Err(error) => {
                asked.broke(0, error);
                continue;
            }
        };
        match talk(&mut socket, 5 + turn * 7 % 40, &mut pace).await {
            Ok(()) => asked.whole(101),
            Err(why) => asked.broke(101, why),
        }
    }
}

type WebSocket = tokio_tungstenite::WebSocketStream<TcpStream>;

/// Says things and hears them back, then closes.
async fn talk(socket: &mut WebSocket, turns: usize, pace: &mut Interval) -> Result<(), String> {
    for turn in 0..turns {
        pace.tick().await;
        let said = Message::binary(pattern(1 + turn * 997));
        socket.send(said.clone()).await.map_err(|error| error.to_string())?;
        match soon("an echo", socket.next()).await {
            Some(Ok(heard)) => assert_eq!(heard, said),
            Some(Err(error)) => return Err(error.to_string()),
            None => return Err("ended".to_owned()),
        }
    }
    socket.close(None).await.map_err(|error| error.to_string())?;
    match soon("the close", socket.next()).await {
        Some(Ok(Message::Close(_))) => {}
        other => return Err(format!("no close but {other:?}")),
    }
    match soon("the end", socket.next()).await {
        None => Ok(()),
        Some(more) => Err(format!("no end but {more:?}")),
    }
}
