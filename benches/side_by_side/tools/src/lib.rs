//! What backend and load generator have in common: an epoll that gives back tokens, and a few bytes of HTTP.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData};
pub use rustix::event::epoll::{Event, EventFlags};
use rustix::process::{Resource, getrlimit, setrlimit};

/// Level-triggered readiness of any number of sockets.
pub struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poll {
    pub fn new() -> io::Result<Self> {
        Ok(Poll { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(1024) })
    }

    pub fn add(&self, socket: impl AsFd, token: usize, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(token as u64), flags)?)
    }

    pub fn modify(&self, socket: impl AsFd, token: usize, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, socket, EventData::new_u64(token as u64), flags)?)
    }

    /// Waits until something is ready or the time has come; gives tokens with what they are ready for.
    pub fn wait(&mut self, until: Option<Instant>) -> io::Result<Vec<(usize, EventFlags)>> {
        let timeout = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = timeout.map(|span| span.try_into().unwrap_or_default());
        self.events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // Packed fields are read by value.
        Ok(self.events.iter().map(|event| ({ event.data }.u64() as usize, { event.flags })).collect())
    }
}

/// As many open files as we may have.
pub fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // With fewer the benchmark says so by itself.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Where `what` begins.
pub fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    let (&first, _) = what.split_first()?;
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|&byte| byte == first) {
        let at = from + at;
        if bytes[at..].starts_with(what) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

/// The digits that the bytes start with, after spaces.
pub fn number(bytes: &[u8]) -> u64 {
    let digits = bytes.iter().skip_while(|byte| **byte == b' ').take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

/// The value of a header of a head in lower case.
pub fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let at = find(head, format!("\r\n{name}:").as_bytes())?;
    Some(&head[at + name.len() + 3..])
}

/// Whether an operation only has to wait.
pub fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// `--name VALUE` among the arguments.
pub fn option<T: std::str::FromStr>(name: &str, otherwise: T) -> T {
    let mut arguments = std::env::args().skip_while(|argument| argument != name).skip(1);
    match arguments.next() {
        None => otherwise,
        Some(text) => text.parse().unwrap_or_else(|_| {
            eprintln!("{name} {text}: not understood");
            std::process::exit(64)
        }),
    }
}

/// `--name` among the arguments.
pub fn flag(name: &str) -> bool {
    std::env::args().any(|argument| argument == name)
}

/// Seconds as a span.
pub fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.max(0.0))
}
