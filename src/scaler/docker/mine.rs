use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

use crate::config::model;
use crate::scaler::InstanceId;
use crate::types::Address;

/// Whose it is: what lacks this label with the pool's name is never touched.
pub(super) const POOL: &str = "tidegate.pool";
/// Which of the pool's it is.
pub(super) const INSTANCE: &str = "tidegate.instance";
/// The proxy that made it. For people: whoever leads the pool now takes over what others have made.
pub(super) const OWNER: &str = "tidegate.owner";
/// The hash of the settings that it was made with.
pub(super) const SPEC: &str = "tidegate.spec";
/// The decision that wanted it.
pub(super) const DECISION: &str = "tidegate.decision";
/// The leader's generation that made it.
pub(super) const GENERATION: &str = "tidegate.generation";

/// What a listing says of a container, as far as it matters to us. Words are not checked here: engines have their own.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    id: String,
    #[serde(default)]
    labels: Option<HashMap<String, String>>,
    #[serde(default)]
    state: String,
    #[serde(default)]
    ports: Option<Vec<Port>>,
    #[serde(default)]
    network_settings: Option<Networks>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Port {
    #[serde(default, rename = "IP")]
    ip: String,
    private_port: u16,
    #[serde(default)]
    public_port: u16,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Networks {
    #[serde(default)]
    networks: Option<HashMap<String, Endpoint>>,
}

#[derive(Debug, Deserialize)]
struct Endpoint {
    #[serde(default, rename = "IPAddress")]
    ip: String,
    #[serde(default, rename = "GlobalIPv6Address")]
    ipv6: String,
}

/// What a closer look says of a container.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Inspected {
    pub(super) state: Condition,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Condition {
    #[serde(rename = "OOMKilled")]
    oom_killed: bool,
    exit_code: i64,
    error: String,
    started_at: String,
}

/// A container of ours, by what a listing says of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mine {
    /// The engine's id of the container.
    pub(super) container: String,
    pub(super) instance: InstanceId,
    pub(super) owner: String,
    pub(super) spec: Option<String>,
    pub(super) generation: u64,
    pub(super) state: State,
    pub(super) address: Option<Address>,
}

/// What a container is doing, as far as it matters to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Made, not started.
    Made,
    Runs,
    Paused,
    /// Somebody has asked it to stop.
    Stops,
    Ended,
    /// As good as gone.
    Removing,
}

impl Mine {
    /// None where it is not ours after all.
    pub(super) fn read(listed: Listed, pool: &str, settings: &model::Docker) -> Option<Self> {
        let address = address(&listed, settings);
        let labels = listed.labels?;
        if labels.get(POOL).is_none_or(|name| name != pool) {
            return None;
        }
        let state = match listed.state.as_str() {
            "created" | "configured" | "initialized" | "" => State::Made,
            "paused" => State::Paused,
            // Podman's `stopped` is about to become `exited`, and does not know the exit code yet.
            "stopping" | "stopped" => State::Stops,
            "exited" | "dead" => State::Ended,
            "removing" => State::Removing,
            // `running`, `restarting`; what is not known is held as it is.
            _ => State::Runs,
        };
        Some(Mine {
            container: listed.id,
            instance: labels.get(INSTANCE)?.clone(),
            owner: labels.get(OWNER).cloned().unwrap_or_default(),
            spec: labels.get(SPEC).cloned(),
            generation: labels.get(GENERATION).and_then(|text| text.parse().ok()).unwrap_or(0),
            state,
            address,
        })
    }
}

/// Where it is reached: its own address on the network, or the port of this host that leads to it.
fn address(listed: &Listed, settings: &model::Docker) -> Option<Address> {
    let found = match &settings.network {
        Some(name) => {
            let endpoint = listed.network_settings.as_ref()?.networks.as_ref()?.get(name)?;
            let ip: IpAddr = [&endpoint.ip, &endpoint.ipv6].into_iter().find_map(|text| text.parse().ok())?;
            SocketAddr::new(ip, settings.port)
        }
        None => {
            let ports = listed.ports.iter().flatten().filter(|port| port.private_port == settings.port);
            ports
                .filter_map(|port| Some(SocketAddr::new(port.ip.parse().ok()?, port.public_port)))
                .find(|at| at.ip().is_loopback() && at.port() != 0)?
        }
    };
    Some(Address::Ip(found))
}

/// What only a closer look tells of a container; it stays so while its state does.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Look {
    /// When it was started, in seconds since 1970.
    pub(super) started: Option<f64>,
    /// How it ended.
    pub(super) how: String,
}

impl Look {
    pub(super) fn at(condition: &Condition) -> Self {
        Look { started: seconds(&condition.started_at), how: how(condition) }
    }
}

