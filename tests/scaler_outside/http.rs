//! A server that answers as a test says and remembers what it was asked.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// With its query.
    pub(crate) path: String,
    /// Lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let line = self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.map(str::to_owned)
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Status(u16, String),
    /// Nothing, for ever.
    Silence,
}

/// Answers the queued replies, then the last one again and again.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) asked: Rc<RefCell<Vec<Asked>>>,
    replies: Rc<RefCell<VecDeque<Reply>>>,
}

pub(crate) fn ok(body: impl Into<String>) -> Reply {
    Reply::Status(200, body.into())
}

impl Server {
    /// Within a `LocalSet`.
    pub(crate) async fn start(replies: impl IntoIterator<Item = Reply>) -> Server {
        Server::at(TcpListener::bind("127.0.0.1:0").await.unwrap(), replies)
    }

    fn at(listener: TcpListener, replies: impl IntoIterator<Item = Reply>) -> Server {
        let address = listener.local_addr().unwrap();
        let server =
            Server { address, asked: Rc::default(), replies: Rc::new(RefCell::new(replies.into_iter().collect())) };
        let serving = server.clone();
        tokio::task::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::task::spawn_local(serving.clone().serve(stream));
            }
        });
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What is answered from now on.
    pub(crate) fn answers(&self, replies: impl IntoIterator<Item = Reply>) {
        *self.replies.borrow_mut() = replies.into_iter().collect();
    }

    pub(crate) fn count(&self) -> usize {
        self.asked.borrow().len()
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut bytes = Vec::new();
        let (head, length) = loop {
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
            let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let lower = head.to_ascii_lowercase();
            let length =
                lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0usize);
            if bytes.len() >= end + 4 + length {
                break (head, end + 4);
            }
        };
        let path = head.split_ascii_whitespace().nth(1).unwrap().to_owned();
        self.asked.borrow_mut().push(Asked { path, head: head.to_ascii_lowercase(), body: bytes[length..].to_vec() });
        let reply = {
            let mut replies = self.replies.borrow_mut();
            if replies.len() > 1 { replies.pop_front().unwrap() } else { replies.front().cloned().unwrap() }
        };
        match reply {
            Reply::Status(status, body) => {
                let answer = format!(
                    "HTTP/1.1 {status} Test\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
            // Until the client has enough of it.
            Reply::Silence => drop(stream.read(&mut [0]).await),
        }
    }
}

/// Runs a test as the scaler's thread runs: on one thread, with local tasks.
pub(crate) fn local(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

/// Returns the first thing that `look` finds.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(std::time::Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
