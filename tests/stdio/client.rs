//! A bridge in a thread of its own, and clients that speak Streamable HTTP with it.
#![allow(unreachable_pub)] // As in `support`.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tidegate::stdio::{Bridge, Handle, Settings};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use crate::support::soon;

/// Settings that run the scripted server.
pub fn scripted(arguments: &[&str]) -> Settings {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stdio/server.py");
    Settings::new("tools", ["python3", script].into_iter().chain(arguments.iter().copied()))
}

/// A bridge that runs.
pub struct Bridged {
    pub path: PathBuf,
    pub handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

pub fn bridge(settings: Settings) -> Bridged {
    let bridge = Bridge::open(settings).expect("a bridge");
    let (path, handle) = (bridge.path().to_owned(), bridge.handle());
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let local = tokio::task::LocalSet::new();
        let run = async { bridge.run(async { drop(stopped.await) }).await.expect("it runs") };
        local.block_on(&runtime, run);
    });
    Bridged { path, handle, stop: Some(stop), thread: Some(thread) }
}

impl Bridged {
    /// Ends it as a whole and waits for that.
    pub fn stop(mut self) {
        drop(self.stop.take());
        self.thread.take().expect("it runs").join().expect("it ends well");
    }

    /// One more client, which is initialized.
    pub async fn client(&self) -> Client {
        self.client_as("", json!({})).await
    }

    pub async fn client_as(&self, principal: &str, capabilities: Value) -> Client {
        let mut client = self.stranger(principal);
        client.initialize(capabilities).await;
        client
    }

    /// A client without a session.
    pub fn stranger(&self, principal: &str) -> Client {
        Client { principal: principal.to_owned(), ..at(&self.path) }
    }
}

/// A client without a session, of a bridge that listens there.
pub fn at(path: &Path) -> Client {
    let accept = "application/json, text/event-stream".to_owned();
    Client { path: path.to_owned(), session: None, principal: String::new(), version: None, accept, next: 1 }
}

impl Drop for Bridged {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the bridge panicked");
        }
    }
}

#[derive(Clone)]
pub struct Client {
    pub path: PathBuf,
    pub session: Option<String>,
    pub principal: String,
    pub version: Option<&'static str>,
    pub accept: String,
    pub next: u64,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub kind: String,
    pub session: Option<String>,
    pub text: String,
}

impl Answer {
    /// The one message.
    pub fn message(&self) -> Value {
        self.messages().pop().unwrap_or_else(|| panic!("no message in {self:?}"))
    }

    /// All messages, in order.
    pub fn messages(&self) -> Vec<Value> {
        let parse = |text: &str| serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        if self.kind != "text/event-stream" {
            return if self.text.is_empty() { vec![] } else { vec![parse(&self.text)] };
        }
        self.text.lines().filter_map(|line| line.strip_prefix("data: ")).map(parse).collect()
    }

    /// What the called tool has said.
    pub fn said(&self) -> String {
        let message = self.message();
        message["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{message}")).to_owned()
    }

    pub fn code(&self) -> i64 {
        self.message()["error"]["code"].as_i64().unwrap_or_else(|| panic!("no error in {self:?}"))
    }
}

/// An answer that still comes.
pub struct Stream {
    pub status: u16,
    body: Incoming,
    buffer: String,
    _connection: Connection,
}

impl Stream {
    /// The next event's message.
    pub async fn next(&mut self) -> Value {
        soon("an event", async {
            loop {
                if let Some(end) = self.buffer.find("\n\n") {
                    let event: String = self.buffer.drain(..end + 2).collect();
                    let data = event.lines().find_map(|line| line.strip_prefix("data: ")).expect("data");
                    return serde_json::from_str(data).expect("a message");
                }
                let frame = self.body.frame().await.expect("the stream goes on").expect("it is whole");
                self.buffer.push_str(std::str::from_utf8(frame.data_ref().expect("data")).expect("text"));
            }
        })
        .await
    }

    /// Returns once it has ended.
    pub async fn ends(mut self) {
        soon("the end", async { while self.body.frame().await.is_some() {} }).await;
    }
}

