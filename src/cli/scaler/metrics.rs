//! The metrics that the dashboard and the rules are written with. The scaler exports exactly these.
//!
//! An instance is never a label: instances come and go, and each would leave its series behind.

/// A metric's name, its kind (`gauge`, `counter`, `histogram`) and its labels.
pub(super) type Metric = (&'static str, &'static str, &'static [&'static str]);

/// What the scaler exports.
pub(super) const SCALER: &[Metric] = &[
    // Instances that are to be, limits applied.
    ("tidegate_scaler_desired", "gauge", &["pool"]),
    // Instances that the load alone asks for.
    ("tidegate_scaler_raw_desired", "gauge", &["pool"]),
    // Instances in each state: ready, starting, probing, warming, draining, stopping, backoff, …
    ("tidegate_scaler_instances", "gauge", &["pool", "state"]),
    ("tidegate_scaler_min", "gauge", &["pool"]),
    ("tidegate_scaler_max", "gauge", &["pool"]),
    // Offered load now, in requests in service at once.
    ("tidegate_scaler_load_erlangs", "gauge", &["pool"]),
    // Requests that one instance takes at once.
    ("tidegate_scaler_capacity_per_instance", "gauge", &["pool"]),
    // Slots kept above the forecast: its own errors and square-root staffing.
    ("tidegate_scaler_headroom_slots", "gauge", &["pool"]),
    // Work that waits, in seconds of service.
    ("tidegate_scaler_backlog_work_seconds", "gauge", &["pool"]),
    // Offered load when new capacity lands.
    ("tidegate_scaler_forecast_erlangs", "gauge", &["pool"]),
    // The start-up time gone by.
    ("tidegate_scaler_lead_seconds", "gauge", &["pool"]),
    // How long too many are kept.
    ("tidegate_scaler_hold_seconds", "gauge", &["pool"]),
    // Decisions that wanted a change: direction is up or down, applied is true or false.
    ("tidegate_scaler_decisions_total", "counter", &["pool", "direction", "reason", "applied"]),
    // Decisions that a limit changed.
    ("tidegate_scaler_limited_total", "counter", &["pool", "limit"]),
    // Changes of direction within ten minutes.
    ("tidegate_scaler_reversals_total", "counter", &["pool"]),
    // Starts: result is ready or failed.
    ("tidegate_scaler_starts_total", "counter", &["pool", "result"]),
    // From the order to the first good check.
    ("tidegate_scaler_start_seconds", "histogram", &["pool"]),
    ("tidegate_scaler_stops_total", "counter", &["pool", "reason"]),
    // From the drain's start to its end.
    ("tidegate_scaler_drain_seconds", "histogram", &["pool"]),
    // Sessions whose instance went before they ended.
    ("tidegate_scaler_sessions_cut_total", "counter", &["pool"]),
    ("tidegate_scaler_rollbacks_total", "counter", &["pool"]),
    // What is paid for.
    ("tidegate_scaler_instance_seconds_total", "counter", &["pool", "state"]),
    // 1 where this proxy decides.
    ("tidegate_scaler_leader", "gauge", &[]),
    ("tidegate_scaler_driver_errors_total", "counter", &["pool", "op"]),
    // 1 for each condition that holds.
    ("tidegate_scaler_condition", "gauge", &["pool", "code"]),
];

/// What the request path exports that dashboard and rules use.
pub(super) const PATH: &[Metric] = &[
    ("tidegate_pool_queue_requests", "gauge", &["pool"]),
    ("tidegate_pool_queue_oldest_wait_seconds", "gauge", &["pool"]),
    ("tidegate_pool_queue_requests_total", "counter", &["pool", "result"]),
    ("tidegate_pool_queue_wait_seconds", "histogram", &["pool"]),
    ("tidegate_upstream_requests_total", "counter", &["pool", "upstream", "class"]),
    ("tidegate_upstream_requests_in_flight", "gauge", &["pool", "upstream"]),
    ("tidegate_upstream_response_seconds", "histogram", &["pool", "upstream"]),
];

/// The names of our metrics in a text that are none of these, histograms' parts included.
#[cfg(test)]
pub(super) fn strange(text: &str) -> Vec<String> {
    let known = |name: &str| {
        SCALER.iter().chain(PATH).any(|(metric, kind, _)| match *kind {
            "histogram" => ["_bucket", "_sum", "_count"].iter().any(|part| name == format!("{metric}{part}")),
            _ => name == *metric,
        })
    };
    let ours = |word: &&str| {
        word.starts_with("tidegate_scaler_")
            || word.starts_with("tidegate_pool_")
            || word.starts_with("tidegate_upstream_")
    };
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(ours).filter(|word| !known(word)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn panels() -> Vec<Value> {
        let board: Value = serde_json::from_str(crate::cli::scaler::DASHBOARD).unwrap();
        board["panels"].as_array().unwrap().clone()
    }

    #[test]
    fn the_dashboard_asks_for_metrics_that_there_are() {
        let mut asked = 0;
        for panel in panels() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let expr = target["expr"].as_str().unwrap();
                assert_eq!(strange(expr), [""; 0], "{}", panel["title"]);
                let (open, close) = (expr.matches(['(', '{', '[']).count(), expr.matches([')', '}', ']']).count());
                assert_eq!(open, close, "{}: {expr}", panel["title"]);
                asked += 1;
            }
        }
        assert!(asked > 30, "{asked}");
    }

    #[test]
    fn the_dashboard_shows_every_metric_of_the_scaler() {
        let text = crate::cli::scaler::DASHBOARD;
        let hidden: Vec<&str> = SCALER.iter().map(|(name, ..)| *name).filter(|name| !text.contains(name)).collect();
        // Who leads is no curve; the alert is what matters.
        assert_eq!(hidden, ["tidegate_scaler_leader"]);
    }

    #[test]
    fn panels_do_not_lie_on_one_another() {
        let place = |panel: &Value| ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        let places: Vec<[u64; 4]> = panels().iter().map(place).collect();
        for (index, [x, y, w, h]) in places.iter().enumerate() {
            assert!(x + w <= 24);
            for [ox, oy, ow, oh] in &places[..index] {
                assert!(x + w <= *ox || ox + ow <= *x || y + h <= *oy || oy + oh <= *y, "{x},{y} and {ox},{oy}");
            }
        }
    }
}
