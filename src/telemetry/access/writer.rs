use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::telemetry::LogStats;

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// A file, appended to and made if absent.
    File(PathBuf),
}

impl Target {
    fn open(&self) -> io::Result<File> {
        match self {
            Target::Off => OpenOptions::new().write(true).open("/dev/null"),
            Target::Stdout => io::stdout().as_fd().try_clone_to_owned().map(File::from),
            // A named pipe that nobody reads is an error at once, where it would otherwise hold up whoever opens it.
            Target::File(path) => OpenOptions::new()
                .append(true)
                .create(true)
                .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
                .open(path),
        }
    }
}

/// Whole lines on their way.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    pub(super) lines: u32,
}

/// The writer has no room for this.
pub(super) struct Refused(pub(super) Chunk);

enum Message {
    Chunk(Chunk),
    /// Something was asked for in [`Orders`].
    Wake,
}

/// What the writer is to do before it writes on. Beside the queue, because the queue may be full.
#[derive(Debug, Default)]
struct Orders {
    reopen: bool,
    switch: Option<(Target, File)>,
    /// End, and wait for no slow target after this.
    close_by: Option<Instant>,
}

/// The access log: a bounded queue, and the thread that writes it out.
///
/// **Bounds**: 8 MiB of lines wait at most; then workers drop theirs, counted.
#[derive(Debug)]
pub struct AccessLog {
    sender: SyncSender<Message>,
    queued: Arc<AtomicUsize>,
    orders: Arc<Mutex<Orders>>,
    stats: Arc<LogStats>,
    done: Mutex<Receiver<()>>,
}

impl AccessLog {
    /// Bytes that may wait.
    const QUEUE: usize = 8 << 20;
    /// Chunks that may wait.
    const CHUNKS: usize = 1024;

    /// Opens the target and starts the writer.
    ///
    /// **Errors**: the target cannot be opened, or no thread be started.
    pub fn start(target: Target, stats: Arc<LogStats>) -> io::Result<Arc<Self>> {
        let file = target.open()?;
        let (sender, receiver) = sync_channel(Self::CHUNKS);
        let (finished, done) = channel();
        let orders = Arc::<Mutex<Orders>>::default();
        let queued = Arc::<AtomicUsize>::default();
        let writer = Writer {
            target,
            file,
            orders: orders.clone(),
            queued: queued.clone(),
            stats: stats.clone(),
            torn: false,
            complained: None,
        };
        thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run(&receiver, &finished))?;
        Ok(Arc::new(AccessLog { sender, queued, orders, stats, done: Mutex::new(done) }))
    }

    /// Opens the file anew, as log rotation wants after it has moved the old one away. Loses no line; if it fails, the old file goes on.
    pub fn reopen(&self) {
        self.order(|orders| orders.reopen = true);
    }

    /// Writes to another target from now on, also what already waits. Switched off, it still writes what comes late to where it was.
    ///
    /// **Errors**: it cannot be opened; nothing changes then.
    pub fn switch(&self, target: Target) -> io::Result<()> {
        if target == Target::Off {
            return Ok(());
        }
        let file = target.open()?;
        self.order(|orders| orders.switch = Some((target, file)));
        Ok(())
    }

    /// Writes what waits and ends; whether it was done within the time. Lines that come later are lost, and counted.
    ///
    /// **Cost**: blocks the caller.
    pub fn close(&self, within: Duration) -> bool {
        self.order(|orders| orders.close_by = Some(Instant::now() + within / 2));
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        // The writer says nothing but ends: a disconnect is its answer too.
        !matches!(done.recv_timeout(within), Err(RecvTimeoutError::Timeout))
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut self.orders.lock().unwrap_or_else(PoisonError::into_inner));
        // If the queue is full the writer is awake, or stuck where nothing would wake it.
        let _ = self.sender.try_send(Message::Wake);
    }

    /// Takes a chunk, if there is room.
    pub(super) fn offer(&self, chunk: Chunk) -> Result<(), Refused> {
        let bytes = chunk.bytes.len();
        if self.queued.fetch_add(bytes, Ordering::Relaxed) + bytes > Self::QUEUE {
            self.queued.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Refused(chunk));
        }
        self.sender.try_send(Message::Chunk(chunk)).map_err(|refused| {
            self.queued.fetch_sub(bytes, Ordering::Relaxed);
            match refused {
                TrySendError::Full(Message::Chunk(chunk)) | TrySendError::Disconnected(Message::Chunk(chunk)) => {
                    Refused(chunk)
                }
                TrySendError::Full(Message::Wake) | TrySendError::Disconnected(Message::Wake) => {
                    Refused(Chunk { bytes: Vec::new(), lines: 0 })
                }
            }
        })
    }

    pub(super) fn lose(&self, lines: u32) {
        if lines > 0 {
            self.stats.lose(u64::from(lines));
        }
    }
}

