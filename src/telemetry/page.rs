use std::sync::{Arc, LazyLock};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, MetricFamily, MetricType};

use super::kind::{Closed, Fault, Outcome, Waited};
use super::process::Process;
use super::registry::{Family, Names, Registry};
use super::scaler::PoolFigures;
use super::series::{DECISIONS, LOG_OUTCOMES, METRICS, Series};
use super::stats::{LimitStats, ListenerStats, PoolStats, RouteStats, UpstreamStats};
use super::{Classes, Distribution, Kind};
use crate::health::{Phase, State};

/// The `Content-Type` of [`Registry::page`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Registry {
    /// All metrics in Prometheus's text form.
    ///
    /// **Cost**: some 150 µs, and half a microsecond for each line: 40 ms for a thousand routes and a thousand upstreams.
    pub fn page(&self) -> String {
        let mut page = String::new();
        let encoder = prometheus::TextEncoder::new();
        // Writing to a string cannot fail, and no family is empty or nameless: what could be said is in `page` then.
        let _ = encoder.encode_utf8(&self.scrape(), &mut page);
        page
    }

    fn scrape(&self) -> Vec<MetricFamily> {
        let mut scrape = Scrape(METRICS.iter().map(|_| Vec::new()).collect());
        {
            let names: &Names = &self.living();
            each(&names.listeners, |stats, labels| scrape.listener(stats, labels));
            each(&names.routes, |stats, labels| scrape.route(stats, labels));
            each(&names.pools, |stats, labels| scrape.pool(stats, labels));
            each(&names.upstreams, |stats, labels| scrape.upstream(stats, labels));
            let (decisions, clients, evicted) = (Series::LimitDecisions, Series::LimitClients, Series::LimitEvicted);
            each(&names.limits, |stats, labels| scrape.limit([decisions, clients, evicted], stats, labels));
            let (decisions, clients, evicted) =
                (Series::McpLimitDecisions, Series::McpLimitClients, Series::McpLimitEvicted);
            each(&names.pool_limits, |stats, labels| scrape.limit([decisions, clients, evicted], stats, labels));
        }
        self.scalers.each(|figures| scrape.scaler(figures));
        scrape.whole(self);
        scrape.process(&Process::look(), self.started());
        scrape.families()
    }
}

fn each<S>(family: &Family<S>, mut add: impl FnMut(&S, &[&str])) {
    for (labels, stats) in family {
        let labels: Vec<&str> = labels.iter().map(|label| &**label).collect();
        add(stats, &labels);
    }
}

/// The registry as a collector, for those who embed Tidegate and have a `prometheus::Registry` of their own.
#[derive(Debug, Clone)]
pub struct Metrics(pub Arc<Registry>);

impl Collector for Metrics {
    fn desc(&self) -> Vec<&Desc> {
        static DESCS: LazyLock<Vec<Desc>> = LazyLock::new(|| {
            let desc = |metric: &super::Metric| {
                let labels = metric.labels.iter().map(|label| (*label).to_owned()).collect();
                Desc::new(metric.name.to_owned(), metric.help.to_owned(), labels, Default::default())
            };
            // The table's test makes sure that none is malformed.
            METRICS.iter().filter_map(|metric| desc(metric).ok()).collect()
        });
        DESCS.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.0.scrape()
    }
}

/// What a scrape has found so far, for each metric.
struct Scrape(Vec<Vec<proto::Metric>>);

impl Scrape {
    fn listener(&mut self, stats: &ListenerStats, labels: &[&str]) {
        self.classes(Series::ListenerRequests, labels, stats.sums(|lane| lane.requests.values()));
        self.add(Series::ListenerInFlight, labels, stats.sum(|lane| lane.in_flight.value()) as f64);
        self.add(Series::ListenerAccepted, labels, stats.sum(|lane| lane.accepted.value()) as f64);
        self.add(Series::ListenerOpen, labels, stats.sum(|lane| lane.open.value()) as f64);
        self.words::<Closed>(Series::ListenerClosed, labels, &stats.sums(|lane| lane.closed.values()));
        self.words::<Outcome>(Series::ListenerHandshakes, labels, &stats.sums(|lane| lane.handshakes.values()));
        self.add(Series::ListenerReceived, labels, stats.sum(|lane| lane.received.value()) as f64);
        self.add(Series::ListenerSent, labels, stats.sum(|lane| lane.sent.value()) as f64);
    }

    fn route(&mut self, stats: &RouteStats, labels: &[&str]) {
        self.classes(Series::RouteRequests, labels, stats.sums(|lane| lane.requests.values()));
        self.add(Series::RouteInFlight, labels, stats.sum(|lane| lane.in_flight.value()) as f64);
        self.histogram(Series::RouteLatency, labels, &stats.latency());
        self.add(Series::RouteReceived, labels, stats.sum(|lane| lane.received.value()) as f64);
        self.add(Series::RouteSent, labels, stats.sum(|lane| lane.sent.value()) as f64);
    }

