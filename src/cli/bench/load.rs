use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio::sync::{Barrier, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout, timeout_at};

use super::alarm::Alarm;
use super::fault::{Fault, Kind};
use super::line::Line;
use super::plan::Plan;
use super::schedule::Schedule;
use super::tally::{Answer, Sent, Tally};

/// Connections made at once before the load begins: more would overflow what a server's kernel holds for it to accept.
const OPENING: usize = 64;
/// Before another attempt where no connection could be made: a port that nobody listens on refuses ten thousands a second.
const PAUSE: Duration = Duration::from_millis(10);

/// What the threads have in common.
pub(super) struct Shared {
    plan: Arc<Plan>,
    connected: Barrier,
    begun: OnceLock<Instant>,
    /// Requests taken in a closed loop, and attempts to take one after the last.
    taken: AtomicU64,
}

impl Shared {
    pub(super) fn new(plan: Arc<Plan>) -> Shared {
        let connected = Barrier::new(plan.threads as usize);
        Shared { plan, connected, begun: OnceLock::new(), taken: AtomicU64::new(0) }
    }
}

/// One thread's part of the load, to its end or until it is told to stop.
///
/// **Errors**: no runtime, no timer.
pub(super) fn run(shared: Arc<Shared>, thread: u32, mut stop: watch::Receiver<bool>) -> io::Result<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(async {
        let lines = (0..shared.plan.connections_of(thread)).map(|_| Line::new(shared.plan.clone())).collect();
        let open = shared.plan.schedule(thread).map(Open::new);
        let load = Rc::new(Load { shared, lines, open, tally: RefCell::default() });
        tokio::select! {
            played = load.clone().play() => played?,
            // Whoever could tell us has ended, or has told us.
            _ = stop.wait_for(|stop| *stop) => {}
        }
        let mut tally = load.tally.take();
        tally.reconnects = load.lines.iter().map(Line::reconnects).sum();
        Ok(tally)
    })
}

struct Load {
    shared: Arc<Shared>,
    lines: Vec<Line>,
    open: Option<Open>,
    tally: RefCell<Tally>,
}

/// An open loop: requests become due whether or not anybody can send them; who is free takes the one that waits longest.
struct Open {
    schedule: Schedule,
    /// One permit for each request that is due and not taken.
    due: Semaphore,
    taken: Cell<u64>,
}

impl Open {
    fn new(schedule: Schedule) -> Open {
        Open { schedule, due: Semaphore::new(0), taken: Cell::new(0) }
    }
}

impl Load {
    async fn play(self: Rc<Self>) -> io::Result<()> {
        let opening = stream::iter(&self.lines).for_each_concurrent(OPENING, Line::prepare);
        // Those that are not there in time are made by their first requests, which tell what is wrong.
        let _ = timeout(self.shared.plan.timeout, opening).await;
        self.shared.connected.wait().await;
        self.now();
        let mut senders = JoinSet::new();
        for line in 0..self.lines.len() {
            for _ in 0..self.shared.plan.streams {
                senders.spawn_local(self.clone().send(line));
            }
        }
        if let Some(open) = &self.open {
            self.release(open).await?;
            open.due.add_permits(senders.len());
        }
        while senders.join_next().await.is_some() {}
        Ok(())
    }

    /// Since the load began.
    fn now(&self) -> Duration {
        self.shared.begun.get_or_init(Instant::now).elapsed()
    }

    /// Lets each request be sent when it is due.
    async fn release(&self, open: &Open) -> io::Result<()> {
        let alarm = Alarm::new()?;
        let mut next = 0;
        while let Some(due) = open.schedule.due(next) {
            alarm.after(due.saturating_sub(self.now())).await?;
            let (now, first) = (self.now(), next);
            while open.schedule.due(next).is_some_and(|due| due <= now) {
                next += 1;
            }
            open.due.add_permits((next - first) as usize);
        }
        Ok(())
    }

    /// Sends one request after the other on one connection, or one stream of it.
    async fn send(self: Rc<Self>, line: usize) {
        while let Some(request) = self.take().await {
            self.tally.borrow_mut().begin();
            let outcome = self.attempt(&self.lines[line], request).await;
            let unreachable = outcome.as_ref().is_err_and(|fault| matches!(fault.kind, Kind::Connect | Kind::Tls));
            self.tally.borrow_mut().end(request, self.now(), outcome);
            if unreachable {
                sleep(PAUSE).await;
            }
        }
    }

    /// The next request, when it may be sent; `None` after the last.
    async fn take(&self) -> Option<Sent> {
        let Some(open) = &self.open else {
            let now = self.now();
            let left = |most| self.shared.taken.fetch_add(1, Ordering::Relaxed) < most;
            let more = now < self.shared.plan.duration && self.shared.plan.requests.is_none_or(left);
            return more.then_some(Sent { due: now, sent: now, free: true });
        };
        let free = open.due.available_permits() == 0;
        open.due.acquire().await.ok()?.forget();
        let due = open.schedule.due(open.taken.replace(open.taken.get() + 1))?;
        Some(Sent { due, sent: self.now(), free })
    }

    async fn attempt(&self, line: &Line, request: Sent) -> Result<Answer, Fault> {
        let deadline = request.due + self.shared.plan.timeout;
        if request.sent >= deadline {
            return Err(Fault::new(Kind::Unsent, "every connection waited for an answer until it was too late"));
        }
        let left = deadline - request.sent;
        let outcome = timeout_at(tokio::time::Instant::now() + left, line.ask()).await;
        outcome.unwrap_or_else(|_| match line.is_unconnected() {
            true => Err(Fault::new(Kind::Connect, "no connection in time")),
            false => Err(Fault::new(Kind::Timeout, "no answer in time")),
        })
    }
}