/// Closed when it is dropped.
struct Connection(tokio::task::JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    async fn send(&self, method: &str, body: Bytes) -> (Response<Incoming>, Connection) {
        send(&self.path, self.request(method, body)).await
    }

    fn request(&self, method: &str, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(method).uri("/mcp").header("host", "bridge");
        request = request.header("accept", &self.accept).header("content-type", "application/json");
        if let Some(session) = &self.session {
            request = request.header("mcp-session-id", session);
        }
        if let Some(version) = self.version {
            request = request.header("mcp-protocol-version", version);
        }
        if !self.principal.is_empty() {
            request = request.header("tidegate-principal", &self.principal);
        }
        request.body(Full::new(body)).expect("a request")
    }

    pub async fn initialize(&mut self, capabilities: Value) {
        let params = json!({"protocolVersion": "2025-06-18", "capabilities": capabilities, "clientInfo": {"name": "test", "version": "1"}});
        let answer = self.post(&json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})).await;
        assert_eq!(
            (answer.status, &answer.message()["result"]["protocolVersion"]),
            (200, &json!("2025-06-18")),
            "{answer:?}"
        );
        self.session = answer.session;
        let answer = self.post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
        assert_eq!((answer.status, answer.text.as_str()), (202, ""));
    }

    pub async fn raw(&self, method: &str, body: impl Into<Bytes>) -> Answer {
        let (response, _connection) = self.send(method, body.into()).await;
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().expect("text").to_owned());
        let (status, kind, session) = (response.status().as_u16(), header("content-type"), header("mcp-session-id"));
        let body = soon("the body", response.into_body().collect()).await.expect("a whole body").to_bytes();
        let text = String::from_utf8(body.to_vec()).expect("text");
        Answer { status, kind: kind.unwrap_or_default(), session, text }
    }

    pub async fn post(&self, message: &Value) -> Answer {
        self.raw("POST", message.to_string()).await
    }

    pub fn call_message(&mut self, tool: &str, arguments: Value) -> Value {
        self.next += 1;
        let meta = json!({"progressToken": format!("token-{}", self.next), "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}});
        json!({"jsonrpc": "2.0", "id": self.next, "method": "tools/call", "params": {"name": tool, "arguments": arguments, "_meta": meta}})
    }

    /// Calls a tool; the answer has the call's id.
    pub async fn call(&mut self, tool: &str, arguments: Value) -> Answer {
        let message = self.call_message(tool, arguments);
        let answer = self.post(&message).await;
        assert_eq!((answer.status, &answer.message()["id"]), (200, &message["id"]), "{answer:?}");
        answer
    }

    /// Begins a call; dropped, the client leaves.
    pub async fn begin(&mut self, tool: &str, arguments: Value) -> Stream {
        let message = self.call_message(tool, arguments);
        self.open("POST", message.to_string()).await
    }

    /// The session's own stream.
    pub async fn stream(&self) -> Stream {
        self.open("GET", "").await
    }

    async fn open(&self, method: &str, body: impl Into<Bytes>) -> Stream {
        let (response, connection) = self.send(method, body.into()).await;
        let status = response.status().as_u16();
        Stream { status, body: response.into_body(), buffer: String::new(), _connection: connection }
    }

    /// The process that the session has now.
    pub async fn pid(&mut self) -> u32 {
        self.call("pid", json!({})).await.said().parse().expect("a number")
    }

    /// The methods that the process has received.
    pub async fn received(&mut self) -> Vec<String> {
        let said: Value = serde_json::from_str(&self.call("received", json!({})).await.said()).expect("JSON");
        said.as_array().expect("a list").iter().map(|one| one[0].as_str().expect("a method").to_owned()).collect()
    }
}

async fn send(path: &Path, request: Request<Full<Bytes>>) -> (Response<Incoming>, Connection) {
    let stream = UnixStream::connect(path).await.expect("the bridge is there");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("a connection");
    let connection = Connection(tokio::spawn(async { drop(connection.await) }));
    let response = soon("an answer", sender.send_request(request)).await.expect("an answer");
    (response, connection)
}

/// Whether a process is there and not only waits for its parent.
pub fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z"))
}
