use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::lane::{Lane, PerWorker};
use super::process::unix_seconds;
use super::scaler::ScalerFigures;
use super::stats::{
    ControlStats, LimitStats, ListenerStats, LogStats, MAX_REFUSALS, PoolStats, RouteStats, Stats, UpstreamStats,
    WorkerLane,
};

/// Everything that is counted, by name.
///
/// A snapshot asks it for the counts of each of its listeners, routes, pools, upstreams and limits when it is made and keeps
/// the `Arc`s; the request path never looks a name up. The same name gets the same counts, so they survive every reload that
/// keeps the name. What no snapshot, request or connection refers to any longer is dropped at the next scrape.
///
/// **Bounds**: each kind has at most `max_series` names of its own, but for pools with a scaler and their upstreams, which always have one;
/// those beyond share the one called [`Registry::OTHER`].
#[derive(Debug)]
pub struct Registry {
    workers: usize,
    refusals: &'static [&'static str],
    names: Mutex<Names>,
    lanes: PerWorker<WorkerLane>,
    /// Seconds since 1970.
    started: f64,
    /// What control counts.
    pub control: ControlStats,
    /// What became of access log lines.
    pub log: Arc<LogStats>,
    /// What scalers publish.
    pub scalers: ScalerFigures,
}

#[derive(Debug, Default)]
pub(super) struct Names {
    max_series: usize,
    pub(super) listeners: Family<ListenerStats>,
    pub(super) routes: Family<RouteStats>,
    pub(super) pools: Family<PoolStats>,
    pub(super) upstreams: Family<UpstreamStats>,
    pub(super) limits: Family<LimitStats>,
    pub(super) pool_limits: Family<LimitStats>,
}

/// The counts of one kind of thing, by their labels.
pub(super) type Family<S> = BTreeMap<Vec<Box<str>>, Arc<S>>;

impl Registry {
    /// The label of all that have no series of their own.
    pub const OTHER: &'static str = "other";

    /// For so many workers. `refusals` are the words for the answers of our own, in the order of their index; the first 64 count.
    pub fn new(workers: usize, max_series: u32, refusals: &'static [&'static str]) -> Arc<Self> {
        Arc::new(Registry {
            workers,
            refusals: &refusals[..refusals.len().min(MAX_REFUSALS)],
            names: Mutex::new(Names { max_series: max_series as usize, ..Names::default() }),
            lanes: PerWorker::new(workers),
            started: unix_seconds(),
            control: ControlStats::default(),
            log: Arc::default(),
            scalers: ScalerFigures::default(),
        })
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Changes how many names of a kind have series of their own; those that have, keep them.
    pub fn set_max_series(&self, max_series: u32) {
        self.names().max_series = max_series as usize;
    }

    /// The counts of a listener.
    pub fn listener(&self, name: &str) -> Arc<ListenerStats> {
        let names = &mut *self.names();
        named(&mut names.listeners, names.max_series, self.workers, &[name])
    }

    /// The counts of a route.
    pub fn route(&self, name: &str) -> Arc<RouteStats> {
        let names = &mut *self.names();
        named(&mut names.routes, names.max_series, self.workers, &[name])
    }

    /// The counts of a pool.
    pub fn pool(&self, name: &str) -> Arc<PoolStats> {
        let names = &mut *self.names();
        named(&mut names.pools, names.max_series, self.workers, &[name])
    }

    /// The counts of a pool that decisions are made by, so that it shares them with no other: one above the bound, if need be.
    pub fn scaled_pool(&self, name: &str) -> Arc<PoolStats> {
        named(&mut self.names().pools, usize::MAX, self.workers, &[name])
    }

    /// The counts of an upstream of such a pool.
    pub fn scaled_upstream(&self, pool: &str, address: &str) -> Arc<UpstreamStats> {
        named(&mut self.names().upstreams, usize::MAX, self.workers, &[pool, address])
    }

    /// The counts of an upstream, which is known by its pool and its address.
    pub fn upstream(&self, pool: &str, address: &str) -> Arc<UpstreamStats> {
        let names = &mut *self.names();
        named(&mut names.upstreams, names.max_series, self.workers, &[pool, address])
    }

    /// The counts of the `number`th limit of a route, from 0.
    pub fn limit(&self, route: &str, number: usize) -> Arc<LimitStats> {
        let names = &mut *self.names();
        named(&mut names.limits, names.max_series, self.workers, &[route, &number.to_string()])
    }

    /// The counts of the `number`th limit of a pool of MCP servers, from 0.
    pub fn pool_limit(&self, pool: &str, number: usize) -> Arc<LimitStats> {
        let names = &mut *self.names();
        named(&mut names.pool_limits, names.max_series, self.workers, &[pool, &number.to_string()])
    }

    /// When it was made, which is when the process started, in seconds since 1970.
    pub fn started(&self) -> f64 {
        self.started
    }

    /// What this lane counts for the whole process.
    pub fn at(&self, lane: Lane) -> &WorkerLane {
        self.lanes.at(lane)
    }

    /// Connections of clients open on each worker that has had one.
    pub(super) fn open(&self) -> impl Iterator<Item = (usize, i64)> {
        self.lanes.workers().map(|(number, lane)| (number, lane.open.value()))
    }

    /// How often each answer of our own was given so far.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.lanes.each().map(|lane| lane.refusals.values());
        let sums = counts.fold([0; MAX_REFUSALS], |sum, lane| std::array::from_fn(|index| sum[index] + lane[index]));
        self.refusals.iter().copied().zip(sums)
    }

    /// The names in use; those that nobody refers to are gone.
    pub(super) fn living(&self) -> MutexGuard<'_, Names> {
        let mut names = self.names();
        prune(&mut names.listeners);
        prune(&mut names.routes);
        prune(&mut names.pools);
        prune(&mut names.upstreams);
        prune(&mut names.limits);
        prune(&mut names.pool_limits);
        names
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        // Every change of the maps is one call; a panic in between leaves nothing half done.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn named<L: Default, C: Default>(
    family: &mut Family<Stats<L, C>>,
    max_series: usize,
    workers: usize,
    labels: &[&str],
) -> Arc<Stats<L, C>> {
    let key: Vec<Box<str>> = labels.iter().map(|label| Box::from(*label)).collect();
    if let Some(known) = family.get(&key) {
        return known.clone();
    }
    if family.len() >= max_series {
        prune(family);
    }
    let other = vec![Registry::OTHER; labels.len()];
    let others = usize::from(family.contains_key(&boxed(&other)));
    let labels = if family.len() - others < max_series { labels } else { &other };
    family.entry(boxed(labels)).or_insert_with(|| Arc::new(Stats::new(workers, labels))).clone()
}

