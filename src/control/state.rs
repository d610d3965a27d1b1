//! The control loop: the one writer of snapshots.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::derive::Keep;
use super::event::{Cause, Event};
use super::handle::Handle;
use super::listeners::Listeners;
use super::names::Names;
use super::pool::{News, PoolState};
use super::start::Options;
use super::status;
use super::watch::Watched;
use super::workers::WorkerThread;
use crate::admin::model::{UpstreamStatus, Verdict};
use crate::admin::{self, Change, ChangeError};
use crate::health::State;
use crate::scaler::engine::{ScalerLine, Scalers};
use crate::snapshot::{Cell, Member, Pool, Snapshot, Upstream};
use crate::telemetry;
use crate::types::{Bind, Clock, Moment};
use crate::upstream::Resolution;

/// Everything that control knows. Lives on its own thread.
pub(super) struct Control {
    pub(super) options: Options,
    pub(super) cell: Arc<Cell>,
    pub(super) current: Arc<Snapshot>,
    pub(super) keep: Keep,
    pub(super) pools: BTreeMap<Arc<str>, PoolState>,
    /// Pools that are no longer in the configuration, until their last member has gone.
    pub(super) leaving: Vec<PoolState>,
    pub(super) listeners: Listeners,
    pub(super) names: Names,
    pub(super) watched: Watched,
    pub(super) sender: UnboundedSender<Event>,
    pub(super) cut_epoch: Arc<AtomicU64>,
    /// When the files are looked at, after something has stirred in their directories.
    pub(super) look_at: Moment,
    /// The latest that [`Control::look_at`] is put off to: a log beside the configuration stirs for ever.
    pub(super) look_by: Moment,
    pub(super) keep_house_at: Moment,
    pub(super) started: Moment,
    /// What came of the last attempt to read the configuration.
    pub(super) last_verdict: Verdict,
    pub(super) stopping: Arc<AtomicBool>,
    /// Who may use the admin API, and the way to end it; none where there is none.
    pub(super) api: Option<(Arc<admin::Access>, Rc<Notify>)>,
    /// Something has happened that the pools must be looked at for.
    pub(super) unsettled: bool,
    pub(super) workers: Vec<WorkerThread>,
    /// The scalers' thread, once some pool has had a scaler.
    pub(super) scalers: Option<Scalers>,
    pub(super) line: Arc<OnceLock<ScalerLine>>,
}

/// Files are looked at only when nothing has stirred for so long: an editor writes in several steps.
const SETTLE: Duration = Duration::from_millis(60);
/// … but not for longer than this.
const SETTLE_BY: Duration = Duration::from_millis(600);
/// Events that one look at the pools may answer for.
const BATCH: usize = 1024;
/// How often slow housekeeping is done.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// The most by which anything that is due comes late.
const TICK: Duration = Duration::from_millis(250);

impl Control {
    /// Runs until it is told to stop; then everything has been drained, or cut.
    pub(super) async fn run(mut self, mut events: UnboundedReceiver<Event>) {
        let mut pools_due = Moment::START;
        // Ten thousand upstreams that come up one by one are not worth ten thousand snapshots of ten thousand.
        let mut not_before = Moment::START;
        loop {
            let now = Clock::now();
            let pools = if self.unsettled { not_before } else { pools_due.max(not_before) };
            let wait = pools.min(self.look_at).min(self.keep_house_at).since(now);
            tokio::select! {
                event = events.recv() => if self.take_all(event, &mut events).await { break },
                () = self.watched.stirred(), if self.options.watch => self.stirred(Clock::now()),
                () = tokio::time::sleep(wait) => {}
            }
            let now = Clock::now();
            self.look_at_files(now).await;
            // Looking at ten thousand upstreams for each of their checks would take longer than the checks.
            if (self.unsettled || pools_due <= now) && not_before <= now {
                self.unsettled = false;
                self.tick(now);
                pools_due = self.pools_due(now).min(now + TICK);
                let done = Clock::now();
                not_before = done + (done.since(now) * 4).min(TICK);
            }
            if self.keep_house_at <= now {
                self.keep_house_at = now + HOUSEKEEPING;
                self.keep_house(now);
            }
        }
        self.stop(&mut events).await;
    }

