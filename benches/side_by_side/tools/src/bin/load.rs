//! A very cheap HTTP/1.1 load generator:
//! `load PORT [--conns N] [--secs S] [--rate R] [--path P] [--post BYTES] [--close] [--idle]`.
//!
//! Without a rate each connection asks again as soon as it is answered. With a rate requests are due at fixed times, and
//! latencies count from when a request was due, so a proxy that stalls cannot hide it by slowing us down. `--close` uses
//! a connection for each request. `--idle` asks once on each connection, prints READY and holds them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use side_by_side::{EventFlags, Poll, find, flag, header, number, option, raise_file_limit, seconds, would_block};
use socket2::{Domain, SockAddr, Socket, Type};

fn main() -> io::Result<()> {
    let Some(Ok(port)) = std::env::args().nth(1).map(|port| port.parse()) else {
        eprintln!("load PORT [--conns N] [--secs S] [--rate R] [--path P] [--post BYTES] [--close] [--idle]");
        std::process::exit(64);
    };
    raise_file_limit();
    let settings = Settings {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into(),
        request: request(flag("--close")),
        interval: match option("--rate", 0.0) {
            rate if rate > 0.0 => Some(seconds(option("--conns", 64.0) / rate)),
            _ => None,
        },
        close: flag("--close"),
        idle: flag("--idle"),
    };
    let length = seconds(option("--secs", 1.0));
    let mut load = Load::new(settings, option("--conns", 64))?;
    load.run(length)?;
    println!("{}", load.tally.summary());
    Ok(())
}

fn request(close: bool) -> Vec<u8> {
    let path = option("--path", "/".to_owned());
    let common = "Host: localhost\r\nUser-Agent: load/1\r\nAccept: */*\r\n";
    let close = if close { "Connection: close\r\n" } else { "" };
    let post: usize = option("--post", 0);
    let request = if post > 0 {
        format!("POST {path} HTTP/1.1\r\n{common}{close}Content-Length: {post}\r\n\r\n{}", "y".repeat(post))
    } else {
        format!("GET {path} HTTP/1.1\r\n{common}{close}\r\n")
    };
    request.into_bytes()
}

struct Settings {
    address: SockAddr,
    request: Vec<u8>,
    /// Between two requests of a connection; none asks again at once.
    interval: Option<Duration>,
    close: bool,
    idle: bool,
}

/// What has been counted.
struct Tally {
    begun: Instant,
    last: Instant,
    longest_gap: Duration,
    microseconds: Vec<u32>,
    bytes: u64,
    not_2xx: u64,
    refused: u64,
    broken: u64,
    closed_by_server: u64,
    closed_idle: u64,
    opened: u64,
}

impl Tally {
    fn answered(&mut self, due: Instant, status: u64, now: Instant) {
        self.microseconds.push((now - due).as_micros().try_into().unwrap_or(u32::MAX));
        self.longest_gap = self.longest_gap.max(now - self.last);
        self.last = now;
        self.not_2xx += u64::from(status / 100 != 2);
    }

    fn summary(&mut self) -> String {
        self.microseconds.sort_unstable();
        let (all, seconds) = (&self.microseconds, self.begun.elapsed().as_secs_f64());
        let at = |share: f64| {
            all.get(((all.len() as f64 * share) as usize).min(all.len().wrapping_sub(1))).copied().unwrap_or(0)
        };
        format!(
            "done={} secs={seconds:.3} rps={:.0} non2xx={} e_conn={} e_inflight={} srv_close={} idle_close={} opened={} \
             mb={:.1} p50={} p90={} p99={} p999={} max={} gap_ms={:.1}",
            all.len(),
            all.len() as f64 / seconds,
            self.not_2xx,
            self.refused,
            self.broken,
            self.closed_by_server,
            self.closed_idle,
            self.opened,
            self.bytes as f64 / f64::from(1 << 20),
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            all.last().copied().unwrap_or(0),
            self.longest_gap.as_secs_f64() * 1e3,
        )
    }
}

/// Where in an answer a connection is.
#[derive(Clone, Copy, PartialEq)]
enum Reading {
    Head,
    Length(u64),
    ChunkSize,
    Chunk(u64),
    Trailers,
    UntilClose,
}

struct Connection {
    stream: Option<TcpStream>,
    connecting: bool,
    asking: bool,
    written: usize,
    due: Instant,
    reading: Reading,
    kept: Vec<u8>,
    status: u64,
    closes: bool,
}

struct Load {
    settings: Settings,
    poll: Poll,
    connections: Vec<Connection>,
    /// Connections whose next request is due later.
    later: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Connections to be opened (again).
    shut: Vec<usize>,
    scratch: Vec<u8>,
    tally: Tally,
}

