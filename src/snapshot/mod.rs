//! The tables that every request reads, and what survives when they are swapped.
//!
//! A [`Snapshot`] is immutable. [`control`](crate::control) is the only one who makes and publishes them; workers read the newest through
//! their [`View`]. What must outlive a swap (loads, outcomes, counters, limiter tables, sticky tables) sits behind an `Arc` that the next
//! snapshot takes over, keyed by its name: an upstream is (pool, address), a limit is (route, place).
//!
//! This module never reads a file, a clock or a socket. Why not one lock-free map for each kind of thing: a request must see one
//! generation of all of them together.

mod flow;
mod line;
#[cfg(test)]
mod line_tests;
mod mcp;
mod queue;
#[cfg(test)]
mod queue_tests;
mod readings;
mod replica;
mod sticky;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use http::StatusCode;

use crate::access;
use crate::balance::{self, Cursor, Load, stable_hash};
use crate::config::model;
use crate::downstream::Terms;
use crate::health::{Outcomes, Policy, State};
use crate::limit::{ConnectionLimiter, Limiter};
use crate::mcp::Keys;
use crate::mcp::era::Spoken;
use crate::mcp::limits::Limit;
use crate::proxy::pages::Pages;
use crate::retry::Budget;
use crate::route;
use crate::telemetry::access::Format;
use crate::telemetry::{LimitStats, ListenerStats, PoolStats, RouteStats, UpstreamStats};
use crate::types::Moment;
use crate::upstream::Target;

pub use line::{Class, Reserved, Turn};
pub use mcp::McpKept;
pub use queue::{Queue, QueueFull, Ticket};
pub use readings::{MemberReading, Readings, Sessions};
pub use replica::{Intent, Replica};
pub use sticky::Learned;

/// Everything a request needs to know, as of one generation.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// One more with each snapshot published; the first is 1.
    pub generation: u64,
    /// The configuration it was derived from.
    pub config: Arc<model::Config>,
    /// The listeners, by index.
    pub listeners: Vec<Arc<Listener>>,
    /// Which route takes a request; shared by snapshots that differ only in their upstreams.
    pub table: Arc<route::Table>,
    /// What each route does, by the index that `table` answers.
    pub routes: Arc<[Route]>,
    /// The pools, by the index that routes name.
    pub pools: Vec<Arc<Pool>>,
    /// The ids of all targets that anything may still be sent to.
    pub targets: HashSet<u64>,
    /// The top level's dressed answers.
    pub pages: Arc<Pages>,
    /// What access log lines look like; none where the log is off.
    pub access_log: Option<Arc<Format>>,
    /// What MCP session ids are sealed with.
    pub keys: Arc<Keys>,
}

impl Snapshot {
    /// Whether some upstream is still reached by the target of this id.
    pub fn has_target(&self, id: u64) -> bool {
        self.targets.contains(&id)
    }
}

/// A listener's settings.
#[derive(Debug)]
pub struct Listener {
    /// Its name.
    pub name: Arc<str>,
    /// Its settings.
    pub settings: model::Listener,
    /// On what terms it takes connections.
    pub terms: Arc<Terms>,
    /// How many connections each client may have.
    pub per_client: Option<Arc<ConnectionLimiter>>,
    /// Its counters.
    pub stats: Arc<ListenerStats>,
}

/// A route, compiled.
#[derive(Debug)]
pub struct Route {
    /// Its name in metrics and logs.
    pub name: Arc<str>,
    /// What becomes of its requests.
    pub action: Action,
    /// How the path changes on the way.
    pub rewrite: Option<route::Rewrite>,
    /// How the request's headers change.
    pub request_headers: route::HeaderEdit,
    /// How the answer's headers change.
    pub response_headers: route::HeaderEdit,
    /// Who may ask; none where anybody may.
    pub access: Option<Box<Access>>,
    /// Who may proceed.
    pub limits: Vec<Arc<Limiter>>,
    /// For each limit, the status of its refusals and its counters.
    pub limit_answers: Vec<(StatusCode, Arc<LimitStats>)>,
    /// Overrides of the pool's times.
    pub timeout: model::TimeoutOverride,
    /// Overrides the listener's bound.
    pub max_body: Option<u64>,
    /// Overrides the pool's retry.
    pub retry: Option<model::Retry>,
    /// Its dressed answers.
    pub pages: Arc<Pages>,
    /// Dress the upstream's errors too.
    pub intercept_errors: bool,
    /// Whether its requests are logged.
    pub access_log: bool,
    /// Whether nobody on its way wants to know the headers of a plain request, or of its answer.
    pub takes_lines: bool,
    /// Its counters.
    pub stats: Arc<RouteStats>,
}