    fn pool(&mut self, stats: &PoolStats, labels: &[&str]) {
        if labels[0] != Registry::OTHER {
            for (state, count) in <State as Kind>::WORDS.iter().zip(stats.control.upstreams()) {
                self.add(Series::PoolUpstreams, &[labels[0], state], count as f64);
            }
        }
        self.add(Series::PoolRetries, labels, stats.sum(|lane| lane.retries.value()) as f64);
        self.add(Series::PoolRetriesDenied, labels, stats.sum(|lane| lane.retries_denied.value()) as f64);
        self.add(Series::PoolUnfit, labels, stats.sum(|lane| lane.unfit.value()) as f64);
        self.add(Series::PoolFull, labels, stats.sum(|lane| lane.full.value()) as f64);
        self.add(Series::PoolStuck, labels, stats.sum(|lane| lane.stuck.value()) as f64);
        self.add(Series::PoolMoved, labels, stats.sum(|lane| lane.moved.value()) as f64);
        self.demand(stats, labels);
        if let Some(mcp) = stats.control.known_mcp() {
            self.add(Series::McpMoves, labels, mcp.moves.value() as f64);
            mcp.each(&stats.mcp(), |[method, tool, error], spans| {
                self.histogram(Series::McpOperation, &[labels[0], method, tool, error], spans);
            });
        }
    }

    /// What the scaler goes by.
    fn demand(&mut self, stats: &PoolStats, labels: &[&str]) {
        self.add(Series::PoolArrivals, labels, stats.sum(|lane| lane.arrivals.value()) as f64);
        self.add(Series::PoolCompletions, labels, stats.sum(|lane| lane.completions.value()) as f64);
        self.add(Series::PoolHeld, labels, stats.sum(|lane| lane.held.value()) as f64 / 1e9);
        self.add(Series::PoolSaturated, labels, stats.sum(|lane| lane.saturated.value()) as f64);
        self.add(Series::PoolErrors, labels, stats.sum(|lane| lane.errors.value()) as f64);
        if labels[0] != Registry::OTHER {
            self.add(Series::PoolQueue, labels, stats.control.queue.value() as f64);
            self.add(Series::PoolOldestWait, labels, stats.control.oldest_wait.value());
        }
        self.words::<Waited>(Series::PoolWaited, labels, &stats.sums(|lane| lane.waited.values()));
        self.histogram(Series::PoolWait, labels, &stats.wait());
    }

    fn upstream(&mut self, stats: &UpstreamStats, labels: &[&str]) {
        self.classes(Series::UpstreamRequests, labels, stats.sums(|lane| lane.requests.values()));
        self.add(Series::UpstreamInFlight, labels, stats.sum(|lane| lane.in_flight.value()) as f64);
        self.histogram(Series::UpstreamLatency, labels, &stats.latency());
        self.words::<Fault>(Series::UpstreamFaults, labels, &stats.sums(|lane| lane.faults.values()));
        self.add(Series::UpstreamConnects, labels, stats.sum(|lane| lane.connects.value()) as f64);
        self.add(Series::UpstreamOpen, labels, stats.sum(|lane| lane.open.value()) as f64);
        self.add(Series::UpstreamIdle, labels, stats.sum(|lane| lane.idle.value()) as f64);
        self.add(Series::UpstreamSent, labels, stats.sum(|lane| lane.sent.value()) as f64);
        self.add(Series::UpstreamReceived, labels, stats.sum(|lane| lane.received.value()) as f64);
        let control = &stats.control;
        self.words::<Outcome>(Series::UpstreamChecks, labels, &control.checks.values());
        self.words::<State>(Series::UpstreamChanges, labels, &control.changes.values());
        self.add(Series::UpstreamEjections, labels, control.ejections.value() as f64);
        self.add(Series::UpstreamBreaker, labels, control.breaker_opened() as f64);
        if labels[1] != Registry::OTHER {
            self.one_of::<State>(Series::UpstreamStateIs, labels, control.state());
            if let Some(phase) = control.circuit() {
                self.one_of::<Phase>(Series::UpstreamCircuit, labels, phase);
            }
            if let Some([sessions, streams]) = control.mcp() {
                self.add(Series::McpSessions, labels, sessions as f64);
                self.add(Series::McpStreams, labels, streams as f64);
            }
            self.add(Series::UpstreamWeight, labels, control.weight.value());
            self.add(Series::UpstreamEwma, labels, control.ewma.value());
        }
    }

    fn limit(&mut self, [decisions, clients, evicted]: [Series; 3], stats: &LimitStats, labels: &[&str]) {
        let refused = stats.sums(|lane| lane.refused.values());
        let through = [stats.sum(|lane| lane.admitted.value()), stats.sum(|lane| lane.delayed.value())];
        for (decision, count) in DECISIONS.iter().zip(through.into_iter().chain(refused)) {
            self.add(decisions, &[labels[0], labels[1], decision], count as f64);
        }
        self.add(clients, labels, stats.control.clients.value() as f64);
        self.add(evicted, labels, stats.control.evicted.value() as f64);
    }

