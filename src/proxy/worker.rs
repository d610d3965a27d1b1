//! What a worker's requests share: its view of the snapshot, its upstream connections, its deadlines, its counters.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::sync::mpsc::UnboundedSender;

use super::request_body::RequestBody;
use crate::control::Event;
use crate::snapshot::{self, Reader, View};
use crate::sweep::Sweep;
use crate::telemetry::access::{AccessLog, Format, Line, LineBuffer};
use crate::telemetry::{Lane, Registry};
use crate::types::{Clock, Moment};
use crate::upstream::Connections;

/// One worker. Never leaves its thread.
pub struct Worker {
    /// Which one it is; its slot in every per-worker counter.
    pub lane: Lane,
    /// Its deadlines.
    pub sweep: Rc<Sweep>,
    /// Its upstream connections.
    pub far: Rc<Connections<RequestBody>>,
    /// Where small values are written before they become headers.
    pub scratch: RefCell<BytesMut>,
    lines: RefCell<LineBuffer>,
    /// All counters.
    pub registry: Arc<Registry>,
    /// Where trips and other news for the one writer go.
    pub events: UnboundedSender<Event>,
    reader: Reader,
    random: Cell<u64>,
    cuts: Cell<u64>,
    cut_epoch: Arc<std::sync::atomic::AtomicU64>,
}

/// What a worker is made of.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Where the newest snapshot is found.
    pub cell: Arc<snapshot::Cell>,
    /// All counters.
    pub registry: Arc<Registry>,
    /// The access log's writer.
    pub log: Arc<AccessLog>,
    /// The one writer of snapshots.
    pub events: UnboundedSender<Event>,
    /// Counts the times that some upstream's requests were cut.
    pub cut_epoch: Arc<std::sync::atomic::AtomicU64>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("lane", &self.lane).finish_non_exhaustive()
    }
}

impl Worker {
    /// The worker that counts in `lane`.
    pub fn new(lane: Lane, parts: Parts) -> Rc<Self> {
        let sweep = Sweep::new();
        let far = Connections::new(sweep.clone(), lane);
        Rc::new(Worker {
            lane,
            far,
            lines: RefCell::new(LineBuffer::new(parts.log)),
            scratch: RefCell::default(),
            registry: parts.registry,
            events: parts.events,
            reader: Reader::new(parts.cell),
            random: Cell::new(fastrand::u64(..) | 1),
            cuts: Cell::new(0),
            cut_epoch: parts.cut_epoch,
            sweep,
        })
    }

    /// The newest snapshot.
    pub fn view(&self) -> Rc<View> {
        self.reader.view()
    }

    /// A random draw (xorshift64*; never for secrets).
    pub fn random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Writes a line of the access log.
    pub fn log(&self, format: &Format, line: &Line<'_>) {
        self.lines.borrow_mut().write(format, line);
    }

    /// Hands on the access log's last lines; for the end of the worker.
    pub fn flush_log(&self) {
        self.lines.borrow_mut().tick();
    }

    /// The worker's housekeeping: deadlines ten times a second, log lines, idle connections and swapped snapshots a few times a second.
    pub async fn keep_house(self: Rc<Self>) {
        let mut interval = tokio::time::interval(Sweep::TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks = 0u64;
        let mut seen = self.view().generation;
        loop {
            interval.tick().await;
            // Looked at before the clock: whoever is woken must find the cut in the past.
            let cut = self.has_cut();
            let now = Clock::now();
            self.sweep.tick(now);
            if cut {
                self.sweep.wake_all();
            }
            ticks += 1;
            if ticks.is_multiple_of(2) {
                self.lines.borrow_mut().tick();
            }
            // Also without requests, so that an old snapshot is not kept alive by an idle worker.
            let view = self.view();
            if view.generation != seen || ticks.is_multiple_of(10) {
                seen = view.generation;
                self.drop_idle(&view, now);
            }
        }
    }

    fn drop_idle(&self, view: &View, now: Moment) {
        self.far.sweep(now);
        self.far.retain(|id| view.has_target(id));
    }

    /// Whether an upstream's requests have been cut since this was last asked. Bodies look for that only when they are polled, so all
    /// must be woken then.
    fn has_cut(&self) -> bool {
        let epoch = self.cut_epoch.load(std::sync::atomic::Ordering::Acquire);
        self.cuts.replace(epoch) != epoch
    }
}
