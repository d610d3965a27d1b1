use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::wire::{Message, find};

/// An upstream that does on the wire exactly what it is told, and remembers exactly what it received:
/// `scripted().reads_request().sends("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe").cuts().start().await`.
///
/// The steps are done once for each connection (see [`Script::again`]); then it is closed.
pub fn scripted() -> Script {
    Script { connections: vec![Vec::new()] }
}

/// Steps for connections in the order they come; the last list also serves all later ones.
#[derive(Clone)]
pub struct Script {
    connections: Vec<Vec<Step>>,
}

#[derive(Clone)]
enum Step {
    ReadRequest,
    ReadUntil(Vec<u8>),
    ReadSome,
    Send(Vec<u8>),
    Pause(Duration),
    HalfClose,
    Cut,
    Hold,
    Again,
}

impl Script {
    fn step(mut self, step: Step) -> Self {
        self.connections.last_mut().expect("there is always a list").push(step);
        self
    }

    /// Reads a request's head, and its body if it has a `Content-Length` or is chunked.
    pub fn reads_request(self) -> Self {
        self.step(Step::ReadRequest)
    }

    /// Reads until these bytes have come.
    pub fn reads_until(self, bytes: impl AsRef<[u8]>) -> Self {
        self.step(Step::ReadUntil(bytes.as_ref().to_vec()))
    }

    /// Reads whatever comes next.
    pub fn reads_some(self) -> Self {
        self.step(Step::ReadSome)
    }

    pub fn sends(self, bytes: impl AsRef<[u8]>) -> Self {
        self.step(Step::Send(bytes.as_ref().to_vec()))
    }

    pub fn pauses(self, span: Duration) -> Self {
        self.step(Step::Pause(span))
    }

    /// Ends its sending side.
    pub fn half_closes(self) -> Self {
        self.step(Step::HalfClose)
    }

    /// Closes with a reset.
    pub fn cuts(self) -> Self {
        self.step(Step::Cut)
    }

    /// Reads, and answers nothing, until the other side closes.
    pub fn holds(self) -> Self {
        self.step(Step::Hold)
    }

    /// Starts over with this connection's first step.
    pub fn again(self) -> Self {
        self.step(Step::Again)
    }

    /// The steps that follow are for the next connection.
    pub fn next_connection(mut self) -> Self {
        self.connections.push(Vec::new());
        self
    }

    /// Answers every request with these bytes, on kept-alive connections.
    pub fn answers(self, bytes: impl AsRef<[u8]>) -> Self {
        self.reads_request().sends(bytes).again()
    }

    pub async fn start(self) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let received = Received::default();
        let accepting = tokio::spawn(accept(listener, self.connections, received.clone()));
        Scripted { address, received, accepting }
    }
}

type Received = Arc<Mutex<Vec<Vec<u8>>>>;

/// A running script; gone when dropped.
pub struct Scripted {
    address: SocketAddr,
    received: Received,
    accepting: JoinHandle<()>,
}

impl Scripted {
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn socket_address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections have come.
    pub fn connections(&self) -> usize {
        self.received.lock().unwrap().len()
    }

    /// All bytes that came on the connection of this number, from 0; lossy, for assertions on text.
    pub fn received(&self, connection: usize) -> String {
        String::from_utf8_lossy(&self.received_bytes(connection)).into_owned()
    }

    pub fn received_bytes(&self, connection: usize) -> Vec<u8> {
        self.received.lock().unwrap().get(connection).cloned().unwrap_or_default()
    }

    /// The first request that came on this connection, parsed.
    pub fn request(&self, connection: usize) -> Message {
        Message::request(&self.received_bytes(connection)).expect("a whole request head came")
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, scripts: Vec<Vec<Step>>, received: Received) {
    let mut running = JoinSet::new();
    for number in 0.. {
        let Ok((stream, _)) = listener.accept().await else { return };
        let _ = stream.set_nodelay(true);
        received.lock().unwrap().push(Vec::new());
        let steps = scripts[number.min(scripts.len() - 1)].clone();
        let conversation = Conversation { stream, number, received: received.clone(), consumed: 0 };
        running.spawn(conversation.follow(steps));
    }
}

struct Conversation {
    stream: TcpStream,
    number: usize,
    received: Received,
    /// How much of what was received earlier steps have used up.
    consumed: usize,
}

impl Conversation {
    /// Ends early where the other side does.
    async fn follow(mut self, steps: Vec<Step>) -> Option<()> {
        loop {
            let mut again = false;
            for step in &steps {
                match step {
                    Step::ReadRequest => self.read_request().await?,
                    Step::ReadUntil(bytes) => self.read_until(bytes).await?,
                    Step::ReadSome => {
                        self.read().await?;
                        self.consumed = self.unread(0).len();
                    }
                    Step::Send(bytes) => self.stream.write_all(bytes).await.ok()?,
                    Step::Pause(span) => tokio::time::sleep(*span).await,
                    Step::HalfClose => self.stream.shutdown().await.ok()?,
                    Step::Hold => while self.read().await.is_some() {},
                    Step::Cut => {
                        let linger = Some(Duration::ZERO);
                        socket2::SockRef::from(&self.stream).set_linger(linger).ok()?;
                        return None;
                    }
                    Step::Again => again = true,
                }
            }
            if !again {
                return Some(());
            }
        }
    }

    async fn read(&mut self) -> Option<()> {
        let mut buffer = [0; 16 << 10];
        let length = self.stream.read(&mut buffer).await.ok().filter(|length| *length > 0)?;
        self.received.lock().unwrap()[self.number].extend_from_slice(&buffer[..length]);
        Some(())
    }

    fn unread(&self, from: usize) -> Vec<u8> {
        self.received.lock().unwrap()[self.number][from..].to_vec()
    }

    async fn read_until(&mut self, bytes: &[u8]) -> Option<()> {
        loop {
            if let Some(at) = find(&self.unread(self.consumed), bytes) {
                self.consumed += at + bytes.len();
                return Some(());
            }
            self.read().await?;
        }
    }

    async fn read_request(&mut self) -> Option<()> {
        let start = self.consumed;
        self.read_until(b"\r\n\r\n").await?;
        let request = Message::request(&self.unread(start))?;
        if request.header("transfer-encoding").is_some() {
            return self.read_until(b"0\r\n\r\n").await;
        }
        let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        while self.unread(self.consumed).len() < length {
            self.read().await?;
        }
        self.consumed += length;
        Some(())
    }
}