    fn scaler(&mut self, figures: &PoolFigures) {
        for (series, labels, value) in &figures.values {
            self.add(*series, &labels.iter().map(String::as_str).collect::<Vec<_>>(), *value);
        }
        for (series, labels, spans) in &figures.spans {
            self.histogram(*series, &labels.iter().map(String::as_str).collect::<Vec<_>>(), spans);
        }
    }

    fn whole(&mut self, registry: &Registry) {
        for (reason, count) in registry.refusals() {
            self.add(Series::Refusals, &[reason], count as f64);
        }
        let control = &registry.control;
        self.words::<Outcome>(Series::Reloads, &[], &control.reloads.values());
        self.add(Series::ReloadOk, &[], control.reload_ok.value() as f64);
        self.add(Series::ReloadTime, &[], control.reload_time.value());
        self.add(Series::Generation, &[], control.generation.value() as f64);
        self.words::<Outcome>(Series::Resolves, &[], &control.resolves.values());
        self.add(Series::Certificates, &[], control.certificates.value() as f64);
        for (outcome, lines) in LOG_OUTCOMES.iter().zip([registry.log.written(), registry.log.lost()]) {
            self.add(Series::LogLines, &[outcome], lines as f64);
        }
        self.add(Series::Workers, &[], registry.workers() as f64);
        for (worker, open) in registry.open() {
            self.add(Series::WorkerOpen, &[&worker.to_string()], open as f64);
        }
        self.add(Series::BuildIs, &[env!("CARGO_PKG_VERSION")], 1.0);
    }

    fn process(&mut self, process: &Process, started: f64) {
        let figures = [
            (Series::ProcessCpu, process.cpu_seconds),
            (Series::ProcessMemory, process.resident_bytes.map(|bytes| bytes as f64)),
            (Series::ProcessVirtual, process.virtual_bytes.map(|bytes| bytes as f64)),
            (Series::ProcessFds, process.open_fds.map(|count| count as f64)),
            (Series::ProcessMaxFds, process.max_fds.map(|count| count as f64)),
            (Series::ProcessThreads, process.threads.map(|count| count as f64)),
            (Series::ProcessStart, Some(started)),
        ];
        for (series, figure) in figures {
            figure.into_iter().for_each(|figure| self.add(series, &[], figure));
        }
    }

    /// Counts by class. The rare ones appear when they are there.
    fn classes(&mut self, series: Series, labels: &[&str], counts: [u64; Classes::WORDS.len()]) {
        let shown = |class: &str, count: u64| count > 0 || !matches!(class, "1xx" | "other");
        for (class, count) in Classes::WORDS.iter().zip(counts).filter(|(class, count)| shown(class, *count)) {
            self.add(series, &[labels, &[class]].concat(), count as f64);
        }
    }

    fn words<K: Kind>(&mut self, series: Series, labels: &[&str], counts: &[u64]) {
        for (word, count) in K::WORDS.iter().zip(counts) {
            self.add(series, &[labels, &[word]].concat(), *count as f64);
        }
    }

    /// 1 for the word that is so, 0 for the others.
    fn one_of<K: Kind>(&mut self, series: Series, labels: &[&str], is: usize) {
        for (index, word) in K::WORDS.iter().enumerate() {
            self.add(series, &[labels, &[word]].concat(), if index == is { 1.0 } else { 0.0 });
        }
    }

    fn add(&mut self, series: Series, labels: &[&str], value: f64) {
        let mut metric = labelled(series, labels);
        if series.metric().kind == MetricType::COUNTER {
            let mut counter = proto::Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.0[series as usize].push(metric);
    }

    fn histogram(&mut self, series: Series, labels: &[&str], distribution: &Distribution) {
        if distribution.count() == 0 {
            return;
        }
        let bucket = |le: f64, count: u64| {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(le);
            bucket.set_cumulative_count(count);
            bucket
        };
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(distribution.cumulative().map(|(le, count)| bucket(le, count)).collect());
        histogram.set_sample_count(distribution.count());
        histogram.set_sample_sum(distribution.seconds());
        let mut metric = labelled(series, labels);
        metric.set_histogram(histogram);
        self.0[series as usize].push(metric);
    }

    fn families(self) -> Vec<MetricFamily> {
        let family = |(metric, found): (&super::Metric, Vec<proto::Metric>)| {
            let mut family = MetricFamily::default();
            family.set_name(metric.name.to_owned());
            family.set_help(metric.help.to_owned());
            family.set_field_type(metric.kind);
            family.set_metric(found);
            family
        };
        METRICS.iter().zip(self.0).filter(|(_, found)| !found.is_empty()).map(family).collect()
    }
}

fn labelled(series: Series, values: &[&str]) -> proto::Metric {
    let names = series.metric().labels;
    debug_assert_eq!(names.len(), values.len(), "{series:?}");
    let pair = |(name, value): (&&str, &&str)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    proto::Metric::from_label(names.iter().zip(values).map(pair).collect())
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
