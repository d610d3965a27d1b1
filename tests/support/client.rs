use std::future::IntoFuture;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, Method, Request, StatusCode, Version};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, UnixStream};
use tokio_rustls::TlsConnector;

use super::soon;

type Sending = UnsyncBoxBody<Bytes, std::io::Error>;
type Failed = Box<dyn std::error::Error + Send + Sync>;

/// An HTTP client that keeps its connections: `client(address).get("/").await`.
pub fn client(address: SocketAddr) -> Client {
    Client { to: To::Tcp { address, source: None }, tls: None, http2: false, idle: Arc::default() }
}

#[derive(Clone)]
pub struct Client {
    to: To,
    tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    http2: bool,
    idle: Arc<Mutex<Vec<Sender>>>,
}

#[derive(Clone)]
enum To {
    Tcp { address: SocketAddr, source: Option<SocketAddr> },
    Unix(PathBuf),
}

enum Sender {
    Http1(http1::SendRequest<Sending>),
    Http2(http2::SendRequest<Sending>),
}

impl Client {
    pub fn over_unix(path: &Path) -> Client {
        Client { to: To::Unix(path.to_owned()), tls: None, http2: false, idle: Arc::default() }
    }

    /// HTTP/2 with prior knowledge; over TLS, what ALPN agrees on is used instead.
    pub fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    pub fn tls(mut self, config: Arc<rustls::ClientConfig>, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).expect("a server name");
        self.tls = Some((config, name));
        self
    }

    /// Connects from this address, such as `127.0.0.2:0`.
    pub fn from(mut self, address: SocketAddr) -> Self {
        if let To::Tcp { source, .. } = &mut self.to {
            *source = Some(address);
        }
        self
    }

    pub fn get(&self, target: &str) -> Call {
        self.call(Method::GET, target)
    }

    pub fn post(&self, target: &str, body: impl Into<Bytes>) -> Call {
        self.call(Method::POST, target).body(body)
    }

    pub fn call(&self, method: Method, target: &str) -> Call {
        let request = Request::builder().method(method).uri(target);
        Call { client: self.clone(), request, body: None, has_host: false }
    }

    fn authority(&self) -> String {
        match &self.to {
            To::Tcp { address, .. } => address.to_string(),
            To::Unix(_) => "localhost".to_owned(),
        }
    }

    async fn connect(&self) -> Result<Sender, Failed> {
        match &self.to {
            To::Tcp { address, source } => {
                let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                if let Some(source) = source {
                    socket.bind(*source)?;
                }
                let stream = socket.connect(*address).await?;
                stream.set_nodelay(true)?;
                self.secure(stream).await
            }
            To::Unix(path) => self.secure(UnixStream::connect(path).await?).await,
        }
    }

    async fn secure<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S) -> Result<Sender, Failed> {
        let Some((config, name)) = &self.tls else { return shake_hands(stream, self.http2).await };
        let stream = TlsConnector::from(config.clone()).connect(name.clone(), stream).await?;
        let http2 = match stream.get_ref().1.alpn_protocol() {
            Some(protocol) => protocol == b"h2",
            None => self.http2,
        };
        shake_hands(stream, http2).await
    }

    /// An idle connection that is still open, or a new one.
    async fn sender(&self) -> Result<Sender, Failed> {
        loop {
            let Some(mut sender) = self.idle.lock().unwrap().pop() else { return self.connect().await };
            let open = match &mut sender {
                Sender::Http1(sender) => sender.ready().await.is_ok(),
                Sender::Http2(sender) => sender.ready().await.is_ok(),
            };
            if open {
                return Ok(sender);
            }
        }
    }
}

async fn shake_hands<S>(stream: S, http2: bool) -> Result<Sender, Failed>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = TokioIo::new(stream);
    if http2 {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        tokio::spawn(connection);
        return Ok(Sender::Http2(sender));
    }
    let (sender, connection) = http1::handshake(stream).await?;
    tokio::spawn(connection.with_upgrades());
    Ok(Sender::Http1(sender))
}

/// A request being put together. Awaiting it gives the whole [`Answer`] and panics where there is none.
pub struct Call {
    client: Client,
    request: http::request::Builder,
    body: Option<Sending>,
    has_host: bool,
}