/// How a container ended, for people.
fn how(condition: &Condition) -> String {
    if condition.oom_killed {
        return "out of memory".to_owned();
    }
    if !condition.error.is_empty() {
        return condition.error.clone();
    }
    let code = condition.exit_code;
    // Shells and engines add 128 to the signal that ended a process.
    let signal = match code - 128 {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        3 => " (SIGQUIT)",
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        15 => " (SIGTERM)",
        _ => "",
    };
    format!("exit code {code}{signal}")
}

/// Seconds since 1970; engines write the year 1 for what has not happened.
pub(super) fn seconds(time: &str) -> Option<f64> {
    let time: jiff::Timestamp = time.parse().ok()?;
    Some(time.as_nanosecond() as f64 / 1e9).filter(|seconds| *seconds > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As an engine lists it.
    fn listed(pool: &str, state: &str) -> Listed {
        let text = serde_json::json!({
            "Id": "0123456789abcdef", "Names": ["/tidegate-tools-3"], "State": state,
            "Labels": { POOL: pool, INSTANCE: "tools-3", OWNER: "proxy-a", SPEC: "feed", GENERATION: "7", "team": "web" },
            "Ports": [
                { "IP": "::", "PrivatePort": 8000, "PublicPort": 9, "Type": "tcp" },
                { "IP": "127.0.0.1", "PrivatePort": 9000, "PublicPort": 10, "Type": "tcp" },
                { "PrivatePort": 8000, "Type": "tcp" },
                { "IP": "127.0.0.1", "PrivatePort": 8000, "PublicPort": 32768, "Type": "tcp" }
            ],
            "NetworkSettings": { "Networks": {
                "apps": { "IPAddress": "172.20.0.3", "GlobalIPv6Address": "" },
                "six": { "IPAddress": "", "GlobalIPv6Address": "fd00::3" },
                "stopped": { "IPAddress": "", "GlobalIPv6Address": "" }
            } }
        });
        serde_json::from_value(text).unwrap()
    }

    fn read(pool: &str, state: &str, network: Option<&str>) -> Option<Mine> {
        let settings = super::super::tests::settings(|docker| docker.network = network.map(str::to_owned));
        Mine::read(listed(pool, state), "tools", &settings)
    }

    #[test]
    fn what_is_not_labelled_ours_is_not_ours() {
        assert!(read("tools", "running", None).is_some());
        assert_eq!(read("tools2", "running", None), None);
        let bare = Listed { labels: None, ..listed("tools", "running") };
        assert_eq!(Mine::read(bare, "tools", &super::super::tests::settings(|_| ())), None);
    }

    #[test]
    fn labels_tell_who_it_is() {
        let mine = read("tools", "running", None).unwrap();
        assert_eq!((mine.instance.as_str(), mine.owner.as_str(), mine.generation), ("tools-3", "proxy-a", 7));
        assert_eq!(mine.spec.as_deref(), Some("feed"));
    }

    #[test]
    fn the_address_is_the_hosts_or_the_networks() {
        for (network, address) in [
            (None, Some("127.0.0.1:32768")),
            (Some("apps"), Some("172.20.0.3:8000")),
            (Some("six"), Some("[fd00::3]:8000")),
            (Some("stopped"), None),
            (Some("other"), None),
        ] {
            let found = read("tools", "running", network).unwrap().address.map(|address| address.to_string());
            assert_eq!(found.as_deref(), address, "{network:?}");
        }
    }

    #[test]
    fn every_state_means_something() {
        for (text, state) in [
            ("created", State::Made),
            ("running", State::Runs),
            ("restarting", State::Runs),
            ("paused", State::Paused),
            ("stopping", State::Stops),
            ("stopped", State::Stops),
            ("something new", State::Runs),
            ("exited", State::Ended),
            ("dead", State::Ended),
            ("removing", State::Removing),
        ] {
            assert_eq!(read("tools", text, None).unwrap().state, state, "{text}");
        }
    }

    #[test]
    fn an_end_is_told_in_words() {
        let ended = |exit_code, oom_killed, error: &str| {
            how(&Condition { exit_code, oom_killed, error: error.to_owned(), ..Default::default() })
        };
        assert_eq!(ended(3, false, ""), "exit code 3");
        assert_eq!(ended(137, false, ""), "exit code 137 (SIGKILL)");
        assert_eq!(ended(137, true, ""), "out of memory");
        assert_eq!(ended(127, false, "exec: not found"), "exec: not found");
    }

    #[test]
    fn a_start_that_never_was_has_no_time() {
        assert_eq!(seconds("2026-11-26T20:30:00.5Z"), Some(1_795_725_000.5));
        assert_eq!(seconds("0001-01-01T00:00:00Z"), None);
        assert_eq!(seconds(""), None);
    }
}