/// Who may ask a route, compiled.
#[derive(Debug)]
pub struct Access {
    /// Pages that may ask; all where it is none.
    pub origins: Option<access::Origins>,
    /// What browsers are told.
    pub cors: Option<access::Cors>,
    /// Who may come in; anybody where it is none.
    pub auth: Option<access::Auth>,
    /// What clients are told that look for a token.
    pub resource: Option<access::Resource>,
    /// Whether keys and tokens go on to upstreams; tokens do and keys do not where it is none.
    pub forward: Option<bool>,
    /// The header that tells upstreams who it is.
    pub principal_header: Option<http::HeaderName>,
    /// The route's hosts: where its resource is described.
    pub hosts: Vec<route::HostPattern>,
    /// The route's listeners.
    pub listeners: Vec<String>,
}

/// What becomes of a route's requests.
#[derive(Debug)]
pub enum Action {
    /// They go to this pool.
    Pool(usize),
    /// They go to one of these pools, by cumulative weight.
    Split(Vec<(u64, usize)>),
    /// The client is sent elsewhere.
    Redirect(route::Template, StatusCode),
    /// They are answered at once.
    Respond {
        /// The status.
        status: StatusCode,
        /// The body.
        body: route::Template,
        /// Its type.
        content_type: http::HeaderValue,
    },
}

/// A pool, as of one snapshot.
#[derive(Debug)]
pub struct Pool {
    /// Its name.
    pub name: Arc<str>,
    /// Its settings.
    pub settings: Arc<model::Pool>,
    /// How its members' health is judged.
    pub policy: Arc<Policy>,
    /// All of its members, also those that take nothing now.
    pub members: Vec<Member>,
    /// The fit ones, ready to be picked from; ids are indices into `members`.
    pub table: balance::Table,
    /// Whether too few are fit and therefore all are used.
    pub panicking: bool,
    /// Limits of what its MCP servers are asked.
    pub limits: Arc<[Limit]>,
    /// Members by identity, for stickiness.
    pub by_identity: HashMap<u64, u32>,
    /// What survives.
    pub kept: Arc<PoolKept>,
}

/// What of a pool survives reloads.
#[derive(Debug)]
pub struct PoolKept {
    /// Where round robin stands.
    pub cursor: Cursor,
    /// How many retries are left.
    pub budget: Budget,
    /// Which key belongs to which upstream.
    pub learned: Learned,
    /// How many keys each upstream has.
    pub sessions: Sessions,
    /// What is remembered of MCP sessions.
    pub mcp: OnceLock<Box<McpKept>>,
    /// Who waits for a slot, and what the scaler has to know of that.
    pub queue: Queue,
    /// Its counters.
    pub stats: Arc<PoolStats>,
}

impl PoolKept {
    /// Of a pool that nobody has used yet.
    pub fn new(stats: Arc<PoolStats>) -> Self {
        PoolKept {
            cursor: Cursor::new(),
            budget: Budget::new(),
            learned: Learned::default(),
            sessions: Sessions::default(),
            mcp: OnceLock::new(),
            queue: Queue::default(),
            stats,
        }
    }

    /// What is remembered of MCP sessions; made when first asked for.
    pub fn mcp(&self) -> &McpKept {
        self.mcp.get_or_init(Box::default)
    }

    /// When the next instance is expected to be ready, as the scaler says: what refused requests are told.
    pub fn set_eta(&self, eta: Option<Moment>) {
        self.queue.set_eta(eta);
    }

    /// Ready when requests have come that nobody is fit for: once until none waits any more. For the scaler alone.
    pub async fn wanted(&self) {
        self.queue.wanted().await;
    }
}

/// A member of a pool, as of one snapshot.
#[derive(Debug)]
pub struct Member {
    /// Who it is.
    pub upstream: Arc<Upstream>,
    /// How it is reached.
    pub target: Arc<Target>,
    /// Its address as configured; a name can stand for several members.
    pub configured: String,
    /// What it may take now.
    pub state: State,
    /// Why it is in that state.
    pub reason: String,
    /// Since when.
    pub since: Moment,
    /// Its weight, as configured or as set by an operator.
    pub weight: u32,
    /// Its weight now: slow start applied, 0 where it takes nothing.
    pub effective_weight: f64,
    /// When its drain ends, while it drains.
    pub deadline: Option<Moment>,
    /// Requests it may have at once: its own bound, else the pool's `max_concurrency`.
    pub max_connections: Option<u32>,
    /// Whether it stands in only while no other is fit.
    pub backup: bool,
    /// The scaler's name for it, where it is one of the scaler's.
    pub replica: Option<Arc<str>>,
    /// Whether it takes new work only where nobody else has room, because it is about to be drained.
    pub cordoned: bool,
    /// Whether it only finishes what it has, because the configuration or DNS no longer has it.
    pub leaving: bool,
}

