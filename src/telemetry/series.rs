//! Every metric's name, kind, labels and meaning: defined here and nowhere else. The page and `conf/METRICS.md` come from it.

use prometheus::proto::MetricType;

/// What a metric is called and means.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricType,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

macro_rules! series {
    ($($variant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        /// The metrics, in the order of the page.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Series { $($variant),+ }

        impl Series {
            #[cfg(test)]
            const EACH: &[Series] = &[$(Series::$variant),+];
        }

        /// Every metric there is, in the order of the page.
        pub const METRICS: &[Metric] = &[
            $(Metric { name: $name, kind: MetricType::$kind, labels: &[$($label),*], help: $help }),+
        ];
    };
}

impl Series {
    /// All of them, in the order of the page.
    #[cfg(test)]
    pub(super) const ALL: &[Series] = Self::EACH;

    pub(super) fn metric(self) -> &'static Metric {
        &METRICS[self as usize]
    }
}

series! {
    ListenerRequests = COUNTER "tidegate_listener_requests_total" ["listener", "class"] "Requests answered, by the first digit of their status; a client that left is 499.";
    ListenerInFlight = GAUGE "tidegate_listener_requests_in_flight" ["listener"] "Requests in progress: from the end of their headers to the end of the answer.";
    ListenerAccepted = COUNTER "tidegate_listener_connections_accepted_total" ["listener"] "Connections accepted.";
    ListenerOpen = GAUGE "tidegate_listener_connections_open" ["listener"] "Connections open.";
    ListenerClosed = COUNTER "tidegate_listener_connections_closed_total" ["listener", "reason"] "Connections ended, by why.";
    ListenerHandshakes = COUNTER "tidegate_listener_tls_handshakes_total" ["listener", "outcome"] "TLS handshakes with clients.";
    ListenerReceived = COUNTER "tidegate_listener_received_bytes_total" ["listener"] "Bytes read from clients.";
    ListenerSent = COUNTER "tidegate_listener_sent_bytes_total" ["listener"] "Bytes written to clients.";

    RouteRequests = COUNTER "tidegate_route_requests_total" ["route", "class"] "Requests answered, by the first digit of their status; a client that left is 499.";
    RouteInFlight = GAUGE "tidegate_route_requests_in_flight" ["route"] "Requests in progress.";
    RouteLatency = HISTOGRAM "tidegate_route_request_duration_seconds" ["route"] "From the end of a request's headers to the last byte of its answer.";
    RouteReceived = COUNTER "tidegate_route_received_bytes_total" ["route"] "Bytes of request bodies.";
    RouteSent = COUNTER "tidegate_route_sent_bytes_total" ["route"] "Bytes of response bodies.";

    PoolUpstreams = GAUGE "tidegate_pool_upstreams" ["pool", "state"] "Upstreams in each state.";
    PoolRetries = COUNTER "tidegate_pool_retries_total" ["pool"] "Attempts beyond a request's first.";
    PoolRetriesDenied = COUNTER "tidegate_pool_retries_denied_total" ["pool"] "Retries not made because the retry budget was spent.";
    PoolUnfit = COUNTER "tidegate_pool_unfit_total" ["pool"] "Picks that failed because no upstream was fit.";
    PoolFull = COUNTER "tidegate_pool_full_total" ["pool"] "Picks that failed because every fit upstream had its max_connections.";
    PoolStuck = COUNTER "tidegate_pool_sticky_requests_total" ["pool"] "Requests that stickiness sent to their upstream.";
    PoolMoved = COUNTER "tidegate_pool_sticky_moved_total" ["pool"] "Requests whose sticky upstream was gone or unfit, so that they moved to another.";

    PoolArrivals = COUNTER "tidegate_pool_arrivals_total" ["pool"] "Requests that came to the pool, each once; of a pool that may sleep without those that do not wake it.";
    PoolCompletions = COUNTER "tidegate_pool_completions_total" ["pool"] "Requests that have given their last slot back.";
    PoolHeld = COUNTER "tidegate_pool_held_seconds_total" ["pool"] "How long slots were held, counted when they are given back: its rate is the mean number of requests at upstreams.";
    PoolSaturated = COUNTER "tidegate_pool_saturated_total" ["pool"] "Requests refused for want of room: queue full, waited too long, no upstream fit, every upstream full, connections refused.";
    PoolErrors = COUNTER "tidegate_pool_errors_total" ["pool"] "Answers of 500 and above by upstreams.";
    PoolQueue = GAUGE "tidegate_pool_queue_requests" ["pool"] "Requests that wait for a slot.";
    PoolOldestWait = GAUGE "tidegate_pool_queue_oldest_wait_seconds" ["pool"] "How long the request has waited that has waited longest.";
    PoolWaited = COUNTER "tidegate_pool_queue_requests_total" ["pool", "result"] "Requests that had to wait for a slot, by what became of them.";
    PoolWait = HISTOGRAM "tidegate_pool_queue_wait_seconds" ["pool"] "How long requests waited for a slot that were given one; those that did not have to wait are not in it.";

    UpstreamRequests = COUNTER "tidegate_upstream_requests_total" ["pool", "upstream", "class"] "Answers of the upstream, by the first digit of their status.";
    UpstreamInFlight = GAUGE "tidegate_upstream_requests_in_flight" ["pool", "upstream"] "Requests in progress at the upstream.";
    UpstreamLatency = HISTOGRAM "tidegate_upstream_response_seconds" ["pool", "upstream"] "From sending a request to the headers of the upstream's answer.";
    UpstreamFaults = COUNTER "tidegate_upstream_faults_total" ["pool", "upstream", "fault"] "What upstreams did wrong: attempts that failed, by how, and what they said unasked.";
    UpstreamConnects = COUNTER "tidegate_upstream_connections_made_total" ["pool", "upstream"] "Connections made to the upstream for requests.";
    UpstreamOpen = GAUGE "tidegate_upstream_connections_open" ["pool", "upstream"] "Connections open to the upstream, idle ones among them.";
    UpstreamIdle = GAUGE "tidegate_upstream_connections_idle" ["pool", "upstream"] "Idle connections kept to the upstream.";
    UpstreamSent = COUNTER "tidegate_upstream_sent_bytes_total" ["pool", "upstream"] "Bytes of request bodies sent to the upstream.";
    UpstreamReceived = COUNTER "tidegate_upstream_received_bytes_total" ["pool", "upstream"] "Bytes of response bodies received from the upstream.";
    UpstreamStateIs = GAUGE "tidegate_upstream_state" ["pool", "upstream", "state"] "1 for the state the upstream is in, 0 for the others.";
    UpstreamChanges = COUNTER "tidegate_upstream_state_changes_total" ["pool", "upstream", "state"] "Changes of state, by the new one.";
    UpstreamChecks = COUNTER "tidegate_upstream_health_checks_total" ["pool", "upstream", "outcome"] "Active health checks.";
    UpstreamEjections = COUNTER "tidegate_upstream_ejections_total" ["pool", "upstream"] "Times the upstream was sent away for failing requests.";
    UpstreamBreaker = COUNTER "tidegate_upstream_breaker_opened_total" ["pool", "upstream"] "Times the upstream's circuit breaker opened.";
    UpstreamCircuit = GAUGE "tidegate_upstream_breaker_phase" ["pool", "upstream", "phase"] "1 for the phase the upstream's circuit breaker is in, 0 for the others; absent without a breaker.";
    UpstreamWeight = GAUGE "tidegate_upstream_weight" ["pool", "upstream"] "The upstream's weight, slow start applied.";
    UpstreamEwma = GAUGE "tidegate_upstream_ewma_seconds" ["pool", "upstream"] "The peak-EWMA latency that balance = \"ewma\" goes by.";

    LimitDecisions = COUNTER "tidegate_limit_decisions_total" ["route", "limit", "decision"] "What a limit decided: admitted, delayed, or refused for its rate, requests or connections. limit is its number in the route, from 0.";
    LimitClients = GAUGE "tidegate_limit_clients" ["route", "limit"] "Clients that the limit remembers.";
    LimitEvicted = COUNTER "tidegate_limit_clients_evicted_total" ["route", "limit"] "Clients forgotten because max_clients was reached.";

    McpOperation = HISTOGRAM "mcp_server_operation_duration_seconds" ["pool", "mcp_method_name", "gen_ai_tool_name", "error_type"] "From the end of an MCP request's headers to the last byte of its answer. Tools are named once a server has listed them, others are other; error_type is a JSON-RPC code, tool_error, http_error or cancelled, and absent where all went well.";
    McpSessions = GAUGE "tidegate_mcp_sessions" ["pool", "upstream"] "MCP sessions at the upstream that this proxy remembers.";
    McpStreams = GAUGE "tidegate_mcp_streams" ["pool", "upstream"] "Event streams open at the upstream.";
    McpMoves = COUNTER "tidegate_mcp_sessions_moved_total" ["pool"] "MCP sessions that were begun anew at another upstream.";
    McpLimitDecisions = COUNTER "tidegate_mcp_limit_decisions_total" ["pool", "limit", "decision"] "What a limit of MCP requests decided. limit is its number in the pool, from 0.";
    McpLimitClients = GAUGE "tidegate_mcp_limit_clients" ["pool", "limit"] "Clients, and where tools are named clients with a tool, that the limit remembers.";
    McpLimitEvicted = COUNTER "tidegate_mcp_limit_clients_evicted_total" ["pool", "limit"] "Those forgotten because max_clients was reached.";

    ScalerDesired = GAUGE "tidegate_scaler_desired" ["pool"] "Instances there are to be.";
    ScalerRaw = GAUGE "tidegate_scaler_raw_desired" ["pool"] "Instances that the load alone asks for, before all other sources and limits.";
    ScalerInstances = GAUGE "tidegate_scaler_instances" ["pool", "state"] "Instances by what they are doing.";
    ScalerMin = GAUGE "tidegate_scaler_min" ["pool"] "The fewest instances allowed.";
    ScalerMax = GAUGE "tidegate_scaler_max" ["pool"] "The most instances allowed.";
    ScalerLoad = GAUGE "tidegate_scaler_load_erlangs" ["pool"] "Offered load: requests in service at once.";
    ScalerForecast = GAUGE "tidegate_scaler_forecast_erlangs" ["pool"] "Offered load expected by the time that new instances are ready.";
    ScalerHeadroom = GAUGE "tidegate_scaler_headroom_slots" ["pool"] "Slots kept above the forecast.";
    ScalerBacklog = GAUGE "tidegate_scaler_backlog_work_seconds" ["pool"] "Work that will still wait when new instances are ready, in seconds of service.";
    ScalerCapacity = GAUGE "tidegate_scaler_capacity_per_instance" ["pool", "source"] "Requests that one instance takes at once, configured or learned.";
    ScalerLead = GAUGE "tidegate_scaler_lead_seconds" ["pool"] "From ordering an instance to its first good check: what decisions go by.";
    ScalerHold = GAUGE "tidegate_scaler_hold_seconds" ["pool"] "How long instances too many are kept.";
    ScalerDecisions = COUNTER "tidegate_scaler_decisions_total" ["pool", "direction", "reason", "applied"] "Decisions that changed, or would have changed, the number of instances.";
    ScalerLimited = COUNTER "tidegate_scaler_limited_total" ["pool", "limit"] "Decisions kept from being as wanted, by what kept them.";
    ScalerReversals = COUNTER "tidegate_scaler_reversals_total" ["pool"] "Changes of direction within ten minutes.";
    ScalerRollbacks = COUNTER "tidegate_scaler_rollbacks_total" ["pool"] "Steps taken back because they had made things worse.";
    ScalerStarts = COUNTER "tidegate_scaler_starts_total" ["pool", "result"] "Instances that became ready, and starts that failed.";
    ScalerStartSeconds = HISTOGRAM "tidegate_scaler_start_seconds" ["pool"] "From ordering an instance to its first good check.";
    ScalerStops = COUNTER "tidegate_scaler_stops_total" ["pool", "reason"] "Instances that ended, by why.";
    ScalerDrainSeconds = HISTOGRAM "tidegate_scaler_drain_seconds" ["pool"] "How long instances took to finish what they had.";
    ScalerSessionsCut = COUNTER "tidegate_scaler_sessions_cut_total" ["pool"] "Sessions whose instance went before they had ended.";
    ScalerInstanceSeconds = COUNTER "tidegate_scaler_instance_seconds_total" ["pool", "state"] "Time that instances have spent in each state: what they cost.";
    ScalerDriverErrors = COUNTER "tidegate_scaler_driver_errors_total" ["pool", "op"] "Calls of the driver that failed.";
    ScalerCondition = GAUGE "tidegate_scaler_condition" ["pool", "code"] "1 for each condition that needs attention now.";
    ScalerLeader = GAUGE "tidegate_scaler_leader" [] "1 where this proxy decides about instances.";

    Refusals = COUNTER "tidegate_refusals_total" ["reason"] "Answers given instead of an upstream's, by why.";
    Reloads = COUNTER "tidegate_reloads_total" ["outcome"] "Edits of the configuration taken over and refused.";
    ReloadOk = GAUGE "tidegate_last_reload_successful" [] "1 if the last edit was taken over, 0 if it was refused.";
    ReloadTime = GAUGE "tidegate_last_reload_success_timestamp_seconds" [] "When an edit was last taken over, in seconds since 1970.";
    Generation = GAUGE "tidegate_config_generation" [] "The number of the configuration in use; it grows with each change, also of health and names.";
    Resolves = COUNTER "tidegate_resolves_total" ["outcome"] "Resolutions of upstreams' names.";
    Certificates = COUNTER "tidegate_certificate_reloads_total" [] "Times that a listener's certificates became others; such that cannot be used are refused edits.";
    LogLines = COUNTER "tidegate_access_log_lines_total" ["outcome"] "Access log lines written, and lost because the target was full, broken or too slow.";
    Workers = GAUGE "tidegate_workers" [] "Worker threads.";
    WorkerOpen = GAUGE "tidegate_worker_connections_open" ["worker"] "Connections of clients open, by the worker thread that serves them.";
    BuildIs = GAUGE "tidegate_build_info" ["version"] "Always 1; the label says which Tidegate this is.";

    ProcessCpu = COUNTER "process_cpu_seconds_total" [] "User and system CPU time spent.";
    ProcessMemory = GAUGE "process_resident_memory_bytes" [] "Memory in use.";
    ProcessVirtual = GAUGE "process_virtual_memory_bytes" [] "Address space in use.";
    ProcessFds = GAUGE "process_open_fds" [] "File descriptors open.";
    ProcessMaxFds = GAUGE "process_max_fds" [] "File descriptors that may be open.";
    ProcessThreads = GAUGE "process_threads" [] "Threads.";
    ProcessStart = GAUGE "process_start_time_seconds" [] "When the process started, in seconds since 1970.";
}

