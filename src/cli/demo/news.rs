use crate::admin::model::{PoolStatus, Status, UpstreamStatus};
use crate::cli::status::number;
use crate::health::State;

/// What has happened between two looks, a line for each thing.
///
/// Why not the log: it is written for those who know the inside, and a look can miss nothing that lasts.
pub(super) fn news(before: &Status, after: &Status) -> Vec<String> {
    let mut lines = Vec::new();
    if after.reloads_refused > before.reloads_refused {
        lines.push("configuration refused; the one before goes on".to_owned());
        lines.extend(
            after.last_reload.problems.trim_end().lines().map(|line| format!("    {line}").trim_end().to_owned()),
        );
    }
    if after.reloads_accepted > before.reloads_accepted {
        let generation = after.last_reload.generation;
        lines.push(format!("configuration reloaded, in force as generation {generation}"));
        lines.extend(after.last_reload.changes.iter().map(|line| format!("    {line}")));
    }
    for pool in &after.pools {
        let known = before.pools.iter().find(|known| known.name == pool.name);
        pool_news(known, pool, &mut lines);
    }
    lines
}

fn pool_news(before: Option<&PoolStatus>, after: &PoolStatus, lines: &mut Vec<String>) {
    let find = |pool: &PoolStatus, address: &str| pool.upstreams.iter().find(|known| known.address == address).cloned();
    for upstream in &after.upstreams {
        let name = format!("{} {}", after.name, upstream.address);
        let Some(known) = before.and_then(|pool| find(pool, &upstream.address)) else {
            lines.push(format!("{name} is new: {}", upstream.state));
            continue;
        };
        if known.state != upstream.state {
            lines.push(format!("{name} {}", change(&known, upstream)));
        } else if known.configured_weight != upstream.configured_weight {
            let weight = number(f64::from(upstream.configured_weight));
            lines.push(format!("{name} has weight {weight} now"));
        }
    }
    for gone in before.iter().flat_map(|pool| &pool.upstreams) {
        if find(after, &gone.address).is_none() {
            lines.push(format!("{} {} is gone", after.name, gone.address));
        }
    }
}

fn change(before: &UpstreamStatus, after: &UpstreamStatus) -> String {
    let why = if after.reason.is_empty() { String::new() } else { format!(" ({})", after.reason) };
    match (before.state, after.state) {
        (State::Down, State::Ready) => format!("has recovered{why}"),
        (_, State::Down) => format!("is down{why}"),
        (_, State::Ready) => format!("takes requests{why}"),
        (_, State::Draining) => format!("drains, {} in flight{why}", after.in_flight),
        (_, State::Drained) => format!("is drained{why}"),
        (_, state) => format!("is in {state}{why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::model::Verdict;

    fn upstream(address: &str, state: State, reason: &str) -> UpstreamStatus {
        UpstreamStatus {
            address: address.to_owned(),
            state,
            reason: reason.to_owned(),
            since_seconds: 0.0,
            in_flight: 2,
            streams: 0,
            sessions: 0,
            weight: 1.0,
            configured_weight: 1,
            backup: false,
            max_connections: None,
            ewma_seconds: 0.0,
            requests: 0,
            errors: 0,
            deadline_seconds: None,
            removed: false,
        }
    }

    fn status(upstreams: Vec<UpstreamStatus>) -> Status {
        Status {
            version: String::new(),
            pid: 1,
            uptime_seconds: 0.0,
            config_file: None,
            generation: 1,
            workers: 1,
            stopping: false,
            requests: 0,
            in_flight: 0,
            reloads_accepted: 1,
            reloads_refused: 0,
            last_reload: Verdict {
                accepted: true,
                generation: 1,
                at: 0.0,
                cause: "start".to_owned(),
                problems: String::new(),
                changes: Vec::new(),
            },
            listeners: Vec::new(),
            pools: vec![PoolStatus { name: "p".to_owned(), balance: String::new(), panic: false, upstreams }],
        }
    }

    #[test]
    fn each_change_is_a_line_and_no_change_is_none() {
        let before = status(vec![
            upstream("a:1", State::Ready, "1 check passed"),
            upstream("b:1", State::Down, "refused"),
            upstream("c:1", State::Ready, ""),
            upstream("d:1", State::Drained, ""),
        ]);
        assert!(news(&before, &before).is_empty());
        let mut after = status(vec![
            upstream("a:1", State::Down, "2 checks in a row failed"),
            upstream("b:1", State::Ready, ""),
            upstream("c:1", State::Draining, "asked to"),
            upstream("e:1", State::Starting, ""),
        ]);
        after.reloads_refused = 1;
        after.last_reload.problems = "error: no\n --> t.toml:1:1\n".to_owned();
        let expected = [
            "configuration refused; the one before goes on",
            "    error: no",
            "     --> t.toml:1:1",
            "p a:1 is down (2 checks in a row failed)",
            "p b:1 has recovered",
            "p c:1 drains, 2 in flight (asked to)",
            "p e:1 is new: starting",
            "p d:1 is gone",
        ];
        assert_eq!(news(&before, &after), expected);
    }
}
