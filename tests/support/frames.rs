use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::soon;

/// An HTTP/2 client that sends exactly the frames it is told, right or wrong.
///
/// It has said its preface and empty settings; what the other side asks for (acknowledgements) is answered while it [reads](Frames::next).
pub async fn http2_client(address: SocketAddr) -> Frames {
    let stream = TcpStream::connect(address).await.expect("somebody listens");
    stream.set_nodelay(true).expect("an open socket");
    let mut frames = Frames { stream, buffer: Vec::new(), ended: false };
    frames.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    frames.send(frame(SETTINGS, 0, 0, b"")).await;
    frames
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub struct Frames {
    stream: TcpStream,
    buffer: Vec<u8>,
    ended: bool,
}

/// What has become of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    Taken,
    /// The other side takes no more.
    Held,
    Ended,
}

/// A frame that came.
#[derive(Debug, Clone)]
pub struct Received {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Header fields as HPACK literals that leave no trace in the table (RFC 7541 §6.2.2).
pub fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        string(&mut bytes, name.as_ref());
        string(&mut bytes, value.as_ref());
    }
    bytes
}

fn string(bytes: &mut Vec<u8>, text: &[u8]) {
    if text.len() < 127 {
        bytes.push(text.len() as u8);
    } else {
        bytes.push(127);
        let mut rest = text.len() - 127;
        while rest >= 128 {
            bytes.push((rest % 128) as u8 | 128);
            rest /= 128;
        }
        bytes.push(rest as u8);
    }
    bytes.extend_from_slice(text);
}

/// A request without a body, as its one frame.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)];
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&fields))
}

impl Frames {
    /// Panics where the other side no longer listens; see [`Frames::try_send`].
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_send(bytes).await.expect("the other side still listens");
        self
    }

    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// Sends as much as is taken, and reads what comes meanwhile unless it is deaf.
    pub async fn push(&mut self, bytes: &[u8], deaf: bool) -> Pushed {
        /// Longer than anybody who takes anything pauses.
        const PAUSE: Duration = Duration::from_secs(3);
        let (mut reads, mut writes) = self.stream.split();
        let (mut at, mut piece) = (0, [0; 16 << 10]);
        while at < bytes.len() {
            tokio::select! {
                written = writes.write(&bytes[at..]) => match written {
                    Ok(length) => at += length,
                    Err(_) => return Pushed::Ended,
                },
                read = reads.read(&mut piece), if !deaf => match read {
                    Ok(length) if length > 0 => self.buffer.extend_from_slice(&piece[..length]),
                    _ => {
                        self.ended = true;
                        return Pushed::Ended;
                    }
                },
                () = tokio::time::sleep(PAUSE) => return Pushed::Held,
            }
        }
        Pushed::Taken
    }

    /// The next frame; nothing where the connection has ended. Settings and pings are acknowledged.
    pub async fn next(&mut self) -> Option<Received> {
        loop {
            if let Some(received) = self.take() {
                if matches!(received.kind, SETTINGS | PING) && received.flags & ACK == 0 {
                    let payload = if received.kind == PING { &received.payload[..] } else { b"" };
                    // What it does not hear it does not need.
                    let _ = self.try_send(frame(received.kind, ACK, 0, payload)).await;
                }
                return Some(received);
            }
            if self.ended {
                return None;
            }
            let mut piece = [0; 16 << 10];
            let length = soon("frames or the end of a connection", self.stream.read(&mut piece)).await.unwrap_or(0);
            self.ended = length == 0;
            self.buffer.extend_from_slice(&piece[..length]);
        }
    }

    /// The first frame that `fits`; nothing where the connection ends before.
    pub async fn find(&mut self, fits: impl Fn(&Received) -> bool) -> Option<Received> {
        loop {
            let received = self.next().await?;
            if fits(&received) {
                return Some(received);
            }
        }
    }

    /// How a stream ends; nothing where the connection ends before.
    pub async fn outcome(&mut self, stream: u32) -> Option<Outcome> {
        let mut status = None;
        loop {
            let received = self.next().await?;
            if received.stream != stream {
                continue;
            }
            if received.kind == HEADERS && status.is_none() {
                status = Some(Status::of(&received.payload));
            }
            match (received.kind, status) {
                (RST_STREAM, _) => return Some(Outcome::Reset(code(&received.payload))),
                (HEADERS | DATA, Some(status)) if received.flags & END_STREAM != 0 => {
                    return Some(Outcome::Answered(status));
                }
                _ => {}
            }
        }
    }

    fn take(&mut self) -> Option<Received> {
        let head: [u8; 9] = self.buffer.get(..9)?.try_into().expect("nine bytes");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = self.buffer.get(9..9 + length)?.to_vec();
        self.buffer.drain(..9 + length);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Received { kind: head[3], flags: head[4], stream, payload })
    }
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Answered(Status),
    Reset(u32),
}

/// What the first field of an answer's head says; only what the static table has (RFC 7541 appendix A) is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Known(u16),
    Other,
}

impl Status {
    fn of(block: &[u8]) -> Status {
        // Updates of the table's size may come first.
        let first = block.iter().find(|byte| **byte & 0xe0 != 0x20);
        match first {
            Some(index @ 0x88..=0x8e) => Status::Known([200, 204, 206, 304, 400, 404, 500][usize::from(index - 0x88)]),
            _ => Status::Other,
        }
    }
}

/// The error code that ends a GOAWAY or an RST_STREAM frame's fixed part.
pub fn code(payload: &[u8]) -> u32 {
    let at = payload.len().min(8).saturating_sub(4);
    payload.get(at..at + 4).map_or(u32::MAX, |code| u32::from_be_bytes(code.try_into().expect("four bytes")))
}
