use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::Context;

use futures_util::task::AtomicWaker;

use super::objection::Objection;

/// What a connection's socket tells its driver, and the other way round, while hyper holds the socket.
///
/// Why atomics although both sides are on one thread: hyper hands out upgraded connections as `Send`, so what their sockets hold
/// must be. Relaxed loads and stores by one thread cost what plain ones do; nothing here is ever contended.
#[derive(Debug)]
pub(super) struct Pulse {
    read: AtomicU64,
    wrote: AtomicU64,
    /// The socket took nothing of the last write.
    blocked: AtomicBool,
    /// A part of a head has come.
    partial: AtomicBool,
    /// The last head was HTTP/1.0.
    old: AtomicBool,
    /// Our side is closed, and we wait for the client to see it.
    lingering: AtomicBool,
    /// Which head, counted from 0, stands for a refusal.
    refused: AtomicU64,
    objection: AtomicU8,
    /// The driver asks for the present head to be refused as too slow.
    expired: AtomicBool,
    /// How many heads have been answered.
    answered: AtomicU64,
    /// What follows a request that may turn the connection into a tunnel is held back until that is answered.
    holding: AtomicBool,
    /// The last answer has turned the connection into a tunnel.
    tunnel: AtomicBool,
    /// The driver ends a tunnel.
    cut: AtomicBool,
    /// The socket has been dropped.
    gone: AtomicBool,
    driver: AtomicWaker,
    reader: AtomicWaker,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Pulse {
            read: AtomicU64::new(0),
            wrote: AtomicU64::new(0),
            blocked: AtomicBool::new(false),
            partial: AtomicBool::new(false),
            old: AtomicBool::new(false),
            lingering: AtomicBool::new(false),
            refused: AtomicU64::new(u64::MAX),
            objection: AtomicU8::new(u8::MAX),
            expired: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            holding: AtomicBool::new(false),
            tunnel: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            driver: AtomicWaker::new(),
            reader: AtomicWaker::new(),
        }
    }

    /// Bytes the socket has given.
    pub(super) fn bytes_read(&self) -> u64 {
        self.read.load(Relaxed)
    }

    /// Bytes the socket has taken.
    pub(super) fn bytes_written(&self) -> u64 {
        self.wrote.load(Relaxed)
    }

    pub(super) fn read(&self, bytes: usize) {
        self.read.store(self.read.load(Relaxed) + bytes as u64, Relaxed);
    }

    pub(super) fn wrote(&self, bytes: usize) {
        self.wrote.store(self.wrote.load(Relaxed) + bytes as u64, Relaxed);
        self.blocked.store(false, Relaxed);
    }

    pub(super) fn block(&self) {
        self.blocked.store(true, Relaxed);
    }

    pub(super) fn blocked(&self) -> bool {
        self.blocked.load(Relaxed)
    }

    pub(super) fn set_head(&self, partial: bool, old: bool) {
        self.partial.store(partial, Relaxed);
        self.old.store(old, Relaxed);
    }

    pub(super) fn partial(&self) -> bool {
        self.partial.load(Relaxed)
    }

    pub(super) fn old(&self) -> bool {
        self.old.load(Relaxed)
    }

    pub(super) fn linger(&self) {
        self.lingering.store(true, Relaxed);
    }

    pub(super) fn lingering(&self) -> bool {
        self.lingering.load(Relaxed)
    }

    /// The head of this number stands for a refusal.
    pub(super) fn refuse(&self, head: u64, objection: Objection) {
        self.refused.store(head, Relaxed);
        self.objection.store(objection.code(), Relaxed);
        self.partial.store(false, Relaxed);
    }

    /// Why the head of this number is refused, if it is.
    pub(super) fn objection(&self, head: u64) -> Option<Objection> {
        if self.refused.load(Relaxed) == head { Objection::from_code(self.objection.load(Relaxed)) } else { None }
    }

    /// Asks the socket to refuse the present head as too slow.
    pub(super) fn expire(&self) {
        self.expired.store(true, Relaxed);
    }

    pub(super) fn expired(&self) -> bool {
        self.expired.load(Relaxed)
    }

    pub(super) fn set_holding(&self, holding: bool) {
        self.holding.store(holding, Relaxed);
    }

    /// How many heads have been answered.
    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    /// Whether an answer has turned the connection into a tunnel.
    pub(super) fn is_tunnel(&self) -> bool {
        self.tunnel.load(Relaxed)
    }

    /// The head of this number has been answered. Whether bytes were held for that: then hyper must be made to read again, as it
    /// waits for the socket, which may have nothing new.
    pub(super) fn answer(&self, head: u64, tunnel: bool) -> bool {
        self.answered.store(head + 1, Relaxed);
        self.tunnel.store(tunnel, Relaxed);
        self.holding.load(Relaxed)
    }

    /// Ends a tunnel: its next read fails.
    pub(super) fn cut(&self) {
        self.cut.store(true, Relaxed);
        self.reader.wake();
    }

    /// Whether the tunnel is to end; its task is woken when that changes.
    pub(super) fn poll_cut(&self, cx: &mut Context<'_>) -> bool {
        self.reader.register(cx.waker());
        self.cut.load(Relaxed)
    }

    /// The socket is being dropped.
    pub(super) fn leave(&self) {
        self.gone.store(true, Relaxed);
        self.driver.wake();
    }

    /// Whether the socket has been dropped; the task is woken when that changes.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> bool {
        self.driver.register(cx.waker());
        self.gone.load(Relaxed)
    }
}
