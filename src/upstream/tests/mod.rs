//! Real sockets: what upstreams do, and what comes of it.

mod answers;
mod chaos;
mod http1;
mod http2;
mod judge;
mod probe;
mod tls;
mod tunnel;

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::config::model::Pool;
use crate::sweep::Sweep;
use crate::telemetry::{Lane, Registry};

/// A worker's far side, its sweep running.
struct Side {
    connections: Rc<Connections<Sent>>,
    sweep: Rc<Sweep>,
}

fn side() -> Side {
    let sweep = Sweep::new();
    tokio::task::spawn_local(sweep.clone().run());
    Side { connections: Connections::new(sweep.clone(), Lane::worker(0)), sweep }
}

/// A request in the making.
struct Ask {
    method: Method,
    path: &'static str,
    headers: HeaderMap,
    body: Sent,
    upgrade: bool,
    first_byte: Option<Duration>,
    idle: Option<Duration>,
}

fn get(path: &'static str) -> Ask {
    let headers = HeaderMap::from_iter([(http::header::HOST, HeaderValue::from_static("shop.test"))]);
    let body = Sent::default();
    let patience = Some(Duration::from_secs(5));
    Ask { method: Method::GET, path, headers, body, upgrade: false, first_byte: patience, idle: patience }
}

fn post(path: &'static str, body: Sent) -> Ask {
    Ask { method: Method::POST, body, ..get(path) }
}

impl Ask {
    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        self
    }

    fn method(self, method: Method) -> Self {
        Ask { method, ..self }
    }

    async fn over(self, side: &Side, target: &Arc<Target>) -> Result<Answer<Sent>, SendError> {
        let path = PathAndQuery::from_static(self.path);
        let outgoing = Outgoing {
            method: &self.method,
            target: &path,
            headers: &self.headers,
            lines: None,
            answer_in_lines: false,
            upgrade: self.upgrade,
            first_byte: self.first_byte,
            idle: self.idle,
        };
        side.connections.send(target, outgoing, self.body).await
    }
}

/// Status and body, or what went wrong in words.
async fn outcome(result: Result<Answer<Sent>, SendError>) -> Result<(u16, String), String> {
    let answer = result.map_err(|error| error.kind.to_string())?;
    let status = answer.response.status().as_u16();
    let body = answer.response.into_body().collect().await.map_err(|error| error.to_string())?;
    Ok((status, String::from_utf8(body.to_bytes().to_vec()).unwrap()))
}

/// A request body made of pieces; one with a sender goes on until that is dropped.
#[derive(Default, Debug)]
struct Sent {
    pieces: VecDeque<Result<Frame<Bytes>, std::io::Error>>,
    more: Option<mpsc::UnboundedReceiver<&'static str>>,
    length: Option<u64>,
}

impl Sent {
    fn of(text: &'static str) -> Self {
        Sent { pieces: [Ok(Frame::data(text.into()))].into(), more: None, length: Some(text.len() as u64) }
    }

    fn chunks(texts: &[&'static str]) -> Self {
        Sent { pieces: texts.iter().map(|text| Ok(Frame::data((*text).into()))).collect(), ..Sent::default() }
    }

    fn flowing() -> (mpsc::UnboundedSender<&'static str>, Self) {
        let (sender, more) = mpsc::unbounded_channel();
        (sender, Sent { more: Some(more), ..Sent::default() })
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(piece) = self.pieces.pop_front() {
            return Poll::Ready(Some(piece));
        }
        let Some(more) = &mut self.more else { return Poll::Ready(None) };
        more.poll_recv(cx).map(|text| text.map(|text| Ok(Frame::data(text.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && self.more.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() {
            SizeHint::with_exact(0)
        } else {
            self.length.map_or(SizeHint::new(), SizeHint::with_exact)
        }
    }
}

/// An upstream that treats each connection as `serve` says; connections are numbered from 0.
async fn upstream<F>(mut serve: impl FnMut(TcpStream, usize) -> F + 'static) -> Arc<Target>
where
    F: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::task::spawn_local(serve(stream, number));
        }
    });
    target(address, Pool::default())
}

/// An upstream that answers every request with `answer`, word for word, and keeps its connections.
async fn answering(answer: &'static str) -> Arc<Target> {
    upstream(move |mut stream, _| async move {
        while head(&mut stream).await.is_some() {
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await
}

/// An upstream that answers one request with `answer`, word for word, and closes.
async fn answering_once(answer: &'static str) -> Arc<Target> {
    upstream(move |mut stream, _| async move {
        head(&mut stream).await;
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await
}

/// The address of a target that has one.
fn address(target: &Target) -> SocketAddr {
    match target.place {
        Place::Tcp(address) => address,
        Place::Unix(_) => panic!("not TCP"),
    }
}

fn target(address: SocketAddr, pool: Pool) -> Arc<Target> {
    let settings = Settings::of(&pool, None);
    let target = Target::new("pool", &address.to_string(), Place::Tcp(address), "localhost", &settings).unwrap();
    Arc::new(target.counted_by(Registry::new(1, 10, &[]).upstream("pool", "one")))
}

/// What has been counted of a target's connections: made, open, idle, those that spoke unasked.
fn counts(target: &Target) -> [u64; 4] {
    let lane = target.stats.as_ref().unwrap().at(Lane::worker(0));
    let unasked = lane.faults.values().iter().sum();
    [lane.connects.value(), lane.open.value() as u64, lane.idle.value() as u64, unasked]
}

/// The next request's head; nothing at the connection's end.
async fn head(stream: &mut TcpStream) -> Option<String> {
    until(stream, "\r\n\r\n").await
}

/// Everything up to and with `end`.
async fn until(stream: &mut TcpStream, end: &str) -> Option<String> {
    let mut text = String::new();
    while !text.ends_with(end) {
        text.push(stream.read_u8().await.ok()?.into());
    }
    Some(text)
}

/// Lets every task that can run, run.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn ok() -> Result<(u16, String), String> {
    Ok((200, "ok".to_owned()))
}