/// The table of all metrics, for people: the text of `conf/METRICS.md`.
pub fn reference() -> String {
    let mut text = String::from(HEAD);
    for metric in METRICS {
        let kind = format!("{:?}", metric.kind).to_lowercase();
        let labels = metric.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        text.push_str(&format!("| `{}` | {kind} | {labels} | {} |\n", metric.name, metric.help));
    }
    text.push_str(VALUES);
    for (label, words) in label_values() {
        let words = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        text.push_str(&format!("| {label} | {words} |\n"));
    }
    text
}

const HEAD: &str = "\
# Metrics

`GET /metrics` on the admin listener, in Prometheus's text form. This page is made from the program's own table
(`src/telemetry/series.rs`); do not edit it.

Each kind of thing (listeners, routes, pools, upstreams, limits) has at most `admin.max_series` names of its own; those beyond share
the label value `other`, for which states, weights and EWMA are not given; pools with a scaler and their upstreams always have their
own. Counts survive reloads as long as the name does. A histogram appears with its first request.

| metric | type | labels | meaning |
|---|---|---|---|
";

const VALUES: &str = "
## Values of labels

| label | values |
|---|---|
";

/// The labels whose values are known beforehand.
fn label_values() -> Vec<(&'static str, Vec<&'static str>)> {
    use super::kind::{Closed, Fault, Outcome, Waited};
    use super::{Classes, Kind};
    use crate::health::{Phase, State};
    vec![
        ("`class`", Classes::WORDS[1..].to_vec()),
        ("`decision`", DECISIONS.to_vec()),
        ("`fault`", Fault::WORDS.to_vec()),
        ("`outcome`", Outcome::WORDS.to_vec()),
        ("`outcome` of log lines", LOG_OUTCOMES.to_vec()),
        ("`reason` of closed connections", Closed::WORDS.to_vec()),
        ("`result`", Waited::WORDS.to_vec()),
        ("`phase`", Phase::WORDS.to_vec()),
        ("`state`", <State as Kind>::WORDS.to_vec()),
    ]
}

/// The values of `decision`; the refusals in the order of [`crate::limit::Reason`].
pub(super) const DECISIONS: [&str; 5] =
    ["admitted", "delayed", "refused_rate", "refused_requests", "refused_connections"];
/// The values of `outcome` for access log lines.
pub(super) const LOG_OUTCOMES: [&str; 2] = ["written", "lost"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        let mut names = std::collections::BTreeSet::new();
        for metric in METRICS {
            assert!(names.insert(metric.name), "{} twice", metric.name);
            let known = ["tidegate_", "process_", "mcp_server_"];
            assert!(known.iter().any(|start| metric.name.starts_with(start)), "{}", metric.name);
            assert!(metric.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == MetricType::COUNTER, "{}", metric.name);
            assert!(metric.help.ends_with('.') && !metric.help.contains('|'), "{}", metric.name);
        }
    }

    #[test]
    fn the_reference_page_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/METRICS.md");
        if std::env::var_os("TIDEGATE_BLESS").is_some() {
            std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/conf")).unwrap();
            std::fs::write(path, reference()).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == reference(),
            "conf/METRICS.md is stale; TIDEGATE_BLESS=1 cargo test --lib reference_page writes it anew"
        );
    }
}