    /// Takes this event and those that have come with it; one snapshot then shows what they have changed. `true` at the end.
    async fn take_all(&mut self, first: Option<Event>, events: &mut UnboundedReceiver<Event>) -> bool {
        let mut next = first;
        for _ in 0..BATCH {
            match next {
                Some(Event::Shutdown) | None => return true,
                Some(event) => self.take(event).await,
            }
            match events.try_recv() {
                Ok(event) => next = Some(event),
                Err(_) => break,
            }
        }
        false
    }

    /// Something has happened in a directory of the configuration.
    fn stirred(&mut self, now: Moment) {
        if self.look_at == Moment::NEVER {
            self.look_by = now + SETTLE_BY;
        }
        self.look_at = (now + SETTLE).min(self.look_by);
    }

    fn pools_due(&self, now: Moment) -> Moment {
        self.pools.values().chain(&self.leaving).map(|pool| pool.due(now)).min().unwrap_or(Moment::NEVER)
    }

    pub(super) async fn take(&mut self, event: Event) {
        let now = Clock::now();
        // A check that tells nothing new, or a question, changes nothing.
        self.unsettled |=
            !matches!(event, Event::Checked { .. } | Event::Replicas { .. } | Event::Status { .. } | Event::ReopenLogs);
        match event {
            Event::Reload { cause, reply } => {
                let verdict = self.reload_as_service(cause).await;
                if let Some(reply) = reply {
                    // Whoever asked may have gone.
                    let _ = reply.send(verdict);
                }
            }
            Event::Checked { upstream, result } => {
                let result = match &result {
                    Ok(()) => Ok(()),
                    Err(detail) => Err(detail.as_str()),
                };
                let news = self.pool_of(&upstream).and_then(|pool| pool.checked(&upstream, result, now));
                self.unsettled |= news.is_some();
                tell(news);
            }
            Event::Replicas { pool, replicas, max_concurrency } => {
                // A scaler that has not heard yet that its pool is gone says nothing of interest.
                if let Some(state) = self.pools.get_mut(&pool) {
                    let news = state.set_replicas(replicas, max_concurrency, now);
                    self.unsettled |= state.is_dirty();
                    tell(news);
                }
            }
            Event::Tripped { upstream, trip } => {
                let news = self.pool_of(&upstream).and_then(|pool| pool.tripped(&upstream, trip, now));
                tell(news);
            }
            Event::Resolved { pool, address, resolution: Resolution::Found(found) } => {
                self.keep.registry.control.resolves.up(telemetry::Outcome::Ok);
                let news = self.pools.get_mut(&pool).map(|pool| pool.resolved(address, found, now));
                tell(news.into_iter().flatten());
            }
            Event::Resolved { pool, address, resolution: Resolution::Failed(error) } => {
                self.keep.registry.control.resolves.up(telemetry::Outcome::Failed);
                tracing::warn!(%pool, %address, "name does not resolve: {error}");
            }
            Event::Operate { pool, upstream, change, reply } => {
                let _ = reply.send(self.operate(&pool, &upstream, change, now));
            }
            Event::Status { reply } => {
                let _ = reply.send(self.status(now));
            }
            Event::ReopenLogs => {
                self.keep.log.reopen();
                tracing::info!("log files opened anew");
            }
            Event::Shutdown => {}
        }
    }

    fn pool_of(&mut self, upstream: &Upstream) -> Option<&mut PoolState> {
        self.pools.get_mut(&upstream.pool)
    }

    fn operate(
        &mut self,
        pool: &str,
        upstream: &str,
        change: Change,
        now: Moment,
    ) -> Result<UpstreamStatus, ChangeError> {
        let state = self.pools.get_mut(pool).ok_or_else(|| ChangeError::NoPool(pool.to_owned()))?;
        tell(state.operate(upstream, change, now)?);
        // Whoever asked finds it done.
        self.publish_if_changed(now);
        let found = self.current.pools.iter().filter(|known| &*known.name == pool);
        let named = |member: &&Member| &*member.upstream.address == upstream || member.configured == upstream;
        let found = found.filter_map(|pool| Some((pool, pool.members.iter().find(named)?))).next();
        let gone = || ChangeError::NoUpstream { pool: pool.to_owned(), upstream: upstream.to_owned() };
        found.map(|(pool, member)| status::upstream(pool, member, now)).ok_or_else(gone)
    }

    async fn look_at_files(&mut self, now: Moment) {
        if self.look_at <= now {
            self.look_at = Moment::NEVER;
            if self.watched.changed() {
                self.reload_as_service(Cause::File).await;
                self.unsettled = true;
            }
        }
    }