/// The writing side; lives on its own thread.
struct Writer {
    target: Target,
    file: File,
    orders: Arc<Mutex<Orders>>,
    queued: Arc<AtomicUsize>,
    stats: Arc<LogStats>,
    /// A part of a line was written when writing failed.
    torn: bool,
    complained: Option<Instant>,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Message>, finished: &Sender<()>) {
        while let Ok(message) = queue.recv() {
            self.handle(message);
            if self.orders().close_by.is_some() {
                while let Ok(message) = queue.try_recv() {
                    self.handle(message);
                }
                break;
            }
        }
        // Nobody may be waiting.
        let _ = finished.send(());
    }

    fn handle(&mut self, message: Message) {
        self.obey();
        if let Message::Chunk(chunk) = message {
            let lost = self.write(&chunk.bytes);
            self.queued.fetch_sub(chunk.bytes.len(), Ordering::Relaxed);
            let lost = lost.min(u64::from(chunk.lines));
            self.stats.wrote(u64::from(chunk.lines) - lost);
            if lost > 0 {
                self.stats.lose(lost);
            }
        }
    }

    fn obey(&mut self) {
        let (switch, reopen) = {
            let mut orders = self.orders();
            (orders.switch.take(), std::mem::take(&mut orders.reopen))
        };
        if let Some((target, file)) = switch {
            (self.target, self.file, self.torn) = (target, file, false);
        }
        if reopen && matches!(self.target, Target::File(_)) {
            match self.target.open() {
                Ok(file) => (self.file, self.torn) = (file, false),
                Err(error) => {
                    tracing::error!(%error, target = ?self.target, "access log: cannot reopen, going on with the old file")
                }
            }
        }
    }

    /// Writes the bytes; how many lines of them were lost.
    fn write(&mut self, bytes: &[u8]) -> u64 {
        if self.torn && self.write_all(b"\n").is_ok() {
            self.torn = false;
        }
        let Err((written, error)) = self.write_all(bytes) else { return 0 };
        self.torn |= written > 0 && bytes[written - 1] != b'\n';
        let lost = bytes[written..].iter().filter(|b| **b == b'\n').count() as u64;
        if self.complained.is_none_or(|at| at.elapsed() > Duration::from_secs(10)) {
            self.complained = Some(Instant::now());
            tracing::error!(%error, target = ?self.target, lost = self.stats.lost() + lost, "access log: cannot write, lines are lost");
        }
        lost
    }

    /// **Errors**: how much was written before it failed, and why.
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut written = 0;
        while written < bytes.len() {
            match self.file.write(&bytes[written..]) {
                Ok(0) => return Err((written, ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A pipe that is full: it may be read in a moment, and here is the place to wait.
                Err(error) if error.kind() == ErrorKind::WouldBlock && !self.overtaken() => {
                    thread::sleep(Duration::from_millis(10));
                }
                Err(error) => return Err((written, error)),
            }
        }
        Ok(())
    }

    /// Whether waiting for this target has lost its point.
    fn overtaken(&self) -> bool {
        let orders = self.orders();
        orders.switch.is_some() || orders.close_by.is_some_and(|by| Instant::now() >= by)
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