impl Call {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.has_host |= name.eq_ignore_ascii_case("host");
        self.request = self.request.header(name, value);
        self
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(Full::new(body.into()).map_err(|never| match never {}).boxed_unsync());
        self
    }

    /// A body that comes piece by piece, with trailers if it likes.
    pub fn streaming(mut self, frames: impl Stream<Item = std::io::Result<Frame<Bytes>>> + Send + 'static) -> Self {
        self.body = Some(StreamBody::new(frames).boxed_unsync());
        self
    }

    /// The whole answer, or why there is none.
    pub async fn attempt(self) -> Result<Answer, Failed> {
        self.attempt_open().await?.answer().await
    }

    /// The answer's head, its body still to be read.
    pub async fn open(self) -> Opened {
        self.attempt_open().await.expect("an answer")
    }

    pub async fn attempt_open(self) -> Result<Opened, Failed> {
        soon("an answer's head", async {
            let mut sender = self.client.sender().await?;
            let body = self.body.unwrap_or_else(|| Full::default().map_err(|never| match never {}).boxed_unsync());
            let mut request = self.request.body(body)?;
            let authority = match request.headers().get(http::header::HOST) {
                Some(host) => host.to_str()?.to_owned(),
                None => self.client.authority(),
            };
            let mut response = match &mut sender {
                Sender::Http1(sender) => {
                    if !self.has_host {
                        request.headers_mut().insert(http::header::HOST, authority.parse()?);
                    }
                    sender.send_request(request).await?
                }
                Sender::Http2(sender) => {
                    request.headers_mut().remove(http::header::HOST);
                    let scheme = if self.client.tls.is_some() { "https" } else { "http" };
                    let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned();
                    *request.uri_mut() = format!("{scheme}://{authority}{target}").parse()?;
                    *request.version_mut() = Version::HTTP_2;
                    sender.send_request(request).await?
                }
            };
            let upgrade = Some(hyper::upgrade::on(&mut response));
            let (head, body) = response.into_parts();
            let (client, sender) = (self.client, Some(sender));
            Ok(Opened {
                status: head.status,
                headers: head.headers,
                version: head.version,
                body,
                client,
                sender,
                upgrade,
            })
        })
        .await
    }

    /// Sends a request with an `Upgrade` and gives the tunnel, or the answer where it is not 101.
    pub async fn upgrade(self) -> Result<TokioIo<hyper::upgrade::Upgraded>, Opened> {
        let opened = self.open().await;
        if opened.status != StatusCode::SWITCHING_PROTOCOLS {
            return Err(opened);
        }
        let upgraded = opened.upgrade.expect("asked for once").await;
        Ok(TokioIo::new(upgraded.expect("the connection becomes a tunnel")))
    }
}

impl IntoFuture for Call {
    type Output = Answer;
    type IntoFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async { self.attempt().await.expect("an answer") })
    }
}

/// An answer whose body is still coming; the connection is kept only after its end.
pub struct Opened {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub version: Version,
    pub body: Incoming,
    client: Client,
    sender: Option<Sender>,
    upgrade: Option<hyper::upgrade::OnUpgrade>,
}

impl Opened {
    /// The next piece of the body; `None` at its end; an error where it breaks off.
    pub async fn next(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        loop {
            let frame = soon("a piece of the answer", self.body.frame()).await?;
            match frame.map(Frame::into_data) {
                // HTTP/2 may end a body with an empty piece.
                Ok(Ok(piece)) if piece.is_empty() => {}
                Ok(Ok(piece)) => return Some(Ok(piece)),
                Ok(Err(_trailers)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// The next piece as text; panics where there is none.
    pub async fn text(&mut self) -> String {
        let piece = self.next().await.expect("more of the answer").expect("an unbroken answer");
        String::from_utf8_lossy(&piece).into_owned()
    }

    /// Reads the body to its end.
    pub async fn answer(mut self) -> Result<Answer, Failed> {
        let body = soon("the end of an answer", self.body.collect()).await?;
        if let Some(sender) = self.sender.take() {
            self.client.idle.lock().unwrap().push(sender);
        }
        let trailers = body.trailers().cloned().unwrap_or_default();
        let (status, headers, version) = (self.status, self.headers, self.version);
        Ok(Answer { status, headers, version, trailers, body: body.to_bytes() })
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub version: Version,
    pub trailers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }

    /// Of one of the admin API's types.
    pub fn parsed<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {} {:?}", self.status, self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a header in ASCII"))
    }

    /// The name of the upstream that answered, from the JSON that [`super::upstream`]s describe requests with.
    pub fn upstream(&self) -> String {
        self.json()["upstream"].as_str().expect("an answer of a test upstream").to_owned()
    }

    /// The values of a header as the upstream saw it, from that JSON.
    pub fn upstream_saw(&self, name: &str) -> Vec<String> {
        let json = self.json();
        let headers = json["headers"].as_array().expect("an answer of a test upstream");
        headers
            .iter()
            .filter(|line| line[0].as_str().is_some_and(|known| known.eq_ignore_ascii_case(name)))
            .map(|line| line[1].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}