    /// Everything that is due in the pools, and a new snapshot if anything has changed.
    fn tick(&mut self, now: Moment) {
        let mut cut = false;
        for pool in self.pools.values_mut().chain(&mut self.leaving) {
            let (news, cut_here) = pool.tick(now);
            cut |= cut_here;
            tell(news);
        }
        self.leaving.retain(|pool| !pool.is_empty());
        // Nobody picks from them any more; what the metrics page shows of them is written down all the same.
        self.leaving.iter_mut().for_each(|pool| drop(pool.derive_if_changed(now)));
        if cut {
            self.cut_epoch.fetch_add(1, Ordering::Release);
        }
        self.publish_if_changed(now);
    }

    fn keep_house(&mut self, now: Moment) {
        self.pools.values().for_each(|pool| pool.keep_house(now));
        self.keep.sweep(now);
        self.listeners.sweep(now);
    }

    /// Looks up no more names than the pools refer to: one that comes back is a new one.
    pub(super) fn keep_names(&mut self) {
        self.names.keep(self.pools.iter().flat_map(|(name, pool)| pool.names().map(move |address| (name, address))));
    }

    /// Publishes what has changed in the pools since the last snapshot.
    pub(super) fn publish_if_changed(&mut self, now: Moment) {
        let mut pools = self.current.pools.clone();
        let mut changed = false;
        for (state, pool) in self.pools.values_mut().zip(&mut pools) {
            if let Some(derived) = state.derive_if_changed(now) {
                *pool = derived;
                changed = true;
            }
        }
        if changed {
            self.publish(Snapshot { pools, ..(*self.current).clone() });
        }
    }

    /// All pools as they are now, in the order that routes name them in.
    pub(super) fn derive_pools(&mut self, now: Moment) -> Vec<Arc<Pool>> {
        self.pools.values_mut().map(|pool| pool.derive_now(now)).collect()
    }

    /// Where TCP connections are accepted, with the listeners' names.
    pub(super) fn addresses(&self) -> Vec<(String, SocketAddr)> {
        let tcp = |bind: &Bind| match bind {
            Bind::Tcp(address) => Some(*address),
            Bind::Unix(_) => None,
        };
        let open = self.listeners.open();
        open.flat_map(|(_, name, binds)| {
            binds.into_iter().filter_map(tcp).map(move |address| (name.to_owned(), address))
        })
        .collect()
    }

    /// The way to ask this loop for something.
    pub(super) fn handle(&self) -> Handle {
        Handle {
            events: self.sender.clone(),
            cell: self.cell.clone(),
            registry: self.keep.registry.clone(),
            stopping: self.stopping.clone(),
            line: self.line.clone(),
        }
    }

    pub(super) fn publish(&mut self, mut snapshot: Snapshot) {
        snapshot.generation = self.current.generation + 1;
        // Nothing more is sent to one that is drained: its idle connections go.
        let members = snapshot.pools.iter().flat_map(|pool| &pool.members);
        snapshot.targets =
            members.filter(|member| member.state != State::Drained).map(|member| member.target.id).collect();
        let before = std::mem::replace(&mut self.current, Arc::new(snapshot));
        self.keep.registry.control.generation.set(self.current.generation as i64);
        self.cell.publish(self.current.clone());
        look_again(&before.pools, &self.current.pools);
    }
}

/// Has the requests that wait in a pool look at it again where it is another now, or gone.
fn look_again(before: &[Arc<Pool>], now: &[Arc<Pool>]) {
    let same = |index: usize| before.get(index).zip(now.get(index)).is_some_and(|(one, other)| Arc::ptr_eq(one, other));
    for pools in [before, now] {
        pools.iter().enumerate().filter(|(index, _)| !same(*index)).for_each(|(_, pool)| pool.kept.queue.look_again());
    }
}

/// Writes news to the log: what people want to see on their terminal, one line each.
pub(super) fn tell(news: impl IntoIterator<Item = News>) {
    for News { pool, upstream, change } in news {
        let sick = change.to == crate::health::State::Down;
        let text = change.to_string();
        if sick {
            tracing::warn!(%pool, %upstream, "upstream {text}");
        } else {
            tracing::info!(%pool, %upstream, "upstream {text}");
        }
    }
}