impl Load {
    fn new(settings: Settings, connections: usize) -> io::Result<Self> {
        let begun = Instant::now();
        let due = |number: usize| match settings.interval {
            Some(interval) => begun + interval.mul_f64(number as f64 / connections as f64),
            None => begun,
        };
        let connection = |number| Connection {
            stream: None,
            connecting: false,
            asking: false,
            written: 0,
            due: due(number),
            reading: Reading::Head,
            kept: Vec::new(),
            status: 0,
            closes: false,
        };
        let tally = Tally {
            begun,
            last: begun,
            longest_gap: Duration::ZERO,
            microseconds: Vec::with_capacity(1 << 20),
            bytes: 0,
            not_2xx: 0,
            refused: 0,
            broken: 0,
            closed_by_server: 0,
            closed_idle: 0,
            opened: 0,
        };
        Ok(Load {
            connections: (0..connections).map(connection).collect(),
            shut: (0..connections).collect(),
            settings,
            poll: Poll::new()?,
            later: BinaryHeap::new(),
            scratch: vec![0; 256 << 10],
            tally,
        })
    }

    fn run(&mut self, length: Duration) -> io::Result<()> {
        let mut end = self.tally.begun + length;
        let mut held = false;
        while Instant::now() < end {
            if self.settings.idle && !held && self.tally.microseconds.len() >= self.connections.len() {
                held = true;
                println!("READY");
                end = Instant::now() + length;
            }
            self.send_due();
            self.open_shut();
            let next = self.later.peek().map_or(end, |Reverse((at, _))| (*at).min(end));
            // Connections that could not be opened are tried again soon.
            let next = if self.shut.is_empty() { next } else { next.min(Instant::now() + Duration::from_micros(200)) };
            for (number, flags) in self.poll.wait(Some(next))? {
                if !self.ready(number, flags) {
                    self.ended(number);
                }
            }
        }
        Ok(())
    }

    fn send_due(&mut self) {
        let now = Instant::now();
        while self.later.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Some(Reverse((_, number))) = self.later.pop() else { return };
            let connection = &self.connections[number];
            if connection.stream.is_some() && !connection.asking && !connection.connecting && !self.send(number) {
                self.ended(number);
            }
        }
    }

    fn open_shut(&mut self) {
        for (turn, number) in std::mem::take(&mut self.shut).into_iter().enumerate() {
            if self.connections[number].stream.is_none() && self.open(number).is_err() {
                self.tally.refused += 1;
                self.shut.push(number);
            }
            // Thousands of connections at once overrun the other side's queue.
            if self.settings.idle && turn % 200 == 199 {
                std::thread::sleep(Duration::from_millis(3));
            }
        }
    }

    fn open(&mut self, number: usize) -> io::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&self.settings.address) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                return Err(error);
            }
            _ => {}
        }
        let stream = TcpStream::from(socket);
        self.poll.add(&stream, number, EventFlags::IN | EventFlags::OUT)?;
        self.tally.opened += 1;
        let connection = &mut self.connections[number];
        (connection.connecting, connection.asking, connection.closes) = (true, false, false);
        connection.reading = Reading::Head;
        connection.kept.clear();
        connection.stream = Some(stream);
        Ok(())
    }

    /// Whether the connection lives on.
    fn send(&mut self, number: usize) -> bool {
        let connection = &mut self.connections[number];
        let Some(stream) = &mut connection.stream else { return false };
        if !connection.asking {
            (connection.asking, connection.written) = (true, 0);
        }
        match stream.write(&self.settings.request[connection.written..]) {
            Ok(length) => connection.written += length,
            Err(error) if would_block(&error) => {}
            Err(_) => return false,
        }
        let flags =
            if connection.written < self.settings.request.len() { EventFlags::IN | EventFlags::OUT } else { return true };
        self.poll.modify(stream, number, flags).is_ok()
    }

    /// Whether the connection lives on.
    fn ready(&mut self, number: usize, flags: EventFlags) -> bool {
        let connection = &mut self.connections[number];
        let Some(stream) = &mut connection.stream else { return true };
        if connection.connecting {
            if !matches!(stream.take_error(), Ok(None)) {
                self.tally.refused += 1;
                return false;
            }
            connection.connecting = false;
            if self.poll.modify(&*stream, number, EventFlags::IN).is_err() {
                return false;
            }
            return self.ask_next(number);
        }
        if flags.contains(EventFlags::OUT) {
            if self.poll.modify(&*stream, number, EventFlags::IN).is_err() || !self.send(number) {
                return false;
            }
            return true;
        }
        match stream.read(&mut self.scratch) {
            Ok(0) => false,
            Ok(length) => {
                self.tally.bytes += length as u64;
                let scratch = std::mem::take(&mut self.scratch);
                let complete = connection.take(&scratch[..length]);
                self.scratch = scratch;
                !complete || self.answered(number)
            }
            Err(error) => would_block(&error),
        }
    }

    /// Sends the next request, now or when it is due. Whether the connection lives on.
    fn ask_next(&mut self, number: usize) -> bool {
        let connection = &mut self.connections[number];
        let now = Instant::now();
        if self.settings.interval.is_none() {
            connection.due = now;
        }
        if connection.due <= now {
            return self.send(number);
        }
        self.later.push(Reverse((connection.due, number)));
        true
    }

    /// Whether the connection lives on.
    fn answered(&mut self, number: usize) -> bool {
        let connection = &mut self.connections[number];
        self.tally.answered(connection.due, connection.status, Instant::now());
        (connection.asking, connection.reading) = (false, Reading::Head);
        if let Some(interval) = self.settings.interval {
            connection.due += interval;
        }
        if self.settings.idle {
            return true;
        }
        if self.settings.close || connection.closes {
            self.tally.closed_by_server += u64::from(!self.settings.close);
            connection.stream = None;
            self.shut.push(number);
            return true;
        }
        self.ask_next(number)
    }

    fn ended(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        if connection.stream.take().is_none() {
            return;
        }
        if connection.asking && connection.reading == Reading::UntilClose {
            self.tally.answered(connection.due, connection.status, Instant::now());
        } else if connection.asking {
            self.tally.broken += 1;
        } else if !connection.connecting {
            self.tally.closed_idle += 1;
        }
        if let (true, Some(interval)) = (connection.asking, self.settings.interval) {
            connection.due += interval;
        }
        connection.asking = false;
        if !self.settings.idle {
            self.shut.push(number);
        }
    }
}

