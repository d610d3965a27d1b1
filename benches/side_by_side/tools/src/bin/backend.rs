//! A very cheap HTTP/1.1 backend: `backend FIRST_PORT COUNT`.
//!
//! `/` answers 13 bytes, `/b/N` N bytes, `/hold/MS` after so many milliseconds. Bodies of requests are read and forgotten.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use side_by_side::{EventFlags, Poll, find, header, number, raise_file_limit, would_block};

/// The most of a body that is written at once.
const BLOCK: usize = 1 << 20;
const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\nServer: b\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world!";

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    /// Bytes of a request's body that are still to come.
    skip: usize,
    head: Vec<u8>,
    written: usize,
    body: usize,
    waits_to_write: bool,
}

struct Backend {
    poll: Poll,
    listeners: Vec<TcpListener>,
    connections: HashMap<usize, Connection>,
    next: usize,
    held: VecDeque<(Instant, usize)>,
    scratch: Vec<u8>,
    block: Vec<u8>,
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u16>());
    let (Some(Ok(first)), Some(Ok(count))) = (arguments.next(), arguments.next()) else {
        eprintln!("backend FIRST_PORT COUNT");
        std::process::exit(64);
    };
    raise_file_limit();
    let poll = Poll::new()?;
    let mut listeners = Vec::new();
    for (token, port) in (first..first + count).enumerate() {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        listener.set_nonblocking(true)?;
        poll.add(&listener, token, EventFlags::IN)?;
        listeners.push(listener);
    }
    let next = listeners.len();
    let (scratch, block) = (vec![0; 64 << 10], vec![b'x'; BLOCK]);
    let held = VecDeque::new();
    Backend { poll, listeners, connections: HashMap::new(), next, held, scratch, block }.run()
}

impl Backend {
    fn run(&mut self) -> io::Result<()> {
        loop {
            let ready = self.poll.wait(self.held.front().map(|(at, _)| *at))?;
            self.release()?;
            for (token, flags) in ready {
                if token < self.listeners.len() {
                    self.accept(token)?;
                } else if !self.serve(token, flags) {
                    self.connections.remove(&token);
                }
            }
        }
    }

    fn accept(&mut self, listener: usize) -> io::Result<()> {
        while let Ok((stream, _)) = self.listeners[listener].accept() {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            self.poll.add(&stream, self.next, EventFlags::IN)?;
            let connection = Connection {
                stream,
                input: Vec::new(),
                skip: 0,
                head: Vec::new(),
                written: 0,
                body: 0,
                waits_to_write: false,
            };
            self.connections.insert(self.next, connection);
            self.next += 1;
        }
        Ok(())
    }

    /// Answers those that have been held long enough.
    fn release(&mut self) -> io::Result<()> {
        while self.held.front().is_some_and(|(at, _)| *at <= Instant::now()) {
            let Some((_, token)) = self.held.pop_front() else { break };
            if let Some(connection) = self.connections.get_mut(&token) {
                connection.head.extend_from_slice(HELLO);
                if !connection.flush(&self.poll, token, &self.block) {
                    self.connections.remove(&token);
                }
            }
        }
        Ok(())
    }

    /// Whether the connection lives on.
    fn serve(&mut self, token: usize, flags: EventFlags) -> bool {
        let Some(connection) = self.connections.get_mut(&token) else { return true };
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            match connection.stream.read(&mut self.scratch) {
                Ok(0) => return false,
                Ok(length) => connection.take(&self.scratch[..length]),
                Err(error) if would_block(&error) => {}
                Err(_) => return false,
            }
        }
        while connection.is_idle() {
            match connection.next_request() {
                None => break,
                Some(Asked::Bytes(length)) => connection.answer(length),
                Some(Asked::Hold(span)) => self.held.push_back((Instant::now() + span, token)),
            }
            if !connection.flush(&self.poll, token, &self.block) {
                return false;
            }
        }
        connection.flush(&self.poll, token, &self.block)
    }
}

enum Asked {
    Bytes(usize),
    Hold(Duration),
}

impl Connection {
    fn is_idle(&self) -> bool {
        self.written == self.head.len() && self.body == 0
    }

    fn take(&mut self, bytes: &[u8]) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        self.input.extend_from_slice(&bytes[skipped..]);
    }

    fn next_request(&mut self) -> Option<Asked> {
        let end = find(&self.input, b"\r\n\r\n")? + 4;
        let head = &self.input[..end];
        let path = &head[find(head, b" ")? + 1..];
        let asked = match path {
            [b'/', b'b', b'/', rest @ ..] => Asked::Bytes(number(rest) as usize),
            [b'/', b'h', b'o', b'l', b'd', b'/', rest @ ..] => Asked::Hold(Duration::from_millis(number(rest))),
            _ => Asked::Bytes(13),
        };
        let body = if head.starts_with(b"P") {
            header(&head.to_ascii_lowercase(), "content-length").map_or(0, number) as usize
        } else {
            0
        };
        let here = (end + body).min(self.input.len());
        self.skip = end + body - here;
        self.input.drain(..here);
        Some(asked)
    }

    fn answer(&mut self, length: usize) {
        (self.written, self.body) = (0, 0);
        self.head.clear();
        if length == 13 {
            self.head.extend_from_slice(HELLO);
            return;
        }
        self.body = length;
        let kind = "application/octet-stream";
        let head = format!("HTTP/1.1 200 OK\r\nServer: b\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
        self.head.extend_from_slice(head.as_bytes());
    }

    /// Whether the connection lives on.
    fn flush(&mut self, poll: &Poll, token: usize, block: &[u8]) -> bool {
        while !self.is_idle() {
            let head = &self.head[self.written..];
            let body = &block[..self.body.min(block.len())];
            match self.stream.write_vectored(&[IoSlice::new(head), IoSlice::new(body)]) {
                Ok(length) => {
                    let of_head = length.min(head.len());
                    self.written += of_head;
                    self.body -= length - of_head;
                }
                Err(error) if would_block(&error) => {
                    self.waits_to_write = true;
                    return poll.modify(&self.stream, token, EventFlags::IN | EventFlags::OUT).is_ok();
                }
                Err(_) => return false,
            }
        }
        let waited = std::mem::take(&mut self.waits_to_write);
        !waited || poll.modify(&self.stream, token, EventFlags::IN).is_ok()
    }
}
