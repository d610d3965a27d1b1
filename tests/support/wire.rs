use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::soon;

/// A client that says exactly the bytes it is told, for assertions on the wire.
pub async fn raw_client(address: SocketAddr) -> RawClient {
    let stream = TcpStream::connect(address).await.expect("somebody listens");
    RawClient::over(stream)
}

/// The same from another source address, such as `127.0.0.2:0`.
pub async fn raw_client_from(source: SocketAddr, address: SocketAddr) -> RawClient {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(source).expect("the source address is ours");
    RawClient::over(socket.connect(address).await.expect("somebody listens"))
}

pub struct RawClient {
    stream: TcpStream,
    buffer: Vec<u8>,
    ended: bool,
}

impl RawClient {
    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("an open socket");
        RawClient { stream, buffer: Vec::new(), ended: false }
    }

    pub fn local_address(&self) -> SocketAddr {
        self.stream.local_addr().expect("a bound socket")
    }

    /// Panics where the other side no longer listens; see [`RawClient::try_send`].
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_send(bytes).await.expect("the other side still listens");
        self
    }

    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// Ends our sending side; answers still come.
    pub async fn half_close(&mut self) {
        self.try_half_close().await.expect("an open socket");
    }

    pub async fn try_half_close(&mut self) -> std::io::Result<()> {
        self.stream.shutdown().await
    }

    /// Closes with a reset.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("an open socket");
    }

    /// The next answer, interim (1xx) ones included; as much as there is of it where the connection ends early.
    pub async fn response(&mut self) -> Message {
        self.message(false).await
    }

    /// The next answer to a HEAD request: it has no body.
    pub async fn response_to_head(&mut self) -> Message {
        self.message(true).await
    }

    /// The next answer that is not interim.
    pub async fn final_response(&mut self) -> Message {
        loop {
            let message = self.response().await;
            if message.status >= 200 {
                return message;
            }
        }
    }

    /// Everything until the connection ends; `true` where it ended in order, `false` where by a reset.
    pub async fn rest(&mut self) -> (Vec<u8>, bool) {
        let mut orderly = true;
        while !self.ended {
            orderly = self.read().await;
        }
        (std::mem::take(&mut self.buffer), orderly)
    }

    /// Whether the first bytes that come are these; not so where the connection ends before.
    pub async fn rest_starts_with(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        while self.buffer.len() < bytes.as_ref().len() && !self.ended {
            self.read().await;
        }
        self.buffer.starts_with(bytes.as_ref())
    }

    /// Waits for the end of the connection; panics if more than its end comes.
    pub async fn closed(&mut self) {
        let (rest, _) = self.rest().await;
        assert!(rest.is_empty(), "more came before the end: {:?}", String::from_utf8_lossy(&rest));
    }

    /// Reads until these bytes have come; returns everything up to and with them.
    pub async fn read_until(&mut self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        loop {
            if let Some(at) = find(&self.buffer, bytes.as_ref()) {
                return self.buffer.drain(..at + bytes.as_ref().len()).collect();
            }
            assert!(!self.ended, "the connection ended after {:?}", String::from_utf8_lossy(&self.buffer));
            self.read().await;
        }
    }

    /// Whether more came, or the end did in order; a reset is `false`.
    async fn read(&mut self) -> bool {
        let mut piece = [0; 16 << 10];
        let outcome = soon("bytes or the end of a connection", self.stream.read(&mut piece)).await;
        match outcome {
            Ok(length) => {
                self.ended = length == 0;
                self.buffer.extend_from_slice(&piece[..length]);
            }
            Err(_) => self.ended = true,
        }
        outcome.is_ok()
    }

    async fn message(&mut self, to_head: bool) -> Message {
        loop {
            if let Some((message, length)) = Message::parse_response(&self.buffer, to_head, self.ended) {
                self.buffer.drain(..length);
                return message;
            }
            assert!(!self.ended, "no answer but {:?}", String::from_utf8_lossy(&self.buffer));
            self.read().await;
        }
    }
}

/// A message as it was on the wire.
#[derive(Debug, Clone)]
pub struct Message {
    /// `GET / HTTP/1.1` or `HTTP/1.1 200 OK`.
    pub first_line: String,
    /// 0 for a request.
    pub status: u16,
    /// As on the wire: order, spelling, repetitions.
    pub headers: Vec<(String, String)>,
    /// Decoded where it was chunked.
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    pub end: End,
}

/// How a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As its framing says.
    Complete,
    /// With the connection, as is right for a message without length.
    Close,
    /// With the connection, before its end.
    Broken,
}

impl Message {
    /// The first value of a header, whatever its spelling.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// All values of a header.
    pub fn header_lines(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A request's head; its body is whatever follows.
    pub fn request(bytes: &[u8]) -> Option<Message> {
        let (first_line, headers, length) = parse_head(bytes)?;
        let body = bytes[length..].to_vec();
        Some(Message { first_line, status: 0, headers, body, trailers: Vec::new(), end: End::Complete })
    }

    fn parse_response(bytes: &[u8], to_head: bool, ended: bool) -> Option<(Message, usize)> {
        let (first_line, headers, head) = parse_head(bytes)?;
        let status = first_line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let mut message =
            Message { first_line, status, headers, body: Vec::new(), trailers: Vec::new(), end: End::Complete };
        let rest = &bytes[head..];
        if to_head || status < 200 || status == 204 || status == 304 {
            return Some((message, head));
        }
        if message.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            let length = message.read_chunks(rest);
            if length.is_none() && !ended {
                return None;
            }
            message.end = if length.is_some() { End::Complete } else { End::Broken };
            return Some((message, head + length.unwrap_or(rest.len())));
        }
        let length = message.header("content-length").and_then(|length| length.parse::<usize>().ok());
        let have = length.map_or(rest.len(), |length| length.min(rest.len()));
        if length != Some(have) && !ended {
            return None;
        }
        message.end = match length {
            None => End::Close,
            Some(length) if length == have => End::Complete,
            Some(_) => End::Broken,
        };
        message.body = rest[..have].to_vec();
        Some((message, head + have))
    }

    /// The length of the chunked body, if it is whole.
    fn read_chunks(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        loop {
            let line = find(&bytes[at..], b"\r\n")?;
            let size = std::str::from_utf8(&bytes[at..at + line]).ok()?.split(';').next()?.trim().to_owned();
            let size = usize::from_str_radix(&size, 16).expect("a chunk size");
            at += line + 2;
            if size == 0 {
                let end = find(&bytes[at - 2..], b"\r\n\r\n")? + 2;
                self.trailers = header_lines(&bytes[at..at + end]);
                return Some(at + end);
            }
            let have = &bytes[at..bytes.len().min(at + size)];
            self.body.extend_from_slice(have);
            if have.len() < size {
                return None;
            }
            at += size + 2;
            bytes.get(at - 2..at)?;
        }
    }
}

type Head = (String, Vec<(String, String)>, usize);

fn parse_head(bytes: &[u8]) -> Option<Head> {
    let end = find(bytes, b"\r\n\r\n")? + 4;
    let line = find(bytes, b"\r\n")?;
    let first_line = String::from_utf8_lossy(&bytes[..line]).into_owned();
    Some((first_line, header_lines(&bytes[line + 2..end]), end))
}

fn header_lines(bytes: &[u8]) -> Vec<(String, String)> {
    String::from_utf8_lossy(bytes)
        .split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

pub(super) fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
