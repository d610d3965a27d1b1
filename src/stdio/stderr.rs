//! What servers say beside the protocol: into the log, a line each, within bounds.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::scaler::process::clean;

/// Longer lines are logged in parts of this.
const LONGEST: usize = 4096;
/// So many lines at once, and so many a second, are logged.
const BURST: f64 = 200.0;
const RATE: f64 = 50.0;

/// The lines of one process.
#[derive(Debug)]
pub(super) struct Words {
    pool: String,
    pid: u32,
    last: RefCell<String>,
    room: Cell<f64>,
    at: Cell<Instant>,
    skipped: Cell<u64>,
}

impl Words {
    pub(super) fn new(pool: &str, pid: u32) -> Rc<Words> {
        let (last, room, at, skipped) = (RefCell::default(), Cell::new(BURST), Cell::new(Instant::now()), Cell::new(0));
        Rc::new(Words { pool: pool.to_owned(), pid, last, room, at, skipped })
    }

    /// The last line that said something; empty if there was none.
    pub(super) fn last(&self) -> String {
        self.last.borrow().clone()
    }

    /// A line on standard error.
    fn said(&self, line: &[u8]) {
        let text = clean(line);
        if text.trim().is_empty() {
            return;
        }
        if self.admit() {
            tracing::info!(target: "tidegate::stdio", pool = %self.pool, pid = self.pid, "{text}");
        }
        *self.last.borrow_mut() = text.chars().take(200).collect();
    }

    /// A line on standard output that is no message.
    pub(super) fn strayed(&self, line: &[u8], why: &str) {
        if self.admit() {
            let text = clean(&line[..line.len().min(200)]);
            tracing::warn!(target: "tidegate::stdio", pool = %self.pool, pid = self.pid, why, "dropped a line of the server's output that is no JSON-RPC message: {text}");
        }
    }

    /// Whether one more line may be logged now.
    fn admit(&self) -> bool {
        let now = Instant::now();
        let gained = now.duration_since(self.at.replace(now)).as_secs_f64() * RATE;
        let room = (self.room.get() + gained).min(BURST);
        if room < 1.0 {
            self.room.set(room);
            self.skipped.set(self.skipped.get() + 1);
            return false;
        }
        self.room.set(room - 1.0);
        self.tell_skipped();
        true
    }

    fn tell_skipped(&self) {
        let skipped = self.skipped.take();
        if skipped > 0 {
            tracing::warn!(target: "tidegate::stdio", pool = %self.pool, pid = self.pid, "{skipped} lines of output were not logged: it writes faster than {RATE} lines a second");
        }
    }

    /// Reads to the end.
    pub(super) async fn listen(self: Rc<Self>, mut from: impl AsyncRead + Unpin) {
        let mut bytes = Vec::with_capacity(LONGEST);
        while let Ok(1..) = (&mut from).take((LONGEST - bytes.len()) as u64).read_buf(&mut bytes).await {
            let mut rest = bytes.as_slice();
            while let Some(end) = memchr::memchr(b'\n', rest) {
                self.said(&rest[..end]);
                rest = &rest[end + 1..];
            }
            if rest.len() == LONGEST {
                self.said(rest);
                rest = &[];
            }
            let read = bytes.len() - rest.len();
            bytes.drain(..read);
        }
        self.said(&bytes);
        self.tell_skipped();
    }
}