/// An upstream: what it is through all snapshots.
#[derive(Debug)]
pub struct Upstream {
    /// The pool it is in.
    pub pool: Arc<str>,
    /// Its address as text: with its pool its identity.
    pub address: Arc<str>,
    /// A hash of its address, the same in every process: for consistent hashing and cookies.
    pub identity: u64,
    /// Requests in flight and latency.
    pub load: Arc<Load>,
    /// How its last requests went.
    pub outcomes: Arc<Outcomes>,
    /// Its counters.
    pub stats: Arc<UpstreamStats>,
    /// Which eras of MCP it does not speak, as far as is known.
    pub spoken: Spoken,
    /// Event streams open at it: they are no load, but it is not drained while they last.
    pub streams: AtomicU32,
    cut: AtomicBool,
}

impl Upstream {
    /// An upstream nobody has used yet.
    pub fn new(pool: Arc<str>, address: Arc<str>, outcomes: Arc<Outcomes>, stats: Arc<UpstreamStats>) -> Self {
        let identity = stable_hash(address.as_bytes());
        Upstream {
            pool,
            address,
            identity,
            load: Arc::default(),
            outcomes,
            stats,
            spoken: Spoken::default(),
            streams: AtomicU32::new(0),
            cut: AtomicBool::new(false),
        }
    }

    /// Cuts its requests, from now on; or takes that back.
    pub fn set_cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }

    /// Requests and streams that are open at it.
    pub fn open(&self) -> u32 {
        self.load.in_flight() + self.streams.load(Ordering::Relaxed)
    }

    /// Closes it, if nothing is open at it; whether that is so. Then nothing can come any more, not even by an older snapshot.
    pub fn close_if_free(&self) -> bool {
        if !self.load.shut_if_empty() {
            return false;
        }
        // A stream was load before it became one, so it is seen here.
        let free = self.streams.load(Ordering::Acquire) == 0;
        if !free {
            self.load.open();
        }
        free
    }

    /// Whether its requests are cut. Not a moment to compare clocks by: a worker is woken once for it, and must not find itself early.
    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }
}

/// Where the newest snapshot is found. One writer, any number of readers.
#[derive(Debug)]
pub struct Cell {
    newest: ArcSwap<Snapshot>,
    published: AtomicU64,
}

impl Cell {
    /// A cell with its first snapshot.
    pub fn new(first: Arc<Snapshot>) -> Arc<Self> {
        let published = AtomicU64::new(first.generation);
        Arc::new(Cell { newest: ArcSwap::new(first), published })
    }

    /// Publishes a snapshot. Only `control` calls this.
    pub fn publish(&self, snapshot: Arc<Snapshot>) {
        let generation = snapshot.generation;
        self.newest.store(snapshot);
        self.published.store(generation, Ordering::Release);
    }

    /// The newest snapshot.
    pub fn load(&self) -> Arc<Snapshot> {
        self.newest.load_full()
    }

    /// The newest snapshot's generation.
    pub fn generation(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }
}

/// A worker's own handle of a snapshot: requests share it by `Rc`, so holding one through a request costs no shared counter.
#[derive(Debug)]
pub struct View(Arc<Snapshot>);

impl std::ops::Deref for View {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

/// A worker's reader of the cell.
#[derive(Debug)]
pub struct Reader {
    cell: Arc<Cell>,
    view: RefCell<Rc<View>>,
}

impl Reader {
    /// A reader of `cell`.
    pub fn new(cell: Arc<Cell>) -> Self {
        let view = RefCell::new(Rc::new(View(cell.load())));
        Reader { cell, view }
    }

    /// The newest snapshot.
    ///
    /// **Cost**: one atomic load and one non-atomic count; a new snapshot costs one `ArcSwap` load once per worker.
    pub fn view(&self) -> Rc<View> {
        let mut view = self.view.borrow_mut();
        if view.generation != self.cell.generation() {
            *view = Rc::new(View(self.cell.load()));
        }
        view.clone()
    }
}