impl Connection {
    /// Whether the answer is complete with these bytes.
    fn take(&mut self, bytes: &[u8]) -> bool {
        if self.kept.is_empty() {
            return self.read(bytes);
        }
        let mut all = std::mem::take(&mut self.kept);
        all.extend_from_slice(bytes);
        self.read(&all)
    }

    fn read(&mut self, mut bytes: &[u8]) -> bool {
        loop {
            let line_end = |bytes: &[u8]| find(bytes, b"\r\n");
            match self.reading {
                Reading::Head => match find(bytes, b"\r\n\r\n") {
                    Some(at) => {
                        self.reading = self.read_head(&bytes[..at + 2]);
                        bytes = &bytes[at + 4..];
                    }
                    None => break,
                },
                Reading::Length(left) | Reading::Chunk(left) => {
                    let taken = left.min(bytes.len() as u64);
                    bytes = &bytes[taken as usize..];
                    let chunk = matches!(self.reading, Reading::Chunk(_));
                    match (left - taken, chunk) {
                        (0, true) => self.reading = Reading::ChunkSize,
                        (0, false) => return true,
                        (left, true) => self.reading = Reading::Chunk(left),
                        (left, false) => self.reading = Reading::Length(left),
                    }
                    if left > taken {
                        return false;
                    }
                }
                Reading::ChunkSize => match line_end(bytes) {
                    Some(at) => {
                        let digits = std::str::from_utf8(&bytes[..at]).unwrap_or("0").split(';').next().unwrap_or("0");
                        let size = u64::from_str_radix(digits.trim(), 16).unwrap_or(0);
                        self.reading = if size == 0 { Reading::Trailers } else { Reading::Chunk(size + 2) };
                        bytes = &bytes[at + 2..];
                    }
                    None => break,
                },
                Reading::Trailers => match line_end(bytes) {
                    Some(0) => return true,
                    Some(at) => bytes = &bytes[at + 2..],
                    None => break,
                },
                Reading::UntilClose => return false,
            }
        }
        self.kept = bytes.to_vec();
        false
    }

    fn read_head(&mut self, head: &[u8]) -> Reading {
        let head = head.to_ascii_lowercase();
        self.status = number(head.get(8..).unwrap_or_default());
        self.closes = header(&head, "connection").is_some_and(|value| value.trim_ascii_start().starts_with(b"close"));
        if (100..200).contains(&self.status) {
            return Reading::Head;
        }
        match header(&head, "content-length") {
            Some(length) => Reading::Length(number(length)),
            None if header(&head, "transfer-encoding").is_some() => Reading::ChunkSize,
            None if matches!(self.status, 204 | 304) => Reading::Length(0),
            None => Reading::UntilClose,
        }
    }
}