fn boxed(labels: &[&str]) -> Vec<Box<str>> {
    labels.iter().map(|label| Box::from(*label)).collect()
}

/// Drops what only the registry refers to.
fn prune<S>(family: &mut Family<S>) {
    family.retain(|_, stats| Arc::strong_count(stats) > 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_gets_the_same_counts_over_reloads() {
        let registry = Registry::new(2, 100, &[]);
        let before = registry.route("api");
        before.at(Lane::worker(0)).received.add(5);
        let after = registry.route("api");
        drop(before);
        drop(registry.living());
        after.at(Lane::worker(1)).received.add(7);
        assert_eq!(registry.route("api").sum(|lane| lane.received.value()), 12);
        assert!(Arc::ptr_eq(&registry.upstream("p", "1"), &registry.upstream("p", "1")));
        assert!(!Arc::ptr_eq(&registry.upstream("p", "1"), &registry.upstream("q", "1")));
    }

    #[test]
    fn counts_of_what_is_gone_are_dropped() {
        let registry = Registry::new(1, 100, &[]);
        let kept = registry.upstream("p", "kept");
        drop(registry.upstream("p", "gone"));
        let names = registry.living();
        assert_eq!(names.upstreams.keys().map(|key| &*key[1]).collect::<Vec<_>>(), ["kept"]);
        drop((names, kept));
        assert!(registry.living().upstreams.is_empty());
    }

    #[test]
    fn names_beyond_the_bound_share_one() {
        let registry = Registry::new(1, 3, &[]);
        let routes: Vec<_> = (0..10).map(|n| registry.route(&format!("r{n}"))).collect();
        assert_eq!(registry.living().routes.len(), 4);
        assert!(routes[3..].iter().all(|route| &*route.labels()[0] == Registry::OTHER));
        assert!(Arc::ptr_eq(&registry.route(Registry::OTHER), &routes[9]));
        drop(routes);
        assert_eq!(&*registry.route("r7").labels()[0], "r7", "there is room again");
    }

    #[test]
    fn what_is_scaled_by_its_counts_shares_them_with_nobody() {
        let registry = Registry::new(1, 1, &[]);
        let shared = [registry.pool("a"), registry.pool("b"), registry.pool("c")];
        assert!(Arc::ptr_eq(&shared[1], &shared[2]));
        let scaled = [registry.scaled_pool("d"), registry.scaled_pool("e")];
        assert_eq!(scaled.each_ref().map(|stats| &*stats.labels()[0]), ["d", "e"]);
        assert!(Arc::ptr_eq(&registry.scaled_pool("d"), &registry.pool("d")), "also for those who ask otherwise");
        let _other = [registry.upstream("a", "1"), registry.upstream("a", "2")];
        assert_eq!(&*registry.scaled_upstream("d", "1").labels()[1], "1");
    }

    #[test]
    fn refusals_are_counted_by_their_index() {
        let registry = Registry::new(1, 3, &["no_route", "limited"]);
        registry.at(Lane::worker(0)).refusals.up(1);
        registry.at(Lane::CONTROL).refusals.up(1);
        registry.at(Lane::CONTROL).refusals.up(MAX_REFUSALS + 1);
        assert_eq!(registry.refusals().collect::<Vec<_>>(), [("no_route", 0), ("limited", 2)]);
    }
}
